//! The loop of a shard in one screen, and its steps.

use std::rc::Rc;

use super::control::RETRY_NS;
use super::idle::Idling;
use super::pace::{PASS_NS, Pace};
use super::{Shard, add, marks};
use crate::agent::{CLASSES, index_of};
use crate::op::REAP_WAIT_NS;
use crate::ring::{Doorbells, knock};
use crate::timer::{Fired, TICK_NS};

/// Turns between two looks at the other cores, once a pass has done what waited when it began: agents that
/// keep each other busy keep nothing from other cores, and nothing of other cores waits for them.
const TURNS_PER_GLANCE: u32 = 4;
/// Messages behind the running one whose agents are being loaded.
const AHEAD: usize = 16;
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
pub(crate) fn run(shard: &Rc<Shard>, ring: &mut dyn Doorbells, idling: Idling) -> ShardReport {
    let mut rounds = Rounds::new(shard, idling);
    loop {
        match rounds.step(ring) {
            Step::Busy => {}
            Step::Idle if rounds.look_on(ring) => {}
            Step::Idle => {
                if let Some(wait_ns) = rounds.before_sleep(ring) {
                    ring.wait(wait_ns);
                    rounds.after_sleep(ring);
                }
            }
            Step::Waits(wait_ns) => ring.wait(Some(wait_ns)),
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
    /// To wait at its end, for so many ns at most: until its peers have sealed as it has, or until the kernel has let
    /// go of its operations.
    Waits(u64),
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
    idle_since_ns: u64,
    /// The clock at the end of the last round, if it was looked at then.
    looked_ns: Option<u64>,
    idling: Idling,
    stopping: bool,
    /// Whether the observer knows of the shard; turns of the last round.
    started: bool,
    turns: u32,
    /// Whether nothing was left to do when it sealed; none before.
    sealed: Option<bool>,
    /// What it reports, once its agents have ended; waits since the kernel has said anything.
    report: Option<ShardReport>,
    waits: u32,
}

impl Rounds {
    pub(crate) fn new(shard: &Rc<Shard>, idling: Idling) -> Self {
        let now_ns = shard.clock_ns();
        Self {
            shard: Rc::clone(shard),
            fired: Vec::with_capacity(TIMERS_PER_PASS),
            published_ns: 0,
            awake_since_ns: now_ns,
            asleep_since_ns: now_ns,
            idle_since_ns: now_ns,
            looked_ns: None,
            idling,
            stopping: false,
            started: false,
            turns: 0,
            sealed: None,
            report: None,
            waits: 0,
        }
    }

    /// Looks at every source of work once.
    pub(crate) fn step(&mut self, ring: &mut dyn Doorbells) -> Step {
        let shard = &Rc::clone(&self.shard);
        if !std::mem::replace(&mut self.started, true) {
            shard.tell(|observer| observer.started());
        }
        if let Some(drained) = self.sealed {
            return self.end(ring, drained);
        }
        self.stopping = shard.own().ending.is_stopping();
        if self.stopping {
            shard.own().ending.work();
        }
        shard.take_acks();
        // The last round of a busy shard ended with a look at the clock, a moment ago.
        let began_ns = self.looked_ns.take().unwrap_or_else(|| shard.see());
        let now = began_ns;
        shard.posted();
        shard.ops.complete(ring);
        // A bell that was submitted with operations, or was punted, may be told to have failed only now.
        shard.knock_instead(ring, false);
        let turns = shard.counts.turns.get();
        shard.fire(now, &mut self.fired);
        shard.retry(now);
        let now = shard.receive(now);
        // Answers to other cores do not wait for this one's own work.
        if shard.counts.sent.get() != shard.published.get() {
            shard.publish_messages(ring);
        }
        // What it received in its middle has looked at the clock too.
        let now = shard.pass(now, ring).max(shard.seen_ns());
        shard.arm_asks();
        shard.end_round();
        shard.now_ns.set(0);
        shard.beat.runs(0, None);
        let turns = u32::try_from(shard.counts.turns.get() - turns).unwrap_or(u32::MAX);
        self.turns = turns;
        shard.tell(|observer| observer.turn(now, turns));
        shard.publish_messages(ring);
        // By the counter it may be some ns earlier than what the clock has said a moment ago.
        if now.saturating_sub(self.published_ns) > PUBLISH_NS {
            shard.publish_stats(ring, now.saturating_sub(self.awake_since_ns));
            (self.published_ns, self.awake_since_ns) = (now, now);
        }
        // Before the look for work: an agent that is always ready must not outlive the drain.
        if shard.own().ending.is_closing() {
            self.sealed = Some(shard.seal(ring));
            return Step::Waits(SEAL_WAIT_NS);
        }
        let busy = shard.has_work();
        self.looked_ns = (busy && now > began_ns).then_some(now);
        if shard.ops.flush(ring, busy, now) { Step::Busy } else { Step::Idle }
    }

    /// What it does after it has sealed.
    fn end(&mut self, ring: &mut dyn Doorbells, drained: bool) -> Step {
        let shard = &Rc::clone(&self.shard);
        let all = shard.peers.iter().all(|peer| peer.ending.is_sealed());
        if !all {
            return Step::Waits(SEAL_WAIT_NS);
        }
        let report = *self.report.get_or_insert_with(|| shard.end_agents(drained));
        let Some(ops_leaked) = shard.ops.end(ring, &mut self.waits) else {
            return Step::Waits(REAP_WAIT_NS);
        };
        shard.end(ring);
        shard.tell(|observer| observer.ended());
        Step::Ended(ShardReport { ops_leaked, ..report })
    }

    /// Turns of the last round.
    pub(crate) const fn turns(&self) -> u32 {
        self.turns
    }

    /// Says that the shard is about to sleep, and looks once more. Returns for how long it may, at most;
    /// `None` when it must not.
    pub(crate) fn before_sleep(&mut self, ring: &mut dyn Doorbells) -> Option<Option<u64>> {
        let shard = &Rc::clone(&self.shard);
        if self.stopping && shard.counts.waiting.get() == 0 {
            shard.own().ending.rest(shard.counts.sent.get(), shard.counts.arrived.get());
        }
        let now_ns = shard.clock_ns();
        shard.publish_stats(ring, now_ns.saturating_sub(self.awake_since_ns));
        (self.awake_since_ns, self.asleep_since_ns) = (now_ns, now_ns);
        shard.beat.at(0);
        let sleep = &shard.own().sleep;
        sleep.prepare();
        let ending = &shard.own().ending;
        if shard.has_work() || ending.is_closing() || (ending.is_stopping() && !self.stopping) {
            sleep.awake();
            return None;
        }
        let next = shard.wheel.borrow().next_deadline();
        let slack_ns = shard.config.timer_slack_ns;
        let wait = next.map(|at| with_slack(at, slack_ns).saturating_sub(now_ns).max(1));
        // A peer that was taken from its core between emptying a full ring and saying so wakes nobody: what waits
        // for room there looks again.
        let held_up = shard.acks_out.borrow().iter().any(|acks| acks.waiting() > 0);
        let retry = (held_up || shard.control.is_waiting()).then_some(RETRY_NS);
        let blocked = Some(shard.retry_ns.get()).filter(|&at| at != u64::MAX);
        let blocked = blocked.map(|at| at.saturating_sub(now_ns).max(1));
        shard.stats.borrow_mut().parks += 1;
        let delayed = shard.link_wait_ns(now_ns);
        Some(wait.into_iter().chain(retry).chain(blocked).chain(delayed).min())
    }

    /// The shard has slept.
    pub(crate) fn after_sleep(&mut self, ring: &mut dyn Doorbells) {
        let shard = &Rc::clone(&self.shard);
        shard.own().sleep.awake();
        shard.knock_instead(ring, false);
        let now_ns = shard.clock_ns();
        self.idling.note(now_ns - self.idle_since_ns);
        shard.stats.borrow_mut().parked_ns += now_ns - self.asleep_since_ns;
        let from_ns = self.asleep_since_ns;
        shard.tell(|observer| observer.parked(from_ns, now_ns));
        (self.awake_since_ns, self.published_ns) = (now_ns, now_ns);
    }

    /// Looks on for a while before it sleeps, if that pays; whether there is something to do.
    pub(crate) fn look_on(&mut self, ring: &mut dyn Doorbells) -> bool {
        self.idle_since_ns = self.shard.clock_ns();
        if self.stopping {
            return false;
        }
        let from_ns = self.idle_since_ns;
        let (now_ns, found) = self.shard.look_on(ring, &self.idling, from_ns);
        if now_ns > from_ns {
            self.shard.tell(|observer| observer.spun(from_ns, now_ns));
        }
        // What was not busy is not counted as such.
        self.awake_since_ns += now_ns - self.idle_since_ns;
        if found {
            self.idling.note(now_ns - self.idle_since_ns);
        }
        found
    }
}

/// The instant to wake at for timers that fire from `at_ns` on, the end of a tick: one at which a tick ends too. At
/// any other instant a timer that is due there would wait for the next, and be later than the slack by a tick.
fn with_slack(at_ns: u64, slack_ns: u64) -> u64 {
    let slack_ns = slack_ns.max(1).next_multiple_of(TICK_NS);
    at_ns.checked_next_multiple_of(slack_ns).unwrap_or(at_ns)
}

impl Shard {
    /// Gives what other shards have sent to its agents; returns the clock as last seen.
    fn receive(&self, mut now_ns: u64) -> u64 {
        // In the middle of a pass it has just come, whatever the message before has waited.
        self.set_since(marks::FRESH);
        self.receive_control();
        // Taken out: handlers run meanwhile, and none of them receives.
        let mut consumers = self.consumers.take();
        self.receiving.set(true);
        let stamped = self.stamps.is_on();
        for (peer, (consumer, line)) in consumers.iter_mut().zip(&self.ring_marks).enumerate() {
            let Some(consumer) = consumer else { continue };
            if self.has_faulty_links() {
                now_ns = self.receive_faulty(peer, consumer, line, now_ns);
                continue;
            }
            let waiting = consumer.waiting();
            if waiting > 0 {
                line.note(waiting, self.arrivals_seen_ns(now_ns));
            }
            let mut pace = Pace::new((now_ns, PASS_NS));
            self.set_since(line.since_ns());
            while consumer.has_some() {
                if stamped {
                    self.note_arrival(consumer, line);
                }
                if line.read() {
                    self.set_since(line.since_ns());
                }
                consumer.deliver_next(self);
                consumer.peek(AHEAD, |ahead| self.slab.prefetch(index_of(ahead.to())));
                if !pace.goes_on(self.beat.must_yield(), || self.see()) {
                    break;
                }
            }
            if pace.turns > 0 {
                add(&self.counts.arrived, pace.turns.into());
                consumer.release();
            }
            now_ns = pace.now_ns;
            self.end_arrivals();
        }
        self.set_since(marks::FRESH);
        self.receiving.set(false);
        self.consumers.replace(consumers);
        now_ns
    }

    /// Runs what threads without a ring have posted.
    fn posted(self: &Rc<Self>) {
        if !self.own().has_posted() {
            return;
        }
        let jobs = self.own().take_jobs();
        self.begin_jobs();
        self.take_woken();
        jobs.into_iter().for_each(|job| job(self));
    }

    /// Delivers due timers in the order of their deadlines.
    fn fire(&self, now_ns: u64, fired: &mut Vec<Fired>) {
        fired.clear();
        self.wheel.borrow_mut().advance(now_ns, fired, TIMERS_PER_PASS);
        if fired.is_empty() {
            return;
        }
        let mut stats = self.stats.borrow_mut();
        stats.timers_fired += fired.len() as u64;
        let late = now_ns.saturating_sub(fired[0].deadline_ns);
        stats.timer_late_max_ns = stats.timer_late_max_ns.max(late);
        drop(stats);
        let fired_ns = self.fired_ns();
        fired.iter().for_each(|timer| self.give_timer(timer, fired_ns));
    }

    /// Gives messages of this shard to its agents, class by class, until the queues are empty or the pass is
    /// over; returns the clock as last seen.
    fn pass(&self, mut now_ns: u64, ring: &mut dyn Doorbells) -> u64 {
        let ready = |class: usize| !self.lines[class].queue.is_empty();
        let shares: u32 =
            (0..CLASSES).filter(|&c| ready(c)).map(|c| self.config.class_shares[c]).sum();
        let due_ns = |share: u32| PASS_NS * u64::from(share) / u64::from(shares.max(share));
        self.pass_over_debts(due_ns);
        for (class, &share) in self.config.class_shares.iter().enumerate() {
            let line = &self.lines[class];
            if line.queue.is_empty() {
                line.debt_ns.set(0);
                continue;
            }
            let due_ns = due_ns(share);
            let debt_ns = line.debt_ns.get();
            // One that has the core for itself owes nobody.
            if share < shares && debt_ns >= due_ns {
                line.debt_ns.set(debt_ns - due_ns);
                continue;
            }
            let length_ns = if share < shares { due_ns - debt_ns } else { due_ns };
            let (end_ns, own_ns) = self.pass_of(class, (now_ns, length_ns), ring);
            line.debt_ns.set(own_ns.saturating_sub(length_ns));
            now_ns = end_ns;
        }
        now_ns
    }

    /// Passes over the rounds in which all classes that have work would pay their debts and none would have a turn:
    /// when the core was taken away in the middle of a turn of each, these were thousands.
    fn pass_over_debts(&self, due_ns: impl Fn(u32) -> u64) {
        let debts = self.lines.iter().zip(&self.config.class_shares);
        let debts = debts.filter(|(line, _)| !line.queue.is_empty());
        let debts = debts.map(|(line, &share)| (&line.debt_ns, due_ns(share).max(1)));
        let mut passes = u64::MAX;
        for (debt_ns, due_ns) in debts.clone() {
            if debt_ns.get() < due_ns {
                return;
            }
            passes = passes.min(debt_ns.get() / due_ns);
        }
        debts.for_each(|(debt_ns, due_ns)| debt_ns.set(debt_ns.get() - passes * due_ns));
    }

    /// Notes time that a class had beyond its share.
    #[cfg(test)]
    pub(crate) fn owe(&self, class: usize, debt_ns: u64) {
        self.lines[class].debt_ns.set(debt_ns);
    }

    /// Whether another core has sent something. What stops an agent that keeps its core busy must not wait for the
    /// end of its pass.
    fn is_called(&self) -> bool {
        self.control.has_some()
            || self.consumers.borrow_mut().iter_mut().flatten().any(super::Consumer::has_some)
    }

    /// Gives messages of a class to its agents for a while; returns the clock as last seen, and the time that they
    /// have had: what has come from other cores meanwhile is not theirs.
    fn pass_of(
        &self,
        class: usize,
        (from_ns, length_ns): (u64, u64),
        ring: &mut dyn Doorbells,
    ) -> (u64, u64) {
        let line = &self.lines[class];
        let mut pace = Pace::new((from_ns, length_ns));
        // Turns up to which this shard does what waited when it last looked at the others.
        let mut own = line.waiting();
        let (mut counted, mut again) = (0, line.again.get() > 0);
        line.marks.note(line.queue.len(), from_ns);
        self.set_since(line.marks.since_ns());
        while !line.queue.is_empty() {
            if line.marks.read() {
                self.set_since(line.marks.since_ns());
            }
            if again {
                self.recall_arrival(line);
            }
            line.queue.deliver_next(self);
            if let Some(ahead) = line.queue.peek(AHEAD) {
                self.slab.prefetch(index_of(ahead.to()));
                self.lanes[self.index].prefetch(index_of(ahead.to()));
            }
            if !pace.goes_on(self.beat.must_yield(), || self.see()) {
                break;
            }
            if pace.turns < own || !self.has_news(pace.turns) {
                continue;
            }
            line.read(pace.turns - std::mem::replace(&mut counted, pace.turns));
            self.drop_hand();
            let arrived = self.counts.arrived.get();
            self.exchange(pace.now_ns, ring);
            let arrived = self.counts.arrived.get() - arrived;
            pace.others = pace.others.saturating_add(u32::try_from(arrived).unwrap_or(u32::MAX));
            if self.lines[..class].iter().any(|urgent| !urgent.queue.is_empty()) {
                break;
            }
            own = pace.turns.saturating_add(line.waiting());
            again = line.again.get() > 0;
            self.set_since(line.marks.since_ns());
        }
        self.set_since(marks::FRESH);
        self.drop_hand();
        line.read(pace.turns - counted);
        (pace.now_ns, pace.own_ns())
    }

    /// Whether something is to be sent to other cores, or has come from them; the latter is looked at every few
    /// turns.
    fn has_news(&self, turns: u32) -> bool {
        self.counts.sent.get() != self.published.get()
            || (turns.is_multiple_of(TURNS_PER_GLANCE) && self.is_called())
    }

    /// Sends what waits for other cores and takes what has come from them, in the middle of a pass: an ask across
    /// busy cores would wait four times for the rest of a round otherwise.
    #[inline(never)]
    fn exchange(&self, now_ns: u64, ring: &mut dyn Doorbells) {
        if self.counts.sent.get() != self.published.get() {
            self.publish_messages(ring);
        }
        if self.is_called() {
            self.receive(now_ns);
            if self.counts.sent.get() != self.published.get() {
                self.publish_messages(ring);
            }
        }
    }

    /// Makes this pass' messages visible and rings the bells of sleepers.
    pub(super) fn publish_messages(&self, ring: &mut dyn Doorbells) {
        self.published.set(self.counts.sent.get());
        let (mut bells, mut missed) = (0, false);
        let mut acks = self.acks_out.borrow_mut();
        let producers = &mut *self.producers.borrow_mut();
        for (peer, (producer, acks)) in producers.iter_mut().zip(&mut *acks).enumerate() {
            // Acks alone wake nobody, but one whose ring is full, or who waits for room.
            let wanted = acks.publish_acks();
            let Some(producer) = producer else { continue };
            let control = self.control.publish(peer);
            if !(self.publish_to(producer) | control | wanted) {
                continue;
            }
            add(&self.counts.publications, 1);
            if self.peers[peer].sleep.notify() {
                missed |= !self.peers[peer].queue_bell(ring, peer);
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
        self.lines.iter().any(|line| !line.queue.is_empty())
            || self.own().has_posted()
            || self.control.has_some()
            || self.consumers.borrow_mut().iter_mut().flatten().any(super::Consumer::has_some)
            || self.acks_out.borrow_mut().iter_mut().any(super::Outbox::can_go_on)
            // One that is full holds up the acks behind it.
            || self.acks_in.borrow_mut().iter_mut().flatten().any(super::Consumer::is_full)
            // One look at the clock for both: time that passes between two would be work that nobody has seen.
            || self.next_due_ns().is_some_and(|at| at <= self.clock_ns())
    }

    /// When a timer or a delayed message is due next.
    fn next_due_ns(&self) -> Option<u64> {
        let timer = self.wheel.borrow().next_deadline();
        timer.into_iter().chain(self.delayed_due_ns()).min()
    }

    pub(super) fn publish_stats(&self, ring: &dyn Doorbells, busy_ns: u64) {
        let mut stats = self.stats.borrow_mut();
        stats.busy_ns += busy_ns;
        let calls = ring.calls();
        (stats.enters, stats.ring_failed) = (calls.enters, calls.failed);
        stats.timers_pending = u64::from(self.wheel.borrow().pending());
        stats.heartbeat_ns = self.clock_ns();
        stats.turns = self.counts.turns.get();
        stats.publications = self.counts.publications.get();
        stats.control_waiting_max = self.control.waiting_max() as u64;
        self.ops.count(&mut stats);
        stats.messages_local = self.counts.local.get();
        stats.messages_sent_remote = self.counts.sent.get();
        let lost = stats.link_dropped + stats.link_overflowed;
        stats.messages_received_remote = self.counts.arrived.get() - lost;
        stats.link_waiting = self.delayed();
        stats.asks_open = self.asks.borrow().open_count();
        stats.agents_related = self.kins.borrow().len() as u64;
        stats.slots_live = self.slab.live().into();
        stats.futures_bytes = self.scratch.held() as u64;
        stats.state_bytes = self.bytes() as u64;
        stats.publish(&self.own().counters);
    }

    /// Bytes of slots, states, futures, queues, credits and timers.
    fn bytes(&self) -> usize {
        let lanes: usize = self.lanes.iter().map(super::Lane::bytes).sum();
        let queues: usize = self.lines.iter().map(|line| line.queue.bytes()).sum();
        let messages = queues + lanes;
        self.slab.bytes() + self.scratch.held() + messages + self.wheel.borrow().bytes()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::timer::Wheel;

    #[test]
    fn a_timer_of_a_shard_that_sleeps_is_late_by_its_slack_and_no_more() {
        for (slack_ns, most_ns) in [(0, TICK_NS), (200_000, 2 * TICK_NS), (1_000_000, 8 * TICK_NS)]
        {
            let mut wheel = Wheel::new(0, 1).expect("address space");
            let (mut now_ns, mut late_ns, mut fired) = (0, 0, Vec::new());
            for n in 0..20_000u64 {
                let deadline_ns = now_ns + 5_000_000 + n * 10_007 % 2_000_000;
                assert!(wheel.insert(deadline_ns, 0, None).is_some());
                while fired.is_empty() {
                    now_ns = with_slack(wheel.next_deadline().expect("it pends"), slack_ns);
                    wheel.advance(now_ns, &mut fired, 1);
                }
                late_ns = late_ns.max(now_ns - fired[0].deadline_ns);
                fired.clear();
            }
            assert!(
                late_ns <= most_ns && late_ns > most_ns - TICK_NS / 2,
                "{late_ns} of {most_ns}"
            );
        }
    }
}
