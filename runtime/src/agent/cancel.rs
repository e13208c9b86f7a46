//! Asks that nobody waits for any more: what a callee is told of them, what it keeps, and when both sides forget
//! it. The deadline and the slot's number travel with the message, so that nobody works for an asker that has
//! given up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{Control, Key, handle};
use crate::shard::Shard;

/// Longest wait of an ask, ns: 20 days, so that a deadline is told from one that is over.
pub(super) const WAIT_MAX_NS: u64 = 20 * 86_400 * 1_000_000_000;
/// log2 of the unit of a travelling deadline, ns: about 1 ms, with 32 bits for 52 days.
pub(super) const DUE_BITS: u32 = 20;

/// A slot of a shard's asks, as a key says it without its shard.
pub(super) fn slot_of(key: u64) -> (u32, u32) {
    let slot = u32::try_from(key >> 32 & 0xff_ffff).expect("24 bits");
    (slot, u32::try_from(key & u64::from(u32::MAX)).expect("32 bits"))
}

/// Deadline and slot of an ask as its message carries them: 32 bits of time in ms, 24 of the slot, 8 of its
/// generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due(pub(super) u64);

impl Due {
    pub(super) fn new(key: u64, deadline_ns: u64) -> Self {
        let (slot, generation) = slot_of(key);
        Self((deadline_ns >> DUE_BITS) << 32 | u64::from(slot) << 8 | u64::from(generation & 0xff))
    }

    /// The deadline is over; up to 1 ms late, never early. Deadlines are at most [`WAIT_MAX_NS`] ahead.
    pub(crate) fn is_over(self, now_ns: u64) -> bool {
        let late = (now_ns >> DUE_BITS).wrapping_sub(self.0 >> 32) & u64::from(u32::MAX);
        late > 0 && late < 1 << 31
    }

    pub(super) const fn slot(self) -> u64 {
        self.0 & u64::MAX >> 32
    }

    /// The deadline alone: a message that another core passes on cannot be looked up there.
    pub(crate) const fn without_slot(self) -> Self {
        Self(self.0 | u64::MAX >> 32)
    }
}

/// The asks of other shards that were dropped before their deadline.
#[derive(Debug, Default)]
pub(crate) struct Cancelled(RefCell<BTreeMap<(usize, u64), u64>>, Cell<usize>);

impl Cancelled {
    /// Notes one; `false` when there is no room: its deadline alone will speak for it.
    fn add(&self, (shard, due): (usize, Due), max: u32, now_ns: u64) -> bool {
        let mut all = self.0.borrow_mut();
        if all.len() >= max as usize {
            // The deadline speaks for those that are over.
            all.retain(|_, due| !Due(*due).is_over(now_ns));
        }
        let room = all.len() < max as usize;
        if room {
            all.insert((shard, due.slot()), due.0);
        }
        self.1.set(all.len());
        room
    }

    pub(super) fn has(&self, shard: usize, due: Due) -> bool {
        self.1.get() > 0 && self.0.borrow().get(&(shard, due.slot())) == Some(&due.0)
    }

    pub(super) const fn has_some(&self) -> bool {
        self.1.get() > 0
    }

    /// Forgets one; whether it was noted.
    pub(super) fn remove(&self, shard: usize, due: Due) -> bool {
        let mut all = self.0.borrow_mut();
        let noted = all.get(&(shard, due.slot())) == Some(&due.0);
        if noted {
            all.remove(&(shard, due.slot()));
            self.1.set(all.len());
        }
        noted
    }

    pub(crate) const fn len(&self) -> usize {
        self.1.get()
    }
}

/// The asks of this shard whose callees were told that nobody waits, until their replies come to an end: then the
/// callees may forget it. A reply that never does is forgotten with its deadline, there and here.
#[derive(Debug, Default)]
pub(crate) struct Told(RefCell<BTreeMap<u64, (usize, Due)>>, Cell<usize>);

/// Asks of one slot among them.
const OF_SLOT_MAX: u32 = 128;
/// All asks.
const ALL: RangeInclusive<u64> = 0..=u64::MAX;

/// All asks of a slot.
fn asks_of(slot: u32) -> RangeInclusive<u64> {
    let first = u64::from(slot) << 32;
    first..=first | u64::from(u32::MAX)
}

/// Slot and generation of a key.
const fn in_shard(key: u64) -> u64 {
    key & u64::MAX >> 8
}

impl Told {
    /// Notes one; `false` when there is no room: then the callee must not be told.
    pub(super) fn add(&self, key: u64, told: (usize, Due), max: u32) -> bool {
        let room = self.crowd(key, max).is_none();
        let mut all = self.0.borrow_mut();
        if room {
            all.insert(in_shard(key), told);
        }
        self.1.set(all.len());
        room
    }

    /// Those that leave no room for another; none when there is room.
    pub(super) fn crowd(&self, key: u64, max: u32) -> Option<RangeInclusive<u64>> {
        if self.1.get() >= max as usize {
            return Some(ALL);
        }
        let slot = slot_of(key).0;
        let used: u32 = self.of_slot(slot).iter().map(|bits| bits.count_ones()).sum();
        (used >= OF_SLOT_MAX).then(|| asks_of(slot))
    }

    /// Takes out those whose deadline is over, which speaks for them.
    pub(super) fn take_over(&self, among: RangeInclusive<u64>, now_ns: u64) -> Vec<(usize, Due)> {
        let mut all = self.0.borrow_mut();
        let over = all.extract_if(among, |_, (_, due)| due.is_over(now_ns));
        let over = over.map(|(_, told)| told).collect();
        self.1.set(all.len());
        over
    }

    #[inline]
    pub(super) fn take(&self, key: u64) -> Option<(usize, Due)> {
        if self.1.get() == 0 {
            return None;
        }
        let mut all = self.0.borrow_mut();
        let told = all.remove(&in_shard(key));
        self.1.set(all.len());
        told
    }

    fn of_slot(&self, slot: u32) -> [u64; 4] {
        let mut seen = [0; 4];
        for (key, _) in self.0.borrow().range(asks_of(slot)) {
            let low = key & 0xff;
            seen[(low / 64) as usize] |= 1 << (low % 64);
        }
        seen
    }

    /// The generation from this one on with which a slot may be used: a message carries 8 bits of it, and no callee
    /// may take an ask for one that it was told of.
    #[inline]
    pub(super) fn unmistakable(&self, slot: u32, generation: u32) -> u32 {
        if self.1.get() == 0 {
            return generation;
        }
        let seen = self.of_slot(slot);
        let is_free = |generation: &u32| {
            let low = generation & 0xff;
            seen[(low / 64) as usize] >> (low % 64) & 1 == 0
        };
        // `add` leaves half of them free.
        (0..256).map(|n| generation.wrapping_add(n)).find(is_free).unwrap_or(generation)
    }

    pub(crate) const fn len(&self) -> usize {
        self.1.get()
    }
}

impl Shard {
    /// The reply of an ask that nobody waits for has come to its end: its callee, if it was told, forgets that.
    pub(super) fn has_ended(&self, key: u64, forgotten: bool) {
        if let Some((callee, due)) = self.told.take(key)
            && !forgotten
        {
            self.tell_to_forget(callee, due);
        }
    }

    fn tell_to_forget(&self, callee: usize, due: Due) {
        let origin = self.index;
        self.send_control(handle(callee, 0, 0), Control::ForgetCancel { origin, due });
    }

    /// Whether the asker of a message has given it up.
    #[inline]
    pub(crate) fn is_cancelled(&self, origin: usize, due: Due) -> bool {
        if due.slot() == Due(0).without_slot().slot() {
            return false;
        }
        if origin == self.index {
            !self.asks.borrow().is_open(due)
        } else {
            self.cancelled.has(origin, due)
        }
    }

    /// Tells a callee that nobody waits for its answer.
    pub(super) fn tell_of_cancel(&self, key: u64, callee: usize, due: Due) {
        if self.retract(callee, Key::Asked(key)) {
            return;
        }
        let max = self.config.asks_max;
        if let Some(crowd) = self.told.crowd(key, max) {
            for (callee, due) in self.told.take_over(crowd, self.seen_ns()) {
                self.tell_to_forget(callee, due);
            }
        }
        let noted = self.told.add(key, (callee, due), max);
        if noted {
            let origin = self.index;
            self.send_control(handle(callee, 0, 0), Control::CancelAsk { origin, due });
        }
        self.stats.borrow_mut().cancels_refused += u64::from(!noted);
    }

    pub(crate) fn cancel_ask(&self, origin: usize, due: Due) {
        let noted = self.cancelled.add((origin, due), self.config.asks_max, self.clock_ns());
        self.stats.borrow_mut().cancels_refused += u64::from(!noted);
    }

    pub(crate) fn forget_cancelled(&self, origin: usize, due: Due) {
        if origin != self.index && self.cancelled.has_some() {
            self.cancelled.remove(origin, due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_travels_in_32_bits() {
        let key = 3u64 << 56 | 77u64 << 32 | 0x1234;
        assert_eq!(slot_of(key), (77, 0x1234));
        let second = 1_000_000_000;
        for start in [0, 50 * 86_400 * second, 400 * 86_400 * second] {
            let due = Due::new(key, start + second);
            assert!(!due.is_over(start) && !due.is_over(start + second));
            assert!(due.is_over(start + second + (2 << DUE_BITS)));
            assert!(due.is_over(start + 3_600 * second));
            let far = Due::new(key, start + WAIT_MAX_NS);
            assert!(!far.is_over(start) && !far.is_over(start + WAIT_MAX_NS));
            assert!(far.is_over(start + WAIT_MAX_NS + second));
            assert_eq!(due.slot(), 77 << 8 | 0x34);
            assert!(due.without_slot().is_over(start + 2 * second));
        }
    }

    #[test]
    fn the_table_of_cancelled_asks_is_bounded_and_forgets_what_is_over() {
        let cancelled = Cancelled::default();
        let due = |slot: u64, ms: u64| Due::new(slot << 32, ms << DUE_BITS);
        assert!(cancelled.add((1, due(1, 5)), 2, 0) && cancelled.add((1, due(2, 50)), 2, 0));
        assert!(!cancelled.add((1, due(3, 50)), 2, 0));
        assert!(cancelled.has(1, due(1, 5)) && !cancelled.has(1, due(3, 50)), "full");
        assert!(cancelled.add((1, due(3, 50)), 2, 9 << DUE_BITS));
        assert!(!cancelled.has(1, due(1, 5)) && cancelled.has(1, due(3, 50)));
        assert!(!cancelled.has(2, due(3, 50)), "of another shard");
        cancelled.remove(1, due(3, 50));
        assert!(!cancelled.has(1, due(3, 50)));
    }
}
