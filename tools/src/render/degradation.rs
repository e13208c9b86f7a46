//! Whether a run got worse while it ran, as lines of its report.

use std::io::{self, Write};

use tailbeam_harness::report::DegradationRow;
use tailbeam_harness::verdict::degradation::{Degradation, Judged};

use super::text::table;
use super::units::{count, time};

/// Writes the series of a run and how each was judged.
pub(super) fn degradation(rows: &[DegradationRow], out: &mut dyn Write) -> io::Result<()> {
    if rows.iter().all(|row| row.found.per_day.is_none() && row.found.changes.is_empty()) {
        return Ok(());
    }
    writeln!(out, "\nDegradation (block means; slope per day and steps, above 0 is worse)")?;
    let header = ["series", "level", "windows", "block", "per day [95 %]", "p", "steps", "result"];
    writeln!(out, "{}", table(&header, rows.iter().map(row), 1))?;
    if let Some(family) = rows.iter().map(|row| row.found.family).max().filter(|of| *of > 1) {
        writeln!(
            out,
            "  {family} series are tested together: a trend or a step of one needs a p {family} times as small as it would alone"
        )?;
    }
    for row in rows.iter().filter(|row| row.found.judged != Judged::Stable) {
        writeln!(out, "  {}: {}", name(row), row.found.reason)?;
    }
    for row in rows {
        for change in &row.found.changes {
            writeln!(
                out,
                "  {}: step of {:+.1} % between {:.2} h and {:.2} h (p {:.3})",
                name(row),
                change.by * 100.0,
                change.from_h,
                change.to_h,
                change.p
            )?;
        }
    }
    Ok(())
}

/// With its epoch, in a run of several.
fn name(row: &DegradationRow) -> String {
    let series = row.series.replace('_', " ");
    row.epoch.map_or_else(|| series.clone(), |epoch| format!("{series}, epoch {epoch}"))
}

fn row(row: &DegradationRow) -> Vec<String> {
    let Degradation { judged, windows, level, block, per_day, p, changes, .. } = &row.found;
    let level = if row.unit == "ns" { time(*level) } else { format!("{level:.0}/s") };
    vec![
        name(row),
        level,
        count(*windows),
        count(*block),
        per_day.map_or_else(
            || "unknown".to_owned(),
            |s| {
                let percent = |share: f64| share * 100.0;
                let (at, low, high) = (percent(s.slope), percent(s.low), percent(s.high));
                format!("{at:+.1} % [{low:+.1}, {high:+.1}]")
            },
        ),
        p.map_or_else(|| "-".to_owned(), |p| format!("{p:.3}")),
        changes.len().to_string(),
        match judged {
            Judged::Stable => "stable",
            Judged::Degrades => "DEGRADES",
            Judged::Undecided => "undecided",
        }
        .to_owned(),
    ]
}
