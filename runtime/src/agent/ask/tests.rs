//! The table of asks alone.

use super::super::cancel::DUE_BITS;
use super::*;

fn asked(asks: &mut Asks, told: &Told) -> Option<(u32, u32)> {
    asks.open((9, 8), 7, told)
}

#[test]
fn a_slot_closes_once_and_knows_its_generation() {
    let mut asks = Asks::new(1);
    let told = Told::default();
    let (slot, generation) = asked(&mut asks, &told).expect("room");
    assert_eq!(asked(&mut asks, &told), None);
    let key = u64::from(slot) << 32 | u64::from(generation);
    assert!(asks.is_open(Due::new(key, 0)));
    let waits = asks.slot(key).expect("open");
    waits.answer.put(5u8);
    waits.stage = Stage::Answered;
    assert_eq!(asks.unread(), 1);
    assert_eq!(asks.take::<u8>(key), (5, 9, None));
    assert!(!asks.is_open(Due::new(key, 0)) && asks.close(key).is_none());
    assert!(asks.slot(key).is_none());
    assert_eq!((asks.open_count(), asks.unread()), (0, 0));
    assert_eq!(asked(&mut asks, &told), Some((0, 1)));
    assert_eq!(asks.young, [0], "once, however often it was used");
    let closed = asks.close(1).expect("open");
    assert_eq!((closed.stage, closed.asker, closed.callee), (Stage::Waits, 9, 8));
}

/// A message says 8 bits of the generation: one that comes round must not be taken for one that was cancelled.
#[test]
fn a_slot_leaves_out_generations_that_a_callee_was_told_of() {
    let (mut asks, told) = (Asks::new(1), Told::default());
    let key = |generation: u32| handle(0, 0, generation);
    assert!(told.add(key(256), (1, Due::new(key(256), 9)), 1));
    assert!(!told.add(key(7), (1, Due::new(key(7), 9)), 1), "full");
    let crowd = told.crowd(key(7), 1).expect("full");
    assert!(told.take_over(crowd.clone(), 0).is_empty());
    assert_eq!(asked(&mut asks, &told), Some((0, 1)), "0 looks like 256");
    assert_eq!((told.take(key(1)), told.take(key(256)).is_some()), (None, true));
    asks.close(key(1));
    asks.slots[0].generation = 512;
    assert_eq!((asked(&mut asks, &told), told.len()), (Some((0, 512)), 0));
    assert!(told.add(key(7), (1, Due::new(key(7), 9)), 1));
    assert_eq!((told.take_over(crowd, 9 << DUE_BITS).len(), told.len()), (1, 0));
}
