#![expect(unsafe_code, reason = "a ring of buffers shared with the kernel")]
//! The ring through which the kernel takes receive buffers (IORING_REGISTER_PBUF_RING, Linux 5.19).
//!
//! 16 bytes per entry (address, length, number); the tail, which we alone write, lies in the spare bytes of
//! the first. The kernel keeps its head to itself: a completion says which buffer it has taken.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::memory::Pages;
use crate::op::Pool;

/// The number of our only group of buffers.
pub(super) const GROUP: u16 = 0;

/// The ring of the pool's buffers.
pub(super) struct BufferRing {
    entries: Pages,
    mask: u16,
    tail: u16,
    /// Lives until the kernel has let go of the buffers: whoever holds this ring takes it back first.
    _pool: Rc<Pool>,
}

impl BufferRing {
    /// Registers an empty ring with room for all buffers of the pool.
    pub(super) fn new(uring: &IoUring, pool: &Rc<Pool>) -> io::Result<Self> {
        let count = pool.count();
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        let entries = Pages::new(bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        let address = entries.base().addr().get() as u64;
        // SAFETY: the ring's memory is a mapping of whole pages with `count` entries, a power of two, and
        // lives in the value returned here, which lies beside the io_uring: its drop unregisters the group first.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        Ok(Self { entries, mask: count - 1, tail: 0, _pool: Rc::clone(pool) })
    }

    /// Lets the kernel take these buffers of the pool, which nobody else has.
    pub(super) fn give(&mut self, pool: &Pool, buffers: &[u16]) {
        let base = self.entries.base().cast::<BufRingEntry>();
        for &buffer in buffers {
            let place = usize::from(self.tail & self.mask);
            // SAFETY: the mapping holds `mask` + 1 entries.
            let mut entry = unsafe { base.add(place) };
            // SAFETY: in the mapping, aligned, initialised (zeroes are an entry); the kernel only reads.
            let entry = unsafe { entry.as_mut() };
            entry.set_addr(pool.place(buffer).addr().get() as u64);
            entry.set_len(pool.size());
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the base points to the first entry of the ring, which is initialised: mapped zeroes.
        let tail = unsafe { BufRingEntry::tail(base.as_ptr()) };
        // SAFETY: two aligned bytes of the mapping, which we alone write and the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Pairs with the kernel's load-acquire of the tail: it sees whole entries.
        tail.store(self.tail, Ordering::Release);
    }
}
