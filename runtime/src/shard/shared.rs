//! What other threads may touch of a shard.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use super::Shard;
use super::waker::Wake;
use crate::channel::ending::Ending;
use crate::channel::wake::Sleep;
use crate::ring::{self, Event};
use crate::stats::{COUNTERS, ShardStats};

/// Work sent to a shard from a thread without a ring.
pub(crate) type Job = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// The shared part of a shard.
pub(crate) struct Shared {
    pub(crate) core: usize,
    pub(crate) sleep: Sleep,
    pub(crate) ring_fd: AtomicI32,
    pub(crate) ending: Ending,
    pub(crate) counters: [AtomicU64; COUNTERS],
    event: Event,
    jobs: Mutex<VecDeque<Job>>,
    wakes: Mutex<BTreeSet<Wake>>,
    /// Whether jobs or wakes wait; so that a pass without any costs one load.
    posted: AtomicBool,
}

impl Shared {
    pub(crate) fn new(core: usize, event: Event) -> Self {
        Self {
            core,
            sleep: Sleep::new(),
            ring_fd: AtomicI32::new(-1),
            ending: Ending::new(),
            counters: [const { AtomicU64::new(0) }; COUNTERS],
            event,
            jobs: Mutex::default(),
            wakes: Mutex::default(),
            posted: AtomicBool::new(false),
        }
    }

    pub(crate) const fn event(&self) -> &Event {
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
