//! What measuring cost, as the run has measured it.

use serde::{Deserialize, Serialize};
use tailbeam_probes::analyse::overhead::{self, Difference, NoCost, PAIRS_MIN, Pair};

use super::Measured;
use crate::evidence::records::WindowRecord;
use crate::plan::{CostPlan, Plan};

/// A signed difference with its 95 % interval: with measuring, less without.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Signed {
    /// Mean over the pairs.
    pub mean: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl From<Difference> for Signed {
    fn from(difference: Difference) -> Self {
        let Difference { mean, low, high } = difference;
        Self { mean, low, high }
    }
}

/// What measuring cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostSection {
    /// Whether it was switched at all: `false` compares like with like and must find nothing.
    pub switched: bool,
    /// Pairs of neighbouring seconds.
    pub pairs: u64,
    /// CPU time of all cores, as a share of their capacity.
    pub cpu_share: Signed,
    /// CPU time of a request, ns.
    pub cpu_per_request_ns: Signed,
    /// Replies per second, relative. In an open loop that is not saturated it says nothing.
    pub throughput: Signed,
    /// Mean system latency, ns.
    pub mean_ns: Signed,
    /// 99th percentile of a second, ns.
    pub p99_ns: Signed,
    /// Steps down in what was measured, in words.
    pub lowered: Vec<String>,
}

/// The cost in these windows of a run on so many cores.
#[must_use]
pub fn cost(windows: &[WindowRecord], plan: &Plan, cores: usize) -> Measured<CostSection> {
    let pairs: Vec<Pair> =
        windows.iter().flat_map(|window| &window.cost).map(|pair| pair.pair()).collect();
    let (off, short) = (plan.observe.cost == CostPlan::Off, plan.observe.window_ns());
    let lowered = windows.iter().flat_map(|window| &window.lowered).map(|step| {
        format!("{:.2} % of a core: from {} to {}", step.share * 100.0, step.from, step.to)
    });
    match overhead::cost(&pairs, cores) {
        Ok(cost) => Measured::Known(CostSection {
            switched: plan.observe.cost == CostPlan::Pairs,
            pairs: cost.pairs as u64,
            cpu_share: cost.cpu_share.into(),
            cpu_per_request_ns: cost.cpu_per_request_ns.into(),
            throughput: cost.throughput.into(),
            mean_ns: cost.mean_ns.into(),
            p99_ns: cost.p99_ns.into(),
            lowered: lowered.collect(),
        }),
        Err(NoCost::TooFew { .. }) if !plan.observe.on => {
            Measured::unknown("nothing was observed", "record a run with --observe on")
        }
        Err(NoCost::TooFew { .. }) if off => {
            Measured::unknown("the plan did not ask for it", "record a run with --own-cost pairs")
        }
        Err(NoCost::TooFew { pairs }) => Measured::unknown(
            format!("{pairs} pairs of seconds; an interval takes {PAIRS_MIN}"),
            format!(
                "let it run for {PAIRS_MIN} windows of {} s and one more",
                (short / 1_000_000_000).max(8)
            ),
        ),
    }
}
