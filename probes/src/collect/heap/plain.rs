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
const fn natural(layout: Layout) -> bool {
    layout.align() <= 8
}

#[inline(always)]
pub(super) fn alloc(layout: Layout) -> *mut u8 {
    if natural(layout) {
        // SAFETY: takes any size.
        unsafe { mi_malloc(layout.size()).cast() }
    } else {
        // SAFETY: takes any size and a power of two.
        unsafe { mi_malloc_aligned(layout.size(), layout.align()).cast() }
    }
}

#[inline(always)]
pub(super) fn alloc_zeroed(layout: Layout) -> *mut u8 {
    if natural(layout) {
        // SAFETY: takes any size.
        unsafe { mi_zalloc(layout.size()).cast() }
    } else {
        // SAFETY: takes any size and a power of two.
        unsafe { mi_zalloc_aligned(layout.size(), layout.align()).cast() }
    }
}

/// # Safety
/// The block is mimalloc's, of this layout.
#[inline(always)]
pub(super) unsafe fn realloc(pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
    if layout.align() <= 8 {
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
    /// mimalloc.h; libmimalloc-sys declares it behind a feature that brings another crate.
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
