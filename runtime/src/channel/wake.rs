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

    /// After sleeping, or instead of it. A bell that was rung meanwhile is an extra completion, no harm.
    pub(crate) fn awake(&self) {
        self.state.store(RUNNING, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    use super::Sleep;

    /// A doorbell: the kernel's completion queue, which remembers a ring until it is read.
    #[derive(Default)]
    struct Bell(Mutex<u32>, Condvar);

    impl Bell {
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
}
