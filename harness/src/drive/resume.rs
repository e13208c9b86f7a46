//! A run whose process died, to be continued in a new epoch.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tailbeam_probes::clock;
use tailbeam_probes::collect::host;
use tailbeam_probes::record::{SegmentWriter, Tail, close_tail};

use super::begin::began;
use super::error::DriveError;
use super::writer::{PerAgent, RunWriter};
use crate::certify::CERTIFICATE;
use crate::evidence::records::{EndRecord, Manifest, WindowRecord, kind};
use crate::evidence::{
    Began, Cut, Epoch, EpochRecord, HEAP_STATE, RunFrames, heap_state, is_program, read_run,
    seed_of,
};
use crate::plan::Plan;

/// Shorter rests of a plan are not worth an epoch: the run is sealed as it is.
const LEFT_MIN_NS: u64 = 1_000_000;

/// A run that can be continued. While it is held nobody else can.
#[derive(Debug)]
pub struct Resume {
    dir: PathBuf,
    lock: File,
    tail: Tail,
    plan: Plan,
    manifest: Manifest,
    last: Option<WindowRecord>,
    epochs: Vec<Epoch>,
}

/// Held by whoever records a run, on its directory: a file of its own would be evidence.
pub(super) fn lock(dir: &Path) -> Result<File, DriveError> {
    let failed = |cause: String| DriveError::Record { path: dir.display().to_string(), cause };
    let file = File::open(dir).map_err(|error| failed(error.to_string()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(not_resumable(
            dir,
            "another process is recording it",
            "wait for its end, or end it; `tailbeam top` shows how far it is",
        )),
        // A file system without locks: two that record at once would be seen as damage.
        Err(_) => Ok(file),
    }
}

fn not_resumable(dir: &Path, cause: impl Into<String>, remedy: &'static str) -> DriveError {
    DriveError::NotResumable { run: id_of(dir), cause: cause.into(), remedy }
}

/// Whatever is damaged but a torn tail makes every figure of the run doubtful for good.
fn damaged(dir: &Path, text: &str) -> DriveError {
    let id = id_of(dir);
    DriveError::Damaged(format!(
        "run {id} is damaged\n  cause: {text}\n  remedy: restore it from a copy, or begin a new run; `tailbeam runs fsck {id}` says more"
    ))
}

fn id_of(dir: &Path) -> String {
    dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned())
}

impl Resume {
    /// Reads the run in `dir`, cuts its torn tail behind the last whole frame, seals what is there, and holds it.
    ///
    /// # Errors
    /// [`DriveError::NotResumable`]: it was sealed or signed, is of a program, or somebody records it.
    /// [`DriveError::Damaged`]: what had been durable is not there any more.
    pub fn open(dir: &Path) -> Result<Self, DriveError> {
        if is_program(dir) {
            let cause = "it is a recording of a program, whose past cannot be continued";
            return Err(not_resumable(
                dir,
                cause,
                "record the program anew with `tailbeam record`",
            ));
        }
        let lock = lock(dir)?;
        let run = read_run(dir).map_err(|error| match error.is_corrupt() {
            true => DriveError::Damaged(error.to_string()),
            false => not_resumable(dir, "nothing is recorded in it yet", "begin a run anew"),
        })?;
        refuse_ended(dir, &run)?;
        let tail = close_tail(&dir.join("seg"), kind::WINDOW)
            .map_err(|error| damaged(dir, &error.to_string()))?;
        // Again: a window behind a hole was read, and went with it.
        let run = read_run(dir).map_err(|error| DriveError::Damaged(error.to_string()))?;
        if let Some(text) = run.damage.first() {
            return Err(damaged(dir, text));
        }
        let RunFrames { mut plan, manifest, mut windows, epochs, .. } = run;
        plan.seed = seed_of(plan.seed, next_number(&epochs));
        let (dir, last) = (dir.to_owned(), windows.pop());
        Ok(Self { dir, lock, tail, plan, manifest, last, epochs })
    }

    /// The plan, with the seed of the new epoch.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The directory of the run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Time of the plan that is not on disk, ns; 0 when what is left is too short for an epoch.
    #[must_use]
    pub fn left_ns(&self) -> u64 {
        let issued: u64 = self.epochs.iter().map(|epoch| epoch.issued_ns).sum();
        let left = self.plan.duration_ns.saturating_sub(issued);
        if left < LEFT_MIN_NS { 0 } else { left }
    }

    /// Epochs on disk.
    #[must_use]
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    pub(super) fn id(&self) -> &str {
        &self.manifest.id
    }

    pub(super) fn root(&self) -> &Path {
        self.dir.parent().unwrap_or(Path::new("."))
    }

    /// Refuses a machine with other cores: their figures would be added up core by core.
    pub(super) fn check_cores(&self, cores: &[u64]) -> Result<(), DriveError> {
        if self.manifest.cores == cores {
            return Ok(());
        }
        let cause =
            format!("it ran on cores {:?}, this process has {cores:?}", self.manifest.cores);
        Err(not_resumable(&self.dir, cause, "give it the same cores, or begin a new run"))
    }

    pub(super) const fn last_window(&self) -> Option<&WindowRecord> {
        self.last.as_ref()
    }

    /// Number of the next window.
    pub(super) fn window(&self) -> u32 {
        self.last.as_ref().map_or(0, |last| last.window.saturating_add(1))
    }

    /// Gives the heap's state and its copies names of the epoch that they are of.
    pub(super) fn keep_heap(&self) -> Result<(), DriveError> {
        let epoch = next_number(&self.epochs) - 1;
        keep_states(&self.dir, epoch).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl ToString) -> DriveError {
        DriveError::Record { path: self.dir.display().to_string(), cause: error.to_string() }
    }

    /// Begins the epoch in a segment of its own, synced.
    pub(super) fn begin(self, began: Began) -> Result<RunWriter, DriveError> {
        let (seg, tail) = (self.dir.join("seg"), &self.tail);
        let before = self.epochs.last().and_then(|epoch| epoch.began.as_ref());
        let record = EpochRecord {
            epoch: next_number(&self.epochs),
            cut: Cut::between(before, &began),
            recorded_by: env!("CARGO_PKG_VERSION").to_owned(),
            cut_bytes: tail.cut_bytes,
            window: self.window(),
            seed: self.plan.seed,
            began,
        };
        let segment = SegmentWriter::create(&seg, tail.number, tail.next_seq, tail.prev_sha)
            .map_err(|error| self.failed(error))?;
        let number = tail.number;
        RunWriter::resume(self.dir, self.lock, (segment, number), &record)
    }

    /// Seals a run of whose plan nothing is left: its process died while it drained.
    pub(super) fn seal(self) -> Result<PathBuf, DriveError> {
        let dir = self.dir.clone();
        let cores = self.last.as_ref().map_or(&[][..], |window| &window.cores);
        let agents_panicked = cores.iter().map(|core| core.panicked).sum();
        self.keep_heap()?;
        let now_ns = clock::monotonic_ns();
        let mut writer = self.begin(began(&host::describe(), now_ns))?;
        // Its epoch has no load. What was open counts as open at the cut.
        let end = EndRecord { drained: false, agents_panicked, ..EndRecord::finished(0) };
        writer.finish(now_ns, &PerAgent::default(), &end)?;
        Ok(dir)
    }
}

/// What has the name of the epoch already is its state: what lies beside that was made by a resumption that failed before
/// an epoch of its own began, and is of none.
fn keep_states(dir: &Path, epoch: u32) -> std::io::Result<()> {
    let entries = fs::read_dir(dir)?;
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let kept = match name.strip_prefix("heap-at-") {
            Some(rest) => format!("heap-epoch-{epoch}-at-{rest}"),
            None if name == HEAP_STATE => heap_state(epoch, epoch + 1),
            None => continue,
        };
        let (name, kept) = (dir.join(name), dir.join(kept));
        if kept.exists() { fs::remove_file(name)? } else { fs::rename(name, kept)? }
    }
    Ok(())
}

fn next_number(epochs: &[Epoch]) -> u32 {
    epochs.last().map_or(1, |epoch| epoch.number).saturating_add(1)
}

fn refuse_ended(dir: &Path, run: &RunFrames) -> Result<(), DriveError> {
    if dir.join(CERTIFICATE).exists() {
        let cause = "it is signed: its certificate covers every file as it is";
        return Err(not_resumable(dir, cause, "begin a new run with `tailbeam soak`"));
    }
    if let Some(end) = &run.end {
        let cause = format!("it was sealed as {}", end.reason);
        return Err(not_resumable(dir, cause, "begin a new run with `tailbeam soak`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumption_that_failed_takes_no_state_of_the_epoch_before_away() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        write(HEAP_STATE, "two days");
        write("heap-at-3600s.tbh", "an hour");
        keep_states(dir, 1).unwrap();
        // It got as far as a state of its own.
        write(HEAP_STATE, "a second");
        keep_states(dir, 1).unwrap();
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read(&heap_state(1, 2)), "two days");
        assert_eq!(read("heap-epoch-1-at-3600s.tbh"), "an hour");
        assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
        write(HEAP_STATE, "of the second epoch");
        keep_states(dir, 2).unwrap();
        assert_eq!(read(&heap_state(2, 3)), "of the second epoch");
    }
}
