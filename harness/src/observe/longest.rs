//! Spans of time in fixed room: the longest are kept, the others are summed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A span; of equals the earlier one is the longer, and the shorter is the greater.
#[derive(Debug, Clone, Copy)]
struct Span<T> {
    len_ns: u64,
    from_ns: u64,
    of: T,
}

impl<T> Span<T> {
    const fn key(&self) -> (Reverse<u64>, u64) {
        (Reverse(self.len_ns), self.from_ns)
    }
}

impl<T> PartialEq for Span<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Span<T> {}

impl<T> PartialOrd for Span<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Span<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// The longest spans.
#[derive(Debug, Clone)]
pub(super) struct Longest<T> {
    /// The shortest on top.
    kept: BinaryHeap<Span<T>>,
    max: usize,
    left_out: (u64, u64),
}

impl<T: Copy> Longest<T> {
    /// With room for `max` of them; the only allocation.
    pub(super) fn new(max: usize) -> Self {
        Self { kept: BinaryHeap::with_capacity(max), max, left_out: (0, 0) }
    }

    /// Keeps one; without room the shortest is only summed.
    pub(super) fn keep(&mut self, from_ns: u64, len_ns: u64, of: T) {
        let mut one = Span { len_ns, from_ns, of };
        if self.kept.len() < self.max {
            return self.kept.push(one);
        }
        if let Some(mut shortest) = self.kept.peek_mut()
            && one < *shortest
        {
            std::mem::swap(&mut *shortest, &mut one);
        }
        self.left_out.0 += one.len_ns;
        self.left_out.1 += 1;
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.left_out = (0, 0);
    }

    /// What is kept, in order of time: from, length, what. Allocates.
    pub(super) fn in_order(&self) -> Vec<(u64, u64, T)> {
        let mut all: Vec<_> =
            self.kept.iter().map(|span| (span.from_ns, span.len_ns, span.of)).collect();
        all.sort_by_key(|&(from_ns, ..)| from_ns);
        all
    }

    /// Sum of the lengths of what found no room, ns, and how many these were.
    pub(super) const fn left_out(&self) -> (u64, u64) {
        self.left_out
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.kept.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_the_longest_are_kept() {
        let (most, many) = (8, 24);
        let mut kept = Longest::new(most);
        let room = kept.room();
        // Every third one is long; lengths all differ.
        let len_ns = |i: u64| if i.is_multiple_of(3) { 1_000_000 + i } else { 20_000 + i };
        (0..many).for_each(|i| kept.keep(i * 2_000_000, len_ns(i), i));
        let long: Vec<_> = (0..many)
            .filter(|i| i.is_multiple_of(3))
            .map(|i| (i * 2_000_000, len_ns(i), i))
            .collect();
        assert_eq!(kept.in_order(), long, "in order of time");
        let short: u64 = (0..many).filter(|i| !i.is_multiple_of(3)).map(len_ns).sum();
        assert_eq!(kept.left_out(), (short, many - most as u64));
        assert_eq!(kept.room(), room);
        kept.clear();
        assert!(kept.in_order().is_empty() && kept.left_out() == (0, 0));
    }

    #[test]
    fn of_equals_the_earlier_ones_are_kept() {
        let mut kept = Longest::new(2);
        (0..5).for_each(|i| kept.keep(i, 7, ()));
        assert_eq!((kept.in_order(), kept.left_out()), (vec![(0, 7, ()), (1, 7, ())], (21, 3)));
    }
}
