//! What other threads may touch of a shard.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use super::Shard;
use super::waker::Wake;
use crate::channel::ending::Ending;
use crate::channel::wake::Sleep;
use crate::error::StartError;
use crate::ring::bell::{self, Bells, ShardBell, ThreadBell};
use crate::ring::{self, Doorbells};
use crate::stats::{COUNTERS, ShardStats};

/// Work sent to a shard from a thread without a ring.
pub(crate) type Job = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// The shared part of a shard.
pub(crate) struct Shared {
    pub(crate) core: usize,
    pub(crate) sleep: Sleep,
    ring_fd: AtomicI32,
    pub(crate) ending: Ending,
    pub(crate) counters: [AtomicU64; COUNTERS],
    bells: Bells,
    event: OwnedFd,
    /// The ring, for threads without one.
    ring: OnceLock<OwnedFd>,
    jobs: Mutex<VecDeque<Job>>,
    wakes: Mutex<BTreeSet<Wake>>,
    /// Whether jobs or wakes wait; so that a pass without any costs one load.
    posted: AtomicBool,
}

impl Shared {
    pub(crate) fn new(core: usize, bells: Bells) -> Result<Self, StartError> {
        Ok(Self {
            core,
            sleep: Sleep::new(),
            ring_fd: AtomicI32::new(-1),
            ending: Ending::new(),
            counters: [const { AtomicU64::new(0) }; COUNTERS],
            bells,
            event: ring::event_fd()?,
            ring: OnceLock::new(),
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
        if !self.sleep.notify() {
            return;
        }
        let ring = self.ring.get().filter(|_| self.bells.threads == ThreadBell::SendMsgRing);
        if ring.is_none_or(|ring| bell::send_message(ring).is_err()) {
            ring::knock(&self.event);
        }
    }

    /// Lets other shards and threads ring.
    pub(crate) fn set_ring(&self, fd: RawFd) {
        if let Ok(kept) = bell::keep(fd) {
            // Set once: a shard has one ring.
            let _ = self.ring.set(kept);
        }
        self.ring_fd.store(fd, Ordering::Release);
    }

    /// Queues the bell of this shard, whose number is `shard`, on the ring of another one; `false` when it
    /// could not be queued.
    pub(crate) fn queue_bell(&self, ring: &mut dyn Doorbells, shard: usize) -> bool {
        match self.bells.shards {
            ShardBell::MsgRing => ring.ring_bell(self.ring_fd.load(Ordering::Acquire), shard),
            ShardBell::EventFd => {
                ring::knock(&self.event);
                true
            }
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
