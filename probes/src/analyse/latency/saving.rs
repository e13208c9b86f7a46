//! Who weighs most among many, in the room of a few: space-saving (Metwally, Agrawal, El Abbadi, 2005).
//!
//! A list of `n` counters. One who is not in the full list takes the place, and the weight, of the
//! lightest. So nobody is weighed too light, nobody heavier than `total / n` is missing, and what of a
//! weight may be another's is kept beside it.
//!
//! The counters are a heap with the lightest on top; a key is found by comparing all of them, which for 64
//! keys of 4 bytes is 16 vector instructions and needs no second table to keep true.

/// One counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heavy<K> {
    /// Who.
    pub key: K,
    /// At most so much.
    pub weight: u64,
    /// What of it may be another's.
    pub error: u64,
    /// Times that it was added to since it is in the list.
    pub count: u64,
}

/// The list. `add` costs one pass over the keys and at most two steps for each doubling of the list.
#[derive(Debug, Clone)]
pub struct SpaceSaving<K> {
    keys: Vec<K>,
    /// In the places of `keys`.
    cells: Vec<Cell>,
    capacity: usize,
    total: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    weight: u64,
    error: u64,
    count: u64,
}

impl<K: Copy + Eq> SpaceSaving<K> {
    /// A list with room for `capacity`, at least one; the only allocation.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let (keys, cells) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
        Self { keys, cells, capacity, total: 0 }
    }

    /// Adds `weight` to `key`. A weight of 0 is nothing, and takes nobody's place.
    #[inline]
    pub fn add(&mut self, key: K, weight: u64) {
        if weight == 0 {
            return;
        }
        self.total = self.total.saturating_add(weight);
        if let Some(place) = find(&self.keys, key) {
            let cell = &mut self.cells[place];
            cell.weight = cell.weight.saturating_add(weight);
            cell.count += 1;
            self.sink(place);
        } else if self.keys.len() < self.capacity {
            self.keys.push(key);
            self.cells.push(Cell { weight, error: 0, count: 1 });
            self.rise(self.keys.len() - 1);
        } else {
            let error = self.cells[0].weight;
            self.keys[0] = key;
            self.cells[0] = Cell { weight: error.saturating_add(weight), error, count: 1 };
            self.sink(0);
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.cells[parent].weight <= self.cells[place].weight {
                return;
            }
            self.swap(place, parent);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            let Some(cell) = self.cells.get(left) else { return };
            let right = self.cells.get(left + 1).is_some_and(|other| other.weight < cell.weight);
            let child = left + usize::from(right);
            if self.cells[place].weight <= self.cells[child].weight {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.keys.swap(a, b);
        self.cells.swap(a, b);
    }

    /// All that was added, whoever has it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The most that one who is not in the list can weigh.
    #[must_use]
    pub fn missing_max(&self) -> u64 {
        if self.keys.len() < self.capacity { 0 } else { self.cells[0].weight }
    }

    /// The list, heaviest first; the order of equal ones is that of the heap. Allocates.
    #[must_use]
    pub fn heaviest(&self) -> Vec<Heavy<K>> {
        let heavy = |(key, cell): (&K, &Cell)| Heavy {
            key: *key,
            weight: cell.weight,
            error: cell.error,
            count: cell.count,
        };
        let mut list: Vec<Heavy<K>> = self.keys.iter().zip(&self.cells).map(heavy).collect();
        list.sort_by_key(|heavy| std::cmp::Reverse(heavy.weight));
        list
    }

    /// Empties it; keeps its room.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.cells.clear();
        self.total = 0;
    }
}

/// Place of `key`: whole blocks are compared without a branch, so that the compiler makes vectors of it.
#[inline]
fn find<K: Copy + Eq>(keys: &[K], key: K) -> Option<usize> {
    const BLOCK: usize = 16;
    let mut at = 0;
    for block in keys.chunks(BLOCK) {
        if block.iter().fold(false, |found, other| found | (*other == key)) {
            return block.iter().position(|other| *other == key).map(|place| at + place);
        }
        at += BLOCK;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn weights_are_bounded_on_both_sides(
            capacity in 1usize..40,
            stream in prop::collection::vec((0u32..60, 0u64..1_000), 0..800),
        ) {
            let mut list = SpaceSaving::new(capacity);
            let mut exact: HashMap<u32, u64> = HashMap::new();
            for &(key, weight) in &stream {
                list.add(key, weight);
                *exact.entry(key).or_default() += weight;
            }
            let total: u64 = exact.values().sum();
            prop_assert_eq!(list.total(), total);
            let found = list.heaviest();
            prop_assert_eq!(found.iter().map(|heavy| heavy.weight).sum::<u64>(), total);
            prop_assert!(found.windows(2).all(|pair| pair[0].weight >= pair[1].weight));
            for heavy in &found {
                let truth = exact[&heavy.key];
                prop_assert!(heavy.weight - heavy.error <= truth && truth <= heavy.weight);
                prop_assert!(heavy.error <= total / capacity as u64);
            }
            for (key, weight) in exact {
                let listed = found.iter().any(|heavy| heavy.key == key);
                prop_assert!(listed || weight <= list.missing_max(), "{key} of {weight} is missing");
            }
        }
    }

    #[test]
    fn one_heavy_among_ten_thousand_is_found() {
        let mut list = SpaceSaving::new(64);
        for round in 0..100_000u32 {
            list.add(round.wrapping_mul(0x9E37_79B9) % 10_000, 1_000);
            if round % 100 == 0 {
                list.add(77_777, 5_000_000);
            }
        }
        let first = list.heaviest()[0];
        assert_eq!((first.key, first.count), (77_777, 1_000));
        assert!(first.error * 100 < first.weight, "{first:?}");
        list.clear();
        assert_eq!((list.total(), list.missing_max(), list.heaviest().len()), (0, 0, 0));
    }
}
