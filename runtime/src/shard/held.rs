//! What a shard holds.

use super::{Shard, pin};

/// What a shard holds for its agents; all of it comes back when they have ended and nothing is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Slots of agents and spawned futures.
    pub slots: u64,
    /// Memory of suspended handlers and spawned futures, bytes.
    pub futures_bytes: u64,
    /// Asks without an end.
    pub asks: u64,
    /// Asks that nobody waits for and whose reply has not come to its end: as told to other shards, and as they
    /// have told this one.
    pub cancels: u64,
    /// Timers.
    pub timers: u64,
    /// Messages, wakes and tokens in the queue, and messages that wait for suspended handlers or are delayed by links.
    pub messages: u64,
    /// Messages from this shard to its own agents that count as unread.
    pub credits: u64,
    /// Operations on sockets and files.
    pub ops: u64,
    /// Receive buffers with data that nobody has dropped.
    pub buffers: u64,
}

impl Shard {
    /// What it holds.
    pub(crate) fn held(&self) -> Held {
        Held {
            slots: self.slab.live().into(),
            futures_bytes: self.scratch.held() as u64,
            asks: self.asks.borrow().open_count(),
            cancels: (self.told.len() + self.cancelled.len()) as u64,
            timers: self.wheel.borrow().pending().into(),
            messages: self.lines.iter().map(|line| line.queue.len() as u64).sum::<u64>()
                + self.counts.waiting.get()
                + self.delayed(),
            credits: self.lanes[self.index].unread(),
            ops: self.ops.live().into(),
            buffers: self.ops.buffers_in_use().into(),
        }
    }

    /// Notes which thread this is.
    pub(crate) fn set_thread_id(&self) {
        self.stats.borrow_mut().thread_id = u64::try_from(pin::thread_id()).unwrap_or(0);
    }
}
