//! Every limit in one struct; the relations are checked at start.

use std::path::Path;
use std::sync::Arc;

use crate::agent::ASKS_MAX;
use crate::error::StartError;
use crate::link::LinkFaults;
use crate::ring::bell::{Bells, ShardBell, ThreadBell};
use crate::ring::calibrate::{self, Calibration};
use crate::ring::faults::RingFaults;
use crate::shard::idle::{self, Idle};
use crate::shard::lane::MAILBOX_MAX;
use crate::shard::pin;
use crate::shard::stamp::StampSource;

/// Which CPUs get a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// Every CPU of the calling thread's affinity mask.
    Auto,
    /// These CPUs.
    List(Vec<usize>),
}

/// How sleeping shards are woken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bell {
    /// As the figures of this machine ask for, measured once per process in at most 50 ms.
    Auto,
    /// As these figures ask for.
    Measured(Box<Calibration>),
    /// MSG_RING between shards, eventfd from other threads.
    MsgRing,
    /// Eventfd only.
    EventFd,
}

/// What a runtime has chosen for this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The bells.
    pub bells: Bells,
    /// The figures they were chosen by; `None` when the config named them.
    pub calibration: Option<Calibration>,
    /// What a shard without work does.
    pub idle: Idle,
    /// Why it does not spin although the config asks for it.
    pub no_spin: Option<String>,
    /// Where the stamps of turns come from.
    pub stamps: StampSource,
}

impl Choice {
    /// Chooses for these CPUs.
    pub(crate) fn make(config: &Config, cpus: &[usize]) -> Self {
        let calibration = match &config.bell {
            Bell::Auto => Some(calibrate::once(cpus)),
            Bell::Measured(figures) => Some((**figures).clone()),
            Bell::MsgRing | Bell::EventFd => None,
        };
        let shards =
            if config.bell == Bell::EventFd { ShardBell::EventFd } else { ShardBell::MsgRing };
        let forced = Bells { shards, threads: ThreadBell::EventFd };
        let adaptive = config.idle == Idle::Adaptive;
        let objection = || idle::objection(Path::new("/"), cpus.len(), pin::allowed().len());
        let no_spin = adaptive.then(objection).flatten();
        Self {
            bells: calibration.as_ref().map_or(forced, Calibration::choose),
            calibration,
            idle: if no_spin.is_some() { Idle::Park } else { config.idle },
            no_spin,
            stamps: StampSource::choose(config.turn_stamps),
        }
    }

    /// How long a shard takes to be woken by another one, ns.
    pub(crate) fn wake_ns(&self) -> Option<u64> {
        self.calibration.as_ref().and_then(Calibration::wake_ns)
    }
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
    /// Unread messages that every agent may have from each core at least, whatever its [`MAILBOX`](crate::Agent::MAILBOX)
    /// says, up to 50,000; 0 leaves it to the agents. It takes the bound away from all of them: for a run that is to show
    /// what the bound is good for.
    pub mailboxes_min: u32,
    /// Outstanding asks per shard.
    pub asks_max: u32,
    /// Watches, links, names, topics, children and places where it has lived that one agent may have, together.
    pub relations_max: u32,
    /// Shares of a core's time for the classes high, normal and low, when all have work.
    pub class_shares: [u32; 3],
    /// One turn in so many is timed for the accounts of agents; 1 times each.
    pub account_every: u32,
    /// Whether each turn of an agent or a future is stamped with the time of its begin, for [`Cx::path`](crate::Cx::path)
    /// and [`Observer::long_turn`](crate::Observer::long_turn): 9 ns per turn where the processor's counter can be
    /// trusted ([`Choice::stamps`]), 20 ns elsewhere. The first start of a process then takes 2 ms longer.
    pub turn_stamps: bool,
    /// Stamped turns of this length or more are told to the observer, ns; 0 tells of none.
    pub long_turn_ns: u64,
    /// A turn that lasts longer is reported with its agent, ns; 0 looks for none.
    pub stall_ns: u64,
    /// Stalls kept until [`Runtime::stalls`](crate::Runtime::stalls) takes them; more are counted only.
    pub stalls_max: u32,
    /// Cells of a cross-core ring, per ordered pair; a power of two.
    pub peer_ring_slots: u32,
    /// Cells of a cross-core ring for control messages, per ordered pair; a power of two.
    pub control_slots: u32,
    /// Faults of the links between shards, to be switched on and off while the runtime runs; none for a runtime that
    /// is never to suffer any.
    pub link_faults: Option<Arc<LinkFaults>>,
    /// Messages that a shard keeps for links that delay them; more are lost. 88 bytes each, when they come.
    pub link_delayed_max: u32,
    /// Faults of the shards' rings, to be switched on and off while the runtime runs; none for a runtime that is never to
    /// suffer any. A simulated one has faults of its own, and does not look at these.
    pub ring_faults: Option<Arc<RingFaults>>,
    /// How sleeping shards are woken.
    pub bell: Bell,
    /// What a shard without work does.
    pub idle: Idle,
    /// How late a timer may wake a sleeping shard, ns, rounded up to whole ticks of 131 us, so that timers which are
    /// due soon after each other share a wake; a shard that is awake fires them to a tick. Wakes of all shards lie on
    /// the same instants, so that they find each other awake. 0 is as precise as it goes: a wake per tick.
    pub timer_slack_ns: u64,
    /// Submission entries of a shard's io_uring.
    pub uring_entries: u32,
    /// Operations on sockets and files per shard; each stream that receives, and each listener, holds one.
    pub ops_max: u32,
    /// Receive buffers per shard; a power of two up to 32,768. Their memory comes with the first receive. Where the
    /// kernel does not take them itself (it has no room for the ring of them), each receive that waits holds one: with
    /// fewer buffers than streams, streams on which nothing comes keep the others waiting for ever.
    pub buffers: u32,
    /// Bytes of a receive buffer, and so of the largest piece that one receive gives.
    pub buffer_bytes: u32,
    /// Accepted connections that a listener holds for those who ask; more wait in the kernel.
    pub accepted_max: u32,
    /// Messages an agent may take in one turn.
    pub turn_messages: u32,
    /// Time an agent may take messages in one turn, ns. Looked at after the first message, then as often as they have
    /// been long, at least every 32; at once when the stall detector has found the turn long (`stall_ns` / 4).
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
            mailboxes_min: 0,
            asks_max: 1 << 16,
            relations_max: 4_096,
            class_shares: [16, 4, 1],
            account_every: 64,
            turn_stamps: false,
            long_turn_ns: 100_000,
            stall_ns: 25_000_000,
            stalls_max: 256,
            peer_ring_slots: 4_096,
            control_slots: 256,
            link_faults: None,
            link_delayed_max: 1 << 16,
            ring_faults: None,
            bell: Bell::Auto,
            idle: Idle::Adaptive,
            timer_slack_ns: 1_000_000,
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
            c if c.mailboxes_min > MAILBOX_MAX => {
                limit("mailboxes_min", c.mailboxes_min.into(), "up to 50000")
            }
            c if c.timers_max == 0 => limit("timers_max", 0, "at least 1"),
            c if c.asks_max == 0 || c.asks_max > ASKS_MAX => {
                limit("asks_max", c.asks_max.into(), "1 to 16777215")
            }
            c if c.class_shares.iter().any(|&share| share == 0 || share > 1_000) => {
                limit("class_shares", 0, "1 to 1000 each")
            }
            c if c.account_every == 0 || c.account_every > 1 << 20 => {
                limit("account_every", c.account_every.into(), "1 to 1048576")
            }
            c if c.timer_slack_ns > 1_000_000_000 => {
                limit("timer_slack_ns", c.timer_slack_ns, "up to 1 s")
            }
            c if c.stall_ns != 0 && c.stall_ns < 1_000_000 => {
                limit("stall_ns", c.stall_ns, "0, or 1 ms and more")
            }
            c if !c.peer_ring_slots.is_power_of_two() || c.peer_ring_slots > 1 << 20 => {
                limit("peer_ring_slots", c.peer_ring_slots.into(), "a power of two up to 1048576")
            }
            c if !c.control_slots.is_power_of_two() || c.control_slots > 1 << 16 => {
                limit("control_slots", c.control_slots.into(), "a power of two up to 65536")
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
