//! Which slots of a level hold timers: 4,096 bits and a word that says which of their words are not zero.

/// Slots of a level at most.
const BITS: usize = 4_096;

/// The bits.
#[derive(Debug)]
pub(super) struct Bits {
    some: u64,
    words: [u64; BITS / 64],
}

impl Bits {
    pub(super) const fn new() -> Self {
        Self { some: 0, words: [0; BITS / 64] }
    }

    pub(super) const fn set(&mut self, at: usize) {
        self.words[at / 64] |= 1 << (at % 64);
        self.some |= 1 << (at / 64);
    }

    pub(super) const fn clear(&mut self, at: usize) {
        self.words[at / 64] &= !(1 << (at % 64));
        if self.words[at / 64] == 0 {
            self.some &= !(1 << (at / 64));
        }
    }

    /// The first bit at or after `from`.
    pub(super) const fn first(&self, from: usize) -> Option<usize> {
        if from >= BITS {
            return None;
        }
        let (word, bit) = (from / 64, from % 64);
        let here = self.words[word] & (u64::MAX << bit);
        if here != 0 {
            return Some(word * 64 + here.trailing_zeros() as usize);
        }
        // Two shifts: one by 64 would be none.
        let later = self.some & ((u64::MAX << word) << 1);
        if later == 0 {
            return None;
        }
        let word = later.trailing_zeros() as usize;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_bit_at_or_after_each_place() {
        let (mut bits, set) = (Bits::new(), [0, 1, 63, 64, 200, 4_031, 4_032, 4_095]);
        set.iter().for_each(|&at| bits.set(at));
        for from in 0..=BITS {
            assert_eq!(bits.first(from), set.iter().copied().find(|&at| at >= from), "{from}");
        }
        set.iter().for_each(|&at| bits.clear(at));
        assert_eq!(bits.first(0), None);
    }
}
