//! What requests are made of, by how slow they were.
//!
//! Percentiles do not add: the request at the 99th percentile of one stage is not the one at the 99th of
//! another. So this gives the mean composition of the requests that lie in a band of the distribution of the
//! system latency, and the means of a band's stages sum to its mean latency.
//!
//! Requests are known by their bucket, and a bucket belongs whole to the band in which its middle request
//! lies. So the cut between two bands is off by up to half a bucket (9 % of the latency there) from the
//! percentile that names it; [`Band::actual`] says which share the band really has. Bands are cut after the
//! run, from all windows together: no threshold of an earlier time is needed.

use std::collections::BTreeMap;

use super::bucket::{BUCKETS, bucket_range};
use super::stages::system_ns;
use super::table::StageTable;
use crate::record::latency::{LatencyWindow, ResponderSums, Stage, Sums};

/// Where bands end, in hundred-thousandths of the requests, quickest first.
pub const CUTS: [u64; 5] = [50_000, 90_000, 99_000, 99_900, WHOLE];

const WHOLE: u64 = 100_000;

/// Requests of one band.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Band {
    /// From which share of the requests to which, 0 to 1, as asked for.
    pub nominal: (f64, f64),
    /// The same as it came out by whole buckets. Both equal: the band is empty.
    pub actual: (f64, f64),
    /// Buckets, from the first up to and without the second.
    pub buckets: (usize, usize),
    /// Latencies, ns, from the first up to and without the second; `u64::MAX`: no end.
    pub range_ns: (u64, u64),
    /// Its requests.
    pub sums: Sums,
}

impl Band {
    /// Mean system latency by the askers' clock reads, ns; 0 when the band is empty.
    #[must_use]
    pub fn mean_system_ns(&self) -> f64 {
        self.sums.mean_system_ns()
    }

    /// Mean time in a stage, ns; 0 when the band is empty.
    #[must_use]
    pub fn mean_ns(&self, stage: Stage) -> f64 {
        self.sums.mean_ns(stage)
    }
}

impl Sums {
    /// Mean system latency, ns; 0 without requests.
    #[must_use]
    pub fn mean_system_ns(&self) -> f64 {
        self.system_ns as f64 / self.count.max(1) as f64
    }

    /// Mean time in a stage, ns; 0 without requests.
    #[must_use]
    pub fn mean_ns(&self, stage: Stage) -> f64 {
        self.stages[stage.index()] as f64 / self.count.max(1) as f64
    }

    /// Mean sum of all stages, ns; 0 without requests.
    #[must_use]
    pub fn mean_staged_ns(&self) -> f64 {
        self.staged_ns() as f64 / self.count.max(1) as f64
    }
}

/// The distribution cut into bands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bands {
    /// All requests.
    pub total: Sums,
    /// p0-50, p50-90, p90-99, p99-99.9, above.
    pub bands: [Band; CUTS.len()],
    /// The slowest request that was written down whole, ns: the slowest of all when each window kept its
    /// slowest.
    pub max_ns: Option<u64>,
    /// Stage differences that were negative within the clock's bound.
    pub clamped: u64,
    /// Requests in no band, as their stamps are out of order beyond it.
    pub disordered: u64,
}

/// Cuts the requests of `windows`, of any cores, into bands. Linear in what was recorded.
#[must_use]
pub fn bands<'a>(windows: impl IntoIterator<Item = &'a LatencyWindow>) -> Bands {
    let mut table = StageTable::new();
    let mut found = Bands::default();
    for window in windows {
        table.merge_sums(&window.buckets);
        found.clamped += window.clamped;
        found.disordered += window.disordered;
        let slowest = window.exemplars.iter().map(|exemplar| system_ns(&exemplar.stamps)).max();
        found.max_ns = found.max_ns.max(slowest);
    }
    found.total = table.total();
    found.bands = cut(&table, found.total.count);
    found
}

fn cut(table: &StageTable, total: u64) -> [Band; CUTS.len()] {
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let mut bands = [Band::default(); CUTS.len()];
    let (mut before, mut next, mut from_cut) = (0u64, 0, 0);
    for (band, to_cut) in bands.iter_mut().zip(CUTS) {
        band.nominal = (share(from_cut, WHOLE), share(to_cut, WHOLE));
        from_cut = to_cut;
        band.actual.0 = share(before, total);
        band.buckets.0 = next;
        while next < BUCKETS {
            let sums = table.bucket(next);
            // The middle request of the bucket, in halves so that it stays whole.
            let middle = 2 * u128::from(before) + u128::from(sums.count);
            if middle * u128::from(WHOLE) > 2 * u128::from(total) * u128::from(to_cut) {
                break;
            }
            band.sums.merge(sums);
            before += sums.count;
            next += 1;
        }
        band.actual.1 = share(before, total);
        band.buckets.1 = next;
        band.range_ns = (bucket_range(band.buckets.0).0, bucket_range(next.max(1) - 1).1);
        if band.buckets.0 == next {
            band.range_ns.1 = band.range_ns.0;
        }
    }
    bands
}

/// Requests by the core of who asked, and by the core of who answered; ascending.
#[must_use]
pub fn by_core<'a>(
    windows: impl IntoIterator<Item = &'a LatencyWindow>,
) -> (Vec<(u16, Sums)>, Vec<ResponderSums>) {
    let (mut askers, mut responders) = (BTreeMap::new(), BTreeMap::new());
    for window in windows {
        let sums: &mut Sums = askers.entry(window.shard).or_default();
        window.buckets.iter().for_each(|bucket| sums.merge(&bucket.sums));
        for from in &window.responders {
            let new = ResponderSums { shard: from.shard, ..ResponderSums::default() };
            let to: &mut ResponderSums = responders.entry(from.shard).or_insert(new);
            to.all.merge(&from.all);
            to.late.merge(&from.late);
        }
    }
    (askers.into_iter().collect(), responders.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::latency::bucket_of;
    use crate::record::latency::STAGES;

    fn window(latencies: impl IntoIterator<Item = u64>) -> LatencyWindow {
        let mut table = StageTable::new();
        for ns in latencies {
            let mut stages = [0; STAGES];
            stages[Stage::Hop.index()] = ns / 4;
            stages[Stage::Service.index()] = ns - ns / 4;
            table.add(ns, &stages);
        }
        LatencyWindow { buckets: table.take(), ..LatencyWindow::default() }
    }

    #[test]
    fn bands_hold_the_shares_that_name_them_to_a_bucket() {
        let found = bands(&[window((0..100_000u64).map(|i| 10_000 + i * 10))]);
        assert_eq!(found.total.count, 100_000);
        let mut end = 0;
        for band in found.bands {
            assert_eq!(band.buckets.0, end, "bands tile the buckets");
            end = band.buckets.1;
            // A bucket holds up to 12.5 % of a latency of up to 1.01 ms, 12.5 requests per us.
            assert!((band.actual.1 - band.nominal.1).abs() < 0.07, "{band:?}");
            let sum: f64 = Stage::ALL.into_iter().map(|stage| band.mean_ns(stage)).sum();
            assert!((sum - band.mean_system_ns()).abs() < 1e-6);
            assert!(band.sums.count == 0 || band.range_ns.0 as f64 <= band.mean_system_ns());
        }
        assert_eq!(end, BUCKETS);
        assert_eq!(found.bands.iter().map(|band| band.sums.count).sum::<u64>(), 100_000);
    }

    #[test]
    fn one_bucket_is_in_one_band_and_none_in_none() {
        let found = bands(&[window([1_000; 10])]);
        assert_eq!(found.bands.map(|band| band.sums.count), [10, 0, 0, 0, 0]);
        assert_eq!(found.bands[0].actual, (0.0, 1.0));
        assert_eq!(found.bands[0].buckets.1, bucket_of(1_000) + 1, "up to the last that holds any");
        assert_eq!(found.bands[4].actual, (1.0, 1.0));
        let none = bands(&[]);
        assert_eq!((none.total.count, none.max_ns), (0, None));
        assert!(none.bands.iter().all(|band| band.sums.count == 0));
    }

    #[test]
    fn cores_are_told_apart_on_both_sides() {
        let mut first = window([1_000; 3]);
        let mut second = window([2_000; 2]);
        second.shard = 1;
        let all = first.buckets[0].sums;
        first.responders = vec![ResponderSums { shard: 1, all, late: Sums::default() }];
        let all = second.buckets[0].sums;
        second.responders = vec![ResponderSums { shard: 1, all, late: all }];
        let (askers, responders) = by_core(&[first, second]);
        assert_eq!(askers.iter().map(|a| (a.0, a.1.count)).collect::<Vec<_>>(), [(0, 3), (1, 2)]);
        assert_eq!(responders.len(), 1);
        assert_eq!((responders[0].all.count, responders[0].late.count), (5, 2));
    }
}
