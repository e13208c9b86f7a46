#![expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; blocks are mimalloc's or the range's"
)]
//! The global allocator: mimalloc, exact totals, and sampling once it is started.
//!
//! A block is mimalloc's unless its address lies in the range; one compare tells on free. The fast path
//! adds to mimalloc one changed word on allocation, and that compare and one changed word on free. It is
//! in `hook.c`, and so is mimalloc, in one unit; here is what it leaves to do.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use super::cells::{
    Counted, Local, in_range, is_large, refill_freed, slow_alloc, slow_free, uncount_alloc,
};
use super::sampler::{Fresh, Sampler, sampler};
use super::unwind::Registers;
use super::{hook, plain, realloc, shortage};

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
        hook::alloc::<BY_CLASS>(layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        hook::zeroed::<BY_CLASS>(layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract for `dealloc`.
        unsafe { hook::free::<BY_CLASS>(pointer, layout.size()) }
    }

    #[inline(always)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract for `realloc`.
        unsafe { hook::realloc::<BY_CLASS>(pointer, (layout.size(), layout.align()), new_size) }
    }
}

/// What `hook.c` asks for; the same numbers.
pub(super) mod what {
    pub(in super::super) const ALLOC: usize = 0;
    pub(in super::super) const ZEROED: usize = 1;
    pub(in super::super) const FREE: usize = 2;
    pub(in super::super) const REFILL: usize = 3;
    pub(in super::super) const RECORDED: usize = 4;
    pub(in super::super) const REFILL_RESIZED: usize = 5;
    /// Added to one of the above: the thread counts by class.
    pub(in super::super) const BY_CLASS: usize = 8;
}

/// Continues an operation that the fast path does not end.
///
/// # Safety
/// As the method of `GlobalAlloc` that `what` belongs to; for the last one `block` is null, or what
/// mimalloc made of the old block a moment ago.
#[cold]
pub(super) unsafe extern "C" fn slow(
    what: usize,
    block: *mut u8,
    old: usize,
    align: usize,
    size: usize,
) -> *mut u8 {
    if what < what::BY_CLASS {
        // SAFETY: the caller's.
        unsafe { go_on::<false>(what, block, (old, align), size) }
    } else {
        // SAFETY: the caller's.
        unsafe { go_on::<true>(what - what::BY_CLASS, block, (old, align), size) }
    }
}

/// # Safety
/// As [`slow`].
#[inline(always)]
unsafe fn go_on<const BY_CLASS: bool>(
    what: usize,
    block: *mut u8,
    (old, align): (usize, usize),
    size: usize,
) -> *mut u8 {
    // Where nobody's words are counted in, everything begins as one of these.
    let begins = what <= what::FREE || what == what::RECORDED;
    if begins && local(|local| local.shortage.is_on()) {
        // SAFETY: the caller's.
        return unsafe { shortage::go_on::<BY_CLASS>(what, block, (old, align), size) };
    }
    match what {
        what::ALLOC => return finish_alloc::<BY_CLASS>(size, align),
        what::ZEROED => return finish_zeroed::<BY_CLASS>(size, align),
        // SAFETY: the caller's.
        what::FREE => unsafe { finish_free::<BY_CLASS>(block, old) },
        // SAFETY: the caller's, for a block that is not in the range.
        what::REFILL => unsafe { free_and_refill::<BY_CLASS>(block, old) },
        what::REFILL_RESIZED => local(|local| refill_freed::<BY_CLASS>(local, old)),
        _ => {
            let Ok(layout) = Layout::from_size_align(old, align) else { return block };
            if what == what::RECORDED {
                // SAFETY: the caller's.
                return unsafe { realloc::recorded::<BY_CLASS>(block, layout, size) };
            }
            let grown = NonNull::new(block);
            return grown.map_or(block, |it| realloc::finish::<BY_CLASS>(it, layout, size));
        }
    }
    block
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
