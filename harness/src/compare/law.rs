//! Whether a sleep-poll waits as its interval says, from a run's histogram.
//!
//! With interval `T` and arrivals that know nothing of the looks, a message waits U(0, T) for the look that finds
//! it; a request whose answer is looked for too waits twice, and its sum is the triangle on (0, 2 T). What the
//! system takes besides is the `slack`, measured as the 99th percentile of the same workload when an append wakes
//! the receiver. Then `F(x - slack) - 1 % <= measured(x) <= F(x)` in the long run, so the Kolmogorov-Smirnov
//! distance to `F` is at most `slack x density + 1 %`, and in a sample of n by chance 1.6276 / sqrt(n) more (1 %
//! point, Smirnov 1948). The density is 1 / T for both.

use serde::{Deserialize, Serialize};
use tailbeam_probes::stats::Histogram;

/// Fewest values that are judged.
pub const N_MIN: u64 = 1_000;
/// Places at which the distributions are compared.
const PLACES: u32 = 1_000;
const D_ONE_PERCENT: f64 = 1.627_6;
/// The slack may be this part of the interval.
const SLACK_PART: u64 = 5;
/// What lies above the 99th percentile of the slack, and what a bucket of the histogram rounds.
const TAIL: f64 = 0.01 + 0.001;

/// What the histogram says of the law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LawCheck {
    /// Values.
    pub n: u64,
    /// Interval, ns.
    pub interval_ns: u64,
    /// How often a request waits for a look.
    pub looks: u32,
    /// What the system may take besides, ns.
    pub slack_ns: u64,
    /// Largest distance between the distributions.
    pub distance: f64,
    /// The distance up to which the law holds.
    pub bound: f64,
    /// Mean, ns; the law says `looks x T / 2` and up to the slack more.
    pub mean_ns: f64,
    /// What the law says of it, ns.
    pub law_mean_ns: f64,
    /// 99th percentile, ns.
    pub p99_ns: u64,
    /// What the law says of it, ns: 0.99 T, or 1.859 T for two looks.
    pub law_p99_ns: f64,
    /// Whether the law holds.
    pub holds: bool,
}

/// The distribution of `looks` (1 or 2) uniform waits together at `x` intervals.
fn distribution(x: f64, looks: u32) -> f64 {
    match looks {
        0 | 1 => x.clamp(0.0, 1.0),
        _ if x <= 1.0 => x.max(0.0).powi(2) / 2.0,
        _ => 1.0 - (2.0 - x).max(0.0).powi(2) / 2.0,
    }
}

/// The 99th percentile of the law, in intervals.
fn law_p99(looks: u32) -> f64 {
    if looks < 2 { 0.99 } else { 2.0 - 0.02f64.sqrt() }
}

/// Checks `waits` against `looks` looks every `interval_ns`. `None` below 1,000 values, and with a slack above a
/// fifth of the interval: nothing can be said.
#[must_use]
pub fn check(waits: &Histogram, interval_ns: u64, looks: u32, slack_ns: u64) -> Option<LawCheck> {
    let n = waits.count();
    let p99_ns = waits.quantile(0.99)?;
    // A slack above a fifth of the interval allows what is no sleep-poll: such a check could not fail.
    if n < N_MIN || interval_ns == 0 || slack_ns > interval_ns / SLACK_PART {
        return None;
    }
    let (count, interval) = (n as f64, interval_ns as f64);
    let reach = f64::from(looks.max(1)) * interval + slack_ns as f64;
    let distance = (0..=PLACES).fold(0.0f64, |worst, place| {
        let at = reach * f64::from(place) / f64::from(PLACES);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to hours")]
        let below = 1.0 - waits.count_above(at as u64) as f64 / count;
        worst.max((below - distribution(at / interval, looks)).abs())
    });
    let bound = D_ONE_PERCENT / count.sqrt() + slack_ns as f64 / interval + TAIL;
    Some(LawCheck {
        n,
        interval_ns,
        looks,
        slack_ns,
        distance,
        bound,
        mean_ns: waits.mean()?,
        law_mean_ns: f64::from(looks.max(1)) * interval / 2.0,
        p99_ns,
        law_p99_ns: law_p99(looks) * interval,
        holds: distance <= bound,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Draw, Stream};

    const T: u64 = 100_000_000;

    fn waits(seed: u64, n: u64, wait: impl Fn(f64, f64) -> f64) -> Histogram {
        let draw = Draw::new(seed, 1);
        let mut histogram = Histogram::new();
        for k in 0..n {
            let (a, b) = (draw.unit(k, Stream::Think), draw.unit(k, Stream::Delay));
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive"
            )]
            histogram.record((wait(a, b) * T as f64) as u64);
        }
        histogram
    }

    #[test]
    fn sleep_polls_hold_it() {
        for seed in 0..100 {
            let once = check(&waits(seed, 5_000, |a, _| a), T, 1, 0).unwrap();
            assert!(once.holds, "{once:?}");
            let twice = check(&waits(seed, 5_000, |a, b| a + b), T, 2, 0).unwrap();
            assert!(twice.holds, "{twice:?}");
            let served = check(&waits(seed, 5_000, |a, b| a + 0.02 * b), T, 1, T / 50).unwrap();
            assert!(served.holds, "{served:?}");
        }
        let seen = check(&waits(1, 50_000, |a, _| a), T, 1, 0).unwrap();
        assert!((seen.mean_ns / seen.law_mean_ns - 1.0).abs() < 0.01, "{seen:?}");
        assert!((seen.p99_ns as f64 / seen.law_p99_ns - 1.0).abs() < 0.01, "{seen:?}");
        let two = check(&waits(1, 50_000, |a, b| a + b), T, 2, 0).unwrap();
        assert!((two.p99_ns as f64 / two.law_p99_ns - 1.0).abs() < 0.01, "{two:?}");
    }

    #[test]
    fn what_is_none_breaks_it() {
        type Wait = fn(f64, f64) -> f64;
        let planted: [(&str, Wait, u32); 5] = [
            ("an interval of 0.9 T", |a, _| 0.9 * a, 1),
            ("an interval of 1.1 T", |a, _| 1.1 * a, 1),
            ("a long-poll", |a, _| 0.001 * a, 1),
            ("two looks where one is said", |a, b| a + b, 1),
            ("one look where two are said", |a, _| a, 2),
        ];
        for (what, wait, looks) in planted {
            for seed in 0..20 {
                let seen = check(&waits(seed, 5_000, wait), T, looks, T / 100).unwrap();
                assert!(!seen.holds, "{what}: {seen:?}");
            }
        }
        assert!(check(&waits(1, 999, |a, _| a), T, 1, 0).is_none());
        assert!(check(&waits(1, 5_000, |a, _| a), 0, 1, 0).is_none());
        assert!(check(&waits(1, 5_000, |a, _| a), T, 1, T / 4).is_none());
    }
}
