//! The journal of what is done to the host: written before it is done, read by whoever undoes it.
//!
//! A file of lines, `{"crc":"HEX","entry":ENTRY}`; the CRC32C is of the entry's text. Each line is on disk
//! (fdatasync) before its step begins. A last line that is torn was of a step that had not begun. A line in the
//! middle that does not hold its checksum is counted, and what can be read is undone without it.
//!
//! Undoing goes from the last step to the first, and may be repeated: a step that reads as before, or whose thing
//! is gone, is done with.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};

use super::cgroups;
use super::failure::{self, Failure};
use super::process::Process;
use super::residue;
use super::revert::{self, Done, Outcome};
use super::step::Step;
use super::subject;

/// Version of the lines.
const VERSION: u32 = 1;
/// Most steps of a run: every knob of every fault, many times over.
const STEPS_MAX: usize = 100_000;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Entry {
    /// The first: its version, and the name of the run.
    Begin { version: u32, name: String },
    /// A step will be done now; what there was before it.
    Will { at: usize, step: Step, before: Option<String> },
    /// What a step made: how its knob reads, the process that it started.
    Did { at: usize, reads: Option<String>, process: Option<Process> },
    /// A step is undone.
    Undone { at: usize },
}

/// A step with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    step: Step,
    before: Option<String>,
    reads: Option<String>,
    process: Option<Process>,
    undone: bool,
}

/// What became of a step that was undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUndone {
    /// The step.
    pub step: Step,
    /// What became of it.
    pub outcome: Outcome,
}

/// What undoing did, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Undone {
    /// Steps, the last that was done first. Those that had been undone before are not among them.
    pub steps: Vec<StepUndone>,
    /// Processes that were killed because they were in a group or carried the run's mark.
    pub killed: usize,
    /// Lines that could not be read; a torn last line is not among them.
    pub damaged: usize,
    /// Why processes could not be killed.
    pub alive: Option<String>,
}

impl Undone {
    /// Everything is as it was.
    #[must_use]
    pub fn clean(&self) -> bool {
        let left = |undone: &StepUndone| undone.outcome.is_left();
        self.damaged == 0 && self.alive.is_none() && !self.steps.iter().any(left)
    }
}

impl std::fmt::Display for Undone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for StepUndone { step, outcome } in &self.steps {
            writeln!(f, "{}: {outcome}", step.undo_text())?;
        }
        writeln!(f, "{} processes killed, {} lines damaged", self.killed, self.damaged)?;
        self.alive.as_ref().map_or(Ok(()), |why| writeln!(f, "still alive: {why}"))
    }
}

/// What [`Journal::perform_all`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Where the steps begin: for [`Journal::undo_since`].
    pub mark: usize,
    /// Processes that were started, in order.
    pub started: Vec<Process>,
}

/// The supervisor's journal: does steps and undoes them.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    name: String,
    lines: Vec<Line>,
    /// Helpers that are to be waited for.
    children: Vec<(usize, Child)>,
    lifeline: Option<OwnedFd>,
}

impl Journal {
    /// Begins a journal; the file must not exist, and not lie on a disk that is filled or cut. `name` is that of the
    /// run.
    ///
    /// # Errors
    /// The file cannot be made, or is there.
    pub fn create(path: &Path, name: &str) -> Result<Self, Failure> {
        let open = OpenOptions::new().append(true).create_new(true).open(path);
        let file = open.map_err(|error| failure::io(path, "create", error))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            name: name.to_owned(),
            lines: Vec::new(),
            children: Vec::new(),
            lifeline: None,
        };
        journal.append(&Entry::Begin { version: VERSION, name: name.to_owned() })?;
        // The file itself must outlive a crash too.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| failure::io(dir, "sync", error))?;
        Ok(journal)
    }

    /// Tools that are started from now on hold the guard's pipe, so that it waits for them.
    pub fn hold(&mut self, lifeline: OwnedFd) {
        self.lifeline = Some(lifeline);
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the run.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The end of what was done so far: for [`Self::undo_since`].
    #[must_use]
    pub const fn mark(&self) -> usize {
        self.lines.len()
    }

    /// Does one step; gives the process that it started.
    ///
    /// # Errors
    /// It cannot be recorded (then it is not begun) or not be done (then undoing finds what there is of it).
    pub fn perform(&mut self, step: &Step) -> Result<Option<Process>, Failure> {
        if let Step::Start { run } = step {
            let mut command = run.command(&self.name)?;
            // A helper says nothing: that it works shows in the proof of its fault.
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let at = self.lines.len();
            let (child, process) = self.start(step, command)?;
            self.children.push((at, child));
            return Ok(Some(process));
        }
        let at = self.will(step)?;
        let reads = revert::perform(step, self.lifeline.as_ref())?;
        if reads.is_some() {
            self.append(&Entry::Did { at, reads: reads.clone(), process: None })?;
            self.lines[at].reads = reads;
        }
        Ok(None)
    }

    /// Does steps in order; what was done before a failure stays done, and is undone by [`Self::undo_since`] from
    /// the mark that was before.
    ///
    /// # Errors
    /// That of the first step that fails.
    pub fn perform_all(&mut self, steps: &[Step]) -> Result<Applied, Failure> {
        let mark = self.mark();
        let mut started = Vec::new();
        for step in steps {
            started.extend(self.perform(step)?);
        }
        Ok(Applied { mark, started })
    }

    /// Starts a process that waits at its gate until its number is on disk.
    pub(super) fn start(
        &mut self,
        step: &Step,
        mut command: Command,
    ) -> Result<(Child, Process), Failure> {
        let at = self.will(step)?;
        let spawned = command.spawn();
        let mut child =
            spawned.map_err(|error| failure::io(Path::new("/bin/sh"), "start", error))?;
        let process = Process::of(child.id())?;
        self.append(&Entry::Did { at, reads: None, process: Some(process) })?;
        self.lines[at].process = Some(process);
        subject::open_gate(&mut child)?;
        Ok((child, process))
    }

    /// Undoes what was done since a mark and is not undone yet. Goes on after a failure; each has its outcome.
    pub fn undo_since(&mut self, mark: usize) -> Undone {
        let mut undone = Undone::default();
        for at in (mark..self.lines.len()).rev() {
            let line = &self.lines[at];
            if line.undone {
                continue;
            }
            let outcome = line.undo(self.lifeline.as_ref());
            undone.steps.push(StepUndone { step: line.step.clone(), outcome: outcome.clone() });
            if outcome.is_left() {
                continue;
            }
            self.lines[at].undone = true;
            self.reap(at);
            // Without this line a guard looks at the step once more and finds it undone.
            drop(self.append(&Entry::Undone { at }));
        }
        undone
    }

    /// Waits for a helper that was killed, so that no zombie stays.
    fn reap(&mut self, at: usize) {
        for (_, child) in self.children.iter_mut().filter(|(of, _)| *of == at) {
            // It has ended: undoing waited for that. Without a zombie there is nothing to wait for.
            drop(child.wait());
        }
        self.children.retain(|(of, _)| *of != at);
    }

    fn will(&mut self, step: &Step) -> Result<usize, Failure> {
        let at = self.lines.len();
        if at >= STEPS_MAX {
            return Err(failure::io(&self.path, "append", std::io::ErrorKind::StorageFull));
        }
        let before = revert::before(step)?;
        self.append(&Entry::Will { at, step: step.clone(), before: before.clone() })?;
        self.lines.push(Line {
            step: step.clone(),
            before,
            reads: None,
            process: None,
            undone: false,
        });
        Ok(at)
    }

    fn append(&mut self, entry: &Entry) -> Result<(), Failure> {
        append(&mut self.file, entry).map_err(|error| failure::io(&self.path, "append", error))
    }
}

impl Line {
    fn undo(&self, lifeline: Option<&OwnedFd>) -> Outcome {
        let done = Done {
            before: self.before.as_deref(),
            reads: self.reads.as_deref(),
            process: self.process,
        };
        revert::undo(&self.step, &done, lifeline)
            .unwrap_or_else(|failure| Outcome::Failed { why: failure.to_string() })
    }
}

fn append(file: &mut File, entry: &Entry) -> std::io::Result<()> {
    file.write_all(line_of(entry)?.as_bytes())?;
    file.sync_data()
}

fn line_of(entry: &Entry) -> std::io::Result<String> {
    let text = serde_json::to_string(entry)?;
    let crc = crc32c::crc32c(text.as_bytes());
    Ok(format!("{{\"crc\":\"{crc:08x}\",\"entry\":{text}}}\n"))
}

/// Reads one line; None: torn or damaged.
fn entry_of(line: &str) -> Option<Entry> {
    let rest = line.strip_prefix("{\"crc\":\"")?;
    let (crc, rest) = rest.split_at_checked(8)?;
    let text = rest.strip_prefix("\",\"entry\":")?.strip_suffix('}')?;
    // Compared as text: read as a number it would be the same in capitals.
    if format!("{:08x}", crc32c::crc32c(text.as_bytes())) != crc {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// What a journal says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    name: Option<String>,
    /// By number: a line that cannot be read does not shift those after it.
    lines: BTreeMap<usize, Line>,
    damaged: usize,
    /// Bytes of whole lines.
    whole: usize,
}

fn read(bytes: &[u8]) -> Read {
    // The rest after the last line feed is a line that was never whole.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut found = Read { whole, ..Read::default() };
    for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
        match entry_of(line) {
            Some(Entry::Begin { version: VERSION, name }) => found.name = Some(name),
            Some(Entry::Will { at, step, before }) => {
                let line = Line { step, before, reads: None, process: None, undone: false };
                found.lines.insert(at, line);
            }
            Some(Entry::Did { at, reads, process }) if found.lines.contains_key(&at) => {
                let line = found.lines.get_mut(&at).expect("asked for above");
                (line.reads, line.process) = (reads, process);
            }
            Some(Entry::Undone { at }) if found.lines.contains_key(&at) => {
                found.lines.get_mut(&at).expect("asked for above").undone = true;
            }
            _ => found.damaged += 1,
        }
    }
    found
}

/// Undoes a journal whose supervisor is gone: kills what is in its groups or carries its mark, then undoes its steps
/// from the last to the first. May be called again.
///
/// # Errors
/// The journal cannot be read.
pub fn undo(path: &Path) -> Result<Undone, Failure> {
    let bytes = std::fs::read(path).map_err(|error| failure::io(path, "read", error))?;
    let found = read(&bytes);
    let mut undone = Undone { damaged: found.damaged, ..Undone::default() };
    let groups: Vec<PathBuf> = (found.lines.values())
        .filter_map(|line| match &line.step {
            Step::MakeGroup { dir } if !line.undone => Some(dir.clone()),
            _ => None,
        })
        .collect();
    let killed = cgroups::kill_members(&groups).and_then(|killed| {
        let marked = found.name.as_deref().map_or(Ok(0), residue::kill_marked);
        marked.map(|marked| killed + marked)
    });
    match killed {
        Ok(killed) => undone.killed = killed,
        Err(failure) => undone.alive = Some(failure.to_string()),
    }
    // A torn last line is cut off, so that what is said from now on has lines of its own.
    let mut file = OpenOptions::new().append(true).open(path).ok();
    file =
        file.filter(|file| found.whole == bytes.len() || file.set_len(found.whole as u64).is_ok());
    for (at, line) in found.lines.iter().rev().filter(|(_, line)| !line.undone) {
        let outcome = line.undo(None);
        let left = outcome.is_left();
        undone.steps.push(StepUndone { step: line.step.clone(), outcome });
        if let Some(file) = file.as_mut().filter(|_| !left) {
            // On a full disk it is not said; the next undo looks again.
            drop(append(file, &Entry::Undone { at: *at }));
        }
    }
    Ok(undone)
}

#[cfg(test)]
mod tests;
