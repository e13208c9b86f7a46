//! Latency by percentile of both sides, all their counted runs together: where in the distribution they differ.
//!
//! A picture, and no claim: requests of a run are no independent repetitions, so that there is no interval here. What is
//! claimed is claimed of pairs, in the metrics.

use serde::{Deserialize, Serialize};
use tailbeam_probes::stats::Histogram;

use super::outcome::{Pair, Sources};
use crate::report::Measured;

/// Shares of requests that are looked at.
const RANKS: [f64; 12] =
    [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999];
/// Requests above a rank that it takes for a figure.
const ABOVE_MIN: f64 = 10.0;

/// A percentile of both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// Share of requests that are not slower.
    pub rank: f64,
    /// On side A, ns.
    pub a_ns: u64,
    /// On side B, ns.
    pub b_ns: u64,
    /// B / A.
    pub ratio: f64,
}

/// Of the pairs that count.
pub(super) fn percentiles(pairs: &[Pair], sources: &Sources<'_>) -> Measured<Vec<Percentile>> {
    if pairs.is_empty() {
        return Measured::unknown("no pair counts", "see what was left out");
    }
    let side = |id: fn(&Pair) -> &str| -> Result<Histogram, Measured<Vec<Percentile>>> {
        let mut all = Histogram::new();
        for pair in pairs {
            match (sources.latency)(id(pair)) {
                Measured::Known(latency) => all.merge(&latency),
                Measured::Unknown { unknown, remedy } => {
                    return Err(Measured::Unknown { unknown, remedy });
                }
            }
        }
        Ok(all)
    };
    match (side(|pair| &pair.a.run), side(|pair| &pair.b.run)) {
        (Ok(a), Ok(b)) => match of(&a, &b) {
            none if none.is_empty() => {
                Measured::unknown("a side has fewer than a dozen latencies", "record for longer")
            }
            found => Measured::Known(found),
        },
        (Err(why), _) | (_, Err(why)) => why,
    }
}

fn of(a: &Histogram, b: &Histogram) -> Vec<Percentile> {
    let enough = |rank: &f64| (1.0 - rank) * a.count().min(b.count()) as f64 >= ABOVE_MIN;
    let at = |rank: f64| {
        let (a_ns, b_ns) = (a.quantile(rank)?, b.quantile(rank)?);
        Some(Percentile { rank, a_ns, b_ns, ratio: b_ns as f64 / a_ns.max(1) as f64 })
    };
    RANKS.into_iter().filter(enough).filter_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_with_few_requests_above_it_has_no_figure() {
        let (mut a, mut b) = (Histogram::new(), Histogram::new());
        (1..=2_000u64).for_each(|ns| a.record(ns * 1_000));
        (1..=1_000u64).for_each(|ns| b.record(ns * 4_000));
        let found = of(&a, &b);
        assert_eq!(found.last().map(|of| of.rank), Some(0.99), "1,000 requests: {found:?}");
        assert!(found.iter().all(|of| (of.ratio - 2.0).abs() < 0.01), "{found:?}");
        assert!(of(&a, &Histogram::new()).is_empty());
    }
}
