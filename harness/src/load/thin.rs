//! Which of many late requests have their polls counted: each costs two readings of the thread's counters, about 2 us,
//! and of a million requests a second ten thousand are late.

/// Counted in a window before they are thinned out by half, again and again.
const COUNTED: u32 = 256;

/// Takes each, or each how-many-th. It begins a window as the one before has ended, so that its beginning is not
/// taken more of than its end.
#[derive(Debug, Clone)]
pub(crate) struct Thin {
    every: u32,
    left: u32,
    counted: u32,
}

impl Default for Thin {
    fn default() -> Self {
        Self { every: 1, left: 1, counted: 0 }
    }
}

impl Thin {
    /// Whether this one is taken.
    #[inline]
    pub(crate) const fn takes(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.counted += 1;
        if self.counted.is_multiple_of(COUNTED) {
            self.every = self.every.saturating_mul(2);
        }
        self.left = self.every;
        true
    }

    /// A window ends.
    pub(crate) const fn restart(&mut self) {
        if self.counted < COUNTED / 2 && self.every > 1 {
            self.every /= 2;
        }
        self.counted = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(thin: &mut Thin, late: u32) -> u32 {
        let taken = (0..late).filter(|_| thin.takes()).count();
        thin.restart();
        u32::try_from(taken).expect("few")
    }

    #[test]
    fn few_are_all_taken_and_of_many_as_many_as_are_needed() {
        let mut thin = Thin::default();
        assert_eq!(window(&mut thin, 100), 100);
        let taken: Vec<u32> = (0..6).map(|_| window(&mut thin, 100_000)).collect();
        assert!(taken.iter().all(|taken| (120..2_600).contains(taken)), "{taken:?}");
        assert!(taken[3..].iter().all(|&taken| taken < 2 * COUNTED), "it has settled: {taken:?}");
        // And all again when they are few again.
        let taken: Vec<u32> = (0..16).map(|_| window(&mut thin, 100)).collect();
        assert_eq!(taken.last(), Some(&100), "{taken:?}");
    }

    #[test]
    fn the_end_of_a_window_is_taken_of_as_its_beginning() {
        let mut thin = Thin::default();
        assert!((0..8).all(|_| window(&mut thin, 100_000) > 0));
        let mut half = || (0..50_000).filter(|_| thin.takes()).count() as f64;
        let (first, last) = (half(), half());
        assert!((0.4..2.5).contains(&(first / last)), "{first} against {last}");
    }
}
