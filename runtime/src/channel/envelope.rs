#![expect(
    unsafe_code,
    reason = "a message of any type, moved inline through queues of equal cells"
)]
//! A message on its way, to this core or another: one cache line, no allocation. It is built in its cell
//! and taken out of it by its addressee, and copied nowhere in between.

use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

use super::queue::Queue;
use super::spsc::{Consumer, Producer};
use crate::shard::Shard;

/// Largest message, bytes, of an agent that is asked; its deadline travels with it.
pub const ASK_MAX: usize = MESSAGE_MAX - 8;
/// Largest message, bytes; box what is larger.
pub const MESSAGE_MAX: usize = 48;

type Payload = [MaybeUninit<u64>; MESSAGE_MAX / 8];

/// What to do with a payload.
struct Kind {
    /// Hands it to its addressee; `None` means drop it.
    open: unsafe fn(*mut Payload, u64, Option<&Shard>),
    /// Says whom it will reach.
    receiver: unsafe fn(*const Payload, u64, &Shard) -> u64,
    /// Whether it counts as a message.
    message: bool,
    travels: Travels,
}

/// What a faulty link may do to a value on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Travels {
    /// It may be lost, and takes a place in the mailbox of its addressee, which is given back then.
    InPlace,
    /// It may be lost.
    Freely,
    /// It is the runtime's own, and never lost; it may be late.
    Surely,
}

impl Travels {
    pub(crate) const fn can_be_lost(self) -> bool {
        !matches!(self, Self::Surely)
    }
}

/// The cell.
#[repr(C, align(64))]
pub(crate) struct Envelope {
    to: u64,
    kind: &'static Kind,
    payload: Payload,
}

// SAFETY: `Envelope::new` takes only `Send` payloads, and the rest is plain data.
unsafe impl Send for Envelope {}

/// A value that a shard can take delivery of.
pub(crate) trait Deliver: Send + Sized + 'static {
    /// Whether it is a message, which is counted when nobody reads it.
    const MESSAGE: bool = true;
    /// What a faulty link may do to it.
    const TRAVELS: Travels = Travels::Surely;

    /// The handle of the agent that it will reach on `shard`; for faulty links.
    fn receiver(&self, to: u64, _: &Shard) -> u64 {
        to
    }

    /// Hands it to its addressee on `shard`.
    fn deliver(self, to: u64, shard: &Shard);
}

/// Gives each type its kind, as a constant.
trait Packed: Deliver {
    const KIND: Kind = Kind {
        open: open::<Self>,
        receiver: receiver::<Self>,
        message: Self::MESSAGE,
        travels: Self::TRAVELS,
    };
}

impl<T: Deliver> Packed for T {}

impl Envelope {
    /// Packs `value` for the addressee `to`.
    pub(crate) fn new<T: Deliver>(to: u64, value: T) -> Self {
        let mut cell = MaybeUninit::uninit();
        // SAFETY: the cell is live and holds no envelope.
        unsafe { Self::write(cell.as_mut_ptr(), to, value) };
        // SAFETY: just written.
        unsafe { cell.assume_init() }
    }

    /// Packs `value` where it will lie. Each part is written as it will be read: a copy of the whole would
    /// wait for all of them.
    ///
    /// # Safety
    /// `cell` is valid for writes and holds no envelope.
    #[inline]
    unsafe fn write<T: Deliver>(cell: *mut Self, to: u64, value: T) {
        // Known when this is compiled, and so free. Users are told earlier: where an agent is spawned or
        // asked; the code of an ask is compiled for agents that are never asked too.
        assert!(size_of::<T>() <= MESSAGE_MAX && align_of::<T>() <= 8, "checked at the entry");
        // SAFETY: the caller's duty, here and in the next two.
        let at_to = unsafe { &raw mut (*cell).to };
        // SAFETY: as above.
        let at_kind = unsafe { &raw mut (*cell).kind };
        // SAFETY: as above.
        let at_payload = unsafe { &raw mut (*cell).payload };
        // SAFETY: a field of a cell that is valid for writes, here and in the next two.
        unsafe { at_to.write(to) };
        // SAFETY: as above.
        unsafe { at_kind.write(const { &<T as Packed>::KIND }) };
        // SAFETY: as above, and large enough and aligned enough for T by the assertions above.
        unsafe { at_payload.cast::<T>().write(value) };
    }

    /// The addressee.
    pub(crate) const fn to(&self) -> u64 {
        self.to
    }

    /// Whether it counts as a message.
    pub(crate) const fn is_message(&self) -> bool {
        self.kind.message
    }

    /// What a faulty link may do to it.
    pub(crate) const fn travels(&self) -> Travels {
        self.kind.travels
    }

    /// The handle of the agent that it will reach on `shard`.
    pub(crate) fn receiver(&self, shard: &Shard) -> u64 {
        // SAFETY: `receiver` was made for the type in the payload, which `deliver` has not taken.
        unsafe { (self.kind.receiver)(&raw const self.payload, self.to, shard) }
    }

    /// Hands the message to its addressee on `shard`.
    pub(crate) fn deliver(self, shard: &Shard) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: ManuallyDrop keeps `drop` from opening it a second time.
        unsafe { Self::deliver_at(&raw mut *this, shard) };
    }

    /// [`Envelope::deliver`] out of a cell.
    ///
    /// # Safety
    /// `cell` holds an envelope that nobody else reads or drops, now or later, and whose memory is left
    /// alone until user code runs: by then the message has been moved out.
    #[inline]
    unsafe fn deliver_at(cell: *mut Self, shard: &Shard) {
        // SAFETY: the caller's duty.
        let to = unsafe { (*cell).to };
        // SAFETY: as above.
        let kind = unsafe { (*cell).kind };
        // SAFETY: as above.
        let payload = unsafe { &raw mut (*cell).payload };
        // SAFETY: `open` was made for the type in the payload, which is opened this once.
        unsafe { (kind.open)(payload, to, Some(shard)) };
    }
}

/// A value on its way into a cell. Were it dropped when a queue panics on the way there, it would have to lie on the
/// stack, and its copy from there would wait for the stores that made it.
const fn undropped<T>(value: T) -> ManuallyDrop<T> {
    ManuallyDrop::new(value)
}

impl Queue<Envelope> {
    /// Adds a message.
    #[inline]
    pub(crate) fn send<T: Deliver>(&self, to: u64, value: T) {
        let value = undropped(value);
        // SAFETY: the cell is the queue's and holds no value.
        self.push_in_place(|cell| unsafe {
            Envelope::write(cell, to, ManuallyDrop::into_inner(value))
        });
    }

    /// Hands the first message to its addressee; `false` when there is none.
    #[inline]
    pub(crate) fn deliver_next(&self, shard: &Shard) -> bool {
        // SAFETY: the queue gives the value to us, and leaves its cell alone until the next pop.
        self.pop_in_place(|cell| unsafe { Envelope::deliver_at(cell, shard) })
    }
}

impl Producer<Envelope> {
    /// Adds a message. The caller has seen that there is room.
    #[inline]
    pub(crate) fn send<T: Deliver>(&mut self, to: u64, value: T) {
        let value = undropped(value);
        // SAFETY: the cell is the ring's and holds no value.
        self.push_in_place(|cell| unsafe {
            Envelope::write(cell, to, ManuallyDrop::into_inner(value))
        });
    }
}

impl Consumer<Envelope> {
    /// Hands the next message to its addressee; `false` when there is none.
    #[inline]
    pub(crate) fn deliver_next(&mut self, shard: &Shard) -> bool {
        // SAFETY: the ring gives the value to us, and its cell is not written before `release`, which
        // takes `&mut self` as this does.
        self.pop_in_place(|cell| unsafe { Envelope::deliver_at(cell, shard) })
    }
}

impl Drop for Envelope {
    fn drop(&mut self) {
        // SAFETY: `open` was made for the type in the payload, which `deliver` has not taken.
        unsafe { (self.kind.open)(&raw mut self.payload, self.to, None) };
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

/// # Safety
/// `payload` holds an initialised `T`.
unsafe fn receiver<T: Deliver>(payload: *const Payload, to: u64, shard: &Shard) -> u64 {
    // SAFETY: the caller's duty; the pointer is valid and aligned as in `new`, for as long as the envelope is borrowed.
    let value = unsafe { &*payload.cast::<T>() };
    value.receiver(to, shard)
}
