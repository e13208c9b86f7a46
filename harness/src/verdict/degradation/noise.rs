//! What the noise of a series is like: where it settles, and how long it remembers.

use super::median;

/// Values per batch of MSER-5.
const BATCH: usize = 5;
/// Largest part of a series that may be warm-up: a trend would otherwise be cut away as one.
const WARM_UP_PART: usize = 4;
/// Pieces that the memory is measured in.
const PIECES: usize = 8;

/// Windows to cut at the start: MSER-5 (White 1997), the cut that leaves the smallest standard error of the
/// mean of batches of five. At most a quarter of the series; a minimum that lies later is no warm-up but a
/// trend, and nothing is cut.
#[must_use]
pub fn warm_up(values: &[f64]) -> usize {
    let batches: Vec<f64> =
        values.chunks_exact(BATCH).map(|b| b.iter().sum::<f64>() / BATCH as f64).collect();
    let n = batches.len();
    if n < 4 * WARM_UP_PART {
        return 0;
    }
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    // From the end: each cut needs the sums of what follows it. Ten batches at least are left to compare.
    for cut in (0..n).rev() {
        sum += batches[cut];
        squares += batches[cut] * batches[cut];
        let left = (n - cut) as f64;
        let error = (squares - sum * sum / left).max(0.0) / (left * left);
        if n - cut >= 10 && error <= best.0 {
            best = (error, cut);
        }
    }
    if best.1 > n / WARM_UP_PART { 0 } else { best.1 * BATCH }
}

/// The integrated autocorrelation time in windows, at least 1: `1 + 2 sum r_k`, summed up to five times itself
/// (Sokal's window). The median of eight pieces, each less its own line, so that neither a trend nor a step
/// counts as memory; corrected for what a short piece hides (Kendall 1954).
#[must_use]
pub fn memory(values: &[f64]) -> f64 {
    let piece = values.len() / PIECES;
    if piece < 8 {
        return 1.0;
    }
    let times: Vec<f64> = values.chunks_exact(piece).map(piece_memory).collect();
    median(&times)
}

fn piece_memory(values: &[f64]) -> f64 {
    let rest = super::super::kendall::detrended(values);
    let n = rest.len();
    let squares: f64 = rest.iter().map(|e| e * e).sum();
    if squares <= 0.0 {
        return 1.0;
    }
    let mut time = 1.0;
    for lag in 1..n / 2 {
        let r = rest.iter().zip(&rest[lag..]).map(|(a, b)| a * b).sum::<f64>() / squares;
        // A correlation in n values with a line taken off is too low by about its time over n.
        time += 2.0 * (r + 2.0 * time / n as f64);
        if lag as f64 >= 5.0 * time || r <= 0.0 {
            break;
        }
    }
    time.max(1.0)
}
