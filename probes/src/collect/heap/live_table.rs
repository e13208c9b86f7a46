//! The table of sampled objects that live, in the state file. Whoever changes an entry claims it by
//! one compare-and-swap of its check; an object that dies meanwhile is left to the claimer.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stack::Numbers;
use crate::collect::words::Words;
use crate::record::heap_layout::{BUSY, DEAD, EMPTY, Entry, Layout, Section, low};

pub(super) struct Live {
    start: usize,
    numbers: Numbers,
    links: Words,
}

/// What came of a claim.
#[derive(Debug)]
pub(super) enum Claim {
    /// The caller holds the entry.
    Taken(Entry),
    /// Nothing lives there at this address.
    Gone,
    /// Somebody else holds the entry; when the claim said so, he ends the object.
    Held,
}

/// What a claimer found when it gave the entry back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GivenBack {
    Lives,
    /// It died while it was claimed; the entry is still claimed, the claimer ends it.
    Died,
}

impl Live {
    pub(super) fn new(layout: &Layout) -> std::io::Result<Live> {
        let count = layout.count(Section::Entries);
        let bound = u32::try_from(count).expect("HeapConfig bounds the table below 2^32");
        let links = Words::anonymous(count.div_ceil(2))?;
        Ok(Live { start: layout.at(Section::Entries, 0), numbers: Numbers::new(bound), links })
    }

    /// Stores a new object; `None` when the table is full.
    pub(super) fn insert(&self, words: &[AtomicU64], entry: &Entry) -> Option<u32> {
        let index = self.numbers.take(|n| &self.links.halves()[n as usize])?;
        let slot = self.slot(words, index);
        store(slot, &entry.encode());
        Some(index)
    }

    /// Claims the entry if it holds a living object at `address`. An entry that somebody else is
    /// changing is marked dead when `dying`.
    pub(super) fn claim(
        &self,
        words: &[AtomicU64],
        index: u32,
        address: u64,
        dying: bool,
    ) -> Claim {
        if index >= self.numbers.used() {
            return Claim::Gone;
        }
        let slot = self.slot(words, index);
        // An address lives once: if it is here, the entry is the caller's object or is empty.
        if slot[5].load(Ordering::Relaxed) != address {
            return Claim::Gone;
        }
        let mut word = slot[0].load(Ordering::Acquire);
        loop {
            let wanted = match low(word) {
                EMPTY | DEAD => return Claim::Gone,
                BUSY if !dying => return Claim::Held,
                BUSY => word >> 32 << 32 | u64::from(DEAD),
                _ => word >> 32 << 32 | u64::from(BUSY),
            };
            // Acquire: pairs with the Release in store, so that the fields are seen.
            match slot[0].compare_exchange(word, wanted, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if low(wanted) == DEAD => return Claim::Held,
                Ok(_) => return Claim::Taken(Entry::decode(&load(slot))),
                Err(now) => word = now,
            }
        }
    }

    /// Whether a living object at `address` has this number.
    pub(super) fn holds(&self, words: &[AtomicU64], index: u32, address: u64) -> bool {
        if index >= self.numbers.used() {
            return false;
        }
        let slot = self.slot(words, index);
        let lives = !matches!(low(slot[0].load(Ordering::Acquire)), EMPTY | DEAD);
        lives && slot[5].load(Ordering::Relaxed) == address
    }

    /// Claims whatever lives at `index`.
    pub(super) fn claim_any(&self, words: &[AtomicU64], index: u32) -> Claim {
        let address = self.slot(words, index)[5].load(Ordering::Relaxed);
        self.claim(words, index, address, false)
    }

    /// Gives a claimed entry back, changed.
    pub(super) fn give_back(&self, words: &[AtomicU64], index: u32, entry: &Entry) -> GivenBack {
        let slot = self.slot(words, index);
        let (encoded, claimed) = (entry.encode(), slot[0].load(Ordering::Relaxed));
        for (at, word) in encoded.iter().enumerate().skip(1) {
            slot[at].store(*word, Ordering::Relaxed);
        }
        let claimed = claimed >> 32 << 32 | u64::from(BUSY);
        // Release: the fields are seen by whoever claims next.
        match slot[0].compare_exchange(claimed, encoded[0], Ordering::Release, Ordering::Relaxed) {
            Ok(_) => GivenBack::Lives,
            Err(_) => GivenBack::Died,
        }
    }

    /// Empties a claimed entry.
    pub(super) fn remove(&self, words: &[AtomicU64], index: u32) {
        self.slot(words, index)[0].store(u64::from(EMPTY), Ordering::Release);
        self.numbers.give(index, |n| &self.links.halves()[n as usize]);
    }

    /// Entries that were ever used.
    pub(super) fn used(&self) -> u32 {
        self.numbers.used()
    }

    /// Calls `seen` with the owner of each object that lives, by a look that nobody waits for.
    pub(super) fn owners(&self, words: &[AtomicU64], mut seen: impl FnMut(u32)) {
        for index in 0..self.used() {
            let slot = self.slot(words, index);
            if low(slot[0].load(Ordering::Acquire)) != EMPTY {
                seen(low(slot[1].load(Ordering::Relaxed)));
            }
        }
    }

    /// In the child of a fork, whose table is a copy of what the parent's has become since: empties what
    /// the parent entered after the fork, which this process' own numbers say is free.
    pub(super) fn forked(&self, words: &[AtomicU64]) {
        let empty = |index| self.slot(words, index)[0].store(u64::from(EMPTY), Ordering::Relaxed);
        self.numbers.each_back(|n| &self.links.halves()[n as usize], empty);
        let mut row = 0;
        for index in self.used()..self.numbers.bound() {
            // The parent uses fresh numbers in their order.
            row = if self.slot(words, index)[0].load(Ordering::Relaxed) == 0 { row + 1 } else { 0 };
            if row > 4_096 {
                return;
            }
            empty(index);
        }
    }

    /// Bytes beside the state file.
    pub(super) fn private_bytes(&self) -> u64 {
        self.links.len() as u64 * 8
    }

    fn slot<'a>(&self, words: &'a [AtomicU64], index: u32) -> &'a [AtomicU64] {
        let at = self.start + index as usize * 8;
        &words[at..at + 8]
    }
}

fn store(slot: &[AtomicU64], words: &[u64; 8]) {
    for (at, word) in words.iter().enumerate().skip(1) {
        slot[at].store(*word, Ordering::Relaxed);
    }
    // Release: pairs with the Acquire in claim.
    slot[0].store(words[0], Ordering::Release);
}

fn load(slot: &[AtomicU64]) -> [u64; 8] {
    std::array::from_fn(|at| slot[at].load(Ordering::Relaxed))
}
