//! One shard: a thread, a core, a ring, its agents. The loop is [`run::run`]; this is its state.
//!
//! Everything here is touched by the shard's own thread only, in short borrows that never span user code.

pub(crate) mod control;
mod end;
mod held;
pub(crate) mod idle;
pub(crate) mod lane;
mod link;
pub(crate) mod marks;
mod pace;
pub(crate) mod path;
pub(crate) mod pin;
pub(crate) mod run;
pub(crate) mod shared;
pub(crate) mod slab;
pub(crate) mod stamp;
pub(crate) mod suspended;
mod timers;
mod turn;
pub(crate) mod waker;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::agent::{
    Agent, Asks, CLASSES, Cancelled, Class, Kins, Late, Sampler, ToAgent, generation_of, handle,
    index_of, shard_of,
};
use crate::agent::{Asked, Control, Due, End, Told};
use crate::channel::envelope::{Deliver, Envelope};
use crate::channel::outbox::Outbox;
use crate::channel::queue::Queue;
use crate::channel::spsc::{Consumer, Gauge, Producer};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{SendError, StartError};
use crate::observe::{NoObserver, Observer};
use crate::op::Ops;
use crate::stats::ShardStats;
use crate::timer::Wheel;

pub use held::Held;

use control::ControlRings;
use lane::{Ack, Lane, Refused, Word, reservations};
use link::Link;
use marks::Marks;
use path::{Again, Hand};
use shared::{Beat, Shared};
use slab::{AgentType, Role, Slab};
use stamp::Stamps;
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
    /// Operations on sockets and files.
    pub(crate) ops: Rc<Ops>,
    pub(crate) cancelled: Cancelled,
    pub(crate) told: Told,
    pub(crate) kins: RefCell<Kins>,
    /// Watches and links that agents of this shard have begun.
    pub(crate) bonds: Cell<u64>,
    clock: Clock,
    /// The clock at the last look, at most some us ago while turns are short, and since when the message in
    /// hand was seen to wait, ns.
    seen_ns: Cell<u64>,
    since_ns: Cell<u64>,
    /// Its age, in the unit of a header.
    age: Cell<u32>,
    sampler: Sampler,
    stamps: Stamps,
    hand: Hand,
    /// Stamped turns of this length are told to the observer, ns.
    long_turn_ns: u64,
    observer: RefCell<Box<dyn Observer>>,
    beat: Arc<Beat>,
    /// The clock as the running turn has seen it; 0 when it has not looked yet.
    pub(crate) now_ns: Cell<u64>,
    /// Wakers that are out for tasks that have ended.
    pub(crate) late: RefCell<Late>,
    /// Futures that run or wait; before `slab`, whose states they borrow.
    pub(crate) scratch: Scratch,
    pub(crate) slab: Slab,
    /// Messages between agents of this shard, wakes and tokens, by class, in the order of their turns.
    lines: [Line; CLASSES],
    /// Old places of moved agents that could not pass a message on, and when they try again, ns.
    blocked: RefCell<Vec<u64>>,
    retry_ns: Cell<u64>,
    /// Messages to other cores that are visible there.
    published: Cell<u64>,
    /// Whether messages come from a ring, where they are not in the order of their classes.
    receiving: Cell<bool>,
    /// Ages of what lies in the rings of the other shards.
    ring_marks: Box<[Marks]>,
    /// How far they reach.
    gauges: Box<[Option<Gauge<Envelope>>]>,
    /// What this shard has sent to each shard's agents and does not know to be read.
    lanes: Vec<Lane>,
    pub(crate) wheel: RefCell<Wheel>,
    producers: RefCell<Vec<Option<Producer<Envelope>>>>,
    consumers: RefCell<Vec<Option<Consumer<Envelope>>>>,
    acks_in: RefCell<Vec<Option<Consumer<u64>>>>,
    /// Acks by peer. Each stands for messages that the other shard still counts, so that there are never
    /// more than it may send.
    acks_out: RefCell<Vec<Outbox<u64>>>,
    control: ControlRings,
    /// Faults of the links into this shard; none in a runtime that was not given any.
    link: Option<Box<Link>>,
    pub(crate) stats: RefCell<ShardStats>,
    counts: Counts,
    /// Messages the running agent may still take in this turn, and when its turn ends.
    turn_left: Cell<u32>,
    turn_end_ns: Cell<u64>,
    /// Messages left at which it looks at the clock next.
    turn_look: Cell<u32>,
    /// Whether it is too late to send or spawn from here.
    closed: Cell<bool>,
}

/// The queue of a class.
struct Line {
    queue: Queue<Envelope>,
    marks: Marks,
    /// Time that it had beyond its share, ns.
    debt_ns: Cell<u64>,
    /// Up to which place in the queue messages of rings lie: those that come later must not overtake them.
    again: Cell<usize>,
    /// How these came here.
    arrivals: Again,
}

impl Line {
    fn new() -> Self {
        Self {
            queue: Queue::new(),
            marks: Marks::new(),
            debt_ns: Cell::new(0),
            again: Cell::new(0),
            arrivals: Again::default(),
        }
    }

    fn waiting(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX)
    }

    /// Notes that so many places were read.
    fn read(&self, places: u32) {
        self.again.set(self.again.get().saturating_sub(places as usize));
    }
}

/// A place in a mailbox that is counted, and given back unless a message takes it.
struct Place<'a>(&'a Word);

impl Place<'_> {
    #[expect(clippy::unnecessary_wraps, reason = "the end of a send")]
    fn keep<E>(self) -> Result<(), E> {
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.release_one();
    }
}

/// Works with the shard of the calling thread, if it has one.
pub(crate) fn with_current(work: impl FnOnce(&Shard)) {
    // The thread may be ending: then it has no shard any more.
    let _ = CURRENT.try_with(|current| current.borrow().as_deref().map(work));
}

/// What changes with each message; the rest is in [`ShardStats`].
#[derive(Default)]
struct Counts {
    turns: Cell<u64>,
    local: Cell<u64>,
    sent: Cell<u64>,
    /// Cells taken from the rings of other shards.
    arrived: Cell<u64>,
    publications: Cell<u64>,
    /// Messages that wait for agents that are suspended.
    waiting: Cell<u64>,
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get().wrapping_add(count));
}

/// The ends of the rings of one shard, by peer.
pub(crate) struct Links {
    pub(crate) producers: Vec<Option<Producer<Envelope>>>,
    pub(crate) consumers: Vec<Option<Consumer<Envelope>>>,
    pub(crate) acks_out: Vec<Option<Producer<u64>>>,
    pub(crate) acks_in: Vec<Option<Consumer<u64>>>,
    pub(crate) control_out: Vec<Option<Producer<Envelope>>>,
    pub(crate) control_in: Vec<Option<Consumer<Envelope>>>,
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
            control_out: none(shards),
            control_in: none(shards),
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
    ) -> Result<Rc<Self>, StartError> {
        let no_room = || StartError::Kernel {
            action: "reserve address space for credits and timers (Config::agents_max, timers_max)",
            source: std::io::Error::last_os_error(),
        };
        let lanes = peers.iter().map(|_| Lane::new(config.agents_max)).collect::<Option<Vec<_>>>();
        let lanes = lanes.ok_or_else(no_room)?;
        let now_ns = clock.now_ns();
        let wheel = Wheel::new(now_ns, config.timers_max).ok_or_else(no_room)?;
        let acks_out = links.acks_out.into_iter();
        let gauges = links.consumers.iter().map(|ring| ring.as_ref().map(Consumer::gauge));
        let stamps = Stamps::new(config.turn_stamps, &clock);
        let link = config
            .link_faults
            .as_ref()
            .map(|faults| Box::new(Link::new(faults, index, peers.len(), config.link_delayed_max)));
        let shard = Rc::new(Self {
            index,
            runtime,
            asks: RefCell::new(Asks::new(config.asks_max)),
            ops: Ops::new(&config),
            cancelled: Cancelled::default(),
            told: Told::default(),
            kins: RefCell::default(),
            bonds: Cell::new(0),
            clock,
            stamps,
            hand: Hand::default(),
            long_turn_ns: match config.long_turn_ns {
                0 => u64::MAX,
                long_turn_ns => long_turn_ns,
            },
            observer: RefCell::new(Box::new(NoObserver)),
            seen_ns: Cell::new(now_ns),
            since_ns: Cell::new(marks::FRESH),
            age: Cell::new(0),
            sampler: Sampler::new(config.account_every, index as u64),
            beat: Arc::clone(&peers[index].beat),
            now_ns: Cell::new(now_ns),
            late: RefCell::default(),
            scratch: Scratch::new(),
            slab: Slab::new(config.agents_max),
            lines: std::array::from_fn(|_| Line::new()),
            blocked: RefCell::default(),
            retry_ns: Cell::new(u64::MAX),
            published: Cell::new(0),
            receiving: Cell::new(false),
            ring_marks: peers.iter().map(|_| Marks::new()).collect(),
            gauges: gauges.collect(),
            lanes,
            wheel: RefCell::new(wheel),
            producers: RefCell::new(links.producers),
            consumers: RefCell::new(links.consumers),
            acks_in: RefCell::new(links.acks_in),
            acks_out: RefCell::new(acks_out.map(Outbox::new).collect()),
            control: ControlRings::new(links.control_out, links.control_in),
            link,
            stats: RefCell::default(),
            counts: Counts::default(),
            turn_left: Cell::new(0),
            turn_end_ns: Cell::new(0),
            turn_look: Cell::new(0),
            closed: Cell::new(false),
            peers,
            config,
        });
        shard.enter();
        Ok(shard)
    }

    /// Makes this the shard of the calling thread, for wakers.
    pub(crate) fn enter(self: &Rc<Self>) {
        CURRENT.set(Some(Rc::clone(self)));
    }

    /// Leaves the calling thread to another shard.
    pub(crate) fn leave() {
        CURRENT.set(None);
    }

    /// The shard of this thread.
    pub(crate) fn here() -> Option<Rc<Self>> {
        CURRENT.with_borrow(Option::clone)
    }

    /// The clock now, ns.
    #[inline]
    pub(crate) fn clock_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    pub(crate) fn own(&self) -> &Shared {
        &self.peers[self.index]
    }

    /// The handle of an addressee with this shard as the origin, as an [`Envelope`] carries it.
    pub(crate) const fn mark(&self, to: u64) -> u64 {
        to & (u64::MAX >> 8) | (self.index as u64) << 56
    }

    /// Sends to an agent here or elsewhere.
    #[inline]
    pub(crate) fn send<A: Agent>(&self, to: u64, msg: A::Msg) -> Result<(), SendError<A::Msg>> {
        let word = match self.reserve_place::<A>(to) {
            Ok(word) => word,
            Err(refused) => return Err(refused.with(msg)),
        };
        let sent = if shard_of(to) == self.index {
            self.send_local(A::CLASS, to, ToAgent::<A>(msg))
        } else {
            self.send_remote(to, ToAgent::<A>(msg))
        };
        sent.map_err(|ToAgent(msg)| {
            word.release_one();
            SendError::RingFull(msg)
        })
    }

    /// [`Shard::send`] of a message that asks, which is made when there is room for it: one that must be given back
    /// would be put together on the stack.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the message is made in its cell")]
    pub(crate) fn send_asked<A: Agent>(
        &self,
        to: u64,
        due: Due,
        make: impl FnOnce() -> A::Msg,
    ) -> Result<(), SendError<A::Msg>> {
        let place = match self.reserve_place::<A>(to) {
            Ok(word) => Place(word),
            Err(refused) => return Err(refused.with(make())),
        };
        if shard_of(to) != self.index {
            let sent = self.send_remote(to, Asked::<A> { due, msg: make() });
            return match sent {
                Ok(()) => place.keep(),
                Err(Asked { msg, .. }) => Err(SendError::RingFull(msg)),
            };
        }
        let queue = &self.lines[A::CLASS as usize].queue;
        if queue.len() >= self.config.messages_max as usize {
            self.stats.borrow_mut().ring_full += 1;
            return Err(SendError::RingFull(make()));
        }
        let msg = make();
        queue.send(self.mark(to), Asked::<A> { due, msg });
        add(&self.counts.local, 1);
        place.keep()
    }

    /// Counts a message to an agent, if its mailbox has room for one.
    #[inline]
    fn reserve_place<A: Agent>(&self, to: u64) -> Result<&Word, Refused> {
        let (target, generation) = (shard_of(to), generation_of(to));
        let word = self.lanes.get(target).and_then(|lane| lane.word(index_of(to)));
        let word = word.filter(|_| !self.closed.get()).ok_or(Refused::Gone)?;
        let own = target == self.index;
        let max = if own { A::MAILBOX } else { reservations(A::MAILBOX) };
        // Without a branch on where it goes, which nobody can predict.
        if word.try_reserve(generation, max) {
            return Ok(word);
        }
        let max = max.max(self.config.mailboxes_min);
        let reserved = if own {
            word.reserve(generation, max)
        } else {
            self.lanes[target].note(index_of(to));
            word.reserve_remote(generation, max)
        };
        match reserved {
            Ok(()) => Ok(word),
            Err(refused) => {
                self.stats.borrow_mut().full += u64::from(refused == Refused::Full);
                Err(refused)
            }
        }
    }

    #[inline]
    pub(crate) fn send_local<T: Deliver>(&self, class: Class, to: u64, value: T) -> Result<(), T> {
        let queue = &self.lines[class as usize].queue;
        if queue.len() >= self.config.messages_max as usize {
            self.stats.borrow_mut().ring_full += 1;
            return Err(value);
        }
        queue.send(self.mark(to), value);
        add(&self.counts.local, 1);
        Ok(())
    }

    /// Whether a message that a ring has brought must wait for its turn among those of its class.
    #[inline]
    pub(crate) fn must_queue(&self, class: Class) -> bool {
        let urgent = || !self.lines[Class::High as usize].queue.is_empty();
        let others_wait = || self.lines[class as usize].again.get() > 0;
        self.receiving.get() && (class == Class::Low || others_wait() || urgent())
    }

    /// Has an accepted message wait for its turn; its mailbox still counts it, which bounds the queue.
    #[cold]
    pub(crate) fn queue_again(&self, class: Class, envelope: Envelope) {
        let line = &self.lines[class as usize];
        self.keep_arrival(line);
        line.queue.push(envelope);
        line.again.set(line.queue.len());
    }

    /// The queue of an agent's class.
    fn queue_of(&self, to: u64) -> &Queue<Envelope> {
        let header = self.slab.header(index_of(to));
        header.map_or(&self.lines[Class::Normal as usize].queue, |header| self.queue_by(header))
    }

    #[inline]
    fn queue_by(&self, header: &slab::Header) -> &Queue<Envelope> {
        let class = header.kind.get().map_or(Class::Normal, |kind| kind.class);
        &self.lines[class as usize].queue
    }

    /// Has control come to an agent of this shard behind what was sent to it before.
    pub(crate) fn queue_control(&self, to: u64, control: Control) {
        self.queue_of(to).send(self.mark(to), control);
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
        let Some(header) = self.slab.header(index_of(to)) else { return };
        if header.generation.get() == generation_of(to) && header.queue() {
            self.queue_by(header).send(self.mark(to), self.wake_up());
        }
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
        header.cpu_ns.set(0);
        header.age_max.set(0);
        self.renew_own(index, header.generation.get());
        let agents = u64::from(kind.role == Role::Agent);
        let mut stats = self.stats.borrow_mut();
        stats.spawned += agents;
        stats.live_agents += agents;
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
        self.lanes[self.index].note(index);
        if let Some(word) = self.lanes[self.index].word(index) {
            word.renew(generation);
        }
    }

    /// Tells another core what was read of its messages.
    pub(crate) fn acknowledge(&self, origin: usize, ack: Ack) {
        if let Some(queue) = self.acks_out.borrow_mut().get_mut(origin) {
            // It has no ring to its own shard only, which does not tell itself.
            let _ = queue.push(ack.pack());
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
                if taken >= self.config.peer_ring_slots {
                    queue.note_room();
                }
            }
        }
    }

    pub(crate) fn count_dead_letters(&self, count: u64) {
        self.stats.borrow_mut().dead_letters += count;
    }

    /// Counts an agent that gives its slot back, and why it has ended if that is not counted yet.
    pub(crate) fn count_end(&self, role: Role, why: Option<End>) {
        if role == Role::Forward {
            self.stats.borrow_mut().places_kept -= 1;
        }
        if role == Role::Agent {
            let mut stats = self.stats.borrow_mut();
            stats.live_agents -= 1;
            why.into_iter().for_each(|why| Self::count_why(&mut stats, why));
        }
    }

    /// Counts the failure of an agent that keeps its slot.
    pub(crate) fn count_failure(&self, why: End) {
        Self::count_why(&mut self.stats.borrow_mut(), why);
    }

    const fn count_why(stats: &mut ShardStats, why: End) {
        match why {
            End::Panicked => stats.panicked += 1,
            End::Stopped => stats.stopped += 1,
            _ => stats.killed += 1,
        }
    }

    pub(crate) fn add_waiting(&self, messages: u64) {
        add(&self.counts.waiting, messages);
    }

    pub(crate) fn remove_waiting(&self, messages: u64) {
        add(&self.counts.waiting, messages.wrapping_neg());
    }
}
