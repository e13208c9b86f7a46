#![expect(unsafe_code, reason = "blocks of C programs are copied, cleared and handed on")]
//! The slow paths: what the countdown picked, what may be a picked block, and what is rare anyway.
//!
//! A picked block comes from the allocator behind us like any other, only page-aligned, so `free` knows
//! by twelve bits of an address that all other blocks are none of ours. Blocks that the program frees
//! behind our back (`RTLD_DEEPBIND`, jemalloc's `dallocx`) are still real blocks: the entry is stale until
//! the address is picked again, and nothing else happens. In exact mode blocks are left where they are
//! and every `free` looks at the table.
//!
//! A realloc is the same object. Bytes by which it grows are new bytes for the countdown; so an object
//! that has grown to `n` bytes has met a mean distance R between samples with probability
//! 1 - exp(-(n + 1) / R) in however many steps (the old size is known up to the rounding of
//! `malloc_usable_size`, at most 16 bytes in glibc). A picked one keeps its slot, and with it its birth.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

use crate::real::{self, Block};
use crate::sink::{self, Caller};
use crate::thread::{self, Thread};
use crate::{map, pool, start};

const PAGE: usize = 4096;
/// From this size on, a zeroed block is looked at before it is written: a big calloc is mostly pages that
/// nobody has touched yet, and to clear them would make them memory.
const LOOK_BYTES: usize = 64 << 10;
/// What the table says of a block that waits in the pool.
const KEPT: u32 = u32::MAX - 1;

/// Keeps errno and marks the thread as being inside, for as long as it lives.
struct Inside {
    thread: *mut Thread,
    errno: c_int,
}

impl Inside {
    /// None when this thread is inside already: a signal handler, or our own collector.
    fn enter() -> Option<Self> {
        let thread = thread::current();
        // SAFETY: the calling thread's own state; no reference to it is alive.
        let inside = unsafe { &mut (*thread).inside };
        if core::mem::replace(inside, true) {
            return None;
        }
        Some(Self { thread, errno: errno() })
    }
}

impl Inside {
    /// The thread's state, for the collector.
    fn state(&self) -> &Thread {
        // SAFETY: the calling thread's own; while it is inside, nothing else changes it but a nested
        // fast path, which touches `left` only, and that is not read through this.
        unsafe { &*self.thread }
    }
}

/// Runs what is not the program's own: it is not sampled, and errno stays. None when inside already.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> Option<T> {
    let _inside = Inside::enter()?;
    Some(work())
}

impl Drop for Inside {
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        unsafe { (*self.thread).inside = false };
        set_errno(self.errno);
    }
}

fn errno() -> c_int {
    // SAFETY: takes nothing; the address of the calling thread's errno.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: valid as long as the thread runs.
    unsafe { place.read() }
}

fn set_errno(value: c_int) {
    // SAFETY: as in `errno`.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as in `errno`.
    unsafe { place.write(value) };
}

/// Takes the bytes of a block from the countdown; whether the countdown picked it.
fn count(size: usize) -> bool {
    let thread = thread::current();
    // SAFETY: the calling thread's own state; no reference to it is alive.
    let left = unsafe { &mut (*thread).left };
    let (after, borrow) = left.overflowing_sub(1);
    let (after, more) = after.overflowing_sub(size as u64);
    *left = after;
    (borrow || more) && picked(size)
}

/// Settles a countdown that ran out at a block of this size; whether the block is to be recorded.
#[cold]
fn picked(size: usize) -> bool {
    let thread = thread::current();
    // SAFETY: as in `count`.
    let thread = unsafe { &mut *thread };
    let before = thread.left.wrapping_add(size as u64).wrapping_add(1);
    // The allocator behind us refuses what is larger than half of the addresses.
    if isize::try_from(size).is_err() || thread.inside {
        thread.left = before;
        return false;
    }
    match start::mode() {
        start::Mode::Waiting => thread.left = 0,
        start::Mode::Refused => thread.left = u64::MAX >> 1,
        start::Mode::Exact => {
            thread.left = 0;
            return true;
        }
        start::Mode::Sampling => return sink::settle(thread, before, size),
    }
    false
}

/// A fresh block that was picked: records it, as the caller's.
fn born(block: Block, size: usize, caller: Caller) {
    if block.is_null() {
        return;
    }
    let Some(inside) = Inside::enter() else { return };
    let bits = start::bits();
    if (block as usize).trailing_zeros() < bits {
        return;
    }
    let Some(slot) = sink::born(inside.state(), block, size, caller) else { return };
    enter(&inside, block, slot);
}

/// A block that will be found again by `free`: page-aligned when sampling.
fn findable(size: usize) -> Block {
    if start::mode() == start::Mode::Exact {
        return real::malloc(size);
    }
    let pooled = pool::take(size);
    if !pooled.is_null() {
        map::take(pooled, map::SAMPLED_BITS);
        return pooled;
    }
    let kept = errno();
    let block = real::memalign(PAGE, pool::whole(size));
    if !block.is_null() {
        return block;
    }
    let block = real::malloc(size);
    if !block.is_null() {
        set_errno(kept);
    }
    block
}

pub(crate) extern "C" fn malloc(size: usize, ip: usize, sp: usize, fp: usize) -> Block {
    // The fast path has counted already; elsewhere nobody has.
    let chosen = if cfg!(target_arch = "x86_64") { picked(size) } else { count(size) };
    if chosen { fresh(size, Caller { ip, sp, fp }) } else { real::malloc(size) }
}

fn fresh(size: usize, caller: Caller) -> Block {
    let block = findable(size);
    born(block, size, caller);
    block
}

pub(crate) extern "C" fn calloc(
    count_of: usize,
    size: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> Block {
    let Some(bytes) = count_of.checked_mul(size) else { return real::calloc(count_of, size) };
    let chosen = if cfg!(target_arch = "x86_64") { picked(bytes) } else { count(bytes) };
    if !chosen {
        return real::calloc(count_of, size);
    }
    let caller = Caller { ip, sp, fp };
    if start::mode() == start::Mode::Exact {
        let block = real::calloc(count_of, size);
        born(block, bytes, caller);
        return block;
    }
    let block = findable(bytes);
    clear(block, bytes);
    born(block, bytes, caller);
    block
}

/// Zeroes a fresh block without touching pages that are zero because nobody has touched them.
fn clear(block: Block, size: usize) {
    if block.is_null() {
        return;
    }
    if size < LOOK_BYTES {
        // SAFETY: the block is ours and holds `size` bytes.
        unsafe { block.cast::<u8>().write_bytes(0, size) };
        return;
    }
    if real::is_glibc() && is_mapped(block) && ends_are_zero(block, size) {
        return;
    }
    for from in (0..size).step_by(PAGE) {
        let length = PAGE.min(size - from);
        let page = block.cast::<u8>().wrapping_add(from);
        // SAFETY: within the block; the bytes are mapped and nobody else knows the block yet.
        let bytes = unsafe { core::slice::from_raw_parts_mut(page, length) };
        if bytes.iter().any(|&byte| byte != 0) {
            bytes.fill(0);
        }
    }
}

/// Whether glibc took a block straight from mmap: bit 1 of the size word before it (malloc.c,
/// IS_MMAPPED). Such a block is zero, unless MALLOC_PERTURB_ fills every block with one byte.
fn is_mapped(block: Block) -> bool {
    // SAFETY: glibc's chunk header lies right before each of its blocks.
    unsafe { block.cast::<usize>().wrapping_sub(1).read() & 2 != 0 }
}

fn ends_are_zero(block: Block, size: usize) -> bool {
    let byte = |at: usize| {
        // SAFETY: `at` lies within the block.
        unsafe { block.cast::<u8>().wrapping_add(at).read() }
    };
    byte(0) == 0 && byte(size - 1) == 0
}

pub(crate) extern "C" fn free(block: Block) {
    if block.is_null() || real::is_boot(block) {
        return;
    }
    let bits = start::bits();
    let maybe = (block as usize).trailing_zeros() >= bits;
    match maybe.then(|| map::take(block, bits)).flatten() {
        Some(KEPT) => {
            // Freed twice: it was in the pool. The allocator behind us says so in its own words.
            real::free(block);
            real::free(block);
        }
        Some(slot) => released(block, slot, bits),
        None => real::free(block),
    }
}

fn released(block: Block, slot: u32, bits: u32) {
    // In a handler that interrupted the collector the death goes untold: the slot's address is met again.
    if let Some(inside) = Inside::enter() {
        sink::died(inside.state(), slot, block);
    }
    let poolable = bits == map::SAMPLED_BITS && map::enter(block, KEPT, bits).is_ok();
    if poolable && pool::keep(block) {
        return;
    }
    map::take(block, bits);
    real::free(block);
}

pub(crate) extern "C" fn realloc(
    block: Block,
    size: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> Block {
    let caller = Caller { ip, sp, fp };
    if block.is_null() {
        return if count(size) { fresh(size, caller) } else { real::malloc(size) };
    }
    if real::is_boot(block) {
        return unboot(block, size, caller);
    }
    let bits = start::bits();
    let maybe = (block as usize).trailing_zeros() >= bits;
    match maybe.then(|| map::take(block, bits)).flatten() {
        Some(slot) => resize(block, slot, size),
        None => grow(block, size, caller),
    }
}

/// A block from before the allocator was known moves into it; its pages stay.
fn unboot(block: Block, size: usize, caller: Caller) -> Block {
    let fresh = fresh(size, caller);
    if !fresh.is_null() {
        let length = size.min(real::boot_room(block));
        // SAFETY: both hold `length` bytes; the fresh block does not overlap the static pages.
        unsafe { block.cast::<u8>().copy_to_nonoverlapping(fresh.cast(), length) };
    }
    fresh
}

/// A recorded block changes its size and keeps its slot.
fn resize(block: Block, slot: u32, size: usize) -> Block {
    let moved = real::realloc(block, size);
    let Some(inside) = Inside::enter() else { return moved };
    if moved.is_null() {
        if size == 0 {
            sink::died(inside.state(), slot, block);
        } else {
            // The old block is as it was (C23 7.24.3.7).
            enter(&inside, block, slot);
        }
        return moved;
    }
    let moved = findable_again(moved, size);
    sink::resized(slot, block, moved, size);
    enter(&inside, moved, slot);
    moved
}

/// Enters a slot. Whatever stood there was freed behind our back; without room, this one is let go.
fn enter(inside: &Inside, block: Block, slot: u32) {
    let bits = start::bits();
    let aligned = (block as usize).trailing_zeros() >= bits;
    let entered = if aligned { map::enter(block, slot, bits) } else { Err(map::Full) };
    match entered {
        Ok(None | Some(KEPT)) => {}
        Ok(Some(stale)) => sink::died(inside.state(), stale, block),
        Err(map::Full) => sink::forget(slot, block),
    }
}

/// A block without a slot: what it grows by may pick it.
fn grow(block: Block, size: usize, caller: Caller) -> Block {
    let more = size.saturating_sub(real::usable(block));
    let exact = start::mode() == start::Mode::Exact;
    // Exact mode meets blocks here that were born before it started.
    let chosen = (more > 0 || exact) && size > 0 && count(more);
    let moved = real::realloc(block, size);
    if !chosen || moved.is_null() {
        return moved;
    }
    let moved = findable_again(moved, size);
    born(moved, size, caller);
    moved
}

/// Moves a block to an address that `free` will recognise, where it is not at one already. A mapped block
/// keeps its place in the page when it is remapped, so this copies small blocks only, or once.
fn findable_again(block: Block, size: usize) -> Block {
    if (block as usize).trailing_zeros() >= start::bits() {
        return block;
    }
    let kept = errno();
    let aligned = real::memalign(PAGE, size);
    if aligned.is_null() {
        set_errno(kept);
        return block;
    }
    // SAFETY: both are live blocks of at least `size` bytes.
    unsafe { block.cast::<u8>().copy_to_nonoverlapping(aligned.cast(), size) };
    real::free(block);
    aligned
}

pub(crate) extern "C" fn reallocarray(
    block: Block,
    count_of: usize,
    size: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> Block {
    let Some(bytes) = count_of.checked_mul(size) else {
        set_errno(libc::ENOMEM);
        return null_mut();
    };
    realloc(block, bytes, ip, sp, fp)
}

/// The alignment for a picked block: at least a page when sampling. None for what C refuses.
fn wider(align: usize) -> Option<usize> {
    let sampling = start::mode() == start::Mode::Sampling;
    align.is_power_of_two().then(|| if sampling { align.max(PAGE) } else { align })
}

pub(crate) extern "C" fn memalign(
    align: usize,
    size: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> Block {
    match wider(align) {
        Some(wider) if count(size) => {
            let block = real::memalign(wider, size);
            born(block, size, Caller { ip, sp, fp });
            block
        }
        _ => real::memalign(align, size),
    }
}

pub(crate) extern "C" fn aligned_alloc(
    align: usize,
    size: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> Block {
    match wider(align) {
        Some(wider) if count(size) => {
            let block = real::aligned_alloc(wider, size);
            born(block, size, Caller { ip, sp, fp });
            block
        }
        _ => real::aligned_alloc(align, size),
    }
}

pub(crate) extern "C" fn posix_memalign(
    out: *mut Block,
    align: usize,
    size: usize,
    ip: usize,
    sp: usize,
    fp: usize,
) -> c_int {
    // Below a pointer's size C refuses.
    let wider = wider(align).filter(|_| align >= size_of::<*mut c_void>());
    let Some(wider) = wider.filter(|_| count(size)) else {
        return real::posix_memalign(out, align, size);
    };
    let failed = real::posix_memalign(out, wider, size);
    if failed == 0 {
        // SAFETY: posix_memalign has just written there.
        let block = unsafe { out.read() };
        born(block, size, Caller { ip, sp, fp });
    }
    failed
}

pub(crate) extern "C" fn valloc(size: usize, ip: usize, sp: usize, fp: usize) -> Block {
    let chosen = count(size);
    let block = real::valloc(size);
    if chosen {
        born(block, size, Caller { ip, sp, fp });
    }
    block
}

pub(crate) extern "C" fn pvalloc(size: usize, ip: usize, sp: usize, fp: usize) -> Block {
    let whole = size.checked_next_multiple_of(PAGE).unwrap_or(size);
    let chosen = count(whole);
    let block = real::pvalloc(size);
    if chosen {
        born(block, whole, Caller { ip, sp, fp });
    }
    block
}
