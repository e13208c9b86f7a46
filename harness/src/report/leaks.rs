//! The leak gate: judged from the heap state in the run directory.

use std::path::Path;

use tailbeam_probes::analyse::leak::{Interval, LeakConfig, LeakReport, Verdict, analyse};
use tailbeam_probes::record::heap_file;
use tailbeam_probes::stats::Judgement;

use super::epochs::covered;
use crate::evidence::{Epoch, RunFrames, heap_state};
use crate::plan::Plan;
use crate::verdict::{Gate, GateResult, GateVerdict};

/// How a plan's heap is judged against a limit, bytes/h.
#[must_use]
pub fn leak_config(plan: &Plan, below: f64) -> LeakConfig {
    let config = LeakConfig::default();
    let horizon_ns = plan.heap.horizon_ns.unwrap_or(config.horizon_ns);
    LeakConfig {
        limit: below,
        floor: below / 2.0,
        warm_up_ns: plan.heap.warm_up_ns.unwrap_or(config.warm_up_ns),
        horizon_ns,
        // What may outlive its agent is what waits somewhere.
        grace_ns: config.grace_ns.min(horizon_ns / 3),
        owners: Some(plan.agents),
        ..config
    }
}

/// Judges the heap of the run in `dir`.
pub(super) fn gate(gate: &Gate, below: f64, dir: &Path, run: &RunFrames) -> GateResult {
    let result = GateResult {
        gate: gate.name(),
        requirement: gate.requirement(),
        measured: "unknown".to_owned(),
        n: 0,
        blocks: None,
        verdict: GateVerdict::Inconclusive,
        reason: String::new(),
        needs_more_s: None,
        latency: false,
    };
    if let Some(why) = &run.manifest.no_heap {
        let reason = format!("the heap was not sampled: {}; {}", why.unknown, why.remedy);
        return GateResult { reason, ..result };
    }
    let epochs = run.epochs.iter().map(|epoch| epoch.number).max().unwrap_or(1);
    let of = |epoch: u32| {
        let name = heap_state(epoch, epochs);
        match heap_file::read(&dir.join(&name)) {
            Ok(snapshot) => {
                let report = analyse(&snapshot, &leak_config(&run.plan, below));
                let taken = snapshot.sampler.taken;
                (judged(result.clone(), &report, taken), Some(report))
            }
            Err(error) => {
                (GateResult { reason: format!("{name}: {error}"), ..result.clone() }, None)
            }
        }
    };
    if epochs == 1 {
        return of(1).0;
    }
    let each: Vec<(u32, GateResult, Option<LeakReport>)> = (1..=epochs)
        .map(|epoch| {
            let (result, report) = of(epoch);
            (epoch, result, report)
        })
        .collect();
    over_epochs(result, &each, &run.epochs, below)
}

/// The gate over several processes. Each has a heap of its own and a slope of its own: they are pooled by the inverse
/// of their variances, and no line goes through a restart.
fn over_epochs(
    result: GateResult,
    each: &[(u32, GateResult, Option<LeakReport>)],
    epochs: &[Epoch],
    below: f64,
) -> GateResult {
    let reports = || each.iter().filter_map(|(_, _, report)| report.as_ref());
    let rates: Vec<Interval> = reports().filter_map(|report| report.gate.rate).collect();
    let pooled = pooled(&rates);
    let count = |verdict| reports().map(|report| report.count(verdict)).sum::<usize>();
    let growth = growth(pooled);
    let (leaks, suspects) = (count(Verdict::Leak), count(Verdict::Suspect));
    let passes = |number: u32| {
        let own = each.iter().find(|(epoch, ..)| *epoch == number);
        own.is_some_and(|(_, result, _)| result.verdict == GateVerdict::Pass)
    };
    let failed = each.iter().any(|(_, result, _)| result.verdict == GateVerdict::Fail);
    let verdict = if failed || pooled.is_some_and(|rate| rate.low > below) {
        GateVerdict::Fail
    } else if covered(epochs, passes) && pooled.is_some_and(|rate| rate.high < below) {
        GateVerdict::Pass
    } else {
        GateVerdict::Inconclusive
    };
    let said =
        each.iter().map(|(epoch, of, _)| format!("epoch {epoch}: {}, {}", of.measured, of.reason));
    GateResult {
        measured: format!("{growth} over {} epochs, {leaks} LEAK, {suspects} SUSPECT", each.len()),
        n: each.iter().map(|(_, of, _)| of.n).sum(),
        verdict,
        reason: said.collect::<Vec<_>>().join("; "),
        needs_more_s: each.last().and_then(|(_, of, _)| of.needs_more_s),
        ..result
    }
}

/// Weighted by the inverse of their variances; of widths alone, as each is a 95 % interval.
fn pooled(rates: &[Interval]) -> Option<Interval> {
    let weighed = rates.iter().filter_map(|rate| {
        let half = (rate.high - rate.low) / 2.0;
        (half > 0.0 && half.is_finite()).then(|| (1.0 / (half * half), rate.estimate))
    });
    let (weights, sum) =
        weighed.fold((0.0, 0.0), |(w, s), (weight, at)| (w + weight, s + weight * at));
    (weights > 0.0).then(|| {
        let (estimate, half) = (sum / weights, weights.sqrt().recip());
        Interval { estimate, low: estimate - half, high: estimate + half }
    })
}

fn judged(result: GateResult, report: &LeakReport, samples: u64) -> GateResult {
    let cause = report.gate.cause.clone();
    let (verdict, reason, needs_more_s) = match &report.gate.judgement {
        Judgement::Pass => (GateVerdict::Pass, cause, None),
        Judgement::Fail => (GateVerdict::Fail, cause, None),
        Judgement::Undecided { reason, needed_s } => {
            (GateVerdict::Inconclusive, reason.clone(), *needed_s)
        }
    };
    GateResult { measured: measured(report), n: samples, verdict, reason, needs_more_s, ..result }
}

fn measured(report: &LeakReport) -> String {
    let growth = growth(report.gate.rate);
    let (leaks, suspects) = (report.count(Verdict::Leak), report.count(Verdict::Suspect));
    format!("{growth}, {leaks} LEAK, {suspects} SUSPECT")
}

fn growth(rate: Option<Interval>) -> String {
    let mb = |bytes: f64| bytes / 1e6;
    rate.map_or_else(
        || "growth unknown".to_owned(),
        |Interval { estimate, low, high }| {
            format!("{:+.2} MB/h [{:+.2}, {:+.2}]", mb(estimate), mb(low), mb(high))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_epochs_are_pooled_by_what_each_is_worth() {
        let rate = |estimate: f64, half: f64| Interval {
            estimate,
            low: estimate - half,
            high: estimate + half,
        };
        let found = pooled(&[rate(1.0, 1.0), rate(3.0, 1.0)]).unwrap();
        assert!(
            (found.estimate - 2.0).abs() < 1e-9
                && (found.high - found.estimate - 0.5f64.sqrt()).abs() < 1e-9
        );
        // A short epoch, whose slope may be anything, moves nothing.
        let found = pooled(&[rate(0.1, 0.1), rate(90.0, 100.0)]).unwrap();
        assert!((found.estimate - 0.1).abs() < 0.001, "{found:?}");
        assert!(pooled(&[]).is_none() && pooled(&[rate(1.0, f64::INFINITY)]).is_none());
    }
}
