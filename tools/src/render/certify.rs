//! Certificates and what came of verifying them, as text.

use std::io::{self, Write};

use tailbeam_harness::certify::{CertGate, CertRun, CertScenario, CertSeries, Judged, Verified};
use tailbeam_harness::verdict::GateVerdict;

use super::text::{overall, table, word};
use super::units::{count, span, time};

/// Writes a judgement. `signed`: where its certificate is; none when nothing was signed.
///
/// # Errors
/// Those of `out`.
pub fn judged(judged: &Judged, signed: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let policy = &judged.policy;
    writeln!(
        out,
        "Certificate  {}   policy {} v{}",
        overall(judged.verdict),
        policy.name,
        policy.version
    )?;
    writeln!(out, "             {}", policy.about)?;
    if !judged.runs.is_empty() {
        writeln!(out, "\nRuns")?;
    }
    for run in &judged.runs {
        self::run(run, out)?;
    }
    if !judged.series.is_empty() {
        writeln!(out, "\nSeries of faults")?;
    }
    for series in &judged.series {
        self::series(series, out)?;
    }
    writeln!(out, "\nGates")?;
    let row = |gate: &CertGate| {
        let result = &gate.result;
        vec![
            gate.id.clone(),
            result.requirement.clone(),
            result.measured.clone(),
            count(result.n),
            word(result.verdict).to_owned(),
        ]
    };
    let header = ["gate", "required", "measured", "n", "result"];
    writeln!(out, "{}", table(&header, judged.gates.iter().map(row), 3))?;
    for gate in judged.gates.iter().filter(|gate| gate.result.verdict != GateVerdict::Pass) {
        writeln!(out, "  {}: {}", gate.id, gate.result.reason)?;
    }
    match signed {
        Some(place) => writeln!(out, "\n{place}"),
        None => writeln!(out, "\nnot signed: without --key nobody can verify this later"),
    }
}

fn run(run: &CertRun, out: &mut dyn Write) -> io::Result<()> {
    match (&run.id, run.measured_s, run.agents, run.planned_per_s) {
        (Some(id), Some(measured_s), Some(agents), Some(per_s)) => writeln!(
            out,
            "  {}  {id}  {} measured, {} agents, {per_s:.0}/s offered",
            run.name,
            span(measured_s),
            count(agents)
        )?,
        _ => writeln!(out, "  {}  none", run.name)?,
    }
    let broken = run.validity.iter().filter(|check| !check.holds);
    let broken = broken.map(|check| format!("{}: {}", check.name, check.text));
    for line in run.lacks.iter().cloned().chain(broken).chain(run.caveats.iter().cloned()) {
        writeln!(out, "    ! {line}")?;
    }
    Ok(())
}

fn series(of: &CertSeries, out: &mut dyn Write) -> io::Result<()> {
    match (&of.id, of.loaded_ns, of.agents, of.planned_per_s) {
        (Some(id), Some(loaded_ns), Some(agents), Some(per_s)) => writeln!(
            out,
            "  {}  {id}  {} under load, {} agents, {per_s:.0}/s offered, the shortest fault {}",
            of.name,
            span(loaded_ns as f64 / 1e9),
            count(agents),
            of.shortest_hold_ns.map_or_else(|| "none".to_owned(), |ns| time(ns as f64))
        )?,
        _ => writeln!(out, "  {}  none", of.name)?,
    }
    for line in of.lacks.iter().chain(&of.caveats) {
        writeln!(out, "    ! {line}")?;
    }
    if of.scenarios.is_empty() {
        return Ok(());
    }
    let row = |of: &CertScenario| {
        vec![
            of.name.clone(),
            of.verdict.name().to_owned(),
            count(of.faults),
            count(of.injections),
            count(of.fewest),
            longest(of),
        ]
    };
    let header = ["scenario", "worth", "faults", "injections", "fewest of one", "longest recovery"];
    writeln!(out, "{}", table(&header, of.scenarios.iter().map(row), 2))
}

fn longest(of: &CertScenario) -> String {
    let more = if of.longer { "> " } else { "" };
    of.longest_ns.map_or_else(|| "-".to_owned(), |ns| format!("{more}{}", time(ns as f64)))
}

/// Writes what came of a verification.
///
/// # Errors
/// Those of `out`.
pub fn verified(verified: &Verified, out: &mut dyn Write) -> io::Result<()> {
    let verdict = verified.verdict().map_or("NOT VERIFIED", overall);
    writeln!(out, "Verification  {verdict}")?;
    for finding in &verified.findings {
        let mark = match (finding.made, finding.holds) {
            (false, true) => "not made",
            (_, true) => "holds",
            (_, false) => "FAILS",
        };
        writeln!(out, "  {:<10} {mark}  {}", finding.check, finding.text)?;
    }
    let Some(statement) = &verified.statement else { return Ok(()) };
    let predicate = &statement.predicate;
    writeln!(
        out,
        "  issued {} by tailbeam {}, policy {} v{}, scope: {}",
        predicate.issued,
        predicate.judged_by,
        predicate.judged.policy.name,
        predicate.judged.policy.version,
        predicate.scope
    )
}

/// Writes an annotation of GitHub's workflow commands for each gate that does not pass.
///
/// # Errors
/// Those of `out`.
pub fn github(judged: &Judged, out: &mut dyn Write) -> io::Result<()> {
    for gate in judged.gates.iter().filter(|gate| gate.result.verdict != GateVerdict::Pass) {
        let result = &gate.result;
        let kind = if result.verdict == GateVerdict::Fail { "error" } else { "warning" };
        let text =
            format!("{}, measured {}: {}", result.requirement, result.measured, result.reason);
        writeln!(out, "::{kind} title={}::{}", escaped(&gate.id, true), escaped(&text, false))?;
    }
    Ok(())
}

/// GitHub reads `%`, line ends and, in properties, `:` and `,` as its own.
fn escaped(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}
