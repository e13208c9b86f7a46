//! One shard of a simulation: the real shard and its rounds, and where in its loop it is.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::kernel::Broken;
use super::ring::SimRing;
use super::trace::What;
use crate::clock::ManualClock;
use crate::ring::{Doorbells, Event};
use crate::shard::Shard;
use crate::shard::idle::{Idle, Idling};
use crate::shard::run::{Rounds, ShardReport, Step};
use crate::shard::shared::Shared;

/// Where in `run::run` the shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Before a round.
    Awake,
    /// Between a round that found nothing left to do, and the look before it sleeps.
    Idle,
    /// In the wait of its ring, until this instant of the simulation at most.
    Asleep(Option<u64>),
    /// In a wait at its end: for its peers, or for its operations.
    Waits(u64),
    Ended(ShardReport),
}

/// What only a living shard has.
struct Live {
    shard: Rc<Shard>,
    rounds: Rounds,
    ring: SimRing,
}

pub(super) struct Seat {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Rc<ManualClock>,
    pub(super) state: State,
    /// The core is away until then.
    pub(super) stalled_until_ns: u64,
    live: Option<Live>,
}

impl Seat {
    pub(super) fn new(shard: Rc<Shard>, ring: SimRing, clock: Rc<ManualClock>) -> Self {
        let shared = Arc::clone(&shard.peers[shard.index]);
        shared.set_ring(ring.fd());
        let rounds = Rounds::new(&shard, Idling::new(Idle::Park, None));
        let live = Some(Live { shard, rounds, ring });
        Self { shared, clock, state: State::Awake, stalled_until_ns: 0, live }
    }

    pub(super) fn shard(&self) -> Option<&Rc<Shard>> {
        self.live.as_ref().map(|live| &live.shard)
    }

    pub(super) const fn report(&self) -> Option<ShardReport> {
        match self.state {
            State::Ended(report) => Some(report),
            _ => None,
        }
    }

    fn note(&self) -> Option<&AtomicBool> {
        match self.shared.event() {
            Event::Note(noted) => Some(noted),
            Event::Fd(_) => None,
        }
    }

    /// Whether it can go on now: it does not wait, or its wait would return.
    pub(super) fn is_woken(&self, now_ns: u64, has_completions: bool) -> bool {
        let until_ns = match self.state {
            State::Asleep(until_ns) => until_ns,
            State::Waits(until_ns) => Some(until_ns),
            _ => return true,
        };
        until_ns.is_some_and(|until_ns| until_ns <= now_ns) || self.is_called(has_completions)
    }

    /// Whether something has come that makes a wait return.
    pub(super) fn is_called(&self, has_completions: bool) -> bool {
        has_completions
            || self.note().is_some_and(|noted| noted.load(Ordering::Acquire))
            || self.live.as_ref().is_some_and(|live| live.ring.has_news())
    }

    /// When it can go on with what has come so far; `None` when it cannot.
    pub(super) fn next_ns(&self, now_ns: u64, has_completions: bool) -> Option<u64> {
        let until_ns = match self.state {
            State::Asleep(_) | State::Waits(_) if self.is_called(has_completions) => now_ns,
            State::Awake | State::Idle => now_ns,
            State::Asleep(until_ns) => until_ns?,
            State::Waits(until_ns) => until_ns,
            State::Ended(_) => return None,
        };
        Some(until_ns.max(self.stalled_until_ns))
    }

    pub(super) fn holds_bells(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.ring.bells().next().is_some())
    }

    pub(super) fn holds_bell_for(&self, shard: usize) -> bool {
        self.live.as_ref().is_some_and(|live| live.ring.bells().any(|to| to == shard))
    }

    /// Whether it sleeps although it has work, or completions that it has looked at and not taken.
    pub(super) fn sleeps_on_work(&self) -> bool {
        let works = |live: &Live| live.shard.has_work() || live.ring.has_completed();
        matches!(self.state, State::Asleep(_)) && self.live.as_ref().is_some_and(works)
    }

    /// Whether the kernel has operations of it.
    pub(super) fn has_operations(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.ring.kernel().is_idle())
    }

    /// When the next of them is tried; `None` when all wait.
    pub(super) fn next_op_ns(&self) -> Option<u64> {
        self.live.as_ref()?.ring.kernel().next_ns()
    }

    /// Looks which of them have become ready; whether any has.
    pub(super) fn look(&mut self, at_rest: bool) -> bool {
        self.live.as_mut().is_some_and(|live| live.ring.look(at_rest))
    }

    /// Tries the one that is due next; what came of it.
    pub(super) fn serve(&mut self) -> Result<Option<What>, Broken> {
        let Some(live) = &mut self.live else { return Ok(None) };
        live.shard.ops.with(|table| live.ring.serve(table))
    }

    /// Takes the shard on by one move. A wait that begins oversleeps by `late_ns`.
    pub(super) fn go_on(&mut self, now_ns: u64, late_ns: u64) -> What {
        if matches!(self.state, State::Asleep(_) | State::Waits(_)) {
            // The wait returns, and has looked at its completions.
            self.note().into_iter().for_each(|noted| noted.store(false, Ordering::Release));
        }
        let Some(live) = &mut self.live else { return What::Ended };
        if matches!(self.state, State::Asleep(_) | State::Waits(_)) {
            live.ring.reap();
        }
        live.shard.enter();
        let (state, what) = match self.state {
            State::Awake => live.round(now_ns),
            State::Idle => match live.rounds.before_sleep(&mut live.ring) {
                None => (State::Awake, What::Stayed),
                Some(wait_ns) => {
                    live.ring.wait(wait_ns);
                    let until = |ns: u64| now_ns.saturating_add(ns).saturating_add(late_ns);
                    (State::Asleep(wait_ns.map(until)), What::Slept)
                }
            },
            State::Asleep(_) => {
                live.rounds.after_sleep(&mut live.ring);
                (State::Awake, What::Woke)
            }
            State::Waits(_) => (State::Awake, What::Waited),
            State::Ended(report) => (State::Ended(report), What::Ended),
        };
        self.state = state;
        if matches!(state, State::Ended(_)) {
            self.end();
        }
        Shard::leave();
        what
    }

    /// What a thread does when its shard has ended.
    fn end(&mut self) {
        Shard::leave();
        self.live = None;
        self.shared.ending.end();
    }
}

impl Live {
    fn round(&mut self, now_ns: u64) -> (State, What) {
        let step = self.rounds.step(&mut self.ring);
        let round = What::Round(self.rounds.turns().into());
        match step {
            Step::Busy => (State::Awake, round),
            Step::Idle => (State::Idle, round),
            Step::Waits(wait_ns) => {
                self.ring.wait(Some(wait_ns));
                (State::Waits(now_ns.saturating_add(wait_ns)), round)
            }
            Step::Ended(report) => (State::Ended(report), What::Ended),
        }
    }
}
