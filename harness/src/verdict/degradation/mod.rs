//! Does a series get worse over a run? Never the first hour against the last.
//!
//! 1. **Warm-up** is cut by MSER-5 ([`warm_up`]), at most a quarter of the series.
//! 2. **Blocks** are as long as the noise's memory asks for: four integrated autocorrelation times, measured
//!    in pieces of the series so that neither a trend nor a step counts as memory.
//! 3. **Trend**: Theil and Sen's slope with its interval, and Mann and Kendall's test on the block means. Both
//!    must say so, and the slope must be above the margin: a trend is significant and relevant, or none.
//! 4. **Steps**: the best split of the block means against permutations of the blocks (`change`), with the time
//!    of its onset. A step up by more than the margin that is not taken back is a degradation.
//!
//! A run has several series, and a restart doubles them: each of a **family** of `n` is tested at the `n`-th part of the
//! level (Bonferroni; the two tests of a series and those of all series depend on each other in ways nobody knows), so
//! that the level is that of a run. That a series is stable needs no correction, and has none: a run passes when all of
//! them are, and a step at the whole level keeps a series from it.
//!
//! Everything is relative to the median level, so a margin of 0.05 is 5 % per day, or 5 % for a step.
//! Rates of error and power are tested at the bottom of `tests.rs`.

mod change;
mod noise;
#[cfg(test)]
mod tests;

pub use change::Change;
pub use noise::{memory, warm_up};

use serde::{Deserialize, Serialize};
use tailbeam_probes::stats::trend;

use super::kendall::mann_kendall;
use change::changes;

/// Fewest windows that are judged, after the warm-up.
pub const WINDOWS_MIN: usize = 120;
/// Most and fewest blocks.
const BLOCKS: (usize, usize) = (200, 20);
/// Level of each of the two tests, on one side, for a whole family: both together stay below 5 %.
const LEVEL: f64 = 0.025;
const DAY_H: f64 = 24.0;

/// Which way is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worse {
    /// Latency, cost.
    Higher,
    /// Throughput.
    Lower,
}

/// What can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// Any trend is below the margin, with its interval; no step is above it.
    Stable,
    /// It gets worse by more than the margin.
    Degrades,
    /// Neither can be said.
    Undecided,
}

/// How one series was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Degradation {
    /// Verdict.
    pub judged: Judged,
    /// Why, in words.
    pub reason: String,
    /// Windows after the warm-up.
    pub windows: u64,
    /// Windows that were cut as warm-up.
    pub warm_up: u64,
    /// Median level, in the series' own unit.
    pub level: f64,
    /// Windows per block.
    pub block: u64,
    /// Slope per day as a share of the level; above 0 is worse. 95 % interval.
    pub per_day: Option<Slope>,
    /// Probability of a trend as strong without one, by Mann and Kendall on the block means.
    pub p: Option<f64>,
    /// Steps in their order.
    pub changes: Vec<Change>,
    /// How much longer the series must be, h, when that can be told.
    pub needs_more_h: Option<f64>,
    /// Series that are tested together: a test of this one is at this part of the level. Older reports have 1.
    #[serde(default = "alone")]
    pub family: usize,
}

const fn alone() -> usize {
    1
}

impl Degradation {
    /// Level of each of the two tests of one series.
    fn level_of_test(&self) -> f64 {
        LEVEL / self.family.max(1) as f64
    }
}

/// A slope with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// Estimate.
    pub slope: f64,
    /// Lower 95 % bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// The series wanders as a random walk does; the interval is that of one.
    pub wanders: bool,
}

/// Whether a series is long enough to be tested at all; others are no part of a family.
#[must_use]
pub fn judgeable(points: &[(f64, f64)]) -> bool {
    let values: Vec<f64> = points.iter().map(|p| p.1).collect();
    points.len() - warm_up(&values) >= WINDOWS_MIN
}

/// Judges `(hours, value)` in order of time against a `margin` (0.05: 5 % per day, or 5 % for a step), as one of a
/// `family` of series.
#[must_use]
pub fn judge(points: &[(f64, f64)], worse: Worse, margin: f64, family: usize) -> Degradation {
    let values: Vec<f64> = points.iter().map(|p| p.1).collect();
    let cut = warm_up(&values);
    let level = median(&values[cut..]);
    let mut found = Degradation {
        judged: Judged::Undecided,
        reason: String::new(),
        windows: (points.len() - cut) as u64,
        warm_up: cut as u64,
        level,
        block: 0,
        per_day: None,
        p: None,
        changes: Vec::new(),
        needs_more_h: None,
        family: family.max(1),
    };
    let length_h = |points: &[(f64, f64)]| match (points.first(), points.last()) {
        (Some(first), Some(last)) => last.0 - first.0,
        _ => 0.0,
    };
    if points.len() - cut < WINDOWS_MIN || level <= 0.0 || level.is_nan() {
        found.reason = format!(
            "{} windows with a level of {level:.3} after the warm-up; {WINDOWS_MIN} are needed",
            points.len() - cut
        );
        let missing = WINDOWS_MIN.saturating_sub(points.len() - cut) as f64;
        let window_h = length_h(points) / points.len().max(2) as f64;
        found.needs_more_h = (missing > 0.0 && window_h > 0.0).then_some(missing * window_h);
        return found;
    }
    let sign = if worse == Worse::Higher { 1.0 } else { -1.0 };
    let scaled: Vec<(f64, f64)> =
        points[cut..].iter().map(|&(hours, value)| (hours, sign * value / level)).collect();
    let block = block_length(&scaled);
    found.block = block as u64;
    let blocks = means(&scaled, block);
    if blocks.len() < BLOCKS.1 {
        found.reason = format!(
            "{} blocks of {block} windows, as long as the noise's memory asks for; {} are needed",
            blocks.len(),
            BLOCKS.1
        );
        let missing = (BLOCKS.1 - blocks.len()) as f64;
        let block_h = length_h(&scaled) / scaled.len() as f64 * block as f64;
        found.needs_more_h = Some(missing * block_h);
        return found;
    }
    found.changes = changes(&blocks, (LEVEL, found.level_of_test()), margin);
    found.p = mann_kendall(&blocks.iter().map(|b| b.1).collect::<Vec<_>>()).map(|k| k.p);
    found.per_day = trend(&scaled).map(|t| Slope {
        slope: t.slope * DAY_H,
        low: t.low * DAY_H,
        high: t.high * DAY_H,
        wanders: t.wanders,
    });
    conclude(&mut found, &blocks, margin, length_h(&scaled));
    found
}

fn conclude(found: &mut Degradation, blocks: &[(f64, f64)], margin: f64, length_h: f64) {
    let Some(slope) = found.per_day else { return };
    let level = found.level_of_test();
    let rising =
        slope.low > 0.0 && slope.slope > margin && found.p.is_some_and(|p| p < 2.0 * level);
    let step = last_level(&found.changes).filter(|rise| *rise > margin);
    // What a series of its own would be called degrading for leaves one of several undecided: it is not stable.
    let sure = found.changes.iter().any(|change| change.by > 0.0 && change.p <= level);
    let stepped = step.is_some() && sure && steps_fit_better(blocks, &found.changes);
    if let (true, Some(rise)) = (stepped, step) {
        let onset = found.changes.iter().rfind(|c| c.by > 0.0).map_or(0.0, |c| c.at_h);
        found.judged = Judged::Degrades;
        found.reason = format!("worse by {:.1} % since {onset:.2} h", rise * 100.0);
    } else if rising && !slope.wanders {
        found.judged = Judged::Degrades;
        found.reason = format!("worse by {:.1} % per day", slope.slope * 100.0);
    } else if slope.wanders {
        found.reason =
            "it wanders as a random walk does: no trend can be told from chance".to_owned();
    } else if slope.high < margin && step.is_none() {
        found.judged = Judged::Stable;
        found.reason = format!("any trend is below {:.1} % per day", margin * 100.0);
    } else {
        let half = slope.high - slope.slope;
        let room = margin - slope.slope;
        found.reason = format!(
            "the slope lies between {:+.1} and {:+.1} % per day",
            slope.low * 100.0,
            slope.high * 100.0
        );
        // The error of a slope falls with the length to the power of 3/2 where noise stays the same.
        found.needs_more_h = (room.abs() > 0.0)
            .then(|| (length_h * (half / room.abs()).powf(2.0 / 3.0) - length_h).max(0.0));
    }
}

/// By how much the last level lies above the first, when there are steps.
fn last_level(changes: &[Change]) -> Option<f64> {
    (!changes.is_empty()).then(|| changes.iter().map(|change| change.by).sum())
}

/// Whether steps describe the blocks better than a line does, by the sum of squares per degree of freedom.
fn steps_fit_better(blocks: &[(f64, f64)], changes: &[Change]) -> bool {
    let values: Vec<f64> = blocks.iter().map(|b| b.1).collect();
    let line: f64 = super::kendall::detrended(&values).iter().map(|e| e * e).sum();
    let mut from = 0;
    let mut steps = 0.0;
    let ends = changes.iter().map(|change| change.block).chain([values.len()]);
    for to in ends {
        let part = &values[from..to];
        let mean = part.iter().sum::<f64>() / part.len().max(1) as f64;
        steps += part.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        from = to;
    }
    let n = values.len() as f64;
    steps / (n - 1.0 - 2.0 * changes.len() as f64).max(1.0) < line / (n - 2.0)
}

/// Windows per block: four times the memory, and no more than 200 blocks.
fn block_length(points: &[(f64, f64)]) -> usize {
    let values: Vec<f64> = points.iter().map(|p| p.1).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to the length")]
    let by_memory = (4.0 * memory(&values)).ceil() as usize;
    by_memory.max(points.len().div_ceil(BLOCKS.0)).max(1)
}

/// Means over whole blocks of `block` windows.
fn means(points: &[(f64, f64)], block: usize) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks_exact(block).map(mean).collect()
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}
