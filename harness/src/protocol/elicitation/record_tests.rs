use std::sync::Arc;

use proptest::prelude::*;

use super::super::message::Id;
use super::*;

fn bytes(event: &Event) -> (u16, Vec<u8>) {
    let mut out = Vec::new();
    let kind = encode(event, &mut out);
    (kind, out)
}

fn content() -> impl Strategy<Value = Arc<[u8]>> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Arc::from)
}

prop_compose! {
    fn requested()(at_ns: u64, id: [u8; 16], from: u32, to: u32, expires_ns: u64, digest: [u8; 32],
        message in content(), schema in content()) -> Event {
        let (id, digest) = (Id::from_bytes(id), Digest(digest));
        Event::Requested { at_ns, id, from, to, expires_ns, digest, message, schema }
    }
}

prop_compose! {
    fn closed()(at_ns: u64, id: [u8; 16], state in 1usize..5, tag: Option<[u8; 32]>,
        data in prop::option::of(content())) -> Event {
        let (id, state, tag) = (Id::from_bytes(id), State::ALL[state], tag.map(Tag));
        Event::Closed { at_ns, id, state, tag, data }
    }
}

prop_compose! {
    fn violation()(at_ns: u64, agent: Option<u32>, id: Option<[u8; 16]>, code in 0u8..22,
        severe: bool, tag: Option<[u8; 32]>) -> Event {
        let severity = if severe { Severity::Critical } else { Severity::High };
        let (id, what, tag) = (id.map(Id::from_bytes), What::Refused(code), tag.map(Tag));
        Event::Violation(Audit { at_ns, agent, id, what, severity, tag })
    }
}

prop_compose! {
    fn used()(at_ns: u64, digest: [u8; 32]) -> Event {
        Event::Used { at_ns, digest: Digest(digest) }
    }
}

proptest! {
    #[test]
    fn an_event_comes_back_and_no_part_of_it_is_one(event in prop_oneof![requested(), closed(), violation(), used()]) {
        let (kind, whole) = bytes(&event);
        let bounds = Bounds::default();
        prop_assert_eq!(decode(kind, &whole, &bounds), Ok(event));
        for cut in 0..whole.len() {
            prop_assert!(decode(kind, &whole[..cut], &bounds).is_err());
        }
    }

    #[test]
    fn any_bytes_are_an_event_or_a_refusal(kind in 0u16..6, content in prop::collection::vec(any::<u8>(), 0..200)) {
        check_record(kind, &content);
    }
}
