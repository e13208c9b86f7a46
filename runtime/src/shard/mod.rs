//! One shard: a thread, a core, a ring, its agents. The loop is [`run::run`]; this is its state.
//!
//! Everything here is touched by the shard's own thread only, in short borrows that never span user code.

pub(crate) mod pin;
pub(crate) mod run;
pub(crate) mod shared;
mod task;
pub(crate) mod waker;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use crate::agent::{
    Addr, Agent, AnyMailbox, Asks, Mailbox, generation_of, handle, index_of, reservations, shard_of,
};
use crate::channel::envelope::{Deliver, Envelope};
use crate::channel::spsc::{Consumer, Producer};
use crate::config::Config;
use crate::error::{SendError, SpawnError, TimersFull};
use crate::stats::ShardStats;
use crate::timer::{Fired, TimerId, Wheel};

use shared::{Reserve, Shared};
use task::{Slot, Table};

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
    /// The clock as the running turn has seen it; 0 when it has not looked yet.
    pub(crate) now_ns: Cell<u64>,
    stats: RefCell<ShardStats>,
    table: RefCell<Table>,
    ready: RefCell<VecDeque<u32>>,
    wheel: RefCell<Wheel>,
    producers: RefCell<Vec<Option<Producer<Envelope>>>>,
    consumers: RefCell<Vec<Option<Consumer<Envelope>>>>,
    /// Messages the running agent may still take in this turn, and when its turn ends.
    turn_left: Cell<u32>,
    turn_end_ns: Cell<u64>,
    mailbox_bytes: Cell<u64>,
    /// Messages in the mailboxes of this shard.
    unread: Cell<u64>,
    /// Cells taken from the rings of other shards.
    arrived: Cell<u64>,
    /// Whether it is too late to send or spawn from here.
    closed: Cell<bool>,
}

/// The ends of the rings of one shard, by peer.
pub(crate) struct Links {
    pub(crate) producers: Vec<Option<Producer<Envelope>>>,
    pub(crate) consumers: Vec<Option<Consumer<Envelope>>>,
}

/// A message for an agent, on its way to another core.
struct ToAgent<M>(M);

impl<M: Send + 'static> Deliver for ToAgent<M> {
    fn deliver(self, to: u64, shard: &Shard) {
        shard.stats.borrow_mut().messages_received_remote += 1;
        if let Err(lost) = shard.deliver(to, self.0) {
            // Its drop is user code: a panic there must not end the shard.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(lost)));
            shard.stats.borrow_mut().dead_letters += 1;
        }
    }
}

impl Shard {
    pub(crate) fn new(
        (runtime, index): (u16, usize),
        config: Config,
        peers: Vec<Arc<Shared>>,
        links: Links,
        now_ns: u64,
    ) -> Rc<Self> {
        let shard = Rc::new(Self {
            index,
            runtime,
            asks: RefCell::new(Asks::new(config.asks_max)),
            now_ns: Cell::new(now_ns),
            stats: RefCell::default(),
            table: RefCell::new(Table::new(config.agents_max)),
            ready: RefCell::default(),
            wheel: RefCell::new(Wheel::new(now_ns, config.timers_max)),
            producers: RefCell::new(links.producers),
            consumers: RefCell::new(links.consumers),
            turn_left: Cell::new(0),
            turn_end_ns: Cell::new(0),
            mailbox_bytes: Cell::new(0),
            unread: Cell::new(0),
            arrived: Cell::new(0),
            closed: Cell::new(false),
            peers,
            config,
        });
        CURRENT.set(Some(Rc::clone(&shard)));
        shard
    }

    fn own(&self) -> &Shared {
        &self.peers[self.index]
    }

    /// Sends to an agent here or elsewhere.
    pub(crate) fn send<A: Agent>(&self, to: u64, msg: A::Msg) -> Result<(), SendError<A::Msg>> {
        let (target, index, generation) = (shard_of(to), index_of(to), generation_of(to));
        if target == self.index {
            return self.send_local(to, msg, A::MAILBOX);
        }
        let Some(peer) = self.peers.get(target) else { return Err(SendError::Gone(msg)) };
        match peer.words.reserve(index, generation, reservations(A::MAILBOX)) {
            Ok(()) => {}
            Err(Reserve::Gone) => return Err(SendError::Gone(msg)),
            Err(Reserve::Full) => {
                self.stats.borrow_mut().full += 1;
                return Err(SendError::Full(msg));
            }
        }
        self.send_remote(to, ToAgent(msg)).map_err(|ToAgent(msg)| {
            peer.words.release(index, generation, 1);
            SendError::RingFull(msg)
        })
    }

    /// Puts `value` on the ring to the shard of `to`; gives it back when that ring is full.
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
        // Room was just seen and only this thread fills it.
        let pushed = producer.push(Envelope::new(to, value));
        debug_assert!(pushed.is_ok(), "has_room said so");
        self.stats.borrow_mut().messages_sent_remote += 1;
        Ok(())
    }

    /// Puts a message into a neighbour's mailbox and makes it ready.
    fn send_local<M: 'static>(&self, to: u64, msg: M, max: u32) -> Result<(), SendError<M>> {
        let mut table = self.table.borrow_mut();
        let slot = if self.closed.get() { None } else { table.slot_mut(to) };
        let Some(slot) = slot else { return Err(SendError::Gone(msg)) };
        let typed = slot.mailbox().and_then(|any| any.as_any().downcast_ref::<Mailbox<M>>());
        let Some(typed) = typed else { return Err(SendError::Gone(msg)) };
        let mut stats = self.stats.borrow_mut();
        if let Err(msg) = typed.push_local(msg, max) {
            stats.full += 1;
            return Err(SendError::Full(msg));
        }
        stats.messages_local += 1;
        self.unread.set(self.unread.get() + 1);
        self.ready_if(slot.queue(), index_of(to));
        Ok(())
    }

    /// Puts a reserved message into a mailbox of this shard and makes its agent ready.
    fn deliver<M: 'static>(&self, to: u64, msg: M) -> Result<(), M> {
        let mut table = self.table.borrow_mut();
        let Some(slot) = table.slot_mut(to) else { return Err(msg) };
        let typed = slot.mailbox().and_then(|any| any.as_any().downcast_ref::<Mailbox<M>>());
        let Some(typed) = typed else { return Err(msg) };
        typed.push_remote(msg);
        self.unread.set(self.unread.get() + 1);
        self.ready_if(slot.queue(), index_of(to));
        Ok(())
    }

    /// Queues a task once.
    pub(crate) fn make_ready(&self, to: u64) {
        let queued = self.table.borrow_mut().slot_mut(to).is_some_and(Slot::queue);
        self.ready_if(queued, index_of(to));
    }

    fn ready_if(&self, queued: bool, index: u32) {
        if queued {
            self.ready.borrow_mut().push_back(index);
        }
    }

    /// Queues the task that a wake is for.
    pub(crate) fn make_woken_ready(&self, wake: waker::Wake) {
        let queued = self.table.borrow_mut().woken_mut(wake).is_some_and(Slot::queue);
        self.ready_if(queued, wake.slot());
    }

    /// Whether this is that shard of that runtime.
    fn is(&self, runtime: usize, shard: usize) -> bool {
        (usize::from(self.runtime), self.index) == (runtime, shard)
    }

    pub(crate) fn complete_ask(&self, key: u64, answer: Box<dyn Any>) {
        let asker = self.asks.borrow_mut().complete(key, answer);
        match asker {
            Some(asker) => self.make_ready(asker),
            None => self.stats.borrow_mut().dead_letters += 1,
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

    pub(crate) fn spawn_agent<A: Agent>(&self, agent: A) -> Result<Addr<A>, SpawnError<A>> {
        let Some(index) = self.vacant() else {
            return Err(SpawnError { agent, max: self.config.agents_max });
        };
        let mailbox = Rc::new(Mailbox::<A::Msg>::new());
        let erased: Rc<dyn AnyMailbox> = Rc::clone(&mailbox) as Rc<dyn AnyMailbox>;
        let generation = self.table.borrow().generation(index);
        let me = handle(self.index, generation, index);
        let shard =
            CURRENT.with_borrow(Clone::clone).expect("agents are spawned on their shard's thread");
        let future = task::agent_loop(agent, mailbox, shard, me);
        let bytes = size_of_val(&future) + size_of::<Mailbox<A::Msg>>();
        self.occupy(index, Slot::new(Box::pin(future), Some(erased), bytes));
        self.own().words.renew(index, generation);
        Ok(Addr::new(me))
    }

    pub(crate) fn spawn_task<F: Future<Output = ()> + 'static>(
        &self,
        future: F,
    ) -> Result<(), SpawnError<F>> {
        let Some(index) = self.vacant() else {
            return Err(SpawnError { agent: future, max: self.config.agents_max });
        };
        let me = handle(self.index, self.table.borrow().generation(index), index);
        let bytes = size_of_val(&future);
        self.occupy(index, Slot::new(Box::pin(future), None, bytes));
        self.make_ready(me);
        Ok(())
    }

    /// An empty slot; none while the shard ends.
    fn vacant(&self) -> Option<u32> {
        if self.closed.get() { None } else { self.table.borrow_mut().vacant() }
    }

    fn occupy(&self, index: u32, slot: Slot) {
        let agent = slot.is_agent();
        self.mailbox_bytes.set(self.mailbox_bytes.get() + slot.bytes() as u64);
        self.table.borrow_mut().occupy(index, slot);
        let mut stats = self.stats.borrow_mut();
        stats.spawned += u64::from(agent);
        stats.live_agents += u64::from(agent);
    }

    /// Notes that `count` messages have left the mailboxes.
    fn taken(&self, count: u64) {
        self.unread.set(self.unread.get().saturating_sub(count));
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
        let now_ns = crate::clock::monotonic_ns();
        if self.turn_end_ns.get() == 0 {
            self.turn_end_ns.set(now_ns + self.config.turn_ns);
        }
        now_ns < self.turn_end_ns.get()
    }

    /// The clock at the first look of this turn.
    pub(crate) fn turn_now_ns(&self) -> u64 {
        if self.now_ns.get() == 0 {
            self.now_ns.set(crate::clock::monotonic_ns());
        }
        self.now_ns.get()
    }
}

impl Shard {
    /// Notes which thread this is.
    pub(crate) fn set_thread_id(&self) {
        self.stats.borrow_mut().thread_id = u64::try_from(pin::thread_id()).unwrap_or(0);
    }
}
