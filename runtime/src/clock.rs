#![expect(unsafe_code, reason = "clock_gettime of libc; this crate takes no wrapper for one call")]
//! The one file of this crate that asks the OS for the time.

use std::cell::Cell;
use std::rc::Rc;

/// `CLOCK_MONOTONIC`, ns. About 20 ns, no system call.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec through a valid pointer; CLOCK_MONOTONIC always exists.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    assert_eq!(failed, 0, "CLOCK_MONOTONIC exists on every Linux");
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock starts at 0");
    let nanos = u64::try_from(now.tv_nsec).expect("the kernel keeps nanoseconds in 0..1e9");
    seconds * 1_000_000_000 + nanos
}

/// Where a shard takes the time from.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// An instant that a simulation sets.
    Manual(Rc<ManualClock>),
}

impl Clock {
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        match self {
            Self::Monotonic => monotonic_ns(),
            Self::Manual(clock) => clock.read_ns(),
        }
    }
}

/// A clock that its owner sets, and that moves on by a set step each time it is read: code between two
/// looks takes time.
#[derive(Debug)]
pub(crate) struct ManualClock {
    now_ns: Cell<u64>,
    step_ns: Cell<u64>,
}

impl ManualClock {
    pub(crate) const fn new(now_ns: u64) -> Self {
        Self { now_ns: Cell::new(now_ns), step_ns: Cell::new(0) }
    }

    /// Sets the time, unless it is later already, and the step.
    pub(crate) fn set(&self, now_ns: u64, step_ns: u64) {
        self.now_ns.set(now_ns.max(self.now_ns.get()));
        self.step_ns.set(step_ns);
    }

    /// Looks without a step.
    pub(crate) const fn peek_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn read_ns(&self) -> u64 {
        self.now_ns.set(self.now_ns.get() + self.step_ns.get());
        self.now_ns.get()
    }
}
