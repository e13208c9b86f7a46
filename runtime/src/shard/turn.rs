//! A turn of an agent: what is noted when it begins and ends, how long it may take, what the clock says in it.

use super::slab::Header;
use super::{Shard, add};
use crate::agent::account;

impl Shard {
    /// A turn of an agent begins.
    #[inline]
    pub(crate) fn begin_turn(&self, header: &Header, me: u64) {
        self.now_ns.set(0);
        add(&self.counts.turns, 1);
        self.beat.runs(me, header.kind.get());
        if self.sampler.is_next() {
            self.sampler.begin(self.clock_ns());
        }
    }

    /// It ends.
    #[inline]
    pub(crate) fn end_turn(&self, header: &Header) {
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
        let now_ns = self.clock_ns();
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
        let now_ns = self.see();
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
