//! Steps in a series of block means: the best split against permutations of the blocks.

use serde::{Deserialize, Serialize};

use crate::load::{Draw, Stream};

/// Blocks on each side of a step.
const SEGMENT_MIN: usize = 10;
/// Steps that are looked for.
const CHANGES_MAX: usize = 8;
/// Permutations that a step is compared with, at least and at most.
const PERMUTATIONS: (u64, u64) = (999, 99_999);
/// So many of them may reach a step at the level: a level of 2.5 % takes 1,000 orders.
const RESOLUTION: f64 = 25.0;
/// Of the draws that permute.
const SEED: u64 = 0x7374_6570;

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// First block after it.
    pub block: usize,
    /// Onset, h on the series' own clock: between these two.
    pub at_h: f64,
    /// The onset lies after this, h.
    pub from_h: f64,
    /// And before this.
    pub to_h: f64,
    /// Difference of the levels as a share; above 0 is worse.
    pub by: f64,
    /// Probability of a split as good in blocks of any order.
    pub p: f64,
}

/// The steps in `(hours, mean)` of blocks, in their order: binary splits, each significant at the first of `levels` and
/// larger than `margin`, with ten blocks at least on either side. Their probabilities can be compared with the second.
pub(super) fn changes(blocks: &[(f64, f64)], levels: (f64, f64), margin: f64) -> Vec<Change> {
    let values: Vec<f64> = blocks.iter().map(|b| b.1).collect();
    let mut cuts: Vec<(usize, f64)> = Vec::new();
    let mut waiting = vec![(0, values.len())];
    while let Some((from, to)) = waiting.pop() {
        let part = &values[from..to];
        let Some((at, best)) = best_split(part) else { continue };
        let shift = mean(&part[at..]) - mean(&part[..at]);
        if cuts.len() >= CHANGES_MAX || shift.abs() <= margin {
            continue;
        }
        let p = permuted(part, best, from as u64, levels.1);
        if p <= levels.0 {
            cuts.push((from + at, p));
            waiting.extend([(from, from + at), (from + at, to)]);
        }
    }
    cuts.sort_unstable_by_key(|cut| cut.0);
    described(blocks, &values, &cuts)
}

fn described(blocks: &[(f64, f64)], values: &[f64], cuts: &[(usize, f64)]) -> Vec<Change> {
    let bounds: Vec<usize> =
        [0].into_iter().chain(cuts.iter().map(|cut| cut.0)).chain([values.len()]).collect();
    cuts.iter()
        .zip(bounds.windows(3))
        .map(|(&(block, p), bounds)| {
            let (before, after) = (&values[bounds[0]..block], &values[block..bounds[2]]);
            let (from_h, to_h) = (blocks[block - 1].0, blocks[block].0);
            Change {
                block,
                at_h: f64::midpoint(from_h, to_h),
                from_h,
                to_h,
                by: mean(after) - mean(before),
                p,
            }
        })
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The split with the largest difference of means, weighed by the lengths: its place and statistic.
fn best_split(values: &[f64]) -> Option<(usize, f64)> {
    let n = values.len();
    if n < 2 * SEGMENT_MIN {
        return None;
    }
    let total: f64 = values.iter().sum();
    let mut sum = 0.0;
    let mut best = None;
    for (at, value) in values.iter().enumerate() {
        if at >= SEGMENT_MIN && n - at >= SEGMENT_MIN {
            let (left, right) = (at as f64, (n - at) as f64);
            let statistic =
                ((total - sum) / right - sum / left).abs() * (left * right / n as f64).sqrt();
            if best.is_none_or(|(_, most)| statistic > most) {
                best = Some((at, statistic));
            }
        }
        sum += value;
    }
    best
}

/// Share of the permutations whose best split is at least as good, the order seen counted as one.
fn permuted(values: &[f64], statistic: f64, stream: u64, level: f64) -> f64 {
    let permutations = permutations(level);
    let mut shuffled = values.to_vec();
    let draw = Draw::new(SEED, stream);
    let mut k = 0;
    let mut reached = 1;
    for round in 0..permutations {
        for last in (1..shuffled.len()).rev() {
            let with = draw.below(k, Stream::Content, last as u64 + 1);
            k += 1;
            shuffled.swap(last, usize::try_from(with).expect("below the length"));
        }
        reached += u64::from(best_split(&shuffled).is_some_and(|(_, other)| other >= statistic));
        // Twenty times as many as a significant step may have: it will not become one.
        if reached as f64 > 20.0 * RESOLUTION {
            return reached as f64 / (round + 2) as f64;
        }
    }
    reached as f64 / (permutations + 1) as f64
}

/// How many it takes to tell a step at `level` from chance.
fn permutations(level: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded below")]
    let asked = (RESOLUTION / level.max(1e-9)) as u64;
    asked.saturating_sub(1).clamp(PERMUTATIONS.0, PERMUTATIONS.1)
}
