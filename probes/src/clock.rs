//! The one file of this crate that asks the OS for the time.

use rustix::time::{ClockId, clock_gettime};

fn ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // These clocks count from boot or from 1970 and cannot be negative before the year 2262.
    let seconds = u64::try_from(now.tv_sec).expect("clocks do not run before their epoch");
    let nanos = u64::try_from(now.tv_nsec).expect("the kernel keeps nanoseconds below 1e9");
    seconds * 1_000_000_000 + nanos
}

/// `CLOCK_MONOTONIC`, ns since boot without suspend. About 20 ns, no system call.
#[must_use]
pub fn monotonic_ns() -> u64 {
    ns(ClockId::Monotonic)
}

/// `CLOCK_BOOTTIME`, ns since boot with suspend.
#[must_use]
pub fn boottime_ns() -> u64 {
    ns(ClockId::Boottime)
}

/// `CLOCK_REALTIME`, ns since 1970. For names and logs, never for durations.
#[must_use]
pub fn realtime_ns() -> u64 {
    ns(ClockId::Realtime)
}

/// CPU time of this process, ns.
#[must_use]
pub(crate) fn process_cpu_ns() -> u64 {
    ns(ClockId::ProcessCPUTime)
}
