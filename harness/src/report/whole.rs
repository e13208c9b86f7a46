//! The whole report of a run: what [`build`](super::build()) says, and all that a page shows of it: the run
//! over time, latency by percentile and by stage, counters, what measuring cost, host and plan.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::counters::{self, CountersReport, Slots};
use super::curve::Curve;
use super::latency::{self, LatencyError, LatencyReport, Question};
use super::timeline::{self, Timeline};
use super::{CostSection, Measured, Report, ReportError, build};
use crate::plan::Plan;
use crate::verdict::Gate;

/// Slow requests that it lists one by one.
const OUTLIERS: usize = 20;

/// Everything that is known of a run.
#[derive(Debug, Serialize)]
pub struct Whole {
    /// The report.
    #[serde(flatten)]
    pub report: Report,
    /// The run over time.
    pub timeline: Measured<Timeline>,
    /// Latency by percentile.
    pub curves: Measured<Vec<Curve>>,
    /// Where the time went.
    pub stages: Measured<LatencyReport>,
    /// What each core counted, over the whole run; slots are left to `tailbeam counters`.
    pub counters: Measured<CountersReport>,
    /// What measuring cost.
    pub cost: Measured<CostSection>,
    /// The host as it was described at the start.
    pub host: Measured<Value>,
    /// The frozen plan.
    pub plan: Measured<Plan>,
}

/// Builds the whole report of the run in `dir`, judged by `gates` or by the plan's own. Reads the frames
/// several times: 0.1 s for a minute of two cores.
///
/// # Errors
/// [`ReportError`], as [`build`](super::build()); a part that cannot be had is unknown with its cause.
pub fn whole(dir: &Path, gates: Option<&[Gate]>) -> Result<Whole, ReportError> {
    let report = build(dir, gates)?;
    let made = timeline::build(dir)?;
    let question = Question { outliers: OUTLIERS, ..Question::default() };
    let slots = Slots { every_ns: None, rows_max: 1, core: None };
    let counters = counters::build(dir, &question, slots).map(|mut report| {
        report.cores.iter_mut().for_each(|core| core.slots.clear());
        report
    });
    Ok(Whole {
        report,
        timeline: Measured::Known(made.timeline),
        curves: Measured::Known(made.curves),
        stages: measured(latency::build(dir, &question)),
        counters: measured(counters),
        cost: made.cost,
        host: host(dir),
        plan: Measured::Known(made.plan),
    })
}

fn measured<T>(found: Result<T, LatencyError>) -> Measured<T> {
    match found {
        Ok(found) => Measured::Known(found),
        Err(error) => {
            let text = error.to_string();
            let line = |name: &str| {
                text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::to_owned)
            };
            Measured::unknown(
                line("cause: ").unwrap_or_else(|| text.clone()),
                line("remedy: ").unwrap_or_else(|| "see `tailbeam latency`".to_owned()),
            )
        }
    }
}

/// `host.json` is beside the frames and not in them: what is no JSON is unknown.
fn host(dir: &Path) -> Measured<Value> {
    let read = fs::read(dir.join("host.json")).map_err(|error| error.to_string());
    let host = read.and_then(|bytes| {
        serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string())
    });
    match host {
        Ok(host) => Measured::Known(host),
        Err(why) => Measured::unknown(format!("host.json: {why}"), "restore it from a copy"),
    }
}
