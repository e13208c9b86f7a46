//! The loop of a shard in one screen, and its steps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::task::Slot;
use super::waker::waker;
use super::{CURRENT, Shard};
use crate::agent::{handle, index_of};
use crate::clock;
use crate::observe::Observer;
use crate::ring::{Doorbells, knock};
use crate::timer::Fired;

/// A pass over the run queue ends after this, so that rings and timers are looked at again, ns.
const PASS_NS: u64 = 20_000;
/// Tasks behind the running one whose memory is being loaded; their entries twice as far.
const AHEAD: usize = 8;
/// Turns that take less than this on average share looks at the clock, ns.
const SHORT_TURN_NS: u64 = 1_000;
/// Turns between two looks at the clock while they are short.
const TURNS_PER_LOOK: u32 = 4;
/// Counters are published at least this often while busy, ns.
const PUBLISH_NS: u64 = 10_000_000;
/// Timers delivered between two looks at the rings.
const TIMERS_PER_PASS: usize = 4_096;
/// Messages taken from one peer between two looks at the others.
const PEER_BATCH: usize = 4_096;
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
        shard.receive();
        shard.posted();
        let now = clock::monotonic_ns();
        shard.now_ns.set(now);
        shard.fire(now, &mut fired);
        let polls = shard.pass(now);
        observer.turn(now, polls);
        shard.publish_messages(ring);
        if now - published_ns > PUBLISH_NS {
            shard.publish_stats(ring, now - awake_since);
            (published_ns, awake_since) = (now, now);
        }
        // Before the look for work: an agent that is always ready must not outlive the drain.
        if shard.own().ending.is_closing() {
            return shard.end(ring);
        }
        if shard.has_work() {
            continue;
        }
        if stopping && shard.unread.get() == 0 {
            let sent = shard.stats.borrow().messages_sent_remote;
            shard.own().ending.rest(sent, shard.arrived.get());
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

/// Drops a task with its unread messages, whose own drops may panic; returns how many there were.
fn discard(slot: Slot) -> u64 {
    let undelivered = slot.undelivered();
    let _ = catch_unwind(AssertUnwindSafe(move || drop(slot)));
    undelivered
}

impl Shard {
    /// Takes what other shards have sent.
    fn receive(&self) {
        let peers = self.peers.len();
        for peer in 0..peers {
            for _ in 0..PEER_BATCH {
                let next = match &mut self.consumers.borrow_mut()[peer] {
                    Some(consumer) => consumer.pop(),
                    None => break,
                };
                match next {
                    Some(envelope) => {
                        self.arrived.set(self.arrived.get() + 1);
                        envelope.deliver(self);
                    }
                    None => break,
                }
            }
            if let Some(consumer) = &mut self.consumers.borrow_mut()[peer] {
                consumer.release();
            }
        }
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
            let mut table = self.table.borrow_mut();
            let Some(slot) = table.slot_mut(timer.owner) else { continue };
            if let (Some(token), Some(mailbox)) = (timer.token, slot.mailbox()) {
                mailbox.push_timer(token);
            }
            self.ready_if(slot.queue(), index_of(timer.owner));
        }
    }

    /// Polls ready tasks until the queue is empty or the pass is over.
    fn pass(&self, from_ns: u64) -> u32 {
        let (mut polls, mut look_at) = (0, 1);
        while let Some(index) = self.next_ready() {
            self.now_ns.set(0);
            self.turn_left.set(self.config.turn_messages);
            self.turn_end_ns.set(0);
            self.poll(index);
            polls += 1;
            if polls == look_at {
                let spent_ns = clock::monotonic_ns() - from_ns;
                if spent_ns >= PASS_NS {
                    break;
                }
                // Short turns share a look at the clock, which costs as much as a message.
                let short = spent_ns < u64::from(polls) * SHORT_TURN_NS;
                look_at += if short { TURNS_PER_LOOK } else { 1 };
            }
        }
        self.now_ns.set(0);
        self.stats.borrow_mut().turns += u64::from(polls);
        polls
    }

    /// Takes the next task and starts to load those behind it.
    fn next_ready(&self) -> Option<u32> {
        let mut ready = self.ready.borrow_mut();
        let index = ready.pop_front()?;
        let table = self.table.borrow();
        if let Some(&far) = ready.get(2 * AHEAD) {
            table.prefetch_entry(far);
        }
        if let Some(&near) = ready.get(AHEAD) {
            table.prefetch_task(near);
        }
        Some(index)
    }

    fn poll(&self, index: u32) {
        let Some((mut future, generation)) = self.table.borrow_mut().take(index) else { return };
        let waker = waker(self.runtime, handle(self.index, generation, index));
        let mut context = Context::from_waker(&waker);
        let outcome = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        if let Ok(Poll::Pending) = outcome {
            self.table.borrow_mut().put_back(index, future);
            return;
        }
        // A panic while dropping what a panic left behind is contained too.
        let dropped = catch_unwind(AssertUnwindSafe(move || drop(future)));
        self.close(index, outcome.is_err() || dropped.is_err());
    }

    fn close(&self, index: u32, panicked: bool) {
        let Some(slot) = self.table.borrow_mut().close(index) else { return };
        let generation = self.table.borrow().generation(index);
        let agent = slot.is_agent();
        if agent {
            self.own().words.renew(index, generation);
        }
        self.mailbox_bytes.set(self.mailbox_bytes.get().saturating_sub(slot.bytes() as u64));
        let undelivered = discard(slot);
        self.taken(undelivered);
        let mut stats = self.stats.borrow_mut();
        stats.dead_letters += undelivered;
        stats.live_agents -= u64::from(agent);
        stats.panicked += u64::from(agent && panicked);
        stats.stopped += u64::from(agent && !panicked);
    }

    /// Makes this pass' messages visible and rings the bells of sleepers.
    fn publish_messages(&self, ring: &mut dyn Doorbells) {
        let (mut bells, mut missed) = (0, false);
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
        !self.ready.borrow().is_empty()
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
        let tables =
            self.table.borrow().bytes() + self.wheel.borrow().bytes() + self.own().words.bytes();
        stats.state_bytes = tables as u64 + self.mailbox_bytes.get();
        stats.publish(&self.own().counters);
    }

    /// Seals the shard, waits until all have sealed, counts what nobody will read, drops every task on its
    /// own thread and reports.
    fn end(&self, ring: &mut dyn Doorbells) -> ShardReport {
        let mut drained = !self.has_work();
        self.closed.set(true);
        self.own().words.seal(self.table.borrow().len());
        self.publish_messages(ring);
        self.own().ending.seal();
        self.peers.iter().for_each(|peer| knock(peer.event()));
        while !self.peers.iter().all(|peer| peer.ending.is_sealed()) {
            ring.wait(Some(SEAL_WAIT_NS));
        }
        let mut undelivered = self.empty_rings() + self.asks.borrow().unread();
        let stats = *self.stats.borrow();
        let mut tasks_dropped = 0;
        let occupied = self.table.borrow().occupied();
        for index in occupied {
            let slot = self.table.borrow_mut().close(index);
            let Some(slot) = slot else { continue };
            tasks_dropped += u64::from(!slot.is_agent());
            undelivered += discard(slot);
        }
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
