//! A snapshot cut by site, and the objects of a site that a verdict may use.

use std::collections::HashMap;

use super::LeakConfig;
use crate::record::heap::{AGE_BINS, Deaths, HeapSnapshot, Sample};

/// ns of an hour.
pub(super) const HOUR_NS: f64 = 3.6e12;

/// All that a snapshot says of a site.
#[derive(Debug, Default)]
pub(super) struct SiteData<'a> {
    pub(super) alive: Vec<&'a Sample>,
    pub(super) dead: Vec<&'a Deaths>,
    /// Births by epoch: count and bytes.
    pub(super) born: Vec<(u16, u64, f64)>,
}

/// Cuts the snapshot; sites come in no order.
pub(super) fn by_site(snapshot: &HeapSnapshot) -> HashMap<u32, SiteData<'_>> {
    let mut sites: HashMap<u32, SiteData<'_>> = HashMap::new();
    for sample in &snapshot.samples {
        sites.entry(sample.site).or_default().alive.push(sample);
    }
    for births in &snapshot.births {
        let site = sites.entry(births.site).or_default();
        site.born.push((births.epoch, births.count, births.bytes));
    }
    for deaths in &snapshot.deaths {
        sites.entry(deaths.site).or_default().dead.push(deaths);
    }
    sites
}

/// Objects that are judged together: born after the warm-up.
#[derive(Debug)]
pub(super) struct Cohort<'a> {
    pub(super) now_ns: u64,
    /// Births before this are not in it.
    pub(super) from_ns: u64,
    pub(super) alive: Vec<&'a Sample>,
    /// Births of living objects during the warm-up, ns.
    pub(super) early_ns: Vec<f64>,
    /// Deaths: end of the epoch of birth (ns), bin of age, count.
    pub(super) dead: Vec<(u64, usize, u64)>,
    pub(super) dead_by_bin: [u64; AGE_BINS],
    /// [`LeakConfig::alpha0`].
    pub(super) alpha0: f64,
    /// Mean weight of a sampled object of the site, bytes: what one survivor more would add.
    pub(super) weight: f64,
}

impl<'a> Cohort<'a> {
    /// The objects of a site born after the warm-up, those that `wanted` takes among the living, and all
    /// the dead. A death in an epoch that the warm-up touches counts, which can only weaken a case.
    pub(super) fn new(
        snapshot: &HeapSnapshot,
        data: &SiteData<'a>,
        config: &LeakConfig,
        wanted: impl Fn(&Sample) -> bool,
    ) -> Self {
        let from_ns = config.warm_up_ns;
        let (alive, early): (Vec<&Sample>, Vec<&Sample>) =
            data.alive.iter().filter(|s| wanted(s)).partition(|s| s.born_ns >= from_ns);
        let early_ns = early.iter().map(|s| s.born_ns as f64).collect();
        let dead: Vec<(u64, usize, u64)> = data
            .dead
            .iter()
            .map(|d| {
                let ends_ns = (u64::from(d.epoch) + 1).saturating_mul(snapshot.epoch_ns);
                (ends_ns, usize::from(d.age).min(AGE_BINS - 1), d.count)
            })
            .filter(|&(ends_ns, ..)| ends_ns > from_ns)
            .collect();
        let mut dead_by_bin = [0; AGE_BINS];
        dead.iter().for_each(|&(_, bin, count)| dead_by_bin[bin] += count);
        let weight = mean_weight(snapshot, data);
        let alpha0 = config.alpha0;
        Self { now_ns: snapshot.at_ns, from_ns, alive, early_ns, dead, dead_by_bin, alpha0, weight }
    }

    /// Age of a living object, ns, at least 1.
    pub(super) fn age_ns(&self, sample: &Sample) -> f64 {
        self.now_ns.saturating_sub(sample.born_ns).max(1) as f64
    }
}

/// Mean weight of what was born at the site; the sampler's mean where nothing was.
fn mean_weight(snapshot: &HeapSnapshot, data: &SiteData<'_>) -> f64 {
    let (count, bytes) =
        data.born.iter().fold((0, 0.0), |(n, b), &(_, count, bytes)| (n + count, b + bytes));
    if count > 0 && bytes > 0.0 {
        return bytes / count as f64;
    }
    let bytes: f64 = data.alive.iter().map(|s| s.weight).sum();
    if data.alive.is_empty() {
        snapshot.sampler.mean_bytes.max(1) as f64
    } else {
        bytes / data.alive.len() as f64
    }
}
