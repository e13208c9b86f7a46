//! Faulty links: what becomes of what other shards have sent while [`LinkFaults`] are set, or while something waits
//! for their sake. A loop of its own beside [`Shard::receive`]: a runtime without faults pays a test of a pointer per
//! look at a ring, one with faults that are off a load more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use super::marks::{FRESH, Marks};
use super::pace::{PASS_NS, Pace};
use super::path::Arrival;
use super::{Shard, add};
use crate::agent::{generation_of, index_of, shard_of};
use crate::channel::envelope::{Envelope, Travels};
use crate::channel::spsc::Consumer;
use crate::link::{LinkFault, LinkFaults};
use crate::panics::drop_contained;
use crate::shard::lane::Ack;
use crate::sim::Rng;

/// Longest sleep of a shard that has delayed messages, ns: nobody tells it that the links are whole again.
const LOOK_NS: u64 = 1_000_000;

/// A message that a link delays.
struct Delayed {
    taken_ns: u64,
    published_ns: u64,
    envelope: Envelope,
}

/// What one shard has sent and another one keeps back.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Delayed>,
    /// The share of agents whose messages are in it. While another one is set all that comes waits behind them:
    /// nothing may overtake.
    share_permille: u32,
}

/// The links into a shard.
pub(super) struct Link {
    faults: Arc<LinkFaults>,
    shard: usize,
    rng: RefCell<Rng>,
    lines: RefCell<Vec<Line>>,
    waiting: Cell<u32>,
    max: u32,
    /// When the first of them is due, as was last seen; `u64::MAX` when none waits.
    due_ns: Cell<u64>,
    /// Whether what is dropped is lost, and says nothing of its end.
    silent: Cell<bool>,
}

/// What becomes of a message.
enum Fate {
    Arrives,
    Waits,
    Lost,
    Overflows,
}

impl Link {
    pub(super) fn new(faults: &Arc<LinkFaults>, shard: usize, peers: usize, max: u32) -> Self {
        Self {
            faults: Arc::clone(faults),
            shard,
            rng: RefCell::new(Rng::new(Rng::new(faults.seed() ^ shard as u64).bits())),
            lines: RefCell::new((0..peers).map(|_| Line::default()).collect()),
            waiting: Cell::new(0),
            max,
            due_ns: Cell::new(u64::MAX),
            silent: Cell::new(false),
        }
    }

    #[inline]
    fn is_faulty(&self) -> bool {
        self.faults.is_on() || self.waiting.get() > 0
    }

    fn fate(&self, fault: &LinkFault, (peer, receiver): (usize, u64), travels: Travels) -> Fate {
        let suffers = is_chosen((self.shard, receiver), fault.share_permille);
        let covered = suffers && fault.covers(peer);
        if covered && travels.can_be_lost() && self.rng.borrow_mut().happens(fault.loss_ppm) {
            return Fate::Lost;
        }
        let line = &self.lines.borrow()[peer];
        let behind =
            !line.waiting.is_empty() && (suffers || line.share_permille != fault.share_permille);
        if !behind && (!covered || fault.delay_ns == 0) {
            return Fate::Arrives;
        }
        // The runtime's own are as many as there are places that agents have left.
        let room = self.waiting.get() < self.max || !travels.can_be_lost();
        if room { Fate::Waits } else { Fate::Overflows }
    }

    fn keep(&self, peer: usize, share_permille: u32, delayed: Delayed) {
        let line = &mut self.lines.borrow_mut()[peer];
        if line.waiting.is_empty() {
            line.share_permille = share_permille;
        }
        line.waiting.push_back(delayed);
        self.waiting.set(self.waiting.get() + 1);
    }

    /// The next message of a peer that has waited long enough.
    fn next_due(&self, peer: usize, delay_ns: u64, now_ns: u64) -> Option<Delayed> {
        let line = &mut self.lines.borrow_mut()[peer];
        let due = |first: &mut Delayed| first.taken_ns.saturating_add(delay_ns) <= now_ns;
        let first = line.waiting.pop_front_if(due)?;
        self.waiting.set(self.waiting.get() - 1);
        Some(first)
    }

    /// Notes when the first message is due.
    fn note_due(&self, fault: &LinkFault, hurries: bool) {
        let lines = self.lines.borrow();
        let due = |(peer, line): (usize, &Line)| {
            let delay_ns = delay_of(fault, peer, hurries);
            line.waiting.front().map(|first| first.taken_ns.saturating_add(delay_ns))
        };
        self.due_ns.set(lines.iter().enumerate().filter_map(due).min().unwrap_or(u64::MAX));
    }
}

/// Whether an agent of a shard is among those that suffer: by the number of its slot, whose bits are spread.
fn is_chosen((shard, receiver): (usize, u64), share_permille: u32) -> bool {
    let place = (shard as u64) << 32 | u64::from(index_of(receiver));
    matches!(share_permille, 0 | 1_000..) || Rng::new(place).below(1_000) < share_permille.into()
}

/// How long what a shard has sent waits. Who stops the runtime does not wait for its links.
const fn delay_of(fault: &LinkFault, peer: usize, hurries: bool) -> u64 {
    if hurries || !fault.covers(peer) { 0 } else { fault.delay_ns }
}

impl Shard {
    /// Whether what comes from other shards must be looked at one by one.
    #[inline]
    pub(super) fn has_faulty_links(&self) -> bool {
        self.link.as_deref().is_some_and(Link::is_faulty)
    }

    /// Whether what is dropped now is lost on a link: it must not tell its asker.
    #[inline]
    pub(crate) fn drops_in_silence(&self) -> bool {
        self.link.as_deref().is_some_and(|link| link.silent.get())
    }

    /// Messages that links delay.
    pub(crate) fn delayed(&self) -> u64 {
        self.link.as_deref().map_or(0, |link| link.waiting.get().into())
    }

    /// When a delayed message is due, as of the last round; none without one.
    pub(super) fn delayed_due_ns(&self) -> Option<u64> {
        self.link.as_deref().filter(|link| link.waiting.get() > 0).map(|link| link.due_ns.get())
    }

    /// How long the shard may sleep for the sake of delayed messages.
    pub(super) fn link_wait_ns(&self, now_ns: u64) -> Option<u64> {
        self.delayed_due_ns().map(|due_ns| due_ns.saturating_sub(now_ns).clamp(1, LOOK_NS))
    }

    /// [`Shard::receive`] from one shard over a link with faults; returns the clock as last seen.
    #[cold]
    #[inline(never)]
    pub(super) fn receive_faulty(
        &self,
        peer: usize,
        ring: &mut Consumer<Envelope>,
        line: &Marks,
        now_ns: u64,
    ) -> u64 {
        let Some(link) = self.link.as_deref() else { return now_ns };
        assert!(!link.faults.ends(link.shard), "shard {} was told to end", link.shard);
        let (fault, hurries) = (link.faults.get(), self.own().ending.is_stopping());
        let waiting = ring.waiting();
        if waiting > 0 {
            line.note(waiting, self.arrivals_seen_ns(now_ns));
        }
        let mut pace = Pace::new((now_ns, PASS_NS));
        let mut arrived = 0;
        let mut goes_on = true;
        let delay_ns = delay_of(&fault, peer, hurries);
        while goes_on && let Some(delayed) = link.next_due(peer, delay_ns, pace.now_ns) {
            self.give_delayed(delayed, pace.now_ns);
            arrived += 1;
            goes_on = pace.goes_on(self.beat.must_yield(), || self.see());
        }
        let mut taken = false;
        while goes_on && ring.has_some() {
            if self.stamps.is_on() {
                self.note_arrival(ring, line);
            }
            line.read();
            self.set_since(line.since_ns());
            let Some(envelope) = ring.pop() else { break };
            taken = true;
            arrived += self.take_faulty((link, &fault), peer, envelope, pace.now_ns);
            goes_on = pace.goes_on(self.beat.must_yield(), || self.see());
        }
        add(&self.counts.arrived, arrived);
        if taken {
            ring.release();
        }
        self.end_arrivals();
        link.note_due(&fault, hurries);
        pace.now_ns
    }

    /// Gives a message that has waited to its agent. It is seen now: that it has waited is the link's doing.
    fn give_delayed(&self, delayed: Delayed, now_ns: u64) {
        let (published_ns, seen_ns) = (delayed.published_ns, self.arrivals_seen_ns(now_ns));
        self.set_since(FRESH);
        self.take_in_hand(Arrival { published_ns, seen_ns, aside_ns: 0 });
        delayed.envelope.deliver(self);
        self.drop_hand();
    }

    /// Decides on a message that a ring has brought; returns 1 unless it is yet to arrive.
    fn take_faulty(
        &self,
        (link, fault): (&Link, &LinkFault),
        peer: usize,
        envelope: Envelope,
        now_ns: u64,
    ) -> u64 {
        let receiver = envelope.receiver(self);
        match link.fate(fault, (peer, receiver), envelope.travels()) {
            Fate::Arrives => envelope.deliver(self),
            Fate::Waits => {
                let (taken_ns, published_ns) = (now_ns, self.arrival(false).published_ns);
                let delayed = Delayed { taken_ns, published_ns, envelope };
                link.keep(peer, fault.share_permille, delayed);
                link.faults.note_delayed();
                self.stats.borrow_mut().link_delayed += 1;
                return 0;
            }
            Fate::Lost => {
                link.faults.note_dropped();
                self.stats.borrow_mut().link_dropped += 1;
                self.lose(link, envelope);
            }
            Fate::Overflows => {
                link.faults.note_overflowed();
                self.stats.borrow_mut().link_overflowed += 1;
                self.lose(link, envelope);
            }
        }
        1
    }

    /// Drops a message as if it had never come, and gives its place in the mailbox back.
    fn lose(&self, link: &Link, envelope: Envelope) {
        let to = envelope.to();
        if envelope.travels() == Travels::InPlace {
            let (index, generation) = (index_of(to), generation_of(to));
            self.acknowledge(shard_of(to), Ack { index, generation, count: 1, gone: false });
        }
        let before = link.silent.replace(true);
        drop_contained(envelope);
        link.silent.set(before);
    }

    /// Drops what waits when the shard ends; returns the messages among it.
    pub(super) fn empty_links(&self) -> u64 {
        let Some(link) = self.link.as_deref() else { return 0 };
        let lines: Vec<_> = link.lines.borrow_mut().iter_mut().map(std::mem::take).collect();
        link.waiting.set(0);
        link.due_ns.set(u64::MAX);
        let mut left = 0;
        for delayed in lines.into_iter().flat_map(|line| line.waiting) {
            left += u64::from(delayed.envelope.is_message());
            // Its drop is user code: a panic there must not keep the others waiting.
            drop_contained(delayed.envelope);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_agents_is_the_same_ones_and_as_many_as_it_says() {
        for permille in [1, 333, 999] {
            let chosen = |agent: u64| is_chosen((1, agent), permille);
            let count = (0..100_000).filter(|&agent| chosen(agent)).count();
            let (least, most) = (permille as usize * 90, permille as usize * 110 + 100);
            assert!((least..most).contains(&count), "{count} of 100,000 at {permille}");
            assert!((0..1_000).all(|agent| chosen(agent) == chosen(agent)));
        }
        assert!((0..1_000).all(|agent| is_chosen((0, agent), 0) && is_chosen((0, agent), 1_000)));
    }
}
