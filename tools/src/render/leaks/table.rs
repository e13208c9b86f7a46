//! Tables: the live heap by site, agent, core or size class, and the difference to a base by site. Bytes
//! are whole and not abbreviated, so that they can be compared with an export's.

use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use tailbeam_probes::analyse::profile::{Amount, HeapProfile};

use super::rows::{By, Row, rows};
use super::words::percent;
use super::{Leaks, Page, places};
use crate::render::units::count;

fn whole(value: i64) -> String {
    let digits = count(value.unsigned_abs());
    if value < 0 { format!("-{digits}") } else { digits }
}

/// A table with `right` columns of figures first. On a page that is too narrow the names, which follow
/// the figures or the verdict, lose their beginnings; what then is too long is cut.
fn print(
    page: Page,
    header: &[&str],
    right: usize,
    mut lines: Vec<Vec<String>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut drawn = draw(header, right, &lines);
    let widest = drawn.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or(0);
    let names = header.iter().position(|name| *name == "function");
    if let (Some(width), Some(names)) = (page.width.filter(|&width| widest > width), names) {
        let longest = lines.iter().map(|line| line[names].chars().count()).max().unwrap_or(0);
        let room = longest.saturating_sub(widest - width).max(16);
        for line in &mut lines {
            line[names] = ending(&line[names], room);
        }
        drawn = draw(header, right, &lines);
    }
    for line in drawn.lines() {
        writeln!(out, "{}", page.fit(line.trim_end()))?;
    }
    Ok(())
}

fn draw(header: &[&str], right: usize, lines: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for line in lines {
        table.add_row(line);
    }
    for column in table.column_iter_mut().take(right) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The last `room` characters of a name: the end is what tells functions apart.
fn ending(name: &str, room: usize) -> String {
    let all = name.chars().count();
    match all > room {
        true => {
            let kept: String = name.chars().skip(all + 1 - room).collect();
            format!("…{kept}")
        }
        false => name.to_owned(),
    }
}

/// Writes the table of the live heap.
///
/// # Errors
/// Those of `out`.
pub fn table(leaks: &Leaks<'_>, by: By, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let rows = rows(leaks, by);
    let total = leaks.profile.live_total();
    writeln!(out, "Live heap by {}  run {}  {}\n", by.name(), leaks.run, leaks.sampling())?;
    let share = |row: &Row| match total.bytes {
        0 => "-".to_owned(),
        all => percent(row.live.bytes as f64 / all as f64),
    };
    let exact = |row: &Row, objects: bool| {
        let figure = row.exact.map(|(bytes, n)| if objects { n } else { bytes });
        figure.map_or_else(|| "unknown".to_owned(), count)
    };
    let shown = rows.iter().take(page.top);
    let lines = shown.map(|row| {
        let mut line = vec![whole(row.live.bytes), whole(row.live.objects), share(row)];
        let verdict = row.verdict.unwrap_or("-").to_owned();
        match by {
            By::Site => {
                line.push(row.allocated.map_or_else(|| "-".to_owned(), |a| whole(a.bytes)));
                line.extend([row.key.to_string(), verdict, row.name.clone(), row.line.clone()]);
            }
            By::Agent => line.extend([count(row.sites), row.name.clone(), verdict]),
            By::Core => line.extend([count(row.sites), row.name.clone()]),
            By::Size => {
                line.extend([exact(row, false), exact(row, true), count(row.sites)]);
                line.push(format!("up to {} B", count(row.key)));
            }
        }
        line
    });
    let (header, right): (&[&str], usize) = match by {
        By::Site => {
            (&["bytes", "objects", "share", "allocated", "site", "verdict", "function", "line"], 5)
        }
        By::Agent => (&["bytes", "objects", "share", "sites", "agent", "verdict"], 4),
        By::Core => (&["bytes", "objects", "share", "sites", "core"], 5),
        By::Size => {
            (&["bytes", "objects", "share", "exact bytes", "exact objects", "sites", "class"], 6)
        }
    };
    print(page, header, right, lines.collect(), out)?;
    left_out(rows.len(), page, out)?;
    writeln!(out, "\n{} bytes in {} objects live", whole(total.bytes), whole(total.objects))?;
    leaks.caveats().iter().try_for_each(|caveat| writeln!(out, "  ! {caveat}"))
}

fn left_out(rows: usize, page: Page, out: &mut dyn Write) -> io::Result<()> {
    match rows.checked_sub(page.top) {
        Some(more) if more > 0 => writeln!(out, "{} more rows (--top {rows})", count(more as u64)),
        _ => Ok(()),
    }
}

/// One stack before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) stack: usize,
    pub(crate) before: Amount,
    pub(crate) after: Amount,
}

/// A profile less its base, and the live heap by stack before and after, the largest change first.
pub(crate) fn changes(now: &HeapProfile, base: &HeapProfile) -> (HeapProfile, Vec<Change>) {
    let difference = now.clone().less(base);
    let mut sums: BTreeMap<usize, Change> = BTreeMap::new();
    for (index, holding) in difference.live.iter().enumerate() {
        let stack = holding.stack;
        let empty = Change { stack, before: Amount::default(), after: Amount::default() };
        let change = sums.entry(stack).or_insert(empty);
        match index < now.live.len() {
            true => change.after = change.after.plus(holding.amount),
            false => change.before = change.before.less(holding.amount),
        }
    }
    let mut changes: Vec<Change> = sums.into_values().collect();
    let size = |change: &Change| change.after.bytes.abs_diff(change.before.bytes);
    changes.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| a.stack.cmp(&b.stack)));
    (difference, changes)
}

/// Writes what changed since the base, by site.
///
/// # Errors
/// Those of `out`.
pub fn diff(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let Some((name, base)) = leaks.base else { return Ok(()) };
    let (difference, changes) = changes(leaks.profile, base);
    writeln!(out, "Live heap of run {} less {name}  {}\n", leaks.run, leaks.sampling())?;
    let lines = changes.iter().take(page.top).map(|change| {
        let delta = change.after.less(change.before);
        let sign = if delta.bytes > 0 { "+" } else { "" };
        let place = places(&difference, &difference.stacks[change.stack]).swap_remove(0);
        vec![
            format!("{sign}{}", whole(delta.bytes)),
            whole(change.before.bytes),
            whole(change.after.bytes),
            whole(change.before.objects),
            whole(change.after.objects),
            place.name,
            place.line,
        ]
    });
    let header = ["change", "before", "after", "objects before", "after", "function", "line"];
    print(page, &header, 5, lines.collect(), out)?;
    left_out(changes.len(), page, out)?;
    let (before, after) = (base.live_total(), leaks.profile.live_total());
    writeln!(
        out,
        "\n{} bytes before, {} after: {}",
        whole(before.bytes),
        whole(after.bytes),
        whole(after.bytes - before.bytes)
    )
}
