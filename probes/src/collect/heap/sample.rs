//! Poisson sampling by bytes: draws, chances and weights, as pure functions.
//!
//! Sample points lie on the axis of allocated bytes, exponentially apart. An object of `size` bytes
//! takes `size + 1` units of the axis, so that an empty object can be met too, and is sampled when a
//! point falls into it: with the chance `1 - exp(-(size + 1) / mean)`.

use std::cell::Cell;

pub use crate::record::heap::{LARGE, chance, weight};

/// A distance to the next sample point, and the mean it was drawn with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Units that pass unsampled; the object that takes the sum above it is sampled.
    pub left: i64,
    /// Mean of the distribution, bytes.
    pub mean: f32,
}

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, any seed, passes BigCrush.
pub(super) fn random(state: &Cell<u64>) -> u64 {
    let next = state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    state.set(next);
    mix(next)
}

/// The finaliser of SplitMix64: a bijection that spreads every bit.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A fresh distance. Rounding down is exact: for whole units, `floor(D) < n` just when `D < n`.
pub(super) fn draw(state: &Cell<u64>, mean: f32) -> Draw {
    // 53 random bits give a uniform number in (0, 1], whose logarithm is finite.
    let uniform = ((random(state) >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64);
    let distance = -uniform.ln() * f64::from(mean);
    #[expect(clippy::cast_possible_truncation, reason = "at most 37 means, far below 2^63")]
    let left = distance as i64;
    Draw { left, mean }
}

/// What becomes of a sampled object when the mean rises: `None` when it is dropped, else its new tag.
/// `tag` is uniform in 0..2^32 for a sampled object, and again for one that stays.
pub(super) fn thin(extent: u64, mean: f32, raised: f32, tag: u32) -> Option<u32> {
    let keep = chance(extent, raised) / chance(extent, mean);
    let scaled = f64::from(tag) / keep;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: < 2^32")]
    (scaled < 4_294_967_296.0).then_some(scaled as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_to_meet_a_point_is_what_the_weight_assumes() {
        let state = Cell::new(7);
        for size in [0u64, 100, 5_000, 100_000] {
            let mean = 10_000.0;
            let hits = (0..200_000)
                .filter(|_| draw(&state, mean).left < i64::try_from(size + 1).unwrap())
                .count() as f64;
            let expected = chance(size, mean) * 200_000.0;
            let sigma = (expected * (1.0 - chance(size, mean))).sqrt().max(1.0);
            assert!((hits - expected).abs() < 4.0 * sigma, "{size}: {hits} against {expected}");
        }
        assert_eq!(chance(2 << 20, 65_536.0), 1.0);
        assert!(chance(2 << 20, 1e9) < 0.01, "a mean above a large object samples it too");
    }

    #[test]
    fn thinning_keeps_the_share_that_the_raised_mean_gives() {
        let state = Cell::new(9);
        let (extent, mean, raised) = (8_000, 16_384.0, 65_536.0);
        let kept = (0..100_000u32)
            .filter_map(|_| thin(extent, mean, raised, (random(&state) >> 32) as u32))
            .collect::<Vec<_>>();
        let share = chance(extent, raised) / chance(extent, mean);
        assert!((kept.len() as f64 / 1e5 - share).abs() < 0.006, "{}", kept.len());
        let middle = kept.iter().filter(|&&tag| tag < 1 << 31).count() as f64 / kept.len() as f64;
        assert!((middle - 0.5).abs() < 0.02, "tags stay uniform: {middle}");
    }
}
