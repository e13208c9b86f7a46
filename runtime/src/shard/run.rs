//! The loop of a shard in one screen, and its steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::{CURRENT, Shard, add};
use crate::agent::{index_of, messages};
use crate::observe::Observer;
use crate::ring::{Doorbells, knock};
use crate::timer::Fired;

/// A pass over a queue ends after this, so that the others are looked at again, ns.
const PASS_NS: u64 = 20_000;
/// It ends after as many turns, so that messages to other cores are not kept back.
const PASS_TURNS: u32 = 256;
/// Messages behind the running one whose agents are being loaded.
const AHEAD: usize = 16;
/// Time between two looks at the clock that a pass aims at, ns, and most turns between them.
const LOOK_NS: u64 = 2_000;
const TURNS_PER_LOOK: u32 = 64;
/// Counters are published at least this often while busy, ns.
const PUBLISH_NS: u64 = 10_000_000;
/// Timers delivered between two looks at the rings.
const TIMERS_PER_PASS: usize = 4_096;
/// Longest sleep while other shards are waited for, ns; they knock when they have sealed.
pub(crate) const SEAL_WAIT_NS: u64 = 1_000_000;

/// What a shard leaves behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardReport {
    /// CPU.
    pub core: usize,
    /// Agents that were alive when the shard ended.
    pub agents_live: u64,
    /// Agents that panicked.
    pub agents_panicked: u64,
    /// Messages and answers that nobody read, those on their way to this shard included.
    pub messages_undelivered: u64,
    /// Spawned futures that had not finished.
    pub tasks_dropped: u64,
    /// Whether every queue, mailbox and ring to this shard was empty when it ended.
    pub drained: bool,
}

/// Runs until stopped and drained.
pub(crate) fn run(
    shard: &Rc<Shard>,
    ring: &mut dyn Doorbells,
    observer: &mut dyn Observer,
) -> ShardReport {
    let mut rounds = Rounds::new(shard);
    loop {
        match rounds.step(ring, observer) {
            Step::Busy => {}
            Step::Idle => {
                if let Some(wait_ns) = rounds.before_sleep(ring) {
                    ring.wait(wait_ns);
                    rounds.after_sleep(ring, observer);
                }
            }
            Step::Sealed => ring.wait(Some(SEAL_WAIT_NS)),
            Step::Ended(report) => return report,
        }
    }
}

/// What a shard wants after a round.
#[derive(Debug)]
pub(crate) enum Step {
    /// Another round.
    Busy,
    /// To sleep.
    Idle,
    /// To wait until its peers have sealed as it has.
    Sealed,
    /// Nothing more.
    Ended(ShardReport),
}

/// The rounds of a shard. Whoever drives them sleeps for the shard, so that a simulation can stand in for
/// its thread.
pub(crate) struct Rounds {
    shard: Rc<Shard>,
    fired: Vec<Fired>,
    published_ns: u64,
    awake_since_ns: u64,
    asleep_since_ns: u64,
    stopping: bool,
    /// Whether nothing was left to do when it sealed; none before.
    sealed: Option<bool>,
}

impl Rounds {
    pub(crate) fn new(shard: &Rc<Shard>) -> Self {
        let now_ns = shard.clock_ns();
        Self {
            shard: Rc::clone(shard),
            fired: Vec::with_capacity(TIMERS_PER_PASS),
            published_ns: 0,
            awake_since_ns: now_ns,
            asleep_since_ns: now_ns,
            stopping: false,
            sealed: None,
        }
    }

    /// Looks at every source of work once.
    pub(crate) fn step(&mut self, ring: &mut dyn Doorbells, observer: &mut dyn Observer) -> Step {
        let shard = &Rc::clone(&self.shard);
        if let Some(drained) = self.sealed {
            let all = shard.peers.iter().all(|peer| peer.ending.is_sealed());
            return if all { Step::Ended(shard.end(ring, drained)) } else { Step::Sealed };
        }
        self.stopping = shard.own().ending.is_stopping();
        if self.stopping {
            shard.own().ending.work();
        }
        shard.take_acks();
        shard.posted();
        let now = shard.clock_ns();
        let turns = shard.counts.turns.get();
        shard.fire(now, &mut self.fired);
        let now = shard.receive(now);
        shard.pass(now);
        shard.now_ns.set(0);
        let turns = shard.counts.turns.get() - turns;
        observer.turn(now, u32::try_from(turns).unwrap_or(u32::MAX));
        shard.publish_messages(ring);
        if now - self.published_ns > PUBLISH_NS {
            shard.publish_stats(ring, now - self.awake_since_ns);
            (self.published_ns, self.awake_since_ns) = (now, now);
        }
        // Before the look for work: an agent that is always ready must not outlive the drain.
        if shard.own().ending.is_closing() {
            self.sealed = Some(shard.seal(ring));
            return Step::Sealed;
        }
        if shard.has_work() { Step::Busy } else { Step::Idle }
    }

    /// Says that the shard is about to sleep, and looks once more. Returns for how long it may, at most;
    /// `None` when it must not.
    pub(crate) fn before_sleep(&mut self, ring: &mut dyn Doorbells) -> Option<Option<u64>> {
        let shard = &Rc::clone(&self.shard);
        if self.stopping && shard.counts.waiting.get() == 0 {
            shard.own().ending.rest(shard.counts.sent.get(), shard.counts.arrived.get());
        }
        let now_ns = shard.clock_ns();
        shard.publish_stats(ring, now_ns - self.awake_since_ns);
        (self.awake_since_ns, self.asleep_since_ns) = (now_ns, now_ns);
        let sleep = &shard.own().sleep;
        sleep.prepare();
        let ending = &shard.own().ending;
        if shard.has_work() || ending.is_closing() || (ending.is_stopping() && !self.stopping) {
            sleep.awake();
            return None;
        }
        let next = shard.wheel.borrow().next_deadline();
        shard.stats.borrow_mut().parks += 1;
        Some(next.map(|at| at.saturating_sub(now_ns).max(1)))
    }

    /// The shard has slept.
    pub(crate) fn after_sleep(&mut self, ring: &mut dyn Doorbells, observer: &mut dyn Observer) {
        let shard = &Rc::clone(&self.shard);
        shard.own().sleep.awake();
        shard.knock_instead(ring, false);
        let now_ns = shard.clock_ns();
        shard.stats.borrow_mut().parked_ns += now_ns - self.asleep_since_ns;
        observer.parked(self.asleep_since_ns, now_ns);
        (self.awake_since_ns, self.published_ns) = (now_ns, now_ns);
    }
}

/// The time that a pass may take. Turns share looks at the clock, which costs as much as a message.
struct Pace {
    from_ns: u64,
    now_ns: u64,
    turns: u32,
    look_at: u32,
}

impl Pace {
    const fn new(from_ns: u64) -> Self {
        Self { from_ns, now_ns: from_ns, turns: 0, look_at: 1 }
    }

    /// Notes a turn; whether another may follow.
    #[inline]
    fn goes_on(&mut self, clock: impl FnOnce() -> u64) -> bool {
        self.turns += 1;
        if self.turns < self.look_at {
            return true;
        }
        self.now_ns = clock();
        let spent_ns = self.now_ns - self.from_ns;
        let fit = LOOK_NS * u64::from(self.turns) / spent_ns.max(1);
        self.look_at = self.turns + u32::try_from(fit).unwrap_or(u32::MAX).clamp(1, TURNS_PER_LOOK);
        spent_ns < PASS_NS && self.turns < PASS_TURNS
    }
}

impl Shard {
    /// Gives what other shards have sent to its agents; returns the clock as last seen.
    fn receive(&self, mut now_ns: u64) -> u64 {
        // Taken out: handlers run meanwhile, and none of them receives.
        let mut consumers = self.consumers.take();
        for consumer in consumers.iter_mut().flatten() {
            let mut pace = Pace::new(now_ns);
            while consumer.deliver_next(self) {
                consumer.peek(AHEAD, |ahead| self.slab.prefetch(index_of(ahead.to())));
                if !pace.goes_on(|| self.clock_ns()) {
                    break;
                }
            }
            if pace.turns > 0 {
                add(&self.counts.arrived, pace.turns.into());
                consumer.release();
            }
            now_ns = pace.now_ns;
        }
        self.consumers.replace(consumers);
        now_ns
    }

    /// Runs what threads without a ring have posted.
    fn posted(self: &Rc<Self>) {
        if !self.own().has_posted() {
            return;
        }
        let (jobs, wakes) = self.own().take_posted();
        wakes.into_iter().for_each(|wake| self.make_woken_ready(wake));
        jobs.into_iter().for_each(|job| job(self));
    }

    /// Delivers due timers in the order of their deadlines.
    fn fire(&self, now_ns: u64, fired: &mut Vec<Fired>) {
        fired.clear();
        self.wheel.borrow_mut().advance(now_ns, fired, TIMERS_PER_PASS);
        if fired.is_empty() {
            return;
        }
        fired.sort_unstable_by_key(|timer| timer.deadline_ns);
        let mut stats = self.stats.borrow_mut();
        stats.timers_fired += fired.len() as u64;
        let late = now_ns.saturating_sub(fired[0].deadline_ns);
        stats.timer_late_max_ns = stats.timer_late_max_ns.max(late);
        drop(stats);
        for timer in fired.iter() {
            match timer.token {
                Some(token) => self.queue_token(timer.owner, token),
                None => self.make_ready(timer.owner),
            }
        }
    }

    /// Gives messages of this shard to its agents until the queue is empty or the pass is over.
    fn pass(&self, from_ns: u64) {
        let mut pace = Pace::new(from_ns);
        while self.queue.deliver_next(self) {
            if let Some(ahead) = self.queue.peek(AHEAD) {
                self.slab.prefetch(index_of(ahead.to()));
            }
            if !pace.goes_on(|| self.clock_ns()) {
                break;
            }
        }
    }

    /// Makes this pass' messages visible and rings the bells of sleepers.
    fn publish_messages(&self, ring: &mut dyn Doorbells) {
        let (mut bells, mut missed) = (0, false);
        let mut acks = self.acks_out.borrow_mut();
        let producers = &mut *self.producers.borrow_mut();
        for (peer, (producer, acks)) in producers.iter_mut().zip(&mut *acks).enumerate() {
            let wanted = acks.publish();
            let Some(producer) = producer else { continue };
            if (producer.publish() || wanted) && self.peers[peer].sleep.notify() {
                let target = self.peers[peer].ring_fd.load(Ordering::Acquire);
                missed |= !ring.ring_bell(target, peer);
                bells += 1;
            }
        }
        if bells > 0 {
            missed |= !ring.submit();
            self.stats.borrow_mut().doorbells += bells;
            self.knock_instead(ring, missed);
        }
    }

    /// The second way to wake a peer, when its ring was full or gone or our own has failed. A knock that
    /// was not needed costs the peer one look around.
    fn knock_instead(&self, ring: &mut dyn Doorbells, everywhere: bool) {
        while let Some(peer) = ring.unreached() {
            self.peers.get(peer).into_iter().for_each(|peer| knock(peer.event()));
        }
        if everywhere {
            self.peers.iter().for_each(|peer| knock(peer.event()));
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
            || self.own().has_posted()
            || self.consumers.borrow_mut().iter_mut().flatten().any(super::Consumer::has_some)
            || self.acks_out.borrow_mut().iter_mut().any(super::AckQueue::can_go_on)
            // One that is full holds up the acks behind it.
            || self.acks_in.borrow_mut().iter_mut().flatten().any(super::Consumer::is_full)
            || self.wheel.borrow().next_deadline().is_some_and(|at| at <= self.clock_ns())
    }

    fn publish_stats(&self, ring: &dyn Doorbells, busy_ns: u64) {
        let mut stats = self.stats.borrow_mut();
        stats.busy_ns += busy_ns;
        let calls = ring.calls();
        (stats.enters, stats.ring_failed) = (calls.enters, calls.failed);
        stats.timers_pending = u64::from(self.wheel.borrow().pending());
        stats.heartbeat_ns = self.clock_ns();
        stats.turns = self.counts.turns.get();
        stats.messages_local = self.counts.local.get();
        stats.messages_sent_remote = self.counts.sent.get();
        stats.messages_received_remote = self.counts.arrived.get();
        stats.state_bytes = self.bytes() as u64;
        stats.publish(&self.own().counters);
    }

    /// Bytes of slots, states, futures, queues, credits and timers.
    fn bytes(&self) -> usize {
        let lanes: usize = self.lanes.iter().map(super::Lane::bytes).sum();
        let messages = self.queue.bytes() + lanes;
        self.slab.bytes() + self.scratch.held() + messages + self.wheel.borrow().bytes()
    }

    /// Refuses all that is new and says so; returns whether nothing was left to do.
    fn seal(&self, ring: &mut dyn Doorbells) -> bool {
        let drained = !self.has_work();
        self.closed.set(true);
        self.publish_messages(ring);
        self.own().ending.seal();
        self.peers.iter().for_each(|peer| knock(peer.event()));
        drained
    }

    /// When all have sealed: counts what nobody will read, drops every task on its own thread and reports.
    fn end(&self, ring: &mut dyn Doorbells, mut drained: bool) -> ShardReport {
        let mut undelivered = self.empty_rings() + self.asks.borrow().unread();
        let stats = *self.stats.borrow();
        let mut tasks_dropped = 0;
        undelivered += self.empty_queue();
        for index in self.slab.occupied() {
            let Some(header) = self.slab.header(index) else { continue };
            let Some(kind) = header.kind.get() else { continue };
            tasks_dropped += u64::from(!kind.agent);
            let pending = header.pending.take();
            undelivered += pending.as_ref().map_or(0, |pending| messages(pending));
            header.pending.set(pending);
            self.end_agent(index, false);
        }
        undelivered += self.empty_queue();
        // What ended with its agents here is counted as undelivered, and not a second time.
        self.stats.borrow_mut().dead_letters = stats.dead_letters;
        drained &= undelivered == 0;
        self.publish_stats(ring, 0);
        CURRENT.set(None);
        ShardReport {
            core: self.own().core,
            agents_live: stats.live_agents,
            agents_panicked: stats.panicked,
            messages_undelivered: undelivered,
            tasks_dropped,
            drained,
        }
    }

    /// Drops what waits for its turn; returns the messages among it.
    fn empty_queue(&self) -> u64 {
        let mut left = 0;
        while let Some(envelope) = self.queue.pop() {
            left += u64::from(envelope.is_message());
            let _ = catch_unwind(AssertUnwindSafe(move || drop(envelope)));
        }
        left
    }

    /// Drops what other shards have sent and this one has not taken; returns how much.
    fn empty_rings(&self) -> u64 {
        let mut left = 0;
        for peer in 0..self.peers.len() {
            loop {
                let next = self.consumers.borrow_mut()[peer].as_mut().and_then(|ring| ring.pop());
                let Some(envelope) = next else { break };
                left += 1;
                // Its drop is user code: a panic there must not keep the others waiting.
                let _ = catch_unwind(AssertUnwindSafe(move || drop(envelope)));
            }
        }
        left
    }
}
