//! Monotonic time that parent, child and every peer read alike.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, ns. About 20 ns.
pub(crate) fn now_ns() -> u64 {
    // The clock exists on every Linux, which all these runtimes need.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// From now until that instant; nothing when it has passed.
pub(crate) fn until(at_ns: u64) -> Duration {
    Duration::from_nanos(at_ns.saturating_sub(now_ns()))
}

/// A round has a length, which is not a guess.
#[expect(clippy::disallowed_methods, reason = "the clock of this package")]
pub(crate) fn sleep(length: Duration) {
    std::thread::sleep(length);
}

/// The same instant as the standard library has it.
#[expect(clippy::disallowed_methods, reason = "the clock of this package")]
pub(crate) fn instant(at_ns: u64) -> Instant {
    Instant::now() + until(at_ns)
}
