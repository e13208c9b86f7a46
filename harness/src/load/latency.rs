//! Where the time of one core's requests went, for the window that runs: fixed room, filled on the core.

use tailbeam_probes::analyse::latency::{
    Heavy, Reservoir, SpaceSaving, StageTable, TopSlow, stages, system_ns,
};
use tailbeam_probes::record::latency::{
    Exemplar, LatencyWindow, LegSum, PollCounts, ResponderSums, Stamps, TopAgent, Why,
};

use super::draw::{Draw, Stream};
use super::recorder::Served;
use crate::plan::{Plan, TOP};

/// Agents of a top list.
pub(crate) const LIST: usize = 32;
/// By how much the stamps of a request may be out of order, ns: turns are stamped within 0.2 us of the clock that
/// sending and answering read, on each of two cores.
pub(crate) const BOUND_NS: u64 = 1_000;
/// Requests drawn per core and window, for each one that is kept: so that the lists fill although the rate
/// varies.
const DRAWN_PER_KEPT: f64 = 2.0;
/// One request in so many is drawn at least; counting the polls of one takes about 2 us.
const DRAW_EVERY_MAX: u64 = 1_024;

/// How requests are drawn, each with the same chance and before anything is known of it: for their stages, and some of
/// these to be written down whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draws {
    /// Numbers that are drawn from: the first is a request that is written down whole.
    numbers: u64,
    /// So many of the first are requests that have stages.
    staged: u64,
}

/// What a request was drawn for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// Its stages are noted.
    pub(crate) staged: bool,
    /// It is written down whole.
    pub(crate) whole: bool,
}

/// How they are drawn in a run of this plan on so many shards.
#[must_use]
pub(crate) fn draws(plan: &Plan, shards: usize) -> Draws {
    let per_core_s = plan.rate_per_s() / shards.max(1) as f64;
    let requests = per_core_s * plan.observe.window_ns() as f64 / 1e9;
    let wanted = plan.observe.exemplars(plan.duration_ns) as f64 * DRAWN_PER_KEPT;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let every = (requests / wanted.max(1.0)) as u64;
    let staged_every = plan.observe.staged_every(per_core_s);
    let numbers = every.clamp(1, DRAW_EVERY_MAX).next_multiple_of(staged_every);
    Draws { numbers, staged: numbers / staged_every }
}

impl Draws {
    /// What request `k` of an agent is drawn for.
    pub(crate) const fn of(self, draw: Draw, k: u64) -> Drawn {
        let number = draw.below(k, Stream::Sample, self.numbers);
        Drawn { staged: number < self.staged, whole: number == 0 }
    }

    /// One request in so many has stages.
    pub(crate) const fn staged_every(self) -> u64 {
        self.numbers / self.staged
    }
}

/// Who took part in a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parties {
    pub(crate) asker: u32,
    pub(crate) responder: u32,
}

/// What is kept of a window.
#[derive(Debug)]
pub(crate) struct CoreLatency {
    shard: u16,
    /// One request in so many is in the tables.
    staged_every: u64,
    table: StageTable,
    /// By shard.
    responders: Vec<ResponderSums>,
    uniform: Reservoir<Exemplar>,
    late: Reservoir<Exemplar>,
    top: TopSlow<Exemplar>,
    /// The heaviest agents of the window, the lightest first; filled when it ends.
    service: Vec<TopAgent>,
    late_by: SpaceSaving<u32>,
    full: SpaceSaving<u32>,
    clamped: u64,
    disordered: u64,
    late_ns: Option<u64>,
    legs: [LegSum; 3],
    legs_unknown: LegSum,
    unstaged: LegSum,
    undrawn: LegSum,
}

impl CoreLatency {
    /// Of one shard of so many, as the plan wants it.
    pub(crate) fn of(plan: &Plan, shard: usize, shards: usize) -> Self {
        let exemplars = plan.observe.exemplars(plan.duration_ns);
        let staged_every = draws(plan, shards).staged_every();
        Self { staged_every, ..Self::new(shard, shards, exemplars, plan.seed) }
    }

    /// Of one shard of so many, with room for so many exemplars of each kind.
    fn new(shard: usize, shards: usize, exemplars: usize, seed: u64) -> Self {
        let number = |shard: usize| u16::try_from(shard).unwrap_or(u16::MAX);
        let sums = |shard| ResponderSums { shard: number(shard), ..ResponderSums::default() };
        let seed = seed ^ (shard as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            shard: number(shard),
            staged_every: 1,
            table: StageTable::new(),
            responders: (0..shards).map(sums).collect(),
            uniform: Reservoir::new(exemplars, seed),
            late: Reservoir::new(exemplars, !seed),
            top: TopSlow::new(TOP),
            service: Vec::with_capacity(LIST + 1),
            late_by: SpaceSaving::new(LIST),
            full: SpaceSaving::new(LIST),
            clamped: 0,
            disordered: 0,
            late_ns: None,
            legs: [LegSum::default(); 3],
            legs_unknown: LegSum::default(),
            unstaged: LegSum::default(),
            undrawn: LegSum::default(),
        }
    }

    /// Whether a request is late already.
    pub(crate) fn is_late(&self, age_ns: u64) -> bool {
        self.late_ns.is_some_and(|late| age_ns > late)
    }

    /// Empties it for a window in which what takes longer than `late_ns` is late.
    pub(crate) fn restart(&mut self, late_ns: Option<u64>) {
        self.table.clear();
        for sums in &mut self.responders {
            *sums = ResponderSums { shard: sums.shard, ..ResponderSums::default() };
        }
        self.uniform.clear();
        self.late.clear();
        self.top.clear();
        self.service.clear();
        self.late_by.clear();
        self.full.clear();
        (self.clamped, self.disordered, self.late_ns) = (0, 0, late_ns);
        self.legs = [LegSum::default(); 3];
        (self.legs_unknown, self.unstaged) = (LegSum::default(), LegSum::default());
        self.undrawn = LegSum::default();
    }

    /// What takes longer is late, ns.
    pub(crate) const fn late_ns(&self) -> Option<u64> {
        self.late_ns
    }

    /// What comes from here on is late beyond this.
    pub(crate) const fn set_late_ns(&mut self, late_ns: Option<u64>) {
        self.late_ns = late_ns;
    }

    /// An agent of this core has given so much service in the window.
    pub(crate) fn served(&mut self, agent: u32, of: Served) {
        let full = self.service.len() >= LIST;
        if full && self.service.first().is_some_and(|least| of.ns <= least.weight) {
            return;
        }
        let place = self.service.partition_point(|other| other.weight < of.ns);
        let row = TopAgent { agent, weight: of.ns, error: 0, count: of.requests };
        self.service.insert(place, row);
        if full {
            self.service.remove(0);
        }
    }

    /// A request of this core found the mailbox of this agent full.
    pub(crate) fn found_full(&mut self, agent: u32) {
        self.full.add(agent, 1);
    }

    /// An answer to a request of this core has come, in its time or not.
    pub(crate) fn in_hand(&mut self, stamps: &Stamps) {
        let ends = [stamps.sent_ns, stamps.out.turn_ns, stamps.answered_ns, stamps.back.turn_ns];
        for (leg, ends) in self.legs.iter_mut().zip(ends.windows(2)) {
            add(leg, ends[1].saturating_sub(ends[0]));
        }
    }

    /// A request was dropped on this core, in the leg with this number: so long it was in that and in those before.
    pub(crate) fn dropped(&mut self, last: usize, stamps: &Stamps, now_ns: u64) {
        let ends = [stamps.sent_ns, stamps.out.turn_ns, stamps.answered_ns, now_ns];
        for (at, leg) in self.legs.iter_mut().enumerate().take(last + 1) {
            let to_ns = if at == last { now_ns } else { ends[at + 1] };
            // One without a stamp has not been there.
            if ends[at] > 0 && to_ns > 0 {
                add(leg, to_ns.saturating_sub(ends[at]));
            }
        }
    }

    /// A request of this core was withdrawn, this long after it was sent: how long it was in each leg is not
    /// known.
    pub(crate) fn withdrawn(&mut self, ns: u64) {
        add(&mut self.legs_unknown, ns);
    }

    /// A request of this core is closed while stages are switched off.
    pub(crate) fn unstaged(&mut self, stamps: &Stamps) {
        self.unanswered(stamps);
        add(&mut self.unstaged, system_ns(stamps));
    }

    /// How long one without an answer was in each leg is not known.
    fn unanswered(&mut self, stamps: &Stamps) {
        if stamps.answered_ns == 0 {
            add(&mut self.legs_unknown, stamps.closed_ns.saturating_sub(stamps.sent_ns));
        }
    }

    /// A request of this core is closed; its answer may never have come.
    pub(crate) fn closed(
        &mut self,
        parties: Parties,
        stamps: &Stamps,
        drawn: Drawn,
        counts: Option<&PollCounts>,
    ) {
        let system = system_ns(stamps);
        self.unanswered(stamps);
        let late = self.is_late(system);
        if late {
            self.late_by.add(parties.responder, system);
        }
        if drawn.staged {
            self.stage(parties, stamps, system, late);
        } else {
            add(&mut self.undrawn, system);
        }
        if drawn.whole || late || self.top.wants(system) {
            self.keep(parties, stamps, (system, late, drawn.whole), counts);
        }
    }

    /// Notes its stages.
    fn stage(&mut self, parties: Parties, stamps: &Stamps, system: u64, late: bool) {
        let staged = stages(stamps, BOUND_NS);
        self.clamped += u64::from(staged.clamped);
        if staged.disordered.is_some() {
            self.disordered += 1;
            return;
        }
        self.table.add(system, &staged.stages);
        let shard = parties.responder as usize % self.responders.len();
        let sums = &mut self.responders[shard];
        sums.all.add(system, &staged.stages);
        if late {
            sums.late.add(system, &staged.stages);
        }
    }

    /// Writes it down whole, if there is room.
    fn keep(
        &mut self,
        parties: Parties,
        stamps: &Stamps,
        (system, late, drawn): (u64, bool, bool),
        counts: Option<&PollCounts>,
    ) {
        let shards = u32::try_from(self.responders.len()).unwrap_or(u32::MAX).max(1);
        let exemplar = |why| Exemplar {
            why,
            asker: parties.asker,
            responder: parties.responder,
            asker_shard: self.shard,
            responder_shard: u16::try_from(parties.responder % shards).unwrap_or(u16::MAX),
            stamps: *stamps,
            counts: counts.copied(),
        };
        if drawn {
            self.uniform.offer(|| exemplar(Why::Uniform));
        }
        if late {
            self.late.offer(|| exemplar(Why::Late));
        }
        self.top.offer(system, || exemplar(Why::Top));
    }

    /// Writes it down. Allocates: not on the core.
    pub(crate) fn write(&self, into: &mut LatencyWindow) {
        into.shard = self.shard;
        into.buckets = self.table.held().collect();
        into.responders =
            self.responders.iter().filter(|sums| sums.all.count > 0).copied().collect();
        into.late_ns = self.late_ns;
        (into.clamped, into.disordered) = (self.clamped, self.disordered);
        let top = self.top.kept().iter().map(|(_, exemplar)| *exemplar);
        let drawn = self.uniform.kept().iter().chain(self.late.kept()).copied();
        into.exemplars = drawn.chain(top).collect();
        into.late_left_out = self.late.left_out();
        into.top_service = self.service.iter().rev().copied().collect();
        into.top_late = list(&self.late_by);
        into.more.top_full = list(&self.full);
        into.more.staged_every = u32::try_from(self.staged_every).unwrap_or(u32::MAX);
        into.more.undrawn = self.undrawn;
        (into.legs, into.legs_unknown, into.unstaged) =
            (self.legs, self.legs_unknown, self.unstaged);
    }
}

fn add(sum: &mut LegSum, ns: u64) {
    sum.count += 1;
    sum.ns = sum.ns.saturating_add(ns);
}

fn list(list: &SpaceSaving<u32>) -> Vec<TopAgent> {
    let agent = |heavy: Heavy<u32>| TopAgent {
        agent: heavy.key,
        weight: heavy.weight,
        error: heavy.error,
        count: heavy.count,
    };
    list.heaviest().into_iter().map(agent).collect()
}
