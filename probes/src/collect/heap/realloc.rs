#![expect(unsafe_code, reason = "moves blocks between mimalloc and the range")]
//! Reallocation. A chain of blocks is one object: it keeps its birth, its site and its owner, wherever
//! its block goes. Bytes that it grows by are charged like newly allocated ones, those it had are not:
//! so its chance to be sampled is that of its largest size.

use std::alloc::Layout;
use std::ptr::NonNull;

use super::cells::{Counted, count_realloc, in_range, slow_alloc, slow_free};
use super::global::{local, noted, placed};
use super::plain;
use super::sampler::{Sampler, sampler};
use super::unwind::Registers;

/// Counts the reallocation of a block that was not recorded; the grown block may be sampled.
fn counted<const BY_CLASS: bool>(block: NonNull<u8>, old: Layout, new_size: usize) -> *mut u8 {
    let slow = local(|local| {
        slow_free::<BY_CLASS>(local, old.size());
        count_realloc::<BY_CLASS>(local, old.size(), new_size)
    });
    if slow { finish::<BY_CLASS>(block, old, new_size) } else { block.as_ptr() }
}

fn charged(old: usize, new_size: usize) -> Counted {
    Counted { size: new_size, units: new_size.saturating_sub(old) as u64 }
}

/// Continues a counted reallocation: the grown block may be sampled.
#[cold]
#[inline(never)]
pub(super) fn finish<const BY_CLASS: bool>(
    block: NonNull<u8>,
    old: Layout,
    new_size: usize,
) -> *mut u8 {
    let registers = Registers::here();
    let charged = charged(old.size(), new_size);
    let trial = local(|local| slow_alloc::<BY_CLASS>(local, charged, &sampler()));
    let Some(sampled) = sampler().zip(trial) else { return block.as_ptr() };
    let Some(placed) = placed(sampled, new_size, old.align(), registers) else {
        noted(sampled, block, new_size, registers);
        return block.as_ptr();
    };
    // SAFETY: both hold the smaller of the sizes, and a fresh slot overlaps nothing.
    unsafe { copy(block.as_ptr(), placed.as_ptr(), old.size().min(new_size)) };
    // SAFETY: mimalloc gave it a moment ago, and nobody has seen it.
    unsafe { plain::free(block.as_ptr()) };
    placed.as_ptr()
}

/// Reallocates a block that may be recorded: it is in the range, or large, or all are.
///
/// # Safety
/// As `GlobalAlloc::realloc`.
#[cold]
#[inline(never)]
pub(super) unsafe fn recorded<const BY_CLASS: bool>(
    pointer: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    let Some(sampler) = sampler() else {
        // SAFETY: nothing is sampled: the block is mimalloc's.
        let grown = unsafe { plain::realloc(pointer, layout, new_size) };
        return NonNull::new(grown)
            .map_or(grown, |grown| counted::<BY_CLASS>(grown, layout, new_size));
    };
    if in_range(pointer.addr()) && !sampler.exact() {
        // SAFETY: the caller's; the block is in the range.
        unsafe { from_range::<BY_CLASS>(sampler, pointer, layout, new_size) }
    } else {
        // SAFETY: the caller's; the block is mimalloc's.
        unsafe { from_outside::<BY_CLASS>(sampler, pointer, layout, new_size) }
    }
}

/// # Safety
/// As `GlobalAlloc::realloc`, for a block of mimalloc.
unsafe fn from_outside<const BY_CLASS: bool>(
    sampler: &Sampler,
    pointer: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    let object = sampler.lift(pointer.addr());
    // SAFETY: the caller's.
    let grown = unsafe { plain::realloc(pointer, layout, new_size) };
    let (Some(object), Some(block)) = (object, NonNull::new(grown)) else {
        if let Some(object) = object {
            sampler.put_back(object, pointer.addr());
        }
        return NonNull::new(grown)
            .map_or(grown, |grown| counted::<BY_CLASS>(grown, layout, new_size));
    };
    count_only::<BY_CLASS>(layout.size(), new_size);
    let moved = |to: *mut u8| {
        sampler.moved(object, pointer.addr(), (to.addr(), new_size));
        to
    };
    if sampler.stays_outside(new_size) {
        return moved(block.as_ptr());
    }
    // It shrank below what a free looks up by address: into the range with it.
    let Some(slot) = sampler.slot_for(new_size, layout.align()) else {
        sampler.forget(object, pointer.addr());
        return block.as_ptr();
    };
    // SAFETY: both hold `new_size` bytes, and a fresh slot overlaps nothing.
    unsafe { copy(block.as_ptr(), slot.as_ptr(), new_size) };
    // SAFETY: mimalloc gave it a moment ago, and nobody has seen it.
    unsafe { plain::free(block.as_ptr()) };
    moved(slot.as_ptr())
}

/// # Safety
/// As `GlobalAlloc::realloc`, for a block in the range.
unsafe fn from_range<const BY_CLASS: bool>(
    sampler: &Sampler,
    pointer: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    let address = pointer.addr();
    let object = sampler.object(address);
    let lives = sampler.collector.holds(object, address as u64);
    let moved = |to: usize| {
        if lives {
            sampler.moved(object, address, (to, new_size));
        }
    };
    if sampler.fits(address, new_size) {
        moved(address);
        count_only::<BY_CLASS>(layout.size(), new_size);
        return pointer;
    }
    let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
        return std::ptr::null_mut();
    };
    let slot = (lives && !sampler.stays_outside(new_size))
        .then(|| sampler.slot_for(new_size, layout.align()))
        .flatten();
    let target = slot.map_or_else(|| plain::alloc(new.size(), new.align()), NonNull::as_ptr);
    if target.is_null() {
        return target;
    }
    // SAFETY: both hold the smaller of the sizes; a fresh block overlaps nothing.
    unsafe { copy(pointer, target, layout.size().min(new_size)) };
    if slot.is_some() || sampler.stays_outside(new_size) {
        moved(target.addr());
    } else if lives {
        sampler.forget(object, address);
    }
    sampler.give(address);
    count_only::<BY_CLASS>(layout.size(), new_size);
    target
}

/// Counts a reallocation whose object is recorded already: no new trial.
fn count_only<const BY_CLASS: bool>(old: usize, new_size: usize) {
    local(|local| {
        slow_free::<BY_CLASS>(local, old);
        if count_realloc::<BY_CLASS>(local, old, new_size) {
            slow_alloc::<BY_CLASS>(local, charged(old, new_size), &sampler());
        }
    });
}

/// # Safety
/// Both hold `bytes`, and do not overlap.
unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) }
}
