#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait; each method forwards to mimalloc")]
//! The counting allocator: mimalloc, with allocated and freed bytes and objects counted per thread.
//!
//! Allocation and free write different words, each on a cache line of its own thread: one word that
//! both read and write would make every operation wait for the one before (store-to-load forwarding).
//! Live = allocated - freed over all threads, so a block freed by another thread still balances.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mimalloc::MiMalloc;

use crate::Unavailable;

/// Threads with cells of their own; the threads after them share the last cells by atomic additions.
const THREADS: usize = 512;
const UNCLAIMED: usize = usize::MAX;

/// Put this in a program: `#[global_allocator] static A: TailbeamAlloc = TailbeamAlloc;`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TailbeamAlloc;

/// Live memory by the allocator's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Requested bytes that are allocated and not freed.
    pub bytes: u64,
    /// Objects that are allocated and not freed.
    pub objects: u64,
}

#[repr(align(128))]
struct Cells {
    allocated: AtomicU64,
    allocs: AtomicU64,
    freed: AtomicU64,
    frees: AtomicU64,
}

static CELLS: [Cells; THREADS] = [const {
    Cells {
        allocated: AtomicU64::new(0),
        allocs: AtomicU64::new(0),
        freed: AtomicU64::new(0),
        frees: AtomicU64::new(0),
    }
}; THREADS];
static CLAIMED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Const and without destructor: no lazy initialisation, so the hook cannot re-enter itself.
    static MINE: Cell<usize> = const { Cell::new(UNCLAIMED) };
}

/// Cells of this thread, and whether they are its own. A cell outlives its thread and is not reused:
/// its counts stay part of the sum.
fn cells() -> (&'static Cells, bool) {
    let index = MINE.try_with(|mine| {
        if mine.get() == UNCLAIMED {
            // Relaxed: the number only has to be unique.
            mine.set(CLAIMED.fetch_add(1, Ordering::Relaxed).min(THREADS - 1));
        }
        mine.get()
    });
    let index = index.unwrap_or(THREADS - 1);
    (&CELLS[index], index < THREADS - 1)
}

fn add(cell: &AtomicU64, amount: u64, own: bool) {
    if own {
        // Single writer: a load and a store, no locked instruction. Readers tolerate being late.
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    } else {
        cell.fetch_add(amount, Ordering::Relaxed);
    }
}

fn count_alloc(pointer: *mut u8, size: usize) -> *mut u8 {
    if !pointer.is_null() {
        let (cells, own) = cells();
        add(&cells.allocated, size as u64, own);
        add(&cells.allocs, 1, own);
    }
    pointer
}

fn count_free(size: usize) {
    let (cells, own) = cells();
    add(&cells.freed, size as u64, own);
    add(&cells.frees, 1, own);
}

// SAFETY: every method forwards its arguments unchanged to MiMalloc, which upholds GlobalAlloc; the
// counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for TailbeamAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract for `alloc` (non-zero size) is MiMalloc's.
        count_alloc(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        count_alloc(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count_free(layout.size());
        // SAFETY: the caller gives a block of this allocator with its layout, and all of our blocks
        // are MiMalloc's.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`, and the new size meets the caller's contract.
        let grown = unsafe { MiMalloc.realloc(pointer, layout, new_size) };
        if !grown.is_null() {
            count_free(layout.size());
        }
        count_alloc(grown, new_size)
    }
}

/// Live bytes and objects over all threads.
///
/// # Errors
/// [`Unavailable`] when [`TailbeamAlloc`] is not the program's global allocator.
pub fn live() -> Result<Live, Unavailable> {
    let used = CLAIMED.load(Ordering::Relaxed).min(THREADS);
    if used == 0 {
        return Err(Unavailable {
            source: "allocator",
            cause: "TailbeamAlloc is not this program's global allocator".to_owned(),
            remedy: "#[global_allocator] static A: tailbeam_probes::collect::heap::TailbeamAlloc = TailbeamAlloc;".to_owned(),
        });
    }
    // Frees first: a block allocated between the two sums can only make live larger, never negative.
    let sum = |field: fn(&Cells) -> &AtomicU64| {
        CELLS.iter().fold(0u64, |sum, cells| sum.wrapping_add(field(cells).load(Ordering::Relaxed)))
    };
    let (freed, frees) = (sum(|c| &c.freed), sum(|c| &c.frees));
    let (allocated, allocs) = (sum(|c| &c.allocated), sum(|c| &c.allocs));
    Ok(Live { bytes: allocated.saturating_sub(freed), objects: allocs.saturating_sub(frees) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_allocator_live_is_unknown_with_a_remedy() {
        assert!(live().unwrap_err().remedy.contains("global_allocator"));
    }
}
