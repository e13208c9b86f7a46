//! The leak gate: judged from the heap state in the run directory.

use std::path::Path;

use tailbeam_probes::analyse::leak::{Interval, LeakConfig, LeakReport, Verdict, analyse};
use tailbeam_probes::record::heap_file;
use tailbeam_probes::stats::Judgement;

use crate::evidence::{HEAP_STATE, RunFrames};
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
    match heap_file::read(&dir.join(HEAP_STATE)) {
        Ok(snapshot) => {
            let report = analyse(&snapshot, &leak_config(&run.plan, below));
            judged(result, &report, snapshot.sampler.taken)
        }
        Err(error) => GateResult { reason: format!("{HEAP_STATE}: {error}"), ..result },
    }
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
    let mb = |bytes: f64| bytes / 1e6;
    let growth = report.gate.rate.map_or_else(
        || "growth unknown".to_owned(),
        |Interval { estimate, low, high }| {
            format!("{:+.2} MB/h [{:+.2}, {:+.2}]", mb(estimate), mb(low), mb(high))
        },
    );
    let (leaks, suspects) = (report.count(Verdict::Leak), report.count(Verdict::Suspect));
    format!("{growth}, {leaks} LEAK, {suspects} SUSPECT")
}
