//! The model: what the program has done, and what must come of it. One per thread, because a simulation is
//! one thread; agents reach it from their handlers and drops.
//!
//! A violation is kept and not raised: a panic in a handler would be caught as the agent's.

use std::cell::RefCell;
use std::task::Waker;

use tailbeam_runtime::TimerId;
use tailbeam_runtime::sim::{Rng, SHARDS_MAX};

use crate::bonds::Bonds;
use crate::names::Names;
use crate::node::{Large, Target};
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
    /// Some letters that were sent to where a node lived before are handled twice.
    ForwardedTwice,
    /// Some letters that come after a restart are lost.
    RestartLosesMail,
    /// Some ends are told twice.
    DownTwice,
    /// Some ends are told and nobody notes it.
    DownUnseen,
    /// Some nodes end without a cause.
    EndsUncaused,
    /// Some publications are handled twice.
    PublishedTwice,
    /// Some names are given away although their owner lives.
    NameTwice,
    /// Some letters that a node has read are in no account.
    ReadUnseen,
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

/// The node of a letter that was published.
pub(crate) const ANYBODY: usize = usize::MAX;

pub(crate) struct LetterRecord {
    pub(crate) fate: Fate,
    pub(crate) origin: usize,
    pub(crate) node: usize,
    /// Which of the node's addresses it was sent to; which publication it is a copy of.
    pub(crate) via: usize,
}

/// An address of a node: where it lives, or where it has lived.
pub(crate) struct Address {
    pub(crate) to: Target,
    /// Letters accepted and neither read nor dropped, by the shard of their sender.
    pub(crate) unread: [u32; SHARDS_MAX],
    /// The last letter of each shard: numbers grow, so what comes from one shard comes in order.
    pub(crate) last: [Option<usize>; SHARDS_MAX],
}

/// A node: an address, and the lives that its supervisor gives it.
pub(crate) struct NodeRecord {
    /// The last one is where it lives.
    pub(crate) addresses: Vec<Address>,
    pub(crate) shard: usize,
    /// Where it is being moved to.
    pub(crate) moving: Option<usize>,
    pub(crate) alive: bool,
    pub(crate) lives: u32,
    pub(crate) lives_ended: u32,
    /// Letters that it has read, in all its lives.
    pub(crate) read: u32,
    /// Whether the runtime has shown that it knows of this life.
    pub(crate) started: bool,
    pub(crate) supervisor: Option<usize>,
    /// Something has happened that ends it; it has said itself that it ends.
    pub(crate) has_cause: bool,
    pub(crate) stops: bool,
    /// The topics that it has ever subscribed to.
    pub(crate) topics: u8,
    /// Place in the list of the living.
    place: usize,
    /// Its drop panics.
    pub(crate) grenade: bool,
    pub(crate) panicked: bool,
}

impl NodeRecord {
    pub(crate) fn to(&self) -> Option<Target> {
        self.addresses.last().map(|address| address.to)
    }

    /// Unread letters that one address may have of one shard: its own mailbox, and those on the way of what it
    /// passes on.
    pub(crate) fn bound(&self, via: usize, origin: usize, sent_as: Target, lies: bool) -> u32 {
        let hops = self.addresses.windows(2).skip(via);
        let mailbox = |to: Target| if lies { Large::MAX_BOUND } else { to.bound(SHARDS_MAX) };
        // One that is on its way passes on already what comes to the address that it is leaving.
        let leaving = if self.moving.is_some() { Large::MAX_BOUND } else { 0 };
        sent_as.bound(origin) + leaving + hops.map(|hop| mailbox(hop[1].to)).sum::<u32>()
    }
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
    pub(crate) life: u32,
    pub(crate) shard: usize,
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
    nodes_unstarted,
    spawns_at,
    nodes_elsewhere,
    names,
    names_found,
    accounts,
    nodes_panicked,
    parks,
    letters_old_address,
    letters_published,
    moves,
    moves_refused,
    kills,
    supervisors,
    supervisors_gone,
    restarts,
    watches,
    watches_told,
    watches_off,
    links,
    links_told,
    links_ended,
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
    /// How far the clock of one shard may be ahead of another's.
    pub(crate) skew_ns: u64,
    /// Agents may have few relations: what needs one may be refused.
    pub(crate) tight: bool,
    pub(crate) names: Names,
    pub(crate) wrong: Option<String>,
    pub(crate) bonds: Bonds,
    /// The copies of a publication that is being sent.
    pub(crate) publishing: Option<Vec<usize>>,
    /// Copies that nobody has read yet, by the shard of their sender.
    pub(crate) published_unread: [u32; SHARDS_MAX],
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
            skew_ns: 0,
            tight: false,
            names: Names::default(),
            wrong: None,
            bonds: Bonds::default(),
            publishing: None,
            published_unread: [0; SHARDS_MAX],
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
        // A poll that is not seen matters only when it is the last one of a rest, and ends are few.
        let few = [Planted::PollUnseen, Planted::DownUnseen, Planted::DownTwice];
        let ppm = if few.contains(&planted) { 500_000 } else { 20_000 };
        self.planted == planted && self.rng.happens(ppm)
    }

    /// A node that does not live yet.
    pub(crate) fn new_node(&mut self, shard: usize, supervisor: Option<usize>) -> usize {
        self.nodes.push(NodeRecord {
            addresses: Vec::new(),
            shard,
            moving: None,
            alive: false,
            lives: 0,
            lives_ended: 0,
            read: 0,
            started: false,
            supervisor,
            has_cause: false,
            stops: false,
            topics: 0,
            place: 0,
            grenade: false,
            panicked: false,
        });
        self.nodes.len() - 1
    }

    /// A life of a node begins.
    pub(crate) fn begin_life(&mut self, id: usize) -> u32 {
        let unsupervised = self.nodes[id].supervisor.is_none();
        let grenade = unsupervised && self.weighs(Op::PanicInDrop) && self.rng.happens(30_000);
        let node = &mut self.nodes[id];
        if std::mem::replace(&mut node.alive, true) {
            self.wrong(|| format!("node {id} lives twice"));
            return self.nodes[id].lives;
        }
        node.lives += 1;
        (node.place, node.grenade, node.panicked) = (self.living.len(), grenade, false);
        (node.started, node.has_cause, node.stops) = (unsupervised, false, false);
        self.living.push(id);
        self.tally.nodes += 1;
        self.tally.restarts += u64::from(node.lives > 1);
        node.lives
    }

    /// The runtime has called a life of a node, at this address.
    pub(crate) fn seen(&mut self, id: usize, at: Target) {
        let draws =
            !self.nodes[id].started && self.weighs(Op::PanicInDrop) && self.rng.happens(30_000);
        let node = &mut self.nodes[id];
        node.grenade |= draws;
        node.started = true;
        let arrives = node.moving == Some(at.shard()) && node.shard != at.shard();
        if node.addresses.is_empty() || arrives {
            self.lives_at(id, at);
        } else if node.to().is_some_and(|to| to.id() != at.id()) {
            self.wrong(|| format!("node {id} runs at {at:?}"));
        }
    }

    pub(crate) fn lives_at(&mut self, id: usize, to: Target) {
        let node = &mut self.nodes[id];
        node.shard = to.shard();
        node.addresses.push(Address { to, unread: [0; SHARDS_MAX], last: [None; SHARDS_MAX] });
    }

    /// A node says that it ends now.
    pub(crate) fn stops(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        (node.has_cause, node.stops) = (true, true);
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
        node.lives_ended += 1;
        self.tally.nodes_unstarted += u64::from(!node.started);
        let place = node.place;
        self.check_cause(id);
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
        self.nodes[id].has_cause = true;
        self.tally.nodes -= 1;
    }

    /// Somebody to talk to, alive as a rule.
    pub(crate) fn somebody(&mut self) -> Option<usize> {
        let stale = self.rng.happens(50_000) || self.living.is_empty();
        let book = if stale { &self.ended } else { &self.living };
        if book.is_empty() { None } else { Some(book[self.rng.index(book.len())]) }
    }

    /// Where a node lives as a rule, and now and then where it lived before; none before its address is known.
    pub(crate) fn address_of(&mut self, node: usize) -> Option<(usize, Target)> {
        let count = self.nodes[node].addresses.len();
        let old = count > 1 && self.rng.happens(300_000);
        let via = if old { self.rng.index(count) } else { count.checked_sub(1)? };
        Some((via, self.nodes[node].addresses[via].to))
    }

    pub(crate) fn new_letter(&mut self, origin: usize, (node, via): (usize, usize)) -> usize {
        self.letters.push(LetterRecord { fate: Fate::Made, origin, node, via });
        self.tally.letters += 1;
        self.letters.len() - 1
    }

    /// A letter was taken by the runtime.
    pub(crate) fn letter_accepted(&mut self, id: usize, from: usize, sent_as: Target) {
        let lies = self.weighs(Op::Lie);
        let letter = &mut self.letters[id];
        if letter.fate != Fate::Made {
            return self.wrong(|| format!("letter {id} was gone before it was accepted"));
        }
        letter.fate = Fate::Accepted;
        let (origin, node, via) = (letter.origin, letter.node, letter.via);
        let unread = &mut self.nodes[node].addresses[via].unread[origin];
        *unread += 1;
        let unread = *unread;
        let bound = self.nodes[node].bound(via, from, sent_as, lies);
        self.tally.letters_old_address += u64::from(via + 1 < self.nodes[node].addresses.len());
        if unread > bound {
            self.wrong(|| format!("node {node} has {unread} unread of {origin}: {bound} at most"));
        }
    }

    pub(crate) fn letter_returned(&mut self, id: usize) {
        self.tally.letters_returned += 1;
        let letter = &mut self.letters[id];
        let expected = if letter.node == ANYBODY { Fate::Accepted } else { Fate::Made };
        if letter.node == ANYBODY {
            self.published_unread[letter.origin] -= 1;
        }
        let fate = std::mem::replace(&mut letter.fate, Fate::Returned);
        if fate != expected {
            self.wrong(|| format!("letter {id} was {fate:?} and came back"));
        }
    }

    /// A letter came to its end: read, or dropped unread.
    pub(crate) fn letter_ended(&mut self, id: usize, end: Fate) {
        let letter = &mut self.letters[id];
        let (fate, origin) = (letter.fate, letter.origin);
        let (node, via) = (letter.node, letter.via);
        letter.fate = end;
        match end {
            Fate::Read => self.tally.letters_read += 1,
            _ => self.tally.letters_dropped += 1,
        }
        if fate == Fate::Accepted {
            let unread = match self.nodes.get_mut(node) {
                Some(node) => &mut node.addresses[via].unread[origin],
                None => &mut self.published_unread[origin],
            };
            *unread -= 1;
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
