#![expect(unsafe_code, reason = "mapped memory seen as a slice of plain values")]
//! A table that never moves: address space for all it may hold, memory for what was touched. A `Vec` that
//! doubles copies every timer while the shard's messages wait.

use std::alloc::Layout;
use std::marker::PhantomData;
use std::slice;

use crate::memory::Pages;

/// A value whose bytes may all be zero.
///
/// # Safety
/// All-zero bytes are a valid value of the type, and it needs no drop.
pub(super) unsafe trait Zeroed: Copy {}

// SAFETY: an integer.
unsafe impl Zeroed for u8 {}
// SAFETY: an integer.
unsafe impl Zeroed for u32 {}
// SAFETY: a struct of integers, as the next three.
unsafe impl Zeroed for super::wheel::State {}
// SAFETY: as above.
unsafe impl Zeroed for super::wheel::Due {}
// SAFETY: as above.
unsafe impl Zeroed for super::wheel::Block {}
// SAFETY: as above.
unsafe impl Zeroed for super::wheel::Ring {}

/// `len` values, zero at first.
pub(super) struct Table<T> {
    pages: Pages,
    len: usize,
    kind: PhantomData<T>,
}

impl<T: Zeroed> Table<T> {
    /// `None` when the system has no address space left.
    pub(super) fn new(len: usize) -> Option<Self> {
        let Ok(layout) = Layout::array::<T>(len.max(1)) else {
            unreachable!("less than 2^32 timers of less than a page");
        };
        let pages = Pages::reserve(layout.size())?;
        Some(Self { pages, len, kind: PhantomData })
    }

    #[inline]
    pub(super) const fn all(&self) -> &[T] {
        // SAFETY: the mapping holds `len` values, aligned to a page, zero or written as `T`; it lives as
        // long as `self` and changes through `&mut self` only.
        unsafe { slice::from_raw_parts(self.pages.base().as_ptr().cast(), self.len) }
    }

    #[inline]
    pub(super) const fn all_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `all`; `&mut self` is the only access.
        unsafe { slice::from_raw_parts_mut(self.pages.base().as_ptr().cast(), self.len) }
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("len", &self.len).finish_non_exhaustive()
    }
}
