//! The end of a shard: it seals, counts what nobody will read, and drops all on its own thread.

use super::run::ShardReport;
use super::slab::Role;
use super::{CURRENT, Shard};
use crate::agent::{End, messages};
use crate::panics::drop_contained;
use crate::ring::{Doorbells, knock};

impl Shard {
    /// Refuses all that is new and says so; returns whether nothing was left to do.
    pub(super) fn seal(&self, ring: &mut dyn Doorbells) -> bool {
        let drained = !self.has_work();
        self.closed.set(true);
        self.publish_messages(ring);
        // From now on it waits for others, which is no turn of anybody's.
        self.beat.at(0);
        self.own().ending.seal();
        self.peers.iter().for_each(|peer| knock(peer.event()));
        drained
    }

    /// When all have sealed: counts what nobody will read, drops every task on its own thread, and has its operations
    /// cancelled. Reports all but what becomes of these.
    pub(super) fn end_agents(&self, drained: bool) -> ShardReport {
        let mut undelivered = self.empty_links()
            + self.empty_rings()
            + self.empty_control()
            + self.asks.borrow().unread();
        let stats = *self.stats.borrow();
        let mut tasks_dropped = 0;
        undelivered += self.empty_queue();
        for index in self.slab.occupied() {
            let Some(header) = self.slab.header(index) else { continue };
            let Some(kind) = header.kind.get() else { continue };
            tasks_dropped += u64::from(kind.role == Role::Task);
            let pending = header.pending.take();
            undelivered += pending.as_ref().map_or(0, |pending| messages(pending));
            header.pending.set(pending);
            self.end_agent(index, End::Killed);
        }
        undelivered += self.empty_queue();
        // What ended with its agents here is counted as undelivered, and not a second time.
        self.stats.borrow_mut().dead_letters = stats.dead_letters;
        self.ops.close();
        ShardReport {
            core: self.own().core,
            agents_live: stats.live_agents,
            agents_panicked: stats.panicked,
            messages_undelivered: undelivered,
            tasks_dropped,
            ops_leaked: 0,
            drained: drained && undelivered == 0,
        }
    }

    /// When the kernel has let go of everything, or will not.
    pub(super) fn end(&self, ring: &dyn Doorbells) {
        self.publish_stats(ring, 0);
        CURRENT.set(None);
    }

    /// Drops what waits for its turn; returns the messages among it.
    fn empty_queue(&self) -> u64 {
        let mut left = 0;
        while let Some(envelope) = self.lines.iter().find_map(|line| line.queue.pop()) {
            left += u64::from(envelope.is_message());
            drop_contained(envelope);
        }
        left
    }

    /// Drops what other shards have sent and this one has not taken; returns how much.
    fn empty_rings(&self) -> u64 {
        let mut left = 0;
        for peer in 0..self.peers.len() {
            loop {
                let next = self.consumers.borrow_mut()[peer].as_mut().and_then(|ring| ring.pop());
                let Some(envelope) = next else { break };
                left += u64::from(envelope.is_message());
                // Its drop is user code: a panic there must not keep the others waiting.
                drop_contained(envelope);
            }
        }
        left
    }
}
