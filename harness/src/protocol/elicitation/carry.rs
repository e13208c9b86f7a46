//! Notices as bytes, for agents that live in another process (messages are in `wire.rs`), little endian:
//!
//! | kind | fields after version (u8) and kind (u8) |
//! |---|---|
//! | 16 asked | to u32, from u32, id 16, challenge 32, expires u64, message n, schema n |
//! | 17 settled | to u32, id 16, state u8, 0 or (1, data n) |
//!
//! `expires` is on the monotonic clock, which all processes of one machine share. A transport on another
//! machine would have to send what is left instead.

use super::message::{Nonce, Notice};
use super::wire::{Bounds, Fields, Sink as _, VERSION, WireError};

const ASKED: u8 = 16;
const SETTLED: u8 = 17;

/// Appends a notice.
pub fn encode(notice: &Notice, out: &mut Vec<u8>) {
    match notice {
        Notice::Asked { to, from, id, challenge, expires_ns, message, schema } => {
            out.put(&[VERSION, ASKED]);
            out.put(&to.to_le_bytes());
            out.put(&from.to_le_bytes());
            out.put(&id.to_bytes());
            out.put(&challenge.0);
            out.put(&expires_ns.to_le_bytes());
            out.content(message);
            out.content(schema);
        }
        Notice::Settled { to, id, state, data } => {
            out.put(&[VERSION, SETTLED]);
            out.put(&to.to_le_bytes());
            out.put(&id.to_bytes());
            out.put(&[*state as u8, u8::from(data.is_some())]);
            if let Some(data) = data {
                out.content(data);
            }
        }
    }
}

/// Reads one notice; all of `bytes` is it.
///
/// # Errors
/// [`WireError`]; whatever the bytes are, nothing else happens.
pub fn decode(bytes: &[u8], bounds: &Bounds) -> Result<Notice, WireError> {
    let mut from = Fields { bytes, at: 0 };
    match from.byte()? {
        VERSION => {}
        other => return Err(WireError::Version(other)),
    }
    let notice = match from.byte()? {
        ASKED => Notice::Asked {
            to: from.u32()?,
            from: from.u32()?,
            id: from.id()?,
            challenge: Nonce(from.array()?),
            expires_ns: from.u64()?,
            message: from.content(bounds.message_max)?,
            schema: from.content(bounds.schema_max)?,
        },
        SETTLED => Notice::Settled {
            to: from.u32()?,
            id: from.id()?,
            state: from.terminal()?,
            data: from.maybe(|from| from.content(bounds.data_max))?,
        },
        other => return Err(WireError::Kind(other)),
    };
    from.end()?;
    Ok(notice)
}

/// What holds for any bytes, also from a fuzzer: they are no notice, or exactly one whose encoding they are.
///
/// # Panics
/// When that does not hold.
pub fn check_notice(bytes: &[u8]) {
    if let Ok(notice) = decode(bytes, &Bounds::default()) {
        let mut again = Vec::new();
        encode(&notice, &mut again);
        assert_eq!(again, bytes, "{notice:?} has another encoding");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{Id, State};
    use super::*;

    fn content() -> impl Strategy<Value = Arc<[u8]>> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Arc::from)
    }

    prop_compose! {
        fn asked()(to: u32, from: u32, id: [u8; 16], challenge: [u8; 32], expires_ns: u64,
            message in content(), schema in content()) -> Notice {
            let (id, challenge) = (Id::from_bytes(id), Nonce(challenge));
            Notice::Asked { to, from, id, challenge, expires_ns, message, schema }
        }
    }

    prop_compose! {
        fn settled()(to: u32, id: [u8; 16], state in 1usize..5, data in prop::option::of(content())) -> Notice {
            Notice::Settled { to, id: Id::from_bytes(id), state: State::ALL[state], data }
        }
    }

    proptest! {
        #[test]
        fn a_notice_comes_back_and_no_part_of_it_is_one(notice in prop_oneof![asked(), settled()]) {
            let mut whole = Vec::new();
            encode(&notice, &mut whole);
            prop_assert_eq!(decode(&whole, &Bounds::default()), Ok(notice));
            for cut in 0..whole.len() {
                prop_assert!(decode(&whole[..cut], &Bounds::default()).is_err());
            }
            whole.push(0);
            prop_assert_eq!(decode(&whole, &Bounds::default()), Err(WireError::Trailing(1)));
        }

        #[test]
        fn any_bytes_are_a_notice_or_a_refusal(head in 0u8..20, mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            bytes.splice(0..0, [VERSION, head]);
            check_notice(&bytes);
        }
    }
}
