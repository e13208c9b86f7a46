//! One buffer that grows for ever: a realloc chain has no survivors to count, it is one object.
//!
//! A buffer that is filled steadily and grows by a factor `g` was reallocated last within the later half of
//! its life, whenever it is looked at (`g <= 2`), and held `size / g` bytes then: its filling rate is
//! `size / g` over the age it had. One that grew once and stayed has its last growth ever further behind.
//! `g` is inferred from the number of reallocations since a first block of about [`FIRST_BYTES`].

use super::cohort::HOUR_NS;
use super::{Growth, Interval, LeakConfig};
use crate::record::heap::Sample;

/// Reallocations below which a buffer is not said to grow for ever.
const GROWN_MIN: u32 = 6;
/// The last growth lies within this share of the age; a half and the slack of one early or late doubling.
const RECENT: f64 = 0.55;
/// Usual size of a first block: 4 elements of 4 to 16 bytes.
const FIRST_BYTES: f64 = 32.0;
/// Relative uncertainty of the rate by the inferred factor.
const FACTOR_SLACK: f64 = 0.2;

/// Buffers of a site that still grow.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chains {
    pub(super) rate: Interval,
    pub(super) growth: Growth,
    /// Birth of the oldest, ns.
    pub(super) first_ns: u64,
    /// Owner of each, and its rate, bytes/h.
    pub(super) owners: Vec<(u32, f64)>,
}

/// Whether an object is a buffer that still grows.
pub(super) fn grows(sample: &Sample, now_ns: u64, config: &LeakConfig) -> bool {
    let age = now_ns.saturating_sub(sample.born_ns);
    let idle = now_ns.saturating_sub(sample.grown_ns);
    sample.grown >= GROWN_MIN
        && age >= config.horizon_ns.saturating_mul(2).max(1)
        && sample.grown_ns > sample.born_ns
        && idle as f64 <= RECENT * age as f64
}

/// The growing buffers among `alive`.
pub(super) fn chains(alive: &[&Sample], now_ns: u64, config: &LeakConfig) -> Option<Chains> {
    let growing: Vec<&&Sample> = alive.iter().filter(|s| grows(s, now_ns, config)).collect();
    let owners: Vec<(u32, f64)> = growing.iter().map(|s| (s.owner, filling(s))).collect();
    let estimate: f64 = owners.iter().map(|o| o.1).sum();
    let doublings = growing.iter().map(|s| s.grown).max()?;
    Some(Chains {
        rate: Interval {
            estimate,
            low: estimate * (1.0 - FACTOR_SLACK),
            high: estimate * (1.0 + FACTOR_SLACK),
        },
        growth: Growth::Chains {
            chains: u32::try_from(growing.len()).unwrap_or(u32::MAX),
            doublings,
        },
        first_ns: growing.iter().map(|s| s.born_ns).min().unwrap_or(0),
        owners,
    })
}

/// Filling rate, bytes/h, times what the sample stands for.
fn filling(sample: &Sample) -> f64 {
    let size = sample.size.max(1) as f64;
    let factor = (size / FIRST_BYTES).max(1.0).powf(1.0 / f64::from(sample.grown.max(1)));
    let hours = (sample.grown_ns - sample.born_ns) as f64 / HOUR_NS;
    sample.weight / factor.clamp(1.0, 2.0) / hours
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: u64 = 3_600_000_000_000;

    /// A Vec filled at `rate` bytes/h since `born`, looked at now.
    fn vec_at(rate: f64, born_ns: u64, until_ns: u64) -> Sample {
        let (mut size, mut grown, mut grown_ns) = (32u64, 0, born_ns);
        loop {
            let full_ns = born_ns + super::super::judge::at_ns(size as f64 / rate * HOUR_NS);
            if full_ns > until_ns {
                break;
            }
            (size, grown, grown_ns) = (size * 2, grown + 1, full_ns);
        }
        Sample { size, weight: size as f64, born_ns, grown, grown_ns, ..Sample::default() }
    }

    #[test]
    fn a_vec_that_fills_is_seen_whenever_it_is_looked_at() {
        let config = LeakConfig::default();
        for minutes in 90..400 {
            let now = minutes * H / 60;
            let vec = vec_at(2e6, 10 * H / 60, now);
            let found = chains(&[&vec], now, &config).unwrap();
            assert!(found.rate.low < 2e6 && 2e6 < found.rate.high, "{found:?} at {minutes} min");
        }
    }

    #[test]
    fn a_vec_that_was_filled_once_is_not() {
        let config = LeakConfig::default();
        let vec = vec_at(60e6, 0, H / 3);
        assert!(vec.size > 16_000_000);
        for minutes in 60..400 {
            assert_eq!(chains(&[&vec], minutes * H / 60, &config), None);
        }
    }
}
