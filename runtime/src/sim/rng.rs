//! Random numbers of a seed: the same on every machine, and in every build.

/// A generator (splitmix64, Steele, Lea and Flood 2014). Not for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    /// Numbers of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for another purpose: what one draws does not move the other.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.bits())
    }

    /// 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below 0");
        let product = u128::from(self.bits()) * u128::from(end);
        u64::try_from(product >> 64).expect("less than `end`")
    }

    /// An index of a table of `len` entries, which must not be empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("less than `len`")
    }

    /// At most `max`.
    pub fn up_to(&mut self, max: u64) -> u64 {
        if max == u64::MAX { self.bits() } else { self.below(max + 1) }
    }

    /// One of a table, which must not be empty.
    pub fn one_of<T: Copy>(&mut self, table: &[T]) -> T {
        table[self.index(table.len())]
    }

    /// Whether something happens that does so `ppm` times in a million.
    pub fn happens(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }
}

/// Spreads the bits of a word over all of them.
pub(super) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_paper_and_within_their_bounds() {
        let mut rng = Rng::new(1_234_567);
        let known = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([rng.bits(), rng.bits()], known);
        let draws: Vec<u64> = (0..1_000).map(|_| rng.below(7)).collect();
        assert!((0..7).all(|n| draws.contains(&n)) && draws.iter().all(|&n| n < 7));
        assert!(!rng.happens(0) && rng.happens(1_000_000));
        assert_eq!((rng.up_to(0), rng.one_of(&[9])), (0, 9));
    }
}
