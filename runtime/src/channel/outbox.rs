//! The sending side of a reserved ring, with a place for what the ring has no room for. Whoever pushes sees
//! to it that what waits is bounded: acks by the messages they stand for, control by their senders.

use std::collections::{BTreeSet, VecDeque};

use super::spsc::Producer;

/// A ring to one peer, or none to itself.
#[derive(Debug)]
pub(crate) struct Outbox<T, K = ()> {
    ring: Option<Producer<T>>,
    backlog: VecDeque<(Option<K>, T)>,
    /// The keys of the backlog, by which a value can be taken back.
    keys: BTreeSet<K>,
    /// What came from that peer had filled its ring and is taken: it may have a backlog, which nobody else
    /// would ask it for.
    room_made: bool,
}

impl<T, K: Ord + Copy> Outbox<T, K> {
    pub(crate) const fn new(ring: Option<Producer<T>>) -> Self {
        Self { ring, backlog: VecDeque::new(), keys: BTreeSet::new(), room_made: false }
    }

    /// Takes a value, which the peer sees after [`Outbox::publish`]; gives it back when there is no peer.
    pub(crate) fn push(&mut self, value: T) -> Result<(), T> {
        self.push_keyed(None, value)
    }

    /// [`Outbox::push`] of a value that can be taken back by a key as long as it has no room.
    pub(crate) fn push_keyed(&mut self, key: Option<K>, value: T) -> Result<(), T> {
        let Some(ring) = &mut self.ring else { return Err(value) };
        let left = if self.backlog.is_empty() { ring.push(value) } else { Err(value) };
        if let Err(value) = left {
            self.backlog.push_back((key, value));
            self.keys.extend(key);
        }
        Ok(())
    }

    /// Whether a value of that key has had no room.
    #[cfg(not(loom))]
    pub(crate) fn holds(&self, key: K) -> bool {
        !self.keys.is_empty() && self.keys.contains(&key)
    }

    /// Takes back the value of a key, if it has had no room. Those that came last are found first.
    #[cfg(not(loom))]
    pub(crate) fn retract(&mut self, key: K) -> Option<T> {
        if !self.holds(key) {
            return None;
        }
        self.keys.remove(&key);
        let at = self.backlog.iter().rposition(|(own, _)| *own == Some(key))?;
        self.backlog.remove(at).map(|(_, value)| value)
    }

    /// Makes visible what was pushed, as far as there is room; `false` when there was nothing new.
    pub(crate) fn publish(&mut self) -> bool {
        let Some(ring) = &mut self.ring else { return false };
        while let Some((key, value)) = self.backlog.pop_front() {
            if let Err(value) = ring.push(value) {
                self.backlog.push_front((key, value));
                break;
            }
            key.into_iter().for_each(|key| _ = self.keys.remove(&key));
        }
        ring.publish()
    }

    /// Whether there is room for what had none.
    pub(crate) fn can_go_on(&mut self) -> bool {
        !self.backlog.is_empty() && self.ring.as_mut().is_some_and(Producer::has_room)
    }

    /// Notes that the ring of this kind from that peer was full and is not any more.
    #[cfg(not(loom))]
    pub(crate) const fn note_room(&mut self) {
        self.room_made = true;
    }

    /// [`Outbox::publish`] of acks, which alone wake nobody; whether the peer is to be woken all the same: to
    /// empty the full ring, or to use the room in the one that it had filled.
    pub(crate) fn publish_acks(&mut self) -> bool {
        self.publish();
        let full = self.ring.as_mut().is_some_and(|ring| !ring.has_room());
        std::mem::take(&mut self.room_made) || full
    }

    /// Values that the ring has had no room for.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Takes what has had no room, when nothing can be sent any more.
    #[cfg(not(loom))]
    pub(crate) fn take_back(&mut self) -> impl Iterator<Item = T> + use<T, K> {
        self.keys.clear();
        std::mem::take(&mut self.backlog).into_iter().map(|(_, value)| value)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::channel::spsc;

    #[test]
    fn what_has_no_room_can_be_taken_back() {
        let (producer, mut consumer) = spsc::channel(2);
        let mut outbox = Outbox::new(Some(producer));
        assert!((0..6).all(|n| outbox.push_keyed((n != 4).then_some(n), n).is_ok()));
        assert_eq!((outbox.retract(1), outbox.retract(4)), (None, None), "sent, without a key");
        assert_eq!((outbox.holds(3), outbox.retract(3), outbox.retract(3)), (true, Some(3), None));
        let mut seen = Vec::new();
        while seen.len() < 5 {
            assert!(outbox.publish());
            seen.extend(std::iter::from_fn(|| consumer.pop()));
            consumer.release();
        }
        assert_eq!((seen, outbox.holds(5), outbox.retract(5)), (vec![0, 1, 2, 4, 5], false, None));
    }

    #[test]
    fn what_has_no_room_follows_in_order() {
        let (producer, mut consumer) = spsc::channel(2);
        let mut outbox = Outbox::<_>::new(Some(producer));
        assert!((0..5).all(|n| outbox.push(n).is_ok()));
        assert_eq!(outbox.waiting(), 3);
        let mut seen = Vec::new();
        while seen.len() < 5 {
            assert!(outbox.publish());
            seen.extend(std::iter::from_fn(|| consumer.pop()));
            consumer.release();
        }
        assert_eq!((seen, outbox.waiting(), outbox.publish()), ((0..5).collect(), 0, false));
        assert_eq!(Outbox::<_>::new(None).push(7), Err(7));
    }
}

#[cfg(all(test, loom))]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use super::Outbox;
    use crate::channel::ending::Ending;
    use crate::channel::spsc;
    use crate::channel::wake::Sleep;
    use crate::channel::wake::models::{Bell, Rings};

    /// The data ring is full and nobody reads it; two control messages over a ring of one cell arrive
    /// at a shard that sleeps whenever it sees none. Boxes: loom reports a leak and a double free.
    #[test]
    fn loom_control_passes_a_full_data_ring_and_wakes_the_sleeper() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), Bell::default(), AtomicU32::new(0)));
            let (mut data, _unread) = spsc::channel(1);
            let (control, mut arrived) = spsc::channel(1);
            let sender = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    assert!(data.push(Box::new(0)).is_ok() && data.push(Box::new(0)).is_err());
                    data.publish();
                    let mut outbox = Outbox::<_>::new(Some(control));
                    assert!(outbox.push(Box::new(1)).is_ok() && outbox.push(Box::new(2)).is_ok());
                    loop {
                        if outbox.publish() && shared.0.notify() {
                            shared.1.ring();
                        }
                        if outbox.waiting() == 0 {
                            break;
                        }
                        // The shard looks again after a bounded sleep; here, after the peer has read.
                        while shared.2.load(Ordering::Acquire) == 0 {
                            thread::yield_now();
                        }
                    }
                })
            };
            let mut expected = 1;
            while expected < 3 {
                while let Some(value) = arrived.pop() {
                    assert_eq!(*value, expected);
                    expected += 1;
                    arrived.release();
                    shared.2.store(1, Ordering::Release);
                }
                shared.0.prepare();
                if expected < 3 && !arrived.has_some() {
                    shared.1.wait();
                }
                shared.0.awake();
            }
            sender.join().unwrap();
        });
    }

    /// Three acks over a ring of one, to a shard that acks alone do not wake: it is woken when its ring is full, and
    /// what had no room goes on, in order, whether or not it says that there is some: that one looks again.
    #[test]
    fn loom_acks_behind_a_full_ring_wake_the_sleeper_and_go_on() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), Bell::default(), AtomicU32::new(0)));
            let (acks, mut arrived) = spsc::channel(1);
            let sender = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut outbox = Outbox::<_>::new(Some(acks));
                    assert!((0..3).all(|n| outbox.push(n).is_ok()));
                    loop {
                        if outbox.publish_acks() && shared.0.notify() {
                            shared.1.ring();
                        }
                        if outbox.waiting() == 0 {
                            break;
                        }
                        while !outbox.can_go_on() {
                            thread::yield_now();
                        }
                    }
                })
            };
            let mut expected = 0;
            while expected < 3 {
                while let Some(value) = arrived.pop() {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                arrived.release();
                shared.0.prepare();
                if expected < 3 && !arrived.is_full() {
                    shared.1.wait();
                }
                shared.0.awake();
            }
            sender.join().unwrap();
        });
    }

    /// A stop comes while control messages are sent: each is read, found in the ring after the seal, or
    /// given back to its sender, once.
    #[test]
    fn loom_stop_during_a_control_send_loses_nothing() {
        loom::model(|| {
            let ending = Arc::new(Ending::new());
            let (control, mut arrived) = spsc::channel(1);
            let sender = {
                let ending = Arc::clone(&ending);
                thread::spawn(move || {
                    let mut outbox = Outbox::<_>::new(Some(control));
                    let mut sent = 0;
                    for n in 0..2 {
                        if !ending.is_closing() {
                            sent += usize::from(outbox.push(Box::new(n)).is_ok());
                            outbox.publish();
                        }
                    }
                    outbox.publish();
                    ending.seal();
                    sent - outbox.waiting()
                })
            };
            let mut read = usize::from(arrived.pop().is_some());
            arrived.release();
            ending.close();
            while !ending.is_sealed() {
                thread::yield_now();
            }
            while arrived.pop().is_some() {
                read += 1;
            }
            assert_eq!(sender.join().unwrap(), read);
        });
    }
}
