//! How the protocols of a run are set: limits, the log, polling.

use serde::{Deserialize, Serialize};

/// When events of the log are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSync {
    /// Never: they are written, and survive the process but not the machine.
    #[default]
    None,
    /// Together, as often as the disk allows.
    Batch,
    /// Each by a sync of its own.
    PerEvent,
}

/// Whether a transition is told before or after its event is durable; of `batch` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogAck {
    /// Before: what a crash takes was told all the same. For comparison.
    Before,
    /// After.
    #[default]
    After,
}

/// Limits per agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitPlan {
    /// Four times what the plan offers.
    #[default]
    Load,
    /// As the original: 10 requests and 20 answers a minute, 3 more at once.
    Stock,
}

/// Which core the log runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogCore {
    /// That of its owner. No thread of agents waits for the disk: the kernel's own threads write and sync.
    #[default]
    Shared,
    /// The last core of the run, which then hosts no agents.
    Own,
}

/// Where responders answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Responders {
    /// All in the process of the run.
    #[default]
    Here,
    /// The second half of the agents in a process of their own, over TCP. Every agent still asks.
    Tcp,
}

/// How receivers of `wait_for_messages` wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PollPlan {
    /// Time between two looks, ns.
    pub interval_ns: u64,
    /// Woken by the next message instead of looking again.
    pub long: bool,
    /// Messages of one reply at most.
    pub batch: u32,
    /// How long a call waits, ns.
    pub wait_ns: u64,
    /// How long a message may wait, ns; none: until it is fetched.
    pub ttl_ns: Option<u64>,
}

impl Default for PollPlan {
    /// As shipped: a look every second, ten messages, 60 s.
    fn default() -> Self {
        let (interval_ns, wait_ns) = (1_000_000_000, 60_000_000_000);
        Self { interval_ns, long: false, batch: 10, wait_ns, ttl_ns: None }
    }
}

/// Everything that the protocols of a run are set by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProtocolPlan {
    /// When the log syncs.
    pub durability: LogSync,
    /// When a transition is told.
    pub ack: LogAck,
    /// Limits per agent.
    pub limits: LimitPlan,
    /// Where the log runs.
    pub log_core: LogCore,
    /// Where responders answer.
    pub responders: Responders,
    /// Share of requests that their addressee declines.
    pub decline: f64,
    /// Share of requests that their asker withdraws while they are pending.
    pub cancel: f64,
    /// Bytes of a request's text; 0: as the workload writes it.
    pub message_bytes: u32,
    /// Agents that neither ask nor are asked: they attack.
    pub attackers: u32,
    /// How old a request may be when its owner gets it, ns.
    pub fresh_ns: u64,
    /// Keeps the event log after the run.
    pub keep_log: bool,
    /// Polling.
    pub poll: PollPlan,
}

impl Default for ProtocolPlan {
    fn default() -> Self {
        Self {
            durability: LogSync::default(),
            ack: LogAck::default(),
            limits: LimitPlan::default(),
            log_core: LogCore::default(),
            responders: Responders::default(),
            decline: 0.0,
            cancel: 0.0,
            message_bytes: 0,
            attackers: 0,
            fresh_ns: 10_000_000_000,
            keep_log: false,
            poll: PollPlan::default(),
        }
    }
}

/// Largest text of a request, bytes.
pub const MESSAGE_MAX: u64 = 1 << 20;
