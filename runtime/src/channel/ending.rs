//! How the shards end together: nobody stops while a message may still come for it, and nobody drops its
//! agents while another one may still send to them.
//!
//! 1. *Draining*: every shard works on; one with nothing to do says so ([`Ending::rest`]) with the number
//!    of messages it has sent and received. The stopping thread closes the runtime when two looks find
//!    every shard at the same rest and as many messages received as sent (Mattern's four counters, 1987),
//!    or when the drain's time is over.
//! 2. *Closing*: a shard that sees [`Ending::is_closing`] polls no more, lets every send to it fail,
//!    publishes what it has sent and says so ([`Ending::seal`]).
//! 3. When all have sealed, what is left in the rings is final: each counts and drops its share.
//!
//! A look that is out of date closes too early and loses nothing: what was left is counted in step 3.

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// The part of one shard.
#[derive(Debug)]
pub(crate) struct Ending {
    stop: AtomicBool,
    close: AtomicBool,
    sealed: AtomicBool,
    ended: AtomicBool,
    /// Odd while the shard works, even at rest; guards the two counts as in a seqlock.
    turn: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// A shard at rest, as one look found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rest {
    turn: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Ending {
    pub(crate) fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            close: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            turn: AtomicU64::new(1),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Asks the shard to drain.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Asks the shard to end, drained or not.
    pub(crate) fn close(&self) {
        self.close.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.close.load(Ordering::Acquire)
    }

    /// The shard has nothing to do and has published everything it has sent.
    pub(crate) fn rest(&self, sent: u64, received: u64) {
        self.sent.store(sent, Ordering::Relaxed);
        self.received.store(received, Ordering::Relaxed);
        let turn = self.turn.load(Ordering::Relaxed);
        // Pairs with the Acquire in `look`. Only this shard's thread writes the three words.
        self.turn.store(turn.next_multiple_of(2), Ordering::Release);
    }

    /// The shard is about to look for work again.
    pub(crate) fn work(&self) {
        let turn = self.turn.load(Ordering::Relaxed);
        // SeqCst: in one order with the second look, before this shard takes a message.
        self.turn.store(turn | 1, Ordering::SeqCst);
    }

    /// The shard's rest; `None` while it works. An ended shard is looked at as it was last.
    pub(crate) fn look(&self) -> Option<Rest> {
        // Pairs with the Release in `rest`.
        let turn = self.turn.load(Ordering::SeqCst);
        let (sent, received) =
            (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed));
        let resting = turn.is_multiple_of(2) || self.has_ended();
        resting.then_some(Rest { turn, sent, received })
    }

    /// Every message that this shard has sent is published, and nobody can reserve a place here any more.
    pub(crate) fn seal(&self) {
        // Pairs with the Acquire in `is_sealed`.
        self.sealed.store(true, Ordering::Release);
    }

    /// Whether nothing more can come from this shard.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire) || self.has_ended()
    }

    /// The thread is gone or about to go.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// Whether two looks at all shards found the same rest, with nothing on its way.
pub(crate) fn is_quiet(first: &[Option<Rest>], second: &[Option<Rest>]) -> bool {
    let on_way = |looks: &[Option<Rest>]| {
        looks
            .iter()
            .flatten()
            .fold(0u64, |sum, rest| sum.wrapping_add(rest.sent).wrapping_sub(rest.received))
    };
    first.iter().all(Option::is_some) && first == second && on_way(first) == 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn looks(shards: &[Ending]) -> Vec<Option<Rest>> {
        shards.iter().map(Ending::look).collect()
    }

    #[test]
    fn quiet_means_all_at_rest_twice_with_nothing_on_its_way() {
        let shards = [Ending::new(), Ending::new()];
        assert!(!is_quiet(&looks(&shards), &looks(&shards)), "both work");
        shards[0].rest(3, 0);
        shards[1].rest(0, 2);
        assert!(!is_quiet(&looks(&shards), &looks(&shards)), "one message is on its way");
        let first = looks(&shards);
        shards[1].work();
        assert!(!is_quiet(&first, &looks(&shards)), "one works");
        shards[1].rest(0, 3);
        assert!(!is_quiet(&first, &looks(&shards)), "it has worked between the looks");
        assert!(is_quiet(&looks(&shards), &looks(&shards)));
        shards[0].work();
        shards[0].end();
        assert!(is_quiet(&looks(&shards), &looks(&shards)), "an ended shard is at rest");
    }
}

#[cfg(all(test, loom))]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::channel::spsc;

    /// Two shards that send to each other until they are told to close: whatever was sent is found by the
    /// receiver after both have sealed.
    #[test]
    fn loom_after_both_have_sealed_the_rings_are_final() {
        loom::model(|| {
            let shards = Arc::new([Ending::new(), Ending::new()]);
            let (mut there, mut from_here) = spsc::channel(2);
            let (mut here, mut from_there) = spsc::channel(2);
            let other = {
                let shards = Arc::clone(&shards);
                thread::spawn(move || {
                    let sent = u64::from(!shards[1].is_closing() && here.push(7u8).is_ok());
                    here.publish();
                    shards[1].seal();
                    while !shards[0].is_sealed() {
                        thread::yield_now();
                    }
                    (sent, u64::from(from_here.pop().is_some()))
                })
            };
            shards[1].close();
            let sent = u64::from(there.push(8u8).is_ok());
            there.publish();
            shards[0].seal();
            while !shards[1].is_sealed() {
                thread::yield_now();
            }
            let received = u64::from(from_there.pop().is_some());
            assert_eq!(other.join().unwrap(), (received, sent));
        });
    }

    /// A shard that is given a message while it rests: a quiet pair of looks has nothing on its way that
    /// the receiver would not find when it closes.
    #[test]
    fn loom_quiet_is_never_seen_while_a_message_sent_before_it_is_unread() {
        loom::model(|| {
            let shards = Arc::new([Ending::new(), Ending::new()]);
            let (mut there, mut from_here) = spsc::channel(2);
            let sender = {
                let shards = Arc::clone(&shards);
                thread::spawn(move || {
                    let _ = there.push(8u8);
                    there.publish();
                    shards[0].rest(1, 0);
                })
            };
            let receiver = {
                let shards = Arc::clone(&shards);
                thread::spawn(move || {
                    let mut received = 0;
                    shards[1].rest(0, 0);
                    shards[1].work();
                    received += u64::from(from_here.pop().is_some());
                    shards[1].rest(0, received);
                    received
                })
            };
            let look = || shards.iter().map(Ending::look).collect::<Vec<_>>();
            let quiet = is_quiet(&look(), &look());
            sender.join().unwrap();
            let received = receiver.join().unwrap();
            assert!(!quiet || received == 1);
        });
    }
}
