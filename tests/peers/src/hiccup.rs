//! A probe that runs beside each round: does a core stand still for more than a millisecond?
//!
//! One thread per core at real-time priority wakes at fixed instants, every half millisecond. Nothing that
//! runs at normal priority can hold it up, so a late wake is the machine's doing (a hypervisor that ran
//! somebody else, an interrupt that took long), and it hit the round as well. The probe runs in the parent:
//! its CPU time is not part of the peer's. Processes that share the cores with the peer are not seen by it:
//! they show as the time that the peer's threads were ready and did not run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use thread_priority::{ThreadPriority, set_current_thread_priority};

use crate::{clock, place, usage};

/// A wake that is later than this disturbs its round.
pub(crate) const STALL_NS: u64 = 1_000_000;
/// Late wakes kept per core and round.
const STALLS_MAX: usize = 4_096;

/// A core stood still from `from_ns` to `to_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
}

impl Stall {
    /// Whether a part of it lies in that window.
    pub(crate) const fn hits(self, window_ns: [u64; 2]) -> bool {
        self.from_ns <= window_ns[1] && self.to_ns >= window_ns[0]
    }
}

/// How the probe's threads are scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Schedule {
    /// `SCHED_FIFO`.
    Fifo,
    /// The best nice value.
    Nice,
    /// As everybody else: late wakes may be due to other processes.
    Normal,
}

impl Schedule {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fifo => "SCHED_FIFO",
            Self::Nice => "nice, for SCHED_FIFO is not permitted: stalls may be other processes'",
            Self::Normal => {
                "normal priority, for no better is permitted: stalls may be other processes'"
            }
        }
    }
}

/// What the probe saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) stalls: Vec<Stall>,
    pub(crate) schedule: Schedule,
    /// CPU time of its threads, and how long it ran, s.
    pub(crate) cpu_s: f64,
    pub(crate) ran_s: f64,
}

/// A running probe.
#[derive(Debug)]
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Probe {
    /// Wakes every `every_us`; 0 is no probe.
    pub(crate) fn start(cores: [usize; 2], every_us: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (begins, begun) = channel();
        let start = |core| {
            let stop = Arc::clone(&stop);
            let begins = begins.clone();
            thread::spawn(move || watch(core, 1_000 * u64::from(every_us), &stop, begins))
        };
        let threads: Vec<_> = cores.into_iter().filter(|_| every_us > 0).map(start).collect();
        drop(begins);
        // A thread that cannot be pinned ends without a word; `stop` says so.
        threads.iter().for_each(|_| _ = begun.recv());
        Self { stop, threads }
    }

    pub(crate) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let none = Seen { stalls: Vec::new(), schedule: Schedule::Fifo, cpu_s: 0.0, ran_s: 0.0 };
        self.threads
            .into_iter()
            .map(|thread| thread.join().expect("a probe that cannot be pinned sees nothing"))
            .fold(none, |mut all, one| {
                all.stalls.extend(one.stalls);
                Seen {
                    schedule: all.schedule.max(one.schedule),
                    cpu_s: all.cpu_s + one.cpu_s,
                    ran_s: all.ran_s.max(one.ran_s),
                    ..all
                }
            })
    }
}

/// Raises the calling thread as far as is permitted.
fn raise() -> Schedule {
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let middle = ThreadPriority::from_posix(thread_priority::ScheduleParams { sched_priority: 50 });
    if set_thread_priority_and_policy(thread_native_id(), middle, fifo).is_ok() {
        Schedule::Fifo
    } else if set_current_thread_priority(ThreadPriority::Max).is_ok() {
        Schedule::Nice
    } else {
        Schedule::Normal
    }
}

/// `begins` is told when it has begun.
fn watch(core: usize, every_ns: u64, stop: &AtomicBool, begins: Sender<()>) -> Seen {
    place::pin(core);
    let schedule = raise();
    let mut stalls = Vec::with_capacity(STALLS_MAX);
    let start_ns = clock::now_ns();
    let mut at_ns = start_ns;
    let _ = begins.send(());
    drop(begins);
    while !stop.load(Ordering::Relaxed) {
        at_ns += every_ns;
        let at = TimeSpec::new((at_ns / 1_000_000_000) as i64, (at_ns % 1_000_000_000) as i64);
        // A signal may end a sleep early; the next one has its own instant.
        let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &at);
        let now_ns = clock::now_ns();
        if now_ns > at_ns + STALL_NS {
            if stalls.len() < STALLS_MAX {
                stalls.push(Stall { from_ns: at_ns, to_ns: now_ns });
            }
            at_ns = now_ns;
        }
    }
    let ran_s = (clock::now_ns() - start_ns) as f64 / 1e9;
    Seen { stalls, schedule, cpu_s: usage::thread().cpu_us / 1e6, ran_s }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_hits_the_window_it_overlaps() {
        let stall = Stall { from_ns: 10, to_ns: 20 };
        assert!(stall.hits([20, 30]) && stall.hits([0, 10]) && stall.hits([12, 13]));
        assert!(!stall.hits([21, 30]) && !stall.hits([0, 9]));
    }

    #[test]
    fn the_probe_says_how_it_ran_and_what_it_cost() {
        let Ok(cores) = place::cores() else { return };
        let probe = Probe::start(cores, 500);
        clock::sleep(std::time::Duration::from_millis(50));
        let seen = probe.stop();
        assert!(seen.ran_s >= 0.05 && seen.cpu_s > 0.0 && seen.cpu_s < seen.ran_s, "{seen:?}");
        assert!(seen.stalls.iter().all(|stall| stall.to_ns > stall.from_ns + STALL_NS));
    }
}
