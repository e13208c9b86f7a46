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
use super::sampler::{Fresh, Sampler, sampler};
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
    // Not inlined: a call each, whose last step is the jump into mimalloc. Inlined into its callers the
    // same code made a JSON program 17 % slower than mimalloc, as a call 1.3 % (10 rounds, ABBA).
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

/// The slow path of an allocation: a block of mimalloc, or one in the range.
#[cold]
#[inline(never)]
fn finish_alloc<const BY_CLASS: bool>(layout: Layout, zeroed: bool) -> *mut u8 {
    let size = layout.size();
    let counted = Counted { size, units: size as u64 + 1, grown: false };
    let registers = Registers::here();
    let trial = local(|local| slow_alloc::<BY_CLASS>(local, counted, &sampler()));
    let sampled = sampler().zip(trial);
    if let Some(block) = sampled.and_then(|it| placed(it, size, layout.align(), registers)) {
        if zeroed {
            // SAFETY: a slot of at least this size that nobody else has.
            unsafe { block.as_ptr().write_bytes(0, size) };
        }
        return block.as_ptr();
    }
    let block = if zeroed { plain::alloc_zeroed(layout) } else { plain::alloc(layout) };
    let Some(fresh) = NonNull::new(block) else {
        local(|local| uncount_alloc::<BY_CLASS>(local, size));
        plain::settled();
        return block;
    };
    if let Some(it) = sampled {
        noted(it, fresh, size, registers);
    }
    block
}

/// A block in the range for a sampled object, if it belongs there and there is room.
#[inline(always)]
pub(super) fn placed(
    (sampler, mean): (&'static Sampler, f32),
    size: usize,
    align: usize,
    registers: Registers,
) -> Option<NonNull<u8>> {
    if sampler.stays_outside(size) {
        return None;
    }
    let fresh = Fresh { size, align, mean, registers };
    local(|local| sampler.place(&local.thread, &fresh))
}

/// Records a sampled object that stays where mimalloc put it.
#[inline(always)]
pub(super) fn noted(
    (sampler, mean): (&'static Sampler, f32),
    block: NonNull<u8>,
    size: usize,
    registers: Registers,
) {
    if sampler.stays_outside(size) {
        let fresh = Fresh { size, align: 1, mean, registers };
        local(|local| sampler.record(&local.thread, &fresh, block.as_ptr().addr()));
    }
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
