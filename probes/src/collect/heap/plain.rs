#![expect(unsafe_code, reason = "mimalloc is C")]
//! mimalloc, called directly: for the usual alignments `mi_malloc` is cheaper than the aligned entry.

use std::alloc::Layout;

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// Whether mimalloc aligns a block of the size well enough without being asked.
const fn natural(layout: Layout) -> bool {
    layout.align() <= 8 || layout.align() == 16 && layout.size() >= 16
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

unsafe extern "C" {
    /// mimalloc.h; libmimalloc-sys declares it behind a feature that brings another crate.
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
