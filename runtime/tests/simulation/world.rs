//! The model: what the program has done, and what must come of it. One per thread, because a simulation is
//! one thread; agents reach it from their handlers and drops.
//!
//! A violation is kept and not raised: a panic in a handler would be caught as the agent's.

use std::cell::RefCell;
use std::task::Waker;

use tailbeam_runtime::TimerId;
use tailbeam_runtime::sim::{Rng, SHARDS_MAX};

use crate::node::Target;
use crate::ops::{self, Op};

/// Ended nodes whose addresses are still used, and wakers that have outlived their future.
const STALE_MAX: usize = 32;

/// A bug of the program, to prove that the model finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// Some letters are handled twice.
    HandledTwice,
    /// Some letters are lost in their handler.
    Lost,
    /// Some letters are handled after the next one.
    Overtaken,
    /// Some asks are forgotten, with their slot.
    AskLeaked,
    /// Some timers tell twice.
    TimerTwice,
    /// Some timers are expected later than they were set.
    TimerEarly,
    /// Some futures are woken and do not say that they were polled.
    PollUnseen,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Made, and not yet known to be accepted.
    Made,
    Accepted,
    Returned,
    Read,
    Dropped,
}

pub(crate) struct LetterRecord {
    pub(crate) fate: Fate,
    pub(crate) origin: usize,
    pub(crate) node: usize,
}

pub(crate) struct NodeRecord {
    pub(crate) to: Option<Target>,
    pub(crate) shard: usize,
    pub(crate) alive: bool,
    /// Letters accepted and neither read nor dropped, by the shard of their sender.
    pub(crate) unread: [u32; SHARDS_MAX],
    /// Place in the list of the living.
    place: usize,
    /// Its drop panics.
    pub(crate) grenade: bool,
    pub(crate) panicked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskEnd {
    Open,
    Answered,
    Expired,
    /// The callee has dropped the reply.
    Dropped,
    Refused,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerState {
    Pending,
    Fired,
    Cancelled,
}

pub(crate) struct TimerRecord {
    pub(crate) node: usize,
    pub(crate) at_ns: u64,
    pub(crate) state: TimerState,
    pub(crate) id: Option<TimerId>,
}

/// A future that waits to be woken from anywhere.
pub(crate) struct ParkRecord {
    pub(crate) waker: Option<Waker>,
    pub(crate) released: bool,
    /// Woken, and not polled since.
    pub(crate) woken: bool,
}

macro_rules! tally {
    ($($name:ident),* $(,)?) => {
        /// Counts of a run.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct Tally {
            $(pub(crate) $name: u64,)*
        }

        impl Tally {
            pub(crate) fn add(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

tally! {
    ops,
    letters,
    letters_read,
    letters_dropped,
    letters_returned,
    answers_read,
    answers_dropped,
    asks,
    asks_expired,
    asks_dropped,
    asks_cancelled,
    timers_fired,
    timers_cancelled,
    nodes,
    nodes_panicked,
    parks,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) ops_max: u64,
    pub(crate) nodes_wanted: usize,
    pub(crate) planted: Planted,
    pub(crate) weights: Vec<(Op, u32)>,
    pub(crate) tally: Tally,
    pub(crate) nodes: Vec<NodeRecord>,
    pub(crate) living: Vec<usize>,
    ended: Vec<usize>,
    pub(crate) letters: Vec<LetterRecord>,
    pub(crate) answers: Vec<Fate>,
    pub(crate) asks: Vec<AskEnd>,
    pub(crate) timers: Vec<TimerRecord>,
    pub(crate) parks: Vec<ParkRecord>,
    pub(crate) parked: Vec<usize>,
    stale: Vec<Waker>,
    /// The letter of an ask that is being dropped before its first poll.
    pub(crate) unpolled: Option<usize>,
    /// Shards may refuse everything: the runtime is being stopped.
    pub(crate) stopping: bool,
    pub(crate) wrong: Option<String>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// The world of this thread. Not to be nested, and nothing of the runtime is called meanwhile.
pub(crate) fn world<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| f(world.as_mut().expect("a run has begun")))
}

/// Notes a violation; the first one counts.
pub(crate) fn wrong(what: impl FnOnce() -> String) {
    world(|w| w.wrong(what));
}

impl World {
    /// Begins a run on this thread.
    pub(crate) fn begin(mut rng: Rng, ops_max: u64, planted: Planted) {
        let world = Self {
            weights: ops::weights(&mut rng),
            nodes_wanted: rng.one_of(&[4, 16, 48]),
            rng,
            ops_max,
            planted,
            tally: Tally::default(),
            nodes: Vec::new(),
            living: Vec::new(),
            ended: Vec::new(),
            letters: Vec::new(),
            answers: Vec::new(),
            asks: Vec::new(),
            timers: Vec::new(),
            parks: Vec::new(),
            parked: Vec::new(),
            stale: Vec::new(),
            unpolled: None,
            stopping: false,
            wrong: None,
        };
        WORLD.set(Some(world));
    }

    pub(crate) fn wrong(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    /// Whether another operation may be done; counts it.
    pub(crate) fn begin_op(&mut self) -> bool {
        let goes_on = self.tally.ops < self.ops_max;
        self.tally.ops += u64::from(goes_on);
        goes_on
    }

    /// Whether the planted bug happens now.
    pub(crate) fn is_planted(&mut self, planted: Planted) -> bool {
        // A poll that is not seen matters only when it is the last one of a rest.
        let ppm = if planted == Planted::PollUnseen { 500_000 } else { 20_000 };
        self.planted == planted && self.rng.happens(ppm)
    }

    pub(crate) fn new_node(&mut self, shard: usize) -> usize {
        let grenade = self.weighs(Op::PanicInDrop) && self.rng.happens(30_000);
        self.nodes.push(NodeRecord {
            to: None,
            shard,
            alive: true,
            unread: [0; SHARDS_MAX],
            place: self.living.len(),
            grenade,
            panicked: false,
        });
        self.living.push(self.nodes.len() - 1);
        self.tally.nodes += 1;
        self.nodes.len() - 1
    }

    pub(crate) fn weighs(&self, op: Op) -> bool {
        self.weights.iter().any(|&(one, weight)| one == op && weight > 0)
    }

    /// Notes the end of a node.
    pub(crate) fn node_ended(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        if !std::mem::replace(&mut node.alive, false) {
            return self.wrong(|| format!("node {id} was dropped twice"));
        }
        let place = node.place;
        self.living.swap_remove(place);
        if let Some(&moved) = self.living.get(place) {
            self.nodes[moved].place = place;
        }
        if self.ended.len() == STALE_MAX {
            let index = self.rng.index(STALE_MAX);
            self.ended.swap_remove(index);
        }
        self.ended.push(id);
    }

    /// A node that was never spawned.
    pub(crate) fn node_refused(&mut self, id: usize, spawned: usize) {
        if id != spawned {
            self.wrong(|| format!("node {id} came back for {spawned}"));
        }
        self.nodes[id].grenade = false;
        self.tally.nodes -= 1;
    }

    /// Somebody to talk to, alive as a rule.
    pub(crate) fn somebody(&mut self) -> Option<usize> {
        let stale = self.rng.happens(50_000) || self.living.is_empty();
        let book = if stale { &self.ended } else { &self.living };
        if book.is_empty() { None } else { Some(book[self.rng.index(book.len())]) }
    }

    pub(crate) fn new_letter(&mut self, origin: usize, node: usize) -> usize {
        self.letters.push(LetterRecord { fate: Fate::Made, origin, node });
        self.tally.letters += 1;
        self.letters.len() - 1
    }

    /// A letter was taken by the runtime; `bound` is what the mailbox may hold of this sender's shard.
    pub(crate) fn letter_accepted(&mut self, id: usize, bound: u32) {
        let letter = &mut self.letters[id];
        if letter.fate != Fate::Made {
            return self.wrong(|| format!("letter {id} was gone before it was accepted"));
        }
        letter.fate = Fate::Accepted;
        let (origin, node) = (letter.origin, letter.node);
        let unread = &mut self.nodes[node].unread[origin];
        *unread += 1;
        let unread = *unread;
        if unread > bound {
            self.wrong(|| format!("node {node} has {unread} unread of {origin}: {bound} at most"));
        }
    }

    pub(crate) fn letter_returned(&mut self, id: usize) {
        self.tally.letters_returned += 1;
        let fate = std::mem::replace(&mut self.letters[id].fate, Fate::Returned);
        if fate != Fate::Made {
            self.wrong(|| format!("letter {id} was {fate:?} and came back"));
        }
    }

    /// A letter came to its end: read, or dropped unread.
    pub(crate) fn letter_ended(&mut self, id: usize, end: Fate) {
        let letter = &mut self.letters[id];
        let (fate, origin, node) = (letter.fate, letter.origin, letter.node);
        letter.fate = end;
        match end {
            Fate::Read => self.tally.letters_read += 1,
            _ => self.tally.letters_dropped += 1,
        }
        if fate == Fate::Accepted {
            self.nodes[node].unread[origin] -= 1;
        } else {
            self.wrong(|| format!("letter {id} was {fate:?}, and then {end:?}"));
        }
    }

    pub(crate) fn ask_ended(&mut self, id: usize, end: AskEnd) {
        match end {
            AskEnd::Expired => self.tally.asks_expired += 1,
            AskEnd::Dropped => self.tally.asks_dropped += 1,
            AskEnd::Cancelled => self.tally.asks_cancelled += 1,
            _ => {}
        }
        let before = std::mem::replace(&mut self.asks[id], end);
        if before != AskEnd::Open {
            self.wrong(|| format!("ask {id} was {before:?}, and then {end:?}"));
        }
    }

    pub(crate) fn answer_ended(&mut self, id: usize, end: Fate) {
        match end {
            Fate::Read => self.tally.answers_read += 1,
            Fate::Dropped => self.tally.answers_dropped += 1,
            _ => {}
        }
        let before = std::mem::replace(&mut self.answers[id], end);
        if before != Fate::Accepted {
            self.wrong(|| format!("answer {id} was {before:?}, and then {end:?}"));
        }
    }

    pub(crate) fn new_park(&mut self) -> usize {
        self.parks.push(ParkRecord { waker: None, released: false, woken: false });
        self.parked.push(self.parks.len() - 1);
        self.tally.parks += 1;
        self.parks.len() - 1
    }

    /// Notes the end of a wait; whether it was ever polled.
    pub(crate) fn park_ended(&mut self, id: usize) -> bool {
        self.parked.retain(|&other| other != id);
        let park = &mut self.parks[id];
        park.woken = false;
        let Some(waker) = park.waker.take() else { return false };
        if self.stale.len() == STALE_MAX {
            let index = self.rng.index(STALE_MAX);
            self.stale.swap_remove(index);
        }
        self.stale.push(waker);
        true
    }

    /// A waker to be called: of a waiting future as a rule, released or not, or of one that is gone.
    pub(crate) fn some_waker(&mut self, release: bool) -> Option<Waker> {
        if !release && !self.stale.is_empty() && self.rng.happens(200_000) {
            return Some(self.stale[self.rng.index(self.stale.len())].clone());
        }
        let waiting = !self.parked.is_empty();
        let id = waiting.then(|| self.parked[self.rng.index(self.parked.len())])?;
        self.waker_of(id, release)
    }

    pub(crate) fn waker_of(&mut self, id: usize, release: bool) -> Option<Waker> {
        let released = release || self.rng.happens(700_000);
        let park = &mut self.parks[id];
        park.released |= released;
        // One that has not been polled yet will see that it is released.
        park.woken = park.waker.is_some();
        park.waker.clone()
    }
}
