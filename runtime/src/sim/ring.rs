//! The ring of a simulated shard: bells take time, overtake each other, arrive twice, fail, or are not taken; operations
//! go to the [`Kernel`] behind it. It never sleeps: whoever drives the shard does that for it.

use std::cell::RefCell;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use super::calls::Kind;
use super::kernel::{Broken, Kernel};
use super::trace::What;
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
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    /// Whether all that was done repeats.
    pub(super) exact: bool,
    /// What rings have decided in the middle of a move, by shard; for the trace.
    pub(super) noted: Vec<(usize, What)>,
    flights: Vec<Flight>,
    /// Completions that each shard has not looked at.
    completions: Vec<u32>,
}

impl Air {
    pub(super) fn new(shards: usize, rng: Rng, faults: Faults) -> Self {
        let (noted, flights) = (Vec::new(), Vec::new());
        Self { now_ns: 0, rng, faults, exact: true, noted, flights, completions: vec![0; shards] }
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
    fn reap(&mut self, shard: usize) {
        let all = self.rng.below(4) > 0;
        let count = &mut self.completions[shard];
        *count = if all { 0 } else { count.saturating_sub(1) };
    }

    /// After which time an operation is tried.
    pub(super) fn op_delay_ns(&mut self) -> u64 {
        self.rng.up_to(self.faults.op_delay_max_ns)
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

/// What is queued for the next call.
enum Entry {
    Bell(usize),
    Op(Key, Kind, Option<Rc<OwnedFd>>),
    Cancel(Key),
}

impl Entry {
    const fn bell(&self) -> Option<usize> {
        match self {
            Self::Bell(to) => Some(*to),
            _ => None,
        }
    }
}

/// The ring.
pub(super) struct SimRing {
    index: usize,
    air: Rc<RefCell<Air>>,
    entries: usize,
    queued: Vec<Entry>,
    kernel: Kernel,
    /// Shards that a bell did not reach: those that it may say, and those that it says after its next call.
    unreached: Vec<usize>,
    untold: Vec<usize>,
    calls: Calls,
}

impl SimRing {
    pub(super) fn new(index: usize, entries: u32, air: Rc<RefCell<Air>>) -> Self {
        let calls = Calls::default();
        let (queued, unreached, untold) = (Vec::new(), Vec::new(), Vec::new());
        let kernel = Kernel::new(&air.borrow().faults);
        Self { index, air, entries: entries as usize, queued, kernel, unreached, untold, calls }
    }

    /// Whether a wait would return at once: something failed, is left to be sent, or was completed.
    pub(super) fn has_news(&self) -> bool {
        let told = !(self.unreached.is_empty() && self.untold.is_empty());
        told || !self.queued.is_empty() || self.kernel.has_said()
    }

    /// The shards whose bells are neither sent nor told to have failed.
    pub(super) fn bells(&self) -> impl Iterator<Item = usize> {
        let queued = self.queued.iter().filter_map(Entry::bell);
        queued.chain(self.untold.iter().copied()).chain(self.unreached.iter().copied())
    }

    /// The shard looks at its completions.
    pub(super) fn reap(&mut self) {
        let air = &mut *self.air.borrow_mut();
        air.reap(self.index);
        self.kernel.reap(air);
    }

    pub(super) const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Looks which operations have become ready, at rest or after a move; whether any has.
    pub(super) fn look(&mut self, at_rest: bool) -> bool {
        let air = &mut *self.air.borrow_mut();
        self.kernel.look(self.index, at_rest, air)
    }

    /// Tries the operation that is due next; what came of it.
    pub(super) fn serve(&mut self, table: &mut Table) -> Result<Option<What>, Broken> {
        let air = &mut *self.air.borrow_mut();
        let what = self.kernel.serve(table, air)?;
        air.noted.extend(what.map(|what| (self.index, what)));
        Ok(what)
    }

    fn take(&mut self, entry: Entry) {
        let air = &mut *self.air.borrow_mut();
        let faults = air.faults;
        let what = match entry {
            Entry::Bell(to) if !air.rng.happens(faults.bells_unreached_ppm) => {
                air.send(to);
                None
            }
            Entry::Bell(to) => {
                let late = air.rng.happens(faults.bells_told_late_ppm);
                if late {
                    self.untold.push(to)
                } else {
                    self.unreached.push(to)
                }
                None
            }
            Entry::Op(key, kind, file) => Some(self.kernel.begin(key, kind, file, air)),
            Entry::Cancel(key) => self.kernel.cancel(key, air),
        };
        air.noted.extend(what.map(|what| (self.index, what)));
    }

    /// Puts an operation or a cancellation into the queue, if there is room.
    fn queue_op(&mut self, entry: Entry) -> bool {
        let air = &mut *self.air.borrow_mut();
        let room =
            self.queued.len() < self.entries && !air.rng.happens(air.faults.ops_unqueued_ppm);
        if room {
            self.queued.push(entry);
        }
        room
    }

    /// A call: the kernel takes what is queued, or fails. One that fails may lose bells only where the caller is told
    /// so; operations stay queued.
    fn enter(&mut self, told: bool) -> bool {
        self.calls.enters += 1;
        self.unreached.append(&mut self.untold);
        let mut taken = self.queued.len();
        {
            let air = &mut *self.air.borrow_mut();
            let faults = air.faults;
            if air.rng.happens(faults.submits_failed_ppm) {
                self.calls.failed += 1;
                let stays = |entry: &Entry| entry.bell().is_none_or(|to| !told || air.fate_of(to));
                self.queued.retain(stays);
                return false;
            }
            if air.rng.happens(faults.submits_short_ppm) {
                taken = air.rng.index(taken + 1);
            }
        }
        let all = taken == self.queued.len();
        let mut queued = std::mem::take(&mut self.queued);
        queued.drain(..taken).for_each(|entry| self.take(entry));
        self.queued = queued;
        let air = &mut *self.air.borrow_mut();
        all || air.rng.happens(air.faults.shorts_unsaid_ppm)
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
            self.queued.push(Entry::Bell(shard));
        }
        room
    }

    fn submit(&mut self) -> bool {
        if !self.wants_enter() {
            return true;
        }
        let fine = self.enter(true);
        self.kernel.reap(&mut self.air.borrow_mut());
        fine
    }

    /// The call alone: the driver of the shard sleeps, and not at all when there are news.
    fn wait(&mut self, _: Option<u64>) {
        self.enter(false);
    }

    fn unreached(&mut self) -> Option<usize> {
        self.unreached.pop()
    }

    fn has_completions(&mut self) -> bool {
        self.kernel.has_said() || self.air.borrow().has_completions(self.index)
    }

    fn calls(&self) -> Calls {
        self.calls
    }

    fn abilities(&self) -> Abilities {
        self.kernel.abilities()
    }

    fn submit_op(&mut self, mut op: op::Flight<'_>) -> bool {
        let (key, body) = (op.key(), op.body());
        self.queue_op(Entry::Op(key, Kind::of(&body.op), body.file.clone()))
    }

    fn cancel_op(&mut self, key: Key, _: &Op) -> bool {
        self.queue_op(Entry::Cancel(key))
    }

    fn lend(&mut self, pool: &Rc<Pool>) -> bool {
        self.kernel.lend(pool, &mut self.air.borrow_mut())
    }

    fn return_buffers(&mut self, _: &Pool, buffers: &[u16]) {
        self.kernel.give(buffers);
    }

    fn wants_enter(&mut self) -> bool {
        !self.queued.is_empty() || self.kernel.has_said()
    }

    fn has_completed(&self) -> bool {
        self.kernel.has_seen()
    }

    fn completions(&mut self, into: &mut Vec<Completion>) {
        self.kernel.take(into);
    }
}
