#![expect(unsafe_code, reason = "a queue of uninitialised cells that are read where they lie")]
//! The queue of one thread: blocks of cells in a list. A value is read in its cell, and the cells behind it
//! can be looked at, so that what they will touch is loaded ahead. Blocks that a burst needed are given back.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use crate::memory::Pages;

/// Cells of a block: with 64-byte cells a block is 32 KiB.
const CELLS: usize = 511;
/// Empty blocks that are kept for later.
const SPARES_MAX: usize = 16;

/// Mapped on its own: a heap would keep what a burst needed.
struct Block<T> {
    pages: Pages,
    next: Cell<*mut Block<T>>,
    cells: [UnsafeCell<MaybeUninit<T>>; CELLS],
}

/// The queue. Not `Sync` and not `Send`: one thread pushes and pops.
pub(crate) struct Queue<T> {
    front: Cell<NonNull<Block<T>>>,
    back: Cell<NonNull<Block<T>>>,
    /// Next cell of `front` to read; next cell of `back` to write.
    head: Cell<usize>,
    tail: Cell<usize>,
    len: Cell<usize>,
    spare: Cell<*mut Block<T>>,
    spares: Cell<usize>,
    blocks: Cell<usize>,
}

fn block<T>() -> NonNull<Block<T>> {
    let layout = Layout::new::<Block<T>>();
    let Some(pages) = Pages::new(layout.size()) else { handle_alloc_error(layout) };
    let block = pages.base().cast::<Block<T>>();
    // SAFETY: the pages are large enough, and aligned enough: to a page.
    let at_pages = unsafe { &raw mut (*block.as_ptr()).pages };
    // SAFETY: as above. Of the rest, `next` is null as zeroes and the cells need not be initialised.
    unsafe { at_pages.write(pages) };
    block
}

/// # Safety
/// The block came from [`block`], holds no value, and nobody refers to it any more.
unsafe fn unmap<T>(block: NonNull<Block<T>>) {
    // SAFETY: the caller's duty.
    let pages = unsafe { &raw const (*block.as_ptr()).pages };
    // SAFETY: as above; they are moved out of themselves before they go.
    drop(unsafe { pages.read() });
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        let first = block();
        Self {
            front: Cell::new(first),
            back: Cell::new(first),
            head: Cell::new(0),
            tail: Cell::new(0),
            len: Cell::new(0),
            spare: Cell::new(ptr::null_mut()),
            spares: Cell::new(0),
            blocks: Cell::new(1),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len.get()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len.get() == 0
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.blocks.get() * size_of::<Block<T>>()
    }

    /// Adds a value at the end.
    pub(crate) fn push(&self, value: T) {
        // SAFETY: the pointer is to a cell without a value, as `push_in_place` says.
        self.push_in_place(|cell| unsafe { cell.write(value) });
    }

    /// Adds the value that `write` puts into the cell it is given.
    #[inline]
    pub(crate) fn push_in_place(&self, write: impl FnOnce(*mut T)) {
        if self.tail.get() == CELLS {
            self.grow();
        }
        // SAFETY: `back` is a live block; cells at and after `tail` are written by this thread only.
        let cell = unsafe { &self.back.get().as_ref().cells[self.tail.get()] };
        // The cell holds no value: it has been read, or was never written.
        write(cell.get().cast());
        self.tail.set(self.tail.get() + 1);
        self.len.set(self.len.get() + 1);
    }

    #[cold]
    fn grow(&self) {
        let fresh = match NonNull::new(self.spare.get()) {
            None => {
                self.blocks.set(self.blocks.get() + 1);
                block()
            }
            Some(spare) => {
                // SAFETY: spares are live blocks that only this list holds.
                let next = unsafe { spare.as_ref() }.next.replace(ptr::null_mut());
                self.spare.set(next);
                self.spares.set(self.spares.get() - 1);
                spare
            }
        };
        // SAFETY: `back` is a live block.
        unsafe { self.back.get().as_ref() }.next.set(fresh.as_ptr());
        self.back.set(fresh);
        self.tail.set(0);
    }

    /// The value `ahead` places behind the first.
    #[inline]
    pub(crate) fn peek(&self, ahead: usize) -> Option<&T> {
        if ahead >= self.len.get() {
            return None;
        }
        // SAFETY: `front` is a live block.
        let front = unsafe { self.front.get().as_ref() };
        let at = self.head.get() + ahead;
        let cell = if at < CELLS {
            &front.cells[at]
        } else {
            // SAFETY: `len` shows that the value exists; `ahead` is less than a block, so it lies in the next.
            &unsafe { &*front.next.get() }.cells[at - CELLS]
        };
        // SAFETY: the pointer comes from a live cell, and nobody writes to it before it is read.
        let value = unsafe { &*cell.get() };
        // SAFETY: cells between head and tail are initialised.
        Some(unsafe { value.assume_init_ref() })
    }

    /// Takes the first value; `read` gets its cell and owns the value. The cell is left alone until the
    /// next call.
    #[inline]
    pub(crate) fn pop_in_place(&self, read: impl FnOnce(*mut T)) -> bool {
        if self.len.get() == 0 {
            return false;
        }
        if self.head.get() == CELLS {
            self.shrink();
        }
        // SAFETY: `front` is a live block.
        let cell = unsafe { &self.front.get().as_ref().cells[self.head.get()] };
        self.head.set(self.head.get() + 1);
        self.len.set(self.len.get() - 1);
        read(cell.get().cast());
        true
    }

    /// Leaves the read-out front block.
    #[cold]
    fn shrink(&self) {
        let old = self.front.get();
        // SAFETY: `front` is a live block.
        let next = unsafe { old.as_ref() }.next.get();
        self.front.set(NonNull::new(next).expect("a value is left, and not in this block"));
        self.head.set(0);
        if self.spares.get() < SPARES_MAX {
            // SAFETY: nobody else holds the block any more.
            unsafe { old.as_ref() }.next.set(self.spare.get());
            self.spare.set(old.as_ptr());
            self.spares.set(self.spares.get() + 1);
        } else {
            self.blocks.set(self.blocks.get() - 1);
            // SAFETY: no list holds it any more, and its values are read.
            unsafe { unmap(old) };
        }
    }

    /// Takes the first value.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut value = None;
        // SAFETY: the cell holds a value, which is read this once.
        self.pop_in_place(|cell| value = Some(unsafe { cell.read() }));
        value
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
        for mut list in [self.front.get().as_ptr(), self.spare.get()] {
            while let Some(block) = NonNull::new(list) {
                // SAFETY: the blocks of both lists are live.
                list = unsafe { block.as_ref() }.next.get();
                // SAFETY: each is in one list, once, and its values are read.
                unsafe { unmap(block) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn values_come_in_order_and_can_be_seen_ahead() {
        let (queue, mut model) = (Queue::new(), VecDeque::new());
        let mut bits = 1u64;
        for n in 0..200_000u64 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if bits >> 63 == 0 || n % 50_000 < 2_000 {
                queue.push(Rc::new(n));
                model.push_back(n);
            } else {
                assert_eq!(queue.pop().as_deref(), model.pop_front().as_ref());
            }
            let ahead = (bits >> 40) as usize % 100;
            assert_eq!(queue.peek(ahead).map(|seen| **seen), model.get(ahead).copied());
            assert_eq!(queue.len(), model.len());
        }
    }

    #[test]
    fn blocks_of_a_burst_are_given_back_and_values_dropped_once() {
        let (queue, value) = (Queue::new(), Rc::new(()));
        (0..100_000).for_each(|_| queue.push(Rc::clone(&value)));
        let full = queue.bytes();
        (0..99_000).for_each(|_| drop(queue.pop()));
        assert!(queue.bytes() < full / 8, "{} of {full}", queue.bytes());
        assert_eq!(Rc::strong_count(&value), 1_001);
        drop(queue);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}
