//! The epochs of a run that was cut and continued, as lines of its report.

use std::io::{self, Write};

use tailbeam_harness::report::{EpochEnd, EpochRow, EpochsSection};

use super::text::{cell, figure, table};
use super::units::{count, span};

/// Writes who recorded which part; nothing of a run of one piece.
pub(super) fn epochs(section: &EpochsSection, out: &mut dyn Write) -> io::Result<()> {
    if section.rows.len() < 2 {
        return Ok(());
    }
    writeln!(
        out,
        "\nEpochs    {}, nobody measured for {} between them",
        section.rows.len(),
        figure(&section.unmeasured_s, |s| span(*s))
    )?;
    let header = [
        "epoch",
        "started",
        "not measured before",
        "measured",
        "windows",
        "ended",
        "open then",
        "build",
    ];
    writeln!(out, "{}", table(&header, section.rows.iter().map(row), 0))
}

fn row(row: &EpochRow) -> Vec<String> {
    let text = |text: &String| text.clone();
    vec![
        row.epoch.to_string(),
        cell(&row.started, text),
        match row.epoch {
            1 => "-".to_owned(),
            _ => cell(&row.unmeasured_before_s, |s| span(*s)),
        },
        span(row.measured_s),
        count(row.windows),
        end(row.end).to_owned(),
        count(row.open_at_cut),
        cell(&row.build_id, |id| id.chars().take(12).collect()),
    ]
}

/// How an epoch ended, in a word or two.
const fn end(end: EpochEnd) -> &'static str {
    match end {
        EpochEnd::Sealed => "sealed",
        EpochEnd::Killed => "killed",
        EpochEnd::Power => "power",
        EpochEnd::KilledOrPower => "killed or power",
        EpochEnd::Unsealed => "not sealed",
    }
}
