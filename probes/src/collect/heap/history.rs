//! Births and deaths: hooks put events into a ring, whoever holds the collector's lock takes them out
//! into rows. So rows have one writer at a time, and no hook waits for it.
//!
//! A row counts the births of a site, or its deaths at one age, by epoch of birth. Births less deaths
//! are what lives, in counts and in weights: growth and thinning correct the births.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sample::mix;
use crate::record::heap_layout::{EPOCHS, Event, Layout, Section, head, low};

const ROW_WORDS: usize = 98;
const EVENT_WORDS: usize = 5;
const PROBES: usize = 128;

/// A bounded queue of many producers (D. Vyukov, "Bounded MPMC queue") in the state file, so that
/// what was not yet taken out survives a kill.
pub(super) struct Ring {
    start: usize,
    count: u64,
}

impl Ring {
    pub(super) fn new(layout: &Layout) -> Ring {
        let count = layout.count(Section::Events) as u64;
        assert!(count.is_power_of_two(), "turns wrap evenly");
        Ring { start: layout.at(Section::Events, 0), count }
    }

    /// Puts an event in; false when the ring is full. Lock-free.
    pub(super) fn push(&self, words: &[AtomicU64], event: &Event) -> bool {
        let head = &words[head::RING_HEAD];
        let mut turn = head.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(words, turn);
            // Acquire: pairs with the Release in pop; the slot's words are free to be overwritten.
            // A slot's turn is stored less its index, so that fresh, zeroed memory is ready.
            let at = slot[0].load(Ordering::Acquire).wrapping_add(turn % self.count);
            if at == turn {
                let next = turn.wrapping_add(1);
                match head.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        put(slot, event);
                        // Release: pairs with the Acquire in pop.
                        let ready = next.wrapping_sub(turn % self.count);
                        slot[0].store(ready, Ordering::Release);
                        return true;
                    }
                    Err(now) => turn = now,
                }
            } else if at < turn {
                return false;
            } else {
                turn = head.load(Ordering::Relaxed);
            }
        }
    }

    /// Takes the oldest event out. Only the holder of the lock may call it.
    pub(super) fn pop(&self, words: &[AtomicU64]) -> Option<Event> {
        let tail = words[head::RING_TAIL].load(Ordering::Relaxed);
        let slot = self.slot(words, tail);
        let at = slot[0].load(Ordering::Acquire).wrapping_add(tail % self.count);
        if at != tail.wrapping_add(1) {
            return None;
        }
        let event = Event::decode(&std::array::from_fn(|at| slot[1 + at].load(Ordering::Relaxed)));
        let free = tail.wrapping_add(self.count).wrapping_sub(tail % self.count);
        words[head::RING_TAIL].store(tail.wrapping_add(1), Ordering::Relaxed);
        slot[0].store(free, Ordering::Release);
        Some(event)
    }

    /// Forgets what is in it. Nobody else may use the ring meanwhile.
    pub(super) fn clear(&self, words: &[AtomicU64]) {
        for turn in 0..self.count {
            self.slot(words, turn).iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        words[head::RING_HEAD].store(0, Ordering::Relaxed);
        words[head::RING_TAIL].store(0, Ordering::Relaxed);
    }

    /// Whether more than half of the ring is taken.
    pub(super) fn filling(&self, words: &[AtomicU64]) -> bool {
        let (tail, head) = (&words[head::RING_TAIL], &words[head::RING_HEAD]);
        let held = head.load(Ordering::Relaxed).wrapping_sub(tail.load(Ordering::Relaxed));
        held > self.count / 2
    }

    fn slot<'a>(&self, words: &'a [AtomicU64], turn: u64) -> &'a [AtomicU64] {
        #[expect(clippy::cast_possible_truncation, reason = "below the count")]
        let at = self.start + (turn % self.count) as usize * EVENT_WORDS;
        &words[at..at + EVENT_WORDS]
    }
}

fn put(slot: &[AtomicU64], event: &Event) {
    for (at, word) in event.encode().iter().enumerate() {
        slot[1 + at].store(*word, Ordering::Relaxed);
    }
}

/// The rows. Every method is for the holder of the lock.
pub(super) struct Rows {
    start: usize,
    count: usize,
}

impl Rows {
    pub(super) fn new(layout: &Layout) -> Rows {
        Rows { start: layout.at(Section::Rows, 0), count: layout.count(Section::Rows) }
    }

    /// Applies an event; false when there is no row left for it.
    pub(super) fn apply(&self, words: &[AtomicU64], event: &Event) -> bool {
        self.reach(words, event.born_ns);
        let Some(row) = self.row(words, event.site, event.kind) else { return false };
        let epoch_ns = words[head::EPOCH].load(Ordering::Relaxed);
        let epoch = usize::try_from(event.born_ns / epoch_ns).expect("reached: below EPOCHS");
        let sum = f64::from_bits(row[2 + epoch].load(Ordering::Relaxed)) + event.bytes;
        row[2 + epoch].store(sum.to_bits(), Ordering::Relaxed);
        let (cell, shift) = (&row[2 + EPOCHS + epoch / 2], epoch % 2 * 32);
        let pair = cell.load(Ordering::Relaxed);
        let count = low(pair >> shift).wrapping_add_signed(i32::from(event.count));
        let cleared = pair & !(0xFFFF_FFFF << shift);
        cell.store(cleared | u64::from(count) << shift, Ordering::Relaxed);
        true
    }

    /// Doubles epochs until `at_ns` lies in the last one at most.
    pub(super) fn reach(&self, words: &[AtomicU64], at_ns: u64) {
        let mut epoch_ns = words[head::EPOCH].load(Ordering::Relaxed);
        while at_ns / epoch_ns >= EPOCHS as u64 {
            epoch_ns *= 2;
            // Header first: a row that keeps the old length is one the doubling did not come to.
            words[head::EPOCH].store(epoch_ns, Ordering::Relaxed);
            for index in 0..self.count {
                let row = self.slot(words, index);
                if row[0].load(Ordering::Relaxed) != 0 {
                    double(row, epoch_ns);
                }
            }
        }
    }

    fn row<'a>(&self, words: &'a [AtomicU64], site: u32, kind: u8) -> Option<&'a [AtomicU64]> {
        let key = (u64::from(site) + 1) | (u64::from(kind) << 32);
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash do")]
        let hash = mix(key) as usize % self.count;
        for probe in 0..PROBES.min(self.count) {
            let row = self.slot(words, (hash + probe) % self.count);
            let found = row[0].load(Ordering::Relaxed);
            if found == 0 {
                row[1].store(words[head::EPOCH].load(Ordering::Relaxed), Ordering::Relaxed);
                row[0].store(key, Ordering::Release);
            }
            if found == 0 || found == key {
                return Some(row);
            }
        }
        None
    }

    fn slot<'a>(&self, words: &'a [AtomicU64], index: usize) -> &'a [AtomicU64] {
        let at = self.start + index * ROW_WORDS;
        &words[at..at + ROW_WORDS]
    }
}

fn double(row: &[AtomicU64], epoch_ns: u64) {
    let word = |at: usize| row[at].load(Ordering::Relaxed);
    for epoch in 0..EPOCHS {
        let (low, high) = (2 * epoch, 2 * epoch + 1);
        let sum = if high < EPOCHS {
            f64::from_bits(word(2 + low)) + f64::from_bits(word(2 + high))
        } else {
            0.0
        };
        row[2 + epoch].store(sum.to_bits(), Ordering::Relaxed);
    }
    let half = |at: usize| {
        let pair = if at < EPOCHS / 2 { word(2 + EPOCHS + at) } else { 0 };
        (pair & 0xFFFF_FFFF).wrapping_add(pair >> 32) & 0xFFFF_FFFF
    };
    for pair in 0..EPOCHS / 2 {
        let both = half(2 * pair) | half(2 * pair + 1) << 32;
        row[2 + EPOCHS + pair].store(both, Ordering::Relaxed);
    }
    row[1].store(epoch_ns, Ordering::Relaxed);
}
