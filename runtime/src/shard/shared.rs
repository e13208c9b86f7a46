//! What other threads may touch of a shard.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use super::Shard;
use super::waker::Wake;
use crate::channel::ending::Ending;
use crate::channel::wake::Sleep;
use crate::error::StartError;
use crate::ring;
use crate::stats::{COUNTERS, ShardStats};

/// Work sent to a shard from a thread without a ring.
pub(crate) type Job = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// One word per agent slot: generation in the high half, messages in its mailbox in the low half. A
/// sender on any core reserves a place before it sends, so a full mailbox hands the message back at once.
#[derive(Debug)]
pub(crate) struct SlotWords(Box<[AtomicU64]>);

/// Why a place could not be reserved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reserve {
    Full,
    Gone,
}

const fn generation_of(word: u64) -> u32 {
    (word >> 32) as u32
}

impl SlotWords {
    fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| AtomicU64::new(0)).collect())
    }

    /// Reserves a place in the mailbox of slot `index`.
    pub(crate) fn reserve(&self, index: u32, generation: u32, max: u32) -> Result<(), Reserve> {
        let Some(word) = self.0.get(index as usize) else { return Err(Reserve::Gone) };
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            if generation_of(seen) != generation {
                return Err(Reserve::Gone);
            }
            if seen & u64::from(u32::MAX) >= u64::from(max) {
                return Err(Reserve::Full);
            }
            // Relaxed: the message itself is published by the ring; this is only a count.
            match word.compare_exchange_weak(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Gives places back; nothing happens when the slot belongs to another agent by now.
    pub(crate) fn release(&self, index: u32, generation: u32, count: u32) {
        let word = &self.0[index as usize];
        let mut seen = word.load(Ordering::Relaxed);
        while generation_of(seen) == generation && seen & u64::from(u32::MAX) >= u64::from(count) {
            let less = seen - u64::from(count);
            match word.compare_exchange_weak(seen, less, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// The slot is given to another generation, with an empty mailbox.
    pub(crate) fn renew(&self, index: u32, generation: u32) {
        self.0[index as usize].store(u64::from(generation) << 32, Ordering::Relaxed);
    }

    /// Lets every later reservation in the first `slots` slots fail.
    pub(crate) fn seal(&self, slots: usize) {
        // Generation 0 matches no handle.
        self.0.iter().take(slots).for_each(|word| word.store(0, Ordering::Relaxed));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.len() * size_of::<AtomicU64>()
    }
}

/// The shared part of a shard.
pub(crate) struct Shared {
    pub(crate) core: usize,
    pub(crate) sleep: Sleep,
    pub(crate) words: SlotWords,
    pub(crate) ring_fd: AtomicI32,
    pub(crate) ending: Ending,
    pub(crate) counters: [AtomicU64; COUNTERS],
    event: OwnedFd,
    jobs: Mutex<VecDeque<Job>>,
    wakes: Mutex<BTreeSet<Wake>>,
    /// Whether jobs or wakes wait; so that a pass without any costs one load.
    posted: AtomicBool,
}

impl Shared {
    pub(crate) fn new(core: usize, slots: u32) -> Result<Self, StartError> {
        Ok(Self {
            core,
            sleep: Sleep::new(),
            words: SlotWords::new(slots),
            ring_fd: AtomicI32::new(-1),
            ending: Ending::new(),
            counters: [const { AtomicU64::new(0) }; COUNTERS],
            event: ring::event_fd()?,
            jobs: Mutex::default(),
            wakes: Mutex::default(),
            posted: AtomicBool::new(false),
        })
    }

    pub(crate) const fn event(&self) -> &OwnedFd {
        &self.event
    }

    /// Wakes the shard if it sleeps; for threads without a ring.
    pub(crate) fn knock(&self) {
        if self.sleep.notify() {
            ring::knock(&self.event);
        }
    }

    pub(crate) fn post_job(&self, job: Job) {
        self.jobs.lock().expect("no job runs under the lock").push_back(job);
        self.posted.store(true, Ordering::Release);
        self.knock();
    }

    pub(crate) fn post_wake(&self, wake: Wake) {
        self.wakes.lock().expect("no code runs under the lock").insert(wake);
        self.posted.store(true, Ordering::Release);
        self.knock();
    }

    pub(crate) fn has_posted(&self) -> bool {
        self.posted.load(Ordering::Acquire)
    }

    /// Takes what was posted.
    pub(crate) fn take_posted(&self) -> (VecDeque<Job>, BTreeSet<Wake>) {
        self.posted.store(false, Ordering::Release);
        let jobs = std::mem::take(&mut *self.jobs.lock().expect("no job runs under the lock"));
        let wakes = std::mem::take(&mut *self.wakes.lock().expect("no code runs under the lock"));
        (jobs, wakes)
    }

    pub(crate) fn stats(&self) -> ShardStats {
        ShardStats::read(self.core, &self.counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_one_generation_only() {
        let words = SlotWords::new(2);
        words.renew(1, 7);
        assert_eq!(words.reserve(1, 7, 1), Ok(()));
        assert_eq!(words.reserve(1, 7, 1), Err(Reserve::Full));
        assert_eq!(words.reserve(1, 6, 9), Err(Reserve::Gone));
        words.release(1, 6, 1);
        assert_eq!(words.reserve(1, 7, 1), Err(Reserve::Full), "a stale release changes nothing");
        words.release(1, 7, 1);
        assert_eq!(words.reserve(1, 7, 1), Ok(()));
        assert_eq!(words.reserve(9, 0, 1), Err(Reserve::Gone));
        words.release(1, 7, 1);
        words.seal(2);
        assert_eq!(words.reserve(1, 7, 1), Err(Reserve::Gone));
    }
}
