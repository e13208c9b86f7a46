//! A second ring per ordered pair of shards for what must not wait behind data: stops, supervision,
//! credits. It is read first, and what it has no room for waits at its sender.

use std::cell::{Cell, RefCell};

use super::{Shard, add};
use crate::agent::{Class, Key};
use crate::channel::envelope::Envelope;
use crate::channel::outbox::Outbox;
use crate::channel::spsc::{Consumer, Producer};
use crate::panics::drop_contained;

/// Longest sleep of a shard with control messages that had no room, ns: nobody tells it of room.
pub(super) const RETRY_NS: u64 = 100_000;

/// The control rings of a shard, by peer.
pub(crate) struct ControlRings {
    outboxes: RefCell<Vec<Outbox<Envelope, Key>>>,
    arrivals: RefCell<Vec<Option<Consumer<Envelope>>>>,
    /// Messages that have had no room, now and at most.
    waiting: Cell<usize>,
    waiting_max: Cell<usize>,
}

impl ControlRings {
    pub(super) fn new(
        producers: Vec<Option<Producer<Envelope>>>,
        consumers: Vec<Option<Consumer<Envelope>>>,
    ) -> Self {
        Self {
            outboxes: RefCell::new(producers.into_iter().map(Outbox::new).collect()),
            arrivals: RefCell::new(consumers),
            waiting: Cell::new(0),
            waiting_max: Cell::new(0),
        }
    }

    /// Makes visible what was sent to a peer; `false` when there was nothing new.
    pub(super) fn publish(&self, peer: usize) -> bool {
        self.outboxes.borrow_mut().get_mut(peer).is_some_and(|outbox| {
            let before = outbox.waiting();
            let news = outbox.publish();
            self.waiting.set(self.waiting.get() - (before - outbox.waiting()));
            news
        })
    }

    /// Whether a message has come.
    pub(super) fn has_some(&self) -> bool {
        self.arrivals.borrow_mut().iter_mut().flatten().any(Consumer::has_some)
    }

    /// Whether a message has had no room.
    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Most messages that have ever waited for room.
    pub(super) const fn waiting_max(&self) -> usize {
        self.waiting_max.get()
    }
}

impl Shard {
    /// Sends past the data, here or to another shard; gives the message back when there is no such shard or
    /// it is too late. It is never refused for want of room: that not too many wait is the caller's
    /// duty, who sends as many as there are agents, credits or shards to speak of and not one per message, or
    /// takes back by its key what need not be said any more.
    pub(crate) fn push_control(
        &self,
        to_shard: usize,
        key: Option<Key>,
        message: Envelope,
    ) -> Result<(), Envelope> {
        if self.closed.get() {
            return Err(message);
        }
        if to_shard == self.index {
            self.lines[Class::Normal as usize].queue.push(message);
            return Ok(());
        }
        let mut outboxes = self.control.outboxes.borrow_mut();
        let Some(outbox) = outboxes.get_mut(to_shard) else { return Err(message) };
        let before = outbox.waiting();
        outbox.push_keyed(key, message)?;
        let waiting = self.control.waiting.get() + outbox.waiting() - before;
        self.control.waiting.set(waiting);
        self.control.waiting_max.set(self.control.waiting_max.get().max(waiting));
        add(&self.counts.sent, 1);
        Ok(())
    }

    /// Whether a message to another shard waits for room that says the same; counts it.
    pub(crate) fn is_said(&self, peer: usize, key: Key) -> bool {
        let waits = self.control.is_waiting() && {
            let outboxes = self.control.outboxes.borrow();
            outboxes.get(peer).is_some_and(|outbox| outbox.holds(key))
        };
        self.stats.borrow_mut().control_coalesced += u64::from(waits);
        waits
    }

    /// Takes back a message to another shard that waits for room; whether there was one.
    pub(crate) fn retract(&self, peer: usize, key: Key) -> bool {
        if !self.control.is_waiting() {
            return false;
        }
        let message = self.control.outboxes.borrow_mut().get_mut(peer).and_then(|o| o.retract(key));
        let Some(message) = message else { return false };
        self.control.waiting.set(self.control.waiting.get() - 1);
        add(&self.counts.sent, 1u64.wrapping_neg());
        self.stats.borrow_mut().control_coalesced += 1;
        // Work that it brings is the user's, and so is its drop.
        drop_contained(message);
        true
    }

    /// Hands all control messages to their addressees.
    pub(super) fn receive_control(&self) {
        if !self.control.has_some() {
            return;
        }
        // Taken out: a message may send others, which are not received here.
        let mut arrivals = self.control.arrivals.take();
        for ring in arrivals.iter_mut().flatten() {
            let mut taken = 0;
            while ring.deliver_next(self) {
                taken += 1;
            }
            if taken > 0 {
                add(&self.counts.arrived, taken);
                ring.release();
            }
        }
        self.control.arrivals.replace(arrivals);
    }

    /// Drops what came or waits when all shards have sealed; returns the messages among it.
    pub(super) fn empty_control(&self) -> u64 {
        let mut left = Vec::new();
        for ring in self.control.arrivals.borrow_mut().iter_mut().flatten() {
            left.extend(std::iter::from_fn(|| ring.pop()));
        }
        for outbox in self.control.outboxes.borrow_mut().iter_mut() {
            left.extend(outbox.take_back());
        }
        let count = left.iter().filter(|envelope| envelope.is_message()).count() as u64;
        for envelope in left {
            // Its drop is user code: a panic there must not keep the others waiting.
            drop_contained(envelope);
        }
        count
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use super::*;
    use crate::channel::envelope::Deliver;
    use crate::config::{Bell, Config};
    use crate::error::StartError;
    use crate::observe::NoObserver;
    use crate::runtime::Runtime;

    /// Says that it has arrived.
    struct Note(Sender<u32>, u32);

    impl Deliver for Note {
        fn deliver(self, _: u64, _: &Shard) {
            let _ = self.0.send(self.1);
        }
    }

    /// An address on shard 1.
    const THERE: u64 = 1 << 56;

    fn runtime(bell: Bell) -> Option<Runtime> {
        let config = Config { peer_ring_slots: 16, control_slots: 16, bell, ..Config::default() };
        match Runtime::start(config, |_| NoObserver) {
            Err(StartError::Missing) => None,
            runtime => runtime.ok().filter(|runtime| runtime.shards() > 1),
        }
    }

    #[test]
    fn control_passes_a_full_data_ring_and_waits_for_room_in_order() {
        for bell in [Bell::MsgRing, Bell::EventFd, Bell::Auto] {
            let Some(runtime) = runtime(bell) else { return };
            let (arrived, arrivals) = mpsc::channel();
            let send = move |cx: &mut crate::agent::Cx<'_>| {
                let note = |n| Note(arrived.clone(), n);
                let data = (0..20).filter(|&n| cx.shard().send_remote(THERE, note(n)).is_ok());
                let data = data.count();
                let sent = (100..1_100).filter(|&n| {
                    cx.shard().push_control(1, None, Envelope::new(THERE, note(n))).is_ok()
                });
                (
                    data,
                    sent.count(),
                    cx.shard().push_control(9, None, Envelope::new(0, note(0))).is_err(),
                )
            };
            assert_eq!(runtime.run_on(0, send), Ok((16, 1_000, true)));
            let seen: Vec<u32> = arrivals.iter().take(1_016).collect();
            assert!(seen[..16].iter().copied().eq(100..116), "control first: {:?}", &seen[..20]);
            let (data, control): (Vec<u32>, Vec<u32>) = seen.into_iter().partition(|&n| n < 100);
            assert!(data.into_iter().eq(0..16) && control.into_iter().eq(100..1_100));
            let report = runtime.shutdown();
            assert!(report.shards.iter().all(|s| s.drained && s.messages_undelivered == 0));
        }
    }

    /// What waits for room when the runtime is told to end is read, or dropped and counted.
    #[test]
    fn control_is_read_or_counted_at_the_end() {
        let Some(runtime) = runtime(Bell::Auto) else { return };
        let (arrived, arrivals) = mpsc::channel();
        // The other shard reads nothing until all is sent.
        let (go, going) = mpsc::channel::<()>();
        let blocked = std::thread::scope(|scope| {
            let blocked = scope.spawn(|| runtime.run_on(1, move |_| going.recv().is_err()));
            let send = move |cx: &mut crate::agent::Cx<'_>| {
                let note = |n| Envelope::new(THERE, Note(arrived.clone(), n));
                (0..100).filter(|&n| cx.shard().push_control(1, None, note(n)).is_ok()).count()
            };
            assert_eq!(runtime.run_on(0, send), Ok(100));
            drop(go);
            blocked.join().is_ok_and(|gone| gone == Ok(true))
        });
        assert!(blocked);
        let left: u64 = runtime.shutdown().shards.iter().map(|s| s.messages_undelivered).sum();
        assert_eq!(arrivals.iter().count() as u64 + left, 100);
    }
}
