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

use super::cells::{
    Counted, Local, count_alloc, count_free, in_range, is_large, may_be_recorded, slow_alloc,
    slow_free, uncount_alloc,
};
use super::sampler::{Fresh, sampler};
use super::unwind::Registers;
use super::{plain, realloc};

/// Put this in a program: `#[global_allocator] static A: TailbeamAlloc = TailbeamAlloc;`.
///
/// It counts, and samples after [`super::start`]. `TailbeamAlloc<true>` counts by powers of two of the
/// size as well, for about 10 instructions more per pair of operations.
#[derive(Debug, Clone, Copy, Default)]
pub struct TailbeamAlloc<const BY_CLASS: bool = false>;

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
unsafe impl<const BY_CLASS: bool> GlobalAlloc for TailbeamAlloc<BY_CLASS> {
    // Not inlined: a call each, whose last step is the jump into mimalloc, keeps callers small.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if local(|local| count_alloc::<BY_CLASS>(local, layout.size())) {
            return finish_alloc::<BY_CLASS>(layout, false);
        }
        plain::alloc(layout)
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if local(|local| count_alloc::<BY_CLASS>(local, layout.size())) {
            return finish_alloc::<BY_CLASS>(layout, true);
        }
        plain::alloc_zeroed(layout)
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let size = layout.size();
        if is_large(size) || local(|local| may_be_recorded(local, pointer.addr())) {
            // SAFETY: the caller's contract for `dealloc`.
            return unsafe { finish_free::<BY_CLASS>(pointer, layout) };
        }
        // It has cells, or the block might be recorded.
        let _ = local(|local| count_free::<BY_CLASS>(local, size));
        // SAFETY: the caller gives a block of this allocator that is not in the range, so it is
        // mimalloc's.
        unsafe { plain::free(pointer) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if is_large(layout.size()) || local(|local| may_be_recorded(local, pointer.addr())) {
            // SAFETY: the caller's contract for `realloc`.
            return unsafe { realloc::recorded::<BY_CLASS>(pointer, layout, new_size) };
        }
        // SAFETY: the block is mimalloc's, as in dealloc, and was allocated with this alignment.
        let grown = unsafe { plain::realloc(pointer, layout, new_size) };
        match NonNull::new(grown) {
            Some(grown) => realloc::counted::<BY_CLASS>(grown, layout, new_size),
            None => grown,
        }
    }
}

/// The slow path of an allocation: a block of mimalloc, or one in the range that takes its place.
#[cold]
#[inline(never)]
fn finish_alloc<const BY_CLASS: bool>(layout: Layout, zeroed: bool) -> *mut u8 {
    let size = layout.size();
    let counted = Counted { size, units: size as u64 + 1, grown: false };
    let block = if zeroed { plain::alloc_zeroed(layout) } else { plain::alloc(layout) };
    let Some(fresh) = NonNull::new(block) else {
        local(|local| uncount_alloc::<BY_CLASS>(local, size));
        plain::settled();
        return block;
    };
    let Some(placed) = sampled::<BY_CLASS>(fresh, layout, counted) else { return block };
    if zeroed {
        // SAFETY: a slot of at least this size that nobody else has.
        unsafe { placed.as_ptr().write_bytes(0, size) };
    }
    // SAFETY: mimalloc gave it a moment ago, and nobody has seen it.
    unsafe { plain::free(block) };
    placed.as_ptr()
}

/// Where a block that its word made slow shall lie, if it is sampled and belongs into the range.
#[inline(always)]
pub(super) fn sampled<const BY_CLASS: bool>(
    block: NonNull<u8>,
    layout: Layout,
    counted: Counted,
) -> Option<NonNull<u8>> {
    let registers = Registers::here();
    local(|local| {
        let sampler = sampler();
        let mean = slow_alloc::<BY_CLASS>(local, counted, &sampler)?;
        let fresh = Fresh { block, size: layout.size(), align: layout.align(), mean };
        sampler?.place(&local.thread, fresh, registers)
    })
}

/// A free of what may be recorded or was not counted.
///
/// # Safety
/// As `GlobalAlloc::dealloc`.
#[cold]
#[inline(never)]
unsafe fn finish_free<const BY_CLASS: bool>(pointer: *mut u8, layout: Layout) {
    let (address, size) = (pointer.addr(), layout.size());
    let in_range = local(|local| {
        if is_large(size) || !count_free::<BY_CLASS>(local, size) {
            slow_free::<BY_CLASS>(local, size);
        }
        let sampler = sampler()?;
        let in_range = in_range(address) && !sampler.exact();
        if in_range {
            sampler.release(&local.thread, address);
        } else if sampler.exact() || is_large(size) {
            sampler.freed(&local.thread, address);
        }
        in_range.then_some(())
    });
    if in_range.is_none() {
        // SAFETY: the caller's; it is not in the range, so it is mimalloc's.
        unsafe { plain::free(pointer) };
    }
}
