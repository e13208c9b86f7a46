#![expect(
    unsafe_code,
    reason = "clock_gettime of libc, RDTSC; no wrapper is taken for a call each"
)]
//! The one file of this crate that asks the OS, or the processor, for the time.

use std::cell::Cell;
use std::fs;
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

/// The processor's counter, ticks. About 9 ns; the processor may read it some ns early or late.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn ticks() -> u64 {
    #[cfg(test)]
    READS.set(READS.get() + 1);
    // SAFETY: RDTSC exists on every x86-64; Linux leaves CR4.TSD clear unless a process asks for it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// A tick is a ns where the counter is not used.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn ticks() -> u64 {
    monotonic_ns()
}

#[cfg(test)]
thread_local! {
    /// How often this thread has read the counter.
    pub(crate) static READS: Cell<u64> = const { Cell::new(0) };
}

/// Whether time may be taken from the processor's counter: where it runs at one rate in all states and the
/// kernel itself keeps time by it. Reads one file of sysfs.
///
/// # Errors
/// Why not.
pub(crate) fn trust() -> Result<(), String> {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    trusted(is_invariant(), fs::read_to_string(path).ok().as_deref().map(str::trim))
}

fn trusted(invariant: bool, source: Option<&str>) -> Result<(), String> {
    match source {
        _ if !invariant => Err("the processor has no invariant TSC".to_owned()),
        Some("tsc") => Ok(()),
        Some(other) => Err(format!("the kernel keeps time by {other}")),
        None => Err("sysfs names no clock source".to_owned()),
    }
}

/// CPUID 80000007H EDX bit 8.
#[cfg(target_arch = "x86_64")]
fn is_invariant() -> bool {
    use std::arch::x86_64::__cpuid;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
}

#[cfg(not(target_arch = "x86_64"))]
const fn is_invariant() -> bool {
    false
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

    /// The clock without what a look at it takes: a manual one does not move on.
    #[inline]
    pub(crate) fn peek_ns(&self) -> u64 {
        match self {
            Self::Monotonic => monotonic_ns(),
            Self::Manual(clock) => clock.peek_ns(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_trusted_only_where_the_kernel_trusts_it() {
        assert_eq!(trusted(true, Some("tsc")), Ok(()));
        let why = |invariant, source| trusted(invariant, source).expect_err("not trusted");
        assert!(why(true, Some("kvm-clock")).contains("kvm-clock"));
        assert!(why(false, Some("tsc")).contains("invariant"));
        assert!(why(true, None).contains("sysfs"));
    }
}
