#![expect(
    unsafe_code,
    reason = "a message of any type, moved inline through a ring of equal cells"
)]
//! A message on its way to another core: 64 bytes, no allocation.

use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

use crate::shard::Shard;

/// Largest message, bytes; box what is larger.
pub const MESSAGE_MAX: usize = 40;

type Payload = [MaybeUninit<u64>; MESSAGE_MAX / 8];

/// What to do with the payload; `None` means drop it.
type Open = unsafe fn(*mut Payload, u64, Option<&Shard>);

/// The cell.
pub(crate) struct Envelope {
    to: u64,
    open: Open,
    payload: Payload,
}

// SAFETY: `Envelope::new` takes only `Send` payloads, and the rest is plain data.
unsafe impl Send for Envelope {}

/// A value that a shard can take delivery of.
pub(crate) trait Deliver: Send + Sized + 'static {
    /// Hands it to its addressee on `shard`.
    fn deliver(self, to: u64, shard: &Shard);
}

impl Envelope {
    /// Packs `value` for the addressee `to`.
    pub(crate) fn new<T: Deliver>(to: u64, value: T) -> Self {
        const {
            assert!(
                size_of::<T>() <= MESSAGE_MAX,
                "a message has at most 40 bytes: box its content"
            );
            assert!(
                align_of::<T>() <= 8,
                "a message is aligned to at most 8 bytes: box its content"
            );
        }
        let mut payload: Payload = [MaybeUninit::uninit(); MESSAGE_MAX / 8];
        // SAFETY: the payload is large enough and aligned enough for T by the assertions above.
        unsafe { payload.as_mut_ptr().cast::<T>().write(value) };
        Self { to, open: open::<T>, payload }
    }

    /// Hands the message to its addressee on `shard`.
    pub(crate) fn deliver(self, shard: &Shard) {
        let mut this = ManuallyDrop::new(self);
        let (to, open) = (this.to, this.open);
        // SAFETY: `open` was made for the type in the payload, and ManuallyDrop keeps `drop` from
        // opening it a second time.
        unsafe { open(&raw mut this.payload, to, Some(shard)) };
    }
}

impl Drop for Envelope {
    fn drop(&mut self) {
        let open = self.open;
        // SAFETY: `open` was made for the type in the payload, which `deliver` has not taken.
        unsafe { open(&raw mut self.payload, self.to, None) };
    }
}

/// # Safety
/// `payload` holds an initialised `T` that nobody reads again.
unsafe fn open<T: Deliver>(payload: *mut Payload, to: u64, shard: Option<&Shard>) {
    // SAFETY: the caller's duty; the pointer is valid and aligned as in `new`.
    let value = unsafe { payload.cast::<T>().read() };
    if let Some(shard) = shard {
        value.deliver(to, shard);
    }
}
