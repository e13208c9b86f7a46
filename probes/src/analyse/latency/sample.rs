//! Requests that were written down whole, as a sample of a range of latencies, and means from it.
//!
//! Two draws are samples: `Uniform`, of all requests of a core and window, and `Late`, of all above the
//! latency that the window before had at its 99th percentile. `Top` is none: the slowest are not typical.
//! A window's draw has a fixed size, so each of its exemplars stands for as many requests as were offered
//! for one kept (Horvitz and Thompson, 1952). A range that lies above what a window called late is taken
//! from its `Late` draw, any other from the `Uniform` one.

use super::bands::Band;
use super::stages::system_ns;
use crate::record::latency::{Exemplar, LatencyWindow, Why};

/// An exemplar and how many requests it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn<'a> {
    pub(super) exemplar: &'a Exemplar,
    pub(super) weight: f64,
}

/// The sample of a band.
pub(super) fn drawn<'a>(windows: &'a [LatencyWindow], band: &Band) -> Vec<Drawn<'a>> {
    let (from, to) = band.range_ns;
    let mut sample = Vec::new();
    for window in windows {
        let late = window.late_ns.is_some_and(|late| from >= late);
        let why = if late { Why::Late } else { Why::Uniform };
        let of_draw = || window.exemplars.iter().filter(move |exemplar| exemplar.why == why);
        let kept = of_draw().count() as u64;
        let requests: u64 = window.buckets.iter().map(|bucket| bucket.sums.count).sum();
        let requests = requests.saturating_mul(window.stands_for());
        let offered = if late { kept.saturating_add(window.late_left_out) } else { requests };
        let weight = offered.max(kept) as f64 / kept.max(1) as f64;
        let inside = of_draw().filter(|exemplar| {
            let ns = system_ns(&exemplar.stamps);
            from <= ns && (ns < to || to == u64::MAX)
        });
        sample.extend(inside.map(|exemplar| Drawn { exemplar, weight }));
    }
    sample
}

/// A mean of a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// The mean, in the unit of what was measured.
    pub mean: f64,
    /// Its standard error; 0 below two.
    pub error: f64,
    /// Requests that it is from.
    pub n: u64,
    /// How many times the mean weight the heaviest stands for: 1 when all weigh the same.
    pub skew: f64,
}

/// The weighted mean of what `value` gives; those without a value are left out.
pub(super) fn estimate(
    sample: &[Drawn<'_>],
    value: impl Fn(&Exemplar) -> Option<f64>,
) -> Option<Estimate> {
    estimate_at(sample, |place| value(sample[place].exemplar))
}

/// The same of values that lie beside the sample. Standard error of a ratio (Cochran, "Sampling
/// Techniques"): `sqrt(n/(n-1) sum (w (x - mean))^2) / sum w`.
pub(super) fn estimate_at(
    sample: &[Drawn<'_>],
    value: impl Fn(usize) -> Option<f64>,
) -> Option<Estimate> {
    let values: Vec<(f64, f64)> = sample
        .iter()
        .enumerate()
        .filter_map(|(place, drawn)| Some((drawn.weight, value(place)?)))
        .collect();
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let weights: f64 = values.iter().map(|(weight, _)| weight).sum();
    let mean = values.iter().map(|(weight, x)| weight * x).sum::<f64>() / weights;
    let squares: f64 = values.iter().map(|(weight, x)| (weight * (x - mean)).powi(2)).sum();
    let error = if values.len() < 2 { 0.0 } else { (n / (n - 1.0) * squares).sqrt() / weights };
    let heaviest = values.iter().map(|(weight, _)| *weight).fold(0.0, f64::max);
    Some(Estimate { mean, error, n: values.len() as u64, skew: heaviest * n / weights })
}
