//! One shard: a thread, a core, a ring, its agents. The loop is [`run::run`]; this is its state.
//!
//! Everything here is touched by the shard's own thread only, in short borrows that never span user code.

pub(crate) mod lane;
pub(crate) mod pin;
pub(crate) mod run;
pub(crate) mod shared;
pub(crate) mod slab;
pub(crate) mod suspended;
pub(crate) mod waker;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::agent::{
    Agent, Asks, ToAgent, Token, WakeUp, generation_of, handle, index_of, shard_of,
};
use crate::channel::envelope::{Deliver, Envelope};
use crate::channel::queue::Queue;
use crate::channel::spsc::{Consumer, Producer};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{SendError, TimersFull};
use crate::stats::ShardStats;
use crate::timer::{Fired, TimerId, Wheel};

use lane::{Ack, Lane, Refused, reservations};
use shared::Shared;
use slab::{AgentType, Header, Slab};
use suspended::Scratch;

thread_local! {
    /// The shard of this thread, for wakers.
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// State of a shard.
pub(crate) struct Shard {
    pub(crate) index: usize,
    runtime: u16,
    pub(crate) config: Config,
    pub(crate) peers: Vec<Arc<Shared>>,
    pub(crate) asks: RefCell<Asks>,
    clock: Clock,
    /// The clock as the running turn has seen it; 0 when it has not looked yet.
    pub(crate) now_ns: Cell<u64>,
    /// Futures that run or wait; before `slab`, whose states they borrow.
    pub(crate) scratch: Scratch,
    pub(crate) slab: Slab,
    /// Messages between agents of this shard, wakes and tokens, in the order of their turns.
    queue: Queue<Envelope>,
    /// What this shard has sent to each shard's agents and does not know to be read.
    lanes: Vec<Lane>,
    wheel: RefCell<Wheel>,
    producers: RefCell<Vec<Option<Producer<Envelope>>>>,
    consumers: RefCell<Vec<Option<Consumer<Envelope>>>>,
    acks_in: RefCell<Vec<Option<Consumer<u64>>>>,
    acks_out: RefCell<Vec<AckQueue>>,
    stats: RefCell<ShardStats>,
    counts: Counts,
    /// Messages the running agent may still take in this turn, and when its turn ends.
    turn_left: Cell<u32>,
    turn_end_ns: Cell<u64>,
    /// Whether it is too late to send or spawn from here.
    closed: Cell<bool>,
}

/// What changes with each message; the rest is in [`ShardStats`].
#[derive(Default)]
struct Counts {
    turns: Cell<u64>,
    local: Cell<u64>,
    sent: Cell<u64>,
    /// Cells taken from the rings of other shards.
    arrived: Cell<u64>,
    /// Messages that wait for agents that are suspended.
    waiting: Cell<u64>,
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get().wrapping_add(count));
}

/// Acks to one shard: the ring, and those it had no room for. Each stands for messages that the other
/// shard still counts, so that there are never more than it may send.
struct AckQueue {
    ring: Option<Producer<u64>>,
    backlog: VecDeque<u64>,
    /// The acks that came from that shard had filled their ring and are taken: it may have a backlog, which
    /// nobody else would ask it for.
    room_made: bool,
}

impl AckQueue {
    fn push(&mut self, ack: u64) {
        let Some(ring) = &mut self.ring else { return };
        if !self.backlog.is_empty() || ring.push(ack).is_err() {
            self.backlog.push_back(ack);
        }
    }

    /// Whether there is room for acks that had none.
    fn can_go_on(&mut self) -> bool {
        !self.backlog.is_empty() && self.ring.as_mut().is_some_and(Producer::has_room)
    }

    /// Publishes what there is room for; whether the other shard is to be woken, although it has no message:
    /// to empty the full ring, or to use the room in the one that it had filled.
    fn publish(&mut self) -> bool {
        let Some(ring) = &mut self.ring else { return false };
        while let Some(&ack) = self.backlog.front() {
            if ring.push(ack).is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        ring.publish();
        std::mem::take(&mut self.room_made) || !ring.has_room()
    }
}

/// The ends of the rings of one shard, by peer.
pub(crate) struct Links {
    pub(crate) producers: Vec<Option<Producer<Envelope>>>,
    pub(crate) consumers: Vec<Option<Consumer<Envelope>>>,
    pub(crate) acks_out: Vec<Option<Producer<u64>>>,
    pub(crate) acks_in: Vec<Option<Consumer<u64>>>,
}

impl Links {
    pub(crate) fn none(shards: usize) -> Self {
        fn none<T>(shards: usize) -> Vec<Option<T>> {
            (0..shards).map(|_| None).collect()
        }
        Self {
            producers: none(shards),
            consumers: none(shards),
            acks_out: none(shards),
            acks_in: none(shards),
        }
    }
}

impl Shard {
    pub(crate) fn new(
        (runtime, index): (u16, usize),
        config: Config,
        peers: Vec<Arc<Shared>>,
        links: Links,
        clock: Clock,
    ) -> Rc<Self> {
        let now_ns = clock.now_ns();
        let acks_out = links.acks_out.into_iter();
        let shard = Rc::new(Self {
            index,
            runtime,
            asks: RefCell::new(Asks::new(config.asks_max)),
            clock,
            now_ns: Cell::new(now_ns),
            scratch: Scratch::new(),
            slab: Slab::new(config.agents_max),
            queue: Queue::new(),
            lanes: peers.iter().map(|_| Lane::new(config.agents_max)).collect(),
            wheel: RefCell::new(Wheel::new(now_ns, config.timers_max)),
            producers: RefCell::new(links.producers),
            consumers: RefCell::new(links.consumers),
            acks_in: RefCell::new(links.acks_in),
            acks_out: RefCell::new(
                acks_out
                    .map(|ring| AckQueue { ring, backlog: VecDeque::new(), room_made: false })
                    .collect(),
            ),
            stats: RefCell::default(),
            counts: Counts::default(),
            turn_left: Cell::new(0),
            turn_end_ns: Cell::new(0),
            closed: Cell::new(false),
            peers,
            config,
        });
        shard.enter();
        shard
    }

    /// Makes this the shard of the calling thread, for wakers.
    pub(crate) fn enter(self: &Rc<Self>) {
        CURRENT.set(Some(Rc::clone(self)));
    }

    /// Leaves the calling thread to another shard.
    pub(crate) fn leave() {
        CURRENT.set(None);
    }

    /// The clock now, ns.
    #[inline]
    pub(crate) fn clock_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    fn own(&self) -> &Shared {
        &self.peers[self.index]
    }

    /// The handle of an addressee with this shard as the origin, as an [`Envelope`] carries it.
    const fn mark(&self, to: u64) -> u64 {
        to & (u64::MAX >> 8) | (self.index as u64) << 56
    }

    /// Sends to an agent here or elsewhere.
    #[inline]
    pub(crate) fn send<A: Agent>(&self, to: u64, msg: A::Msg) -> Result<(), SendError<A::Msg>> {
        let (target, generation) = (shard_of(to), generation_of(to));
        let word = self.lanes.get(target).and_then(|lane| lane.word(index_of(to)));
        let Some(word) = word.filter(|_| !self.closed.get()) else {
            return Err(SendError::Gone(msg));
        };
        let local = target == self.index;
        let reserved = if local {
            word.reserve(generation, A::MAILBOX)
        } else {
            word.reserve_remote(generation, reservations(A::MAILBOX))
        };
        match reserved {
            Ok(()) => {}
            Err(Refused::Gone) => return Err(SendError::Gone(msg)),
            Err(Refused::Full) => {
                self.stats.borrow_mut().full += 1;
                return Err(SendError::Full(msg));
            }
        }
        let sent = if local {
            self.send_local(to, ToAgent::<A>(msg))
        } else {
            self.send_remote(to, ToAgent::<A>(msg))
        };
        sent.map_err(|ToAgent(msg)| {
            word.release_one();
            SendError::RingFull(msg)
        })
    }

    #[inline]
    fn send_local<T: Deliver>(&self, to: u64, value: T) -> Result<(), T> {
        if self.queue.len() >= self.config.messages_max as usize {
            self.stats.borrow_mut().ring_full += 1;
            return Err(value);
        }
        self.queue.send(self.mark(to), value);
        add(&self.counts.local, 1);
        Ok(())
    }

    /// Puts `value` on the ring to the shard of `to`; gives it back when that ring is full.
    #[inline]
    pub(crate) fn send_remote<T: Deliver>(&self, to: u64, value: T) -> Result<(), T> {
        let mut producers = self.producers.borrow_mut();
        let Some(Some(producer)) = producers.get_mut(shard_of(to)) else { return Err(value) };
        if self.closed.get() {
            return Err(value);
        }
        if !producer.has_room() {
            self.stats.borrow_mut().ring_full += 1;
            return Err(value);
        }
        producer.send(self.mark(to), value);
        add(&self.counts.sent, 1);
        Ok(())
    }

    /// Queues a task once.
    pub(crate) fn make_ready(&self, to: u64) {
        let header = self.slab.header(index_of(to));
        if header.is_some_and(|h| h.generation.get() == generation_of(to) && h.queue()) {
            self.queue.send(self.mark(to), WakeUp);
        }
    }

    /// Queues the task that a wake is for.
    pub(crate) fn make_woken_ready(&self, wake: waker::Wake) {
        let header = self.slab.header(wake.slot());
        if let Some(header) = header.filter(|header| wake.is_for(header.generation.get())) {
            self.make_ready(handle(self.index, header.generation.get(), wake.slot()));
        }
    }

    /// Queues a timer's token for an agent.
    fn queue_token(&self, to: u64, token: u64) {
        self.queue.send(self.mark(to), Token(token));
    }

    /// Whether this is that shard of that runtime.
    fn is(&self, runtime: usize, shard: usize) -> bool {
        (usize::from(self.runtime), self.index) == (runtime, shard)
    }

    /// The waker of an agent of this shard.
    #[inline]
    pub(crate) fn waker(&self, me: u64) -> Waker {
        waker::waker(self.runtime, me)
    }

    pub(crate) fn complete_ask(&self, key: u64, answer: Box<dyn Any>) {
        let asker = self.asks.borrow_mut().complete(key, answer);
        match asker {
            Ok(asker) => self.make_ready(asker),
            Err(answer) => {
                self.count_dead_letters(1);
                // Its drop is user code, and no handler's turn surrounds it.
                let _ = catch_unwind(AssertUnwindSafe(move || drop(answer)));
            }
        }
    }

    pub(crate) fn timer(
        &self,
        at_ns: u64,
        owner: u64,
        token: Option<u64>,
    ) -> Result<TimerId, TimersFull> {
        self.wheel.borrow_mut().insert(Fired { deadline_ns: at_ns, owner, token }).ok_or(TimersFull)
    }

    pub(crate) fn cancel(&self, timer: TimerId) -> bool {
        self.wheel.borrow_mut().cancel(timer)
    }

    /// Whether it is too late to send or spawn from here.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Gives a vacant slot its kind; returns the handle.
    pub(crate) fn occupy(&self, index: u32, kind: &'static AgentType) -> u64 {
        let Some(header) = self.slab.header(index) else { return u64::MAX };
        header.kind.set(Some(kind));
        header.messages.set(0);
        header.polls.set(0);
        self.renew_own(index, header.generation.get());
        let mut stats = self.stats.borrow_mut();
        stats.spawned += u64::from(kind.agent);
        stats.live_agents += u64::from(kind.agent);
        handle(self.index, header.generation.get(), index)
    }

    /// Notes that a message of this core to a slot of this core was read.
    #[inline]
    pub(crate) fn release_own(&self, index: u32) {
        if let Some(word) = self.lanes[self.index].word(index) {
            word.release_one();
        }
    }

    /// Lets addresses of earlier generations of a slot fail.
    pub(crate) fn renew_own(&self, index: u32, generation: u32) {
        if let Some(word) = self.lanes[self.index].word(index) {
            word.renew(generation);
        }
    }

    /// Tells another core what was read of its messages.
    pub(crate) fn acknowledge(&self, origin: usize, ack: Ack) {
        if let Some(queue) = self.acks_out.borrow_mut().get_mut(origin) {
            queue.push(ack.pack());
        }
    }

    /// Takes what other cores have read.
    fn take_acks(&self) {
        let mut rings = self.acks_in.borrow_mut();
        let mut queues = self.acks_out.borrow_mut();
        for ((lane, ring), queue) in self.lanes.iter().zip(rings.iter_mut()).zip(&mut *queues) {
            let Some(ring) = ring else { continue };
            let mut taken = 0;
            while let Some(bits) = ring.pop() {
                taken += 1;
                let ack = Ack::unpack(bits);
                if let Some(word) = lane.word(ack.index) {
                    word.release(ack);
                }
            }
            if taken > 0 {
                ring.release();
                queue.room_made |= taken >= self.config.peer_ring_slots;
            }
        }
    }

    pub(crate) fn count_dead_letters(&self, count: u64) {
        self.stats.borrow_mut().dead_letters += count;
    }

    pub(crate) fn count_end(&self, agent: bool, panicked: bool) {
        let mut stats = self.stats.borrow_mut();
        stats.live_agents -= u64::from(agent);
        stats.panicked += u64::from(agent && panicked);
        stats.stopped += u64::from(agent && !panicked);
    }

    pub(crate) fn add_waiting(&self, messages: u64) {
        add(&self.counts.waiting, messages);
    }

    pub(crate) fn remove_waiting(&self, messages: u64) {
        add(&self.counts.waiting, messages.wrapping_neg());
    }

    /// A turn of an agent begins.
    #[inline]
    pub(crate) fn begin_turn(&self, header: &Header) {
        self.now_ns.set(0);
        header.polls.set(header.polls.get().wrapping_add(1));
        add(&self.counts.turns, 1);
    }

    /// An agent begins to take the messages that waited for it.
    pub(crate) fn begin_budget(&self) {
        self.turn_left.set(self.config.turn_messages);
        self.turn_end_ns.set(0);
    }

    /// Whether the running agent may take another message in this turn.
    pub(crate) fn may_continue(&self) -> bool {
        let left = self.turn_left.get();
        if left == 0 {
            return false;
        }
        self.turn_left.set(left - 1);
        // A clock read every 16 messages: the turn's time bound is that coarse, and begins at the first.
        if !left.is_multiple_of(16) {
            return true;
        }
        let now_ns = self.clock_ns();
        if self.turn_end_ns.get() == 0 {
            self.turn_end_ns.set(now_ns + self.config.turn_ns);
        }
        now_ns < self.turn_end_ns.get()
    }

    /// The clock at the first look of this turn.
    pub(crate) fn turn_now_ns(&self) -> u64 {
        if self.now_ns.get() == 0 {
            self.now_ns.set(self.clock_ns());
        }
        self.now_ns.get()
    }
}

/// What a shard holds for its agents; all of it comes back when they have ended and nothing is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Slots of agents and spawned futures.
    pub slots: u64,
    /// Memory of suspended handlers and spawned futures, bytes.
    pub futures_bytes: u64,
    /// Asks without an end.
    pub asks: u64,
    /// Timers.
    pub timers: u64,
    /// Messages, wakes and tokens in the queue, and messages that wait for suspended handlers.
    pub messages: u64,
    /// Messages from this shard to its own agents that count as unread.
    pub credits: u64,
}

impl Shard {
    /// What it holds.
    pub(crate) fn held(&self) -> Held {
        Held {
            slots: self.slab.live().into(),
            futures_bytes: self.scratch.held() as u64,
            asks: self.asks.borrow().open_asks(),
            timers: self.wheel.borrow().pending().into(),
            messages: self.queue.len() as u64 + self.counts.waiting.get(),
            credits: self.lanes[self.index].unread(),
        }
    }

    /// Notes which thread this is.
    pub(crate) fn set_thread_id(&self) {
        self.stats.borrow_mut().thread_id = u64::try_from(pin::thread_id()).unwrap_or(0);
    }
}
