//! Page-aligned blocks of the allocator behind us that nobody uses now, kept for the next sample.
//!
//! Measured before there was a pool: memalign cost 1 us per sample, and a freed page-aligned block that
//! goes back to glibc is the next one that malloc gives out, so that a loop of malloc and free met the
//! slow path each time (+48 %). A block here is still allocated from its allocator's view.
//!
//! Bounds: blocks of up to [`LARGEST`] bytes by powers of two, at most [`CLASS_BYTES`] per class: 768 KiB.
//! A full class gives the block back to the allocator.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::real::{self, Block};

const SMALLEST_BITS: u32 = 4;
const LARGEST_BITS: u32 = 15;
/// Larger blocks are not kept.
pub(crate) const LARGEST: usize = 1 << LARGEST_BITS;
const CLASS_BYTES: usize = 64 << 10;
const CLASSES: usize = (LARGEST_BITS - SMALLEST_BITS + 1) as usize;
const PLACES: usize = 32;

static POOL: [[AtomicPtr<core::ffi::c_void>; PLACES]; CLASSES] =
    [const { [const { AtomicPtr::new(null_mut()) }; PLACES] }; CLASSES];

fn places(class: usize) -> &'static [AtomicPtr<core::ffi::c_void>] {
    let fit = CLASS_BYTES >> (class + SMALLEST_BITS as usize);
    &POOL[class][..fit.min(PLACES)]
}

/// Bytes to ask for, so that the block serves its whole class later.
pub(crate) fn whole(size: usize) -> usize {
    if size > LARGEST { size } else { size.max(1 << SMALLEST_BITS).next_power_of_two() }
}

/// A kept block of at least `size` bytes. Null when there is none.
pub(crate) fn take(size: usize) -> Block {
    if size > LARGEST {
        return null_mut();
    }
    let class = whole(size).trailing_zeros() - SMALLEST_BITS;
    for place in places(class as usize) {
        // A look before the swap: most places are empty in a program that leaks.
        if !place.load(Ordering::Relaxed).is_null() {
            // Acquire pairs with the exchange in `keep`: its free happened before our reuse.
            let block = place.swap(null_mut(), Ordering::Acquire);
            if !block.is_null() {
                return block;
            }
        }
    }
    null_mut()
}

/// Keeps a page-aligned block; whether it was kept.
pub(crate) fn keep(block: Block) -> bool {
    let usable = real::usable(block);
    if !(1 << SMALLEST_BITS..2 * LARGEST).contains(&usable) {
        return false;
    }
    let class = usable.ilog2().min(LARGEST_BITS) - SMALLEST_BITS;
    places(class as usize).iter().any(|place| {
        place.load(Ordering::Relaxed).is_null()
            && place
                .compare_exchange(null_mut(), block, Ordering::Release, Ordering::Relaxed)
                .is_ok()
    })
}
