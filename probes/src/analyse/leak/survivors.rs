//! What lives at a site, in figures that need no verdict.

use super::cohort::SiteData;
use super::model::{AgeCount, CoreCount, Interval, SIZES_MAX, SizeCount, Survivors};
use crate::record::heap::{AGE_BINS, Sample, age_bin, age_bin_from_ns};

/// Bins of the contract that make one bar of the histogram: an octave.
const BAR: usize = 4;

pub(super) fn survivors(now_ns: u64, data: &SiteData<'_>) -> Survivors {
    let sampled = data.alive.len() as u64;
    let born: u64 = data.born.iter().map(|b| b.1).sum();
    let oldest_ns = data.alive.iter().map(|s| now_ns.saturating_sub(s.born_ns)).max().unwrap_or(0);
    Survivors {
        sampled,
        objects: sampled_sum(&data.alive, 1.0),
        bytes: sampled_bytes(&data.alive),
        born: born.max(sampled),
        survival: (born > 0).then(|| (sampled as f64 / born as f64).min(1.0)),
        oldest_ns,
        ages: ages(now_ns, &data.alive),
        sizes: sizes(&data.alive),
        cores: cores(&data.alive),
    }
}

/// Estimate of bytes with the interval of Poisson sampling: an object of size `s` and weight `w = s / p` adds
/// `w (w - s)` to the variance.
pub(super) fn sampled_bytes(alive: &[&Sample]) -> Interval {
    let sum: f64 = alive.iter().map(|s| s.weight).sum();
    let variance: f64 = alive.iter().map(|s| s.weight * (s.weight - s.size as f64).max(0.0)).sum();
    let seen: f64 = alive.iter().map(|s| s.size as f64).sum();
    around(sum, variance, seen)
}

/// Estimate of objects, each `unit`.
fn sampled_sum(alive: &[&Sample], unit: f64) -> Interval {
    let each = |s: &Sample| s.weight / (s.size.max(1)) as f64;
    let sum: f64 = alive.iter().map(|s| each(s) * unit).sum();
    let variance: f64 = alive.iter().map(|s| each(s) * (each(s) - 1.0).max(0.0)).sum();
    around(sum, variance * unit * unit, alive.len() as f64 * unit)
}

/// No bound lies below what was seen with own eyes.
fn around(sum: f64, variance: f64, seen: f64) -> Interval {
    let half = 1.96 * variance.sqrt();
    Interval { estimate: sum, low: (sum - half).max(seen.min(sum)), high: sum + half }
}

fn ages(now_ns: u64, alive: &[&Sample]) -> Vec<AgeCount> {
    let mut bars = vec![AgeCount::default(); AGE_BINS.div_ceil(BAR)];
    for (bar, count) in bars.iter_mut().enumerate() {
        count.from_ns = super::judge::at_ns(age_bin_from_ns(bar * BAR));
    }
    for sample in alive {
        let bar = &mut bars[age_bin(now_ns.saturating_sub(sample.born_ns)) / BAR];
        bar.sampled += 1;
        bar.bytes += sample.weight;
    }
    let last = bars.iter().rposition(|bar| bar.sampled > 0).map_or(0, |last| last + 1);
    let first = bars.iter().position(|bar| bar.sampled > 0).unwrap_or(0);
    bars[first..last.max(first)].to_vec()
}

fn sizes(alive: &[&Sample]) -> Vec<SizeCount> {
    let mut all: Vec<SizeCount> = Vec::new();
    let mut sorted: Vec<&&Sample> = alive.iter().collect();
    sorted.sort_by_key(|s| s.size);
    for group in sorted.chunk_by(|a, b| a.size == b.size) {
        let bytes: f64 = group.iter().map(|s| s.weight).sum();
        let size = group[0].size;
        let objects = bytes / size.max(1) as f64;
        all.push(SizeCount { size: Some(size), sampled: group.len() as u64, objects, bytes });
    }
    all.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
    if all.len() > SIZES_MAX {
        let rest = all.split_off(SIZES_MAX - 1);
        all.push(rest.iter().fold(SizeCount::default(), |sum, one| SizeCount {
            size: None,
            sampled: sum.sampled + one.sampled,
            objects: sum.objects + one.objects,
            bytes: sum.bytes + one.bytes,
        }));
    }
    all
}

fn cores(alive: &[&Sample]) -> Vec<CoreCount> {
    let mut sorted: Vec<&&Sample> = alive.iter().collect();
    sorted.sort_by_key(|s| s.core);
    let mut all: Vec<CoreCount> = sorted
        .chunk_by(|a, b| a.core == b.core)
        .map(|group| CoreCount {
            core: group[0].core,
            sampled: group.len() as u64,
            bytes: group.iter().map(|s| s.weight).sum(),
        })
        .collect();
    all.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
    all
}
