//! The sleep word of a shard: who must ring a doorbell, and when a shard may sleep.
//!
//! Sender: publish the message, [`Sleep::notify`]; only `true` asks for a doorbell. Sleeper:
//! [`Sleep::prepare`], look at every source once more, sleep or [`Sleep::awake`]. The two SeqCst fences
//! are a store-buffer (Dekker) pair: either the sender sees SLEEPING or the sleeper sees the message.

use crate::sync::{AtomicU32, Ordering, fence};

const RUNNING: u32 = 0;
const SLEEPING: u32 = 1;
const NOTIFIED: u32 = 2;

/// The word.
#[derive(Debug)]
pub(crate) struct Sleep {
    state: AtomicU32,
}

impl Sleep {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU32::new(RUNNING) }
    }

    /// After publishing: whether this sender must ring the bell. At most one sender per sleep is told so.
    pub(crate) fn notify(&self) -> bool {
        // Pairs with the fence in `prepare`.
        fence(Ordering::SeqCst);
        // Relaxed: the fences order it; AcqRel on the exchange hands the sleep over to one sender.
        self.state.load(Ordering::Relaxed) == SLEEPING
            && self
                .state
                .compare_exchange(SLEEPING, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Before sleeping. Every source of work must be looked at once more after this.
    pub(crate) fn prepare(&self) {
        self.state.store(SLEEPING, Ordering::Relaxed);
        // Pairs with the fence in `notify`.
        fence(Ordering::SeqCst);
    }

    /// Whether the shard neither sleeps nor is being woken; a hint, which may be out of date.
    #[cfg(not(loom))]
    pub(crate) fn is_running(&self) -> bool {
        self.state.load(Ordering::Relaxed) == RUNNING
    }

    /// After sleeping, or instead of it. A bell that was rung meanwhile is an extra completion, no harm.
    pub(crate) fn awake(&self) {
        self.state.store(RUNNING, Ordering::Relaxed);
    }
}

/// Bells as loom sees them.
#[cfg(all(test, loom))]
pub(super) mod models {
    use loom::sync::{Condvar, Mutex};

    /// What wakes a shard that sleeps.
    pub(in crate::channel) trait Rings: Default + Send + Sync + 'static {
        fn ring(&self);
        /// Until it was rung.
        fn wait(&self);
    }

    /// MSG_RING, from a ring or by the register call: the completion queue remembers each until it is read.
    #[derive(Default)]
    pub(in crate::channel) struct Bell(Mutex<u32>, Condvar);

    impl Rings for Bell {
        fn ring(&self) {
            *self.0.lock().unwrap() += 1;
            self.1.notify_one();
        }

        fn wait(&self) {
            let mut rung = self.0.lock().unwrap();
            while *rung == 0 {
                rung = self.1.wait(rung).unwrap();
            }
            *rung -= 1;
        }
    }

    /// An eventfd that a ring polls. Every completion ends the poll, the worst that the kernel may do: until
    /// it is armed again a knock only counts, and arming looks at the count.
    pub(in crate::channel) struct EventBell(Mutex<Event>, Condvar);

    struct Event {
        knocks: u32,
        armed: bool,
        completions: u32,
    }

    impl Event {
        fn poll(&mut self) {
            if self.armed && self.knocks > 0 {
                self.armed = false;
                self.completions += 1;
            }
        }
    }

    impl Default for EventBell {
        /// Armed, as a shard's is before anybody knows it.
        fn default() -> Self {
            let event = Event { knocks: 0, armed: true, completions: 0 };
            Self(Mutex::new(event), Condvar::new())
        }
    }

    impl Rings for EventBell {
        fn ring(&self) {
            let mut event = self.0.lock().unwrap();
            event.knocks += 1;
            event.poll();
            self.1.notify_one();
        }

        /// Waits for a completion, reads the count and arms the poll again, which looks at the count.
        fn wait(&self) {
            let mut event = self.0.lock().unwrap();
            while event.completions == 0 {
                event = self.1.wait(event).unwrap();
            }
            event.completions = 0;
            event.knocks = 0;
            drop(event);
            let mut event = self.0.lock().unwrap();
            event.armed = true;
            event.poll();
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use loom::thread;

    use super::Sleep;
    use super::models::{Bell, EventBell, Rings};
    use crate::channel::spsc;

    /// What a shard and those who ring share: its state, its bell, what it looks at.
    type Shared<B, W> = Arc<(Sleep, B, W)>;

    fn shared<B: Rings, W: Default>() -> Shared<B, W> {
        Arc::new((Sleep::new(), B::default(), W::default()))
    }

    fn knock<B: Rings, W>(shared: &(Sleep, B, W)) {
        if shared.0.notify() {
            shared.1.ring();
        }
    }

    /// With a lost wake the sleeper waits for ever, which loom reports as a deadlock.
    fn sleeps<B: Rings, W>(shared: &(Sleep, B, W), mut has_work: impl FnMut() -> bool) {
        shared.0.prepare();
        if !has_work() {
            shared.1.wait();
        }
        shared.0.awake();
    }

    fn sleeper<B: Rings>(shared: &(Sleep, B, AtomicU32), expected: u32) {
        let all = || shared.2.load(Ordering::Acquire) >= expected;
        while !all() {
            sleeps(shared, all);
        }
    }

    fn sender<B: Rings>(shared: &Shared<B, AtomicU32>, sends: u32) -> thread::JoinHandle<()> {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            for _ in 0..sends {
                shared.2.fetch_add(1, Ordering::Release);
                knock(&shared);
            }
        })
    }

    fn one_sender<B: Rings>() {
        loom::model(|| {
            let shared: Shared<B, _> = shared();
            let sender = sender(&shared, 2);
            sleeper(&shared, 2);
            sender.join().unwrap();
        });
    }

    fn two_senders<B: Rings>() {
        loom::model(|| {
            let shared: Shared<B, _> = shared();
            let senders = [sender(&shared, 1), sender(&shared, 1)];
            sleeper(&shared, 2);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        });
    }

    fn a_stop<B: Rings>() {
        loom::model(|| {
            let shared: Shared<B, AtomicBool> = shared();
            let stopper = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.2.store(true, Ordering::Release);
                    knock(&shared);
                })
            };
            while !shared.2.load(Ordering::Acquire) {
                sleeps(&shared, || shared.2.load(Ordering::Acquire));
            }
            stopper.join().unwrap();
        });
    }

    /// A data ring with a bell: two boxes over one cell, so that it is full, read, and full again. The sender looks
    /// for room as a shard with other work does. Loom reports a box that is leaked or freed twice.
    fn a_ring<B: Rings>() {
        loom::model(|| {
            let shared: Shared<B, AtomicU32> = shared();
            let (mut producer, mut consumer) = spsc::channel(1);
            let sender = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for n in 0..2 {
                        while !producer.has_room() {
                            thread::yield_now();
                        }
                        assert!(producer.push(Box::new(n)).is_ok() && producer.publish());
                        knock(&shared);
                    }
                })
            };
            let mut expected = 0;
            while expected < 2 {
                while let Some(value) = consumer.pop() {
                    assert_eq!(*value, expected);
                    expected += 1;
                    consumer.release();
                }
                if expected < 2 {
                    sleeps(&shared, || consumer.has_some());
                }
            }
            sender.join().unwrap();
        });
    }

    #[test]
    fn loom_no_wake_is_lost_between_one_sender_and_the_sleeper() {
        one_sender::<Bell>();
    }

    /// The eventfd's poll ends with each completion and is armed again after the count was read.
    #[test]
    fn loom_no_knock_is_lost_when_the_poll_must_be_armed_again() {
        one_sender::<EventBell>();
    }

    #[test]
    fn loom_two_senders_ring_at_most_once_per_sleep() {
        two_senders::<Bell>();
    }

    #[test]
    fn loom_two_knocks_wake_whoever_polls() {
        two_senders::<EventBell>();
    }

    #[test]
    fn loom_stop_during_a_send_is_seen() {
        a_stop::<Bell>();
    }

    #[test]
    fn loom_stop_during_a_knock_is_seen() {
        a_stop::<EventBell>();
    }

    #[test]
    fn loom_a_full_ring_is_read_by_one_who_sleeps() {
        a_ring::<Bell>();
    }

    #[test]
    fn loom_a_full_ring_is_read_by_one_who_polls() {
        a_ring::<EventBell>();
    }

    /// A shard that looks a few times before it sleeps is not rung while it looks, and misses nothing.
    #[test]
    fn loom_a_shard_that_spins_first_misses_nothing() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), Bell::default(), AtomicU32::new(0)));
            let sender = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.2.fetch_add(1, Ordering::Release);
                    if shared.0.notify() {
                        shared.1.ring();
                    }
                })
            };
            let done = || shared.2.load(Ordering::Acquire) == 1;
            while !done() {
                thread::yield_now();
                if done() {
                    break;
                }
                shared.0.prepare();
                if !done() {
                    shared.1.wait();
                }
                shared.0.awake();
            }
            sender.join().unwrap();
        });
    }
}
