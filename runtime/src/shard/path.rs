//! How what a handler has in hand came here: when it was published, seen, set aside, and taken. Most of it is not
//! stamped but known from where it lies; what is stamped is shared by all that a stamp holds for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hint;

use super::marks::{FRESH, Marks};
use super::{Line, Shard};
use crate::agent::{WakeUp, shard_of};
use crate::channel::envelope::Envelope;
use crate::channel::spsc::{Consumer, Producer};

/// How what the running handler has in hand came here, by `CLOCK_MONOTONIC`, ns. For the first poll of a handler
/// that is its message; for a later poll what has woken it: an answer, a timer, a completion.
///
/// `published_ns <= seen_ns <= aside_ns <= turn_ns`, those that are 0 left out. Nothing here is exact but `turn_ns`:
/// `published_ns` and `seen_ns` hold for all messages that one publication, or one look, has brought. With
/// `Config::turn_stamps` off all are those of looks at the clock, a few us apart or as long as turns take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Path {
    /// When it was made visible to this core, by the clock of the sending one; 0 when it comes from this core.
    pub published_ns: u64,
    /// When this core has seen it. What comes from this core is seen when the queue is looked at next, or if that
    /// was earlier when it was sent; a timer when it has fired; a wake when it was made.
    pub seen_ns: u64,
    /// When it was set aside because its agent's handler was suspended; 0 when it was not.
    pub aside_ns: u64,
    /// When this turn began.
    pub turn_ns: u64,
}

/// [`Cx::path`](crate::Cx::path) of the poll that runs on this thread, for futures without a context at hand; none
/// on a thread without a shard. A thread-local and a few loads.
#[must_use]
pub fn poll_path() -> Option<Path> {
    let mut path = None;
    super::with_current(|shard| path = Some(shard.path()));
    path
}

/// How an item that waits came here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrival {
    /// 0 is this core.
    pub(crate) published_ns: u64,
    pub(crate) seen_ns: u64,
    /// 0 is not.
    pub(crate) aside_ns: u64,
}

/// The turn that runs, and what it has in hand beyond `Shard::since_ns`.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// When the turn began.
    pub(super) turn_ns: Cell<u64>,
    /// Whose turn it is until the next stamp says that it has ended; 0 is nobody's.
    pub(super) agent: Cell<u64>,
    /// Whether it has not ended.
    pub(super) inside: Cell<bool>,
    /// No look before this instant is told to the observer.
    pub(super) look_at_ns: Cell<u64>,
    published_ns: Cell<u64>,
    /// When it was seen, if that is not what the marks of its queue say; 0 otherwise.
    seen_ns: Cell<u64>,
    aside_ns: Cell<u64>,
}

/// What is known of messages that rings have brought and that wait among those of their class.
#[derive(Default)]
pub(super) struct Again(RefCell<VecDeque<Arrival>>);

impl Shard {
    /// How what is in hand came here.
    pub(crate) fn path(&self) -> Path {
        let turn_ns = self.turn_began_ns();
        let (published_ns, seen_ns) = self.way_here();
        Path {
            published_ns: published_ns.min(turn_ns),
            seen_ns: seen_ns.min(turn_ns),
            aside_ns: self.hand.aside_ns.get().min(turn_ns),
            turn_ns,
        }
    }

    /// When what is in hand was published and seen.
    fn way_here(&self) -> (u64, u64) {
        let seen_ns = match (self.hand.seen_ns.get(), self.since_ns()) {
            (0, FRESH) => self.seen_ns(),
            (0, since_ns) => since_ns,
            (seen_ns, _) => seen_ns,
        };
        let published_ns = match self.hand.published_ns.get() {
            // Without stamps no more is known than that it comes from elsewhere.
            0 if self.receiving.get() && !self.stamps.is_on() => seen_ns,
            published_ns => published_ns.min(seen_ns),
        };
        (published_ns, seen_ns)
    }

    /// When the turn began that runs.
    #[inline]
    pub(crate) fn turn_began_ns(&self) -> u64 {
        if self.stamps.is_on() { self.hand.turn_ns.get() } else { self.seen_ns() }
    }

    /// Notes what is known of the next message of a ring: since when it is published, and seen if it has come after
    /// the last note. A few loads and a store for most: the turn before may have had something else in hand.
    #[inline]
    pub(super) fn note_arrival(&self, ring: &mut Consumer<Envelope>, line: &Marks) {
        if line.is_read_out() || ring.is_of_next_publication() {
            self.note_publication(ring, line);
        }
        self.hand.published_ns.set(ring.last_published_ns());
    }

    #[inline(never)]
    fn note_publication(&self, ring: &mut Consumer<Envelope>, line: &Marks) {
        if line.is_read_out() {
            line.note(ring.known(), self.stamp());
        }
        ring.published_ns();
    }

    /// Makes what was sent to a peer visible there, with the time if the ring is a dated one. Also while stamps are
    /// switched off: a reader that is on counts every publication.
    #[inline]
    pub(super) fn publish_to(&self, producer: &mut Producer<Envelope>) -> bool {
        if !producer.has_news() {
            return false;
        }
        let at_ns = if self.stamps.is_on() { self.stamp() } else { self.seen_ns() };
        producer.publish_at(at_ns)
    }

    /// The ring's messages are read.
    #[inline]
    pub(super) fn end_arrivals(&self) {
        self.hand.published_ns.set(0);
    }

    /// When what a ring has is seen, ns.
    pub(super) fn arrivals_seen_ns(&self, now_ns: u64) -> u64 {
        if self.stamps.is_on() { self.stamp() } else { now_ns }
    }

    /// How what is in hand came here, for when it is taken later; set aside for an agent, or not.
    pub(crate) fn arrival(&self, aside: bool) -> Arrival {
        let (published_ns, seen_ns) = self.way_here();
        let aside_ns = match self.hand.aside_ns.get() {
            0 if !aside => 0,
            0 if self.stamps.is_on() => self.stamp(),
            0 => self.seen_ns(),
            // Put back: it has waited all the while.
            aside_ns => aside_ns,
        };
        Arrival { published_ns, seen_ns, aside_ns }
    }

    /// Takes something in hand that came another way than what the queue says; returns what was there.
    pub(crate) fn take_in_hand(&self, arrival: Arrival) -> Arrival {
        Arrival {
            published_ns: self.hand.published_ns.replace(arrival.published_ns),
            seen_ns: self.hand.seen_ns.replace(arrival.seen_ns),
            aside_ns: self.hand.aside_ns.replace(arrival.aside_ns),
        }
    }

    /// Runs a turn of what came that way, published and seen; as the queue says when that is 0.
    #[inline]
    pub(crate) fn with_in_hand<R>(
        &self,
        (published_ns, seen_ns): (u64, u64),
        turn: impl FnOnce() -> R,
    ) -> R {
        let stamped = seen_ns != 0;
        let mut before = Arrival::default();
        if stamped {
            let aside_ns = self.hand.aside_ns.get();
            before = self.take_in_hand(Arrival { published_ns, seen_ns, aside_ns });
        }
        // Called from one place, stamped or not: the call stack of a leak must not change when stamps are switched on. A
        // compiler that knows the second test by the first one makes two calls of it.
        let stamped = hint::black_box(stamped);
        let result = turn();
        if stamped {
            self.take_in_hand(before);
        }
        result
    }

    /// When something fires now, ns; 0 without stamps.
    pub(crate) fn fired_ns(&self) -> u64 {
        if self.stamps.is_on() { self.stamp() } else { 0 }
    }

    /// A wake of this instant.
    #[inline]
    pub(super) fn wake_up(&self) -> WakeUp {
        if self.stamps.is_on() { self.wake_stamped() } else { WakeUp::default() }
    }

    #[inline(never)]
    fn wake_stamped(&self) -> WakeUp {
        let (published_ns, seen_ns) = self.way_here();
        if self.hand.inside.get() {
            // In the middle of a turn, which goes on.
            let seen_ns = self.stamps.now_ns(&self.clock);
            WakeUp { published_ns: 0, seen_ns }
        } else if published_ns != 0 {
            // An answer that a ring has brought.
            WakeUp { published_ns, seen_ns }
        } else {
            WakeUp { published_ns: 0, seen_ns: self.stamp() }
        }
    }

    /// Keeps what is known of a message that must wait among those of its class. Also without stamps: they may be
    /// switched on while it waits, and each is taken out by its own message.
    pub(super) fn keep_arrival(&self, line: &Line) {
        line.arrivals.0.borrow_mut().push_back(self.arrival(false));
    }

    /// Takes in hand what is known of the next message of a class: nothing, unless a ring had brought it.
    #[inline(never)]
    pub(super) fn recall_arrival(&self, line: &Line) {
        let from_ring = line.queue.peek(0).is_some_and(|next| shard_of(next.to()) != self.index);
        let arrival = from_ring.then(|| line.arrivals.0.borrow_mut().pop_front()).flatten();
        self.take_in_hand(arrival.unwrap_or_default());
    }

    /// Nothing is in hand any more.
    #[inline]
    pub(crate) fn drop_hand(&self) {
        self.take_in_hand(Arrival::default());
    }

    pub(crate) fn ready(&self) -> u64 {
        self.lines.iter().map(|line| line.queue.len() as u64).sum()
    }

    pub(crate) const fn aside(&self) -> u64 {
        self.counts.waiting.get()
    }

    pub(crate) fn in_rings(&self) -> u64 {
        let rings = self.gauges.iter().zip(&self.ring_marks);
        rings
            .filter_map(|(gauge, marks)| {
                gauge.as_ref().map(|gauge| marks.behind(gauge.published()))
            })
            .sum()
    }

    pub(crate) const fn unpublished(&self) -> u64 {
        // One that was taken back may have been among the published.
        self.counts.sent.get().saturating_sub(self.published.get())
    }
}
