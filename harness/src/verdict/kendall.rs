//! Mann and Kendall's test: does a series rise or fall, whatever the shape of its noise?
//!
//! Exact for ten values or fewer without ties (the number of permutations with as many inversions). For more
//! the normal approximation with the variance for ties, times Hamed and Rao's factor (1998) for the
//! correlation of the ranks that remains once the trend is taken off. Over blocks, not over raw windows: the
//! factor alone leaves 37 % false alarms at a correlation of 0.9 (statistics.md C6).

use super::student::two_sided;

/// Values up to which the distribution is counted out.
const EXACT_MAX: usize = 10;

/// What the test says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kendall {
    /// Concordant less discordant pairs.
    pub s: i64,
    /// The same over all pairs, -1 to 1.
    pub tau: f64,
    /// Probability of an `s` as far from 0 under no trend.
    pub p: f64,
}

/// The test over `values` in their order; `None` below four, which can say nothing. O(n^2).
#[must_use]
pub fn mann_kendall(values: &[f64]) -> Option<Kendall> {
    let n = values.len();
    if n < 4 {
        return None;
    }
    let mut s = 0i64;
    for (i, a) in values.iter().enumerate() {
        s += values[i + 1..].iter().map(|b| sign(b - a)).sum::<i64>();
    }
    let pairs = (n * (n - 1) / 2) as f64;
    let ties = tie_groups(values);
    let p = if n <= EXACT_MAX && ties.is_empty() { exact(n, s) } else { normal(values, s, &ties) };
    Some(Kendall { s, tau: s as f64 / pairs, p })
}

fn sign(difference: f64) -> i64 {
    i64::from(difference > 0.0) - i64::from(difference < 0.0)
}

/// Sizes of groups of equal values, of two and more.
fn tie_groups(values: &[f64]) -> Vec<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.chunk_by(|a, b| a == b).map(<[f64]>::len).filter(|&len| len > 1).collect()
}

/// Share of permutations with `|S|` at least as large: counts by inversions, one element after the other.
fn exact(n: usize, s: i64) -> f64 {
    let mut counts = vec![1u64];
    for element in 1..n {
        let mut next = vec![0u64; counts.len() + element];
        for (inversions, count) in counts.iter().enumerate() {
            next[inversions..=inversions + element].iter_mut().for_each(|slot| *slot += count);
        }
        counts = next;
    }
    let pairs = counts.len() as i64 - 1;
    let far = counts.iter().enumerate().filter(|(i, _)| (pairs - 2 * *i as i64).abs() >= s.abs());
    far.map(|(_, count)| *count as f64).sum::<f64>() / counts.iter().sum::<u64>() as f64
}

fn normal(values: &[f64], s: i64, ties: &[usize]) -> f64 {
    let n = values.len() as f64;
    let term = |t: f64| t * (t - 1.0) * 2.0f64.mul_add(t, 5.0);
    let tied: f64 = ties.iter().map(|&t| term(t as f64)).sum();
    let variance = (term(n) - tied) / 18.0 * hamed_rao(values);
    if variance <= 0.0 {
        return 1.0;
    }
    // Continuity: S moves in steps of two.
    let z = (s.unsigned_abs() as f64 - 1.0).max(0.0) / variance.sqrt();
    two_sided(z)
}

/// `1 + 2 / (n (n-1) (n-2)) sum (n-k) (n-k-1) (n-k-2) r_k` over the significant correlations of the detrended
/// ranks up to a quarter of the length; never below 1, so that it makes nothing more certain.
fn hamed_rao(values: &[f64]) -> f64 {
    let n = values.len();
    let ranks = ranks(&detrended(values));
    let mean = (n as f64 + 1.0) / 2.0;
    let squares: f64 = ranks.iter().map(|r| (r - mean).powi(2)).sum();
    if squares <= 0.0 {
        return 1.0;
    }
    let length = n as f64;
    let mut sum = 0.0;
    for lag in 1..n / 4 {
        let products = ranks.iter().zip(&ranks[lag..]).map(|(a, b)| (a - mean) * (b - mean));
        let r = products.sum::<f64>() / squares;
        if r.abs() > 1.96 / length.sqrt() {
            let left = length - lag as f64;
            sum += left * (left - 1.0) * (left - 2.0) * r;
        }
    }
    (1.0 + 2.0 / (length * (length - 1.0) * (length - 2.0)) * sum).max(1.0)
}

/// Less the least-squares line.
pub(crate) fn detrended(values: &[f64]) -> Vec<f64> {
    let n = values.len() as f64;
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let at = |i: usize| i as f64 - mean_x;
    let sxx: f64 = (0..values.len()).map(|i| at(i).powi(2)).sum();
    let sxy: f64 = values.iter().enumerate().map(|(i, y)| at(i) * (y - mean_y)).sum();
    let slope = if sxx > 0.0 { sxy / sxx } else { 0.0 };
    values.iter().enumerate().map(|(i, y)| y - mean_y - slope * at(i)).collect()
}

/// Ranks from 1; equal values share their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let equal = |&&i: &&usize| values[i].total_cmp(&values[order[from]]).is_eq();
        let to = from + order[from..].iter().take_while(equal).count();
        for &i in &order[from..to] {
            ranks[i] = (from + to + 1) as f64 / 2.0;
        }
        from = to;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_series_are_counted_out() {
        let rising = mann_kendall(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!((rising.s, rising.tau), (15, 1.0));
        // Two of 720 orders are as far from chance.
        assert!((rising.p - 2.0 / 720.0).abs() < 1e-12);
        let one_swap = mann_kendall(&[2.0, 1.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert!((one_swap.p - 12.0 / 720.0).abs() < 1e-12, "{one_swap:?}");
        let level = mann_kendall(&[2.0, 4.0, 1.0, 3.0]).unwrap();
        assert_eq!((level.s, level.p), (0, 1.0));
        assert_eq!(mann_kendall(&[1.0, 2.0, 3.0]), None);
    }

    #[test]
    fn ties_and_constants_say_nothing() {
        let constant = mann_kendall(&[5.0; 40]).unwrap();
        assert_eq!((constant.s, constant.p), (0, 1.0));
        assert_eq!(ranks(&[3.0, 1.0, 3.0]), [2.5, 1.0, 2.5]);
        let slow: Vec<f64> = (0..40).map(|i| f64::from(i / 4)).collect();
        assert!(mann_kendall(&slow).unwrap().p < 1e-6);
    }
}
