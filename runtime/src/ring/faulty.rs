//! A ring that suffers [`RingFaults`]. A runtime without them has no such ring; one whose faults are off pays a load per
//! operation and per look.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use super::faults::{Done, RingFault, RingFaults};
use super::{COMPLETIONS_PER_ENTRY, Calls, Doorbells};
use crate::clock::monotonic_ns;
use crate::op::{Abilities, Completion, Flight, Key, Op, Pool};
use crate::sim::Rng;

/// Longest sleep while completions are kept, ns: nobody tells a ring that its faults are healed.
const LOOK_NS: u64 = 1_000_000;

/// A completion that comes late.
struct Kept {
    due_ns: u64,
    completion: Completion,
}

pub(crate) struct Faulty {
    ring: Box<dyn Doorbells>,
    faults: Arc<RingFaults>,
    rng: Rng,
    /// Never submitted; at most as many as there are operations.
    failed: Vec<Completion>,
    /// In the order in which the kernel has made them; bounded by its capacity.
    kept: VecDeque<Kept>,
    room: usize,
    fresh: Vec<Completion>,
}

impl Faulty {
    /// Allocates all that it will use, but for failures of more than `entries` operations in one pass.
    pub(crate) fn new(
        ring: Box<dyn Doorbells>,
        faults: Arc<RingFaults>,
        (shard, entries): (usize, u32),
    ) -> Self {
        let room = (entries * COMPLETIONS_PER_ENTRY) as usize;
        let rng = Rng::new(Rng::new(faults.seed() ^ shard as u64).bits());
        let (failed, kept) = (Vec::with_capacity(entries as usize), VecDeque::with_capacity(room));
        Self { ring, faults, rng, failed, kept, room, fresh: Vec::with_capacity(room) }
    }

    /// What is wrong with this operation.
    fn fault_of(&self, op: &Op) -> Option<RingFault> {
        if !self.faults.is_on() {
            return None;
        }
        let fault = self.faults.get();
        let suffers = match op {
            Op::Read { .. }
            | Op::Write { .. }
            | Op::Fsync { .. }
            | Op::Fallocate { .. }
            | Op::OpenAt { .. } => fault.files,
            Op::Accept { .. } | Op::Connect { .. } | Op::Recv { .. } | Op::Send { .. } => {
                fault.sockets
            }
            // It would be a leak of ours.
            Op::Close { .. } => false,
        };
        suffers.then_some(fault)
    }

    fn fail(&mut self, key: Key, errno: u32) {
        let result = -i32::try_from(errno).unwrap_or(libc::EIO);
        let (more, notification, buffer, made) = (false, false, None, None);
        self.failed.push(Completion { key, result, more, notification, buffer, made });
        self.faults.note(Done::Failed);
    }

    /// Whether one that is kept may come: it is due, or nothing is to be late any more.
    fn may_come(&self, kept: &Kept, now_ns: u64) -> bool {
        let fault = self.faults.get();
        let late = (fault.files || fault.sockets) && fault.late_ppm > 0 && fault.late_ns > 0;
        !late || kept.due_ns <= now_ns
    }

    fn is_due(&self) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let now_ns = monotonic_ns();
        self.kept.iter().any(|kept| self.may_come(kept, now_ns))
    }

    /// Keeps what is to come late, and everything else of the same operation behind it.
    fn keep(&mut self, into: &mut Vec<Completion>, now_ns: u64) {
        let fault = self.faults.get();
        let late = self.faults.is_on() && fault.late_ppm > 0 && fault.late_ns > 0;
        let mut fresh = std::mem::take(&mut self.fresh);
        for completion in fresh.drain(..) {
            let behind = self.kept.iter().rev().find(|kept| kept.completion.key == completion.key);
            let due_ns = match behind {
                Some(kept) => Some(kept.due_ns),
                None if late && self.rng.happens(fault.late_ppm) => {
                    Some(now_ns + self.rng.up_to(fault.late_ns))
                }
                None => None,
            };
            match due_ns {
                // One behind its own predecessor has to wait, with room or without.
                Some(due_ns) if behind.is_some() || self.kept.len() < self.room => {
                    self.faults.note(Done::Late);
                    self.kept.push_back(Kept { due_ns, completion });
                }
                wanted => {
                    if wanted.is_some() {
                        self.faults.note(Done::CrowdedOut);
                    }
                    if !self.kept.is_empty() {
                        self.faults.note(Done::Overtook);
                    }
                    into.push(completion);
                }
            }
        }
        self.fresh = fresh;
    }

    /// Lets come what may, each operation's in its order: those behind another are due when it is.
    fn release(&mut self, into: &mut Vec<Completion>, now_ns: u64) {
        let (mut at, mut passed) = (0, false);
        while let Some(kept) = self.kept.get(at) {
            if !self.may_come(kept, now_ns) {
                passed = true;
                at += 1;
                continue;
            }
            if passed {
                self.faults.note(Done::Overtook);
            }
            into.extend(self.kept.remove(at).map(|kept| kept.completion));
        }
    }
}

/// Turns the order of operations from `begin` on round and keeps that of the completions of each, as the kernel does. How
/// many completions came before one of another operation that had been before them.
pub(super) fn reverse(completions: &mut Vec<Completion>, begin: usize) -> usize {
    let mut left = completions.split_off(begin);
    let mut overtook = 0;
    while let Some(last) = left.last().map(|completion| completion.key) {
        let from = completions.len();
        completions.extend(left.extract_if(.., |completion| completion.key == last));
        if !left.is_empty() {
            overtook += completions.len() - from;
        }
    }
    overtook
}

/// Leaves 1 byte to all but one of what was asked.
fn shorten(op: &mut Op, rng: &mut Rng) -> bool {
    let (Op::Read { len, .. } | Op::Write { len, .. } | Op::Send { len, .. }) = op else {
        return false;
    };
    if *len < 2 {
        return false;
    }
    *len = u32::try_from(1 + rng.below(u64::from(*len) - 1)).unwrap_or(1);
    true
}

impl Doorbells for Faulty {
    fn fd(&self) -> RawFd {
        self.ring.fd()
    }

    fn ring_bell(&mut self, target: RawFd, shard: usize) -> bool {
        self.ring.ring_bell(target, shard)
    }

    fn submit(&mut self) -> bool {
        self.ring.submit()
    }

    fn wait(&mut self, wait_ns: Option<u64>) {
        let next = self.kept.iter().map(|kept| kept.due_ns).min();
        let Some(due_ns) = next else { return self.ring.wait(wait_ns) };
        let late_ns = due_ns.saturating_sub(monotonic_ns()).min(LOOK_NS);
        self.ring.wait(Some(wait_ns.map_or(late_ns, |ns| ns.min(late_ns))));
    }

    fn unreached(&mut self) -> Option<usize> {
        self.ring.unreached()
    }

    fn has_completions(&mut self) -> bool {
        self.ring.has_completions() || !self.failed.is_empty() || self.is_due()
    }

    fn calls(&self) -> Calls {
        self.ring.calls()
    }

    fn abilities(&self) -> Abilities {
        self.ring.abilities()
    }

    fn submit_op(&mut self, mut op: Flight<'_>) -> bool {
        let key = op.key();
        let Some(fault) = self.fault_of(&op.body().op) else { return self.ring.submit_op(op) };
        if self.rng.happens(fault.fail_ppm) {
            self.fail(key, fault.errno);
            return true;
        }
        let short = self.rng.happens(fault.short_ppm) && shorten(&mut op.body().op, &mut self.rng);
        let queued = self.ring.submit_op(op);
        // One that found no room is submitted anew, and is shorter then.
        if short && queued {
            self.faults.note(Done::Shortened);
        }
        queued
    }

    fn cancel_op(&mut self, key: Key, op: &Op) -> bool {
        self.ring.cancel_op(key, op)
    }

    fn lend(&mut self, pool: &Rc<Pool>) -> bool {
        self.ring.lend(pool)
    }

    fn return_buffers(&mut self, pool: &Pool, buffers: &[u16]) {
        self.ring.return_buffers(pool, buffers);
    }

    fn wants_enter(&mut self) -> bool {
        self.ring.wants_enter()
    }

    fn has_completed(&self) -> bool {
        self.ring.has_completed() || !self.failed.is_empty() || self.is_due()
    }

    fn completions(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.failed);
        if self.kept.is_empty() && !self.faults.is_on() {
            return self.ring.completions(into);
        }
        let (now_ns, begin) = (monotonic_ns(), into.len());
        self.release(into, now_ns);
        let mut fresh = std::mem::take(&mut self.fresh);
        self.ring.completions(&mut fresh);
        self.fresh = fresh;
        self.keep(into, now_ns);
        if self.faults.get().reorder {
            for _ in 0..reverse(into, begin) {
                self.faults.note(Done::Overtook);
            }
        }
    }
}
