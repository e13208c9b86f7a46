#![expect(unsafe_code, reason = "the instructions that read the processor's counter")]
//! The processor's counter as a number of ticks, and whether it may be trusted.
//!
//! TSC (x86-64) where it is invariant (CPUID 80000007H EDX bit 8) and the kernel itself keeps time by
//! it, CNTVCT (aarch64) where the kernel's clock source is the architected counter. Both may be
//! executed ahead of the instructions before them: plain rdtsc gave 180 to 657 negative intervals in
//! 200,000 round trips between cores, fenced none (latency.md, finding 7). So [`Counter::ticks`] is
//! fenced on both sides (15 ns); [`Counter::ticks_unfenced`] (9 ns) is for durations on one core.

use crate::{Unavailable, clock};

/// Where ticks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// The processor's own: TSC on x86-64, CNTVCT on aarch64.
    Processor,
    /// `CLOCK_MONOTONIC`; a tick is a ns.
    Monotonic,
}

impl Counter {
    /// The counter now, after all that was loaded before and before all that comes after; comparable
    /// across cores. About 15 ns by the processor, 20 by the kernel.
    #[inline]
    #[must_use]
    pub fn ticks(self) -> u64 {
        match self {
            Self::Processor => fenced(),
            Self::Monotonic => clock::monotonic_ns(),
        }
    }

    /// As [`ticks`](Self::ticks), but the processor may read it some ns early or late. About 9 ns.
    #[inline]
    #[must_use]
    pub fn ticks_unfenced(self) -> u64 {
        match self {
            Self::Processor => plain(),
            Self::Monotonic => clock::monotonic_ns(),
        }
    }

    /// How the counter is called in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processor if cfg!(target_arch = "x86_64") => "TSC",
            Self::Processor => "CNTVCT",
            Self::Monotonic => "CLOCK_MONOTONIC",
        }
    }
}

/// What the processor says of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    /// The kernel's clock source that is this counter.
    clocksource: &'static str,
    /// It runs at one rate in all states.
    invariant: bool,
}

/// Decides by what the processor and the kernel say.
pub(super) fn choose(host: Host, clocksource: Option<&str>) -> Result<Counter, Unavailable> {
    let refuse = |cause: String, remedy: &str| {
        Err(Unavailable { source: "processor counter", cause, remedy: remedy.to_owned() })
    };
    if !host.invariant {
        return refuse(
            "the TSC is not invariant (CPUID 80000007H)".to_owned(),
            "none needed: CLOCK_MONOTONIC is used, 20 ns per stamp; or expose invtsc to the guest",
        );
    }
    match clocksource {
        Some(source) if source == host.clocksource => Ok(Counter::Processor),
        Some(source) => refuse(
            format!("the kernel keeps time by {source}, not by {}", host.clocksource),
            "none needed: CLOCK_MONOTONIC is used; or boot with clocksource=tsc where it is stable",
        ),
        None => refuse("sysfs names no clock source".to_owned(), "mount /sys"),
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) fn host() -> Host {
    use std::arch::x86_64::__cpuid;
    let leaves = __cpuid(0x8000_0000).eax;
    let invariant = leaves >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0;
    Host { clocksource: "tsc", invariant }
}

#[cfg(target_arch = "aarch64")]
pub(super) const fn host() -> Host {
    Host { clocksource: "arch_sys_counter", invariant: true }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn plain() -> u64 {
    // SAFETY: RDTSC exists on every x86-64; Linux leaves CR4.TSD clear unless a process asks for it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fenced() -> u64 {
    // SAFETY: LFENCE is part of SSE2, which every x86-64 has.
    unsafe { std::arch::x86_64::_mm_lfence() };
    let ticks = plain();
    // SAFETY: as above.
    unsafe { std::arch::x86_64::_mm_lfence() };
    ticks
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn plain() -> u64 {
    let ticks: u64;
    // SAFETY: Linux lets user space read CNTVCT_EL0; MRS changes neither memory nor flags.
    unsafe {
        std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags))
    };
    ticks
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn fenced() -> u64 {
    let ticks: u64;
    // SAFETY: as in `plain`; ISB only orders. Without nomem the compiler keeps memory accesses in place.
    unsafe {
        std::arch::asm!("isb", "mrs {}, cntvct_el0", "isb", out(reg) ticks, options(nostack, preserves_flags))
    };
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_trusted_only_where_the_kernel_trusts_it() {
        let steady = Host { clocksource: "tsc", invariant: true };
        let arm = Host { clocksource: "arch_sys_counter", invariant: true };
        assert_eq!(choose(steady, Some("tsc")), Ok(Counter::Processor));
        assert_eq!(choose(arm, Some("arch_sys_counter")), Ok(Counter::Processor));
        let cause = |host, source| choose(host, source).unwrap_err().cause;
        assert!(cause(steady, Some("kvm-clock")).contains("kvm-clock"));
        assert!(cause(Host { invariant: false, ..steady }, Some("tsc")).contains("invariant"));
        assert!(cause(steady, None).contains("sysfs"));
        assert!(cause(arm, Some("tsc")).contains("arch_sys_counter"));
    }
}
