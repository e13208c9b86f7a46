//! What the calling thread has used so far, so that the difference over one turn of an agent can be taken.
//!
//! About 1 us for a reading (getrusage 0.2, thread CPU time 0.4, the allocator's own words): for turns that
//! were drawn beforehand, not for all.

use super::heap::{ThreadTotals, this_thread};
use super::sys::{Usage, thread_usage};
use crate::clock::{monotonic_ns, thread_cpu_ns};
use crate::record::latency::PollCounts;

/// Counts of the calling thread since it began.
#[derive(Debug, Clone, Copy)]
pub struct TurnReading {
    cpu_ns: u64,
    usage: Usage,
    heap: Option<ThreadTotals>,
}

impl TurnReading {
    /// Reads them. Allocates nothing.
    #[must_use]
    pub fn now() -> Self {
        Self { cpu_ns: thread_cpu_ns(), usage: thread_usage(), heap: this_thread() }
    }

    /// What came since `before`, a reading of the same thread. `unit`: cost of a pair of calls of the
    /// allocator, if it was measured. CPU time contains one reading.
    #[must_use]
    pub fn since(&self, before: &Self, unit: Option<AllocatorUnit>) -> PollCounts {
        let (usage, old) = (&self.usage, &before.usage);
        let heap = self.heap.zip(before.heap).map(|(now, old)| ThreadTotals {
            objects: now.objects.wrapping_sub(old.objects),
            bytes: now.bytes.wrapping_sub(old.bytes),
        });
        PollCounts {
            cpu_ns: Some(self.cpu_ns.saturating_sub(before.cpu_ns)),
            minor_faults: Some(usage.minor_faults.wrapping_sub(old.minor_faults)),
            major_faults: Some(usage.major_faults.wrapping_sub(old.major_faults)),
            preemptions: Some(usage.involuntary.wrapping_sub(old.involuntary)),
            blocks: Some(usage.voluntary.wrapping_sub(old.voluntary)),
            allocations: heap.map(|heap| heap.objects),
            allocated_bytes: heap.map(|heap| heap.bytes),
            allocator_ns: heap.zip(unit).map(|(heap, unit)| unit.times(heap.objects)),
        }
    }
}

/// Mean cost of a reading on this thread, ns; takes some 50 us to measure.
#[must_use]
pub fn reading_ns() -> u64 {
    const READINGS: u64 = 64;
    let from = monotonic_ns();
    for _ in 0..READINGS {
        std::hint::black_box(TurnReading::now());
    }
    monotonic_ns().saturating_sub(from) / READINGS
}

/// Adds the counts of one more turn; what is unknown in one of them is unknown in the sum.
#[must_use]
pub fn sum(a: &PollCounts, b: &PollCounts) -> PollCounts {
    let add = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.saturating_add(b));
    PollCounts {
        cpu_ns: add(a.cpu_ns, b.cpu_ns),
        minor_faults: add(a.minor_faults, b.minor_faults),
        major_faults: add(a.major_faults, b.major_faults),
        preemptions: add(a.preemptions, b.preemptions),
        blocks: add(a.blocks, b.blocks),
        allocations: add(a.allocations, b.allocations),
        allocated_bytes: add(a.allocated_bytes, b.allocated_bytes),
        allocator_ns: add(a.allocator_ns, b.allocator_ns),
    }
}

/// Pairs that the unit is the mean of, and objects that live meanwhile.
const PAIRS: usize = 16_384;
const LIVE: usize = 64;

/// Mean cost of an allocation and its free on this thread, in thousandths of ns: a model for programs whose
/// objects are small and recent. It knows nothing of the page faults and locks of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocatorUnit {
    ps: u64,
}

impl AllocatorUnit {
    /// Measures it: about a millisecond of 64- to 512-byte objects, freed oldest first.
    #[must_use]
    pub fn measure() -> Self {
        let mut live: [Option<Box<[u8]>>; LIVE] = [const { None }; LIVE];
        let from = monotonic_ns();
        for pair in 0..PAIRS {
            let size = 64 << (pair % 4);
            live[pair % LIVE] = Some(std::hint::black_box(vec![0; size].into_boxed_slice()));
        }
        let took = monotonic_ns().saturating_sub(from);
        Self { ps: took.saturating_mul(1_000) / PAIRS as u64 }
    }

    /// Thousandths of ns.
    #[must_use]
    pub const fn ps(self) -> u64 {
        self.ps
    }

    /// The cost of so many pairs, ns.
    #[must_use]
    pub const fn times(self, pairs: u64) -> u64 {
        pairs.saturating_mul(self.ps) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_turn_used_is_what_came_since() {
        let before = TurnReading::now();
        let pages = std::hint::black_box(vec![1u8; 64 << 20]);
        let counts = TurnReading::now().since(&before, None);
        assert!(counts.minor_faults > Some(0) && counts.cpu_ns > Some(0), "{counts:?}");
        assert_eq!(counts.allocator_ns, None, "no unit, no time");
        drop(pages);
        let twice = sum(&counts, &counts);
        assert_eq!(twice.minor_faults, counts.minor_faults.map(|faults| 2 * faults));
        let unknown = PollCounts { cpu_ns: None, ..counts };
        assert_eq!(sum(&counts, &unknown).cpu_ns, None);
    }

    #[test]
    fn a_unit_is_scaled_by_calls() {
        assert!(AllocatorUnit::measure().ps() > 0);
        assert_eq!(AllocatorUnit { ps: 20_500 }.times(1_000), 20_500);
    }
}
