//! Buffers that an operation can own. A closed set of concrete types: dropping one runs no code of users,
//! so that the table may do it at any time.

use std::rc::Rc;

use super::Lease;

/// A buffer while the kernel has it.
#[derive(Debug, Default)]
pub(crate) enum Payload {
    #[default]
    None,
    Vec(Vec<u8>),
    Lease(Lease),
    Static(&'static [u8]),
    Shared(Rc<[u8]>),
}

impl Payload {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Vec(bytes) => bytes,
            Self::Lease(lease) => lease,
            Self::Static(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The bytes that a read may write; none of a buffer that others read.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Vec(bytes) => bytes,
            Self::Lease(lease) => lease,
            Self::None | Self::Static(_) | Self::Shared(_) => &mut [],
        }
    }
}

pub(crate) mod sealed {
    use super::Payload;

    /// Goes into a payload and comes out of it.
    #[expect(
        unnameable_types,
        reason = "sealed: a buffer of anybody else's may run code when dropped"
    )]
    pub trait Sealed: Sized {
        #[doc(hidden)]
        fn pack(self) -> Packed;
        #[doc(hidden)]
        fn unpack(payload: Packed) -> Self;
    }

    /// Keeps [`Payload`] out of the public interface.
    #[expect(unnameable_types, reason = "as above")]
    #[derive(Debug)]
    pub struct Packed(pub(in crate::op) Payload);
}

use sealed::{Packed, Sealed};

/// A buffer that can be sent or written. It is given to the kernel and handed back with the outcome.
/// `Vec<u8>`, [`Lease`], `&'static [u8]` (and arrays) and `Rc<[u8]>` are.
pub trait SendBuf: Sealed + 'static {}

impl<T: Sealed + 'static> SendBuf for T {}

macro_rules! payload {
    ($($variant:ident: $type:ty),* $(,)?) => {
        $(impl Sealed for $type {
            fn pack(self) -> Packed {
                Packed(Payload::$variant(self))
            }

            fn unpack(payload: Packed) -> Self {
                match payload.0 {
                    Payload::$variant(buffer) => buffer,
                    _ => unreachable!("a table gives back the payload that it was given"),
                }
            }
        })*
    };
}

payload! { Vec: Vec<u8>, Lease: Lease, Static: &'static [u8], Shared: Rc<[u8]> }

impl<const N: usize> Sealed for &'static [u8; N] {
    fn pack(self) -> Packed {
        Packed(Payload::Static(self))
    }

    fn unpack(payload: Packed) -> Self {
        <&'static [u8]>::unpack(payload).try_into().expect("as long as it was")
    }
}

/// The payload of a buffer.
pub(super) fn pack<B: SendBuf>(buffer: B) -> Payload {
    buffer.pack().0
}

/// The buffer of a payload.
pub(super) fn unpack<B: SendBuf>(payload: Payload) -> B {
    B::unpack(Packed(payload))
}
