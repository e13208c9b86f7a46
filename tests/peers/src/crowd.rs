//! What `spawn` and `idle` count: agents that have nothing to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;
use crate::figure::Round;
use crate::histogram::Apart;
use crate::usage::{self, Used};

/// Unread messages that an idle agent's mailbox may hold.
pub(crate) const MAILBOX: usize = 16;
/// Messages of a burst to each.
pub(crate) const BURST: usize = 10;

/// Shared by all agents of a crowd.
#[derive(Debug)]
pub(crate) struct Crowd {
    ready: Apart<AtomicU64>,
    ended: Apart<AtomicU64>,
    read: Apart<AtomicU64>,
}

/// State of an idle agent: 64 bytes.
#[derive(Debug)]
pub(crate) struct Idle {
    crowd: &'static Crowd,
    words: [u64; 7],
}

const _: () = assert!(size_of::<Idle>() == 64);

impl Crowd {
    pub(crate) fn leak() -> &'static Self {
        let zero = || Apart(AtomicU64::new(0));
        Box::leak(Box::new(Self { ready: zero(), ended: zero(), read: zero() }))
    }

    /// Agents that have begun to wait for messages.
    pub(crate) fn ready(&self) -> u64 {
        self.ready.0.load(Ordering::Relaxed)
    }

    /// Agents whose state was dropped.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.0.load(Ordering::Relaxed)
    }

    /// Messages that all have read.
    pub(crate) fn read(&self) -> u64 {
        self.read.0.load(Ordering::Relaxed)
    }
}

impl Idle {
    pub(crate) const fn new(crowd: &'static Crowd) -> Self {
        Self { crowd, words: [1; 7] }
    }

    /// It runs for the first time.
    pub(crate) fn started(&self) {
        self.crowd.ready.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It reads a message.
    pub(crate) fn read(&mut self, word: u64) {
        self.words[0] = self.words[0].wrapping_add(word);
        self.crowd.read.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.crowd.ended.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One spawning of a whole crowd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spawning {
    start_ns: u64,
    spawned_ns: u64,
    ready_ns: u64,
    start: Used,
    used: Used,
}

impl Spawning {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Self {
            start_ns: clock::now_ns(),
            spawned_ns: 0,
            ready_ns: 0,
            start: usage::process(),
            used: Used::default(),
        }
    }

    /// The last spawn has returned.
    pub(crate) fn spawned(&mut self) {
        self.spawned_ns = clock::now_ns();
    }

    /// All wait for messages.
    pub(crate) fn ready(mut self) -> Self {
        self.ready_ns = clock::now_ns();
        self.used = usage::process().since(self.start);
        self
    }
}

/// The round of `spawn`: the second time, beside the first.
pub(crate) fn spawn_round(first: Spawning, second: Spawning, agents: u32) -> Round {
    let rate = |from_ns: u64, to_ns: u64| f64::from(agents) * 1e3 / (to_ns - from_ns) as f64;
    Round {
        window_ns: [second.start_ns, second.ready_ns],
        used: second.used,
        figures: vec![
            rate(second.start_ns, second.spawned_ns).into(),
            rate(second.start_ns, second.ready_ns).into(),
            rate(first.start_ns, first.spawned_ns).into(),
            (first.used.faults as f64).into(),
        ],
    }
}

/// Between a burst and the look at what it has left.
const SETTLE: Duration = Duration::from_secs(2);

/// Resident bytes before a crowd, with it, and after its burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    start_ns: u64,
    start: Used,
    bytes: [Option<f64>; 3],
}

impl Resident {
    pub(crate) fn before() -> Self {
        let bytes = [usage::resident(), None, None];
        Self { start_ns: clock::now_ns(), start: usage::process(), bytes }
    }

    pub(crate) fn idle(&mut self) {
        self.bytes[1] = usage::resident();
    }

    /// The round of `idle`.
    pub(crate) fn after(mut self, agents: u32) -> Round {
        // Some allocators give memory back after a while.
        clock::sleep(SETTLE);
        self.bytes[2] = usage::resident();
        let [before, idle, after] = self.bytes.map(|bytes| bytes.unwrap_or(f64::NAN));
        let each = |bytes: f64| (bytes - before) / f64::from(agents);
        Round {
            window_ns: [self.start_ns, clock::now_ns()],
            used: usage::process().since(self.start),
            figures: vec![
                each(idle).into(),
                each(after).into(),
                (100.0 * (after / idle - 1.0)).into(),
                (before / 1e6).into(),
            ],
        }
    }
}
