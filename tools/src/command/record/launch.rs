//! Starts a program and records it to its end. Its exit, its signals and its output are its own.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tailbeam_probes::clock;
use tailbeam_probes::collect::program::Watch;
use tailbeam_probes::record::program::ProgramStart;

use super::Starting;
use super::recording::{self, Recording};
use crate::Failure;
use crate::args::Record;

/// Runs the program to its end; signals that are meant for it reach it.
pub(super) fn run(
    starting: &Starting<'_>,
    args: &Record,
    dir: &Path,
) -> Result<(ExitStatus, Vec<String>), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            1,
            format!(
                "{} did not start\n  cause: {error}\n  remedy: start it without tailbeam first",
                starting.program.display()
            ),
        )
    };
    // Made before anything is inherited from this thread.
    let signals = Passing::start().map_err(failed)?;
    // Limits are raised when the program has its own; a CPU and a core's counters fit any limit.
    let mut options = recording::launch_options(args);
    let mut watch = Watch::launching(options);
    let modes = watch.modes();
    let start_ns = clock::monotonic_ns();
    let mut child = spawn(starting).map_err(failed)?;
    signals.tell(child.id());
    watch.started(child.id());
    options = recording::options(args);
    watch.allow(options.groups_max);
    let start = ProgramStart {
        started_unix_ns: clock::realtime_ns(),
        start_ns,
        process: child.id(),
        attached: false,
        command: starting.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        hz: options.tree.hz,
        cpus: watch.cpus(),
        modes,
    };
    let mut recording = Recording::begin(watch, &start, args, dir);
    if let Some(exits) = exits(&child) {
        until_exit(&exits, &mut recording);
    }
    let mut status = None;
    // The totals are those of children that were waited for.
    recording.end(
        "program ended",
        clock::monotonic_ns(),
        Some(&mut |watch: &Watch| {
            status = Some(child.wait());
            watch.total()
        }),
    );
    let status = status.unwrap_or_else(|| child.wait()).map_err(failed)?;
    signals.end();
    Ok((status, recording.told()))
}

fn until_exit(exits: &Receiver<()>, recording: &mut Recording) {
    loop {
        let now_ns = clock::monotonic_ns();
        recording.step(now_ns);
        match exits.recv_timeout(recording.idle(clock::monotonic_ns())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Hears when the program has ended, which is not waited for yet: its last counts can still be read.
fn exits(child: &Child) -> Option<Receiver<()>> {
    let (heard, exits): (Sender<()>, _) = channel();
    let pid = Pid::from_child(child);
    let wait = move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), options).err() == Some(rustix::io::Errno::INTR) {}
        // Nobody listens when the recording has ended by itself.
        let _ = heard.send(());
    };
    thread::Builder::new().name("exit".to_owned()).spawn(wait).ok()?;
    Some(exits)
}

fn spawn(starting: &Starting<'_>) -> std::io::Result<Child> {
    let mut command = Command::new(starting.program);
    command.arg0(&starting.command[0]).args(&starting.command[1..]);
    for (name, value) in starting.environment.into_iter().flatten() {
        command.env(name, value);
    }
    command.spawn()
}

/// Passes signals on to the program.
struct Passing {
    handle: signal_hook::iterator::Handle,
    thread: thread::JoinHandle<()>,
    process: Arc<AtomicI32>,
}

impl Passing {
    fn start() -> std::io::Result<Self> {
        // Whoever ignores a signal (nohup) hands that on to the program; we take only what we do not ignore.
        let ignored = ignored_signals(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let wanted = [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];
        let taken = wanted.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = Signals::new(taken)?;
        let (handle, process) = (signals.handle(), Arc::new(AtomicI32::new(0)));
        let of = Arc::clone(&process);
        let pass = move || {
            for signal in signals.forever() {
                // The terminal sends these two to the whole group, the program included.
                let from_terminal = signal == SIGINT || signal == SIGQUIT;
                let pid = Pid::from_raw(of.load(Ordering::Acquire));
                if let (false, Some(pid), Some(signal)) =
                    (from_terminal, pid, Signal::from_named_raw(signal))
                {
                    // It may have ended just now; then there is nobody to tell.
                    let _ = kill_process(pid, signal);
                }
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(pass)?;
        Ok(Self { handle, thread, process })
    }

    fn tell(&self, process: u32) {
        self.process.store(process.cast_signed(), Ordering::Release);
    }

    fn end(self) {
        self.process.store(0, Ordering::Release);
        self.handle.close();
        // The thread only passes signals on and cannot panic.
        let _ = self.thread.join();
    }
}

/// The mask of `SigIgn` in `/proc/self/status`; bit `n - 1` is signal `n`.
fn ignored_signals(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        assert_eq!(ignored_signals("Name:\tx\nSigIgn:\t0000000000000001\n"), 1);
        assert_eq!(ignored_signals(""), 0);
    }
}
