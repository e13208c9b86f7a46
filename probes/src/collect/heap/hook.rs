#![expect(unsafe_code, reason = "hook.c: mimalloc with our fast paths built in")]
//! The fast paths, which are C (`hook.c`): what they count in, and how they are called and call back.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::global;

/// Classes that have words of a thread's own; `hook.c` has the same number.
pub(super) const OWN: usize = 18;

/// Words of one class of one thread. Only that thread writes them, C by plain instructions: an aligned
/// word is read before or after each.
#[repr(C)]
pub(super) struct Words {
    /// For allocations: negative as soon as the slow path must follow.
    pub(super) left: AtomicU64,
    /// For frees.
    pub(super) freed: AtomicU64,
    /// Bytes that reallocated objects had before and have still: `left` is charged for growth only.
    pub(super) kept: AtomicU64,
    /// Reallocations.
    pub(super) reallocs: AtomicU64,
}

/// What the fast paths of a thread read and write; without counts by class the first line of it.
#[repr(C)]
pub(super) struct Fast {
    /// First address and bytes of what a free looks up; no bytes while nobody samples.
    pub(super) range: [AtomicUsize; 2],
    pub(super) words: [Words; OWN],
}

const _: () = assert!(size_of::<Fast>() == 16 + OWN * 32, "hook.c says so too");

impl Fast {
    /// Looks up nothing, and every word is used up.
    pub(super) const fn new() -> Fast {
        const fn zero() -> AtomicU64 {
            AtomicU64::new(0)
        }
        let words =
            [const { Words { left: zero(), freed: zero(), kept: zero(), reallocs: zero() } }; OWN];
        Fast { range: [AtomicUsize::new(0), AtomicUsize::new(0)], words }
    }
}

unsafe extern "C" {
    static tailbeam_nobodys: Fast;
    fn tailbeam_use(cells: &'static Fast);
    fn tailbeam_alloc(size: usize, align: usize) -> *mut u8;
    fn tailbeam_alloc_by_class(size: usize, align: usize) -> *mut u8;
    fn tailbeam_zeroed(size: usize, align: usize) -> *mut u8;
    fn tailbeam_zeroed_by_class(size: usize, align: usize) -> *mut u8;
    fn tailbeam_free(block: *mut u8, size: usize);
    fn tailbeam_free_by_class(block: *mut u8, size: usize);
    fn tailbeam_realloc(block: *mut u8, old: usize, align: usize, size: usize) -> *mut u8;
    fn tailbeam_realloc_by_class(block: *mut u8, old: usize, align: usize, size: usize) -> *mut u8;
    fn tailbeam_count_alloc(cells: &Fast, size: usize, by_class: bool) -> bool;
    fn tailbeam_count_free(cells: &Fast, size: usize, by_class: bool) -> bool;
    fn tailbeam_count_realloc(cells: &Fast, old: usize, size: usize, by_class: bool) -> bool;
}

/// What threads without cells count in: every word is negative and every address looked up, so every
/// operation goes the slow way, which counts it elsewhere and makes the word -1 again.
pub(super) fn nobodys() -> &'static Fast {
    // SAFETY: an object of hook.c that is laid out like this and never freed; whoever writes it does so
    // by single instructions.
    unsafe { &tailbeam_nobodys }
}

/// Lets the calling thread count in `cells` from now on.
pub(super) fn count_in(cells: &'static Fast) {
    // SAFETY: the reference lives as long as any thread.
    unsafe { tailbeam_use(cells) }
}

#[inline(always)]
pub(super) fn alloc<const BY_CLASS: bool>(size: usize, align: usize) -> *mut u8 {
    if BY_CLASS {
        // SAFETY: takes any size and a power of two.
        unsafe { tailbeam_alloc_by_class(size, align) }
    } else {
        // SAFETY: as above.
        unsafe { tailbeam_alloc(size, align) }
    }
}

#[inline(always)]
pub(super) fn zeroed<const BY_CLASS: bool>(size: usize, align: usize) -> *mut u8 {
    if BY_CLASS {
        // SAFETY: takes any size and a power of two.
        unsafe { tailbeam_zeroed_by_class(size, align) }
    } else {
        // SAFETY: as above.
        unsafe { tailbeam_zeroed(size, align) }
    }
}

/// # Safety
/// A block of this allocator, allocated with this size, that nobody uses any more.
#[inline(always)]
pub(super) unsafe fn free<const BY_CLASS: bool>(block: *mut u8, size: usize) {
    if BY_CLASS {
        // SAFETY: the caller's.
        unsafe { tailbeam_free_by_class(block, size) }
    } else {
        // SAFETY: the caller's.
        unsafe { tailbeam_free(block, size) }
    }
}

/// # Safety
/// A block of this allocator, allocated with this size and alignment; unless the result is null, nobody
/// uses it any more.
#[inline(always)]
pub(super) unsafe fn realloc<const BY_CLASS: bool>(
    block: *mut u8,
    (old, align): (usize, usize),
    size: usize,
) -> *mut u8 {
    if BY_CLASS {
        // SAFETY: the caller's.
        unsafe { tailbeam_realloc_by_class(block, old, align, size) }
    } else {
        // SAFETY: the caller's.
        unsafe { tailbeam_realloc(block, old, align, size) }
    }
}

/// Counts an allocation of an object that is not large; true when the slow path must follow, as it must
/// for a large one, which is not counted here.
pub(super) fn count_alloc<const BY_CLASS: bool>(cells: &Fast, size: usize) -> bool {
    // SAFETY: the words are those of the calling thread, or nobody's.
    unsafe { tailbeam_count_alloc(cells, size, BY_CLASS) }
}

/// Counts a free of an object that is not large; true when the word is used up.
pub(super) fn count_free<const BY_CLASS: bool>(cells: &Fast, size: usize) -> bool {
    // SAFETY: as above.
    unsafe { tailbeam_count_free(cells, size, BY_CLASS) }
}

/// Counts a reallocation as an allocation that is charged for what it grew by, unless it is large now;
/// true when the slow path must follow. The free of the old block is counted apart.
pub(super) fn count_realloc<const BY_CLASS: bool>(cells: &Fast, old: usize, size: usize) -> bool {
    // SAFETY: as above.
    unsafe { tailbeam_count_realloc(cells, old, size, BY_CLASS) }
}

/// Ends the grant of nobody's words, which others took from meanwhile.
pub(super) fn nobody_again(at: usize) {
    nobodys().words[at].left.store(u64::MAX, Ordering::Relaxed);
    nobodys().words[at].freed.store(u64::MAX, Ordering::Relaxed);
}

// A hidden symbol, so that a shared object which links this crate exports nothing and keeps nothing that
// it does not use: the attributes for symbols of Rust functions know no such thing.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(".hidden tailbeam_slow", ".globl tailbeam_slow", "tailbeam_slow:", "jmp {slow}",
    slow = sym global::slow);
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(".hidden tailbeam_slow", ".globl tailbeam_slow", "tailbeam_slow:", "b {slow}",
    slow = sym global::slow);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[unsafe(no_mangle)]
unsafe extern "C" fn tailbeam_slow(
    what: usize,
    block: *mut u8,
    old: usize,
    align: usize,
    size: usize,
) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { global::slow(what, block, old, align, size) }
}
