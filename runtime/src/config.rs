//! Every limit in one struct; the relations are checked at start.

use crate::error::StartError;

/// Which CPUs get a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// Every CPU of the calling thread's affinity mask.
    Auto,
    /// These CPUs.
    List(Vec<usize>),
}

/// Limits and cores of a runtime. Tables grow lazily up to their bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// CPUs of the shards.
    pub cores: Cores,
    /// Agents and spawned futures per shard.
    pub agents_max: u32,
    /// Timers per shard.
    pub timers_max: u32,
    /// Messages between agents of one shard that wait to be read, 64 bytes each.
    pub messages_max: u32,
    /// Outstanding asks per shard.
    pub asks_max: u32,
    /// Cells of a cross-core ring, per ordered pair; a power of two.
    pub peer_ring_slots: u32,
    /// Submission entries of a shard's io_uring.
    pub uring_entries: u32,
    /// Operations on sockets and files per shard; each stream that receives, and each listener, holds one.
    pub ops_max: u32,
    /// Receive buffers per shard; a power of two up to 32,768. Their memory comes with the first receive.
    pub buffers: u32,
    /// Bytes of a receive buffer, and so of the largest piece that one receive gives.
    pub buffer_bytes: u32,
    /// Accepted connections that a listener holds for those who ask; more wait in the kernel.
    pub accepted_max: u32,
    /// Messages an agent may take in one turn.
    pub turn_messages: u32,
    /// Time an agent may take messages in one turn, ns.
    pub turn_ns: u64,
    /// Longest drain at shutdown, ns.
    pub drain_ns: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cores: Cores::Auto,
            agents_max: 1 << 17,
            timers_max: 1 << 18,
            messages_max: 1 << 20,
            asks_max: 1 << 16,
            peer_ring_slots: 4_096,
            uring_entries: 256,
            ops_max: 1 << 16,
            buffers: 1_024,
            buffer_bytes: 4_096,
            accepted_max: 128,
            turn_messages: 64,
            turn_ns: 50_000,
            drain_ns: 10_000_000_000,
        }
    }
}

impl Config {
    /// Checks the relations between limits.
    ///
    /// # Errors
    /// [`StartError::Limit`] with the first limit that cannot work.
    pub fn check(&self) -> Result<(), StartError> {
        let limit = |name, value: u64, rule| Err(StartError::Limit { name, value, rule });
        match self {
            c if c.agents_max == 0 => limit("agents_max", 0, "at least 1"),
            c if c.messages_max == 0 => limit("messages_max", 0, "at least 1"),
            c if c.timers_max == 0 => limit("timers_max", 0, "at least 1"),
            c if !c.peer_ring_slots.is_power_of_two() || c.peer_ring_slots > 1 << 20 => {
                limit("peer_ring_slots", c.peer_ring_slots.into(), "a power of two up to 1048576")
            }
            c if c.uring_entries == 0 || c.uring_entries > 32_768 => {
                limit("uring_entries", c.uring_entries.into(), "1 to 32768")
            }
            c if c.ops_max == 0 => limit("ops_max", 0, "at least 1"),
            c if !c.buffers.is_power_of_two() || c.buffers > 1 << 15 => {
                limit("buffers", c.buffers.into(), "a power of two up to 32768")
            }
            c if c.buffer_bytes == 0 || c.buffer_bytes > 1 << 20 => {
                limit("buffer_bytes", c.buffer_bytes.into(), "1 to 1048576")
            }
            c if c.accepted_max == 0 => limit("accepted_max", 0, "at least 1"),
            c if c.turn_messages == 0 => limit("turn_messages", 0, "at least 1"),
            c if c.turn_ns == 0 => limit("turn_ns", 0, "at least 1"),
            _ => Ok(()),
        }
    }
}
