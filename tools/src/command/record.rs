//! `record`: runs a program of any language, watches it, and with `--heap` preloads our object; or watches
//! one that runs already. It stays out of the program's way.
//!
//! Stdin, stdout, stderr, exit code and signals are the program's. What we say comes after its end, on
//! stderr, and not at all with `--quiet`. A program that could not be recorded is not started.

mod attach;
mod launch;
mod recording;

pub(super) use attach::refused;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tailbeam_harness::evidence::{Ending, RECORD_VERSION, Recorded, Store};
use tailbeam_probes::clock;

use super::Outcome;
use super::target::{self, Refusal};
use crate::Failure;
use crate::args::Record;

/// Name of the shared object.
const OBJECT: &str = "libtailbeam_preload.so";
/// What the preloaded object reads its configuration from.
const CONFIG: &str = "TAILBEAM_HEAP";

pub(super) fn run(args: &Record, root: &Path, err: &mut dyn Write) -> Outcome {
    if let Some(process) = args.pid {
        return attach::run(process, args, root, err);
    }
    let command = &args.command;
    let before = std::env::var_os("LD_PRELOAD");
    let refused = |what: &str, refusal: Refusal| {
        let Refusal { cause, remedy } = refusal;
        Failure::new(1, format!("{what}\n  cause: {cause}\n  remedy: {remedy}"))
    };
    let program = target::find(&command[0], std::env::var_os("PATH").as_deref())
        .map_err(|refusal| refused("nothing to record", refusal))?;
    let object = match args.heap {
        false => None,
        true => {
            target::check(&program)
                .and_then(|()| target::check_preloaded(before.as_deref()))
                .map_err(|refusal| refused("this program cannot be recorded", refusal))?;
            Some(object(args.preload.as_deref(), std::env::current_exe().ok().as_deref())?)
        }
    };
    let (dir, mut recorded) = begin(args, root, command)?;
    let environment = object.map(|object| environment(&object, before, &recorded, &dir));
    let start = Starting { program: &program, command, environment: environment.as_ref() };
    let (status, told) = launch::run(&start, args, &dir)?;
    recorded.end = Some(Ending {
        ended_unix_ns: clock::realtime_ns(),
        code: status.code(),
        signal: status.signal(),
    });
    recorded.write(&dir)?;
    if !args.quiet {
        // The program has ended and its exit code is owed in any case.
        let _ = told.iter().try_for_each(|line| writeln!(err, "{line}"));
        let _ = if args.heap { after(&dir, err) } else { writeln!(err, "run: {}", dir.display()) };
    }
    Ok(exit_code(status))
}

/// Makes the run's directory with the word of what is recorded.
fn begin(args: &Record, root: &Path, command: &[OsString]) -> Result<(PathBuf, Recorded), Failure> {
    let store = Store::open(root).map_err(|error| Failure::new(1, error))?;
    let (_, dir) =
        store.create_run(clock::realtime_ns()).map_err(|error| Failure::new(1, error))?;
    let dir = fs::canonicalize(&dir)?;
    let recorded = Recorded {
        version: RECORD_VERSION,
        started_unix_ns: clock::realtime_ns(),
        command: command.iter().map(|part| part.to_string_lossy().into_owned()).collect(),
        mean_bytes: if args.exact { 1 } else { args.sample },
        exact: args.exact,
        heap: args.heap,
        attached: args.pid,
        end: None,
    };
    recorded.write(&dir)?;
    Ok((dir, recorded))
}

/// What is started.
struct Starting<'a> {
    program: &'a Path,
    command: &'a [OsString],
    environment: Option<&'a [(&'static str, OsString); 2]>,
}

/// As a shell tells it: 128 + N after signal N.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(1)).unwrap_or(u8::MAX)
}

/// The object to preload: the one given, else beside this program, else where cargo and packages put it.
fn object(given: Option<&Path>, this: Option<&Path>) -> Result<PathBuf, Failure> {
    let beside = |dir: &Path| {
        [
            OBJECT,
            "deps/libtailbeam_preload.so",
            "../lib/tailbeam/libtailbeam_preload.so",
            "../libtailbeam_preload.so",
        ]
        .map(|name| dir.join(name))
    };
    let places: Vec<PathBuf> = match (given, this.and_then(Path::parent)) {
        (Some(given), _) => vec![given.to_owned()],
        (None, Some(dir)) => beside(dir).to_vec(),
        (None, None) => Vec::new(),
    };
    let found = places.iter().find_map(|place| fs::canonicalize(place).ok());
    let Some(found) = found else {
        let tried: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        return Err(Failure::new(
            1,
            format!(
                "the object to preload is missing\n  cause: not found at {}\n  remedy: `cargo build --release -p tailbeam-preload`, then put target/release/{OBJECT} beside tailbeam, or name it with --preload FILE",
                tried.join(", ")
            ),
        ));
    };
    // ld.so(8): the items of LD_PRELOAD are separated by spaces or colons, and nothing escapes one.
    if found.to_string_lossy().contains([' ', ':']) {
        return Err(Failure::new(
            1,
            format!(
                "{} cannot be preloaded\n  cause: the loader splits LD_PRELOAD at spaces and colons\n  remedy: copy the object to a path without them and name it with --preload FILE",
                found.display()
            ),
        ));
    }
    Ok(found)
}

/// What the program's environment gains.
fn environment(
    object: &Path,
    before: Option<OsString>,
    recorded: &Recorded,
    dir: &Path,
) -> [(&'static str, OsString); 2] {
    let mut preload = object.as_os_str().to_owned();
    if let Some(before) = before.filter(|before| !before.is_empty()) {
        preload.push(":");
        preload.push(before);
    }
    let mut config =
        OsString::from(format!("1;{};{};", recorded.mean_bytes, u8::from(recorded.exact)));
    config.push(dir);
    [("LD_PRELOAD", preload), (CONFIG, config)]
}

/// What there is to know after the end: where the run is, and which processes could not be recorded.
fn after(dir: &Path, err: &mut dyn Write) -> std::io::Result<()> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(dir)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    names.sort();
    let states = names.iter().filter(|name| name.extension() == Some(OsStr::new("tbh"))).count();
    for refused in names.iter().filter(|name| name.extension() == Some(OsStr::new("refused"))) {
        writeln!(err, "not recorded: {}", fs::read_to_string(refused)?.trim_end())?;
    }
    if let Some(late) = late(dir).filter(|&late| late > 0) {
        writeln!(err, "not recorded: {late} processes more: a run holds 256 state files")?;
    }
    if states == 0 {
        writeln!(
            err,
            "nothing was recorded\n  cause: no process loaded the object, or none could write to {}\n  remedy: see whether the program clears its environment, changes its user or replaces LD_PRELOAD",
            dir.display()
        )?;
    }
    if states > 1 {
        writeln!(err, "processes: {states}, the first in heap.tbh, others in heap-PID.tbh")?;
    }
    writeln!(err, "run: {}", dir.display())
}

/// Processes that came when the run had all the state files it may have: word 1 of `heap-count`.
fn late(dir: &Path) -> Option<u64> {
    let count = fs::read(dir.join("heap-count")).ok()?;
    Some(u64::from_le_bytes(*count.get(8..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_put_before_what_was_there_and_the_directory_comes_last() {
        let recorded = Recorded {
            version: RECORD_VERSION,
            started_unix_ns: 0,
            command: vec!["x".to_owned()],
            mean_bytes: 65_536,
            exact: false,
            heap: true,
            attached: None,
            end: None,
        };
        let before = Some(OsString::from("libfakeroot.so"));
        let made = environment(Path::new("/a/b.so"), before, &recorded, Path::new("/run;1"));
        assert_eq!(made[0].1, "/a/b.so:libfakeroot.so");
        assert_eq!(made[1].1, "1;65536;0;/run;1");
    }

    #[test]
    fn a_missing_object_is_an_error_that_says_how_to_get_it() {
        let failure = object(Some(Path::new("/nowhere/x.so")), None).unwrap_err();
        assert!(failure.text.contains("-p tailbeam-preload"), "{}", failure.text);
    }
}
