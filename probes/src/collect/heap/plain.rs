#![expect(unsafe_code, reason = "mimalloc is C")]
//! mimalloc, called directly: for the usual alignments `mi_malloc` is cheaper than the aligned entry.

use std::alloc::Layout;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// Whether mimalloc aligns a block of the size well enough without being asked.
pub(super) const fn natural(align: usize) -> bool {
    align <= 8
}

/// Largest size that [`alloc_small`] takes (mimalloc.h, `MI_SMALL_SIZE_MAX`).
const SMALL: usize = 128 * size_of::<*const ()>();

/// Whether [`alloc_small`] takes a size, of an alignment that is [`natural`].
#[inline(always)]
pub(super) const fn is_small(size: usize) -> bool {
    size <= SMALL
}

/// A block of a small size: `mi_malloc` would look at the size once more and jump once more.
#[inline(always)]
pub(super) fn alloc_small(size: usize) -> *mut u8 {
    debug_assert!(size <= SMALL);
    // SAFETY: takes any size up to SMALL.
    unsafe { mi_malloc_small(size).cast() }
}

#[inline(always)]
pub(super) fn alloc(size: usize, align: usize) -> *mut u8 {
    if natural(align) {
        // SAFETY: takes any size.
        unsafe { mi_malloc(size).cast() }
    } else {
        // SAFETY: takes any size and a power of two.
        unsafe { mi_malloc_aligned(size, align).cast() }
    }
}

#[inline(always)]
pub(super) fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    if natural(align) {
        // SAFETY: takes any size.
        unsafe { mi_zalloc(size).cast() }
    } else {
        // SAFETY: takes any size and a power of two.
        unsafe { mi_zalloc_aligned(size, align).cast() }
    }
}

/// # Safety
/// The block is mimalloc's, of this layout.
#[inline(always)]
pub(super) unsafe fn realloc(pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
    if natural(layout.align()) {
        // SAFETY: the caller's.
        unsafe { mi_realloc(pointer.cast(), new_size).cast() }
    } else {
        let align = layout.align();
        // SAFETY: the caller's.
        unsafe { mi_realloc_aligned(pointer.cast(), new_size, align).cast() }
    }
}

/// # Safety
/// The block is mimalloc's, and nobody uses it any more.
#[inline(always)]
pub(super) unsafe fn free(pointer: *mut u8) {
    // SAFETY: the caller's.
    unsafe { mi_free(pointer.cast()) }
}

/// Allocations that mimalloc refused, less those whose count was taken back.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Lets mimalloc tell of refused allocations: the fast path does not look.
pub(super) fn watch() {
    // SAFETY: the handler lives as long as the program and takes no argument (mimalloc.h).
    unsafe { mi_register_error(Some(refused), std::ptr::null_mut()) };
}

extern "C" fn refused(error: c_int, _: *mut c_void) {
    if error == libc::ENOMEM {
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The count of a refused allocation was taken back.
pub(super) fn settled() {
    REFUSED.fetch_sub(1, Ordering::Relaxed);
}

/// Refused allocations that count as live.
pub(super) fn refusals() -> u64 {
    // A handler of the program's own may have taken the place of ours: then only less is known.
    Some(REFUSED.load(Ordering::Relaxed)).filter(|&count| count < 1 << 62).unwrap_or(0)
}

unsafe extern "C" {
    // mimalloc.h; libmimalloc-sys declares them behind a feature that brings another crate.
    fn mi_malloc_small(size: usize) -> *mut c_void;
    fn mi_register_error(handler: Option<extern "C" fn(c_int, *mut c_void)>, argument: *mut c_void);
    fn mi_process_info(
        elapsed: *mut usize,
        user: *mut usize,
        system: *mut usize,
        rss: *mut usize,
        peak_rss: *mut usize,
        commit: *mut usize,
        peak_commit: *mut usize,
        faults: *mut usize,
    );
}

/// Bytes that mimalloc holds readable and writable, by its own statistics.
pub(super) fn held_bytes() -> u64 {
    let (mut commit, none) = (0usize, std::ptr::null_mut());
    // SAFETY: each result may be null (mimalloc.h).
    unsafe { mi_process_info(none, none, none, none, none, &raw mut commit, none, none) };
    commit as u64
}
