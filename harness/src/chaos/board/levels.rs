//! What a subject holds at an instant, as it says itself: slots, timers, operations, live objects. What a fault has left
//! in a process that goes on is seen in them.

use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::{Board, HEADER};

/// Where they lie: in the last eight words of the header.
pub(super) const FIRST: usize = HEADER - 8;

/// What a process holds. Each is a count of its own: they are not of one instant to the turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels {
    /// Which look it was; 0: nobody has looked yet.
    pub look: u64,
    /// Agents and spawned futures.
    pub slots: u64,
    /// Timers that are pending.
    pub timers: u64,
    /// Operations on sockets and files that live.
    pub ops: u64,
    /// Memory of suspended handlers and spawned futures, bytes.
    pub futures_bytes: u64,
    /// Objects that were allocated and not freed, and their bytes; `None`: they are not counted in this program.
    pub heap: Option<(u64, u64)>,
}

impl Board {
    /// Says what this process holds; which look it is, is counted here. From one thread only.
    pub fn set_levels(&self, of: &Levels) {
        let words = &self.shared[FIRST..HEADER];
        let (objects, bytes) = of.heap.unwrap_or_default();
        let counted = u64::from(of.heap.is_some());
        let says = [of.slots, of.timers, of.ops, of.futures_bytes, objects, bytes, counted];
        for (word, value) in words[1..].iter().zip(says) {
            word.store(value, Relaxed);
        }
        words[0].store(words[0].load(Relaxed) + 1, Relaxed);
    }

    /// What the subject that looked last held then.
    #[must_use]
    pub fn levels(&self) -> Levels {
        let word = |at: usize| self.shared[FIRST + at].load(Relaxed);
        Levels {
            look: word(0),
            slots: word(1),
            timers: word(2),
            ops: word(3),
            futures_bytes: word(4),
            heap: (word(7) != 0).then(|| (word(5), word(6))),
        }
    }
}

/// Least and most of a level while it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelRange {
    /// Least.
    pub min: u64,
    /// Most.
    pub max: u64,
}

impl LevelRange {
    fn add(of: Option<Self>, value: u64) -> Self {
        let Self { min, max } = of.unwrap_or(Self { min: value, max: value });
        Self { min: min.min(value), max: max.max(value) }
    }
}

/// Levels while they were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelSpan {
    /// Looks that were not of the same instant.
    pub looks: u64,
    /// Agents and spawned futures.
    pub slots: LevelRange,
    /// Timers that are pending.
    pub timers: LevelRange,
    /// Operations on sockets and files that live.
    pub ops: LevelRange,
    /// Memory of suspended handlers and spawned futures, bytes.
    pub futures_bytes: LevelRange,
    /// Live objects, where they are counted.
    pub objects: Option<LevelRange>,
    /// Their bytes.
    pub bytes: Option<LevelRange>,
}

impl LevelSpan {
    /// With another look in it.
    #[must_use]
    pub fn with(of: Option<Self>, levels: &Levels) -> Self {
        let add =
            |part: fn(&Self) -> LevelRange, value| LevelRange::add(of.as_ref().map(part), value);
        let heap = |part: fn(&Self) -> Option<LevelRange>, value: Option<u64>| {
            value.map(|value| LevelRange::add(of.as_ref().and_then(part), value))
        };
        Self {
            looks: of.map_or(0, |of| of.looks) + 1,
            slots: add(|of| of.slots, levels.slots),
            timers: add(|of| of.timers, levels.timers),
            ops: add(|of| of.ops, levels.ops),
            futures_bytes: add(|of| of.futures_bytes, levels.futures_bytes),
            objects: heap(|of| of.objects, levels.heap.map(|(objects, _)| objects)),
            bytes: heap(|of| of.bytes, levels.heap.map(|(_, bytes)| bytes)),
        }
    }

    /// Whether all but the heap has been as little as it was in `base`.
    #[must_use]
    pub const fn is_back_in(&self, base: &Self) -> bool {
        self.slots.min <= base.slots.max
            && self.timers.min <= base.timers.max
            && self.ops.min <= base.ops.max
            && self.futures_bytes.min <= base.futures_bytes.max
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shape;
    use super::*;

    #[test]
    fn what_is_said_is_read_and_spans_are_from_the_least_to_the_most() {
        let shape = Shape { cores: 1, slots: 1, slot_ns: 1, from_ns: 0 };
        let board = Board::create(shape, &[0; 32]).unwrap();
        assert_eq!(board.levels(), Levels::default());
        let says = Levels { slots: 10, timers: 20, ops: 3, futures_bytes: 96, ..Levels::default() };
        board.set_levels(&Levels { heap: Some((500, 7_000)), ..says });
        let first = board.levels();
        assert_eq!(first, Levels { look: 1, heap: Some((500, 7_000)), ..says });
        board.set_levels(&Levels { slots: 12, timers: 15, ..says });
        let second = board.levels();
        assert_eq!((second.look, second.heap), (2, None));
        let base = LevelSpan::with(None, &first);
        let both = LevelSpan::with(Some(base), &Levels { heap: Some((400, 9_000)), ..second });
        assert_eq!((both.looks, both.slots), (2, LevelRange { min: 10, max: 12 }));
        assert_eq!(both.timers, LevelRange { min: 15, max: 20 });
        assert_eq!(both.objects, Some(LevelRange { min: 400, max: 500 }));
        assert_eq!(both.bytes, Some(LevelRange { min: 7_000, max: 9_000 }));
        assert!(both.is_back_in(&base));
        assert!(!LevelSpan::with(None, &second).is_back_in(&base), "two slots more");
    }
}
