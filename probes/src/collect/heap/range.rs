#![expect(unsafe_code, reason = "reserves an address range and makes parts of it usable")]
//! Blocks of sampled objects, in one reserved address range: whether a block was sampled is one
//! compare of its address, and which object it is follows from the address by arithmetic.
//!
//! The range is cut into one area per slot size, 16 bytes to 1 MiB, four to an octave. A free slot is
//! handed out by a lock-free stack per area. Memory behind slots is kept for the next sample, without
//! huge pages, so it is bounded by what was sampled at one time.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::stack::Numbers;
use crate::collect::words::Words;

/// Slot sizes.
const SIZES: usize = 60;
/// Largest slot, bytes.
const SLOT_MAX: usize = 1 << 20;
/// Slots of one size at most.
const SLOTS: u32 = 1 << 17;
/// Slots of all sizes at most: their words are part of the collector's bounded state.
const SLOTS_ALL: u32 = 1 << 18;
/// Bytes that become usable at one time.
const STEP: usize = 1 << 16;

pub(super) struct Range {
    base: usize,
    /// Area size is 2^shift bytes.
    shift: u32,
    areas: [Area; SIZES],
    /// Per slot, 32 bits: its link while free, the object's number while used.
    slots: Words,
    fresh: AtomicU32,
    /// Start and length of the mapping.
    mapping: (usize, usize),
}

struct Area {
    numbers: Numbers,
    /// Bytes from the start of the area that can be read and written.
    ready: AtomicU64,
}

/// A slot, by area and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    size: usize,
    number: u32,
}

const fn slot_bytes(size: usize) -> usize {
    if size < 8 {
        return (size + 1) * 16;
    }
    let (octave, quarter) = ((size - 8) / 4, (size - 8) % 4);
    (5 + quarter) << (octave + 5)
}

/// Smallest slot size for a request, if there is one: large enough, and a multiple of the alignment.
fn slot_size(bytes: usize, align: usize) -> Option<usize> {
    let bytes = bytes.max(1);
    if bytes > SLOT_MAX || align > SLOT_MAX {
        return None;
    }
    let least = if bytes <= 128 {
        bytes.div_ceil(16) - 1
    } else {
        let octave = (bytes - 1).ilog2() as usize;
        8 + (octave - 7) * 4 + ((bytes - 1) >> (octave - 2) & 3)
    };
    (least..SIZES).find(|&size| slot_bytes(size).is_multiple_of(align))
}

impl Range {
    /// Reserves the range: 3.75 TiB of addresses and no memory, less where the kernel refuses.
    pub(super) fn reserve() -> std::io::Result<Range> {
        let slots = Words::anonymous(SIZES * SLOTS as usize / 2)?;
        let mut refused = None;
        for shift in (28..=36).rev().step_by(4) {
            let bytes = (SIZES << shift) + SLOT_MAX;
            match reserve(bytes) {
                Ok(start) => {
                    let per_area = |size| {
                        let room = (1usize << shift) / slot_bytes(size);
                        Area {
                            numbers: Numbers::new(u32::try_from(room).unwrap_or(SLOTS).min(SLOTS)),
                            ready: AtomicU64::new(0),
                        }
                    };
                    return Ok(Range {
                        base: start.next_multiple_of(SLOT_MAX),
                        shift,
                        areas: std::array::from_fn(per_area),
                        slots,
                        fresh: AtomicU32::new(0),
                        mapping: (start, bytes),
                    });
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.expect("the loop ran"))
    }

    /// First address, and bytes, of the range.
    pub(super) fn span(&self) -> (usize, usize) {
        (self.base, SIZES << self.shift)
    }

    /// A block of `bytes`, not zeroed.
    pub(super) fn take(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let size = slot_size(bytes, align)?;
        let area = &self.areas[size];
        let link = |number| self.word(Slot { size, number });
        let number = area.numbers.again(link).or_else(|| {
            let more = |used| (used < SLOTS_ALL).then_some(used + 1);
            self.fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
            area.numbers.fresh()
        })?;
        let slot = Slot { size, number };
        if !self.make_usable(slot) {
            area.numbers.give(number, link);
            return None;
        }
        NonNull::new(std::ptr::with_exposed_provenance_mut(self.address(slot)))
    }

    /// The slot of a block; the address must lie in the range.
    pub(super) fn slot(&self, address: usize) -> Slot {
        let offset = address - self.base;
        let size = (offset >> self.shift).min(SIZES - 1);
        let within = offset & ((1 << self.shift) - 1);
        let number = u32::try_from(within / slot_bytes(size)).unwrap_or(u32::MAX).min(SLOTS - 1);
        Slot { size, number }
    }

    /// Bytes that fit into the slot.
    pub(super) fn bytes(&self, slot: Slot) -> usize {
        slot_bytes(slot.size)
    }

    /// Notes which object lies in a used slot.
    pub(super) fn set_object(&self, slot: Slot, object: u32) {
        self.word(slot).store(object, Ordering::Relaxed);
    }

    /// The object that was noted.
    pub(super) fn object(&self, slot: Slot) -> u32 {
        self.word(slot).load(Ordering::Relaxed)
    }

    /// Gives a slot back.
    pub(super) fn give(&self, slot: Slot) {
        let link = |number| self.word(Slot { size: slot.size, number });
        self.areas[slot.size].numbers.give(slot.number, link);
    }

    /// Bytes of tables that slots have touched so far.
    pub(super) fn private_bytes(&self) -> u64 {
        u64::from(self.fresh.load(Ordering::Relaxed)) * 4
    }

    fn word(&self, slot: Slot) -> &AtomicU32 {
        let at = slot.size * SLOTS as usize + slot.number as usize;
        &self.slots.halves()[at]
    }

    fn address(&self, slot: Slot) -> usize {
        self.base + (slot.size << self.shift) + slot.number as usize * slot_bytes(slot.size)
    }

    fn make_usable(&self, slot: Slot) -> bool {
        let area = &self.areas[slot.size];
        let end = (slot.number as usize + 1) * slot_bytes(slot.size);
        let ready = usize::try_from(area.ready.load(Ordering::Acquire)).unwrap_or(0);
        if end <= ready {
            return true;
        }
        let wanted = end.next_multiple_of(STEP).min(1 << self.shift);
        let start = self.base + (slot.size << self.shift) + ready;
        let at = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the pages lie in our own reservation, from what was usable on to the end of the
        // area; making pages usable that another thread made usable changes nothing (mprotect(2)).
        let rc = unsafe { libc::mprotect(at, wanted - ready, libc::PROT_READ | libc::PROT_WRITE) };
        if rc == 0 {
            area.ready.fetch_max(wanted as u64, Ordering::Release);
        }
        rc == 0
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        let (start, bytes) = self.mapping;
        let at = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the mapping is ours; whoever drops a Range holds no block of it.
        unsafe { libc::munmap(at, bytes) };
    }
}

fn reserve(bytes: usize) -> std::io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: no address is asked for, so no existing mapping is touched (mmap(2)). Without access,
    // the pages count against no limit of memory.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    // A huge page behind each slot size would take 120 MiB. A kernel without them refuses: as good.
    // SAFETY: the mapping is ours and holds `bytes`.
    unsafe { libc::madvise(at, bytes, libc::MADV_NOHUGEPAGE) };
    Ok(at.expose_provenance())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fit_and_align() {
        for size in 1..SIZES {
            assert!(slot_bytes(size) > slot_bytes(size - 1));
        }
        assert_eq!(slot_bytes(SIZES - 1), SLOT_MAX);
        for bytes in (0..3_000).chain([4_095, 4_096, 4_097, SLOT_MAX - 1, SLOT_MAX]) {
            for align in [1, 8, 16, 64, 4_096] {
                let size = slot_size(bytes, align).expect("in range");
                assert!(slot_bytes(size) >= bytes && slot_bytes(size).is_multiple_of(align));
                let waste = slot_bytes(size) as f64
                    / bytes.max(align).next_multiple_of(align).max(16) as f64;
                assert!(waste <= 2.0, "{bytes} {align}");
            }
        }
        assert_eq!(slot_size(SLOT_MAX + 1, 1), None);
    }

    #[test]
    fn a_block_leads_back_to_its_slot_and_is_used_again() {
        let range = Range::reserve().expect("addresses");
        let (base, span) = range.span();
        for (bytes, align) in [(1, 1), (100, 8), (5_000, 4_096), (SLOT_MAX, 16), (17, 1 << 16)] {
            let block = range.take(bytes, align).expect("room");
            let address = block.as_ptr().expose_provenance();
            assert!(address.is_multiple_of(align) && address - base < span);
            // SAFETY: the block holds `bytes` writable bytes.
            unsafe { block.as_ptr().write_bytes(0xAB, bytes) };
            let slot = range.slot(address);
            range.set_object(slot, 42);
            assert_eq!(range.object(slot), 42);
            assert!(range.bytes(slot) >= bytes);
            range.give(slot);
            assert_eq!(range.take(bytes, align), Some(block));
        }
    }
}
