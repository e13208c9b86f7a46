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

/// A heap that was judged, with the samples that were taken, or why none was.
type Found = Result<(LeakReport, u64), String>;

/// The heaps of a run's epochs, each judged against a limit.
pub(super) struct Heaps {
    below: f64,
    /// By epoch.
    each: Vec<(u32, Found)>,
}

impl Heaps {
    /// Reads and judges the heaps of the run in `dir` against `below` bytes/h; none when none was sampled.
    pub(super) fn read(dir: &Path, run: &RunFrames, below: f64) -> Self {
        let epochs = run.epochs.iter().map(|epoch| epoch.number).max().unwrap_or(1);
        let of = |epoch: u32| {
            let name = heap_state(epoch, epochs);
            let snapshot =
                heap_file::read(&dir.join(&name)).map_err(|error| format!("{name}: {error}"))?;
            let taken = snapshot.sampler.taken;
            Ok((analyse(&snapshot, &leak_config(&run.plan, below)), taken))
        };
        let sampled = if run.manifest.no_heap.is_none() { epochs } else { 0 };
        Self { below, each: (1..=sampled).map(|epoch| (epoch, of(epoch))).collect() }
    }

    /// Why there is nothing to say of the last epoch's heap; none where there is.
    pub(super) fn why_none(&self, run: &RunFrames) -> Option<(String, String)> {
        if let Some(why) = &run.manifest.no_heap {
            return Some((why.unknown.clone(), why.remedy.clone()));
        }
        let error = self.each.last()?.1.as_ref().err()?;
        Some((error.clone(), "see `tailbeam runs fsck`".to_owned()))
    }

    /// Those that could be read.
    pub(super) fn reports(&self) -> impl Iterator<Item = &LeakReport> {
        self.each.iter().filter_map(|(_, found)| Some(&found.as_ref().ok()?.0))
    }

    /// Judges them by `gate`.
    pub(super) fn gate(&self, gate: &Gate, run: &RunFrames) -> GateResult {
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
        let of = |found: &Found| match found {
            Ok((report, taken)) => judged(result.clone(), report, *taken),
            Err(reason) => GateResult { reason: reason.clone(), ..result.clone() },
        };
        match &self.each[..] {
            [(_, one)] => of(one),
            several => {
                let each: Vec<(u32, GateResult)> =
                    several.iter().map(|(epoch, found)| (*epoch, of(found))).collect();
                self.over_epochs(result, &each, &run.epochs)
            }
        }
    }

    /// The gate over several processes. Each has a heap of its own and a slope of its own: they are pooled by the
    /// inverse of their variances, and no line goes through a restart.
    fn over_epochs(
        &self,
        result: GateResult,
        each: &[(u32, GateResult)],
        epochs: &[Epoch],
    ) -> GateResult {
        let rates: Vec<Interval> = self.reports().filter_map(|report| report.gate.rate).collect();
        let pooled = pooled(&rates);
        let count = |verdict| self.reports().map(|report| report.count(verdict)).sum::<usize>();
        let growth = growth(pooled);
        let (leaks, suspects) = (count(Verdict::Leak), count(Verdict::Suspect));
        let passes = |number: u32| {
            let own = each.iter().find(|(epoch, _)| *epoch == number);
            own.is_some_and(|(_, result)| result.verdict == GateVerdict::Pass)
        };
        let failed = each.iter().any(|(_, result)| result.verdict == GateVerdict::Fail);
        let verdict = if failed || pooled.is_some_and(|rate| rate.low > self.below) {
            GateVerdict::Fail
        } else if covered(epochs, passes) && pooled.is_some_and(|rate| rate.high < self.below) {
            GateVerdict::Pass
        } else {
            GateVerdict::Inconclusive
        };
        let said =
            each.iter().map(|(epoch, of)| format!("epoch {epoch}: {}, {}", of.measured, of.reason));
        GateResult {
            measured: format!(
                "{growth} over {} epochs, {leaks} LEAK, {suspects} SUSPECT",
                each.len()
            ),
            n: each.iter().map(|(_, of)| of.n).sum(),
            verdict,
            reason: said.collect::<Vec<_>>().join("; "),
            needs_more_s: each.last().and_then(|(_, of)| of.needs_more_s),
            ..result
        }
    }
}

/// Weighted by the inverse of their variances; of widths alone, as each is a 95 % interval. A series that did not move has
/// no width, and is known to a byte per hour.
pub(super) fn pooled(rates: &[Interval]) -> Option<Interval> {
    let weighed = rates.iter().filter_map(|rate| {
        let half = (rate.high - rate.low) / 2.0;
        let half = if half > 0.0 { half } else { 1.0 };
        half.is_finite().then(|| (1.0 / (half * half), rate.estimate))
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
        // Nothing moved: that is known, and counts.
        let flat = pooled(&[rate(0.0, 0.0), rate(0.0, 0.0)]).unwrap();
        assert!(flat.estimate.abs() < 1e-9 && flat.high < 1.0, "{flat:?}");
        let one = pooled(&[rate(0.0, 0.0), rate(1e6, 1e5)]).unwrap();
        assert!(one.estimate < 1.0, "{one:?}");
    }
}
