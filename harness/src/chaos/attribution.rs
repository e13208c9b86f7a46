//! Where the time of the slowest requests went while a fault lasted: what `tailbeam latency` says of the windows that its
//! injections lay in, in short. Nothing is judged by it; it says why the tail was what the judgement found it to be.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::record::FaultRecord;
use crate::evidence::Intervals;
use crate::report::Measured;
use crate::report::latency::{self, Band, Blame, Check, Holds, LatencyReport, Question, StageMean};

/// Stages and causes that are told.
const TOLD: usize = 3;

/// What the windows of a fault say of its tail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// The run, for whoever asks `latency` for all of it.
    pub run: String,
    /// First and last instant of the windows, s after the run's start. They hold more than the fault.
    pub from_s: f64,
    /// Last.
    pub to_s: f64,
    /// The slowest band that has requests, and how many.
    pub band: String,
    /// Requests in it.
    pub requests: u64,
    /// Their mean system latency, ns.
    pub mean_ns: f64,
    /// Their largest stages, largest first.
    pub stages: Vec<StageMean>,
    /// Of each request, the time behind the CPU quota of the process, ns; `None`: there was none, or `fleet` says that
    /// causes are unknown.
    pub throttled_ns: Option<f64>,
    /// The largest causes of their waits.
    pub waits: Vec<Blame>,
    /// What quotas, links, full mailboxes and the way to a second process did in all requests of these windows, in words;
    /// and why the causes of the band are unknown, where they are.
    pub fleet: Vec<String>,
    /// Whether the windows add up.
    pub holds: Holds,
    /// Which comparisons of them fail, with both sides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// Of a fault's injections into the run in `dir`. `axis_ns`: where the series' slots begin on the clock of the run, ns.
#[must_use]
pub fn tail(dir: &Path, fault: &FaultRecord, axis_ns: u64) -> Option<Measured<Tail>> {
    if !fault.fault.act.is_of_the_service() {
        return None;
    }
    let from_ns = fault.trials.iter().map(|trial| trial.span.injected_ns).min()?;
    let to_ns = fault.trials.iter().map(|trial| trial.span.reverted_ns).max()?;
    let remedy = "ask `tailbeam latency` for the subject's run";
    if fault.fault.act.restarts() || fault.fault.act.is_of_the_start() {
        let cause = "the process that suffered it has ended, or had another clock";
        return Some(Measured::unknown(cause, remedy));
    }
    let found = Intervals::open(dir).map_err(|error| error.to_string()).and_then(|intervals| {
        let after = |ns: u64| (axis_ns + ns).saturating_sub(intervals.manifest.start_ns);
        let (from_ns, to_ns) = (after(from_ns), after(to_ns));
        // Who asks for no slow request is told no causes either.
        let question = Question { from_ns, to_ns, ..Question::default() };
        latency::build_with_fleet(dir, &question).map_err(|error| error.to_string())
    });
    Some(match found {
        Ok((report, fleet)) => in_short(&report, fleet),
        Err(cause) => Measured::unknown(cause, remedy),
    })
}

fn in_short(report: &LatencyReport, mut fleet: Vec<String>) -> Measured<Tail> {
    let with_requests = |band: &&Band| band.composition.count > 0;
    let band = report.bands.iter().rev().find(with_requests);
    let Some((band, &mean_ns)) =
        band.and_then(|band| Some((band, band.composition.mean_ns.known()?)))
    else {
        return Measured::unknown("these windows have no request", "a higher load");
    };
    let mut stages = band.composition.stages.clone();
    stages.sort_by(|a, b| b.mean_ns.total_cmp(&a.mean_ns));
    stages.truncate(TOLD);
    stages.retain(|of| of.share >= 0.01);
    let causes = band.causes.known();
    if let Measured::Unknown { unknown, .. } = &band.causes {
        fleet.push(format!("what these requests waited behind is unknown: {unknown}"));
    }
    Measured::Known(Tail {
        run: report.run.id.clone(),
        from_s: report.run.from_s,
        to_s: report.run.to_s,
        band: band.name.clone(),
        requests: band.composition.count,
        mean_ns,
        stages,
        throttled_ns: causes.and_then(|of| of.throttled.as_ref()).map(|part| part.mean),
        waits: causes.map_or_else(Vec::new, |of| of.waits.iter().take(TOLD).cloned().collect()),
        fleet,
        holds: report.conservation.holds,
        failed: report.conservation.checks.iter().filter_map(failed).collect(),
    })
}

/// A comparison that fails, in words.
fn failed(check: &Check) -> Option<String> {
    if check.holds != Holds::Fail {
        return None;
    }
    let sides = check.left.zip(check.right).zip(check.allowed);
    let sides = sides.map_or_else(String::new, |((left, right), allowed)| {
        format!(" ({left:.4} and {right:.4} {}, {allowed:.4} apart at most)", check.unit)
    });
    let place = check.misfit.as_ref().map(|place| format!(", {place}")).unwrap_or_default();
    Some(format!("{}{sides}{place}", check.name))
}
