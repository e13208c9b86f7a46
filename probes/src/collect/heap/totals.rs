//! Live memory by the allocator's own count.

use super::cells;
use crate::Unavailable;

/// Live memory by the allocator's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Requested bytes that are allocated and not freed.
    pub bytes: u64,
    /// Objects that are allocated and not freed.
    pub objects: u64,
}

/// Live bytes and objects over all threads. Costs about 0.2 us and as much per thread. A block that
/// moves between two threads meanwhile may be seen freed and not yet allocated.
///
/// # Errors
/// [`Unavailable`] when [`TailbeamAlloc`](super::TailbeamAlloc) is not the program's global allocator.
pub fn live() -> Result<Live, Unavailable> {
    if !cells::used() {
        return Err(Unavailable {
            source: "allocator",
            cause: "TailbeamAlloc is not this program's global allocator".to_owned(),
            remedy: "#[global_allocator] static A: tailbeam_probes::collect::heap::TailbeamAlloc = TailbeamAlloc;".to_owned(),
        });
    }
    let sums = cells::all();
    Ok(Live {
        bytes: sums.allocated.saturating_sub(sums.freed),
        objects: sums.allocs.saturating_sub(sums.frees),
    })
}

/// What the calling thread has allocated so far, live or not, without objects above 128 KiB: those are
/// counted for all threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadTotals {
    /// Objects, reallocations included.
    pub objects: u64,
    /// Requested bytes.
    pub bytes: u64,
}

/// The calling thread's own totals, some loads of its own words; `None` where
/// [`TailbeamAlloc`](super::TailbeamAlloc) does not serve it. The difference of two readings on one
/// thread is exact, up to one object that a signal handler interrupts.
#[must_use]
pub fn this_thread() -> Option<ThreadTotals> {
    let sums = super::global::local(cells::own)?;
    Some(ThreadTotals { objects: sums.allocs, bytes: sums.allocated })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_allocator_live_is_unknown_with_a_remedy() {
        assert!(live().unwrap_err().remedy.contains("global_allocator"));
    }
}
