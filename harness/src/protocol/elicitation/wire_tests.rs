use std::sync::Arc;

use proptest::prelude::*;

use super::super::auth::{KeyRing, RunSecret};
use super::*;

fn bounds() -> Bounds {
    Bounds { message_max: 64, schema_max: 32, data_max: 48 }
}

fn bytes(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out);
    out
}

fn content(max: usize) -> impl Strategy<Value = Arc<[u8]>> {
    prop::collection::vec(any::<u8>(), 0..=max).prop_map(Arc::from)
}

prop_compose! {
    fn create()(from: u32, to: u32, nonce: [u8; 32], created_ns: u64, timeout_ns: u64, tag: [u8; 32],
        message in content(64), schema in content(32)) -> Message {
        let (nonce, tag) = (Nonce(nonce), Tag(tag));
        Message::Create(Create { from, to, nonce, created_ns, timeout_ns, message, schema, tag })
    }
}

prop_compose! {
    fn respond()(id: [u8; 16], by: u32, challenge: [u8; 32], at_ns: u64, tag: [u8; 32],
        data in prop::option::of(content(48))) -> Message {
        let (id, challenge, tag) = (Id::from_bytes(id), Nonce(challenge), Tag(tag));
        let say = data.map_or(Say::Decline, Say::Accept);
        Message::Respond(Respond { id, by, challenge, at_ns, say, tag })
    }
}

fn message() -> impl Strategy<Value = Message> {
    let id = || any::<[u8; 16]>().prop_map(Id::from_bytes);
    prop_oneof![
        create(),
        respond(),
        (id(), any::<u32>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(id, by, at_ns, tag)| {
            Message::Cancel(Cancel { id, by, at_ns, tag: Tag(tag) })
        }),
        (any::<u32>(), prop::option::of(id()))
            .prop_map(|(by, after)| Message::Pending { by, after }),
        (any::<u32>(), id()).prop_map(|(by, id)| Message::Status { by, id }),
    ]
}

/// The bytes that a message's signature is over.
fn signed(message: &Message) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match message {
        Message::Create(create) => create_body(create, &mut out),
        Message::Respond(respond) => respond_body(respond, &mut out),
        Message::Cancel(cancel) => cancel_body(cancel, &mut out),
        _ => return None,
    }
    Some(out)
}

proptest! {
    #[test]
    fn a_message_comes_back_and_no_prefix_of_it_is_one(message in message()) {
        let whole = bytes(&message);
        prop_assert!(whole.len() <= bounds().longest());
        prop_assert_eq!(decode(&whole, &bounds()), Ok(message.clone()));
        for cut in 0..whole.len() {
            prop_assert!(matches!(decode(&whole[..cut], &bounds()), Err(WireError::Truncated { .. })), "cut at {}", cut);
        }
        let mut longer = whole.clone();
        longer.push(0);
        prop_assert!(decode(&longer, &bounds()).is_err());
        // The signature stands at the end and covers everything before it.
        if let Some(signed) = signed(&message) {
            prop_assert_eq!(&whole[..whole.len() - 32], &signed[..]);
        }
    }

    /// Whatever is read is written again as the same bytes: there is one encoding of each message.
    #[test]
    fn what_is_read_is_what_was_written(message in message(), at: prop::sample::Index, flip in 1u8..) {
        let mut changed = bytes(&message);
        let at = at.index(changed.len());
        changed[at] ^= flip;
        if let Ok(read) = decode(&changed, &bounds()) {
            prop_assert_eq!(bytes(&read), changed);
            prop_assert_ne!(read, message);
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_wire(&bytes);
    }

    /// Different messages have different signed bytes.
    #[test]
    fn what_is_signed_is_unambiguous(one in message(), other in message()) {
        let same = match (signed(&one), signed(&other)) {
            (Some(a), Some(b)) => a == b,
            _ => return Ok(()),
        };
        let untagged = |message: &Message| bytes(message)[..bytes(message).len() - 32].to_vec();
        prop_assert_eq!(same, untagged(&one) == untagged(&other));
    }

    #[test]
    fn a_stream_gives_its_messages_however_it_is_cut(messages in prop::collection::vec(message(), 0..5), cut: prop::sample::Index) {
        let mut stream = Vec::new();
        messages.iter().for_each(|message| frame(message, &mut stream));
        let cut = cut.index(stream.len() + 1);
        let (mut read, mut at, mut end) = (Vec::new(), 0, cut);
        loop {
            match deframe(&stream[at..end], &bounds()).unwrap() {
                Some((message, took)) => { read.push(message); at += took; }
                None if end < stream.len() => end = stream.len(),
                None => break,
            }
        }
        prop_assert_eq!((read, at), (messages, stream.len()));
    }
}

/// Every bit of every byte of a signed message: the signature no longer verifies, or it is no message.
#[test]
fn every_flipped_bit_of_a_signed_message_is_noticed() {
    let keys = KeyRing::new(&RunSecret::new([9; 32]), 1);
    let signer = super::super::Signer::new(1, &keys);
    let text: Arc<[u8]> = Arc::from(&b"{}"[..]);
    let ask = super::super::Ask {
        to: 2,
        now_ns: 5,
        timeout_ns: 9,
        message: Arc::clone(&text),
        schema: Arc::clone(&text),
    };
    let (id, challenge) = (Id::new(1, 2, 3), Nonce([4; 32]));
    let messages = [
        signer.create(0, ask),
        signer.accept(id, challenge, 7, text),
        signer.decline(id, challenge, 7),
        signer.cancel(id, 7),
    ];
    let mut noticed = 0;
    for whole in messages.iter().map(bytes) {
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verifies = match decode(&changed, &bounds()) {
                Ok(Message::Create(m)) => keys.agent(1).of_create(&m) == m.tag,
                Ok(Message::Respond(m)) => keys.agent(1).of_respond(&m) == m.tag,
                Ok(Message::Cancel(m)) => keys.agent(1).of_cancel(&m) == m.tag,
                Ok(other) => panic!("a signed message became {other:?}"),
                Err(_) => false,
            };
            assert!(!verifies, "bit {bit} of {whole:?}");
            noticed += 1;
        }
    }
    assert_eq!(noticed, 8 * (102 + 100 + 94 + 62), "every bit of the four");
}

#[test]
fn lengths_that_lie_reserve_nothing_and_versions_are_told_apart() {
    let create = |length: u32| {
        let mut bytes = vec![VERSION, CREATE];
        bytes.extend_from_slice(&[0; 4 + 4 + 32 + 8 + 8]);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes
    };
    assert_eq!(
        decode(&create(u32::MAX), &bounds()),
        Err(WireError::TooLong { len: u32::MAX as usize, max: 64 })
    );
    assert_eq!(decode(&create(60), &bounds()), Err(WireError::Truncated { at: 62, need: 60 }));
    let huge = vec![VERSION; bounds().longest() + 1];
    assert!(matches!(decode(&huge, &bounds()), Err(WireError::TooLong { .. })));
    assert_eq!(decode(&[2, CREATE], &bounds()), Err(WireError::Version(2)));
    assert_eq!(decode(&[VERSION, 99], &bounds()), Err(WireError::Kind(99)));
    assert_eq!(
        decode(&[VERSION, PENDING, 0, 0, 0, 0, 2], &bounds()),
        Err(WireError::Value { at: 6 })
    );
    let far = (u32::MAX).to_le_bytes();
    assert!(matches!(deframe(&far, &bounds()), Err(WireError::TooLong { .. })));
}
