//! The wheel against a model of what must hold.

use std::collections::BTreeMap;

use super::*;

fn rng(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// What must hold, as a sorted map: by the tick of the fire, then in the order in which they were set.
struct Model {
    wheel: Wheel,
    pending: BTreeMap<(u64, u64), (u64, TimerId)>,
    stale: Vec<TimerId>,
    now_ns: u64,
    set: u64,
    seed: u64,
}

impl Model {
    fn insert(&mut self, span_ns: u64, grain_ns: u64) {
        let deadline_ns = (self.now_ns + rng(&mut self.seed) % span_ns) / grain_ns * grain_ns;
        let deadline_ns = deadline_ns.max(self.now_ns);
        let owner = self.set;
        let token = owner.is_multiple_of(3).then_some(owner);
        match self.wheel.insert(deadline_ns, owner, token) {
            Some(id) => {
                self.pending.insert((deadline_ns, owner), (tick_of(deadline_ns), id));
                self.set += 1;
            }
            None => assert_eq!(self.pending.len(), self.wheel.max as usize, "refused early"),
        }
    }

    fn cancel(&mut self) {
        if let Some(&id) = self.stale.last() {
            assert!(!self.wheel.cancel(id), "a stale id cancels nothing");
        }
        let nth = rng(&mut self.seed) as usize % self.pending.len().clamp(1, 50);
        let Some(key) = self.pending.keys().nth(nth).copied() else { return };
        let (_, id) = self.pending.remove(&key).expect("it is there");
        assert!(self.wheel.cancel(id) && !self.wheel.cancel(id));
        self.stale.push(id);
    }

    /// Everything due is fired, by deadline and then in order; nothing else is.
    fn advance(&mut self, by_ns: u64, room: usize) {
        let next = self.wheel.next_deadline();
        self.now_ns += by_ns;
        let (now_tick, mut out) = (self.now_ns >> TICK_BITS, Vec::new());
        let mut last = 0;
        loop {
            out.clear();
            self.wheel.advance(self.now_ns, &mut out, room);
            assert!(out.len() <= room);
            assert!(out.is_empty() || next.is_some_and(|at| at <= self.now_ns), "overslept");
            let keys: Vec<_> = out.iter().map(|fired| (fired.deadline_ns, fired.owner)).collect();
            assert!(keys.is_sorted(), "equal deadlines in the order in which they were set");
            for (fired, key) in out.iter().zip(keys) {
                let (tick, id) = self.pending.remove(&key).expect("fired once");
                assert!(fired.deadline_ns <= self.now_ns, "early");
                assert!(tick >= last, "an earlier tick was overtaken");
                last = tick;
                assert_eq!(fired.token, fired.owner.is_multiple_of(3).then_some(fired.owner));
                self.stale.push(id);
            }
            if out.len() < room {
                break;
            }
        }
        let left = self.pending.values().filter(|(tick, _)| *tick <= now_tick).count();
        assert_eq!(left, 0, "left behind");
        self.stale.drain(..self.stale.len().saturating_sub(100));
    }
}

#[test]
fn agrees_with_a_sorted_map() {
    let now_ns = 1_000_000;
    let mut model = Model {
        wheel: Wheel::new(now_ns, 20_000).expect("address space"),
        pending: BTreeMap::new(),
        stale: Vec::new(),
        now_ns,
        set: 0,
        seed: 0x9e37_79b9_7f4a_7c15,
    };
    let spans = [1_000_000, 60_000_000, 20_000_000_000, 9_000_000_000_000, 400_000_000_000_000];
    let leaps = [100_000, 5_000_000, 700_000_000, 3_000_000_000_000];
    for _ in 0..200_000u64 {
        let draw = rng(&mut model.seed);
        match draw % 8 {
            0..5 => {
                // Coarse deadlines, so that many are equal.
                let grain = [1, 1_000_000, 1_000_000_000][(draw >> 8) as usize % 3];
                model.insert(spans[(draw >> 16) as usize % spans.len()], grain);
            }
            5 | 6 => model.cancel(),
            _ => {
                // The longest leaps are rare, or nothing would stay pending.
                let leap = leaps[((draw >> 8) % 64).saturating_sub(60) as usize];
                let leap = rng(&mut model.seed) % leap;
                model.advance(leap, 1 + (draw >> 20) as usize % 64);
            }
        }
        assert_eq!(model.wheel.pending() as usize, model.pending.len());
    }
    model.advance(1 << 60, 1_000);
    assert!(model.pending.is_empty() && model.wheel.next_deadline().is_none());
}

/// A timer that went down from level to level and one that was set near its end.
#[test]
fn equal_deadlines_fire_in_the_order_in_which_they_were_set() {
    let mut wheel = Wheel::new(0, 100).expect("address space");
    let deadline_ns = 3_000_000_000_000;
    let mut out = Vec::new();
    for owner in 0..60u64 {
        assert!(wheel.insert(deadline_ns, owner, None).is_some());
        wheel.advance(deadline_ns - (deadline_ns >> owner), &mut out, 1);
        assert!(out.is_empty());
    }
    wheel.advance(deadline_ns + (1 << TICK_BITS), &mut out, 100);
    assert!(out.iter().map(|fired| fired.owner).eq(0..60));
}

#[test]
fn what_is_due_when_it_is_set_fires_with_the_next_look() {
    let mut wheel = Wheel::new(1 << 40, 8).expect("address space");
    for (owner, deadline_ns) in [(0, 3), (1, 2), (2, 3), (3, 1 << 39)] {
        assert!(wheel.insert(deadline_ns, owner, None).is_some());
    }
    assert_eq!(wheel.next_deadline(), Some(0));
    let mut out = Vec::new();
    wheel.advance(1 << 40, &mut out, 8);
    assert!(out.iter().map(|fired| fired.owner).eq([1, 0, 2, 3]));
}

#[test]
fn more_due_timers_than_room_come_in_the_order_of_their_ticks() {
    let mut wheel = Wheel::new(0, 10_000).expect("address space");
    for owner in 0..10_000u64 {
        let deadline_ns = (owner * 7_919 % 10_000) << TICK_BITS;
        assert!(wheel.insert(deadline_ns, owner, None).is_some());
    }
    let (mut out, mut last) = (Vec::new(), 0);
    for _ in 0..10 {
        out.clear();
        wheel.advance(20_000 << TICK_BITS, &mut out, 1_000);
        assert_eq!(out.len(), 1_000);
        for fired in &out {
            assert!(fired.deadline_ns >= last, "an earlier one was overtaken");
            last = fired.deadline_ns;
        }
    }
    assert_eq!((wheel.pending(), wheel.next_deadline()), (0, None));
}

#[test]
fn the_bound_and_the_room_hold() {
    let mut wheel = Wheel::new(0, 2).expect("address space");
    assert!(wheel.insert(5, 1, Some(2)).is_some() && wheel.insert(5, 1, Some(2)).is_some());
    assert!(wheel.insert(5, 1, Some(2)).is_none());
    let mut out = Vec::new();
    wheel.advance(1 << 20, &mut out, 1);
    assert_eq!(out.len(), 1);
    assert_eq!(wheel.next_deadline(), Some(0), "the other is still due");
    wheel.advance(1 << 20, &mut out, 8);
    assert_eq!((out.len(), wheel.next_deadline()), (2, None));
}
