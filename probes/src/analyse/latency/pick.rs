//! Which requests are written down whole: drawn ones, and the slowest. Seeded; no clock, no allocation
//! after `new`.

/// SplitMix64 (Steele, Lea, Flood 2014), as a uniform number in (0, 1).
#[derive(Debug, Clone)]
struct Draw(u64);

impl Draw {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    #[expect(clippy::cast_possible_truncation, reason = "below a length")]
    fn below(&mut self, length: usize) -> usize {
        ((u128::from(self.bits()) * length as u128) >> 64) as usize
    }
}

/// A uniform sample of all that is offered, of fixed size (algorithm L: Li 1994).
///
/// Each one offered has the same chance to be in it. How many have to pass until the next one is kept is
/// drawn ahead, so that most offers cost one comparison.
#[derive(Debug, Clone)]
pub struct Reservoir<T> {
    kept: Vec<T>,
    capacity: usize,
    offered: u64,
    next: u64,
    weight: f64,
    draw: Draw,
}

impl<T> Reservoir<T> {
    /// Room for `capacity`; the only allocation. Equal seeds draw equally.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Self {
        let kept = Vec::with_capacity(capacity);
        Self { kept, capacity, offered: 0, next: 0, weight: 1.0, draw: Draw(seed) }
    }

    /// Offers one; `make` is called if it is kept.
    #[inline]
    pub fn offer(&mut self, make: impl FnOnce() -> T) {
        self.offered += 1;
        if self.kept.len() < self.capacity {
            self.kept.push(make());
            if self.kept.len() == self.capacity {
                self.skip();
            }
        } else if self.offered == self.next {
            let place = self.draw.below(self.capacity);
            self.kept[place] = make();
            self.skip();
        }
    }

    fn skip(&mut self) {
        self.weight *= (self.draw.unit().ln() / self.capacity as f64).exp();
        let passed = self.draw.unit().ln() / (-self.weight).ln_1p();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let passed = passed.floor() as u64;
        self.next = self.offered.saturating_add(passed).saturating_add(1);
    }

    /// The sample.
    #[must_use]
    pub fn kept(&self) -> &[T] {
        &self.kept
    }

    /// How many were offered.
    #[must_use]
    pub const fn offered(&self) -> u64 {
        self.offered
    }

    /// How many of them are not in the sample.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.offered - self.kept.len() as u64
    }

    /// Empties it for the next window; the draws go on.
    pub fn clear(&mut self) {
        self.kept.clear();
        (self.offered, self.next, self.weight) = (0, 0, 1.0);
    }
}

/// The slowest of all that are offered; of equal ones the earlier stay.
#[derive(Debug, Clone)]
pub struct TopSlow<T> {
    kept: Vec<(u64, T)>,
    capacity: usize,
    /// Place of the quickest one kept, when full.
    least: usize,
}

impl<T> TopSlow<T> {
    /// Room for `capacity`, meant to be few; the only allocation.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { kept: Vec::with_capacity(capacity), capacity, least: 0 }
    }

    /// Whether one of `ns` would be kept. One comparison.
    #[inline]
    #[must_use]
    pub fn wants(&self, ns: u64) -> bool {
        self.kept.len() < self.capacity
            || self.kept.get(self.least).is_some_and(|(least, _)| *least < ns)
    }

    /// Offers one of `ns`; `make` is called if it is kept, and then all are looked through.
    #[inline]
    pub fn offer(&mut self, ns: u64, make: impl FnOnce() -> T) {
        if !self.wants(ns) {
            return;
        }
        if self.kept.len() < self.capacity {
            self.kept.push((ns, make()));
        } else {
            self.kept[self.least] = (ns, make());
        }
        let least = self.kept.iter().enumerate().rev().min_by_key(|(_, (ns, _))| *ns);
        self.least = least.map_or(0, |(place, _)| place);
    }

    /// Those kept, in no order.
    #[must_use]
    pub fn kept(&self) -> &[(u64, T)] {
        &self.kept
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.least = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_the_same_chance() {
        const OFFERED: usize = 200;
        let mut times = [0u32; OFFERED];
        for seed in 0..5_000 {
            let mut reservoir = Reservoir::new(8, seed);
            (0..OFFERED).for_each(|i| reservoir.offer(|| i));
            assert_eq!((reservoir.offered(), reservoir.left_out()), (200, 192));
            reservoir.kept().iter().for_each(|&i| times[i] += 1);
        }
        // 5,000 runs of 8 in 200: 200 each. Chi-square with 199 degrees: mean 199, deviation 20. A draw
        // without replacement lies below, by 192/200.
        let square: f64 = times.iter().map(|&n| (f64::from(n) - 200.0).powi(2) / 200.0).sum();
        assert!((110.0..280.0).contains(&square), "{square}");
    }

    #[test]
    fn a_reservoir_that_is_not_full_keeps_all_and_one_without_room_none() {
        let mut few = Reservoir::new(8, 1);
        (0..5).for_each(|i| few.offer(|| i));
        assert_eq!((few.kept(), few.left_out()), (&[0, 1, 2, 3, 4][..], 0));
        few.clear();
        (0..100_000).for_each(|i| few.offer(|| i));
        assert_eq!((few.kept().len(), few.left_out()), (8, 99_992));
        let mut none = Reservoir::new(0, 1);
        (0..5).for_each(|i| none.offer(|| i));
        assert_eq!((none.kept().len(), none.left_out()), (0, 5));
        let mut none = TopSlow::new(0);
        none.offer(9, || 1);
        assert!(none.kept().is_empty() && !none.wants(u64::MAX));
    }

    #[test]
    fn the_slowest_are_kept() {
        let mut top = TopSlow::new(4);
        let values: Vec<u64> = (0..1_000u64).map(|i| i.wrapping_mul(7_919) % 1_009).collect();
        values.iter().enumerate().for_each(|(i, &ns)| top.offer(ns, || i));
        let mut kept: Vec<u64> = top.kept().iter().map(|(ns, _)| *ns).collect();
        kept.sort_unstable();
        let mut sorted = values;
        sorted.sort_unstable();
        assert_eq!(kept, sorted[996..]);
        top.clear();
        (0..9).for_each(|i| top.offer(5, || i));
        let mut first: Vec<usize> = top.kept().iter().map(|(_, i)| *i).collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3], "of equal ones the earlier");
    }
}
