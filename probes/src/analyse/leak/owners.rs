//! Whose the old objects are.

use std::collections::{HashMap, HashSet};

use statrs::distribution::{Beta, ContinuousCDF as _};

use super::cohort::{Cohort, SiteData};
use super::judge::{self, Context};
use super::model::{Finding, Interval, OWNERS_MAX, OwnerReport, Spread};
use super::study::{Study, study};
use super::{LeakConfig, finding};
use crate::record::heap::{HeapSnapshot, OWNER_NONE, Sample};

/// Expected repetitions of an owner below which "none repeats" says nothing.
const REPEATS_MIN: f64 = 6.0;

/// Owners of a run.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// How many there are, as far as is known.
    pub(super) known: u64,
    /// Ends, ns.
    pub(super) ended: HashMap<u32, u64>,
}

impl Owners {
    pub(super) fn new(snapshot: &HeapSnapshot, config: &LeakConfig) -> Self {
        let seen: HashSet<u32> =
            snapshot.samples.iter().map(|s| s.owner).filter(|&o| o != OWNER_NONE).collect();
        Self {
            known: config.owners.unwrap_or(0).max(seen.len() as u64),
            ended: snapshot.ended.iter().map(|end| (end.owner, end.at_ns)).collect(),
        }
    }
}

/// The owners of a site's old objects.
#[derive(Debug, Default)]
pub(super) struct Whose {
    pub(super) spread: Option<Spread>,
    pub(super) reports: Vec<OwnerReport>,
    pub(super) left_out: u32,
}

/// Each owner keeps one at most, where that cannot be chance: owners known, repetitions expected.
pub(super) fn per_owner(data: &SiteData<'_>, config: &LeakConfig) -> Option<(u32, u64)> {
    let of = config.owners?;
    let owned: Vec<u32> = data.alive.iter().map(|s| s.owner).filter(|&o| o != OWNER_NONE).collect();
    let distinct = owned.iter().collect::<HashSet<_>>().len();
    let n = owned.len() as f64;
    let expected = n * (n - 1.0) / 2.0 / of.max(1) as f64;
    let repeats = (owned.len() - distinct) as f64;
    let all_owned = owned.len() == data.alive.len();
    (all_owned && expected >= REPEATS_MIN && repeats <= expected / REPEATS_MIN)
        .then(|| (u32::try_from(distinct).unwrap_or(u32::MAX), of))
}

/// Judges the owners of a site. `q_scale` carries the adjustment for the sites into that for the owners:
/// they are judged only where the site's case holds (Benjamini and Bogomolov, "Selective inference on
/// multiple families of hypotheses", 2014).
pub(super) fn judge(
    snapshot: &HeapSnapshot,
    data: &SiteData<'_>,
    site: &Study,
    (owners, q_scale): (&Owners, f64),
    config: &LeakConfig,
) -> Whose {
    let old = old_objects(snapshot, data, site);
    let mut counts: Vec<(u32, u64, f64)> = Vec::new();
    for group in old.chunk_by(|a, b| a.owner == b.owner) {
        let bytes = group.iter().map(|s| s.weight).sum();
        counts.push((group[0].owner, group.len() as u64, bytes));
    }
    let total: u64 = counts.iter().map(|c| c.1).sum();
    counts.retain(|c| c.0 != OWNER_NONE);
    counts.sort_by(|a, b| b.2.total_cmp(&a.2));
    let spread = Some(spread(&counts, total, owners.known));
    let left_out = counts.len().saturating_sub(OWNERS_MAX);
    counts.truncate(OWNERS_MAX);
    let studies: Vec<Study> = counts
        .iter()
        .map(|c| study(&Cohort::new(snapshot, data, config, |s| s.owner == c.0), config))
        .collect();
    let log_e: Vec<f64> = studies.iter().map(|s| s.hazard.log_e).collect();
    let judged = usize::try_from(owners.known).unwrap_or(usize::MAX);
    let q = judge::adjusted(&log_e, judged);
    let reports = counts.iter().zip(studies.iter().zip(q)).map(|(count, (study, q))| {
        let context = Context { q: (q * q_scale).min(1.0), ..Context::default() };
        report(data, count, total, (study, context), (owners, snapshot, config))
    });
    let left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
    Whose { spread, reports: reports.collect(), left_out }
}

fn report(
    data: &SiteData<'_>,
    &(owner, count, _): &(u32, u64, f64),
    total: u64,
    (study, context): (&Study, Context),
    (owners, snapshot, config): (&Owners, &HeapSnapshot, &LeakConfig),
) -> OwnerReport {
    let mine = || data.alive.iter().filter(|s| s.owner == owner);
    let finding: Finding = finding::finding(study, context, snapshot, config);
    OwnerReport {
        owner,
        finding,
        sampled: mine().count() as u64,
        bytes: mine().map(|s| s.weight).sum(),
        share: share(count, total),
        ended_ns: owners.ended.get(&owner).copied(),
    }
}

/// Old objects in the order of their owners; all of them where none is old.
fn old_objects<'a>(snapshot: &HeapSnapshot, data: &SiteData<'a>, site: &Study) -> Vec<&'a Sample> {
    let old_ns = site.hazard.best.old_ns;
    let is_old = |s: &&Sample| snapshot.at_ns.saturating_sub(s.born_ns) as f64 > old_ns;
    let mut old: Vec<&Sample> = data.alive.iter().copied().filter(is_old).collect();
    old.sort_by_key(|s| s.owner);
    old
}

/// Clopper and Pearson's exact 95 % interval of `k` of `n`.
pub(super) fn share(k: u64, n: u64) -> Interval {
    if n == 0 {
        return Interval { estimate: 0.0, low: 0.0, high: 1.0 };
    }
    let (k, n) = (k as f64, n as f64);
    let quantile = |a: f64, b: f64, p: f64| Beta::new(a, b).map_or(f64::NAN, |d| d.inverse_cdf(p));
    let low = if k > 0.0 { quantile(k, n - k + 1.0, 0.025) } else { 0.0 };
    let high = if k < n { quantile(k + 1.0, n - k, 0.975) } else { 1.0 };
    Interval { estimate: k / n, low, high }
}

fn spread(counts: &[(u32, u64, f64)], total: u64, known: u64) -> Spread {
    let Some(top) = counts.iter().max_by_key(|c| c.1) else { return Spread::Untagged };
    if share(top.1, total).low > 0.5 {
        return Spread::One(top.0);
    }
    let owners = u32::try_from(counts.len()).unwrap_or(u32::MAX);
    // Pairs of objects with one owner, against those that an even spread would make.
    let pairs: f64 = counts.iter().map(|c| c.1 as f64 * (c.1 as f64 - 1.0) / 2.0).sum();
    let n = total as f64;
    let expected = n * (n - 1.0) / 2.0 / known.max(1) as f64;
    if pairs <= 2.0 * expected + 3.0 * expected.sqrt() {
        Spread::Even { owners }
    } else {
        Spread::Some { owners }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_exact_bounds() {
        // R: binom.test(18, 20)$conf.int
        let found = share(18, 20);
        assert!((found.low - 0.6830).abs() < 2e-4 && (found.high - 0.9877).abs() < 2e-4);
        assert_eq!(share(5, 5).high, 1.0);
    }
}
