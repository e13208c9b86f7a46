//! Records a process that runs already, until it ends, the time is up or we are told to stop. The process
//! is neither stopped nor changed.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tailbeam_harness::evidence::Ending;
use tailbeam_probes::clock;
use tailbeam_probes::collect::program::{AttachError, Watch};
use tailbeam_probes::record::program::ProgramStart;

use super::super::Outcome;
use super::recording::{self, Recording};
use crate::Failure;
use crate::args::Record;

pub(super) fn run(process: u32, args: &Record, root: &Path, err: &mut dyn Write) -> Outcome {
    let (signals, told) = signals()?;
    let options = recording::options(args);
    let start_ns = clock::monotonic_ns();
    let watch = Watch::attach(process, options).map_err(|error| refused(process, &error))?;
    let command: Vec<OsString> = command(process);
    let (dir, mut recorded) = super::begin(args, root, &command)?;
    let start = ProgramStart {
        started_unix_ns: clock::realtime_ns(),
        start_ns,
        process,
        attached: true,
        command: recorded.command.clone(),
        hz: options.tree.hz,
        cpus: watch.cpus(),
        modes: watch.modes(),
    };
    let mut recording = Recording::begin(watch, &start, args, &dir);
    let (reason, code) = until_told(&told, &mut recording);
    recording.end(reason, clock::monotonic_ns(), Some(&mut Watch::total));
    signals.close();
    let ended_unix_ns = clock::realtime_ns();
    recorded.end = Some(Ending { ended_unix_ns, code: None, signal: None });
    recorded.write(&dir)?;
    if !args.quiet {
        let _ = recording.told().iter().try_for_each(|line| writeln!(err, "{line}"));
        let _ = writeln!(err, "run: {}", dir.display());
    }
    Ok(code)
}

/// Why it ended, and the exit code.
fn until_told(told: &Receiver<i32>, recording: &mut Recording) -> (&'static str, u8) {
    loop {
        recording.step(clock::monotonic_ns());
        if !recording.goes_on() {
            return ("duration", 0);
        }
        if recording.watch().is_some_and(|watch| !watch.first_lives()) {
            return ("program ended", 0);
        }
        match told.recv_timeout(recording.idle(clock::monotonic_ns())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(SIGINT) => return ("interrupted", 130),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return ("interrupted", 143),
        }
    }
}

fn signals() -> Result<(Handle, Receiver<i32>), Failure> {
    let failed = |error| {
        Failure::new(1, format!("cannot watch signals\n  cause: {error}\n  remedy: none known"))
    };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let (handle, (tell, told)) = (signals.handle(), channel());
    let pass = move || {
        for signal in signals.forever() {
            // Nobody listens when the recording has ended by itself.
            let _ = tell.send(signal);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(pass).map_err(failed)?;
    Ok((handle, told))
}

/// Program and arguments of a process.
fn command(process: u32) -> Vec<OsString> {
    let bytes = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| OsString::from(String::from_utf8_lossy(word).into_owned())).collect()
}

/// Why a process cannot be recorded, and what to do.
pub(in crate::command) fn refused(process: u32, error: &AttachError) -> Failure {
    let (cause, remedy) = match error {
        AttachError::NoSuch => (
            format!("there is no process {process}"),
            "name one that `ps` lists, in this pid namespace".to_owned(),
        ),
        AttachError::Ended => (
            format!("process {process} has ended"),
            "start it under record: `tailbeam record -- CMD`".to_owned(),
        ),
        AttachError::Kernel => (
            format!("{process} is a thread of the kernel"),
            "name a process; `perf record -a` shows the kernel's threads".to_owned(),
        ),
        AttachError::Thread(leader) => (
            format!("{process} is a thread of process {leader}"),
            format!("name the process: --pid {leader}"),
        ),
        AttachError::Refused(error) => (
            format!("process {process} is another user's, or keeps its memory to itself: {error}"),
            "record as its user, or as root; CAP_SYS_PTRACE and CAP_PERFMON are enough".to_owned(),
        ),
        _ => ("it cannot be watched".to_owned(), "record another".to_owned()),
    };
    Failure::new(1, format!("nothing to record\n  cause: {cause}\n  remedy: {remedy}"))
}
