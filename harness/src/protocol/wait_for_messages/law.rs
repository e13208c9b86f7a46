//! The law of a sleep-poll: with interval `T` and arrivals that know nothing of the looks, a message waits
//! U(0, T) for its look. Whatever is measured above that is the system's; a baseline whose waits do not
//! follow it does something else than it says.
//!
//! The waits are compared with the uniform distribution by the Kolmogorov-Smirnov distance, whose quantile
//! at 1 % for large N is 1.6276 / sqrt(N) (Smirnov 1948; N >= 40 here). A look takes time itself: `slack`
//! is what a wait may be longer than the law says, and it is measured (the long-poll's wait), not chosen.

/// Fewest waits that are judged: below this the test finds nothing.
pub const N_MIN: usize = 40;

/// Quantile of sqrt(N) times the distance at 1 %.
const D_ONE_PERCENT: f64 = 1.627_6;

/// What the waits say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LawCheck {
    /// Waits.
    pub n: usize,
    /// Largest distance between the two distributions, 0 to 1.
    pub distance: f64,
    /// The distance that waits under the law exceed in 1 % of all checks, slack included.
    pub bound: f64,
    /// Mean wait, ns; the law says T / 2.
    pub mean_ns: f64,
    /// 99th percentile, ns; the law says 0.99 T.
    pub p99_ns: u64,
    /// Longest wait, ns; the law says at most T.
    pub longest_ns: u64,
    /// Whether the law holds.
    pub holds: bool,
}

/// Too few waits to say anything: the law is neither shown nor refuted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{n} waits: the law is judged from {N_MIN} on")]
pub struct TooFew {
    /// Waits.
    pub n: usize,
}

/// Judges waits (from the append to the look that found it, ns) against U(0, `interval_ns`), up to
/// `slack_ns` later. Sorts `waits`.
///
/// # Errors
/// [`TooFew`].
pub fn check(waits: &mut [u64], interval_ns: u64, slack_ns: u64) -> Result<LawCheck, TooFew> {
    let n = waits.len();
    if n < N_MIN || interval_ns == 0 {
        return Err(TooFew { n });
    }
    waits.sort_unstable();
    let (count, interval) = (n as f64, interval_ns as f64);
    let distance = waits.iter().enumerate().fold(0.0_f64, |worst, (i, &wait)| {
        let law = (wait as f64 / interval).min(1.0);
        worst.max((law - i as f64 / count).abs()).max(((i + 1) as f64 / count - law).abs())
    });
    // A shift by the slack moves the uniform distribution by slack / T everywhere.
    let slack = slack_ns as f64 / interval;
    let bound = D_ONE_PERCENT / count.sqrt() + slack;
    let longest_ns = waits[n - 1];
    Ok(LawCheck {
        n,
        distance,
        bound,
        mean_ns: waits.iter().map(|&wait| wait as f64).sum::<f64>() / count,
        p99_ns: waits[(n * 99).div_ceil(100) - 1],
        longest_ns,
        holds: distance <= bound && longest_ns <= interval_ns.saturating_add(slack_ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Draw, Stream};

    const T: u64 = 1_000_000_000;

    /// Waits of Poisson arrivals (mean gap 0.3 T) whose receiver looks every `T`, changed by `warp`.
    fn waits(seed: u64, n: u64, warp: impl Fn(u64, u64) -> u64) -> Vec<u64> {
        let draw = Draw::new(seed, 0);
        let mut at = 0.0;
        (0..n)
            .map(|k| {
                at += -(1.0 - draw.unit(k, Stream::Think)).ln() * 0.3 * T as f64;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, below 2^53"
                )]
                let arrival = at as u64;
                warp(k, (arrival / T + 1) * T - arrival)
            })
            .collect()
    }

    #[test]
    fn sleep_polls_follow_it_in_99_of_100_runs() {
        let broken = (0..400)
            .filter(|&seed| !check(&mut waits(seed, 1_000, |_, wait| wait), T, 0).unwrap().holds)
            .count();
        // Binomial(400, 0.01): 12 or more with probability 0.0004. Neighbours share a look: a little less varied.
        assert!(broken <= 11, "{broken} of 400");
        let seen = check(&mut waits(1, 10_000, |_, wait| wait), T, 0).unwrap();
        assert!((seen.mean_ns / T as f64 - 0.5).abs() < 0.02, "{seen:?}");
        assert!(seen.p99_ns.abs_diff(T / 100 * 99) < T / 100, "{seen:?}");
    }

    type Warp = fn(u64, u64) -> u64;

    #[test]
    fn what_is_no_sleep_poll_is_found() {
        let warps: [(&str, Warp); 5] = [
            ("an interval of 0.8 T", |_, wait| wait * 8 / 10),
            ("an interval of 1.2 T", |_, wait| wait * 12 / 10),
            ("a long-poll", |_, _| 50_000),
            ("arrivals that wait for the look", |_, wait| T / 2 + wait / 2),
            ("one message in 1,000 left for a second look", |k, wait| {
                wait + if k == 500 { T } else { 0 }
            }),
        ];
        for (what, warp) in warps {
            let missed = (0..100)
                .filter(|&seed| check(&mut waits(seed, 1_000, warp), T, 0).unwrap().holds)
                .count();
            assert_eq!(missed, 0, "{what}");
        }
    }

    #[test]
    fn slack_is_allowed_and_too_few_say_nothing() {
        let late = |_: u64, wait: u64| wait + T / 10;
        assert!(!check(&mut waits(3, 5_000, late), T, 0).unwrap().holds);
        assert!(check(&mut waits(3, 5_000, late), T, T / 10).unwrap().holds);
        assert_eq!(check(&mut [1; 39], T, 0), Err(TooFew { n: 39 }));
        assert!(check(&mut [], 0, 0).is_err());
    }
}
