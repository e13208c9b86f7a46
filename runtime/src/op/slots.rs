//! The slots of operations: their memory, their keys, what each holds.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::task::Waker;

use super::pool::NO_BUFFER;
use super::{Body, GENERATION_MASK, Key};

/// Slots of a chunk; chunks never move and are never given back.
const CHUNK: u32 = 256;

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody's.
    Vacant,
    /// A stream of results that nobody has asked to go on.
    Idle,
    /// In the outbox.
    Queued,
    /// Waits for a receive buffer.
    Starved,
    /// The kernel has it.
    Flight,
    /// The kernel has said its last word.
    Done,
}

/// What its completions mean.
#[derive(Debug)]
pub(super) enum Role {
    /// One result.
    Once { result: i32, made: Option<OwnedFd> },
    /// Received data.
    Recv(Inbox),
    /// Accepted connections.
    Accept(Accepted),
}

/// Filled buffers of a stream, linked through the pool's notes, and what came after them.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) held: u16,
    /// 0 at the end of the stream, or a negated errno.
    pub(super) end: Option<i32>,
}

impl Inbox {
    pub(super) const fn new() -> Self {
        Self { first: NO_BUFFER, last: NO_BUFFER, held: 0, end: None }
    }
}

/// Connections that nobody has taken yet, and what ended the accept.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    pub(super) files: VecDeque<OwnedFd>,
    pub(super) error: Option<i32>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Nobody waits any more: freed at the last completion.
    pub(super) orphaned: bool,
    /// The kernel has been asked to cancel it.
    pub(super) cancelled: bool,
    pub(super) role: Role,
    pub(super) body: Option<Body>,
    pub(super) waker: Option<Waker>,
}

impl Slot {
    const fn vacant() -> Self {
        Self {
            generation: 0,
            phase: Phase::Vacant,
            orphaned: false,
            cancelled: false,
            role: Role::Once { result: 0, made: None },
            body: None,
            waker: None,
        }
    }
}

/// Slots up to a bound; memory comes as they are used.
#[derive(Debug)]
pub(super) struct Slots {
    chunks: Vec<Box<[Slot]>>,
    free: Vec<u32>,
    made: u32,
    live: u32,
    max: u32,
}

impl Slots {
    pub(super) const fn new(max: u32) -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), made: 0, live: 0, max }
    }

    pub(super) const fn live(&self) -> u32 {
        self.live
    }

    /// Puts an operation into a vacant slot; gives it back when there is none.
    pub(super) fn insert(&mut self, body: Body, role: Role) -> Result<Key, Body> {
        let Some(index) = self.vacant() else { return Err(body) };
        self.live += 1;
        let slot = &mut self.chunks[(index / CHUNK) as usize][(index % CHUNK) as usize];
        (slot.orphaned, slot.cancelled) = (false, false);
        (slot.phase, slot.role, slot.body) = (Phase::Idle, role, Some(body));
        Ok(Key { index, generation: slot.generation })
    }

    fn vacant(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        if self.made == self.max {
            return None;
        }
        if self.made.is_multiple_of(CHUNK) {
            self.chunks.push((0..CHUNK).map(|_| Slot::vacant()).collect());
            // Every slot may be free at once.
            self.free.reserve(self.made as usize + CHUNK as usize);
        }
        self.made += 1;
        Some(self.made - 1)
    }

    /// The slot of a key, unless it has gone to another operation.
    pub(super) fn get(&mut self, key: Key) -> Option<&mut Slot> {
        let chunk = self.chunks.get_mut((key.index / CHUNK) as usize)?;
        let slot = &mut chunk[(key.index % CHUNK) as usize];
        (slot.generation == key.generation && slot.phase != Phase::Vacant).then_some(slot)
    }

    /// Vacates a slot; returns what lay in it. The waker is anybody's: the caller drops it when nothing is
    /// borrowed.
    pub(super) fn remove(&mut self, key: Key) -> Option<(Body, Role, Option<Waker>)> {
        let slot = self.get(key)?;
        let body = slot.body.take()?;
        let role = std::mem::replace(&mut slot.role, Role::Once { result: 0, made: None });
        let waker = slot.waker.take();
        slot.phase = Phase::Vacant;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.live -= 1;
        self.free.push(key.index);
        Some((body, role, waker))
    }

    /// The keys of all that are not vacant.
    pub(super) fn occupied(&self) -> Vec<Key> {
        let slots = (0u32..).zip(self.chunks.iter().flatten());
        slots
            .filter(|(_, slot)| slot.phase != Phase::Vacant)
            .map(|(index, slot)| Key { index, generation: slot.generation })
            .collect()
    }
}
