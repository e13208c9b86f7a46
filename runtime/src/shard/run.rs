//! The loop of a shard in one screen, and its steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::{CURRENT, Shard, add};
use crate::agent::{index_of, messages};
use crate::clock;
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
const SEAL_WAIT_NS: u64 = 1_000_000;

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
    /// Operations on sockets and files that the kernel did not end within a second; their memory is never
    /// freed.
    pub ops_leaked: u64,
    /// Whether every queue, mailbox and ring to this shard was empty when it ended.
    pub drained: bool,
}

/// Runs until stopped and drained.
pub(crate) fn run(
    shard: &Rc<Shard>,
    ring: &mut dyn Doorbells,
    observer: &mut dyn Observer,
) -> ShardReport {
    let mut fired = Vec::with_capacity(TIMERS_PER_PASS);
    let mut published_ns = 0;
    let mut awake_since = clock::monotonic_ns();
    loop {
        let stopping = shard.own().ending.is_stopping();
        if stopping {
            shard.own().ending.work();
        }
        shard.take_acks();
        shard.posted();
        shard.ops.complete(ring);
        let now = clock::monotonic_ns();
        let turns = shard.counts.turns.get();
        shard.fire(now, &mut fired);
        let now = shard.receive(now);
        shard.pass(now);
        shard.now_ns.set(0);
        let turns = shard.counts.turns.get() - turns;
        observer.turn(now, u32::try_from(turns).unwrap_or(u32::MAX));
        shard.publish_messages(ring);
        if now - published_ns > PUBLISH_NS {
            shard.publish_stats(ring, now - awake_since);
            (published_ns, awake_since) = (now, now);
        }
        // Before the look for work: an agent that is always ready must not outlive the drain.
        if shard.own().ending.is_closing() {
            return shard.end(ring);
        }
        let busy = shard.has_work();
        if shard.ops.flush(ring, busy, now) {
            continue;
        }
        if stopping && shard.counts.waiting.get() == 0 {
            shard.own().ending.rest(shard.counts.sent.get(), shard.counts.arrived.get());
        }
        let from = clock::monotonic_ns();
        shard.publish_stats(ring, from - awake_since);
        shard.park(ring, from, stopping);
        awake_since = clock::monotonic_ns();
        published_ns = awake_since;
        shard.stats.borrow_mut().parked_ns += awake_since - from;
        observer.parked(from, awake_since);
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
                if !pace.goes_on(clock::monotonic_ns) {
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
            if !pace.goes_on(clock::monotonic_ns) {
                break;
            }
        }
    }

    /// Makes this pass' messages visible and rings the bells of sleepers.
    fn publish_messages(&self, ring: &mut dyn Doorbells) {
        let (mut bells, mut missed) = (0, false);
        self.acks_out.borrow_mut().iter_mut().for_each(super::AckQueue::publish);
        for (peer, producer) in self.producers.borrow_mut().iter_mut().enumerate() {
            let Some(producer) = producer else { continue };
            if producer.publish() && self.peers[peer].sleep.notify() {
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

    fn has_work(&self) -> bool {
        !self.queue.is_empty()
            || self.own().has_posted()
            || self.consumers.borrow_mut().iter_mut().flatten().any(super::Consumer::has_some)
            || self.wheel.borrow().next_deadline().is_some_and(|at| at <= clock::monotonic_ns())
    }

    fn park(&self, ring: &mut dyn Doorbells, now_ns: u64, stopping: bool) {
        let sleep = &self.own().sleep;
        sleep.prepare();
        let ending = &self.own().ending;
        if self.has_work() || ending.is_closing() || (ending.is_stopping() && !stopping) {
            sleep.awake();
            return;
        }
        let next = self.wheel.borrow().next_deadline();
        let wait = next.map(|at| at.saturating_sub(now_ns).max(1));
        self.stats.borrow_mut().parks += 1;
        ring.wait(wait);
        sleep.awake();
        self.knock_instead(ring, false);
    }

    fn publish_stats(&self, ring: &dyn Doorbells, busy_ns: u64) {
        let mut stats = self.stats.borrow_mut();
        stats.busy_ns += busy_ns;
        let calls = ring.calls();
        (stats.enters, stats.ring_failed) = (calls.enters, calls.failed);
        stats.timers_pending = u64::from(self.wheel.borrow().pending());
        stats.heartbeat_ns = clock::monotonic_ns();
        stats.turns = self.counts.turns.get();
        self.ops.count(&mut stats);
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

    /// Seals the shard, waits until all have sealed, counts what nobody will read, drops every task on its
    /// own thread and reports.
    fn end(&self, ring: &mut dyn Doorbells) -> ShardReport {
        let mut drained = !self.has_work();
        self.closed.set(true);
        self.publish_messages(ring);
        self.own().ending.seal();
        self.peers.iter().for_each(|peer| knock(peer.event()));
        while !self.peers.iter().all(|peer| peer.ending.is_sealed()) {
            ring.wait(Some(SEAL_WAIT_NS));
        }
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
        let ops_leaked = self.ops.end(ring);
        drained &= undelivered == 0;
        self.publish_stats(ring, 0);
        CURRENT.set(None);
        ShardReport {
            core: self.own().core,
            agents_live: stats.live_agents,
            agents_panicked: stats.panicked,
            messages_undelivered: undelivered,
            tasks_dropped,
            ops_leaked,
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
