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
/// Completions with a receive buffer that are kept at most: they are buffers that nobody else can have.
const BUFFERS_MAX: usize = 8;

/// What an operation is, by its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It never suffers: a close, or one that was cancelled and has only its end to say.
    Spared,
    File,
    Socket,
}

impl Kind {
    const fn of(op: &Op) -> Self {
        match op {
            Op::Read { .. }
            | Op::Write { .. }
            | Op::Fsync { .. }
            | Op::Fallocate { .. }
            | Op::OpenAt { .. } => Self::File,
            Op::Accept { .. } | Op::Connect { .. } | Op::Recv { .. } | Op::Send { .. } => {
                Self::Socket
            }
            // One that failed would be a descriptor that is never closed.
            Op::Close { .. } => Self::Spared,
        }
    }

    const fn suffers(self, fault: &RingFault) -> bool {
        match self {
            Self::Spared => false,
            Self::File => fault.files,
            Self::Socket => fault.sockets,
        }
    }
}

/// A completion that comes late.
struct Kept {
    due_ns: u64,
    completion: Completion,
}

pub(crate) struct Faulty {
    ring: Box<dyn Doorbells>,
    faults: Arc<RingFaults>,
    rng: Rng,
    /// By slot; of the operation that was submitted last.
    kinds: Box<[Kind]>,
    /// Never submitted; at most as many as there are operations.
    failed: Vec<Completion>,
    /// In the order in which the kernel has made them; `room` at most.
    kept: VecDeque<Kept>,
    room: usize,
    /// Of those, with a receive buffer.
    buffers: usize,
    fresh: Vec<Completion>,
    aside: Vec<Completion>,
}

impl Faulty {
    /// For a shard with so many entries and slots of operations: allocates what it will use, but for more failures, or
    /// completions, in one look than there are entries.
    pub(crate) fn new(
        ring: Box<dyn Doorbells>,
        faults: Arc<RingFaults>,
        shard: usize,
        (entries, ops): (u32, u32),
    ) -> Self {
        let room = (entries * COMPLETIONS_PER_ENTRY) as usize;
        Self {
            ring,
            rng: Rng::new(Rng::new(faults.seed() ^ shard as u64).bits()),
            faults,
            kinds: vec![Kind::Spared; ops as usize].into(),
            failed: Vec::with_capacity(entries as usize),
            kept: VecDeque::with_capacity(room),
            room,
            buffers: 0,
            fresh: Vec::with_capacity(room),
            aside: Vec::with_capacity(room),
        }
    }

    fn kind(&self, key: Key) -> Kind {
        self.kinds.get(key.index()).copied().unwrap_or(Kind::Spared)
    }

    fn set_kind(&mut self, key: Key, kind: Kind) {
        if let Some(of) = self.kinds.get_mut(key.index()) {
            *of = kind;
        }
    }

    fn fail(&mut self, key: Key, errno: u32) {
        let errno = i32::try_from(errno).ok().filter(|errno| (1..=4_095).contains(errno));
        let result = -errno.unwrap_or(libc::EIO);
        let (more, notification, buffer, made) = (false, false, None, None);
        self.failed.push(Completion { key, result, more, notification, buffer, made });
        self.faults.note(Done::Failed);
    }

    /// Whether one that is kept may come: it is due, or is to be late no more.
    fn may_come(&self, kept: &Kept, fault: &RingFault, now_ns: u64) -> bool {
        let late = fault.late_ppm > 0 && fault.late_ns > 0;
        let suffers = self.kind(kept.completion.key).suffers(fault);
        !(late && suffers) || kept.due_ns <= now_ns
    }

    fn is_due(&self) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let (fault, now_ns) = (self.faults.get(), monotonic_ns());
        self.kept.iter().any(|kept| self.may_come(kept, &fault, now_ns))
    }

    /// Keeps what is to come late, and everything else of the same operation behind it.
    fn keep(&mut self, into: &mut Vec<Completion>, fault: &RingFault, now_ns: u64) {
        let late = fault.late_ppm > 0 && fault.late_ns > 0;
        let mut fresh = std::mem::take(&mut self.fresh);
        for completion in fresh.drain(..) {
            let key = completion.key;
            let behind = self.kept.iter().rev().find(|kept| kept.completion.key == key);
            let due_ns = match behind {
                Some(kept) => Some(kept.due_ns),
                None if late && self.kind(key).suffers(fault) => {
                    let happens = self.rng.happens(fault.late_ppm);
                    happens.then(|| now_ns.saturating_add(self.rng.up_to(fault.late_ns)))
                }
                None => None,
            };
            let lends = usize::from(completion.buffer.is_some());
            let room = self.kept.len() < self.room && self.buffers + lends <= BUFFERS_MAX;
            match due_ns {
                Some(due_ns) if room => {
                    self.faults.note(Done::Late);
                    self.buffers += lends;
                    self.kept.push_back(Kept { due_ns, completion });
                }
                wanted => {
                    if wanted.is_some() {
                        self.faults.note(Done::CrowdedOut);
                    }
                    // What is before it of the same operation comes before it.
                    self.release(into, |_, kept| kept.completion.key == key);
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
    fn release(&mut self, into: &mut Vec<Completion>, may: impl Fn(&Self, &Kept) -> bool) {
        let mut at = 0;
        while let Some(kept) = self.kept.get(at) {
            if !may(self, kept) {
                at += 1;
                continue;
            }
            if at > 0 {
                self.faults.note(Done::Overtook);
            }
            self.buffers -= usize::from(kept.completion.buffer.is_some());
            into.extend(self.kept.remove(at).map(|kept| kept.completion));
        }
    }

    /// Turns what came from `begin` on round, as far as it suffers.
    fn turn_round(&mut self, completions: &mut Vec<Completion>, begin: usize, fault: &RingFault) {
        let mut aside = std::mem::take(&mut self.aside);
        aside.extend(completions.drain(begin..));
        let spared = aside.extract_if(.., |of| !self.kind(of.key).suffers(fault));
        completions.extend(spared);
        for _ in 0..reverse(&mut aside, completions) {
            self.faults.note(Done::Reversed);
        }
        self.aside = aside;
    }
}

/// Moves completions, in the reverse order of operations; those of each keep theirs, as the kernel's do. How many come
/// before one of another operation that had been before them.
pub(super) fn reverse(from: &mut Vec<Completion>, into: &mut Vec<Completion>) -> usize {
    let mut overtook = 0;
    while let Some(last) = from.last().map(|completion| completion.key) {
        let begin = into.len();
        into.extend(from.extract_if(.., |completion| completion.key == last));
        if !from.is_empty() {
            overtook += into.len() - begin;
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
        let (key, kind) = (op.key(), Kind::of(&op.body().op));
        self.set_kind(key, kind);
        if !self.faults.is_on() {
            return self.ring.submit_op(op);
        }
        let fault = self.faults.get();
        if !kind.suffers(&fault) {
            return self.ring.submit_op(op);
        }
        if self.rng.happens(fault.fail_ppm) {
            self.fail(key, fault.errno);
            return true;
        }
        let short = self.rng.happens(fault.short_ppm) && shorten(&mut op.body().op, &mut self.rng);
        let queued = self.ring.submit_op(op);
        // One that found no room is submitted anew, and may be shorter still.
        if short && queued {
            self.faults.note(Done::Shortened);
        }
        queued
    }

    fn cancel_op(&mut self, key: Key, op: &Op) -> bool {
        // Nobody waits for it but for its last word: a shard that ends waits for these.
        self.set_kind(key, Kind::Spared);
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
        // Read once: completions of one operation must not be judged by two settings.
        let (fault, now_ns, begin) = (self.faults.get(), monotonic_ns(), into.len());
        self.release(into, |of, kept| of.may_come(kept, &fault, now_ns));
        let mut fresh = std::mem::take(&mut self.fresh);
        self.ring.completions(&mut fresh);
        self.fresh = fresh;
        self.keep(into, &fault, now_ns);
        if fault.reorder {
            self.turn_round(into, begin, &fault);
        }
    }
}
