//! A process that cannot be mistaken for a later one with its number.

use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tailbeam_probes::clock::monotonic_ns;

use super::failure::{self, Failure};

/// A process: its number and when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// What `/proc/PID/stat` says (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) state: char,
    pub(super) cpu_ticks: u64,
    pub(super) start_ticks: u64,
}

/// Fields after the name, which is in parentheses and may hold any of them.
pub(super) fn stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        cpu_ticks: number(11)? + number(12)?,
        start_ticks: number(19)?,
    })
}

fn stat_of(pid: u32) -> Result<Stat, Failure> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = failure::text(&path)?;
    stat(&text).ok_or_else(|| Failure::Differs {
        what: path.display().to_string(),
        found: text,
        wanted: "the fields of proc(5)".to_owned(),
    })
}

impl Process {
    /// The process that has this number now.
    ///
    /// # Errors
    /// There is none, or `/proc` cannot be read.
    pub fn of(pid: u32) -> Result<Self, Failure> {
        Ok(Self { pid, start_ticks: stat_of(pid)?.start_ticks })
    }

    /// It has not ended. One that ended and is not waited for counts as ended.
    #[must_use]
    pub fn is_alive(self) -> bool {
        self.now().is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
    }

    /// State letter of `/proc/PID/stat`: `T` stopped, `D` frozen by a v1 freezer. None: it is gone.
    #[must_use]
    pub fn state(self) -> Option<char> {
        self.now().map(|stat| stat.state)
    }

    /// CPU time so far, ms, at the resolution of clock ticks (usually 10 ms). None: it is gone.
    #[must_use]
    pub fn cpu_ms(self) -> Option<u64> {
        self.now().map(|stat| stat.cpu_ticks * 1_000 / rustix::param::clock_ticks_per_second())
    }

    /// Sends a signal. `false`: it is gone.
    ///
    /// # Errors
    /// It is not ours to signal.
    pub fn signal(self, signal: Signal) -> Result<bool, Failure> {
        let Some(handle) = self.handle()? else { return Ok(false) };
        match pidfd_send_signal(handle, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(self.failure(&format!("send {signal:?} to"), error)),
        }
    }

    /// Waits until it has ended. `false`: the time was over first.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn ends_within(self, ms: u64) -> Result<bool, Failure> {
        let Some(handle) = self.handle()? else { return Ok(true) };
        let mut watched = [PollFd::new(&handle, PollFlags::IN)];
        let found = poll(&mut watched, Some(&timespec(ms)));
        found.map(|ready| ready > 0).map_err(|error| self.failure("wait for", error))
    }

    /// A handle of it, and of nobody who got its number later. None: it is gone.
    fn handle(self) -> Result<Option<OwnedFd>, Failure> {
        let raw = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let handle = match raw.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(handle)) => handle,
            None | Some(Err(Errno::SRCH)) => return Ok(None),
            Some(Err(error)) => return Err(self.failure("open", error)),
        };
        // Asked after the handle was made: if it is the same process now, the handle is its own.
        Ok(self.now().is_some().then_some(handle))
    }

    fn now(self) -> Option<Stat> {
        stat_of(self.pid).ok().filter(|stat| stat.start_ticks == self.start_ticks)
    }

    fn failure(self, verb: &str, error: Errno) -> Failure {
        failure::io(Path::new(&format!("process {}", self.pid)), verb, error)
    }

    /// For system calls by number; ESRCH when it is gone.
    pub(super) fn raw(self) -> Result<Pid, Failure> {
        let raw = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        raw.filter(|_| self.now().is_some()).ok_or_else(|| self.failure("find", Errno::SRCH))
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

pub(super) fn timespec(ms: u64) -> Timespec {
    let (s, rest) = (ms / 1_000, ms % 1_000);
    Timespec {
        tv_sec: i64::try_from(s).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(rest * 1_000_000).expect("below 1e9"),
    }
}

/// Longest wait for what comes by itself once it was asked for, ms: the end of a process that was killed, a mount that
/// nobody uses any more. A process that the kernel holds, in a sync on a busy disk or while its memory is given back, or
/// whose core somebody else has, dies when that is over; there is nothing to do meanwhile but to wait.
pub(super) const LAST_MS: u64 = 60_000;

/// Asks every 10 ms until something is given; not again when [`LAST_MS`] are over. `what` is waited for, in words.
pub(super) fn until_given<T>(
    what: impl FnOnce() -> String,
    mut ask: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let until_ns = monotonic_ns() + LAST_MS * 1_000_000;
    loop {
        if let Some(given) = ask()? {
            return Ok(given);
        }
        if monotonic_ns() > until_ns {
            return Err(Failure::Slow { what: what(), ms: LAST_MS });
        }
        pause_ms(10);
    }
}

/// Waits without an event to wait for: the kernel reports none when a group is empty or a mount is free.
pub(super) fn pause_ms(ms: u64) {
    // An early return is harmless: who calls this asks again.
    let _: Result<usize, Errno> = poll(&mut [], Some(&timespec(ms)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 31 11 0 0 20 0 1 0 4242 9 9";
        let wanted = Stat { state: 'S', cpu_ticks: 42, start_ticks: 4_242 };
        assert_eq!(stat(text), Some(wanted));
        assert_eq!(stat("7 (a) S 1 7"), None);
    }

    #[test]
    fn a_later_process_with_the_number_is_not_taken_for_it() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_alive() && own.state().is_some());
        let other = Process { start_ticks: own.start_ticks - 1, ..own };
        assert!(!other.is_alive());
        // Would kill this test if it were taken for it.
        assert!(!other.signal(Signal::KILL).unwrap());
        assert!(other.ends_within(0).unwrap() && !own.ends_within(0).unwrap());
    }
}
