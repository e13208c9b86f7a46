//! The process that heals the host when the supervisor dies.
//!
//! It waits until the pipe from the supervisor ends, which happens at the supervisor's death, of whatever kind, or
//! when the supervisor lets go of it. Then it undoes the journal. It is in a session of its own, in no group of a
//! run, ignores what a terminal sends, is the last that the kernel kills for memory, and runs at real-time priority
//! above any hog, where it may: each of these that it may not is said in its first line.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Take, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open, setsid};

use tailbeam_probes::clock::monotonic_ns;

use super::failure::{self, Failure};
use super::journal::{self, Undone};
use super::process::{LAST_MS, Process, timespec};
use super::tool;

/// Its priority of `SCHED_FIFO`: above [`HOG_PRIORITY`]. It sleeps until it is needed.
const PRIORITY: &str = "20";
/// Priority of a real-time hog.
pub(super) const HOG_PRIORITY: u8 = 10;
/// The first word that it says, when it watches.
const READY: &str = "ready";
/// Longest wait for that, ms.
const READY_MS: u64 = 10_000;
/// A tool that outlives the supervisor ends within this, ms, or is not waited for.
const TOOLS_MS: u64 = tool::TOOL_MS;
/// Longest wait of a supervisor for its guard, ms: for several things that end late, one after the other.
const END_MS: u64 = 10 * LAST_MS;

/// The guard of a run. It watches while this lives.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    process: Process,
    limits: String,
    /// Held open, so that the guard may say more and not fail.
    _out: BufReader<Take<ChildStdout>>,
}

impl Guard {
    /// Starts the guard, `program` with `args`, which calls [`run_guard`] with its stdin and stdout; and waits until
    /// it watches. It holds `journal` from its first instant to its last: whoever goes on with the series waits for that
    /// ([`idle`]), so it is this journal that the guard finds under its name.
    ///
    /// # Errors
    /// It cannot be started, or does not watch within 10 s; the journal cannot be held.
    pub fn start(program: &Path, args: &[String], journal: &Path) -> Result<Self, Failure> {
        let held = inherited(journal).map_err(|error| failure::io(journal, "hold", error))?;
        let mut command = Command::new(program);
        // Not in a folder that may be a mount of the run. Both pipes are close-on-exec here (std), so that no other
        // child has them.
        command.args(args).current_dir("/").stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| failure::io(program, "start", error))?;
        drop(held);
        let process = Process::of(child.id())?;
        let mut out = BufReader::new(child.stdout.take().expect("piped above").take(65_536));
        match first_line(&mut out) {
            Ok(limits) => Ok(Self { child, process, limits, _out: out }),
            Err(failure) => {
                process.signal(rustix::process::Signal::KILL)?;
                child.wait().map_err(|error| failure::io(program, "wait for", error))?;
                Err(failure)
            }
        }
    }

    /// What it may not do here, in its own words; empty: nothing.
    #[must_use]
    pub fn limits(&self) -> &str {
        &self.limits
    }

    /// Which process it is.
    #[must_use]
    pub const fn process(&self) -> Process {
        self.process
    }

    /// The pipe, for [`Journal::hold`](super::Journal::hold).
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn lifeline(&self) -> Result<OwnedFd, Failure> {
        let pipe = self.child.stdin.as_ref().expect("held while the guard is");
        let copy = pipe.as_fd().try_clone_to_owned();
        copy.map_err(|error| failure::io(Path::new("the guard's pipe"), "copy", error))
    }

    /// Lets go: the guard undoes what is not undone, and ends. `true`: everything is as it was. The journal, which
    /// holds the pipe too, must be gone.
    ///
    /// # Errors
    /// It does not end within ten minutes.
    pub fn finish(mut self) -> Result<bool, Failure> {
        drop(self.child.stdin.take());
        if !self.process.ends_within(END_MS)? {
            return Err(Failure::Slow { what: "the guard".to_owned(), ms: END_MS });
        }
        let status = self.child.wait();
        status
            .map(|status| status.success())
            .map_err(|error| failure::io(Path::new("the guard"), "wait for", error))
    }
}

/// The line by which it says that it watches, and what it may not.
fn first_line(out: &mut BufReader<Take<ChildStdout>>) -> Result<String, Failure> {
    let pipe = out.get_ref().get_ref();
    let ready = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timespec(READY_MS)));
    if !ready.is_ok_and(|ready| ready > 0) {
        return Err(Failure::Slow { what: "the guard's start".to_owned(), ms: READY_MS });
    }
    // A program that says other things first, as a test does, is let say them: but not without end.
    let (mut said, mut start) = (String::new(), 0);
    while out.read_line(&mut said).is_ok_and(|bytes| bytes > 0) {
        if let Some((_, limits)) = said[start..].split_once(READY) {
            return Ok(limits.trim().to_owned());
        }
        start = said.len();
    }
    Err(Failure::Differs { what: "the guard".to_owned(), found: said, wanted: READY.to_owned() })
}

/// Is the guard, in this process: waits until `pipe` ends, then undoes the journal. Exit 0 if that was
/// [`Undone::clean`].
///
/// # Errors
/// The journal cannot be read.
pub fn run_guard(
    journal: &Path,
    mut pipe: impl Read + AsFd,
    mut to_supervisor: impl Write,
) -> Result<Undone, Failure> {
    let limits = set_up();
    let supervisor = rustix::process::getppid().and_then(watch);
    // A supervisor that is dead by now does not read this, and its pipe has ended.
    drop(writeln!(to_supervisor, "{READY} {limits}").and_then(|()| to_supervisor.flush()));
    let died = supervisor.is_some_and(|handle| died_first(&handle, &pipe));
    if died {
        // What still holds the pipe is a tool that it left behind in the middle of a step.
        let waited = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timespec(TOOLS_MS)));
        waited.map_err(|error| failure::io(Path::new("the pipe"), "wait for", error))?;
    } else {
        // Nothing is ever said through it; it ends.
        let ended = io::copy(&mut pipe, &mut io::sink());
        ended.map_err(|error| failure::io(Path::new("the pipe"), "read", error))?;
    }
    journal::undo(journal)
}

/// A descriptor that the next child has too, and with it a lock on the journal that ends with the last who has it.
fn inherited(journal: &Path) -> io::Result<fs::File> {
    let held = fs::File::open(journal)?;
    flock(&held, FlockOperation::NonBlockingLockShared)?;
    fcntl_setfd(&held, FdFlags::empty())?;
    Ok(held)
}

/// Waits until no guard of an earlier supervisor has this journal in its hands.
///
/// # Errors
/// One still has after ten minutes, or the journal cannot be opened.
pub fn idle(journal: &Path) -> Result<(), Failure> {
    let file = fs::File::open(journal).map_err(|error| failure::io(journal, "open", error))?;
    let until_ns = monotonic_ns() + END_MS * 1_000_000;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if monotonic_ns() < until_ns => {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            Err(Errno::WOULDBLOCK) => {
                let what =
                    format!("the guard of an earlier try, which holds {},", journal.display());
                return Err(Failure::Slow { what, ms: END_MS });
            }
            Err(error) => return Err(failure::io(journal, "hold", error)),
        }
    }
}

fn watch(pid: Pid) -> Option<OwnedFd> {
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Waits for the supervisor's end or the pipe's; says whether the supervisor has ended and something still holds
/// the pipe.
fn died_first(supervisor: &OwnedFd, pipe: &impl AsFd) -> bool {
    let mut watched = [PollFd::new(supervisor, PollFlags::IN), PollFd::new(pipe, PollFlags::IN)];
    while poll(&mut watched, None).is_err() {}
    watched[1].revents().is_empty()
}

/// Sets this process apart; gives what it may not.
fn set_up() -> String {
    let mut refused = Vec::new();
    let mut note = |what: &str, result: Result<(), String>| {
        if let Err(why) = result {
            refused.push(format!("{what}: {why}"));
        }
    };
    note("no session of its own", setsid().map(|_| ()).map_err(|error| error.to_string()));
    // Handled by a flag that nobody reads: so they neither end this process nor interrupt its work.
    for signal in
        [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
    {
        let ignored = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
        note("a signal may end it", ignored.map(|_| ()).map_err(|error| error.to_string()));
    }
    let last = fs::write(PathBuf::from("/proc/self/oom_score_adj"), "-1000");
    note("it may be killed for memory", last.map_err(|error| error.to_string()));
    let own = std::process::id().to_string();
    let real_time = tool::run(&["chrt", "-a", "-f", "-p", PRIORITY, &own], None);
    note("no real-time priority", real_time.map(|_| ()).map_err(|failure| failure.to_string()));
    refused.join("; ")
}
