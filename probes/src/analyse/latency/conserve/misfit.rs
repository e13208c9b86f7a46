//! Which stage does not fit: the tables against the stamps of the requests that were written down whole.

use super::super::bands::{Band, Bands};
use super::super::bucket::{bucket_of, bucket_range};
use super::super::sample::{drawn, estimate};
use super::super::stages::{stages as cut, sum_ns, system_ns};
use super::Given;
use super::check::{Check, Figures, Misfit, What};
use crate::record::latency::{Exemplar, LatencyWindow, STAGES, Stage, Stamps, Why};

/// Requests below which a sample tells nothing about a stage.
const FEW: u64 = 8;
/// Chance that a sound run is called wrong here, over all bands and stages.
const CHANCE: f64 = 1e-4;
/// A comparison that would not see a quarter of the latency cannot fail, and is not made.
const BLUNT: f64 = 0.25;
/// Standard errors, and share of the residual, within which a stage's difference is the residual.
const NEAR: (f64, f64) = (3.0, 0.2);

/// Stages of an exemplar as its stamps give them, whatever their order.
fn stage_ns(exemplar: &Exemplar, stage: Stage) -> f64 {
    cut(&exemplar.stamps, u64::MAX).stages[stage.index()] as f64
}

fn signed(a: u64, b: u64) -> f64 {
    a as f64 - b as f64
}

/// What the responder's own times leave between the turn and the answer.
fn handler_gap(stamps: &Stamps) -> f64 {
    if stamps.answered_ns == 0 {
        return 0.0;
    }
    let from = if stamps.due_ns == 0 { stamps.out.turn_ns } else { stamps.timer_turn_ns };
    let known = stamps.service_ns + stamps.suspended_ns + stamps.resume_wait_ns;
    signed(stamps.answered_ns, from) - known as f64
}

/// What a due instant is later than the planned delay says.
fn plan_gap(stamps: &Stamps) -> f64 {
    if stamps.due_ns == 0 || stamps.answered_ns == 0 {
        return 0.0;
    }
    signed(stamps.due_ns, stamps.out.turn_ns) - stamps.planned_ns as f64
}

/// Where a band's residual comes from.
pub(super) fn of_band(windows: &[LatencyWindow], band: &Band) -> Misfit {
    let sample = drawn(windows, band);
    let residual = band.mean_system_ns() - band.sums.mean_staged_ns();
    let is_it = |value: &dyn Fn(&Stamps) -> f64| {
        estimate(&sample, |exemplar| Some(value(&exemplar.stamps))).is_some_and(|found| {
            found.n >= FEW
                && near(found.mean, residual, found.error)
                && beyond(found.mean, found.error)
        })
    };
    if is_it(&handler_gap) {
        return Misfit::Handler;
    }
    if is_it(&plan_gap) {
        return Misfit::Plan;
    }
    // The stamps add up, or in another way: only where they do can they say what the tables lack.
    let own = |stamps: &Stamps| signed(system_ns(stamps), sum_ns(&cut(stamps, u64::MAX).stages));
    if is_it(&own) {
        return Misfit::Unclear;
    }
    let fitting: Vec<Stage> = Stage::ALL
        .into_iter()
        .filter(|stage| {
            estimate(&sample, |exemplar| Some(stage_ns(exemplar, *stage))).is_some_and(|found| {
                let lacks = found.mean - band.mean_ns(*stage);
                found.n >= FEW && near(lacks, residual, found.error) && beyond(lacks, found.error)
            })
        })
        .collect();
    match fitting.len() {
        1 => Misfit::Stages(fitting),
        _ => Misfit::Unclear,
    }
}

fn near(found: f64, residual: f64, error: f64) -> bool {
    (found - residual).abs() <= NEAR.0 * error + NEAR.1 * residual.abs()
}

fn beyond(found: f64, error: f64) -> bool {
    found != 0.0 && found.abs() > NEAR.0 * error
}

/// Each band's stages in the tables, against those of its exemplars, as shares of the latency. Stages that
/// were exchanged for one another keep the sum, and are seen only here.
///
/// An exemplar is a fair draw among the requests of its bucket, window and core, of which the tables hold the
/// exact means: so what it is away from them has mean 0, whatever the draws' rates were. As a share of the
/// bucket's end it is bounded, and a bound for bounded values needs no assumption on the tail:
/// `sqrt(2 V ln(2/d) / n) + 7 ln(2/d) / (3 (n - 1))` (empirical Bernstein: Maurer and Pontil, 2009).
pub(super) fn stages(given: &Given<'_>, found: &Bands) -> Vec<Check> {
    let pairs = pairs(given.windows);
    let checks: Vec<Check> = (0..found.bands.len())
        .filter_map(|band| of_stages(&pairs, band, &found.bands[band]))
        .collect();
    if !checks.is_empty() {
        return checks;
    }
    let cause = "too few requests were written down whole to tell the stages of any band";
    let remedy = "record longer, or keep more exemplars per window";
    vec![Check::unknown(What::Stages { band: 0 }, "exemplars", cause, remedy)]
}

/// Shares of an exemplar's stages, and those of the requests around it.
struct Pair {
    bucket: usize,
    own: [f64; STAGES],
    table: [f64; STAGES],
}

fn pairs(windows: &[LatencyWindow]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for window in windows {
        for exemplar in window.exemplars.iter().filter(|exemplar| exemplar.why != Why::Top) {
            let system = system_ns(&exemplar.stamps);
            let bucket = bucket_of(system);
            let around = window.buckets.iter().find(|sums| usize::from(sums.bucket) == bucket);
            let Some(around) = around else { continue };
            let end = bucket_range(bucket).1;
            let end = if end == u64::MAX { system } else { end } as f64;
            pairs.push(Pair {
                bucket,
                own: Stage::ALL.map(|stage| stage_ns(exemplar, stage) / end),
                table: Stage::ALL.map(|stage| around.sums.mean_ns(stage) / end),
            });
        }
    }
    pairs
}

fn of_stages(pairs: &[Pair], index: usize, band: &Band) -> Option<Check> {
    let inside = band.buckets.0..band.buckets.1;
    let sample: Vec<&Pair> = pairs.iter().filter(|pair| inside.contains(&pair.bucket)).collect();
    let mut worst: Option<(f64, Figures)> = None;
    let mut wrong = Vec::new();
    for stage in Stage::ALL {
        let figures = compared(&sample, stage)?;
        let by = figures.residual().abs() - figures.allowed;
        if by > 0.0 {
            wrong.push(stage);
        } else if figures.allowed > BLUNT {
            return None;
        }
        if worst.is_none_or(|(most, _)| by > most) {
            worst = Some((by, figures));
        }
    }
    let (by, figures) = worst?;
    let what = What::Stages { band: index };
    Some(Check::of(what, figures, by <= 0.0, || Misfit::Stages(wrong)))
}

fn compared(sample: &[&Pair], stage: Stage) -> Option<Figures> {
    let n = sample.len() as f64;
    if (sample.len() as u64) < FEW {
        return None;
    }
    let cell = stage.index();
    let mean =
        |of: fn(&Pair) -> &[f64; STAGES]| sample.iter().map(|pair| of(pair)[cell]).sum::<f64>() / n;
    let (left, right) = (mean(|pair| &pair.table), mean(|pair| &pair.own));
    let squares: f64 =
        sample.iter().map(|pair| (pair.own[cell] - pair.table[cell] - right + left).powi(2)).sum();
    let tests = (super::super::bands::CUTS.len() * STAGES) as f64;
    let log = (2.0 * tests / CHANCE).ln();
    let allowed = (2.0 * squares / (n - 1.0) * log / n).sqrt() + 7.0 * log / (3.0 * (n - 1.0));
    Some(Figures { left, right, allowed, n: sample.len() as u64 })
}
