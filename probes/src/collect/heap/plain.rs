#![expect(unsafe_code, reason = "mimalloc is C")]
//! mimalloc as the slow path calls it, through `hook.c`, which holds it.

use std::alloc::Layout;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// A block of this size and alignment, or null.
pub(super) fn alloc(size: usize, align: usize) -> *mut u8 {
    // SAFETY: takes any size and a power of two.
    unsafe { tailbeam_plain(size, align, false) }
}

pub(super) fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    // SAFETY: as above.
    unsafe { tailbeam_plain(size, align, true) }
}

/// # Safety
/// The block is mimalloc's, of this layout.
pub(super) unsafe fn realloc(pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { tailbeam_plain_realloc(pointer, new_size, layout.align()) }
}

/// # Safety
/// The block is mimalloc's, and nobody uses it any more.
pub(super) unsafe fn free(pointer: *mut u8) {
    // SAFETY: the caller's.
    unsafe { tailbeam_plain_free(pointer) }
}

/// Allocations that mimalloc refused, less those whose count was taken back.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Lets mimalloc tell of refused allocations: the fast path does not look.
pub(super) fn watch() {
    // SAFETY: the handler lives as long as the program and takes no argument (mimalloc.h).
    unsafe { tailbeam_watch(refused) };
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
    fn tailbeam_plain(size: usize, align: usize, zero: bool) -> *mut u8;
    fn tailbeam_plain_realloc(block: *mut u8, size: usize, align: usize) -> *mut u8;
    fn tailbeam_plain_free(block: *mut u8);
    fn tailbeam_watch(refused: extern "C" fn(c_int, *mut c_void));
    fn tailbeam_held() -> usize;
}

/// Bytes that mimalloc holds readable and writable, by its own statistics.
pub(super) fn held_bytes() -> u64 {
    // SAFETY: takes nothing and only reads.
    unsafe { tailbeam_held() as u64 }
}
