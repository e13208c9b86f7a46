//! What the attack suite found, as text and as JSON.

use std::io::{self, Write};

use serde::Serialize;
use tailbeam_harness::drive::Attacked;
use tailbeam_harness::protocol::attack::{Finding, Verdict};
use tailbeam_harness::report::Report;
use tailbeam_harness::verdict::Outcomes;

use super::json::document_of;
use super::text::{figure, outcomes, table};

/// Name and version of the document.
const SCHEMA: (&str, u32) = ("tailbeam.attack", 1);

const fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Held { .. } => "HELD",
        Verdict::Broken { .. } => "BROKEN",
        Verdict::NotRun { .. } => "NOT RUN",
    }
}

/// Writes the findings, and what became of the load beside them.
pub(crate) fn text(attacked: &Attacked, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let total = attacked.findings.len();
    let (broken, not_run) = (attacked.broken(), attacked.not_run());
    writeln!(
        out,
        "Attacks on the live runtime  {total} run: {} held, {broken} not held, {not_run} not run",
        total - broken - not_run
    )?;
    let row = |finding: &Finding| {
        let tries = match &finding.verdict {
            Verdict::Held { tries } => tries.to_string(),
            _ => "-".to_owned(),
        };
        vec![
            finding.attack.to_owned(),
            finding.about.to_owned(),
            tries,
            word(&finding.verdict).to_owned(),
        ]
    };
    let header = ["attack", "what it tries", "refused", "result"];
    writeln!(out, "{}", table(&header, attacked.findings.iter().map(row), 2))?;
    for finding in &attacked.findings {
        match &finding.verdict {
            Verdict::Broken { how } => writeln!(out, "  {}: {how}", finding.attack)?,
            Verdict::NotRun { cause } => writeln!(out, "  {}: {cause}", finding.attack)?,
            Verdict::Held { .. } => {}
        }
    }
    writeln!(out, "\nBeside it  {}", figure(&report.load.outcomes, outcomes))
}

#[derive(Serialize)]
struct Document<'a> {
    run: &'a str,
    held: usize,
    broken: usize,
    not_run: usize,
    findings: Vec<Line<'a>>,
    outcomes: Option<&'a Outcomes>,
}

#[derive(Serialize)]
struct Line<'a> {
    attack: &'a str,
    about: &'a str,
    result: &'static str,
    /// Things that were tried and refused.
    tries: Option<u32>,
    /// What came instead, or why it was not run.
    detail: Option<&'a str>,
}

/// The same as one document.
pub(crate) fn json(attacked: &Attacked, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let findings = attacked.findings.iter().map(|finding| {
        let (attack, about) = (finding.attack, finding.about);
        let (tries, detail) = match &finding.verdict {
            Verdict::Held { tries } => (Some(*tries), None),
            Verdict::Broken { how } => (None, Some(how.as_str())),
            Verdict::NotRun { cause } => (None, Some(cause.as_str())),
        };
        Line { attack, about, result: word(&finding.verdict), tries, detail }
    });
    let (broken, not_run) = (attacked.broken(), attacked.not_run());
    let data = Document {
        run: &report.run.id,
        held: attacked.findings.len() - broken - not_run,
        broken,
        not_run,
        findings: findings.collect(),
        outcomes: report.load.outcomes.known(),
    };
    document_of(SCHEMA, &data, out)
}
