#![expect(unsafe_code, reason = "tables in mapped memory, read through addresses in atomic words")]
//! From the address of a block to its slot in the collector: two loads, no hash, no lock.
//!
//! The address space is cut into regions of 256 MiB. Region `n` has a leaf, mapped when it is first
//! needed, with one word per possible address: per page when sampling (256 KiB of addresses per leaf;
//! sampled blocks are page-aligned), per 16 bytes in exact mode (64 MiB of addresses per leaf, of which
//! only touched pages become memory). A word holds slot + 1, or 0. Bounds: one leaf per region in use.

use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

const REGION_BITS: u32 = 28;
/// Addresses of programs on x86-64 and aarch64 have 48 bits, unless they ask for more by hint.
const ADDRESS_BITS: u32 = 48;
const REGIONS: usize = 1 << (ADDRESS_BITS - REGION_BITS);
/// log2 of the distance of possible addresses when sampling.
pub(crate) const SAMPLED_BITS: u32 = 12;
/// log2 of the distance of possible addresses in exact mode.
pub(crate) const EXACT_BITS: u32 = 4;

/// 8 MiB of addresses, of which the touched pages become memory.
static LEAVES: [AtomicPtr<AtomicU32>; REGIONS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; REGIONS];

fn words(bits: u32) -> usize {
    1 << (REGION_BITS - bits)
}

fn leaf(region: usize, bits: u32) -> Option<*mut AtomicU32> {
    let word = LEAVES.get(region)?;
    // Acquire pairs with the exchange below: the mapping is there before its address is.
    let found = word.load(Ordering::Acquire);
    if !found.is_null() {
        return Some(found);
    }
    let bytes = words(bits) * size_of::<AtomicU32>();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice (man 2 mmap).
    let mapped = unsafe { libc::mmap(core::ptr::null_mut(), bytes, access, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    let mine = mapped.cast::<AtomicU32>();
    let null = core::ptr::null_mut();
    match word.compare_exchange(null, mine, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(mine),
        Err(theirs) => {
            // SAFETY: our own mapping of this length, whose address nobody else has seen.
            unsafe { libc::munmap(mapped, bytes) };
            Some(theirs)
        }
    }
}

fn split(block: *mut c_void, bits: u32) -> (usize, usize) {
    let address = block as usize;
    (address >> REGION_BITS, (address >> bits) & (words(bits) - 1))
}

/// Enters a block. Gives the slot that stood there: of a block that was freed behind our back.
pub(crate) fn enter(block: *mut c_void, slot: u32, bits: u32) -> Result<Option<u32>, Full> {
    let (region, index) = split(block, bits);
    let leaf = leaf(region, bits).ok_or(Full)?;
    // SAFETY: `split` keeps the index below the leaf's number of words; leaves are never unmapped.
    let word = unsafe { &*leaf.wrapping_add(index) };
    // AcqRel: whoever frees this block, on any thread, got its address after we returned it.
    Ok(word.swap(slot + 1, Ordering::AcqRel).checked_sub(1))
}

/// There was no room for an entry: an address out of range, or no memory for a leaf.
pub(crate) struct Full;

/// Takes a block out and gives its slot, to one caller only.
pub(crate) fn take(block: *mut c_void, bits: u32) -> Option<u32> {
    let (region, index) = split(block, bits);
    let leaf = LEAVES.get(region)?.load(Ordering::Acquire);
    if leaf.is_null() {
        return None;
    }
    // SAFETY: as in `enter`.
    let word = unsafe { &*leaf.wrapping_add(index) };
    if word.load(Ordering::Relaxed) == 0 {
        return None;
    }
    word.swap(0, Ordering::AcqRel).checked_sub(1)
}
