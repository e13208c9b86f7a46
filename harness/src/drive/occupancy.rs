//! Samples how many requests are open and in which leg, at instants that nothing which keeps a request can put off.
//!
//! The controller visits the cores, and waits for one that is taken or that computes: whoever samples between two such
//! visits misses the very instants at which a leg is full. So the thread that waits for nothing but its own sleep
//! ([`super::watch`]) samples, at instants that are drawn ahead. An instant that it comes late for, or that passes while
//! it has no CPU, is counted as late: Little's law says then that it does not know, and not that requests are missing.

use std::sync::{Arc, Mutex};

use crate::load::legs::{self, Legs, occupied};
use crate::load::{Draw, Stream};
use crate::plan::Span;

/// A sample that is later than this has not looked when it was to, ns: whatever kept it may have kept requests too.
const LATE_NS: u64 = 1_000_000;
/// Between two samples: 20 ms in the mean, drawn, so that they do not keep step with the load.
const NAPS: Span = Span::ms(10, 30);
const NAP_SEED: u64 = 0x6e61_7073;

/// Samples that were taken and not handed over.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Samples {
    /// Requests in each leg, summed over the samples.
    pub(super) occupancy: [u64; 3],
    /// Open requests, summed over the samples.
    pub(super) open: u64,
    pub(super) taken: u64,
    /// Instants at which nobody looked, or at least [`LATE_NS`] late.
    pub(super) late: u64,
}

impl Samples {
    /// Takes one, by which so many instants were missed or are late.
    pub(super) fn take(&mut self, cores: &[Legs], late: u64) {
        let one = Self { occupancy: occupied(cores), open: legs::open(cores), taken: 1, late };
        self.add(one);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.occupancy.iter_mut().zip(other.occupancy).for_each(|(sum, more)| *sum += more);
        self.open += other.open;
        self.taken += other.taken;
        self.late += other.late;
    }
}

/// What the sampling thread writes and the controller takes.
pub(super) type Shared = Arc<Mutex<Samples>>;

/// Samples when it is time to.
#[derive(Debug)]
pub(super) struct Sampler {
    legs: Arc<[Legs]>,
    shared: Shared,
    instants: Instants,
}

impl Sampler {
    pub(super) const fn new(legs: Arc<[Legs]>, shared: Shared) -> Self {
        Self { legs, shared, instants: Instants { due_ns: 0, drawn: 0 } }
    }

    /// Samples if an instant has come. How long it is to the next one, ns.
    pub(super) fn look(&mut self, now_ns: u64) -> u64 {
        if let Some(late) = self.instants.come(now_ns) {
            self.shared.lock().expect("nothing panics under the lock").take(&self.legs, late);
        }
        self.instants.due_ns.saturating_sub(now_ns)
    }
}

/// When to sample.
#[derive(Debug, Default)]
struct Instants {
    /// The next one; 0 before the first look.
    due_ns: u64,
    /// Naps that were drawn.
    drawn: u64,
}

impl Instants {
    /// How many instants were missed or are late, if one has come. The first look draws the first instant.
    fn come(&mut self, now_ns: u64) -> Option<u64> {
        if self.due_ns == 0 {
            self.due_ns = now_ns + self.draw();
            return None;
        }
        let (mut come, mut late) = (false, 0);
        while self.due_ns <= now_ns {
            come = true;
            late += u64::from(now_ns - self.due_ns >= LATE_NS);
            self.due_ns += self.draw();
        }
        come.then_some(late)
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        nap_ns(self.drawn, 0)
    }
}

/// Length of a nap, ns: the `k`-th of whoever has this number.
pub(super) fn nap_ns(k: u64, who: u64) -> u64 {
    Draw::new(NAP_SEED, who).span_ns(k, Stream::Sample, NAPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::legs::Step;

    const MS: u64 = 1_000_000;

    #[test]
    fn instants_do_not_move_when_a_look_is_late() {
        let (mut prompt, mut tardy) = (Instants::default(), Instants::default());
        assert_eq!((prompt.come(MS), tardy.come(MS)), (None, None));
        let mut instants = Vec::new();
        while instants.len() < 100 {
            instants.push(prompt.due_ns);
            assert_eq!(prompt.come(prompt.due_ns - 1), None);
            assert_eq!(prompt.come(prompt.due_ns), Some(0));
        }
        assert!(instants.windows(2).all(|two| (10 * MS..=30 * MS).contains(&(two[1] - two[0]))));
        let mean_ms = (instants[99] - instants[0]) / 99 / MS;
        assert!((18..=22).contains(&mean_ms), "{mean_ms} ms");
        // All hundred while somebody else had the CPU: one sample, and every instant but a just one is late.
        assert_eq!(tardy.come(instants[99] + LATE_NS - 1), Some(99));
        assert_eq!(tardy.due_ns, prompt.due_ns);
        assert_eq!(tardy.come(prompt.due_ns + LATE_NS), Some(1));
    }

    #[test]
    fn what_is_in_the_legs_is_summed_until_it_is_taken() {
        let legs: Arc<[Legs]> = (0..2).map(|_| Legs::default()).collect();
        let shared = Shared::default();
        let mut sampler = Sampler::new(Arc::clone(&legs), Arc::clone(&shared));
        let mut now_ns = MS;
        now_ns += sampler.look(now_ns);
        (0..3).for_each(|_| legs[0].count(Step::Sent));
        legs[1].count(Step::Taken);
        legs[0].set_open(3);
        legs[1].set_open(2);
        for _ in 0..4 {
            assert_eq!(sampler.look(now_ns - 1), 1);
            now_ns += sampler.look(now_ns);
        }
        let taken = std::mem::take(&mut *shared.lock().unwrap());
        assert_eq!(taken, Samples { occupancy: [8, 4, 0], open: 20, taken: 4, late: 0 });
        sampler.look(now_ns + 2 * MS);
        let late = Samples { occupancy: [2, 1, 0], open: 5, taken: 1, late: 1 };
        assert_eq!(*shared.lock().unwrap(), late);
    }
}
