//! Runs of a store as text and JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use tailbeam_harness::evidence::{Checked, Health, RunSummary};

use super::json::document;
use super::text::table;
use super::units::{bytes, count, span};

fn marks(run: &RunSummary) -> String {
    let mut marks: Vec<String> = run.tags.iter().map(|tag| format!("@{tag}")).collect();
    marks.extend(run.pinned.then(|| "pinned".to_owned()));
    marks.extend(run.certified.then(|| "certified".to_owned()));
    marks.join(" ")
}

/// Writes the list of runs.
///
/// # Errors
/// Those of `out`.
pub fn list(runs: &[RunSummary], out: &mut dyn Write) -> io::Result<()> {
    let row = |run: &RunSummary| {
        vec![
            run.id.clone(),
            run.started.clone(),
            run.workload.clone(),
            run.end.clone(),
            marks(run),
            count(run.agents),
            span(run.planned_s as f64),
            bytes(run.bytes as f64),
        ]
    };
    let header = ["run", "started", "workload", "end", "marks", "agents", "planned", "size"];
    writeln!(out, "{}", table(&header, runs.iter().map(row), 5))
}

/// One run with its files.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The run.
    pub summary: &'a RunSummary,
    /// Its directory.
    pub path: &'a Path,
    /// Its files and their sizes.
    pub files: &'a [(String, u64)],
}

/// Writes one run.
///
/// # Errors
/// Those of `out`.
pub fn show(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    let run = shown.summary;
    writeln!(out, "Run       {}  {}", run.id, marks(run))?;
    writeln!(out, "          {}", shown.path.display())?;
    writeln!(
        out,
        "          {}  {} agents, {} planned, started {}, {}",
        run.workload,
        count(run.agents),
        span(run.planned_s as f64),
        run.started,
        run.end
    )?;
    let row = |(name, size): &(String, u64)| vec![name.clone(), bytes(*size as f64)];
    writeln!(out, "\n{}", table(&["file", "size"], shown.files.iter().map(row), 1))
}

/// The same as one document.
///
/// # Errors
/// Those of `out`.
pub fn show_json(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    let files: Vec<_> =
        shown.files.iter().map(|(name, size)| json!({"file": name, "bytes": size})).collect();
    let data =
        json!({"run": shown.summary, "path": shown.path.display().to_string(), "files": files});
    document("tailbeam.run", &data, out)
}

/// Writes what goes, and what stays although it would.
///
/// # Errors
/// Those of `out`.
pub fn going(
    going: &[RunSummary],
    staying: &[(RunSummary, &'static str)],
    done: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (run, why) in staying {
        writeln!(out, "stays     {}  {}", run.id, why)?;
    }
    let verb = if done { "removes" } else { "would go" };
    for run in going {
        writeln!(out, "{verb:<9} {}  {}  {}", run.id, bytes(run.bytes as f64), run.started)?;
    }
    let sum: u64 = going.iter().map(|run| run.bytes).sum();
    match (going.is_empty(), done) {
        (true, _) => writeln!(out, "nothing goes"),
        (false, true) => writeln!(out, "{} runs, {}", going.len(), bytes(sum as f64)),
        (false, false) => writeln!(
            out,
            "{} runs, {}; nothing was removed: add --yes",
            going.len(),
            bytes(sum as f64)
        ),
    }
}

/// Writes what interrupted removals have left.
///
/// # Errors
/// Those of `out`.
pub fn left(leftovers: &[(PathBuf, u64)], done: bool, out: &mut dyn Write) -> io::Result<()> {
    let verb = if done { "removes" } else { "would go" };
    leftovers.iter().try_for_each(|(path, size)| {
        writeln!(
            out,
            "{verb:<9} {}  {}  left by an interrupted removal",
            path.display(),
            bytes(*size as f64)
        )
    })
}

/// Says that the store stays larger than it was to be.
///
/// # Errors
/// Those of `out`.
pub fn over(rest: u64, max: u64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "still {} of {} asked for: the rest is pinned, certified, being recorded or kept by --keep",
        bytes(rest as f64),
        bytes(max as f64)
    )
}

/// The same as one document.
///
/// # Errors
/// Those of `out`.
pub fn going_json(
    going: &[RunSummary],
    staying: &[(RunSummary, &'static str)],
    done: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let staying: Vec<_> =
        staying.iter().map(|(run, why)| json!({"run": run, "why": why})).collect();
    let bytes: u64 = going.iter().map(|run| run.bytes).sum();
    let data = json!({"removed": done, "going": going, "going_bytes": bytes, "staying": staying});
    document("tailbeam.gc", &data, out)
}

const fn word(health: Health) -> &'static str {
    match health {
        Health::Whole => "whole",
        Health::Unsealed => "unsealed",
        Health::Damaged => "DAMAGED",
        Health::Unreadable => "UNREADABLE",
    }
}

/// Writes what was found of each run.
///
/// # Errors
/// Those of `out`.
pub fn checked(runs: &[Checked], strange: &[String], out: &mut dyn Write) -> io::Result<()> {
    for run in runs {
        writeln!(
            out,
            "{:<10} {}  {} frames can be read, {} of {} segments sealed",
            word(run.health),
            run.id,
            count(run.frames),
            run.sealed,
            run.segments
        )?;
        for of in &run.findings {
            let place = of.offset.map_or_else(String::new, |at| format!(" at byte {at}"));
            writeln!(out, "  {}{place}: {}", of.file, of.text)?;
        }
    }
    for text in strange {
        writeln!(out, "STRANGE    {text}")?;
    }
    let bad = runs.iter().filter(|run| run.health >= Health::Damaged).count();
    let cut = runs.iter().filter(|run| run.health == Health::Unsealed).count();
    writeln!(out, "{} runs: {bad} damaged, {cut} not sealed; nothing was changed", runs.len())
}

/// The same as one document.
///
/// # Errors
/// Those of `out`.
pub fn checked_json(runs: &[Checked], strange: &[String], out: &mut dyn Write) -> io::Result<()> {
    document("tailbeam.fsck", &json!({"runs": runs, "strange": strange}), out)
}
