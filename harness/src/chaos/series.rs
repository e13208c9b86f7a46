//! A series on the disk: its record, the slots of its subjects, and their runs. What can be computed from slots and runs is
//! computed whenever it is read; what the record says of it is not believed.
//!
//! What stays the supervisor's word, signed and no more: which subject had which run and which slots; when a fault was
//! injected and taken back; the spans of baselines; proofs that a fault bit; and checks of what only it could see, as of
//! descriptors, groups and what a restart restored.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::board::Cell;
use super::checks;
use super::record::{ChaosRecord, Check, ScenarioRecord, VERSION};
use super::recovery::Axis;
use super::slots;
use crate::evidence::{DOCUMENT, ReadRunError, read_run};
use crate::report::{self, ReportError};

/// Directory of the runs of a series' subjects, in its own.
pub const SUBJECTS: &str = "subjects";

/// Why a series cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeriesError {
    /// There is none.
    #[error(
        "no series in {path}\n  cause: {source}\n  remedy: name a series of `tailbeam chaos`, or its directory"
    )]
    Absent {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of it is missing, unreadable, or not what was written.
    #[error(
        "{path} cannot be used\n  cause: {cause}\n  remedy: restore it from a copy, or run the series again"
    )]
    Damaged {
        /// File.
        path: String,
        /// Why.
        cause: String,
    },
    /// The run of a subject cannot be read.
    #[error(transparent)]
    Run(#[from] ReadRunError),
    /// Or not be reported.
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl SeriesError {
    /// Whether what was written is damaged.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        !matches!(self, Self::Absent { .. })
    }
}

fn damaged(path: &Path, cause: impl ToString) -> SeriesError {
    SeriesError::Damaged { path: path.display().to_string(), cause: cause.to_string() }
}

/// A series.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its record, judged by the slots.
    pub record: ChaosRecord,
    /// Time in which requests were due, over all subjects, ns: slots in which one was.
    pub loaded_ns: u64,
}

/// Load that every subject's own plan asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Fewest agents.
    pub agents: u64,
    /// Fewest requests per second.
    pub per_s: f64,
}

/// Name of the file of a subject's slots.
#[must_use]
pub fn slots_file(scenario: &str, subject: usize) -> String {
    format!("{scenario}-{subject}.slots.jsonl")
}

/// Reads the series in `dir` and judges it by the slots of its subjects.
///
/// # Errors
/// [`SeriesError`]; slots of a subject that had a trial must be there.
pub fn read(dir: &Path) -> Result<Series, SeriesError> {
    let path = dir.join(DOCUMENT);
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SeriesError::Absent { path: dir.display().to_string(), source },
        _ => damaged(&path, source),
    })?;
    let record: ChaosRecord =
        serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error))?;
    if record.version != VERSION {
        let cause =
            format!("it is of version {}, this program reads version {VERSION}", record.version);
        return Err(damaged(&path, cause));
    }
    let mut series = Series { record, loaded_ns: 0 };
    series.rejudge(dir)?;
    Ok(series)
}

impl Series {
    fn rejudge(&mut self, dir: &Path) -> Result<(), SeriesError> {
        let plan = &self.record.plan;
        let (slot_ns, open_ns) = (plan.slot_ns, plan.open_ns());
        let expected = plan.rate_per_s * slot_ns as f64 / 1e9;
        for scenario in &mut self.record.scenarios {
            plain(&scenario.name).map_err(|cause| damaged(&dir.join(DOCUMENT), cause))?;
            // Its slots would not be read, and what the record says of it be believed.
            if scenario.faults.iter().any(|(of, _)| *of >= scenario.subjects.len()) {
                let cause = format!("a fault of {} was done to no subject", scenario.name);
                return Err(damaged(&dir.join(DOCUMENT), cause));
            }
            for number in 0..scenario.subjects.len() {
                let path = dir.join(slots_file(&scenario.name, number));
                let Some(cells) = cells(&path, tried(scenario, number))? else { continue };
                let (from, to) = scenario.subjects[number].quiet;
                if slot_ns == 0 || from > to || to > cells.len() {
                    let cause = format!(
                        "a baseline of {} is that of slots {from} to {to} of {slot_ns} ns, of {}",
                        scenario.name,
                        cells.len()
                    );
                    return Err(damaged(&dir.join(DOCUMENT), cause));
                }
                let loaded = cells.iter().filter(|cell| cell.due > 0).count() as u64;
                self.loaded_ns = self.loaded_ns.saturating_add(loaded.saturating_mul(slot_ns));
                scenario.rejudge(number, &Axis { cells, slot_ns, expected }, open_ns);
            }
        }
        Ok(())
    }

    /// Makes the checks of every subject's run again by that run, and returns the load that their plans and the series' own
    /// asked for.
    ///
    /// A subject to which something was done and that has no run is one of which nothing is known.
    ///
    /// # Errors
    /// A run that the record names and that is not there, cannot be read, or is another subject's too.
    pub fn recheck(&mut self, dir: &Path) -> Result<Load, SeriesError> {
        let plan = &self.record.plan;
        let mut load = Load { agents: plan.agents, per_s: plan.rate_per_s };
        let mut had = BTreeSet::new();
        let tried: Vec<Vec<bool>> = (self.record.scenarios.iter())
            .map(|of| (0..of.subjects.len()).map(|number| tried(of, number)).collect())
            .collect();
        let subjects = self.record.scenarios.iter_mut().flat_map(|of| &mut of.subjects);
        for (subject, tried) in subjects.zip(tried.into_iter().flatten()) {
            let Some(run) = &subject.run else {
                if tried {
                    subject.see_again(Check::unknown(
                        "its run can be judged",
                        "the record names none for this subject",
                    ));
                }
                continue;
            };
            plain(run).map_err(|cause| damaged(&dir.join(DOCUMENT), cause))?;
            if !had.insert(run.clone()) {
                let cause = format!("run {run} is that of two subjects");
                return Err(damaged(&dir.join(DOCUMENT), cause));
            }
            let run: PathBuf = dir.join(SUBJECTS).join(run);
            if !run.join("seg").is_dir() {
                return Err(damaged(&run, "it is the run of a subject, and not there"));
            }
            let plan = read_run(&run)?.plan;
            load.agents = load.agents.min(plan.agents);
            load.per_s = load.per_s.min(plan.rate_per_s());
            let report = report::build(&run, None)?;
            let data = serde_json::to_value(report).map_err(|error| damaged(&run, error))?;
            checks::of_report(&data).into_iter().for_each(|check| subject.see_again(check));
        }
        Ok(load)
    }
}

/// What a name in a record may be, that becomes one of a file beside it: files elsewhere are no evidence of this series.
fn plain(name: &str) -> Result<(), String> {
    let other = name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']);
    if other { Err(format!("{name:?} is no name of a file beside it")) } else { Ok(()) }
}

/// The slots of a subject. One that never came on the stage has none, and no trials.
fn cells(path: &Path, tried: bool) -> Result<Option<Vec<Cell>>, SeriesError> {
    match fs::read_to_string(path) {
        Ok(text) => slots::read(&text).map(Some).map_err(|cause| damaged(path, cause)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !tried => Ok(None),
        Err(error) => Err(damaged(path, error)),
    }
}

/// Whether a subject had a trial.
fn tried(scenario: &ScenarioRecord, number: usize) -> bool {
    scenario.faults.iter().any(|(of, fault)| *of == number && !fault.trials.is_empty())
}
