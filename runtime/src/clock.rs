#![expect(unsafe_code, reason = "clock_gettime of libc; this crate takes no wrapper for one call")]
//! The one file of this crate that asks the OS for the time.

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
    /// An instant that its owner sets, ns: simulations own the time.
    #[expect(dead_code, reason = "made by simulations only")]
    Manual(std::rc::Rc<std::cell::Cell<u64>>),
}

impl Clock {
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        match self {
            Self::Monotonic => monotonic_ns(),
            Self::Manual(now_ns) => now_ns.get(),
        }
    }
}
