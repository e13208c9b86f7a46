//! Where the time went, as text: first what could be measured, then bands, stages, cores, agents or single
//! slow requests. JSON is beside it.

pub(super) mod bands;
mod cost;
pub mod counters;
mod outliers;
mod tables;
mod words;

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use tailbeam_harness::report::Measured;
use tailbeam_harness::report::latency::{
    Attribution, Check, Conservation, Holds, LatencyReport, Recorded, SCHEMA, SCHEMA_VERSION,
};

use super::json::document_of;
use super::text;
use super::units::{count, span, time};

pub use cost::cost;
pub use outliers::outliers;

/// JSON Schema of the document.
pub const LATENCY_SCHEMA: &str = include_str!("../../../schemas/latency.schema.json");

/// What the requests are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Bands of the distribution.
    Band,
    /// Stages, beside each other for all bands.
    Stage,
    /// Cores that answered.
    Core,
    /// Agents that weigh most.
    Agent,
    /// Kinds of agent.
    Type,
}

/// Writes the whole answer to "why this latency".
///
/// # Errors
/// Those of `out`.
pub fn report(report: &LatencyReport, by: By, out: &mut dyn Write) -> io::Result<()> {
    head(report, out)?;
    figures(report, out)?;
    match by {
        By::Band => bands::bands(report, out)?,
        By::Stage => tables::stages(report, out)?,
        By::Core => tables::cores(report, out)?,
        By::Agent => tables::agents(report, out)?,
        By::Type => tables::types(report, out)?,
    }
    conservation(&report.conservation, out)?;
    cost(&report.own_cost, out)
}

/// The same as one document.
///
/// # Errors
/// Those of `out`.
pub fn json(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    document_of((SCHEMA, SCHEMA_VERSION), report, out)
}

/// The run, what was known of it, and what must be known before a figure is believed.
pub(super) fn head(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    let run = &report.run;
    let cores: Vec<String> = run.cores.iter().map(ToString::to_string).collect();
    writeln!(out, "Latency  run {}  workload {}  started {}", run.id, run.workload, run.started)?;
    writeln!(
        out,
        "         {} to {} after the start: {} of {} windows, cores {}",
        span(run.from_s),
        span(run.to_s),
        count(run.windows),
        count(run.windows_on_disk),
        cores.join(", ")
    )?;
    writeln!(out, "         {}, recorded by tailbeam {}", run.host, run.recorded_by)?;
    matrix(&report.host, out)?;
    if !report.caveats.is_empty() {
        writeln!(out)?;
    }
    report.caveats.iter().try_for_each(|caveat| writeln!(out, "  ! {caveat}"))
}

/// The first table of every report: what could be measured when the run was recorded, and what could not.
///
/// # Errors
/// Those of `out`.
pub fn matrix(host: &Recorded, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nMeasured when it was recorded")?;
    if host.matrix.is_empty() {
        writeln!(out, "  unknown (the run does not say; record a new one)")?;
    }
    for row in &host.matrix {
        writeln!(out, "  {:<9} {}", row.area, row.text)?;
    }
    for of in &host.unknown {
        writeln!(out, "  unknown   {}: {}; remedy: {}", of.thing, of.unknown, of.remedy)?;
    }
    Ok(())
}

fn figures(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    let of = &report.requests;
    writeln!(
        out,
        "\nRequests  {} attributed{}, {} in the histogram of system latency, {} given up at their deadline",
        count(of.banded),
        match of.staged_every {
            0 | 1 => String::new(),
            every => format!(
                " (1 in {every}, drawn before it was sent; late ones are kept whole besides)"
            ),
        },
        count(of.in_histogram),
        count(of.expired)
    )?;
    writeln!(
        out,
        "          {} differences within the clock's bound taken as 0, {} requests with stamps out of order and in no band",
        count(of.clamped),
        count(of.disordered)
    )?;
    text::latency(&report.series, out)?;
    text::little(&report.littles_law, out)?;
    text::oldest(&report.oldest_open_ns, out)?;
    writeln!(
        out,
        "Fairness  completions per agent, whole run: {}",
        text::figure(&report.completions, text::spread)
    )
}

/// The comparisons, those that do not hold first.
fn conservation(conservation: &Conservation, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\nConservation  {}  (stamps of two cores agree within {})",
        word(conservation.holds),
        text::figure(&conservation.clock_ns, |ns| time(*ns as f64))
    )?;
    let rows = worst_of_cores(&conservation.checks).into_iter().map(|(check, cores)| {
        let figure = |value: Option<f64>| words::figure(value, &check.unit);
        vec![
            word(check.holds).to_owned(),
            match cores {
                1 => check.name.clone(),
                cores => format!("{} (worst of {cores})", check.name),
            },
            figure(check.left),
            figure(check.right),
            words::difference(check.residual(), &check.unit),
            figure(check.allowed),
            count(check.n),
        ]
    });
    let header = ["", "check", "first", "second", "difference", "allowed", "n"];
    aligned(&header, &[2, 3, 4, 5, 6], rows, out)?;
    for check in &conservation.checks {
        if let Some(place) = &check.misfit {
            writeln!(out, "  FAIL conservation: {}: {place}", check.name)?;
        }
        if let Some(why) = &check.unknown {
            writeln!(
                out,
                "  {}: unknown ({}: {}; {})",
                check.name, why.thing, why.unknown, why.remedy
            )?;
        }
    }
    Ok(())
}

/// Of comparisons that all cores have, the worst; those that do not hold first. With the number of cores.
fn worst_of_cores(checks: &[Check]) -> Vec<(&Check, usize)> {
    let kind = |check: &Check| check.name.split(", core ").next().unwrap_or_default().to_owned();
    let mut kept: Vec<(&Check, usize)> = Vec::new();
    for check in checks {
        match kept.iter_mut().find(|(other, _)| kind(other) == kind(check)) {
            Some((worst, cores)) => {
                *cores += 1;
                if badness(check) > badness(worst) {
                    *worst = check;
                }
            }
            None => kept.push((check, 1)),
        }
    }
    kept.sort_by_key(|(check, _)| std::cmp::Reverse(badness(check).0));
    kept
}

/// Verdict, then how much of the allowance is used up.
fn badness(check: &Check) -> (u8, f64) {
    let verdict = match check.holds {
        Holds::Ok => 0,
        Holds::Unknown => 1,
        Holds::Fail => 2,
    };
    let used = check.residual().zip(check.allowed).map(|(residual, allowed)| residual / allowed);
    (verdict, used.filter(|used| used.is_finite()).unwrap_or(0.0))
}

/// FAIL is said as it stands in the exit code's name.
pub(super) const fn word(holds: Holds) -> &'static str {
    match holds {
        Holds::Ok => "OK",
        Holds::Fail => "FAIL",
        Holds::Unknown => "UNKNOWN",
    }
}

/// A short answer, for the report of the whole run.
///
/// # Errors
/// Those of `out`.
pub fn short(attribution: &Measured<Attribution>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Why       {}", text::figure(attribution, bands::in_one_line))?;
    let failed = attribution.known().map_or(&[][..], |of| &of.failed);
    failed.iter().try_for_each(|of| writeln!(out, "  ! FAIL conservation: {of}"))
}

/// A cell: the figure, or the word where only a word fits.
pub(super) fn cell<T>(measured: &Measured<T>, text: impl FnOnce(&T) -> String) -> String {
    measured.known().map_or_else(|| "unknown".to_owned(), text)
}

/// A table whose columns in `right` are aligned to the right, indented by two.
pub(super) fn aligned(
    header: &[&str],
    right: &[usize],
    rows: impl Iterator<Item = Vec<String>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    rows.for_each(|row| {
        table.add_row(row);
    });
    for (index, column) in table.column_iter_mut().enumerate() {
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string().lines().try_for_each(|line| writeln!(out, " {}", line.trim_end()))
}
