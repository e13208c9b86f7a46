#![expect(
    unsafe_code,
    reason = "a value of any type in place, so that an answer allocates nothing"
)]
//! A value of any `Send` type: in place when it has at most 32 bytes, boxed otherwise.

use std::any::TypeId;
use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

/// Words in place. With its type and its drop a parcel has 48 bytes less the key beside it.
const WORDS: usize = 4;

type Space = [MaybeUninit<u64>; WORDS];

/// Gives each type its identity and its drop as one constant.
struct Kind {
    id: fn() -> TypeId,
    drop: unsafe fn(*mut Space),
}

/// The value.
pub(crate) struct Parcel {
    kind: &'static Kind,
    space: Space,
}

// SAFETY: `Parcel::new` takes only values that are Send.
unsafe impl Send for Parcel {}

trait Packed: Send + Sized + 'static {
    const IN_PLACE: bool = size_of::<Self>() <= size_of::<Space>() && align_of::<Self>() <= 8;
    const KIND: Kind = Kind { id: TypeId::of::<Self>, drop: drop_in::<Self> };
}

impl<T: Send + 'static> Packed for T {}

impl Parcel {
    /// Packs a value. Allocates if it has more than 32 bytes.
    pub(crate) fn new<T: Send + 'static>(value: T) -> Self {
        let mut space: Space = [MaybeUninit::uninit(); WORDS];
        let place = space.as_mut_ptr();
        if const { <T as Packed>::IN_PLACE } {
            // SAFETY: the space is large enough and aligned enough for T.
            unsafe { place.cast::<T>().write(value) };
        } else {
            // SAFETY: a Box is one word.
            unsafe { place.cast::<Box<T>>().write(Box::new(value)) };
        }
        Self { kind: const { &<T as Packed>::KIND }, space }
    }

    /// Takes the value out; the parcel comes back when it holds another type.
    pub(crate) fn open<T: Send + 'static>(self) -> Result<T, Self> {
        if (self.kind.id)() != TypeId::of::<T>() {
            return Err(self);
        }
        let mut this = ManuallyDrop::new(self);
        let place = this.space.as_mut_ptr();
        if const { <T as Packed>::IN_PLACE } {
            // SAFETY: `new` has put a T there, as the kind says, and it is read this once: no drop follows.
            Ok(unsafe { place.cast::<T>().read() })
        } else {
            // SAFETY: as above, a Box of T.
            Ok(*unsafe { place.cast::<Box<T>>().read() })
        }
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        // SAFETY: the kind was made for the type in the space, which nobody has taken.
        unsafe { (self.kind.drop)(&raw mut self.space) };
    }
}

/// # Safety
/// `space` holds what `Parcel::new` of a `T` has put there, and nobody uses it again.
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
        let small = Parcel::new(Arc::clone(&value));
        let large = Parcel::new((Arc::clone(&value), [7u64; 9]));
        assert_eq!(Arc::strong_count(&value), 3);
        let Err(small) = small.open::<u64>() else { panic!("another type") };
        assert!(Arc::ptr_eq(&small.open::<Arc<()>>().ok().expect("this type"), &value));
        let (inner, words) = large.open::<(Arc<()>, [u64; 9])>().ok().expect("this type");
        assert_eq!((Arc::strong_count(&inner), words[8]), (2, 7));
        drop(inner);
        drop(Parcel::new([const { MaybeUninit::<u128>::uninit() }; 3]));
        drop(Parcel::new(Box::new(Arc::clone(&value))));
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
