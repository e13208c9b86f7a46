//! The ring of a simulated shard: bells take time, overtake each other, arrive twice, fail, or are not taken.
//! It never enters the kernel, and it never sleeps: whoever drives the shard does that for it.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::{Faults, Rng};
use crate::op::{self, Abilities, Completion, Key, Op, Pool, Table};
use crate::ring::{Calls, Doorbells};

/// Bells on their way at once; one more arrives at once.
const FLIGHTS_MAX: usize = 1_024;

/// A bell on its way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    at_ns: u64,
    to: usize,
}

/// What lies between the rings of one simulation.
pub(super) struct Air {
    pub(super) now_ns: u64,
    rng: Rng,
    faults: Faults,
    flights: Vec<Flight>,
    /// Completions that each shard has not looked at.
    completions: Vec<u32>,
}

impl Air {
    pub(super) fn new(shards: usize, rng: Rng, faults: Faults) -> Self {
        Self { now_ns: 0, rng, faults, flights: Vec::new(), completions: vec![0; shards] }
    }

    /// Takes a bell that is due; returns whose it is.
    pub(super) fn arrive(&mut self) -> Option<usize> {
        let due = self.flights.iter().position(|flight| flight.at_ns <= self.now_ns)?;
        let to = self.flights.swap_remove(due).to;
        self.completions[to] += 1;
        Some(to)
    }

    /// When the next bell arrives.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.flights.iter().map(|flight| flight.at_ns).min()
    }

    pub(super) fn is_on_way_to(&self, shard: usize) -> bool {
        self.flights.iter().any(|flight| flight.to == shard)
    }

    pub(super) fn has_completions(&self, shard: usize) -> bool {
        self.completions[shard] > 0
    }

    /// The shard looks at its completions: all of them, or one, as with deferred task work.
    pub(super) fn reap(&mut self, shard: usize) {
        let all = self.rng.below(4) > 0;
        let count = &mut self.completions[shard];
        *count = if all { 0 } else { count.saturating_sub(1) };
    }

    /// A bell of a call that failed: left for the next (`true`), sent, or lost.
    fn fate_of(&mut self, to: usize) -> bool {
        let fate = self.rng.below(3);
        if fate == 1 {
            self.send(to);
        }
        fate == 0
    }

    fn send(&mut self, to: usize) {
        if self.rng.happens(self.faults.bells_lost_ppm) {
            return;
        }
        let copies = 1 + u32::from(self.rng.happens(self.faults.bells_doubled_ppm));
        for _ in 0..copies {
            if self.flights.len() >= FLIGHTS_MAX {
                self.completions[to] += 1;
                continue;
            }
            let at_ns = self.now_ns + self.rng.up_to(self.faults.bell_delay_max_ns);
            self.flights.push(Flight { at_ns, to });
        }
    }
}

/// The ring.
pub(super) struct SimRing {
    index: usize,
    air: Rc<RefCell<Air>>,
    entries: usize,
    queued: Vec<usize>,
    /// Shards that a bell did not reach: those that it may say, and those that it says after its next call.
    unreached: Vec<usize>,
    untold: Vec<usize>,
    calls: Calls,
}

impl SimRing {
    pub(super) fn new(index: usize, entries: u32, air: Rc<RefCell<Air>>) -> Self {
        let calls = Calls::default();
        let (queued, unreached, untold) = (Vec::new(), Vec::new(), Vec::new());
        Self { index, air, entries: entries as usize, queued, unreached, untold, calls }
    }

    /// Whether a wait would return at once: something failed, or is left to be sent.
    pub(super) fn has_news(&self) -> bool {
        !(self.unreached.is_empty() && self.untold.is_empty() && self.queued.is_empty())
    }

    /// Whether a bell for this shard is neither sent nor told to have failed.
    pub(super) fn holds_bell_for(&self, shard: usize) -> bool {
        [&self.queued, &self.untold, &self.unreached].into_iter().flatten().any(|&to| to == shard)
    }

    /// A call: the kernel takes the queued bells, or fails. One that fails may lose bells only where the
    /// caller is told so.
    fn enter(&mut self, told: bool) -> bool {
        self.calls.enters += 1;
        self.unreached.append(&mut self.untold);
        let air = &mut *self.air.borrow_mut();
        let faults = air.faults;
        if air.rng.happens(faults.submits_failed_ppm) {
            self.calls.failed += 1;
            self.queued.retain(|&to| !told || air.fate_of(to));
            return false;
        }
        let mut taken = self.queued.len();
        if air.rng.happens(faults.submits_short_ppm) {
            taken = air.rng.index(taken + 1);
        }
        let all = taken == self.queued.len();
        for to in self.queued.drain(..taken) {
            if !air.rng.happens(faults.bells_unreached_ppm) {
                air.send(to);
            } else if air.rng.happens(faults.bells_told_late_ppm) {
                self.untold.push(to);
            } else {
                self.unreached.push(to);
            }
        }
        all || air.rng.happens(faults.shorts_unsaid_ppm)
    }
}

impl Doorbells for SimRing {
    fn fd(&self) -> RawFd {
        RawFd::try_from(self.index).expect("a handle has 8 bits for it")
    }

    fn ring_bell(&mut self, target: RawFd, shard: usize) -> bool {
        debug_assert_eq!(usize::try_from(target), Ok(shard), "the number of a ring is its shard's");
        let refused = {
            let air = &mut *self.air.borrow_mut();
            air.rng.happens(air.faults.bells_unqueued_ppm)
        };
        if refused || (self.queued.len() >= self.entries && !self.submit()) {
            return false;
        }
        let room = self.queued.len() < self.entries;
        if room {
            self.queued.push(shard);
        }
        room
    }

    fn submit(&mut self) -> bool {
        self.queued.is_empty() || self.enter(true)
    }

    /// The call alone: the driver of the shard sleeps, and not at all when there are news.
    fn wait(&mut self, _: Option<u64>) {
        self.enter(false);
    }

    fn unreached(&mut self) -> Option<usize> {
        self.unreached.pop()
    }

    fn has_completions(&mut self) -> bool {
        self.air.borrow().has_completions(self.index)
    }

    fn calls(&self) -> Calls {
        self.calls
    }

    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Sockets and files are not simulated: an operation is refused, and waits until its future is dropped.
    fn submit_op(&mut self, _: op::Flight<'_>) -> bool {
        false
    }

    fn cancel_op(&mut self, _: Key, _: &Op) -> bool {
        false
    }

    fn lend(&mut self, _: &Rc<Pool>) -> bool {
        false
    }

    fn return_buffers(&mut self, _: &Pool, _: &[u16]) {}

    fn wants_enter(&mut self) -> bool {
        false
    }

    fn has_completed(&self) -> bool {
        false
    }

    fn completions(&mut self, _: &mut Table, _: &mut Vec<Completion>) {}
}
