//! Finds the holes in a run that the subject did not cause: a stopped process, a stalled host.
//!
//! A thread of its own looks at the clock; it waits for nothing but its own sleep, so a core that an agent
//! blocks does not make it late: so it samples the requests ([`super::occupancy`]) and turns the knobs of a board, too.
//! [`Watch`] decides and is pure: it is told what was seen.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tailbeam_probes::clock;
use tailbeam_probes::collect::process;
use tailbeam_runtime::StartError;

use super::knobs::{KNOBS_NS, Knobs};
use super::occupancy::Sampler;
use crate::evidence::records::Gap;

const MS: u64 = 1_000_000;
/// Time between two looks, so a hole is measured to this resolution.
const WATCH_NS: u64 = 20 * MS;
/// Two looks further apart than this, in a process that used less than a fifth of that time in CPU, are
/// a gap. A fifth: a watch that waits for its CPU while our own cores burn theirs sees at least one of them.
const GAP_NS: u64 = 250 * MS;
/// Gaps kept between two visits of the controller; what comes after them is added to the last.
const GAPS_MAX: usize = 64;

/// The thread that looks.
#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    gaps: Mutex<Vec<Gap>>,
    end: AtomicBool,
}

impl Watcher {
    /// Starts to look, to turn what a board says into faults, and to sample requests. `continued` counts SIGCONT.
    pub(super) fn start(
        continued: Arc<AtomicUsize>,
        (knobs, sampler): (Option<Knobs>, Option<Sampler>),
    ) -> Result<Self, StartError> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || theirs.run(&continued, (knobs, sampler)))
            .map_err(|source| StartError::Kernel { action: "start the watch thread", source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The gaps found since the last call.
    pub(super) fn take(&self) -> Vec<Gap> {
        std::mem::take(&mut *self.shared.gaps.lock().expect("no code runs under the lock"))
    }

    /// Ends the thread after a last look.
    pub(super) fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.end.store(true, Ordering::Release);
        thread.thread().unpark();
        // It cannot panic but for a poisoned lock, under which no code runs.
        let _ = thread.join();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self, continued: &AtomicUsize, looks: (Option<Knobs>, Option<Sampler>)) {
        let (mut knobs, mut sampler) = looks;
        let mut watch = Watch::default();
        let nap_ns = if knobs.is_some() { KNOBS_NS } else { WATCH_NS };
        loop {
            // First: what follows takes its time.
            let to_sample_ns = sampler.as_mut().map(|sampler| sampler.look(clock::monotonic_ns()));
            let look = Look {
                now_ns: clock::monotonic_ns(),
                cpu_ns: process::cpu_time_ns().ok(),
                continued: continued.load(Ordering::Relaxed),
            };
            self.note(watch.look(look));
            if let Some(knobs) = &mut knobs {
                knobs.look(look.now_ns);
            }
            if self.end.load(Ordering::Acquire) {
                break;
            }
            thread::park_timeout(Duration::from_nanos(nap_ns.min(to_sample_ns.unwrap_or(nap_ns))));
        }
        self.note(watch.settle(continued.load(Ordering::Relaxed)));
    }

    fn note(&self, gap: Option<Gap>) {
        let Some(gap) = gap else { return };
        let mut gaps = self.gaps.lock().expect("no code runs under the lock");
        keep(&mut gaps, gap);
    }
}

/// Adds a gap; where there is no room the last one is made to reach to its end, so that no hole is lost.
fn keep(gaps: &mut Vec<Gap>, gap: Gap) {
    if gaps.len() < GAPS_MAX {
        return gaps.push(gap);
    }
    if let Some(last) = gaps.last_mut() {
        last.len_ns = (gap.from_ns + gap.len_ns).saturating_sub(last.from_ns);
    }
}

/// What was seen at one instant.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Monotonic clock, ns.
    now_ns: u64,
    /// CPU time of the process, ns; `None` when it cannot be read.
    cpu_ns: Option<u64>,
    /// SIGCONTs so far.
    continued: usize,
}

/// The looks of one run.
#[derive(Debug, Default)]
struct Watch {
    last: Option<Look>,
    /// A hole whose cause is settled at the next look: the thread that counts SIGCONT wakes at the same
    /// time as the one that looks.
    suspect: Option<Suspect>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    from_ns: u64,
    len_ns: u64,
    continued: usize,
}

impl Watch {
    /// Takes a look; returns the gap that the look before found.
    fn look(&mut self, look: Look) -> Option<Gap> {
        let settled = self.settle(look.continued);
        if let Some(last) = self.last.replace(look) {
            let len_ns = look.now_ns.saturating_sub(last.now_ns);
            let used = look.cpu_ns.zip(last.cpu_ns).map(|(now, then)| now.saturating_sub(then));
            if len_ns >= GAP_NS && used.is_some_and(|used| used < len_ns / 5) {
                let (from_ns, continued) = (last.now_ns, last.continued);
                self.suspect = Some(Suspect { from_ns, len_ns, continued });
            }
        }
        settled
    }

    /// Settles what is left at the end of a run.
    fn settle(&mut self, continued: usize) -> Option<Gap> {
        let suspect = self.suspect.take()?;
        let stopped = continued != suspect.continued;
        let cause = if stopped { "process stopped" } else { "host gap" };
        Some(Gap { from_ns: suspect.from_ns, len_ns: suspect.len_ns, cause: cause.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(looks: &[(u64, u64, usize)]) -> Vec<(u64, u64, String)> {
        let mut watch = Watch::default();
        let mut gaps: Vec<Gap> = Vec::new();
        for &(now_ms, cpu_ms, continued) in looks {
            let look = Look { now_ns: now_ms * MS, cpu_ns: Some(cpu_ms * MS), continued };
            gaps.extend(watch.look(look));
        }
        gaps.extend(watch.settle(looks.last().map_or(0, |look| look.2)));
        gaps.into_iter().map(|gap| (gap.from_ns / MS, gap.len_ns / MS, gap.cause)).collect()
    }

    #[test]
    fn a_gap_without_room_is_added_to_the_last() {
        let gap = |n: u64| Gap { from_ns: n * 100, len_ns: 10, cause: "host gap".to_owned() };
        let mut gaps = Vec::new();
        (0..70).for_each(|n| keep(&mut gaps, gap(n)));
        assert_eq!(gaps.len(), GAPS_MAX);
        let last = gaps.last().expect("some");
        assert_eq!(last.from_ns + last.len_ns, 69 * 100 + 10);
    }

    #[test]
    fn a_stop_and_a_stall_are_told_apart_by_sigcont_even_when_it_is_counted_late() {
        let stop = |cause: &str| vec![(20, 5_000, cause.to_owned())];
        assert_eq!(looks(&[(0, 0, 0), (20, 1, 0), (5_020, 2, 1)]), stop("process stopped"));
        let late = [(20, 1, 0), (5_020, 2, 0), (5_040, 3, 1)];
        assert_eq!(looks(&late), stop("process stopped"));
        let never = [(20, 1, 0), (5_020, 2, 0), (5_040, 3, 0)];
        assert_eq!(looks(&never), stop("host gap"));
    }

    #[test]
    fn our_own_work_and_short_delays_are_no_gap() {
        assert_eq!(looks(&[(0, 0, 0), (1_000, 400, 0), (1_020, 401, 0)]), []);
        assert_eq!(looks(&[(0, 0, 0), (249, 1, 1), (269, 2, 1)]), []);
    }

    #[test]
    fn a_thread_that_sleeps_on_time_finds_nothing() {
        let mut watcher = Watcher::start(Arc::default(), (None, None)).expect("a thread");
        thread::park_timeout(Duration::from_millis(100));
        watcher.end();
        assert_eq!(watcher.take().len(), 0);
    }
}
