#![expect(
    unsafe_code,
    reason = "a value of any type in place, so that an answer allocates nothing"
)]
//! A value of any `Send` type: in place when it has at most 32 bytes, boxed otherwise.

use std::any::TypeId;
use std::mem::{MaybeUninit, align_of, size_of};
use std::ptr;

/// Words in place. With its type and its drop a parcel has 48 bytes less the key beside it.
const WORDS: usize = 4;

type Space = [MaybeUninit<u64>; WORDS];

/// Gives each type its identity and its drop as one constant.
struct Kind {
    id: fn() -> TypeId,
    drop: unsafe fn(*mut Space),
}

/// The value, or none. It is written and read where it lies: a copy of a parcel in wide loads would wait for the
/// narrow stores that have filled it.
pub(crate) struct Parcel {
    kind: Option<&'static Kind>,
    space: Space,
}

// SAFETY: `Parcel::put` takes only values that are Send.
unsafe impl Send for Parcel {}

trait Packed: Send + Sized + 'static {
    const IN_PLACE: bool = size_of::<Self>() <= size_of::<Space>() && align_of::<Self>() <= 8;
    const KIND: Kind = Kind { id: TypeId::of::<Self>, drop: drop_in::<Self> };
}

impl<T: Send + 'static> Packed for T {}

impl Parcel {
    pub(crate) const fn none() -> Self {
        Self { kind: None, space: [MaybeUninit::uninit(); WORDS] }
    }

    /// Packs a value. Allocates if it has more than 32 bytes.
    pub(crate) fn new<T: Send + 'static>(value: T) -> Self {
        let mut parcel = Self::none();
        parcel.put(value);
        parcel
    }

    /// Packs a value into one that holds none.
    #[inline]
    pub(crate) fn put<T: Send + 'static>(&mut self, value: T) {
        debug_assert!(self.kind.is_none(), "a reply answers once");
        let place = self.space.as_mut_ptr();
        if const { <T as Packed>::IN_PLACE } {
            // SAFETY: the space is large enough and aligned enough for T.
            unsafe { place.cast::<T>().write(value) };
        } else {
            // SAFETY: a Box is one word.
            unsafe { place.cast::<Box<T>>().write(Box::new(value)) };
        }
        self.kind = Some(const { &<T as Packed>::KIND });
    }

    /// Takes the value out; none when there is none, or it is of another type and stays.
    #[inline]
    pub(crate) fn take<T: Send + 'static>(&mut self) -> Option<T> {
        let kind = self.kind?;
        // A type may have several copies of its constant.
        if !ptr::eq(kind, const { &<T as Packed>::KIND }) && (kind.id)() != TypeId::of::<T>() {
            return None;
        }
        self.kind = None;
        let place = self.space.as_mut_ptr();
        if const { <T as Packed>::IN_PLACE } {
            // SAFETY: `put` has put a T there, as the kind said, and it is read this once: no drop follows.
            Some(unsafe { place.cast::<T>().read() })
        } else {
            // SAFETY: as above, a Box of T.
            Some(*unsafe { place.cast::<Box<T>>().read() })
        }
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(kind) = self.kind {
            // SAFETY: the kind was made for the type in the space, which nobody has taken.
            unsafe { (kind.drop)(&raw mut self.space) };
        }
    }
}

/// # Safety
/// `space` holds what `Parcel::put` of a `T` has put there, and nobody uses it again.
unsafe fn drop_in<T: Send + 'static>(space: *mut Space) {
    if const { <T as Packed>::IN_PLACE } {
        // SAFETY: the caller's duty.
        unsafe { space.cast::<T>().drop_in_place() };
    } else {
        // SAFETY: the caller's duty.
        unsafe { space.cast::<Box<T>>().drop_in_place() };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_was_packed_comes_out_once_whatever_its_size() {
        let value = Arc::new(());
        let mut small = Parcel::new(Arc::clone(&value));
        let mut large = Parcel::new((Arc::clone(&value), [7u64; 9]));
        assert_eq!(Arc::strong_count(&value), 3);
        assert_eq!(small.take::<u64>(), None, "another type");
        assert!(Arc::ptr_eq(&small.take::<Arc<()>>().expect("this type"), &value));
        assert!(small.take::<Arc<()>>().is_none(), "once");
        let (inner, words) = large.take::<(Arc<()>, [u64; 9])>().expect("this type");
        assert_eq!((Arc::strong_count(&inner), words[8]), (2, 7));
        drop(inner);
        drop(Parcel::new([const { MaybeUninit::<u128>::uninit() }; 3]));
        drop(Parcel::new(Box::new(Arc::clone(&value))));
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
