//! What one core records: a single writer, no atomics, no allocation and no system call while agents
//! run. The controller takes the second's counts and the window's histograms by a closure that runs on
//! the core itself.

use std::cell::RefCell;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tailbeam_probes::analyse::overhead::Detail;
use tailbeam_probes::clock;
use tailbeam_probes::collect::turn::{AllocatorUnit, reading_ns};
use tailbeam_probes::record::latency::{Leg, PollCounts, Stamps};
use tailbeam_probes::stats::Histogram;
use tailbeam_runtime::TimerId;

use super::exchange::record_timer;
use super::harm::Schedule;
use super::latency::{CoreLatency, Drawn, Parties};
use super::legs::{Legs, Step};
use super::open::{Open, OpenTable};
use super::plant::Planted;
use super::slow::Slowed;
use super::thin::Thin;
use crate::chaos::board::{Fate, Lane};
use crate::observe::BUILT;
use crate::plan::Plan;
use crate::verdict::Outcomes;

/// Latency limits a run can count exactly.
pub(crate) const LIMITS_MAX: usize = 8;

/// The recorded series, in the order of their numbers on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Series {
    /// End-to-end minus the responder's planned delay.
    System = 0,
    /// Intended send to reply seen.
    EndToEnd = 1,
    /// Intended send to actual send.
    Lateness = 2,
    /// Sent to taken by the responder's handler: rings, mailbox, run queue.
    RequestPath = 3,
    /// Planned answer instant to answer sent: the responder's timer and its run queue.
    ResponseTimer = 4,
    /// Answer sent to answer seen.
    ReplyPath = 5,
}

impl Series {
    /// Every series.
    pub const ALL: [Self; 6] = [
        Self::System,
        Self::EndToEnd,
        Self::Lateness,
        Self::RequestPath,
        Self::ResponseTimer,
        Self::ReplyPath,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::EndToEnd => "end_to_end",
            Self::Lateness => "lateness",
            Self::RequestPath => "request_path",
            Self::ResponseTimer => "response_timer",
            Self::ReplyPath => "reply_path",
        }
    }
}

/// Exact counts of one second on one core, or of one second over all cores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondCounts {
    /// Outcomes closed in this second, and attempts made in it. `open_at_stop` is filled at the end.
    pub outcomes: Outcomes,
    /// Refusals because the agent's open requests were at their bound (part of `refused`).
    pub refused_open_bound: u64,
    /// Refusals because there was no memory for the request (part of `refused`).
    #[serde(default)]
    pub refused_no_memory: u64,
    /// Requests the generator could not keep because its own tables were full (part of `error`).
    pub generator_exhausted: u64,
    /// Requests that found the mailbox of the agent they were for full, and were handed back (part of `error`).
    #[serde(default)]
    pub mailbox_full: u64,
    /// Requests that found the ring to the core they were for full, and were handed back (part of `error`).
    #[serde(default)]
    pub ring_full: u64,
    /// Answers that found the asker's mailbox or ring full.
    pub answers_undelivered: u64,
    /// Answers to requests that had been closed before.
    pub late_answers: u64,
    /// Answers that were sent before their planned instant: they used less than the planned delay, so what the
    /// system took of it is not known, and no system latency is recorded.
    pub early_answers: u64,
    /// Requests whose system latency is judged: answered, expired, lost or failed.
    pub judged: u64,
    /// Of those, above the plan's k-th latency limit.
    pub over: [u64; LIMITS_MAX],
    /// Closed requests that had been sent (for Little's law).
    pub closed: u64,
    /// Sum of their time from send to close, ns.
    pub closed_open_ns: u64,
}

impl SecondCounts {
    /// Adds another core's counts of the same second.
    pub fn merge(&mut self, other: &Self) {
        self.outcomes.merge(&other.outcomes);
        self.refused_open_bound += other.refused_open_bound;
        self.refused_no_memory += other.refused_no_memory;
        self.generator_exhausted += other.generator_exhausted;
        self.mailbox_full += other.mailbox_full;
        self.ring_full += other.ring_full;
        self.answers_undelivered += other.answers_undelivered;
        self.late_answers += other.late_answers;
        self.early_answers += other.early_answers;
        self.judged += other.judged;
        for (mine, theirs) in self.over.iter_mut().zip(other.over) {
            *mine += theirs;
        }
        self.closed += other.closed;
        self.closed_open_ns += other.closed_open_ns;
    }
}

/// One histogram per series.
pub(crate) type SeriesSet = Vec<Histogram>;

/// Histograms whose memory is there: the first touch of a page costs about 10 us on a virtual machine, and
/// a core pays it for every page of a histogram that was only reserved.
pub(crate) fn empty_set() -> SeriesSet {
    let touched = |_| {
        let mut histogram = Histogram::new();
        histogram.clear();
        histogram
    };
    Series::ALL.iter().map(touched).collect()
}

/// What requests took of one agent's, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AgentNs {
    /// System latency of the requests that it made, together.
    pub(crate) system: u64,
    /// The largest of them.
    pub(crate) worst: u64,
    /// Service of those that it answered.
    pub(crate) service: u64,
}

/// Service that an agent of a core gave in the window that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) ns: u64,
    pub(crate) requests: u64,
}

/// The recorder of one core.
pub(crate) struct Recorder {
    pub(crate) second: SecondCounts,
    pub(crate) set: SeriesSet,
    pub(crate) open: OpenTable,
    pub(crate) attempts: Vec<u32>,
    pub(crate) completions: Vec<u32>,
    pub(crate) times: Vec<AgentNs>,
    /// By agent, of this window; `times` has it when the window has ended.
    served: Vec<Served>,
    /// By plant.
    pub(crate) planted: Vec<Planted>,
    pub(crate) slowed: Vec<Slowed>,
    limits_ns: [u64; LIMITS_MAX],
    /// Requests due at or after this instant are not sent: the run is over.
    pub(crate) end_ns: u64,
    /// Who is answered asks again at once, and nothing is due by the plan.
    pub(crate) closed_loop: bool,
    /// Where the time of this window's requests went.
    pub(crate) latency: Box<CoreLatency>,
    /// Whether it is asked for, and of requests that were due from when on.
    pub(crate) staging: bool,
    staged_from_ns: u64,
    /// Whether polls of single requests are counted, and of which late ones.
    pub(crate) counting: bool,
    thin: Thin,
    /// What a pair of calls of the allocator costs here, if it was measured.
    pub(crate) unit: Option<AllocatorUnit>,
    /// What reading the thread's counters costs here, ns.
    pub(crate) reading_ns: u64,
    legs: Arc<[Legs]>,
    shard: usize,
    /// For a supervisor that looks on; none in most runs.
    lane: Option<Lane>,
    /// How far each agent is, where agents are made anew; none otherwise.
    schedules: Vec<Schedule>,
}

/// What a recorder is made for.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) shard: usize,
    pub(crate) agents: usize,
    pub(crate) limits: Vec<u64>,
    /// Of all cores.
    pub(crate) legs: Arc<[Legs]>,
    /// Of this core, where somebody looks on.
    pub(crate) lane: Option<Lane>,
    /// Whether agents that fail are made anew.
    pub(crate) anew: bool,
}

impl Recorder {
    pub(crate) fn new(plan: &Plan, place: Place) -> Self {
        let mut limits_ns = [u64::MAX; LIMITS_MAX];
        for (slot, &limit) in limits_ns.iter_mut().zip(&place.limits) {
            *slot = limit;
        }
        let Place { shard, agents, legs, lane, anew, .. } = place;
        let on = plan.observe.on && BUILT;
        Self {
            second: SecondCounts::default(),
            set: empty_set(),
            open: OpenTable::new(
                agents.saturating_mul(plan.open_max as usize),
                (Arc::clone(&legs), shard),
                lane.clone(),
            ),
            attempts: vec![0; agents],
            completions: vec![0; agents],
            times: vec![AgentNs::default(); agents],
            served: vec![Served::default(); agents],
            planted: vec![Planted::default(); plan.plants.len()],
            slowed: vec![Slowed::default(); plan.slow.len()],
            limits_ns,
            end_ns: u64::MAX,
            closed_loop: false,
            latency: Box::new(CoreLatency::of(plan, shard, legs.len())),
            staging: on,
            staged_from_ns: 0,
            counting: on,
            thin: Thin::default(),
            unit: on.then(AllocatorUnit::measure),
            reading_ns: if on { reading_ns() } else { 0 },
            legs,
            shard,
            schedules: vec![Schedule::default(); if anew { agents } else { 0 }],
            lane,
        }
    }

    /// Keeps how far an agent is, for whoever takes its place.
    pub(crate) fn keep(&mut self, local: u32, schedule: Schedule) {
        if let Some(kept) = self.schedules.get_mut(local as usize) {
            *kept = schedule;
        }
    }

    /// How far an agent was.
    pub(crate) fn schedule(&self, local: u32) -> Schedule {
        self.schedules.get(local as usize).copied().unwrap_or_default()
    }

    /// An agent has ended with requests open: nobody is there to whom an answer could come home. Returns their timers.
    /// Looks at the whole table.
    pub(crate) fn lose(&mut self, local: u32, now_ns: u64) -> Vec<TimerId> {
        let lost = self.open.take_of(local);
        for open in &lost {
            self.came_to(open.intended_ns, Fate::Lost);
            self.closed(open.sent_ns, now_ns);
            self.judge_unanswered();
        }
        lost.into_iter().filter_map(|open| open.timer).collect()
    }

    /// A request of an agent of this core was due at `due_ns`.
    #[inline]
    pub(crate) fn due(&mut self, local: usize, due_ns: u64) {
        self.second.outcomes.attempts += 1;
        self.attempts[local] = self.attempts[local].saturating_add(1);
        if let Some(lane) = &self.lane {
            lane.due(due_ns);
        }
    }

    /// A request that was due at `due_ns` came to this: the one place where it does.
    #[inline]
    pub(crate) fn came_to(&mut self, due_ns: u64, fate: Fate) {
        let outcomes = &mut self.second.outcomes;
        let count = match fate {
            Fate::Ok => &mut outcomes.ok,
            Fate::Declined => &mut outcomes.declined,
            Fate::Cancelled => &mut outcomes.cancelled,
            Fate::Expired => &mut outcomes.expired,
            Fate::Refused => &mut outcomes.refused,
            Fate::Error => &mut outcomes.error,
            Fate::Lost => &mut outcomes.lost,
        };
        *count += 1;
        if let Some(lane) = &self.lane {
            lane.came_to(due_ns, fate);
        }
    }

    /// A message found the mailbox that it was for full.
    #[cold]
    pub(crate) fn found_full(&self) {
        if let Some(lane) = &self.lane {
            lane.mailbox_full();
        }
    }

    /// Counts a step of a request for Little's law.
    #[inline]
    pub(crate) fn step(&self, step: Step) {
        if !BUILT {
            return;
        }
        self.legs[self.shard].count(step);
    }

    /// Takes a step back that did not happen.
    pub(crate) fn no_step(&self, step: Step) {
        if !BUILT {
            return;
        }
        self.legs[self.shard].uncount(step);
    }

    /// An agent of this core has taken a request; whether its polls are to be counted.
    pub(crate) fn took(&mut self, stamps: &Stamps, leg: Leg, drawn: bool) -> bool {
        self.step(Step::Taken);
        self.record(Series::RequestPath, leg.turn_ns.saturating_sub(stamps.sent_ns));
        let age = leg.turn_ns.saturating_sub(stamps.intended_ns);
        BUILT && self.counting && (drawn || (self.latency.is_late(age) && self.thin.takes()))
    }

    /// An agent of this core has answered.
    pub(crate) fn answered(&mut self, agent: u32, stamps: &Stamps) {
        self.step(Step::Answered);
        record_timer(self, stamps);
        if BUILT && self.staging {
            let local = agent as usize / self.legs.len();
            if let Some(served) = self.served.get_mut(local) {
                served.ns += stamps.service_ns;
                served.requests += 1;
            }
        }
    }

    /// An answer to a request of this core has come, in its time or not.
    pub(crate) fn in_hand(&mut self, stamps: &Stamps) {
        if !BUILT {
            return;
        }
        self.step(Step::Closed);
        // Also while stages are off: the samples that this is compared with go on.
        self.latency.in_hand(stamps);
    }

    /// A request was dropped on this core, in the leg behind this step.
    fn dropped(&mut self, at: Step, stamps: &Stamps, now_ns: u64) {
        if BUILT {
            self.legs[self.shard].count_lost(at);
            self.latency.dropped(at as usize, stamps, now_ns);
        }
    }

    /// A request of this core got no answer in its time.
    pub(crate) fn expired(&mut self, asker: u32, open: &Open, now_ns: u64) {
        self.came_to(open.intended_ns, Fate::Expired);
        self.closed(open.sent_ns, now_ns);
        // The request waited this long and got nothing: its age is a lower bound of its latency, so it
        // enters the histograms at that age and counts as above every limit.
        let age = now_ns - open.intended_ns;
        self.record(Series::EndToEnd, age);
        self.system(open, age.saturating_sub(open.planned_ns));
        self.judge_unanswered();
        let stamps = Stamps {
            intended_ns: open.intended_ns,
            sent_ns: open.sent_ns,
            planned_ns: open.planned_ns,
            closed_ns: now_ns,
            ..Stamps::default()
        };
        let parties = Parties { asker, responder: open.responder };
        self.staged(parties, &stamps, open.drawn, None);
    }

    /// Adds a request whose system latency was recorded to the stages of the window.
    pub(crate) fn staged(
        &mut self,
        parties: Parties,
        stamps: &Stamps,
        drawn: Drawn,
        counts: Option<&PollCounts>,
    ) {
        if !BUILT {
            return;
        }
        if self.staging && stamps.intended_ns >= self.staged_from_ns {
            self.latency.closed(parties, stamps, drawn, counts);
        } else {
            self.latency.unstaged(stamps);
        }
    }

    /// A window ends. Its sums of service: the heaviest agents are its list, and all go on in the run's sums. One pass
    /// over the agents of this core, about 1 ns each.
    pub(crate) fn end_window(&mut self) {
        self.thin.restart();
        let (shards, shard) = (self.legs.len(), self.shard);
        let agent = |local: usize| u32::try_from(local * shards + shard).unwrap_or(u32::MAX);
        for (local, (times, served)) in self.times.iter_mut().zip(&mut self.served).enumerate() {
            if served.requests > 0 {
                times.service = times.service.saturating_add(served.ns);
                self.latency.served(agent(local), *served);
                *served = Served::default();
            }
        }
    }

    /// Sets how much is noted of requests that are due from `from_ns` on; `None` is nothing. Those before have
    /// been stamped in part only.
    pub(crate) fn set_detail(&mut self, detail: Option<Detail>, from_ns: u64) {
        self.staging = BUILT && detail.is_some();
        self.staged_from_ns = from_ns;
        self.counting = detail == Some(Detail::Full);
    }

    /// Records a system latency of an agent of this core.
    pub(crate) fn system(&mut self, open: &Open, system_ns: u64) {
        self.record(Series::System, system_ns);
        if let Some(lane) = &self.lane {
            lane.took(open.intended_ns, system_ns);
        }
        if BUILT && let Some(times) = self.times.get_mut(open.local as usize) {
            times.system = times.system.saturating_add(system_ns);
            times.worst = times.worst.max(system_ns);
        }
    }

    pub(crate) fn record(&mut self, series: Series, ns: u64) {
        self.set[series as usize].record(ns);
    }

    /// Counts a system latency against every limit.
    pub(crate) fn judge(&mut self, system_ns: u64) {
        self.second.judged += 1;
        for (over, limit) in self.second.over.iter_mut().zip(self.limits_ns) {
            *over += u64::from(system_ns >= limit);
        }
    }

    /// Counts a request that got no answer as above every limit.
    pub(crate) fn judge_unanswered(&mut self) {
        self.judge(u64::MAX);
    }

    /// Counts the close of a request that had been sent.
    pub(crate) fn closed(&mut self, sent_ns: u64, now_ns: u64) {
        self.second.closed += 1;
        self.second.closed_open_ns += now_ns.saturating_sub(sent_ns);
    }
}

thread_local! {
    static RECORDER: RefCell<Option<Box<Recorder>>> = const { RefCell::new(None) };
}

/// Gives this core its recorder.
pub(crate) fn install(recorder: Box<Recorder>) {
    RECORDER.with(|cell| *cell.borrow_mut() = Some(recorder));
}

/// A request was dropped on its way, in the leg behind this step. Where its core has no recorder any more, nothing happens;
/// nor where somebody drops it while he has the recorder in hand, which the conservation checks would find.
#[cold]
#[inline(never)]
pub(crate) fn dropped(at: Step, stamps: &Stamps) {
    let now_ns = clock::monotonic_ns();
    let recorder = |cell: &RefCell<Option<Box<Recorder>>>| {
        let mut recorder = cell.try_borrow_mut().ok()?;
        recorder.as_mut()?.dropped(at, stamps, now_ns);
        Some(())
    };
    let _counted = RECORDER.try_with(recorder).ok().flatten();
}

/// Runs `f` on this core's recorder; without one (outside a run) nothing happens.
pub(crate) fn with<R: Default>(f: impl FnOnce(&mut Recorder) -> R) -> R {
    RECORDER.with(|cell| cell.borrow_mut().as_mut().map_or_else(R::default, |r| f(r)))
}
