#![expect(unsafe_code, reason = "mmap, munmap and madvise of libc")]
//! Memory straight from the kernel: what is given back is gone from the resident set at once, which no heap
//! promises, and large pieces can ask for huge pages.

use std::ptr::{self, NonNull};

/// Bytes of a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// A mapping of zero bytes that this process alone sees; unmapped when dropped.
pub(crate) struct Pages {
    base: NonNull<u8>,
    bytes: usize,
}

impl Pages {
    /// `None` when the system has no memory left. Some microseconds.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: mmap(2) without an address or a file takes no memory of ours.
        let map = unsafe { libc::mmap(ptr::null_mut(), bytes, prot, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return None;
        }
        Some(Self { base: NonNull::new(map.cast())?, bytes })
    }

    /// Address space for a table that grows where it lies: what is never touched takes no memory. The first
    /// huge page's worth is of small pages, so that a small table stays small; the rest wishes for huge ones.
    pub(crate) fn reserve(bytes: usize) -> Option<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: mmap(2) without an address or a file takes no memory of ours.
        let map = unsafe { libc::mmap(ptr::null_mut(), bytes, prot, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return None;
        }
        let pages = Self { base: NonNull::new(map.cast())?, bytes };
        let before = map.addr().next_multiple_of(HUGE_PAGE) - map.addr() + HUGE_PAGE;
        if before < bytes {
            // SAFETY: madvise(2) on the end of our own mapping; huge pages are a wish that may be refused.
            unsafe {
                libc::madvise(map.wrapping_byte_add(before), bytes - before, libc::MADV_HUGEPAGE)
            };
        }
        Some(pages)
    }

    /// As many bytes as a huge page has, at an address of that multiple; with the wish for a huge page.
    pub(crate) fn region(huge: bool) -> Option<Self> {
        let mut pages = Self::new(2 * HUGE_PAGE)?;
        let map = pages.base.as_ptr();
        let before = map.addr().next_multiple_of(HUGE_PAGE) - map.addr();
        let base = map.wrapping_add(before);
        if before > 0 {
            // SAFETY: the mapping just made begins with `before` bytes that are not used, whole pages.
            unsafe { libc::munmap(map.cast(), before) };
        }
        // SAFETY: it ends with the rest, whole pages too and never none: `before` is less than a huge page.
        unsafe { libc::munmap(base.wrapping_add(HUGE_PAGE).cast(), HUGE_PAGE - before) };
        pages.base = NonNull::new(base)?;
        pages.bytes = HUGE_PAGE;
        if huge {
            // SAFETY: madvise(2) on our own mapping; huge pages are a wish, and refusing it harms nothing.
            unsafe { libc::madvise(base.cast(), HUGE_PAGE, libc::MADV_HUGEPAGE) };
        }
        Some(pages)
    }

    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, and its owner lets nobody refer to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_of_more_than_there_is_costs_nothing() {
        let pages = Pages::reserve(1 << 40).expect("address space");
        // SAFETY: the last byte of the mapping.
        let last = unsafe { pages.base().add((1 << 40) - 1) };
        // SAFETY: a live mapping of zeroes.
        assert_eq!(unsafe { last.read() }, 0);
    }

    #[test]
    fn a_region_is_aligned_and_zero() {
        for huge in [false, true] {
            let pages = Pages::region(huge).expect("memory");
            assert_eq!((pages.base().addr().get() % HUGE_PAGE, pages.bytes()), (0, HUGE_PAGE));
            // SAFETY: the last byte of the mapping.
            let last = unsafe { pages.base().add(HUGE_PAGE - 1) };
            // SAFETY: a live mapping of zeroes.
            assert_eq!(unsafe { last.read() }, 0);
        }
    }
}
