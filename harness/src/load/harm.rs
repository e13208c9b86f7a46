//! Harm that a supervisor does to the agents of a run through its board: handlers that panic, agents that stop reading
//! and are asked by all, all of them asking at once, boxes of requests that there is no memory for.
//!
//! Agents of a run with a board are children of supervisors (`drive/spawn.rs`): one whose handler panics is made anew
//! in its place, with its address and the messages that wait for it. The recorder of its core knows how far it was in
//! its schedule ([`Schedule`]), so the load goes on; requests that it had open have nobody to come home to, and are
//! lost. What it held as a responder is dropped with it, and expires at those who asked.
//!
//! A run without a board has no [`Harm`], and pays a test of an option per request that is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tailbeam_probes::collect::heap::shortage::{self, try_box};
use tailbeam_runtime::Cx;

use super::draw::{Draw, Stream};
use super::recorder;
use crate::chaos::board::{Board, Defence, Knob};

/// Seed of the draw of those that stop reading: the same ones in each run.
const SLOW: u64 = 0x510;
/// An agent that does not read looks this often whether it may again, ns.
const LOOK_NS: u64 = 20_000_000;

/// Objects that a refused request keeps when nobody cleans up after it.
const KEPT: u64 = 16;

/// Where an agent is in its schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// When its next request is due, ns.
    pub(crate) next_ns: u64,
    /// The number of that.
    pub(crate) k: u32,
    /// It went by itself, with no request open.
    pub(crate) left: bool,
}

/// What a core has seen of the knobs; written by that core only.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Core {
    panic_level: AtomicU64,
    /// How often the panic of this core was switched on.
    panics: AtomicU64,
    served: AtomicU64,
}

/// The knobs of a board that agents look at.
#[derive(Debug)]
pub(crate) struct Harm {
    board: Arc<Board>,
    cores: Box<[Core]>,
    /// The agents, those first that stop reading first; and the place of each in that order.
    slowest: Box<[u32]>,
    places: Box<[u32]>,
}

/// The payload of a planted panic; it is raised without the hook that would print it.
struct Poison;

impl Harm {
    pub(crate) fn new(board: Arc<Board>, cores: usize, agents: u32) -> Self {
        let mut slowest: Box<[u32]> = (0..agents).collect();
        slowest.sort_by_cached_key(|&agent| {
            (Draw::new(SLOW, u64::from(agent)).bits(0, Stream::Content), agent)
        });
        let mut places = vec![0; slowest.len()].into_boxed_slice();
        for (place, &agent) in (0..).zip(&slowest) {
            places[agent as usize] = place;
        }
        Self { board, cores: (0..cores).map(|_| Core::default()).collect(), slowest, places }
    }

    /// How often the panic of a core was switched on so far; an agent falls once each time.
    fn panics(&self, at: usize) -> u64 {
        let Some(core) = self.cores.get(at) else { return 0 };
        let level = self.board.level(Knob::CorePanic);
        let mine = at as u64 + 1;
        if core.panic_level.load(Relaxed) != level {
            core.panic_level.store(level, Relaxed);
            // Plain stores: no other core writes here.
            core.panics.store(core.panics.load(Relaxed) + u64::from(level == mine), Relaxed);
        }
        core.panics.load(Relaxed)
    }

    /// The core of an agent.
    fn core_of(&self, agent: u32) -> usize {
        agent as usize % self.cores.len()
    }

    /// How many panics of its core an agent that is made now has behind it.
    pub(crate) fn behind(&self, agent: u32) -> u64 {
        self.panics(self.core_of(agent))
    }

    /// Panics if this agent's handler is to: that of every agent once while [`Knob::CorePanic`] names its core, and of
    /// one request in [`Knob::PollPanicEvery`]. `behind`: the panics that the agent has behind it.
    pub(crate) fn strike(&self, agent: u32, behind: u64) {
        let core = self.core_of(agent);
        if self.panics(core) > behind && self.board.level(Knob::CorePanic) == core as u64 + 1 {
            self.poison(Knob::CorePanic);
        }
        let every = self.board.level(Knob::PollPanicEvery);
        if every > 0
            && let Some(own) = self.cores.get(core)
        {
            let served = own.served.load(Relaxed) + 1;
            own.served.store(served, Relaxed);
            if served.is_multiple_of(every) {
                self.poison(Knob::PollPanicEvery);
            }
        }
    }

    /// A box for a request, which is asked for in a way that may be refused. One in [`Knob::AllocFailEvery`] is, by the
    /// allocator.
    pub(crate) fn boxed<T>(harm: Option<&Self>, make: impl FnOnce() -> T) -> Option<Box<T>> {
        let every = harm.map_or(0, |harm| harm.board.level(Knob::AllocFailEvery));
        let Some(harm) = harm.filter(|_| every > 0) else { return try_box(make) };
        let short = shortage::scope(u32::try_from(every).unwrap_or(u32::MAX));
        let made = try_box(make);
        harm.board.bite_n(Knob::AllocFailEvery, short.refused());
        drop(short);
        if made.is_none() && harm.board.is_off(Defence::Cleanup) {
            // Hidden from the compiler, which takes away what nobody looks at.
            (0..KEPT).for_each(|n| std::mem::forget(std::hint::black_box(Box::new(n))));
        }
        made
    }

    fn poison(&self, knob: Knob) -> ! {
        self.board.bite(knob);
        std::panic::resume_unwind(Box::new(Poison));
    }

    /// How many agents have stopped reading: of a share above nothing at least one.
    fn silent(&self) -> usize {
        let permille = self.board.level(Knob::SlowConsumerPermille).min(1_000);
        let all = self.slowest.len() as u64;
        usize::try_from((all * permille).div_ceil(1_000)).unwrap_or(0)
    }

    /// The agents that have stopped reading.
    pub(crate) fn not_reading(&self) -> &[u32] {
        &self.slowest[..self.silent()]
    }

    /// Whether an agent is among those that have stopped reading.
    pub(crate) fn stops_reading(&self, agent: u32) -> bool {
        let place = self.places.get(agent as usize);
        place.is_some_and(|&place| (place as usize) < self.silent())
    }

    /// Whom request `k` of an agent is for, while [`Knob::Crowd`] has every second one go to few that do not read.
    pub(crate) fn crowded(&self, agent: u32, k: u32) -> Option<u32> {
        let crowd = self.board.level(Knob::Crowd);
        if crowd == 0 || !k.is_multiple_of(2) {
            return None;
        }
        let them = self.not_reading();
        let them = &them[..them.len().min(usize::try_from(crowd).unwrap_or(usize::MAX))];
        // Neighbours ask different ones, and each asks all of them in turn.
        let at = (agent as usize + k as usize / 2).checked_rem(them.len())?;
        let whom = them[at];
        if whom == agent {
            return None;
        }
        self.board.bite(Knob::Crowd);
        Some(whom)
    }

    /// Waits until an agent may read again. What is meant for it meanwhile fills its mailbox.
    pub(crate) async fn hold(&self, agent: u32, cx: &mut Cx<'_>) {
        let mut bitten = false;
        while self.stops_reading(agent) {
            if !std::mem::replace(&mut bitten, true) {
                self.board.bite(Knob::SlowConsumerPermille);
            }
            let at_ns = cx.fresh_ns() + LOOK_NS;
            // Without room for a timer it reads on, and that is counted.
            if cx.sleep_until(at_ns).await.is_err() {
                recorder::with(|r| r.second.generator_exhausted += 1);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::chaos::board::Shape;

    fn harm() -> (Arc<Board>, Harm) {
        let shape = Shape { cores: 1, slots: 1, slot_ns: 1, from_ns: 0 };
        let board = Arc::new(Board::create(shape, &[0; 32]).unwrap());
        (Arc::clone(&board), Harm::new(board, 2, 10_000))
    }

    fn falls(harm: &Harm, agent: u32, behind: u64) -> bool {
        catch_unwind(AssertUnwindSafe(|| harm.strike(agent, behind))).is_err()
    }

    #[test]
    fn each_agent_of_the_named_core_falls_once_each_time_that_it_is_named() {
        let (board, harm) = harm();
        let first = harm.behind(1);
        assert!(!falls(&harm, 1, first));
        board.set(Knob::CorePanic, 2);
        assert!(falls(&harm, 1, first) && falls(&harm, 3, first), "each agent of core 1");
        let second = harm.behind(1);
        assert!(!falls(&harm, 1, second), "in its second life");
        assert!(!falls(&harm, 0, 0) && !falls(&harm, 4, 0), "another core");
        board.set(Knob::CorePanic, 0);
        assert!(!falls(&harm, 1, first), "it is over");
        board.set(Knob::CorePanic, 2);
        assert!(falls(&harm, 1, second));
        assert_eq!(board.bites(Knob::CorePanic), 3);
    }

    #[test]
    fn one_request_in_so_many_is_poison() {
        let (board, harm) = harm();
        board.set(Knob::PollPanicEvery, 4);
        let fallen = (0..40).filter(|_| falls(&harm, 0, 0)).count();
        board.set(Knob::PollPanicEvery, 0);
        assert!((0..40).all(|_| !falls(&harm, 0, 0)));
        assert_eq!((fallen, board.bites(Knob::PollPanicEvery)), (10, 10));
    }

    #[test]
    fn a_share_of_the_agents_stops_reading() {
        let (board, harm) = harm();
        let count = || (0..10_000).filter(|&agent| harm.stops_reading(agent)).count();
        for (permille, silent) in [(0, 0), (1, 10), (100, 1_000), (1_000, 10_000), (9_000, 10_000)]
        {
            board.set(Knob::SlowConsumerPermille, permille);
            assert_eq!((count(), harm.not_reading().len()), (silent, silent));
        }
        let few = Harm::new(Arc::clone(&board), 2, 20);
        board.set(Knob::SlowConsumerPermille, 1);
        assert_eq!(few.not_reading().len(), 1, "of 20 one, and not none");
    }

    #[test]
    fn every_second_request_is_for_one_of_a_few_that_do_not_read() {
        let (board, harm) = harm();
        let asked = || -> Vec<u32> {
            (0..100)
                .flat_map(|agent| (0..10).map(move |k| (agent, k)))
                .filter_map(|(agent, k)| harm.crowded(agent, k))
                .collect()
        };
        board.set(Knob::Crowd, 3);
        assert!(asked().is_empty(), "nobody stops reading");
        board.set(Knob::SlowConsumerPermille, 10);
        let found = asked();
        assert!((490..=500).contains(&found.len()), "{}", found.len());
        let them = &harm.not_reading()[..3];
        for one in them {
            assert!(found.iter().filter(|&asked| asked == one).count() > 150, "{one}");
        }
        assert!(found.iter().all(|asked| them.contains(asked)));
        assert_eq!(board.bites(Knob::Crowd), found.len() as u64);
        board.set(Knob::Crowd, 0);
        assert!(asked().is_empty());
    }
}
