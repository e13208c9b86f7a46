//! Objects that outlived the owner that made them.

use std::collections::{HashMap, HashSet};

use super::cohort::HOUR_NS;
use super::rate::Tail;
use super::{Interval, LeakConfig, Orphans};
use crate::record::heap::Sample;

/// Orphans of a site, and how fast they come.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Left {
    pub(super) facts: Orphans,
    pub(super) rate: Option<Interval>,
    pub(super) low_any_time: f64,
    /// Birth of the first, ns.
    pub(super) first_ns: u64,
}

/// Whether the object's owner ended longer ago than the grace.
pub(super) fn is_orphan(
    sample: &Sample,
    ended: &HashMap<u32, u64>,
    now_ns: u64,
    config: &LeakConfig,
) -> bool {
    let since = |end: &u64| now_ns.saturating_sub(*end);
    ended.get(&sample.owner).is_some_and(|end| since(end) > config.grace_ns)
}

/// The orphans among `alive`. Their rate is that of owners' ends since the start, less the grace.
pub(super) fn orphans(
    alive: &[&Sample],
    ended: &HashMap<u32, u64>,
    now_ns: u64,
    config: &LeakConfig,
) -> Option<Left> {
    let left: Vec<&Sample> =
        alive.iter().copied().filter(|s| is_orphan(s, ended, now_ns, config)).collect();
    let first_ns = left.iter().map(|s| s.born_ns).min()?;
    let bytes: f64 = left.iter().map(|s| s.weight).sum();
    let owners = left.iter().map(|s| s.owner).collect::<HashSet<_>>().len();
    let longest = left.iter().filter_map(|s| ended.get(&s.owner)).min().copied();
    let facts = Orphans {
        sampled: left.len() as u64,
        bytes,
        owners: u32::try_from(owners).unwrap_or(u32::MAX),
        longest_ns: longest.map_or(0, |end| now_ns.saturating_sub(end)),
    };
    let hours = now_ns.saturating_sub(config.grace_ns) as f64 / HOUR_NS;
    let weights: Vec<f64> = left.iter().map(|s| s.weight).collect();
    let counted = Tail::new(&vec![0.0; left.len()], &[], &weights, config.alpha0).immortals();
    let per_hour = |count: f64| count * bytes / left.len() as f64 / hours;
    let rate = (hours > 0.0).then(|| Interval {
        estimate: per_hour(counted.count),
        low: per_hour(counted.low),
        high: per_hour(counted.high),
    });
    let low_any_time = if hours > 0.0 { per_hour(counted.low_any_time) } else { 0.0 };
    Some(Left { facts, rate, low_any_time, first_ns })
}
