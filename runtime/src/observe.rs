//! What a shard tells about itself while it runs.

use crate::agent::AgentId;
use crate::shard::Shard;

/// Hooks of a shard; ids and instants (`CLOCK_MONOTONIC` ns) only. They run on the shard, between turns: no
/// allocation, no system call. What one panics with is dropped, and the shard goes on.
pub trait Observer: Send + 'static {
    /// The shard's thread is about to begin its first round.
    fn started(&mut self) {}
    /// A round ended: all that it has done, in turns of agents and futures.
    fn turn(&mut self, _now_ns: u64, _polls: u32) {}
    /// The shard slept.
    fn parked(&mut self, _from_ns: u64, _to_ns: u64) {}
    /// The shard had nothing to do and looked on.
    fn spun(&mut self, _from_ns: u64, _to_ns: u64) {}
    /// A turn of an agent or a spawned future took `Config::long_turn_ns` or more. Told when its end is seen: before
    /// the next turn. Only with `Config::turn_stamps`.
    fn long_turn(&mut self, _agent: AgentId, _from_ns: u64, _len_ns: u64) {}
    /// The shard looked at the clock: every few us while it is busy, between two turns. Only with
    /// `Config::turn_stamps`. Returns the instant before which it need not be told again, ns; 0 is each time.
    fn look(&mut self, _now_ns: u64, _queues: &Queues<'_>) -> u64 {
        u64::MAX
    }
    /// The shard has ended; its agents are gone.
    fn ended(&mut self) {}
}

/// What waits at a shard, counted when asked.
pub struct Queues<'a>(&'a Shard);

impl std::fmt::Debug for Queues<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = (self.ready(), self.aside(), self.in_rings(), self.unpublished());
        f.debug_tuple("Queues").field(&counts).finish()
    }
}

impl<'a> Queues<'a> {
    pub(crate) const fn of(shard: &'a Shard) -> Self {
        Self(shard)
    }

    /// The run queue: messages, timers, notices and wakes that wait for their turn here. A load per class.
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.0.ready()
    }

    /// Messages set aside because the handlers of their agents are suspended. One load.
    #[must_use]
    pub fn aside(&self) -> u64 {
        self.0.aside()
    }

    /// Messages and answers in the rings from other shards to this one, seen or not. A load of a line that
    /// another core writes, per shard: up to 100 ns each.
    #[must_use]
    pub fn in_rings(&self) -> u64 {
        self.0.in_rings()
    }

    /// Messages, answers and control to other shards that they cannot see yet. Two loads.
    #[must_use]
    pub fn unpublished(&self) -> u64 {
        self.0.unpublished()
    }
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
