//! Does a series grow? A slope with an interval that knows that neighbours resemble each other.
//!
//! Theil and Sen's median of pairwise slopes over medians of blocks, which steps and spikes do not bend.
//! The interval is that of the least-squares slope, widened by `(1 + phi) / (1 - phi)` for the residuals'
//! lag-1 correlation (corrected for its bias in short series, Kendall 1954) with as many degrees of freedom
//! as independent blocks remain. Where Kwiatkowski, Phillips, Schmidt and Shin's test rejects residuals that
//! stay around the line, the series wanders: the interval is then that of a random walk with the increments
//! seen, whose error falls only as the root of the time, and [`Trend::wanders`] says so.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Most blocks, and fewest that give an interval.
const BLOCKS: (usize, usize) = (48, 8);
/// 5 % point of the KPSS statistic around a trend.
const KPSS_5: f64 = 0.146;
/// Correlation above which no more is corrected for.
const PHI_MAX: f64 = 0.9;

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
    /// Residuals do not stay around the line; the interval is that of a random walk.
    pub wanders: bool,
}

/// The trend of `(x, y)` in order of `x`; `None` below eight points. O(n log n).
#[must_use]
pub fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    let count = BLOCKS.0.min(points.len());
    if count < BLOCKS.1 {
        return None;
    }
    let medians: Vec<(f64, f64)> = (0..count)
        .map(|b| &points[b * points.len() / count..(b + 1) * points.len() / count])
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
    let squares: f64 = residuals.iter().map(|e| e * e).sum();
    let products: f64 = residuals.windows(2).map(|w| w[0] * w[1]).sum();
    let lag1 = if squares > 0.0 { products / squares } else { 0.0 };
    let phi = (lag1 + (1.0 + 4.0 * lag1) / n).clamp(0.0, PHI_MAX);
    let inflation = (1.0 + phi) / (1.0 - phi);
    let degrees = (n / inflation - 2.0).max(3.0);
    let mut half = quantile(degrees)? * (squares / (n - 2.0) / sxx * inflation).sqrt();
    let wanders = kpss(&residuals) > KPSS_5;
    if wanders {
        half = half.max(quantile(n - 2.0)? * walk_error(&medians, least));
    }
    let slope = theil_sen(&medians);
    let (low, high) = (slope - half, slope + half);
    Some(Trend { slope, low, high, blocks: medians.len(), lag1, wanders })
}

fn quantile(degrees: f64) -> Option<f64> {
    Some(StudentsT::new(0.0, 1.0, degrees).ok()?.inverse_cdf(0.975))
}

/// Standard error of a least-squares slope through a random walk: `sqrt(6/5 n)` increments over the length.
fn walk_error(points: &[(f64, f64)], slope: f64) -> f64 {
    let steps = points.len() as f64 - 1.0;
    let variance: f64 = points
        .windows(2)
        .map(|w| (w[1].1 - w[0].1 - slope * (w[1].0 - w[0].0)).powi(2))
        .sum::<f64>()
        / steps;
    let length = points[points.len() - 1].0 - points[0].0;
    (1.2 * steps * variance).sqrt() / length
}

/// Sum of squared partial sums over `n^2` and the long-run variance (Bartlett, `2 (n / 100)^(1/4)` lags).
fn kpss(residuals: &[f64]) -> f64 {
    let n = residuals.len();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most one")]
    let lags = (2.0 * (n as f64 / 100.0).powf(0.25)) as usize;
    let product =
        |lag: usize| residuals.iter().zip(&residuals[lag..]).map(|(a, b)| a * b).sum::<f64>();
    let weight = |lag: usize| 2.0 * (1.0 - lag as f64 / (lags as f64 + 1.0));
    let long_run = product(0) + (1..=lags).map(|lag| weight(lag) * product(lag)).sum::<f64>();
    let mut partial = 0.0;
    let sums: f64 = residuals
        .iter()
        .map(|e| {
            partial += e;
            partial * partial
        })
        .sum();
    if long_run > 0.0 { sums / (n as f64 * long_run) } else { 0.0 }
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
        let (mut called, mut covered) = (0, 0);
        for _ in 0..300 {
            let mut at = 0.0;
            let walk: Vec<(f64, f64)> = (0..480)
                .map(|minute| {
                    at += rng.normal();
                    (f64::from(minute) / 60.0, at)
                })
                .collect();
            let found = trend(&walk).unwrap();
            called += usize::from(found.wanders);
            covered += usize::from(found.low < 0.0 && 0.0 < found.high);
        }
        assert!(called >= 150 && covered >= 255, "called {called}, covered {covered} of 300");
        let calm = (0..300).filter(|_| trend(&series(&mut rng, 0.6, 0.0)).unwrap().wanders).count();
        assert!(calm <= 30, "{calm} of 300 calm series");
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
