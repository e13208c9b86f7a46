//! Objects: in exact mode every one that lives, oldest first; of samples a histogram of age by size.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use tailbeam_probes::record::heap::Sample;

use super::words::ns;
use super::{Leaks, Page, places};
use crate::render::export::owner_name;
use crate::render::units::{bytes, count};

/// Writes the objects.
///
/// # Errors
/// Those of `out`.
pub fn objects(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Live objects  run {}  {}\n", leaks.run, leaks.sampling())?;
    match leaks.snapshot.sampler.exact {
        true => each(leaks, page, out),
        false => histogram(leaks, page, out),
    }
}

fn each(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let snapshot = leaks.snapshot;
    let mut samples: Vec<&Sample> = snapshot.samples.iter().collect();
    samples.sort_by_key(|sample| (sample.born_ns, sample.address));
    let mut table = Table::new();
    let header = ["address", "bytes", "age", "grown", "core", "agent", "function", "line"];
    table.load_style(presets::NOTHING).set_header(header);
    for sample in samples.iter().take(page.top) {
        let stack = leaks.stack_of(sample.site).map(|index| &leaks.profile.stacks[index]);
        let place = stack.map(|stack| places(leaks.profile, stack).swap_remove(0));
        let address = match sample.address {
            0 => "unknown".to_owned(),
            address => format!("{address:#x}"),
        };
        table.add_row([
            address,
            count(sample.size),
            ns(snapshot.at_ns.saturating_sub(sample.born_ns)),
            sample.grown.to_string(),
            sample.core.to_string(),
            owner_name(snapshot, sample.owner),
            place.as_ref().map_or_else(String::new, |place| place.name.clone()),
            place.map_or_else(String::new, |place| place.line),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.to_string().lines() {
        writeln!(out, "{}", page.fit(line.trim_end()))?;
    }
    if samples.len() > page.top {
        let more = count((samples.len() - page.top) as u64);
        writeln!(out, "{more} more (--top {})", samples.len())?;
    }
    let sum: u64 = samples.iter().map(|sample| sample.size).sum();
    writeln!(out, "\n{} objects live, {} bytes requested", count(samples.len() as u64), count(sum))
}

/// Octaves of age in seconds, from below one.
fn octave(sample: &Sample, at_ns: u64) -> u32 {
    let seconds = at_ns.saturating_sub(sample.born_ns) / 1_000_000_000;
    if seconds == 0 { 0 } else { seconds.ilog2() + 1 }
}

fn histogram(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let snapshot = leaks.snapshot;
    let mut cells: BTreeMap<(u32, u64), i64> = BTreeMap::new();
    let mut classes: BTreeSet<u64> = BTreeSet::new();
    for (sample, amount) in snapshot.samples.iter().zip(&leaks.profile.by_sample) {
        let class = sample.size.max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
        classes.insert(class);
        *cells.entry((octave(sample, snapshot.at_ns), class)).or_default() += amount.bytes;
    }
    writeln!(out, "Bytes by age (rows) and largest size (columns); every object needs exact mode")?;
    let mut table = Table::new();
    let names = classes.iter().map(|&class| bytes(class as f64));
    let header = std::iter::once("age".to_owned()).chain(names).chain(["all".to_owned()]);
    table.load_style(presets::NOTHING).set_header(header);
    let octaves: BTreeSet<u32> = cells.keys().map(|(octave, _)| *octave).collect();
    for octave in octaves {
        let from = if octave == 0 { 0 } else { 1u64 << (octave - 1) };
        let name = match octave {
            0 => "below 1 s".to_owned(),
            _ => format!("from {}", ns(from.saturating_mul(1_000_000_000))),
        };
        let values: Vec<i64> = classes
            .iter()
            .map(|&class| cells.get(&(octave, class)).copied().unwrap_or(0))
            .collect();
        let cell = |value: &i64| if *value == 0 { "·".to_owned() } else { bytes(*value as f64) };
        let all: i64 = values.iter().sum();
        table.add_row(std::iter::once(name).chain(values.iter().map(cell)).chain([cell(&all)]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.to_string().lines() {
        writeln!(out, "{}", page.fit(line.trim_end()))?;
    }
    Ok(())
}
