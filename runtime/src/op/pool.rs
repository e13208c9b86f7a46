#![expect(unsafe_code, reason = "buffers in mapped memory that change hands by number")]
//! Receive buffers of one shard: equal pieces of one mapping, known by number. A buffer is with the ring,
//! in a stream's inbox, or with a user as a [`Lease`]; only who has it touches it.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::memory::Pages;

/// No buffer; ends a list of them.
pub(crate) const NO_BUFFER: u16 = u16::MAX;

/// The buffers. Memory comes with the first use.
pub(crate) struct Pool {
    pages: OnceCell<Pages>,
    count: u16,
    size: u32,
    /// Bytes in each buffer and the next one of its inbox, while it lies in one.
    filled: Box<[Cell<(u32, u16)>]>,
    /// Buffers that nobody has.
    idle: RefCell<Vec<u16>>,
    /// Buffers that the ring may fill.
    with_ring: Cell<u32>,
    /// Whether a ring takes idle buffers; otherwise each receive takes one itself.
    lent: Cell<bool>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Pool {
    /// `count` is at most 32,768.
    pub(crate) fn new(count: u32, size: u32) -> Rc<Self> {
        let count = u16::try_from(count).expect("checked with the config");
        Rc::new(Self {
            pages: OnceCell::new(),
            count,
            size,
            filled: (0..count).map(|_| Cell::new((0, NO_BUFFER))).collect(),
            idle: RefCell::new((0..count).rev().collect()),
            with_ring: Cell::new(0),
            lent: Cell::new(false),
        })
    }

    pub(crate) const fn count(&self) -> u16 {
        self.count
    }

    pub(crate) const fn size(&self) -> u32 {
        self.size
    }

    /// Maps the memory, if it is not; `false` when there is none.
    pub(crate) fn has_memory(&self) -> bool {
        if self.pages.get().is_some() {
            return true;
        }
        let pages = Pages::new(usize::from(self.count) * self.size as usize);
        pages.is_some_and(|pages| self.pages.set(pages).is_ok())
    }

    /// Where a buffer lies; memory must have been mapped.
    pub(crate) fn place(&self, buffer: u16) -> NonNull<u8> {
        assert!(buffer < self.count, "a buffer of this pool");
        let base = self.pages.get().expect("mapped before a buffer was taken").base();
        // SAFETY: the mapping holds `count` buffers of `size` bytes.
        unsafe { base.add(usize::from(buffer) * self.size as usize) }
    }

    pub(crate) const fn is_lent(&self) -> bool {
        self.lent.get()
    }

    /// From now on a ring is given what is idle.
    pub(crate) fn lend(&self) {
        self.lent.set(true);
    }

    /// Has `give` take idle buffers to the ring; returns how many there were.
    pub(crate) fn hand_over(&self, give: impl FnOnce(&[u16])) -> u32 {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return 0;
        }
        give(&idle);
        let given = u32::try_from(idle.len()).expect("at most 32,768");
        idle.clear();
        self.with_ring.set(self.with_ring.get() + given);
        given
    }

    /// The ring has filled a buffer of its own.
    pub(crate) fn take_filled(&self) {
        debug_assert!(self.with_ring.get() > 0, "it was given");
        self.with_ring.set(self.with_ring.get() - 1);
    }

    /// An idle buffer, all of it, when the ring takes none itself.
    pub(crate) fn take_idle(self: &Rc<Self>) -> Option<Lease> {
        if self.is_lent() || !self.has_memory() {
            return None;
        }
        let buffer = self.idle.borrow_mut().pop()?;
        Some(self.lease(buffer, self.size))
    }

    /// Buffers that a receive would find.
    pub(crate) fn free(&self) -> u32 {
        if self.is_lent() { self.with_ring.get() } else { self.idle() }
    }

    /// Whether most buffers are in use.
    pub(crate) fn is_low(&self) -> bool {
        self.in_use() > u32::from(self.count) / 2
    }

    fn idle(&self) -> u32 {
        u32::try_from(self.idle.borrow().len()).expect("at most 32,768")
    }

    pub(crate) fn give_back(&self, buffer: u16) {
        self.idle.borrow_mut().push(buffer);
    }

    /// The caller has this buffer and nobody else.
    pub(crate) fn lease(self: &Rc<Self>, buffer: u16, len: u32) -> Lease {
        debug_assert!(len <= self.size && buffer < self.count);
        Lease { pool: Rc::clone(self), buffer, len: len.min(self.size) }
    }

    /// Length and next of a buffer in an inbox.
    pub(crate) fn note(&self, buffer: u16) -> &Cell<(u32, u16)> {
        &self.filled[usize::from(buffer)]
    }

    /// Buffers out of the ring and out of the idle ones.
    pub(crate) fn in_use(&self) -> u32 {
        u32::from(self.count) - self.idle() - self.with_ring.get()
    }
}

/// Received bytes in a buffer of the shard's pool. It goes back to the pool when dropped: hold it briefly,
/// since a shard whose buffers are all held receives nothing. Never leaves its shard.
pub struct Lease {
    pool: Rc<Pool>,
    buffer: u16,
    len: u32,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("buffer", &self.buffer).field("len", &self.len).finish()
    }
}

impl Lease {
    /// Keeps the first `len` bytes only; more than there are changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = u32::try_from(len).map_or(self.len, |len| self.len.min(len));
    }

    /// Gives up the lease without giving the buffer back.
    pub(crate) fn into_buffer(self) -> u16 {
        let buffer = self.buffer;
        let mut this = self;
        this.buffer = NO_BUFFER;
        buffer
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let place = self.pool.place(self.buffer);
        // SAFETY: the buffer's bytes are mapped and initialised (zero at first), `len` is at most its size,
        // and a leased buffer is written through this lease only.
        unsafe { std::slice::from_raw_parts(place.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        let place = self.pool.place(self.buffer);
        // SAFETY: as above; the lease is borrowed mutably, so that nobody else reads.
        unsafe { std::slice::from_raw_parts_mut(place.as_ptr(), self.len as usize) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.buffer != NO_BUFFER {
            self.pool.give_back(self.buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_its_buffer_and_goes_back() {
        let pool = Pool::new(2, 8);
        let mut one = pool.take_idle().expect("two are idle");
        let two = pool.take_idle().expect("one is idle");
        assert!(pool.take_idle().is_none() && pool.free() == 0 && pool.in_use() == 2);
        one.copy_from_slice(b"12345678");
        one.truncate(9);
        one.truncate(3);
        assert_eq!((&*one, two.len()), (&b"123"[..], 8));
        drop(two);
        assert_eq!((pool.free(), pool.in_use()), (1, 1));
        let buffer = one.into_buffer();
        assert_eq!(pool.in_use(), 1, "who gives up a lease has the buffer");
        assert_eq!(&*pool.lease(buffer, 2), b"12");
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn a_ring_takes_what_is_idle() {
        let pool = Pool::new(4, 16);
        assert!(pool.has_memory());
        pool.lend();
        assert!(pool.take_idle().is_none() && pool.free() == 0);
        assert_eq!(pool.hand_over(|buffers| assert_eq!(buffers.len(), 4)), 4);
        assert_eq!((pool.hand_over(|_| ()), pool.in_use()), (0, 0));
        pool.take_filled();
        assert_eq!(pool.in_use(), 1);
        drop(pool.lease(3, 1));
        assert_eq!(pool.hand_over(|buffers| assert_eq!(buffers, [3])), 1);
    }
}
