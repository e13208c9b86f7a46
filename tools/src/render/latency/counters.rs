//! What each core counted, over time and in all.

use std::io::{self, Write};

use tailbeam_harness::report::counters::{
    CoreCounters, Counted, CountersReport, Quality, SCHEMA, SCHEMA_VERSION, Slot,
};

use super::words::percent;
use super::{aligned, matrix};
use crate::render::json::document_of;
use crate::render::units::{count, span, time};

/// JSON Schema of the document.
pub const COUNTERS_SCHEMA: &str = include_str!("../../../schemas/counters.schema.json");

/// What counts are divided by in the table of totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// Seconds in which they were counted.
    Second,
    /// Requests that the core answered.
    Request,
}

/// The counters as one document.
///
/// # Errors
/// Those of `out`.
pub fn json(report: &CountersReport, out: &mut dyn Write) -> io::Result<()> {
    document_of((SCHEMA, SCHEMA_VERSION), report, out)
}

/// Writes the counters of every core.
///
/// # Errors
/// Those of `out`.
pub fn report(report: &CountersReport, per: Per, out: &mut dyn Write) -> io::Result<()> {
    let run = &report.run;
    writeln!(out, "Counters  run {}  workload {}  started {}", run.id, run.workload, run.started)?;
    writeln!(
        out,
        "          {} to {} after the start: {} of {} windows, rows of {}",
        span(run.from_s),
        span(run.to_s),
        count(run.windows),
        count(run.windows_on_disk),
        span(report.every_s)
    )?;
    writeln!(out, "          {}, recorded by tailbeam {}", run.host, run.recorded_by)?;
    matrix(&report.host, out)?;
    if !report.caveats.is_empty() {
        writeln!(out)?;
    }
    report.caveats.iter().try_for_each(|caveat| writeln!(out, "  ! {caveat}"))?;
    if report.cores.is_empty() {
        writeln!(out, "\nNo core has recorded anything in this range")?;
    }
    report.cores.iter().try_for_each(|core| one(core, per, out))
}

fn one(core: &CoreCounters, per: Per, out: &mut dyn Write) -> io::Result<()> {
    let total = &core.total;
    writeln!(
        out,
        "\nCore {}  {} ticks over {}, {} requests answered, {} turns",
        core.core,
        count(total.ticks),
        time(total.wall_ns as f64),
        count(core.answered),
        count(total.turns)
    )?;
    totals(total, per, out)?;
    // A counter that was never known needs no column: the table above says why.
    let known: Vec<usize> = total
        .counters
        .iter()
        .enumerate()
        .filter(|(_, of)| of.quality != Quality::Unknown)
        .map(|(place, _)| place)
        .collect();
    let mut header = vec!["from", "to", "ticks", "turns", "spun", "parked", "queued"];
    header.extend(known.iter().map(|&place| total.counters[place].name.as_str()));
    let rows = core.slots.iter().map(|slot| row(slot, &known));
    writeln!(out)?;
    aligned(&header, &(0..header.len()).collect::<Vec<_>>(), rows, out)
}

fn totals(total: &Slot, per: Per, out: &mut dyn Write) -> io::Result<()> {
    let rate = |of: &Counted| match per {
        Per::Second => of.per_s.map(|rate| format!("{}/s", figure(rate))),
        Per::Request => of.per_request.map(|rate| format!("{} a request", figure(rate))),
    };
    let rows = total.counters.iter().map(|of| {
        let unknown = of
            .unknown
            .as_deref()
            .map(|why| format!("{why}; remedy: {}", of.remedy.as_deref().unwrap_or("none known")));
        vec![
            of.name.clone(),
            of.count.map_or_else(|| "unknown".to_owned(), count),
            rate(of).unwrap_or_else(|| "unknown".to_owned()),
            quality(of.quality).to_owned(),
            percent(of.covered_ns as f64 / total.wall_ns.max(1) as f64),
            unknown.unwrap_or_default(),
        ]
    });
    let header = ["counter", "count", "rate", "quality", "of the time", "unknown elsewhere"];
    aligned(&header, &[1, 2, 4], rows, out)
}

fn row(slot: &Slot, known: &[usize]) -> Vec<String> {
    let share = |ns: u64| match slot.wall_ns {
        0 => "-".to_owned(),
        wall => percent(ns as f64 / wall as f64),
    };
    let mut row = vec![
        format!("{:.1} s", slot.from_s),
        format!("{:.1} s", slot.to_s),
        count(slot.ticks),
        share(slot.turns_ns),
        share(slot.spun_ns),
        share(slot.parked_ns),
        figure(slot.queued),
    ];
    row.extend(known.iter().map(|&place| {
        let of = &slot.counters[place];
        let mark = match of.quality {
            Quality::Exact => "",
            Quality::Scaled => "~",
            Quality::Rough => "?",
            Quality::Unknown => return "unknown".to_owned(),
        };
        of.per_s.map_or_else(|| "unknown".to_owned(), |rate| format!("{mark}{}/s", figure(rate)))
    }));
    row
}

const fn quality(quality: Quality) -> &'static str {
    match quality {
        Quality::Exact => "exact",
        Quality::Scaled => "scaled (~)",
        Quality::Rough => "rough (?)",
        Quality::Unknown => "unknown",
    }
}

/// Three digits, thousands apart.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and not negative; Rust casts of floats saturate"
)]
fn figure(value: f64) -> String {
    match value {
        v if v >= 99.5 => count(v.round() as u64),
        v if v >= 9.95 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
