//! A CPU profile as folded stacks and as profile.proto. Values: samples, and the CPU time that they stand
//! for. What the rings lost and what the samples do not cover stands in the comments.

use std::collections::BTreeMap;
use std::io::{self, Write};

use tailbeam_probes::analyse::profile::Holding;
use tailbeam_probes::analyse::program::{CpuProfile, Program};

use super::gzipped;
use super::pprof::{Tables, nowhere, resolved_modules};

/// No file is loaded above this: the kernel's half begins here.
const USER_END: u64 = 1 << 47;

/// What every export of a CPU profile carries.
#[derive(Debug)]
pub struct CpuExport<'a> {
    /// Run.
    pub run: &'a str,
    /// The program.
    pub program: &'a Program,
    /// Its profile.
    pub profile: &'a CpuProfile,
    /// What a reader must know.
    pub comments: &'a [String],
}

impl CpuExport<'_> {
    /// Name of a thread by its row, never empty.
    pub(super) fn thread(&self, row: usize) -> &str {
        let name = self.program.threads.get(row).map_or("", |thread| &*thread.row.name);
        if name.is_empty() { "(unnamed)" } else { name }
    }
}

/// Writes folded stacks, outermost first, with samples: `thread;main;work 42`, as flamegraph.pl, inferno
/// and speedscope read them.
///
/// # Errors
/// Those of `out`.
pub fn folded(export: &CpuExport<'_>, out: &mut dyn Write) -> io::Result<()> {
    let profile = &export.profile.profile;
    let mut lines: BTreeMap<String, i64> = BTreeMap::new();
    for holding in &profile.live {
        let mut names = profile.names(&profile.stacks[holding.stack]);
        names.push(export.thread(holding.owner as usize).to_owned());
        names.reverse();
        let clean: Vec<String> = names.iter().map(|name| name.replace([';', '\n'], ":")).collect();
        *lines.entry(clean.join(";")).or_default() += holding.amount.objects;
    }
    for (stack, samples) in &lines {
        writeln!(out, "{stack} {samples}")?;
    }
    Ok(())
}

/// Writes profile.proto, gzipped: samples/count and cpu/nanoseconds; labels thread, core, and the ids of
/// process and thread.
///
/// # Errors
/// Those of `out`.
pub fn pprof(export: &CpuExport<'_>, out: &mut dyn Write) -> io::Result<()> {
    gzipped(out, |out| out.write_all(&encode(export)))
}

fn encode(export: &CpuExport<'_>) -> Vec<u8> {
    let mut tables = Tables::new();
    tables.value_type(1, "samples", "count");
    tables.value_type(1, "cpu", "nanoseconds");
    for holding in &export.profile.profile.live {
        sample(&mut tables, export, holding);
    }
    let profile = &export.profile.profile;
    let resolved = resolved_modules(profile);
    for (index, module) in profile.modules.iter().enumerate() {
        // Addresses are those in the file: loaded at 0.
        let mut module = module.clone();
        module.range = (0, USER_END);
        tables.mapping(index, &module, resolved[index]);
    }
    tail(&mut tables, export);
    tables.out.0
}

fn sample(tables: &mut Tables, export: &CpuExport<'_>, holding: &Holding) {
    let profile = &export.profile.profile;
    let stack = &profile.stacks[holding.stack];
    let mut locations: Vec<u64> =
        stack.frames.iter().map(|frame| tables.location(profile, frame)).collect();
    if locations.is_empty() {
        locations.push(tables.location(profile, &nowhere()));
    }
    let row = holding.owner as usize;
    let of = export.program.threads.get(row).map(|thread| &thread.row);
    let texts = [("thread", export.thread(row).to_owned()), ("core", holding.core.to_string())];
    let texts = texts.map(|(key, text)| (tables.strings.id(key), tables.strings.id(&text)));
    let numbers =
        [("pid", of.map_or(0, |row| row.process)), ("tid", of.map_or(0, |row| row.thread))];
    let numbers = numbers.map(|(key, number)| (tables.strings.id(key), u64::from(number)));
    tables.out.message(2, |message| {
        message.packed(1, locations);
        let values = [holding.amount.objects, holding.amount.bytes];
        message.packed(2, values.map(i64::cast_unsigned));
        for (key, text) in texts {
            message.message(3, |label| {
                label.number(1, key);
                label.number(2, text);
            });
        }
        for (key, number) in numbers {
            message.message(3, |label| {
                label.number(1, key);
                label.number(3, number);
            });
        }
    });
}

fn tail(tables: &mut Tables, export: &CpuExport<'_>) {
    let program = export.program;
    tables.out.number(9, program.start.started_unix_ns);
    tables.out.number(10, program.elapsed_ns());
    tables.value_type(11, "cpu", "nanoseconds");
    tables.out.number(12, program.period_ns());
    let run = format!("run {}", export.run);
    let comments: Vec<u64> = std::iter::once(&run)
        .chain(export.comments)
        .map(|comment| tables.strings.id(comment))
        .collect();
    tables.out.packed(13, comments);
    let default = tables.strings.id("cpu");
    tables.out.number(14, default);
    for text in std::mem::take(&mut tables.strings.1) {
        tables.out.bytes(6, text.as_bytes());
    }
}
