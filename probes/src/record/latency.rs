//! What one core records of one window about where its requests' time went; plain values.
//!
//! A request is timed by the core that asked. Its stages are differences of stamps, and a stamp is shared
//! where one stage ends and the next begins. The total is measured apart, by the asker's own clock reads, so
//! that the sum of the stages can be compared with something that is not their sum.
//!
//! Encoded by postcard: small numbers take few bytes. A change of a struct is a new version of its frame.

use serde::{Deserialize, Serialize};

/// Where a request's time goes, in the order in which it goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Stage {
    /// Intended instant to sent: the generator was late.
    Schedule = 0,
    /// Sent to made visible to the responder's core; none on the same core.
    SendQueue = 1,
    /// Made visible to first seen by the responder's core: the channel, and a core that did not look.
    Hop = 2,
    /// Seen to the responder's turn, behind other agents; also of each time it was resumed.
    RunQueue = 3,
    /// Set aside, as the responder was busy with an earlier message.
    Mailbox = 4,
    /// In polls of the responder.
    Service = 5,
    /// The responder waited for I/O or a timer of its own, beyond the planned delay.
    Suspended = 6,
    /// The planned instant of the answer to the turn that sends it.
    Timer = 7,
    /// As [`SendQueue`](Self::SendQueue), of the answer.
    ReplySendQueue = 8,
    /// As [`Hop`](Self::Hop), of the answer.
    ReplyHop = 9,
    /// As [`RunQueue`](Self::RunQueue), of the answer, at the asker.
    ReplyRunQueue = 10,
    /// As [`Mailbox`](Self::Mailbox), of the answer, at the asker.
    ReplyMailbox = 11,
    /// The asker's turn to the instant at which it has the answer in hand.
    Settle = 12,
    /// Sent and never answered: where it waited is not known.
    Unanswered = 13,
}

/// Number of stages.
pub const STAGES: usize = 14;

impl Stage {
    /// All, in order.
    pub const ALL: [Self; STAGES] = [
        Self::Schedule,
        Self::SendQueue,
        Self::Hop,
        Self::RunQueue,
        Self::Mailbox,
        Self::Service,
        Self::Suspended,
        Self::Timer,
        Self::ReplySendQueue,
        Self::ReplyHop,
        Self::ReplyRunQueue,
        Self::ReplyMailbox,
        Self::Settle,
        Self::Unanswered,
    ];

    /// Its place in [`StageNs`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::SendQueue => "send queue",
            Self::Hop => "hop",
            Self::RunQueue => "run queue",
            Self::Mailbox => "mailbox",
            Self::Service => "service",
            Self::Suspended => "suspended",
            Self::Timer => "timer",
            Self::ReplySendQueue => "reply send queue",
            Self::ReplyHop => "reply hop",
            Self::ReplyRunQueue => "reply run queue",
            Self::ReplyMailbox => "reply mailbox",
            Self::Settle => "settle",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Time in each stage, ns, by [`Stage`].
pub type StageNs = [u64; STAGES];

/// The way of one message, as the core that took it has seen it; instants of `CLOCK_MONOTONIC`, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Made visible by the sender's core; 0 when it came from the same core.
    pub published_ns: u64,
    /// First seen by the core that took it. The resolution is that core's look at its queues.
    pub seen_ns: u64,
    /// Set aside because its agent was busy; 0 when it was not.
    pub aside_ns: u64,
    /// The turn that took it began.
    pub turn_ns: u64,
}

/// [`Stamps::polls`] of a request that another process has answered: they are not known. Its `timer_turn_ns` is when that
/// process had the answer, later than due, and `suspended_ns` its way there and back.
pub const CARRIED: u32 = u32::MAX;

/// Every stamp of one request. Instants of `CLOCK_MONOTONIC`, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps {
    /// When it was to be sent.
    pub intended_ns: u64,
    /// When it was sent.
    pub sent_ns: u64,
    /// To the responder.
    pub out: Leg,
    /// Polls of the responder's handler, its timer's included; [`CARRIED`] when another process has answered.
    pub polls: u32,
    /// In them, ns, until the answer was sent.
    pub service_ns: u64,
    /// Between them, until it was ready again, ns; without the planned delay.
    pub suspended_ns: u64,
    /// From ready again to polled again, ns.
    pub resume_wait_ns: u64,
    /// Planned delay of the responder, ns. It is no part of the system's latency.
    pub planned_ns: u64,
    /// Instant at which the answer was due, if a timer of the plan sends it; 0 if none does.
    pub due_ns: u64,
    /// The turn of that timer began; 0 if there is none.
    pub timer_turn_ns: u64,
    /// The answer was sent.
    pub answered_ns: u64,
    /// Back to the asker.
    pub back: Leg,
    /// The asker had it in hand, by a clock read of its own.
    pub closed_ns: u64,
}

/// Why a request was written down whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Drawn: each request of the window had the same chance.
    Uniform,
    /// Above the latency that the window before had at its 99th percentile.
    Late,
    /// Among the slowest of the window.
    Top,
}

/// What a thread's counters said at the end of a poll less at its begin. `None`: unknown here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollCounts {
    /// CPU time of the thread, ns.
    pub cpu_ns: Option<u64>,
    /// Page faults without I/O.
    pub minor_faults: Option<u64>,
    /// Page faults with I/O.
    pub major_faults: Option<u64>,
    /// Switches away while it could run.
    pub preemptions: Option<u64>,
    /// Switches away because it waited.
    pub blocks: Option<u64>,
    /// Allocations.
    pub allocations: Option<u64>,
    /// Bytes allocated.
    pub allocated_bytes: Option<u64>,
    /// Time in the allocator, ns: counted calls times the measured mean of sampled ones.
    pub allocator_ns: Option<u64>,
}

/// One request, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Why it is here.
    pub why: Why,
    /// Index of the agent that asked.
    pub asker: u32,
    /// Index of the agent that answered.
    pub responder: u32,
    /// Shard of the asker.
    pub asker_shard: u16,
    /// Shard of the responder.
    pub responder_shard: u16,
    /// Its stamps.
    pub stamps: Stamps,
    /// What its service took, if it was counted.
    pub counts: Option<PollCounts>,
}

/// Requests whose measured system latency lies in one bucket, or another set of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// How many.
    pub count: u64,
    /// Their system latency together, measured by the askers' clock reads, ns.
    pub system_ns: u64,
    /// Their stages together, ns.
    pub stages: StageNs,
}

/// Sums of the requests of one latency bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketSums {
    /// Number of the bucket (`analyse::latency::bucket_of`).
    pub bucket: u16,
    /// Its requests.
    pub sums: Sums,
}

/// Requests that one shard answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponderSums {
    /// Shard that answered.
    pub shard: u16,
    /// All of them.
    pub all: Sums,
    /// Those above the latency that the window before had at its 99th percentile.
    pub late: Sums,
}

/// An agent of a top list (space-saving: Metwally et al., 2005): its true weight is at most `weight`, and at
/// least `weight - error`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopAgent {
    /// Index.
    pub agent: u32,
    /// Weight, ns.
    pub weight: u64,
    /// What of it may be another's, ns.
    pub error: u64,
    /// Times that it was added to since it is in the list.
    pub count: u64,
}

/// A turn that kept its core for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongTurn {
    /// Index of the agent, or `u32::MAX` for none of the workload's.
    pub agent: u32,
    /// When it began, ns.
    pub from_ns: u64,
    /// How long it took, ns, time off the CPU included.
    pub len_ns: u64,
}

/// In a long turn the shard's thread was off its CPU, where no switches are recorded: by the thread's CPU time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnOff {
    /// Begin of the turn, as in its [`LongTurn`], ns.
    pub from_ns: u64,
    /// So long at least, ns; up to a millisecond more is possible.
    pub off_ns: u64,
    /// Of that, ready to run, by schedstat, at most, ns; `None`: unknown.
    pub ready_ns: Option<u64>,
}

/// A core that was parked came late: a message was visible to it, or a timer was due, and it did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateWake {
    /// When the first of what it came late for was visible or due, ns.
    pub from_ns: u64,
    /// The park's end, ns.
    pub to_ns: u64,
    /// Of that, ready to run and without a CPU, by schedstat, at most, ns; `None`: unknown.
    pub ready_ns: Option<u64>,
}

/// The shard's thread was off its CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {
    /// From, ns.
    pub from_ns: u64,
    /// To, ns.
    pub to_ns: u64,
    /// It could have run; otherwise it waited in the kernel.
    pub preempted: bool,
}

/// How far to believe a count (`collect::perf::Quality`, as it is stored).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Count {
    /// As counted.
    Exact(u64),
    /// Scaled from so many thousandths of the window: 900 to 998.
    Scaled(u64, u16),
    /// Scaled from less: no verdict uses it.
    Rough(u64, u16),
    /// Not known in this window, and why.
    Unknown(String),
}

/// One counter over one tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRecord {
    /// Name (`collect::perf::Kind`).
    pub name: String,
    /// What it counted.
    pub count: Count,
}

/// What a core did between two of its ticks. Times in ns. `None`: unknown here; the manifest says why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreTick {
    /// From.
    pub from_ns: u64,
    /// To: the length is what it was and not what it should have been.
    pub to_ns: u64,
    /// In turns of agents and futures, time off the CPU in them included.
    pub turns_ns: u64,
    /// Turns.
    pub turns: u64,
    /// Parked in the kernel for want of work.
    pub parked_ns: u64,
    /// Looked on for work.
    pub spun_ns: u64,
    /// In this tick's own work, the last one's.
    pub tick_ns: u64,
    /// Counters of the thread's group.
    pub counters: Vec<CounterRecord>,
    /// On the CPU, by schedstat.
    pub run_ns: Option<u64>,
    /// Ready and not on it, by schedstat.
    pub wait_ns: Option<u64>,
    /// Off the CPU although it could run, by records of switches.
    pub preempted_ns: Option<u64>,
    /// Off the CPU in a wait, parking included, by records of switches.
    pub blocked_ns: Option<u64>,
    /// Records of switches that were lost.
    pub lost: u64,
    /// Messages that waited in the run queue when the tick came.
    pub queued: u64,
}

/// Requests that left a leg of their way, whatever became of them, and how long they were in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegSum {
    /// How many.
    pub count: u64,
    /// Their time in it together, ns, planned delays included: it is compared with samples of how many are
    /// in it.
    pub ns: u64,
}

/// What a CPU quota of the process did in a second (`collect::quota`, as it is stored).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleRecord {
    /// Periods of the quota in which something was to run; 0 without a quota.
    pub periods: u64,
    /// Of these, so many ended with nothing left of it.
    pub times: u64,
    /// Time that CPUs had something to run and were not let, of all CPUs together, ns.
    pub ns: u64,
}

/// What all cores did together in about a second, and what was done to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSecond {
    /// From, ns.
    pub from_ns: u64,
    /// To, ns: the length is what it was and not what it should have been.
    pub to_ns: u64,
    /// Of the CPU quota; `None`: unknown, and the manifest says why where it always is.
    pub throttle: Option<ThrottleRecord>,
    /// Messages between cores that were lost on faulty links, which somebody injects.
    pub links_dropped: u64,
    /// Messages between cores that faulty links have made wait.
    pub links_delayed: u64,
    /// Steps of requests: sent, taken by the responder's turn, answered, the answer taken by the asker's turn.
    pub steps: [u64; 4],
}

/// What became of requests that another process answers, in about a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedSecond {
    /// From, ns.
    pub from_ns: u64,
    /// To, ns.
    pub to_ns: u64,
    /// Requests given to a connection.
    pub carried: u64,
    /// Answers that came for them.
    pub answered: u64,
    /// Requests that no answer came for: their deadline came, or their connection ended.
    pub given_up: u64,
    /// Requests that could not be given to one: there was none, or no room.
    pub not_carried: u64,
    /// Connections that ended.
    pub lost: u64,
}

/// What a thread of one core has recorded in one window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyWindow {
    /// Number of the window.
    pub window: u32,
    /// Shard.
    pub shard: u16,
    /// Begin, ns.
    pub from_ns: u64,
    /// End, ns.
    pub to_ns: u64,
    /// Requests of its askers by bucket of system latency, ascending: all, or those drawn (`More::staged_every`).
    pub buckets: Vec<BucketSums>,
    /// The same requests by the shard that answered.
    pub responders: Vec<ResponderSums>,
    /// Latency above which a request counted as late in it, ns; `None` in the first.
    pub late_ns: Option<u64>,
    /// Stage differences that were negative and taken as 0 because they lay within the clock's bound.
    pub clamped: u64,
    /// Requests whose stamps were out of order beyond it: they are in no bucket.
    pub disordered: u64,
    /// Requests written down whole.
    pub exemplars: Vec<Exemplar>,
    /// Requests above `late_ns` of which there was no room for more.
    pub late_left_out: u64,
    /// Agents by time in their service on this shard.
    pub top_service: Vec<TopAgent>,
    /// Agents by how much their requests were late (system latency of the late ones), at the responder.
    pub top_late: Vec<TopAgent>,
    /// Long turns on this shard.
    pub long_turns: Vec<LongTurn>,
    /// Further ones of which there was no room for more, ns and number.
    pub long_turns_left_out: (u64, u64),
    /// Off-CPU intervals of 20 us and more of this shard's thread.
    pub off: Vec<Off>,
    /// Further ones of which there was no room for more, ns and number.
    pub off_left_out: (u64, u64),
    /// Ticks.
    pub ticks: Vec<CoreTick>,
    /// Samples of the number of requests in a leg: sent and not taken, taken and not answered, answered and
    /// not in hand. Sums over the samples.
    pub occupancy: [u64; 3],
    /// How many samples.
    pub occupancy_samples: u64,
    /// What our own measuring took on this shard, ns, by its own meters.
    pub self_ns: u64,
    /// Requests of this shard's askers whose answer came in the window, late ones too, by the legs of
    /// `occupancy`: sent to taken, taken to answered, answered to in hand.
    pub legs: [LegSum; 3],
    /// Requests that ended in the window without it being known how long they were in each leg, as no
    /// answer came; `ns` is from sent to their end.
    pub legs_unknown: LegSum,
    /// Requests that ended while stages were switched off: in the histograms of latency and in no bucket;
    /// `ns` is their system latency.
    pub unstaged: LegSum,
    /// What later versions have added: encoded after the rest ([`LatencyWindow::encode`]), so that each reads the
    /// other's frames.
    #[serde(skip)]
    pub more: More,
}

/// What was added to [`LatencyWindow`] since its first version; fields are only ever appended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct More {
    /// Agents by how often a request of this shard's askers found their mailbox full; weights are requests.
    pub top_full: Vec<TopAgent>,
    /// Long turns in which the thread was off its CPU for 20 us and more, where no switches are recorded.
    pub turn_off: Vec<TurnOff>,
    /// Whether it was looked for: then a long turn that is not in `turn_off` was on its CPU.
    pub turns_read: bool,
    /// Parks that ended 100 us and more after something was there for the core.
    pub late_wakes: Vec<LateWake>,
    /// Further ones of which there was no room for more, ns and number.
    pub late_wakes_left_out: (u64, u64),
    /// One request in so many, drawn before it was sent and each with the same chance, is in `buckets` and
    /// `responders`; 0 and 1: each. The same in all windows of a run.
    pub staged_every: u32,
    /// The others: in the histograms of latency and in no bucket; `ns` is their system latency.
    pub undrawn: LegSum,
    /// The seconds of the window, as facts of the fleet: in the window of shard 0.
    pub seconds: Vec<FleetSecond>,
    /// What was carried to a second process in those seconds; empty without one.
    pub carried: Vec<CarriedSecond>,
    /// Samples that were taken a millisecond or more later than they were to be, or not at all.
    pub samples_late: u64,
}

impl LatencyWindow {
    /// How many requests one in `buckets` and `responders` stands for.
    #[must_use]
    pub fn stands_for(&self) -> u64 {
        u64::from(self.more.staged_every.max(1))
    }

    /// As a frame holds it.
    ///
    /// # Errors
    /// None for what fits into memory.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(&self.more, postcard::to_allocvec(self)?)
    }

    /// Reads a frame. One of an older version has nothing of [`More`]; of a newer one what is unknown is left.
    ///
    /// # Errors
    /// When the bytes are no window.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let (mut window, mut rest): (Self, &[u8]) = postcard::take_from_bytes(bytes)?;
        window.more.top_full = next(&mut rest)?;
        window.more.turn_off = next(&mut rest)?;
        window.more.turns_read = next(&mut rest)?;
        window.more.late_wakes = next(&mut rest)?;
        window.more.late_wakes_left_out = next(&mut rest)?;
        window.more.staged_every = next(&mut rest)?;
        window.more.undrawn = next(&mut rest)?;
        window.more.seconds = next(&mut rest)?;
        window.more.carried = next(&mut rest)?;
        window.more.samples_late = next(&mut rest)?;
        Ok(window)
    }
}

/// Moves an instant; 0 stands for none and stays.
const fn moved(ns: &mut u64, by: i64) {
    if *ns != 0 {
        *ns = ns.saturating_add_signed(by);
    }
}

impl Leg {
    const fn shift(&mut self, by: i64) {
        moved(&mut self.published_ns, by);
        moved(&mut self.seen_ns, by);
        moved(&mut self.aside_ns, by);
        moved(&mut self.turn_ns, by);
    }
}

impl Stamps {
    /// Moves every instant by so many ns.
    pub const fn shift(&mut self, by: i64) {
        moved(&mut self.intended_ns, by);
        moved(&mut self.sent_ns, by);
        self.out.shift(by);
        moved(&mut self.due_ns, by);
        moved(&mut self.timer_turn_ns, by);
        moved(&mut self.answered_ns, by);
        self.back.shift(by);
        moved(&mut self.closed_ns, by);
    }
}

impl LatencyWindow {
    /// Moves every instant by so many ns: onto the clock of another boot, or over a time in which nobody measured.
    pub fn shift(&mut self, by: i64) {
        moved(&mut self.from_ns, by);
        moved(&mut self.to_ns, by);
        self.exemplars.iter_mut().for_each(|of| of.stamps.shift(by));
        self.long_turns.iter_mut().for_each(|turn| moved(&mut turn.from_ns, by));
        self.more.turn_off.iter_mut().for_each(|off| moved(&mut off.from_ns, by));
        for off in &mut self.off {
            moved(&mut off.from_ns, by);
            moved(&mut off.to_ns, by);
        }
        for tick in &mut self.ticks {
            moved(&mut tick.from_ns, by);
            moved(&mut tick.to_ns, by);
        }
        for late in &mut self.more.late_wakes {
            moved(&mut late.from_ns, by);
            moved(&mut late.to_ns, by);
        }
        for second in &mut self.more.seconds {
            moved(&mut second.from_ns, by);
            moved(&mut second.to_ns, by);
        }
        for second in &mut self.more.carried {
            moved(&mut second.from_ns, by);
            moved(&mut second.to_ns, by);
        }
    }
}

/// The next field, or nothing of it where the writer knew of none.
fn next<'a, T: Default + Deserialize<'a>>(rest: &mut &'a [u8]) -> Result<T, postcard::Error> {
    if rest.is_empty() {
        return Ok(T::default());
    }
    let (field, left) = postcard::take_from_bytes(rest)?;
    *rest = left;
    Ok(field)
}

#[cfg(test)]
mod tests;
