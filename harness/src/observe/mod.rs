//! What each core notes about itself: counters, time off the CPU, turns that kept it, and what noting costs.
//!
//! The runtime calls a [`CoreObserver`] on the shard's own thread. What it keeps stands in a thread-local, as
//! descriptors and rings belong to the thread that opened them; the controller takes a window's notes by a
//! job on that thread. A tick comes with a pass of the shard when its time has come: one comparison per pass
//! otherwise, and no thread of its own. Fixed room everywhere; what found none is counted.

mod longest;
mod notes;
mod sources;
mod spent;
mod tick;

use std::cell::{Cell, RefCell};

use tailbeam_probes::analyse::overhead::Detail;
use tailbeam_probes::clock;
use tailbeam_probes::collect::perf::Support;
use tailbeam_probes::record::latency::{LateWake, LongTurn};
use tailbeam_runtime::{AgentId, Observer, Queues};

pub(crate) use notes::Notes;
use notes::Parks;
pub(crate) use sources::Missing;
use sources::Sources;
use spent::{READING_NS, Spent};
use tick::{Meters, Raw};

use crate::plan::ObservePlan;

/// Whether this build observes anything at all.
pub(crate) const BUILT: bool = !cfg!(feature = "bare");

/// How a core is observed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) on: bool,
    pub(crate) tick_ns: u64,
    /// Ticks that a window may have; one more makes the last one longer.
    pub(crate) ticks: usize,
    /// Whether each switch is recorded.
    pub(crate) switches: bool,
}

impl Setup {
    /// As the plan wants it, in a run of this length.
    pub(crate) fn new(plan: &ObservePlan, duration_ns: u64) -> Self {
        let tick_ns = plan.tick_ns(duration_ns).max(1);
        // A window is closed with a second, which may come late.
        let ticks = (plan.window_ns() + 5_000_000_000) / tick_ns;
        let ticks = usize::try_from(ticks).unwrap_or(usize::MAX).clamp(16, 4_096);
        Self { on: plan.on && BUILT, tick_ns, ticks, switches: plan.switches }
    }

    /// Distance of ticks at this detail, ns; `None` without ticks.
    fn tick_at(&self, detail: Option<Detail>) -> Option<u64> {
        match detail? {
            Detail::Stages => None,
            Detail::Slow => Some(self.tick_ns.max(SLOW_TICK_NS)),
            Detail::Ticks | Detail::Full => Some(self.tick_ns),
        }
    }
}

/// Distance of ticks when they are to cost little, ns.
const SLOW_TICK_NS: u64 = 1_000_000_000;

/// The observer of a shard: what the runtime calls.
#[derive(Debug)]
pub(crate) struct CoreObserver {
    meters: Meters,
    /// No reading of the CPU time before this instant, ns.
    reading_ns: u64,
}

impl CoreObserver {
    pub(crate) const fn new(setup: Setup) -> Self {
        Self { meters: Meters::new(setup.tick_ns), reading_ns: 0 }
    }

    /// A round or a sleep ended. A busy shard has looked at its queues before; of one that has not, nothing
    /// waits. `turns`: the time since the shard was last seen is that of turns.
    #[inline]
    fn idle(&mut self, now_ns: u64, turns: bool) {
        if BUILT && self.meters.overdue(now_ns) {
            self.tick(now_ns, turns, 0);
        }
    }

    /// The last look may be many turns ago, and counters are read now: a tick ends when they are read.
    #[cold]
    fn tick(&mut self, looked_ns: u64, turns: bool, queued: u64) {
        let (meters, now_ns) = (&mut self.meters, clock::monotonic_ns().max(looked_ns));
        if turns {
            meters.turning(now_ns);
        }
        meters.skip(now_ns);
        with(|core| core.tick(meters, now_ns, queued));
    }
}

impl Observer for CoreObserver {
    fn turn(&mut self, now_ns: u64, polls: u32) {
        if BUILT {
            self.meters.turned(now_ns, polls);
            self.idle(now_ns, polls > 0);
        }
    }

    fn parked(&mut self, from_ns: u64, to_ns: u64) {
        if !BUILT {
            return;
        }
        self.meters.parked(from_ns, to_ns);
        with(|core| core.parked(from_ns, to_ns));
        self.idle(to_ns, false);
    }

    fn spun(&mut self, from_ns: u64, to_ns: u64) {
        self.meters.spun(from_ns, to_ns);
        self.idle(to_ns, false);
    }

    fn long_turn(&mut self, _: AgentId, from_ns: u64, len_ns: u64) {
        with(|core| core.long_turn(from_ns, len_ns));
    }

    fn look(&mut self, now_ns: u64, queues: &Queues<'_>) -> u64 {
        if now_ns >= self.reading_ns {
            with(|core| core.read_spent(now_ns));
            self.reading_ns = now_ns + READING_NS;
        }
        if self.meters.due(now_ns) {
            self.tick(now_ns, true, queues.ready());
        }
        self.reading_ns.min(self.meters.next_ns())
    }

    fn ended(&mut self) {
        close();
    }
}

/// What the thread of a shard keeps while it is observed.
#[derive(Debug)]
pub(crate) struct Core {
    sources: Sources,
    parks: Parks,
    notes: Box<Notes>,
    /// The last reading of the CPU time; none where switches are recorded.
    spent: Option<Spent>,
    /// The last sleep, ns.
    park: (u64, u64),
    /// The next tick ends an interval of which nothing is wanted.
    fresh: bool,
    tick_ns: u64,
}

thread_local! {
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
    /// What was noted before observing was switched off: it is still the window's.
    static KEPT: RefCell<Option<Box<Notes>>> = const { RefCell::new(None) };
    /// The agent that ran last, and when its turn began.
    static RUNNING: Cell<(u32, u64)> = const { Cell::new((u32::MAX, 0)) };
}

/// Runs `f` on what this thread keeps; nothing happens where it keeps nothing.
pub(crate) fn with<R: Default>(f: impl FnOnce(&mut Core) -> R) -> R {
    CORE.with(|cell| cell.borrow_mut().as_mut().map_or_else(R::default, f))
}

/// Says which agent of the workload a turn runs.
#[inline]
pub(crate) fn runs(agent: u32, turn_ns: u64) {
    if !BUILT {
        return;
    }
    RUNNING.set((agent, turn_ns));
}

/// Something was there for this core at `due_ns`, and it first saw it at `seen_ns`: if it slept meanwhile, it came
/// late.
#[inline]
pub(crate) fn seen(due_ns: u64, seen_ns: u64) {
    if due_ns != 0 && seen_ns >= due_ns.saturating_add(LATE_NS) {
        with(|core| core.came_late(due_ns));
    }
}

/// A park that ends this long after something was there is noted, ns: a wake-up takes up to 50 us.
const LATE_NS: u64 = 100_000;

/// Opens the sources of the calling thread, if it is to be observed. What it did not get it says.
pub(crate) fn open(setup: Setup) -> Vec<Missing> {
    if !setup.on {
        return Vec::new();
    }
    let (sources, missing) = Sources::open(setup.switches);
    let kept = KEPT.take();
    let (parks, notes) = (Parks::new(), kept.unwrap_or_else(|| Box::new(Notes::new(setup.ticks))));
    let read = || Spent::read(clock::monotonic_ns(), sources.schedstat());
    let spent = (!sources.has_ring()).then(read);
    let tick_ns = setup.tick_ns;
    let park = (0, 0);
    CORE.set(Some(Core { sources, parks, notes, spent, park, fresh: true, tick_ns }));
    missing
}

/// Sets how much this thread notes: opens its sources or closes them, and how often it reads them. What it
/// did not get it says.
pub(crate) fn set_detail(detail: Option<Detail>, setup: Setup) -> Vec<Missing> {
    let Some(tick_ns) = setup.tick_at(detail) else {
        if let Some(core) = CORE.take() {
            KEPT.set(Some(core.notes));
        }
        return Vec::new();
    };
    let is_open = with(|core| {
        core.tick_ns = tick_ns;
        true
    });
    if is_open { Vec::new() } else { open(Setup { tick_ns, ..setup }) }
}

/// Closes them: descriptors are closed and rings unmapped when it returns.
pub(crate) fn close() {
    drop((CORE.take(), KEPT.take()));
}

/// Hands over the notes of a window for empty ones, whether they go on or not.
pub(crate) fn take(empty: Box<Notes>) -> Box<Notes> {
    let mut empty = Some(empty);
    if let Some(full) = with(|core| empty.take().map(|empty| core.take(empty))) {
        return full;
    }
    // Switched off meanwhile, or never on: then nothing was noted.
    let mut empty = empty.unwrap_or_else(|| Box::new(Notes::new(1)));
    empty.clear();
    match KEPT.take() {
        Some(full) => {
            KEPT.set(Some(empty));
            full
        }
        None => empty,
    }
}

impl Core {
    /// Reads everything and keeps what came since the last tick. `began_ns` is this instant.
    fn tick(&mut self, meters: &mut Meters, began_ns: u64, queued: u64) {
        // The CPU time does not go on while the core is taken, so the tick ends behind it and before the scheduler's
        // counts: when it is taken between the two, all sides have it. What emptying the ring takes is the next tick's.
        let counters = self.sources.counters(began_ns);
        let now_ns = clock::monotonic_ns().max(began_ns);
        meters.cost(now_ns - began_ns, now_ns);
        let schedule = self.sources.schedule();
        let switched = self.drain(now_ns);
        let raw = Raw {
            counters,
            schedule,
            switched: switched.then(|| self.parks.take()),
            queued,
            ..meters.take(now_ns)
        };
        if !std::mem::take(&mut self.fresh) {
            self.notes.keep(raw);
        }
        meters.set_tick_ns(self.tick_ns);
        let ended_ns = clock::monotonic_ns().max(now_ns);
        meters.cost(ended_ns - now_ns, ended_ns);
        self.notes.cost(ended_ns - began_ns);
    }

    /// Notes a sleep, and empties the ring of switches before sleeps fill it.
    fn parked(&mut self, from_ns: u64, to_ns: u64) {
        self.park = (from_ns, to_ns);
        self.read_spent(to_ns);
        if self.parks.parked(from_ns, to_ns) {
            let began = clock::monotonic_ns();
            self.drain(u64::MAX);
            self.notes.cost(clock::monotonic_ns().saturating_sub(began));
        }
    }

    /// Empties the ring of switches into the notes; whether there is one. What began at `now_ns` or later is of the next
    /// tick.
    fn drain(&mut self, now_ns: u64) -> bool {
        let (parks, notes) = (&mut self.parks, &mut self.notes);
        let lost = self.sources.drain(|off| parks.off(&off, now_ns, notes));
        self.parks.drained(lost.unwrap_or(0));
        lost.is_some()
    }

    /// Notes a turn that kept the core.
    fn long_turn(&mut self, from_ns: u64, len_ns: u64) {
        // A turn of something else than an agent of the workload leaves the one before in its place.
        let (agent, turn_ns) = RUNNING.get();
        let agent = if turn_ns >= from_ns { agent } else { u32::MAX };
        let off = self.spent.as_mut().and_then(|spent| {
            let after = Spent::read(from_ns.saturating_add(len_ns), self.sources.schedstat());
            self.notes.reads_turns();
            std::mem::replace(spent, after).turn(&after, from_ns, len_ns)
        });
        self.notes.long_turn(LongTurn { agent, from_ns, len_ns }, off);
    }

    #[cold]
    fn came_late(&mut self, due_ns: u64) {
        let (from_ns, to_ns) = self.park;
        if from_ns <= due_ns && due_ns.saturating_add(LATE_NS) <= to_ns {
            let ready_ns = self.sources.waited().map(|ns| ns.min(to_ns - due_ns));
            self.notes.late_wake(LateWake { from_ns: due_ns, to_ns, ready_ns });
        }
    }

    /// Reads how much CPU time the thread has had, if that is how turns are known and it is time.
    fn read_spent(&mut self, now_ns: u64) {
        let schedstat = self.sources.schedstat();
        if let Some(spent) = self.spent.as_mut().filter(|spent| spent.is_old(now_ns)) {
            *spent = Spent::read(now_ns, schedstat);
        }
    }

    /// Hands over the notes of a window for empty ones.
    fn take(&mut self, mut empty: Box<Notes>) -> Box<Notes> {
        empty.clear();
        std::mem::replace(&mut self.notes, empty)
    }

    /// Forgets what was noted: a run begins.
    pub(crate) fn restart(&mut self) {
        self.notes.clear();
        self.sources.restart();
        self.fresh = true;
    }

    /// What is counted.
    pub(crate) fn support(&self) -> &Support {
        self.sources.support()
    }
}

#[cfg(test)]
mod tests;
