//! Does a series grow? A slope with an interval that knows that neighbours resemble each other.
//!
//! Theil and Sen's median of pairwise slopes over medians of blocks, which steps and spikes do not bend;
//! the interval is that of the least-squares slope with Newey and West's variance and Student's t.
//! Blocks are lengthened while their residuals are correlated. Where they stay so, the series wanders
//! like a random walk and no slope of it means anything: that is said, not hidden.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Most blocks, and fewest that give an interval.
const BLOCKS: (usize, usize) = (72, 8);
/// Lag-1 correlation of residuals above which blocks are lengthened.
const LAG1_MAX: f64 = 0.3;
/// Above this at the fewest blocks, the series wanders.
const WANDERS: f64 = 0.6;

/// A slope, per unit of `x`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// The estimate.
    pub slope: f64,
    /// Lower 95 % bound, two-sided.
    pub low: f64,
    /// Upper 95 % bound.
    pub high: f64,
    /// Blocks.
    pub blocks: usize,
    /// Lag-1 correlation of the blocks' residuals.
    pub lag1: f64,
    /// Residuals look like a random walk: the interval is not to be trusted.
    pub wanders: bool,
}

/// The trend of `(x, y)` in order of `x`; `None` below eight points. O(n log n).
#[must_use]
pub fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    let mut blocks = BLOCKS.0.min(points.len());
    let mut found = over_blocks(points, blocks)?;
    while found.lag1 > LAG1_MAX && blocks * 2 / 3 >= BLOCKS.1 {
        blocks = blocks * 2 / 3;
        found = over_blocks(points, blocks)?;
    }
    found.wanders = found.lag1 > WANDERS;
    Some(found)
}

fn over_blocks(points: &[(f64, f64)], count: usize) -> Option<Trend> {
    if count < BLOCKS.1 {
        return None;
    }
    let medians: Vec<(f64, f64)> = (0..count)
        .map(|b| &points[b * points.len() / count..(b + 1) * points.len() / count])
        .filter(|block| !block.is_empty())
        .map(|block| (median(block.iter().map(|p| p.0)), median(block.iter().map(|p| p.1))))
        .collect();
    let n = medians.len() as f64;
    let mean = |part: fn(&(f64, f64)) -> f64| medians.iter().map(part).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|p| p.0), mean(|p| p.1));
    let sxx: f64 = medians.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    if sxx <= 0.0 {
        return None;
    }
    let least: f64 = medians.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / sxx;
    let residuals: Vec<f64> =
        medians.iter().map(|p| p.1 - mean_y - least * (p.0 - mean_x)).collect();
    let moments: Vec<f64> =
        medians.iter().zip(&residuals).map(|(p, e)| (p.0 - mean_x) * e).collect();
    let half = half_width(&moments, sxx)?;
    let slope = theil_sen(&medians);
    let squares: f64 = residuals.iter().map(|e| e * e).sum();
    let products: f64 = residuals.windows(2).map(|w| w[0] * w[1]).sum();
    let lag1 = if squares > 0.0 { products / squares } else { 0.0 };
    let (low, high) = (slope - half, slope + half);
    Some(Trend { slope, low, high, blocks: medians.len(), lag1, wanders: false })
}

/// Newey and West with Bartlett weights over `4 (n / 100)^(2/9)` lags, times n / (n - 2).
fn half_width(moments: &[f64], sxx: f64) -> Option<f64> {
    let n = moments.len();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most four")]
    let lags = (4.0 * (n as f64 / 100.0).powf(2.0 / 9.0)) as usize;
    let product = |lag: usize| moments.iter().zip(&moments[lag..]).map(|(a, b)| a * b).sum::<f64>();
    let meat = product(0)
        + (1..=lags)
            .map(|lag| 2.0 * (1.0 - lag as f64 / (lags as f64 + 1.0)) * product(lag))
            .sum::<f64>();
    let degrees = n as f64 - 2.0;
    let variance = meat.max(product(0) * 0.5) * n as f64 / degrees / (sxx * sxx);
    let t = StudentsT::new(0.0, 1.0, degrees).ok()?.inverse_cdf(0.975);
    Some(t * variance.sqrt())
}

fn theil_sen(points: &[(f64, f64)]) -> f64 {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (i, a) in points.iter().enumerate() {
        for b in &points[i + 1..] {
            if b.0 > a.0 {
                slopes.push((b.1 - a.1) / (b.0 - a.0));
            }
        }
    }
    median(slopes.into_iter())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64* with Box and Muller's normal.
    struct Rng(u64);
    impl Rng {
        fn unit(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }
        fn normal(&mut self) -> f64 {
            (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
        }
    }

    fn series(rng: &mut Rng, phi: f64, slope: f64) -> Vec<(f64, f64)> {
        let mut noise = rng.normal() / (1.0 - phi * phi).sqrt();
        (0..480)
            .map(|minute| {
                noise = phi * noise + rng.normal();
                let hours = f64::from(minute) / 60.0;
                (hours, slope * hours + noise)
            })
            .collect()
    }

    #[test]
    fn the_interval_covers_the_slope_of_correlated_noise() {
        let mut rng = Rng(7);
        for phi in [0.0, 0.6, 0.9] {
            let covered = (0..300)
                .filter(|_| {
                    let found = trend(&series(&mut rng, phi, 0.5)).unwrap();
                    found.low < 0.5 && 0.5 < found.high
                })
                .count();
            assert!(covered >= 267, "{covered} of 300 at {phi}");
        }
    }

    #[test]
    fn a_random_walk_is_called_one() {
        let mut rng = Rng(8);
        let walks = (0..100)
            .filter(|_| {
                let mut at = 0.0;
                let walk: Vec<(f64, f64)> = (0..480)
                    .map(|minute| {
                        at += rng.normal();
                        (f64::from(minute) / 60.0, at)
                    })
                    .collect();
                let found = trend(&walk).unwrap();
                found.wanders || found.low < 0.0 && found.high > 0.0
            })
            .count();
        assert!(walks >= 60, "{walks} of 100");
        assert_eq!(trend(&[(0.0, 1.0); 7]), None);
    }

    #[test]
    fn a_spike_does_not_bend_it() {
        let mut points: Vec<(f64, f64)> =
            (0..480).map(|m| (f64::from(m) / 60.0, f64::from(m % 7))).collect();
        points[470].1 = 1e6;
        assert!(trend(&points).unwrap().slope.abs() < 0.1);
    }
}
