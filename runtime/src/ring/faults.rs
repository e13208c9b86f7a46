//! Faults of a shard's ring, switched while the runtime runs: operations on files and sockets that fail, that move a
//! part of what they were to, that end late and in another order. No filter of system calls and no preloaded library
//! sees an operation of io_uring, so this is the only place where they can be had without a device that has them.
//!
//! What is told of an operation stays true: one that fails was never submitted, one that is short was submitted for
//! less, and a last word is never said early. What a failing device does beside (pages that are lost, a file system that
//! turns read-only) is not there.

use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What is wrong with operations. All zero is nothing. Shares are parts per million, a million and more is all; they are
/// drawn for each operation on its own, from the seed of the [`RingFaults`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingFault {
    /// Reads, writes, syncs, reservations and opens of files suffer.
    pub files: bool,
    /// Connects, accepts, sends and receives of sockets suffer.
    pub sockets: bool,
    /// Operations that fail: they are not submitted.
    pub fail_ppm: u32,
    /// What they fail with, an errno (1 to 4095, anything else is EIO): EIO, ENOSPC, ECANCELED as if they were cancelled
    /// before they began. What a caller tries again it tries for ever while all fail.
    pub errno: u32,
    /// Reads, writes and sends of more than a byte that are asked for less: for 1 byte to all but one.
    pub short_ppm: u32,
    /// Operations whose completions come late, so that others overtake them. One that was cancelled is late no more.
    pub late_ppm: u32,
    /// How late at most, ns: drawn evenly from 0 to this. With a share or a time of 0 again they come within 1 ms.
    pub late_ns: u64,
    /// What one look finds comes in the reverse order of operations; each operation's completions keep theirs.
    pub reorder: bool,
}

/// What faults have done, over all shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingFaultCounts {
    /// Operations that failed and were not submitted.
    pub failed: u64,
    /// Operations that were asked for less.
    pub shortened: u64,
    /// Completions that were kept, to come late.
    pub late: u64,
    /// Completions that came while one of another operation was kept that had been there before them.
    pub overtook: u64,
    /// Completions whose order a look has turned round.
    pub reversed: u64,
    /// Completions that were to come late and came at once, as too many were kept: eight per entry of the ring, and eight
    /// with a receive buffer.
    pub crowded_out: u64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Settings {
    /// Bit 0 files, bit 1 sockets, bit 2 the order.
    what: AtomicU32,
    fail_ppm: AtomicU32,
    errno: AtomicU32,
    short_ppm: AtomicU32,
    late_ppm: AtomicU32,
    late_ns: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    failed: AtomicU64,
    shortened: AtomicU64,
    late: AtomicU64,
    overtook: AtomicU64,
    reversed: AtomicU64,
    crowded_out: AtomicU64,
}

/// The faults of a runtime's rings, for [`Config::ring_faults`](crate::Config::ring_faults). Two are equal when they are
/// the same one.
#[derive(Debug, Default)]
pub struct RingFaults {
    settings: Settings,
    counts: Counts,
    seed: u64,
}

impl PartialEq for RingFaults {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

impl Eq for RingFaults {}

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Done {
    Failed,
    Shortened,
    Late,
    Overtook,
    Reversed,
    CrowdedOut,
}

impl RingFaults {
    /// Rings without a fault; which operations will suffer is drawn from `seed`, by each shard on its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Sets what is wrong from now on. An operation that is submitted meanwhile may see a part of a setting.
    pub fn set(&self, fault: RingFault) {
        let settings = &self.settings;
        // Nothing suffers while it changes.
        settings.what.store(0, Relaxed);
        settings.errno.store(fault.errno, Relaxed);
        settings.fail_ppm.store(fault.fail_ppm, Relaxed);
        settings.short_ppm.store(fault.short_ppm, Relaxed);
        settings.late_ns.store(fault.late_ns, Relaxed);
        settings.late_ppm.store(fault.late_ppm, Relaxed);
        let what =
            u32::from(fault.files) | u32::from(fault.sockets) << 1 | u32::from(fault.reorder) << 2;
        settings.what.store(what, Relaxed);
    }

    /// Nothing is wrong any more, and what was kept comes.
    pub fn heal(&self) {
        self.set(RingFault::default());
    }

    /// What is set.
    #[must_use]
    pub fn get(&self) -> RingFault {
        let settings = &self.settings;
        let what = settings.what.load(Relaxed);
        RingFault {
            files: what & 1 != 0,
            sockets: what & 2 != 0,
            fail_ppm: settings.fail_ppm.load(Relaxed),
            errno: settings.errno.load(Relaxed),
            short_ppm: settings.short_ppm.load(Relaxed),
            late_ppm: settings.late_ppm.load(Relaxed),
            late_ns: settings.late_ns.load(Relaxed),
            reorder: what & 4 != 0,
        }
    }

    /// What they have done so far.
    #[must_use]
    pub fn counts(&self) -> RingFaultCounts {
        let counts = &self.counts;
        RingFaultCounts {
            failed: counts.failed.load(Relaxed),
            shortened: counts.shortened.load(Relaxed),
            late: counts.late.load(Relaxed),
            overtook: counts.overtook.load(Relaxed),
            reversed: counts.reversed.load(Relaxed),
            crowded_out: counts.crowded_out.load(Relaxed),
        }
    }

    /// Whether anything is wrong: one load.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.settings.what.load(Relaxed) != 0
    }

    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn note(&self, done: Done) {
        let counts = &self.counts;
        let count = match done {
            Done::Failed => &counts.failed,
            Done::Shortened => &counts.shortened,
            Done::Late => &counts.late,
            Done::Overtook => &counts.overtook,
            Done::Reversed => &counts.reversed,
            Done::CrowdedOut => &counts.crowded_out,
        };
        count.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_what_was_set_and_nothing_after_it_is_healed() {
        let faults = RingFaults::new(1);
        assert!(!faults.is_on() && faults.get() == RingFault::default());
        let fault = RingFault {
            files: true,
            sockets: false,
            fail_ppm: 1,
            errno: 5,
            short_ppm: 2,
            late_ppm: 3,
            late_ns: 4,
            reorder: true,
        };
        faults.set(fault);
        assert!(faults.is_on() && faults.get() == fault);
        let sockets = RingFault { files: false, sockets: true, ..fault };
        faults.set(sockets);
        assert_eq!(faults.get(), sockets);
        faults.heal();
        assert!(!faults.is_on() && faults.get() == RingFault::default());
        assert_eq!(faults.counts(), RingFaultCounts::default());
        assert!(faults == faults && faults != RingFaults::new(1));
    }
}
