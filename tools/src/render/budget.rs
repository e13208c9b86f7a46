//! What of the gates' error budgets was spent, as lines of a run's report.

use std::io::{self, Write};

use tailbeam_harness::report::{BudgetRow, Burn, Measured};

use super::text::{cell, figure, table};
use super::units::span;

/// Writes the budgets of a run's gates; nothing when none has one.
pub(super) fn budgets(rows: &[BudgetRow], out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nError budgets (1x spends exactly what the gate allows)")?;
    let header =
        ["gate", "allowed", "spent", "worst 5 min", "worst hour", "longest above, in 10 s"];
    writeln!(out, "{}", table(&header, rows.iter().map(row), 1))?;
    // They are of the same run: what one of them lacks all lack.
    let burns = rows.first().into_iter().flat_map(|of| [&of.worst_5min, &of.worst_hour]);
    let missing = burns.zip(["worst 5 min", "worst hour"]);
    for (of, name) in missing.filter(|(of, _)| of.known().is_none()) {
        writeln!(out, "  {name}: {}", figure(of, |_| String::new()))?;
    }
    Ok(())
}

fn row(of: &BudgetRow) -> Vec<String> {
    let burn = |of: &Measured<Burn>| {
        cell(of, |burn| format!("{:.2}x from {}", burn.rate, span(burn.at_s)))
    };
    vec![
        of.gate.clone(),
        format!("{:.3} %", of.allowed * 100.0),
        cell(&of.spent, |spent| format!("{:.1} %", spent * 100.0)),
        burn(&of.worst_5min),
        burn(&of.worst_hour),
        cell(&of.longest_over_s, |s| span(*s)),
    ]
}
