//! Sums of a run so far, for whoever scrapes it: written once a second by the controller, read by another thread.
//! No shard takes part.

use std::sync::{Arc, Mutex, PoisonError};

use tailbeam_probes::stats::Histogram;

use super::controller::Controller;
use crate::evidence::records::{CoreRecord, SecondRecord};
use crate::load::{SecondCounts, Workload};

/// Bounds of the latency buckets: powers of two from 2^10 ns (1 us) to 2^34 ns (17 s).
pub const OCTAVES: std::ops::RangeInclusive<u32> = 10..=34;
/// How many there are.
pub(super) const BOUNDS: usize = 25;

/// System latency of the requests of one core's askers since the run began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencyTotals {
    /// Requests at or below each bound of [`OCTAVES`].
    pub below: [u64; BOUNDS],
    /// All of them.
    pub count: u64,
    /// Their latency together, ns.
    pub sum_ns: u128,
}

impl LatencyTotals {
    fn add(&mut self, second: &Histogram) {
        for (below, octave) in self.below.iter_mut().zip(OCTAVES) {
            *below += second.count() - second.count_above(1 << octave);
        }
        self.count += second.count();
        self.sum_ns += second.sum();
    }
}

/// A run so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Run id and workload; empty until the first request is due.
    pub run: String,
    /// Workload.
    pub workload: String,
    /// Outcomes and what belongs to them.
    pub counts: SecondCounts,
    /// Live agents at the end of the last second; `None` until there was one.
    pub live_agents: Option<u64>,
    /// Mean number of open requests in it.
    pub open: Option<f64>,
    /// Age of the oldest one in it, ns.
    pub oldest_open_ns: Option<u64>,
    /// Resident set when the last window was written, bytes.
    pub rss_bytes: Option<u64>,
    /// Counters of the cores since the first request was due.
    pub cores: Vec<CoreRecord>,
    /// System latency by asking core, in their order.
    pub latency: Vec<LatencyTotals>,
}

impl Totals {
    /// Adds a second that has ended.
    pub(super) fn second(
        &mut self,
        second: &SecondRecord,
        cores: Vec<CoreRecord>,
        rss_bytes: Option<u64>,
    ) {
        self.counts.merge(&second.counts);
        self.live_agents = Some(second.live_agents);
        let sampled = (second.open_samples > 0).then_some(second);
        self.open = sampled.map(|of| of.open_sum as f64 / of.open_samples as f64);
        self.oldest_open_ns = sampled.map(|of| of.oldest_open_ns);
        self.rss_bytes = rss_bytes;
        self.cores = cores;
    }
}

/// Where the controller puts them and another thread takes them.
#[derive(Debug, Clone, Default)]
pub struct SharedTotals(Arc<Mutex<Totals>>);

impl SharedTotals {
    /// A copy of what holds now.
    #[must_use]
    pub fn get(&self) -> Totals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds the latencies of a core's second.
    pub(super) fn latency(&self, shard: usize, second: &Histogram) {
        self.change(|totals| {
            if totals.latency.len() <= shard {
                totals.latency.resize(shard + 1, LatencyTotals::default());
            }
            totals.latency[shard].add(second);
        });
    }
}

/// Puts the sums where a scraper takes them, if there is one.
impl<W: Workload> Controller<'_, W> {
    pub(super) fn tell_run(&self, id: &str) {
        let Some(totals) = &self.control.totals else { return };
        totals.change(|totals| {
            id.clone_into(&mut totals.run);
            totals.workload.clone_from(&self.plan.workload);
        });
    }

    pub(super) fn tell_latency(&self, shard: usize, second: &Histogram) {
        if let Some(totals) = &self.control.totals {
            totals.latency(shard, second);
        }
    }

    pub(super) fn tell(&self, second: &SecondRecord, rss_bytes: Option<u64>) {
        let Some(totals) = &self.control.totals else { return };
        let cores = self.before.cores_since(self.runtime);
        totals.change(|totals| totals.second(second, cores, rss_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_is_at_or_below_their_bound() {
        assert_eq!(OCTAVES.count(), BOUNDS);
        let shared = SharedTotals::default();
        let mut second = Histogram::new();
        [500, 1_000, 3_000, 1 << 36].iter().for_each(|&ns| second.record(ns));
        shared.latency(1, &second);
        shared.latency(1, &second);
        let totals = shared.get();
        assert_eq!(totals.latency[0], LatencyTotals::default());
        let of = &totals.latency[1];
        assert_eq!((of.below[0], of.below[2], of.below[BOUNDS - 1], of.count), (4, 6, 6, 8));
        assert_eq!(of.sum_ns, 2 * (4_500 + (1 << 36)));
    }
}
