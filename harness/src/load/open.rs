//! The open requests of one core: a slab with generation-tagged keys, linked in sending order, so that
//! the oldest unanswered request is known at any instant. How many there are is said where others may look.

use std::sync::Arc;

use tailbeam_runtime::TimerId;

use super::latency::Drawn;
use super::legs::Legs;
use crate::chaos::board::Lane;

const NONE: u32 = u32::MAX;
/// Bits of the generation inside a key; a key fits the 62 token bits that the host leaves.
const GENERATION_MASK: u32 = (1 << 29) - 1;

/// One open request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) intended_ns: u64,
    pub(crate) sent_ns: u64,
    pub(crate) deadline_ns: u64,
    pub(crate) planned_ns: u64,
    pub(crate) local: u32,
    /// Who was asked.
    pub(crate) responder: u32,
    /// What it was drawn for, before it was sent.
    pub(crate) drawn: Drawn,
    pub(crate) timer: Option<TimerId>,
}

#[derive(Debug)]
struct Slot {
    open: Option<Open>,
    generation: u32,
    prev: u32,
    next: u32,
}

/// The table; it grows up to its bound and reuses freed slots.
#[derive(Debug)]
pub(crate) struct OpenTable {
    slots: Vec<Slot>,
    free: u32,
    head: u32,
    tail: u32,
    len: usize,
    max: usize,
    /// Sum of the send instants, modulo 2^64.
    sent_sum: u64,
    /// Of all cores, and whose table this is: where its length is said.
    legs: Arc<[Legs]>,
    shard: usize,
    /// Where it is said to a supervisor, who reads it when this process is dead.
    lane: Option<Lane>,
}

impl OpenTable {
    pub(crate) fn new(max: usize, (legs, shard): (Arc<[Legs]>, usize), lane: Option<Lane>) -> Self {
        let (free, head, tail) = (NONE, NONE, NONE);
        Self { slots: Vec::new(), free, head, tail, len: 0, max, sent_sum: 0, legs, shard, lane }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Inserts as the youngest; `None` when the bound is reached.
    pub(crate) fn insert(&mut self, open: Open) -> Option<u64> {
        let index = self.vacant()?;
        let tail = self.tail;
        self.sent_sum = self.sent_sum.wrapping_add(open.sent_ns);
        let slot = &mut self.slots[index as usize];
        slot.open = Some(open);
        slot.prev = tail;
        slot.next = NONE;
        let generation = slot.generation;
        match tail {
            NONE => self.head = index,
            _ => self.slots[tail as usize].next = index,
        }
        self.tail = index;
        self.len += 1;
        self.say();
        Some(u64::from(generation) << 32 | u64::from(index))
    }

    #[inline]
    fn say(&self) {
        self.legs[self.shard].set_open(self.len);
        if let Some(lane) = &self.lane {
            lane.set_open(self.len);
        }
    }

    fn vacant(&mut self) -> Option<u32> {
        if self.free != NONE {
            let index = self.free;
            self.free = self.slots[index as usize].next;
            return Some(index);
        }
        if self.slots.len() >= self.max {
            return None;
        }
        let index = u32::try_from(self.slots.len()).ok().filter(|&i| i != NONE)?;
        self.slots.push(Slot { open: None, generation: 0, prev: NONE, next: NONE });
        Some(index)
    }

    /// Notes the expiry timer of an open request.
    pub(crate) fn set_timer(&mut self, key: u64, timer: TimerId) {
        if let Some(index) = self.index(key)
            && let Some(open) = &mut self.slots[index as usize].open
        {
            open.timer = Some(timer);
        }
    }

    fn index(&self, key: u64) -> Option<u32> {
        let index = u32::try_from(key & u64::from(u32::MAX)).ok()?;
        let slot = self.slots.get(index as usize)?;
        (slot.open.is_some() && u64::from(slot.generation) == key >> 32).then_some(index)
    }

    /// Removes an open request; `None` when it was closed before.
    pub(crate) fn remove(&mut self, key: u64) -> Option<Open> {
        let index = self.index(key)?;
        let slot = &mut self.slots[index as usize];
        let open = slot.open.take()?;
        let (prev, next) = (slot.prev, slot.next);
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.next = self.free;
        self.free = index;
        match prev {
            NONE => self.head = next,
            _ => self.slots[prev as usize].next = next,
        }
        match next {
            NONE => self.tail = prev,
            _ => self.slots[next as usize].prev = prev,
        }
        self.len -= 1;
        self.say();
        self.sent_sum = self.sent_sum.wrapping_sub(open.sent_ns);
        Some(open)
    }

    /// Removes every open request of an agent. Looks at the whole table.
    pub(crate) fn take_of(&mut self, local: u32) -> Vec<Open> {
        let of = |slot: &Slot| slot.open.as_ref().is_some_and(|open| open.local == local);
        let key = |(index, slot): (usize, &Slot)| u64::from(slot.generation) << 32 | index as u64;
        let keys: Vec<u64> =
            self.slots.iter().enumerate().filter(|(_, slot)| of(slot)).map(key).collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Send instant of the oldest open request.
    pub(crate) fn oldest_sent_ns(&self) -> Option<u64> {
        let slot = self.slots.get(self.head as usize)?;
        slot.open.map(|open| open.sent_ns)
    }

    /// Sum of the ages of the open requests, ns. The sum of their instants may wrap, the difference does
    /// not: a million requests of an hour are below 2^62 ns.
    pub(crate) const fn age_ns(&self, now_ns: u64) -> u64 {
        (self.len as u64).wrapping_mul(now_ns).wrapping_sub(self.sent_sum)
    }

    /// Every open request.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Open> {
        self.slots.iter().filter_map(|slot| slot.open.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sent_ns: u64) -> Open {
        Open {
            intended_ns: sent_ns,
            sent_ns,
            deadline_ns: 0,
            planned_ns: 0,
            local: 0,
            responder: 1,
            drawn: Drawn::default(),
            timer: None,
        }
    }

    #[test]
    fn a_key_is_good_once_and_the_oldest_is_known() {
        let mut table = OpenTable::new(3, ([Legs::default()].into(), 0), None);
        let keys: Vec<u64> = (0..3).map(|i| table.insert(open(i)).unwrap()).collect();
        assert!(table.insert(open(9)).is_none(), "the bound holds");
        assert_eq!(table.oldest_sent_ns(), Some(0));
        assert!(table.remove(keys[0]).is_some());
        assert!(table.remove(keys[0]).is_none());
        assert_eq!(table.oldest_sent_ns(), Some(1));
        let again = table.insert(open(7)).unwrap();
        assert_ne!(again, keys[0], "a reused slot has another generation");
        table.remove(keys[1]);
        table.remove(keys[2]);
        assert_eq!((table.oldest_sent_ns(), table.len()), (Some(7), 1));
        assert_eq!(table.iter().count(), 1);
        table.insert(open(17)).unwrap();
        assert_eq!(table.age_ns(20), 13 + 3);
        table.insert(Open { local: 3, ..open(18) }).unwrap();
        let taken: Vec<u64> = table.take_of(0).iter().map(|open| open.sent_ns).collect();
        assert_eq!((taken.len(), table.len(), table.oldest_sent_ns()), (2, 1, Some(18)));
        assert!(table.take_of(9).is_empty());
    }
}
