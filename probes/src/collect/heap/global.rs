#![expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; blocks are mimalloc's or the range's"
)]
//! The global allocator: mimalloc, exact totals, and sampling once it is started.
//!
//! A block is mimalloc's unless its address lies in the range; one compare tells on free. The fast path
//! adds to mimalloc one changed word on allocation, and that compare and one changed word on free.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use super::cells::{Counted, Local, count_alloc, count_free, is_large, slow_alloc, slow_free};
use super::sampler::{Fresh, HOT, sampler};
use super::unwind::Registers;
use super::{plain, realloc};

/// Put this in a program: `#[global_allocator] static A: TailbeamAlloc = TailbeamAlloc;`.
///
/// It counts, and samples after [`super::start`].
#[derive(Debug, Clone, Copy, Default)]
pub struct TailbeamAlloc;

thread_local! {
    // Const and without destructor: no lazy initialisation, so a hook cannot re-enter itself, and it
    // can be used until the thread is gone.
    static LOCAL: Local = const { Local::new() };
}

/// What the calling thread keeps.
#[inline(always)]
pub(super) fn local<T>(with: impl FnOnce(&Local) -> T) -> T {
    LOCAL.with(with)
}

// SAFETY: each method returns a block of the layout from mimalloc or from the range, or null, and
// takes back the same; none unwinds: the hooks do not panic on any input.
unsafe impl GlobalAlloc for TailbeamAlloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(plain::alloc(layout), layout, false)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocated(plain::alloc_zeroed(layout), layout, true)
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if HOT.holds(pointer.addr()) && free_recorded(pointer, layout) {
            return;
        }
        if local(|local| count_free(local, layout.size())) {
            finish_free(pointer, layout);
        }
        // SAFETY: the caller gives a block of this allocator that is not in the range, so it is
        // mimalloc's.
        unsafe { plain::free(pointer) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if HOT.holds(pointer.addr()) || is_large(layout.size()) {
            // SAFETY: the caller's contract for `realloc`.
            return unsafe { realloc::recorded(pointer, layout, new_size) };
        }
        // SAFETY: the block is mimalloc's, as in dealloc, and was allocated with this alignment.
        let grown = unsafe { plain::realloc(pointer, layout, new_size) };
        match NonNull::new(grown) {
            Some(grown) => realloc::counted(grown, layout, new_size),
            None => grown,
        }
    }
}

#[inline(always)]
fn allocated(block: *mut u8, layout: Layout, zeroed: bool) -> *mut u8 {
    match NonNull::new(block) {
        Some(fresh) if local(|local| count_alloc(local, layout.size())) => {
            finish_alloc(fresh, layout, zeroed)
        }
        _ => block,
    }
}

/// The slow path of an allocation: the block, or the one in the range that takes its place.
#[cold]
#[inline(never)]
fn finish_alloc(block: NonNull<u8>, layout: Layout, zeroed: bool) -> *mut u8 {
    let counted = Counted { size: layout.size(), units: layout.size() as u64 + 1 };
    let Some(placed) = sampled(block, layout, counted) else { return block.as_ptr() };
    if zeroed {
        // SAFETY: a slot of at least this size that nobody else has.
        unsafe { placed.as_ptr().write_bytes(0, layout.size()) };
    }
    // SAFETY: mimalloc gave it a moment ago, and nobody has seen it.
    unsafe { plain::free(block.as_ptr()) };
    placed.as_ptr()
}

/// Where a block that its word made slow shall lie, if it is sampled and belongs into the range.
#[inline(always)]
pub(super) fn sampled(block: NonNull<u8>, layout: Layout, counted: Counted) -> Option<NonNull<u8>> {
    let registers = Registers::here();
    local(|local| {
        let sampler = sampler();
        let mean = slow_alloc(local, counted, &sampler)?;
        let fresh = Fresh { block, size: layout.size(), align: layout.align(), mean };
        sampler?.place(&local.thread, fresh, registers)
    })
}

/// The slow path of a free whose block is not in the range.
#[cold]
#[inline(never)]
pub(super) fn finish_free(pointer: *mut u8, layout: Layout) {
    local(|local| {
        slow_free(local, layout.size());
        // In exact mode every free was looked up before.
        if let Some(sampler) = sampler().filter(|s| is_large(layout.size()) && !s.exact()) {
            sampler.freed(&local.thread, pointer.addr());
        }
    });
}

/// A free of what may be recorded. True when the block was in the range and is done with.
#[cold]
#[inline(never)]
fn free_recorded(pointer: *mut u8, layout: Layout) -> bool {
    let Some(sampler) = sampler() else { return false };
    local(|local| {
        if sampler.exact() {
            sampler.freed(&local.thread, pointer.addr());
            return false;
        }
        if count_free(local, layout.size()) {
            slow_free(local, layout.size());
        }
        sampler.release(&local.thread, pointer.addr());
        true
    })
}
