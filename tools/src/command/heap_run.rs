//! Finds and reads the heap state of a run, and says one thing when it cannot.

use std::fs;
use std::path::{Path, PathBuf};

use tailbeam_harness::evidence::{Store, Waits, read_plan};
use tailbeam_harness::plan::Plan;
use tailbeam_probes::Unavailable;
use tailbeam_probes::record::heap::HeapSnapshot;
use tailbeam_probes::record::heap_file::{self, HeapFileError};

use crate::Failure;
use crate::args;

/// Name of the state file in a run directory.
const STATE: &str = "heap.tbh";

/// A heap state and what it is called.
#[derive(Debug)]
pub(super) struct HeapRun {
    /// Run id, or the name of the directory or file; with the instant, where one was asked for.
    pub(super) name: String,
    /// The state.
    pub(super) snapshot: HeapSnapshot,
    /// Other processes of the run, and those of its earlier epochs, by file name.
    pub(super) others: Vec<String>,
    /// What the runtime's registry said at the end.
    pub(super) waits: Result<Waits, Unavailable>,
}

/// Reads the heap state that `name` means: a run (id, unique prefix, `@last`, `@last~N`), a directory that
/// holds `heap.tbh`, or such a file; `name@2h` is the newest state kept at or before that instant. `pid`
/// picks a process.
///
/// # Errors
/// Exit code 1 when there is nothing to read, 6 when it is damaged.
pub(super) fn load(root: &Path, name: &str, pid: Option<u32>) -> Result<HeapRun, Failure> {
    let (place, at_ns) = instant(name);
    let path = Path::new(place);
    if path.is_file() {
        let dir = path.parent().unwrap_or(Path::new("."));
        let own = path.file_name() == Some(STATE.as_ref());
        let waits = if own { Waits::read(dir) } else { Err(of_another()) };
        return read(path, file_name(path), Vec::new(), waits);
    }
    let dir = match path.join(STATE).is_file() {
        true => path.to_owned(),
        false => in_store(root, place)?,
    };
    let own = pid.map_or_else(|| STATE.to_owned(), |pid| format!("heap-{pid}.tbh"));
    let states = states(&dir);
    // Copies, those of earlier epochs among them, are no processes.
    let process = |file: &&String| **file != own && !file.contains("-at-");
    let others: Vec<String> = states.iter().filter(process).cloned().collect();
    if !states.contains(&own) {
        return Err(without_heap(&dir, &own, &others));
    }
    let run = file_name(&dir);
    match at_ns {
        None => {
            let waits = if pid.is_none() { Waits::read(&dir) } else { Err(of_another()) };
            read(&dir.join(own), run, others, waits)
        }
        Some(at_ns) => read(
            &dir.join(kept(&dir, &states, at_ns)?),
            format!("{run}@{}", seconds(at_ns)),
            others,
            Err(of_another()),
        ),
    }
}

/// The plan that the run was made by, if it has one.
pub(super) fn plan(root: &Path, name: &str) -> Option<Plan> {
    let (place, _) = instant(name);
    read_plan(&in_store(root, place).ok()?)
}

/// `RUN@2h` to run and instant; `@last` and paths with an `@` are names.
fn instant(name: &str) -> (&str, Option<u64>) {
    match name.rfind('@').filter(|&at| at > 0) {
        Some(at) => match args::duration(&name[at + 1..]) {
            Ok(ns) => (&name[..at], Some(ns)),
            Err(_) => (name, None),
        },
        None => (name, None),
    }
}

fn file_name(path: &Path) -> String {
    let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    name.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn seconds(ns: u64) -> String {
    format!("{}s", ns / 1_000_000_000)
}

fn in_store(root: &Path, name: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if name.ends_with(".tbh") || name.contains('/') {
        return Err(Failure::new(
            1,
            format!(
                "no heap state at {name}\n  cause: there is no such file or directory\n  remedy: name a run, a directory with {STATE}, or such a file"
            ),
        ));
    }
    Store::open_existing(root)
        .and_then(|store| store.resolve(name))
        .map_err(|error| Failure::new(1, error))
}

/// Names of the state files of a directory, sorted.
fn states(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".tbh")).collect();
    names.sort();
    names
}

/// Seconds after the start of a state that was kept, by its name `heap-at-<seconds>s.tbh`.
fn kept_at(file: &str) -> Option<u64> {
    file.strip_prefix("heap-at-")?.strip_suffix("s.tbh")?.parse().ok()
}

/// The newest state that was kept at or before an instant.
fn kept(dir: &Path, states: &[String], at_ns: u64) -> Result<String, Failure> {
    let mut kept: Vec<(u64, &String)> =
        states.iter().filter_map(|file| Some((kept_at(file)?, file))).collect();
    kept.sort();
    let found = kept.iter().rev().find(|(at, _)| at.saturating_mul(1_000_000_000) <= at_ns);
    found.map(|(_, file)| (*file).clone()).ok_or_else(|| {
        let times: Vec<String> = kept.iter().map(|(at, _)| format!("{at}s")).collect();
        let has = match times.is_empty() {
            true => "it kept its last state only".to_owned(),
            false => format!("it kept {}", times.join(", ")),
        };
        Failure::new(
            1,
            format!(
                "{} has no heap state at or before {}\n  cause: {has}\n  remedy: name another run with --base RUN, or an instant that was kept",
                dir.display(),
                seconds(at_ns)
            ),
        )
    })
}

fn without_heap(dir: &Path, own: &str, others: &[String]) -> Failure {
    let (cause, remedy) = match others.is_empty() {
        true => (
            format!("this run carried no heap probe: there is no {own}"),
            "record one with `tailbeam record --heap -- PROGRAM`, or start a program with TailbeamAlloc".to_owned(),
        ),
        false => (
            format!("there is no {own}, only {}", others.join(", ")),
            "pick a process with --pid".to_owned(),
        ),
    };
    Failure::new(
        1,
        format!("no heap state in {}\n  cause: {cause}\n  remedy: {remedy}", dir.display()),
    )
}

/// The registry is read once, at the end of a run's own process.
fn of_another() -> Unavailable {
    Unavailable {
        source: "the runtime's registry",
        cause: "this state is not the last one of the run's own process".to_owned(),
        remedy: "leave out the instant, --pid or the file's name".to_owned(),
    }
}

fn read(
    path: &Path,
    name: String,
    others: Vec<String>,
    waits: Result<Waits, Unavailable>,
) -> Result<HeapRun, Failure> {
    match heap_file::read(path) {
        Ok(snapshot) => Ok(HeapRun { name, snapshot, others, waits }),
        Err(HeapFileError::Io { error, .. }) => Err(Failure::new(
            1,
            format!(
                "cannot read {}\n  cause: {error}\n  remedy: make it readable, or name another run",
                path.display()
            ),
        )),
        Err(error @ HeapFileError::Version { .. }) => {
            Err(damaged(path, &error, "read it with the tailbeam that recorded it"))
        }
        Err(error) => {
            Err(damaged(path, &error, "restore it from a copy, or record the program again"))
        }
    }
}

fn damaged(path: &Path, error: &HeapFileError, remedy: &str) -> Failure {
    let text = format!(
        "the heap state {} cannot be used\n  cause: {error}\n  remedy: {remedy}",
        path.display()
    );
    Failure::new(6, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_what_follows_the_last_at() {
        assert_eq!(instant("@last"), ("@last", None));
        assert_eq!(instant("@last@2h"), ("@last", Some(7_200_000_000_000)));
        assert_eq!(instant("2026@90s"), ("2026", Some(90_000_000_000)));
        assert_eq!(instant("./a@b/run"), ("./a@b/run", None));
    }

    #[test]
    fn the_newest_state_at_or_before_an_instant_is_taken() {
        let files = ["heap.tbh", "heap-12.tbh", "heap-at-60s.tbh", "heap-at-120s.tbh"];
        let files = files.map(str::to_owned);
        let at = |s: u64| kept(Path::new("r"), &files, s * 1_000_000_000);
        assert_eq!(at(60).unwrap(), "heap-at-60s.tbh");
        assert_eq!(at(119).unwrap(), "heap-at-60s.tbh");
        assert_eq!(at(7_200).unwrap(), "heap-at-120s.tbh");
        let error = at(59).unwrap_err();
        assert!(error.code == 1 && error.text.contains("60s, 120s"), "{error:?}");
    }
}
