//! Tasks: agents and spawned futures in one table of generation-tagged slots.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Shard;
use super::waker::Wake;
use crate::agent::{Agent, AnyMailbox, Cx, GENERATIONS, Item, Mailbox, generation_of, index_of};
use crate::prefetch::prefetch;

/// Cache lines of a task's future that are loaded ahead.
const FUTURE_LINES: usize = 4;

/// A task's future.
pub(super) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// One slot.
pub(super) struct Slot {
    pub(super) future: Option<Task>,
    mailbox: Option<Rc<dyn AnyMailbox>>,
    queued: bool,
    bytes: usize,
}

impl Slot {
    pub(super) const fn new(
        future: Task,
        mailbox: Option<Rc<dyn AnyMailbox>>,
        bytes: usize,
    ) -> Self {
        Self { future: Some(future), mailbox, queued: false, bytes }
    }

    pub(super) const fn is_agent(&self) -> bool {
        self.mailbox.is_some()
    }

    pub(super) const fn bytes(&self) -> usize {
        // The mailbox's reference counts come on top of what was measured.
        self.bytes + 2 * size_of::<usize>()
    }
}

struct Entry {
    slot: Option<Slot>,
    generation: u32,
}

/// The table; grows up to its bound.
pub(super) struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    max: u32,
}

impl Table {
    pub(super) const fn new(max: u32) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), max }
    }

    /// An empty slot, which the caller must occupy.
    pub(super) fn vacant(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = u32::try_from(self.entries.len()).ok().filter(|&index| index < self.max)?;
        self.entries.push(Entry { slot: None, generation: 1 });
        Some(index)
    }

    pub(super) fn generation(&self, index: u32) -> u32 {
        self.entries[index as usize].generation
    }

    pub(super) fn occupy(&mut self, index: u32, slot: Slot) {
        self.entries[index as usize].slot = Some(slot);
    }

    /// The slot of a handle that is not stale.
    pub(super) fn slot_mut(&mut self, handle: u64) -> Option<&mut Slot> {
        let entry = self.entries.get_mut(index_of(handle) as usize)?;
        if entry.generation == generation_of(handle) { entry.slot.as_mut() } else { None }
    }

    /// The slot that a wake is for.
    pub(super) fn woken_mut(&mut self, wake: Wake) -> Option<&mut Slot> {
        let entry = self.entries.get_mut(wake.slot() as usize)?;
        if wake.is_for(entry.generation) { entry.slot.as_mut() } else { None }
    }

    /// Takes a queued task's future out for a poll; with its generation, for the waker.
    pub(super) fn take(&mut self, index: u32) -> Option<(Task, u32)> {
        let entry = &mut self.entries[index as usize];
        let slot = entry.slot.as_mut()?;
        slot.queued = false;
        Some((slot.future.take()?, entry.generation))
    }

    /// Starts to load the entry of a slot.
    pub(super) fn prefetch_entry(&self, index: u32) {
        if let Some(entry) = self.entries.get(index as usize) {
            prefetch(entry, 2);
        }
    }

    /// Starts to load what a poll of the slot touches; its entry should be there by now.
    pub(super) fn prefetch_task(&self, index: u32) {
        let Some(slot) = self.entries.get(index as usize).and_then(|entry| entry.slot.as_ref())
        else {
            return;
        };
        if let Some(future) = &slot.future {
            prefetch(&raw const **future, FUTURE_LINES);
        }
        if let Some(mailbox) = &slot.mailbox {
            prefetch(Rc::as_ptr(mailbox), 1);
        }
    }

    pub(super) fn put_back(&mut self, index: u32, future: Task) {
        if let Some(slot) = &mut self.entries[index as usize].slot {
            slot.future = Some(future);
        }
    }

    /// Ends a task: the slot goes to the next generation. The caller drops what comes back.
    pub(super) fn close(&mut self, index: u32) -> Option<Slot> {
        let entry = &mut self.entries[index as usize];
        let slot = entry.slot.take()?;
        // 0 is skipped, so that the zero word of a slot never used matches no handle.
        entry.generation =
            if entry.generation + 1 == GENERATIONS { 1 } else { entry.generation + 1 };
        self.free.push(index);
        Some(slot)
    }

    pub(super) fn occupied(&self) -> Vec<u32> {
        (0u32..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.slot.is_some())
            .map(|(index, _)| index)
            .collect()
    }

    /// Slots ever used.
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}

impl Slot {
    /// Marks the task as queued; `false` when it is already.
    pub(super) const fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    pub(super) fn mailbox(&self) -> Option<&dyn AnyMailbox> {
        self.mailbox.as_deref()
    }

    /// Empties the mailbox; returns the messages nobody will read.
    pub(super) fn undelivered(&self) -> u64 {
        self.mailbox.as_ref().map_or(0, |mailbox| mailbox.clear())
    }
}

/// The life of an agent: take a message, handle it, until it stops.
pub(super) async fn agent_loop<A: Agent>(
    mut agent: A,
    mailbox: Rc<Mailbox<A::Msg>>,
    shard: Rc<Shard>,
    me: u64,
) {
    loop {
        let item = Next { mailbox: &mailbox, shard: &shard, me }.await;
        let mut cx = Cx::new(&shard, me);
        let handled = match item {
            Item::Message(message, lane) => {
                shard.taken(1);
                let free = mailbox.read(lane, A::MAILBOX);
                if free > 0 {
                    shard.own().words.release(index_of(me), generation_of(me), free);
                }
                agent.on(message, &mut cx).await
            }
            Item::Timer(token) => agent.on_timer(token, &mut cx),
        };
        if handled.is_err() {
            return;
        }
    }
}

/// Takes the next item, within the budget of the turn.
struct Next<'a, M> {
    mailbox: &'a Mailbox<M>,
    shard: &'a Shard,
    me: u64,
}

impl<M> Future for Next<'_, M> {
    type Output = Item<M>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Item<M>> {
        if !self.shard.may_continue() {
            // The turn is over; the agent goes to the end of the queue.
            self.shard.make_ready(self.me);
            return Poll::Pending;
        }
        self.mailbox.pop().map_or(Poll::Pending, Poll::Ready)
    }
}
