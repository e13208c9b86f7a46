#![expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; blocks are mimalloc's or the range's"
)]
//! The global allocator: mimalloc, exact totals, and sampling once it is started.
//!
//! A block is mimalloc's unless its address lies in the range; one compare tells on free. The fast path
//! adds to mimalloc one changed word on allocation, and that compare and one changed word on free.
//!
//! The methods are calls of functions that get size and alignment in registers and end in a jump into
//! mimalloc. So a caller holds one call, as with mimalloc alone, and no frame is built.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::cold_path;
use std::ptr::NonNull;

use super::cells::{
    Counted, Local, count_alloc, count_free, count_realloc, in_range, is_large, may_be_recorded,
    refill_freed, slow_alloc, slow_free, uncount_alloc,
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
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        alloc::<BY_CLASS>(layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        alloc_zeroed::<BY_CLASS>(layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract for `dealloc`.
        unsafe { free::<BY_CLASS>(pointer, layout.size()) }
    }

    #[inline(always)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract for `realloc`.
        unsafe { resize::<BY_CLASS>(pointer, layout, new_size) }
    }
}

#[inline(never)]
fn alloc<const BY_CLASS: bool>(size: usize, align: usize) -> *mut u8 {
    // Two branches: as one condition the compiler computes both sides and joins them.
    if !plain::is_small(size) {
        return alloc_larger::<BY_CLASS>(size, align);
    }
    if !plain::natural(align) {
        return alloc_larger::<BY_CLASS>(size, align);
    }
    if local(|local| count_alloc::<BY_CLASS>(local, size)) {
        cold_path();
        return finish_alloc::<BY_CLASS>(size, align);
    }
    plain::alloc_small(size)
}

#[inline(never)]
fn alloc_larger<const BY_CLASS: bool>(size: usize, align: usize) -> *mut u8 {
    if local(|local| count_alloc::<BY_CLASS>(local, size)) {
        cold_path();
        return finish_alloc::<BY_CLASS>(size, align);
    }
    plain::alloc(size, align)
}

#[inline(never)]
fn alloc_zeroed<const BY_CLASS: bool>(size: usize, align: usize) -> *mut u8 {
    if local(|local| count_alloc::<BY_CLASS>(local, size)) {
        cold_path();
        return finish_zeroed::<BY_CLASS>(size, align);
    }
    plain::alloc_zeroed(size, align)
}

/// # Safety
/// As `GlobalAlloc::dealloc`.
#[inline(never)]
unsafe fn free<const BY_CLASS: bool>(pointer: *mut u8, size: usize) {
    if is_large(size) || local(|local| may_be_recorded(local, pointer.addr())) {
        cold_path();
        // SAFETY: the caller's contract.
        return unsafe { finish_free::<BY_CLASS>(pointer, size) };
    }
    if local(|local| count_free::<BY_CLASS>(local, size)) {
        cold_path();
        // SAFETY: the caller's contract, for a block that is not in the range.
        return unsafe { free_and_refill::<BY_CLASS>(pointer, size) };
    }
    // SAFETY: the caller gives a block of this allocator that is not in the range, so it is mimalloc's.
    unsafe { plain::free(pointer) }
}

/// # Safety
/// As `GlobalAlloc::dealloc`, for a block of mimalloc whose free is counted.
#[cold]
#[inline(never)]
unsafe fn free_and_refill<const BY_CLASS: bool>(pointer: *mut u8, size: usize) {
    local(|local| refill_freed::<BY_CLASS>(local, size));
    // SAFETY: the caller's.
    unsafe { plain::free(pointer) }
}

/// # Safety
/// As `GlobalAlloc::realloc`.
#[inline(never)]
unsafe fn resize<const BY_CLASS: bool>(pointer: *mut u8, layout: Layout, new: usize) -> *mut u8 {
    if is_large(layout.size()) || local(|local| may_be_recorded(local, pointer.addr())) {
        cold_path();
        // SAFETY: the caller's contract.
        return unsafe { realloc::recorded::<BY_CLASS>(pointer, layout, new) };
    }
    // SAFETY: the block is mimalloc's, as in free, and was allocated with this alignment.
    let grown = unsafe { plain::realloc(pointer, layout, new) };
    let Some(block) = NonNull::new(grown) else { return grown };
    let (freed, grew) = local(|local| {
        let freed = count_free::<BY_CLASS>(local, layout.size());
        (freed, count_realloc::<BY_CLASS>(local, layout.size(), new))
    });
    if freed {
        local(|local| refill_freed::<BY_CLASS>(local, layout.size()));
    }
    if grew {
        return realloc::finish::<BY_CLASS>(block, layout, new);
    }
    grown
}

#[cold]
#[inline(never)]
fn finish_alloc<const BY_CLASS: bool>(size: usize, align: usize) -> *mut u8 {
    finish::<BY_CLASS>(size, align, Registers::here(), false)
}

#[cold]
#[inline(never)]
fn finish_zeroed<const BY_CLASS: bool>(size: usize, align: usize) -> *mut u8 {
    finish::<BY_CLASS>(size, align, Registers::here(), true)
}

/// The slow path of an allocation: a block of mimalloc, or one in the range.
#[inline(always)]
fn finish<const BY_CLASS: bool>(
    size: usize,
    align: usize,
    registers: Registers,
    zeroed: bool,
) -> *mut u8 {
    let counted = Counted { size, units: size as u64 + 1 };
    let trial = local(|local| slow_alloc::<BY_CLASS>(local, counted, &sampler()));
    let sampled = sampler().zip(trial);
    if let Some(block) = sampled.and_then(|it| placed(it, size, align, registers)) {
        if zeroed {
            // SAFETY: a slot of at least this size that nobody else has.
            unsafe { block.as_ptr().write_bytes(0, size) };
        }
        return block.as_ptr();
    }
    let block = if zeroed { plain::alloc_zeroed(size, align) } else { plain::alloc(size, align) };
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
unsafe fn finish_free<const BY_CLASS: bool>(pointer: *mut u8, size: usize) {
    let address = pointer.addr();
    let in_range = local(|local| {
        slow_free::<BY_CLASS>(local, size);
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
