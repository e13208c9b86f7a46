//! A turn of an agent: what is noted when it begins and ends, how long it may take, what the clock says in it.

use super::slab::Header;
use super::{Shard, add, pace};
use crate::agent::{AgentId, account};
use crate::observe::{Observer, Queues};
use crate::panics::contain;

impl Shard {
    /// A turn of an agent begins.
    #[inline]
    pub(crate) fn begin_turn(&self, header: &Header, me: u64) {
        self.now_ns.set(0);
        add(&self.counts.turns, 1);
        self.beat.runs(me, header.kind.get());
        // With stamps each turn is a next one: without them they cost nothing here.
        if self.sampler.is_next() {
            self.begin_noted(me);
        }
    }

    /// It ends.
    #[inline]
    pub(crate) fn end_turn(&self, header: &Header) {
        self.end_stamped();
        if self.sampler.is_on() {
            self.sampler.end(header, self.clock_ns());
        }
    }

    /// Notes how long the message in hand has waited.
    #[inline]
    pub(crate) fn note_age(&self, header: &Header) {
        if self.age.get() > header.age_max.get() {
            header.age_max.set(self.age.get());
        }
    }

    /// Works out the age of the message in hand anew: it changes with a look at the clock, and not with each
    /// message.
    #[inline]
    fn find_age(&self) {
        let waited_ns = self.seen_ns.get().saturating_sub(self.since_ns.get());
        self.age.set(u32::try_from(waited_ns >> account::AGE_BITS).unwrap_or(u32::MAX));
    }

    /// The clock at the last look, ns.
    #[inline]
    pub(crate) const fn seen_ns(&self) -> u64 {
        self.seen_ns.get()
    }

    /// Looks at the clock.
    #[inline]
    pub(crate) fn see(&self) -> u64 {
        let now_ns = if self.stamps.is_on() { self.see_stamped() } else { self.clock_ns() };
        self.seen_ns.set(now_ns);
        self.find_age();
        self.beat.at(now_ns);
        now_ns
    }

    /// Since when the message in hand was seen to wait, ns.
    pub(crate) const fn since_ns(&self) -> u64 {
        self.since_ns.get()
    }

    #[inline]
    pub(crate) fn set_since(&self, since_ns: u64) {
        self.since_ns.set(since_ns);
        self.find_age();
    }

    /// An agent begins to take the messages that waited for it.
    pub(crate) fn begin_budget(&self) {
        self.turn_left.set(self.config.turn_messages);
        self.turn_end_ns.set(0);
        self.turn_look.set(u32::MAX);
    }

    /// Whether the running agent may take another message in this turn.
    pub(crate) fn may_continue(&self) -> bool {
        let left = self.turn_left.get();
        if left == 0 {
            return false;
        }
        self.turn_left.set(left - 1);
        // It looks at the clock at the first message and the second, then by how long they took.
        if left > self.turn_look.get() && !self.beat.must_yield() {
            return true;
        }
        let now_ns = self.see();
        let (all, turn_ns) = (self.config.turn_messages, self.config.turn_ns);
        if self.turn_end_ns.get() == 0 {
            self.turn_end_ns.set(now_ns + turn_ns);
            self.turn_look.set(left - 1);
            return true;
        }
        let spent_ns = (now_ns + turn_ns).saturating_sub(self.turn_end_ns.get());
        let next = pace::fit(turn_ns / 8, u64::from(all - left), spent_ns);
        self.turn_look.set(left.saturating_sub(next));
        now_ns < self.turn_end_ns.get()
    }

    /// The clock at the first look of this turn.
    pub(crate) fn turn_now_ns(&self) -> u64 {
        if self.now_ns.get() == 0 {
            self.read_ns();
        }
        self.now_ns.get()
    }

    /// Looks at the clock in the middle of a turn. What follows is not stamped earlier.
    pub(crate) fn read_ns(&self) -> u64 {
        let now_ns = self.clock_ns();
        self.now_ns.set(now_ns);
        self.stamps.follow(now_ns);
        now_ns
    }

    /// A stamp in the middle of a turn, which goes on; the clock where stamps are off or have no counter.
    #[inline]
    pub(crate) fn stamp_in_turn_ns(&self) -> u64 {
        if self.stamps.is_counted() { self.stamps.now_ns(&self.clock) } else { self.read_ns() }
    }

    /// A turn begins: one stamp for its begin and for the end of the one before.
    #[inline(never)]
    fn begin_noted(&self, me: u64) {
        if !self.stamps.is_on() {
            return self.begin_timed();
        }
        self.hand.turn_ns.set(self.stamp());
        self.hand.agent.set(me);
        self.hand.inside.set(true);
        if self.sampler.is_next_stamped() {
            self.begin_timed();
        }
    }

    /// A turn begins that is timed. The clock is read as without stamps, which so change nothing in a simulation.
    #[cold]
    #[inline(never)]
    fn begin_timed(&self) {
        let now_ns = self.clock_ns();
        if self.stamps.is_on() {
            self.sampler.begin_stamped(now_ns);
        } else {
            self.sampler.begin(now_ns);
        }
    }

    /// It ends; the next stamp says when.
    #[inline]
    pub(super) fn end_stamped(&self) {
        self.hand.inside.set(false);
    }

    /// The time between two turns, ns.
    pub(crate) fn stamp(&self) -> u64 {
        let now_ns = self.stamps.now_ns(&self.clock);
        self.close_turn(now_ns);
        now_ns
    }

    /// Ends the last turn if none has begun since.
    pub(super) fn close_turn(&self, now_ns: u64) {
        let agent = self.hand.agent.take();
        let from_ns = self.hand.turn_ns.get();
        let len_ns = now_ns.saturating_sub(from_ns);
        if agent != 0 && len_ns >= self.long_turn_ns {
            self.tell_long(agent, from_ns, len_ns);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_long(&self, agent: u64, from_ns: u64, len_ns: u64) {
        self.tell(|observer| observer.long_turn(AgentId::of(agent), from_ns, len_ns));
    }

    /// Ends the last turn of a round.
    pub(super) fn end_round(&self) {
        if self.hand.agent.get() != 0 {
            self.stamp();
        }
    }

    /// Closures of other threads run between turns, and begin now.
    pub(super) fn begin_jobs(&self) {
        if self.stamps.is_on() {
            self.hand.turn_ns.set(self.stamp());
        }
    }

    /// [`Shard::see`] with stamps.
    #[inline(never)]
    pub(super) fn see_stamped(&self) -> u64 {
        let now_ns = self.stamps.see_ns(&self.clock);
        self.close_turn(now_ns);
        if now_ns >= self.hand.look_at_ns.get() {
            self.tell_look(now_ns);
        }
        now_ns
    }

    #[inline(never)]
    fn tell_look(&self, now_ns: u64) {
        self.hand.look_at_ns.set(0);
        self.tell(|observer| self.hand.look_at_ns.set(observer.look(now_ns, &Queues::of(self))));
    }

    /// Whether turns are stamped.
    #[inline]
    pub(crate) const fn is_stamped(&self) -> bool {
        self.stamps.is_on()
    }

    /// Switches the stamps of turns off or on. A turn of before is not one that lasted until after; the one that runs
    /// begins now.
    pub(crate) fn set_stamps(&self, on: bool) {
        let was_on = self.stamps.is_on();
        self.hand.agent.set(0);
        self.stamps.set_on(on, &self.clock);
        if self.stamps.is_on() == was_on {
            return;
        }
        // Without stamps most turns are not looked at, and which is the next one was drawn: with them each is.
        self.sampler.set_stamped(!was_on);
        if !was_on {
            self.hand.turn_ns.set(self.stamps.now_ns(&self.clock));
        }
    }

    /// Tells the observer, which is the user's: what it panics with takes no shard down.
    pub(super) fn tell(&self, what: impl FnOnce(&mut dyn Observer)) {
        let _ = contain(|| what(self.observer.borrow_mut().as_mut()));
    }

    /// Has an observer be told from now on.
    pub(crate) fn observe(&self, observer: Box<dyn Observer>) {
        drop(self.observer.replace(observer));
        self.hand.look_at_ns.set(0);
    }
}
