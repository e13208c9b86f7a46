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

    /// MSG_RING, from a ring or by the register call: the completion queue remembers each until it is read.
    #[derive(Default)]
    pub(in crate::channel) struct Bell(Mutex<u32>, Condvar);

    impl Bell {
        pub(in crate::channel) fn ring(&self) {
            *self.0.lock().unwrap() += 1;
            self.1.notify_one();
        }

        pub(in crate::channel) fn wait(&self) {
            let mut rung = self.0.lock().unwrap();
            while *rung == 0 {
                rung = self.1.wait(rung).unwrap();
            }
            *rung -= 1;
        }
    }

    /// An eventfd that a ring polls. Every completion ends the poll, the worst that the kernel may do: until
    /// it is armed again a knock only counts, and arming looks at the count.
    #[derive(Default)]
    pub(in crate::channel) struct EventBell(Mutex<Event>, Condvar);

    #[derive(Default)]
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

    impl EventBell {
        pub(in crate::channel) fn ring(&self) {
            let mut event = self.0.lock().unwrap();
            event.knocks += 1;
            event.poll();
            self.1.notify_one();
        }

        /// Waits for a completion, reads the count and arms the poll again.
        pub(in crate::channel) fn wait(&self) {
            let mut event = self.0.lock().unwrap();
            while event.completions == 0 {
                event = self.1.wait(event).unwrap();
            }
            event.completions = 0;
            event.knocks = 0;
            drop(event);
            self.arm();
        }

        pub(in crate::channel) fn arm(&self) {
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
    use super::models::{Bell, EventBell};

    /// With a lost wake the sleeper waits for ever, which loom reports as a deadlock.
    fn sleeper(sleep: &Sleep, bell: &Bell, work: &AtomicU32, expected: u32) {
        while work.load(Ordering::Acquire) < expected {
            sleep.prepare();
            if work.load(Ordering::Acquire) < expected {
                bell.wait();
            }
            sleep.awake();
        }
    }

    #[test]
    fn loom_no_wake_is_lost_between_one_sender_and_the_sleeper() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), Bell::default(), AtomicU32::new(0)));
            let sender = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for _ in 0..2 {
                        shared.2.fetch_add(1, Ordering::Release);
                        if shared.0.notify() {
                            shared.1.ring();
                        }
                    }
                })
            };
            sleeper(&shared.0, &shared.1, &shared.2, 2);
            sender.join().unwrap();
        });
    }

    #[test]
    fn loom_two_senders_ring_at_most_once_per_sleep() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), Bell::default(), AtomicU32::new(0)));
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        shared.2.fetch_add(1, Ordering::Release);
                        if shared.0.notify() {
                            shared.1.ring();
                        }
                    })
                })
                .collect();
            sleeper(&shared.0, &shared.1, &shared.2, 2);
            for sender in senders {
                sender.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_stop_during_a_send_is_seen() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), Bell::default(), AtomicBool::new(false)));
            let stopper = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.2.store(true, Ordering::Release);
                    if shared.0.notify() {
                        shared.1.ring();
                    }
                })
            };
            while !shared.2.load(Ordering::Acquire) {
                shared.0.prepare();
                if !shared.2.load(Ordering::Acquire) {
                    shared.1.wait();
                }
                shared.0.awake();
            }
            stopper.join().unwrap();
        });
    }

    /// The eventfd's poll ends with each completion and is armed again after the count was read.
    #[test]
    fn loom_no_knock_is_lost_when_the_poll_must_be_armed_again() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), EventBell::default(), AtomicU32::new(0)));
            shared.1.arm();
            let sender = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for _ in 0..2 {
                        shared.2.fetch_add(1, Ordering::Release);
                        if shared.0.notify() {
                            shared.1.ring();
                        }
                    }
                })
            };
            while shared.2.load(Ordering::Acquire) < 2 {
                shared.0.prepare();
                if shared.2.load(Ordering::Acquire) < 2 {
                    shared.1.wait();
                }
                shared.0.awake();
            }
            sender.join().unwrap();
        });
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
