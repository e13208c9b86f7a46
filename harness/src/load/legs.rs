//! How many requests are in which leg of their way, for Little's law: counts that need no stamps.
//!
//! Each core counts what it did itself, so each word has one writer and costs a load and a store. The
//! controller reads the words of all cores at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// What can happen to a request, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Step {
    /// It was given to the runtime.
    Sent = 0,
    /// The responder's turn took it.
    Taken = 1,
    /// Its answer was sent, or it was dropped without one.
    Answered = 2,
    /// The asker's turn took its answer, late or not, or there is none to come.
    Closed = 3,
}

/// Number of steps.
const STEPS: usize = 4;
/// Number of legs, between two steps each.
const LEGS: usize = STEPS - 1;

/// The counts of one core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Legs {
    steps: [AtomicU64; STEPS],
    /// Requests that were dropped in each leg: they make no further step.
    lost: [AtomicU64; LEGS],
    /// Requests of its agents that are open: sent, and neither answered nor given up.
    open: AtomicU64,
}

impl Legs {
    /// Counts a step; only on the core that these counts belong to.
    #[inline]
    pub(crate) fn count(&self, step: Step) {
        let word = &self.steps[step as usize];
        // Release: who sees a step sees those before it, also on another core.
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Says how many requests of this core's agents are open; only on that core.
    #[inline]
    pub(crate) fn set_open(&self, open: usize) {
        self.open.store(open as u64, Ordering::Relaxed);
    }

    /// Counts one that was dropped in the leg behind this step; only on the core that these counts belong to.
    pub(crate) fn count_lost(&self, after: Step) {
        let Some(word) = self.lost.get(after as usize) else { return };
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Takes a step back that did not happen.
    pub(crate) fn uncount(&self, step: Step) {
        let word = &self.steps[step as usize];
        word.store(word.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
    }
}

/// Steps of all requests so far, by [`Step`].
pub(crate) fn steps(cores: &[Legs]) -> [u64; STEPS] {
    // Last step first: what is seen to have left a leg is then seen to have come into it.
    let mut sums = [0u64; STEPS];
    for step in (0..STEPS).rev() {
        let counts = cores.iter().map(|core| core.steps[step].load(Ordering::Acquire));
        sums[step] = counts.fold(0, u64::wrapping_add);
    }
    sums
}

/// Requests that are sent and not taken, taken and not answered, answered and not in hand.
pub(crate) fn occupied(cores: &[Legs]) -> [u64; LEGS] {
    // Before the steps: of one that is seen to be lost, the steps until then are seen.
    let lost: [u64; LEGS] = std::array::from_fn(|leg| {
        let counts = cores.iter().map(|core| core.lost[leg].load(Ordering::Acquire));
        counts.fold(0, u64::wrapping_add)
    });
    let sums = steps(cores);
    std::array::from_fn(|leg| sums[leg].saturating_sub(sums[leg + 1].saturating_add(lost[leg])))
}

/// Requests that are open on all cores.
pub(crate) fn open(cores: &[Legs]) -> u64 {
    cores.iter().map(|core| core.open.load(Ordering::Relaxed)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_in_one_leg_at_a_time() {
        let cores = [Legs::default(), Legs::default()];
        assert_eq!(occupied(&cores), [0, 0, 0]);
        cores[0].count(Step::Sent);
        cores[0].count(Step::Sent);
        assert_eq!(occupied(&cores), [2, 0, 0]);
        cores[1].count(Step::Taken);
        assert_eq!(occupied(&cores), [1, 1, 0]);
        cores[1].count(Step::Answered);
        assert_eq!(occupied(&cores), [1, 0, 1]);
        cores[0].count(Step::Closed);
        cores[0].uncount(Step::Sent);
        assert_eq!(occupied(&cores), [0, 0, 0]);
        assert_eq!(steps(&cores), [1, 1, 1, 1]);
        cores[1].count(Step::Sent);
        cores[0].count_lost(Step::Sent);
        assert_eq!(occupied(&cores), [0, 0, 0]);
        assert_eq!(steps(&cores), [2, 1, 1, 1], "it was last seen when it was sent");
    }
}
