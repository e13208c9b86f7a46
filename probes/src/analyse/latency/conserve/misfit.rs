//! Which stage does not fit: the tables against the stamps of the requests that were written down whole.

use super::super::bands::{Band, Bands};
use super::super::sample::{Drawn, drawn, estimate};
use super::super::stages::{stages as cut, sum_ns, system_ns};
use super::Given;
use super::check::{Check, Figures, Misfit, What};
use crate::record::latency::{Exemplar, LatencyWindow, Stage, Stamps};

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

/// Each band's mean stages in the tables, against those of its exemplars. Stages that were exchanged for
/// one another keep the sum, and are seen only here.
///
/// Within a band no stage is longer than the band's end, so a bound for bounded values holds without any
/// assumption on the tail: `sqrt(2 V ln(2/d) / n) + 7 M ln(2/d) / (3 (n - 1))` (empirical Bernstein: Maurer
/// and Pontil, 2009).
pub(super) fn stages(given: &Given<'_>, found: &Bands) -> Vec<Check> {
    let checks: Vec<Check> = found
        .bands
        .iter()
        .enumerate()
        .filter_map(|(band, cut)| of_stages(given, band, cut))
        .collect();
    if !checks.is_empty() {
        return checks;
    }
    let cause = "too few requests were written down whole to tell the stages of any band";
    let remedy = "record longer, or keep more exemplars per window";
    vec![Check::unknown(What::Stages { band: 0 }, "exemplars", cause, remedy)]
}

fn of_stages(given: &Given<'_>, index: usize, band: &Band) -> Option<Check> {
    let sample = drawn(given.windows, band);
    let most = sample.iter().map(|drawn| system_ns(&drawn.exemplar.stamps)).max()?;
    let end = if band.range_ns.1 == u64::MAX { most } else { band.range_ns.1 };
    let mean = band.mean_system_ns();
    let mut worst: Option<(f64, Figures)> = None;
    let mut wrong = Vec::new();
    for stage in Stage::ALL {
        let figures = compared(&sample, band, stage, end)?;
        if figures.allowed > BLUNT * mean {
            return None;
        }
        let figures = Figures { allowed: figures.allowed + given.clock_ns as f64, ..figures };
        if figures.residual().abs() > figures.allowed {
            wrong.push(stage);
        }
        let by = figures.residual().abs() - figures.allowed;
        if worst.is_none_or(|(most, _)| by > most) {
            worst = Some((by, figures));
        }
    }
    let (by, figures) = worst?;
    let what = What::Stages { band: index };
    Some(Check::of(what, figures, by <= 0.0, || Misfit::Stages(wrong)))
}

fn compared(sample: &[Drawn<'_>], band: &Band, stage: Stage, end_ns: u64) -> Option<Figures> {
    let found = estimate(sample, |exemplar| Some(stage_ns(exemplar, stage)))?;
    if found.n < FEW {
        return None;
    }
    let tests = (super::super::bands::CUTS.len() * Stage::ALL.len()) as f64;
    let log = (2.0 * tests / CHANCE).ln();
    let most = end_ns as f64 * found.skew;
    let allowed =
        (2.0 * log).sqrt() * found.error + 7.0 * most * log / (3.0 * (found.n as f64 - 1.0));
    Some(Figures { left: band.mean_ns(stage), right: found.mean, allowed, n: found.n })
}
