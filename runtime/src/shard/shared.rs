#![expect(unsafe_code, reason = "a reference to a constant that went through an atomic word")]
//! What other threads may touch of a shard.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::Shard;
use super::slab::AgentType;
use super::waker::Wake;
use crate::agent::Directory;
use crate::channel::ending::Ending;
use crate::channel::wake::Sleep;
use crate::ring::bell::{self, Bells, ShardBell, ThreadBell};
use crate::ring::{self, Doorbells, Event};
use crate::stats::{COUNTERS, ShardStats};

/// Work sent to a shard from a thread without a ring.
pub(crate) type Job = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// What a shard says of the turn it is in, for the stall detector: plain stores of one writer, on lines of
/// their own.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(crate) struct Beat {
    /// The clock at the shard's last look, ns; 0 while it sleeps.
    at_ns: AtomicU64,
    /// Who runs; 0 is nobody.
    running: AtomicU64,
    kind: AtomicPtr<AgentType>,
    /// The shard has nothing to do and looks on: nobody waits for it.
    looks_on: AtomicBool,
    /// Set by the detector: the running turn has had its time.
    preempt: AtomicBool,
}

impl Beat {
    #[inline]
    pub(crate) fn runs(&self, agent: u64, kind: Option<&'static AgentType>) {
        // Relaxed: what is read together is only a hint of what ran.
        self.running.store(agent, Ordering::Relaxed);
        let kind = kind.map_or(ptr::null_mut(), |kind| ptr::from_ref(kind).cast_mut());
        self.kind.store(kind, Ordering::Relaxed);
    }

    /// The shard has looked at the clock between two turns, or goes to sleep (0).
    #[inline]
    pub(crate) fn at(&self, now_ns: u64) {
        self.at_ns.store(now_ns, Ordering::Relaxed);
        if self.preempt.load(Ordering::Relaxed) {
            self.preempt.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_looks_on(&self, looks_on: bool) {
        self.looks_on.store(looks_on, Ordering::Relaxed);
    }

    pub(crate) fn looks_on(&self) -> bool {
        self.looks_on.load(Ordering::Relaxed)
    }

    pub(crate) fn must_yield(&self) -> bool {
        self.preempt.load(Ordering::Relaxed)
    }

    pub(crate) fn preempt(&self) {
        self.preempt.store(true, Ordering::Relaxed);
    }

    /// The clock at the last look, who runs, and its type.
    pub(crate) fn look(&self) -> (u64, u64, Option<&'static AgentType>) {
        let kind = self.kind.load(Ordering::Relaxed);
        (self.at_ns.load(Ordering::Relaxed), self.running.load(Ordering::Relaxed), known(kind))
    }
}

fn known(kind: *mut AgentType) -> Option<&'static AgentType> {
    // SAFETY: only `Beat::runs` writes the word: null, or a pointer from a reference that lives for ever to a
    // constant that nobody writes to.
    unsafe { kind.cast_const().as_ref() }
}

/// What became of wakers on other threads since the shard last looked.
#[derive(Debug, Default)]
pub(crate) struct Woken {
    pub(crate) tasks: BTreeSet<Wake>,
    /// By how many more or fewer wakers of a task are out; no zeros.
    pub(crate) wakers: BTreeMap<Wake, i64>,
}

impl Woken {
    fn count(&mut self, task: Wake, by: i64) {
        let sum = self.wakers.get(&task).copied().unwrap_or(0) + by;
        match sum {
            0 => self.wakers.remove(&task),
            sum => self.wakers.insert(task, sum),
        };
    }
}

/// Tasks whose counts may wait for the shard's next reason to look; with as many it is woken for their sake, so that
/// other threads cannot fill a sleeping shard's table without end.
const COUNTS_WAIT: usize = 1_024;

/// The shared part of a shard.
pub(crate) struct Shared {
    pub(crate) beat: Arc<Beat>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) core: usize,
    pub(crate) sleep: Sleep,
    ring_fd: AtomicI32,
    pub(crate) ending: Ending,
    pub(crate) counters: [AtomicU64; COUNTERS],
    bells: Bells,
    event: Event,
    /// The ring, for threads without one.
    ring: OnceLock<OwnedFd>,
    jobs: Mutex<VecDeque<Job>>,
    woken: Mutex<Woken>,
    /// Whether jobs or wakes wait; so that a pass without any costs one load.
    posted: AtomicBool,
}

impl Shared {
    pub(crate) fn new(core: usize, directory: &Arc<Directory>, bells: Bells, event: Event) -> Self {
        Self {
            beat: Arc::default(),
            directory: Arc::clone(directory),
            core,
            sleep: Sleep::new(),
            ring_fd: AtomicI32::new(-1),
            ending: Ending::new(),
            counters: [const { AtomicU64::new(0) }; COUNTERS],
            bells,
            event,
            ring: OnceLock::new(),
            jobs: Mutex::default(),
            woken: Mutex::default(),
            posted: AtomicBool::new(false),
        }
    }

    pub(crate) const fn event(&self) -> &Event {
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
        // The ring of a simulated shard is no descriptor.
        let kept = matches!(self.event, Event::Fd(_)).then(|| bell::keep(fd));
        if let Some(Ok(kept)) = kept {
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

    /// Has a task polled; the number of its wakers changes by `wakers`.
    pub(crate) fn post_wake(&self, task: Wake, wakers: i64) {
        let mut woken = self.woken.lock().expect("no code runs under the lock");
        woken.tasks.insert(task);
        woken.count(task, wakers);
        drop(woken);
        self.posted.store(true, Ordering::Release);
        self.knock();
    }

    /// Notes that a waker of a task was made or dropped on another thread. Wakes nobody, unless many wait.
    pub(crate) fn note_waker(&self, task: Wake, by: i64) {
        let mut woken = self.woken.lock().expect("no code runs under the lock");
        woken.count(task, by);
        let many = woken.wakers.len() >= COUNTS_WAIT;
        drop(woken);
        if many {
            self.posted.store(true, Ordering::Release);
            self.knock();
        }
    }

    pub(crate) fn has_posted(&self) -> bool {
        self.posted.load(Ordering::Acquire)
    }

    /// Takes the jobs that were posted. Wakes are taken after it, so that none is older than a job that is.
    pub(crate) fn take_jobs(&self) -> VecDeque<Job> {
        self.posted.store(false, Ordering::Release);
        std::mem::take(&mut *self.jobs.lock().expect("no job runs under the lock"))
    }

    /// Takes what became of wakers: a task that was woken by its last waker is woken here.
    pub(crate) fn take_woken(&self) -> Woken {
        std::mem::take(&mut *self.woken.lock().expect("no code runs under the lock"))
    }

    pub(crate) fn stats(&self) -> ShardStats {
        ShardStats::read(self.core, &self.counters)
    }
}
