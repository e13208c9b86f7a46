//! What measuring cost, as the run has measured it.
//!
//! Measured: seconds with it beside seconds without it. Modelled beside it: how often each part of it ran, times
//! what one takes on this host, and the meters of its ticks. Two ways to one figure; where they are far apart, one
//! of them is wrong.

use serde::{Deserialize, Serialize};
use tailbeam_probes::analyse::overhead::{self, Difference, NoCost, PAIRS_MIN, Pair};

use super::Measured;
use crate::evidence::Interval;
use crate::evidence::records::{CostPair, EndRecord, LoweredRecord, Manifest, WindowRecord};
use crate::plan::{CostPlan, Plan};

/// Share of the cores from which on a second counts as saturated; the rest is waking up and the kernel's.
const SATURATED: f64 = 0.9;
/// Measured against modelled, beyond this factor: worth a warning.
const APART: f64 = 2.0;

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

impl Signed {
    /// Whether it is told from nothing.
    #[must_use]
    pub const fn is_found(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

impl From<Difference> for Signed {
    fn from(difference: Difference) -> Self {
        let Difference { mean, low, high } = difference;
        Self { mean, low, high }
    }
}

/// What measuring cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnCost {
    /// By seconds with and without.
    pub measured: Measured<CostSection>,
    /// By counts and what one takes.
    pub model: Measured<CostModel>,
    /// Loss of throughput where the cores have nothing to spare.
    pub saturated: Measured<SaturatedSection>,
    /// Steps down in what was measured, in their order.
    pub lowered: Vec<LoweredStep>,
}

/// What measuring cost, by pairs of neighbouring seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostSection {
    /// Whether it was switched at all: `false` compares like with like and must find nothing.
    pub switched: bool,
    /// Pairs of neighbouring seconds.
    pub pairs: u64,
    /// Cores of the shards.
    pub cores: u64,
    /// CPU time of all cores, as a share of their capacity; looking on for work is not counted.
    pub cpu_share: Signed,
    /// The same of the seconds with measuring, whole.
    pub cpu_on_share: f64,
    /// CPU time of a request, ns.
    pub cpu_per_request_ns: Signed,
    /// Replies per second in the seconds with measuring.
    pub replies_per_s: f64,
    /// Replies per second, relative. In an open loop that is not saturated it says nothing.
    pub throughput: Signed,
    /// Mean system latency, ns.
    pub mean_ns: Signed,
    /// 99th percentile of a second, ns.
    pub p99_ns: Signed,
}

/// What measuring should cost, by what it did and what one of each takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostModel {
    /// Of all cores' capacity: the three parts together.
    pub cpu_share: f64,
    /// Stamps of turns.
    pub turns_share: f64,
    /// Stages of requests.
    pub requests_share: f64,
    /// Ticks and readings of single requests, by their own meters.
    pub meters_share: f64,
    /// Turns per second, all cores.
    pub turns_per_s: f64,
    /// Requests per second, all cores.
    pub requests_per_s: f64,
    /// What the stamp of a turn takes here, ns.
    pub turn_ns: f64,
    /// What noting a request takes here, ns: the mean of those whose stages are noted and of those not drawn for it.
    pub request_ns: f64,
    /// Measured and modelled are more than twice apart, and the whole interval is.
    pub disagrees: bool,
}

/// Throughput of a closed loop that leaves the cores nothing to spare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaturatedSection {
    /// Whether measuring was switched: `false` compares like with like and must find nothing.
    pub switched: bool,
    /// Pairs of neighbouring spans.
    pub pairs: u64,
    /// Pairs in which a core had time to spare: they are in no figure.
    pub left_out: u64,
    /// Replies per second, relative to those without measuring.
    pub throughput: Signed,
    /// Replies per second with it.
    pub replies_per_s: f64,
    /// CPU time of all cores as a share of their capacity, the least of all spans.
    pub cpu_least_share: f64,
}

/// Measuring took more than its budget, and was lowered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoweredStep {
    /// When, s after the start.
    pub at_s: f64,
    /// Share of a core that measuring took in the minute before.
    pub share: f64,
    /// From, in words.
    pub from: String,
    /// To.
    pub to: String,
}

/// What windows say of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Costs {
    pairs: Vec<CostPair>,
    lowered: Vec<LoweredRecord>,
    turns: u64,
    /// With stages, and not drawn.
    requests: u64,
    undrawn: u64,
    self_ns: u64,
    /// Length of the ticks of all cores: time without measuring has none.
    wall_ns: u64,
}

impl Costs {
    /// Adds a window.
    pub(crate) fn add(&mut self, interval: &Interval) {
        self.pairs.extend_from_slice(&interval.record.cost);
        self.lowered.extend_from_slice(&interval.record.lowered);
        for window in &interval.latency {
            self.self_ns += window.self_ns;
            self.requests += window.buckets.iter().map(|of| of.sums.count).sum::<u64>();
            self.undrawn += window.more.undrawn.count;
            for tick in &window.ticks {
                self.turns += tick.turns;
                self.wall_ns += tick.to_ns.saturating_sub(tick.from_ns);
            }
        }
    }

    /// What it comes to in a run of this plan.
    pub(crate) fn told(
        &self,
        plan: &Plan,
        manifest: &Manifest,
        end: Option<&EndRecord>,
    ) -> OwnCost {
        let cores = manifest.cores.len();
        let measured = measured(&self.pairs, plan, cores);
        let mut model = self.model(plan, manifest);
        if let (Measured::Known(measured), Measured::Known(model)) = (&measured, &mut model) {
            model.disagrees = measured.switched && apart(&measured.cpu_share, model.cpu_share);
        }
        let lowered = self.lowered.iter().map(|step| LoweredStep {
            at_s: step.at_ns.saturating_sub(manifest.start_ns) as f64 / 1e9,
            share: step.share,
            from: step.from.clone(),
            to: step.to.clone(),
        });
        OwnCost {
            measured,
            model,
            saturated: saturated(end, plan, cores),
            lowered: lowered.collect(),
        }
    }

    fn model(&self, plan: &Plan, manifest: &Manifest) -> Measured<CostModel> {
        if !plan.observe.on {
            return nothing_observed();
        }
        let Some(units) = manifest.units else {
            return Measured::unknown(
                "the run does not say what one stamp and one request take",
                "record a new run with this version",
            );
        };
        if self.wall_ns == 0 {
            return Measured::unknown("no tick was recorded", "record for longer");
        }
        let cores = manifest.cores.len().max(1) as f64;
        let wall_s = self.wall_ns as f64 / 1e9;
        let per_s = |n: u64| n as f64 / wall_s * cores;
        let (turns_per_s, staged_per_s) = (per_s(self.turns), per_s(self.requests));
        let requests_per_s = staged_per_s + per_s(self.undrawn);
        let share = |per_s: f64, ns: f64| per_s * ns / 1e9 / cores;
        let turns_share = share(turns_per_s, units.turn_ns);
        let requests_share = share(staged_per_s, units.request_ns)
            + share(per_s(self.undrawn), units.undrawn_ns.unwrap_or(0.0));
        // The mean of both kinds.
        let request_ns = requests_share * 1e9 * cores / requests_per_s.max(1e-9);
        let meters_share = self.self_ns as f64 / self.wall_ns as f64;
        Measured::Known(CostModel {
            cpu_share: turns_share + requests_share + meters_share,
            turns_share,
            requests_share,
            meters_share,
            turns_per_s,
            requests_per_s,
            turn_ns: units.turn_ns,
            request_ns,
            disagrees: false,
        })
    }
}

/// Whether all of the interval is more than twice, or less than half of, what the model says.
fn apart(measured: &Signed, model: f64) -> bool {
    measured.low > model * APART || measured.high < model / APART
}

fn nothing_observed<T>() -> Measured<T> {
    Measured::unknown("nothing was observed", "record a run whose plan has observe.on = true")
}

/// The cost by the pairs of these windows of a run on so many cores.
#[must_use]
pub fn cost(windows: &[WindowRecord], plan: &Plan, cores: usize) -> Measured<CostSection> {
    let pairs: Vec<CostPair> = windows.iter().flat_map(|window| &window.cost).copied().collect();
    measured(&pairs, plan, cores)
}

fn measured(pairs: &[CostPair], plan: &Plan, cores: usize) -> Measured<CostSection> {
    let pairs: Vec<Pair> = pairs.iter().map(CostPair::pair).collect();
    let cost = match overhead::cost(&pairs, cores) {
        Ok(cost) => cost,
        Err(NoCost::TooFew { pairs }) => return too_few(pairs, plan),
    };
    let on_ns: u64 = pairs.iter().map(|pair| pair.on.len_ns).sum();
    let per_ns = |n: u64| n as f64 / on_ns.max(1) as f64;
    Measured::Known(CostSection {
        switched: plan.observe.cost != CostPlan::Same,
        pairs: cost.pairs as u64,
        cores: cores as u64,
        cpu_share: cost.cpu_share.into(),
        cpu_on_share: per_ns(pairs.iter().map(|pair| pair.on.cpu_ns).sum()) / cores.max(1) as f64,
        cpu_per_request_ns: cost.cpu_per_request_ns.into(),
        replies_per_s: per_ns(pairs.iter().map(|pair| pair.on.requests).sum()) * 1e9,
        throughput: cost.throughput.into(),
        mean_ns: cost.mean_ns.into(),
        p99_ns: cost.p99_ns.into(),
    })
}

fn too_few(pairs: usize, plan: &Plan) -> Measured<CostSection> {
    if !plan.observe.on {
        return nothing_observed();
    }
    if plan.observe.cost == CostPlan::Off {
        return Measured::unknown(
            "the plan did not ask for it",
            "record a run with --own-cost pairs",
        );
    }
    let window_s = (plan.observe.window_ns() / 1_000_000_000).max(10);
    let windows = PAIRS_MIN.div_ceil(plan.observe.cost.pairs_per_window().max(1)) as u64;
    Measured::unknown(
        format!("{pairs} pairs of seconds; an interval takes {PAIRS_MIN}"),
        format!("record for {} s or more: the first window has no pair", (windows + 1) * window_s),
    )
}

fn saturated(end: Option<&EndRecord>, plan: &Plan, cores: usize) -> Measured<SaturatedSection> {
    if plan.observe.saturate_ns == 0 {
        return Measured::unknown(
            "the run had no saturated phase",
            "record a run with --saturate 20s",
        );
    }
    let Some(end) = end else {
        return Measured::unknown(
            "the phase comes after the load, and this run was not sealed",
            "end a run by its duration",
        );
    };
    let busy =
        |of: &overhead::Second| of.cpu_ns as f64 / of.len_ns.max(1) as f64 / cores.max(1) as f64;
    let least = |pair: &Pair| busy(&pair.on).min(busy(&pair.off));
    let (pairs, spare): (Vec<Pair>, Vec<Pair>) =
        end.saturated.iter().map(CostPair::pair).partition(|pair| least(pair) >= SATURATED);
    let left_out = spare.len() as u64;
    let Ok(cost) = overhead::cost(&pairs, cores) else {
        let most = spare.iter().map(least).fold(0.0, f64::max) * 100.0;
        return Measured::unknown(
            format!(
                "{} pairs of spans with busy cores, {left_out} with time to spare (at most {most:.0} % busy in both spans); an interval takes {PAIRS_MIN}",
                pairs.len()
            ),
            "give the saturated phase more time and keep other programs off the cores",
        );
    };
    let on_s = pairs.iter().map(|pair| pair.on.len_ns).sum::<u64>().max(1) as f64 / 1e9;
    Measured::Known(SaturatedSection {
        switched: plan.observe.cost != CostPlan::Same,
        pairs: cost.pairs as u64,
        left_out,
        throughput: cost.throughput.into(),
        replies_per_s: pairs.iter().map(|pair| pair.on.requests).sum::<u64>() as f64 / on_s,
        cpu_least_share: pairs.iter().map(least).fold(f64::INFINITY, f64::min),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_disagrees_only_when_the_whole_interval_does() {
        let signed = |low, high| Signed { mean: f64::midpoint(low, high), low, high };
        assert!(apart(&signed(0.021, 0.03), 0.01) && apart(&signed(0.001, 0.004), 0.01));
        assert!(!apart(&signed(0.01, 0.03), 0.01) && !apart(&signed(-0.01, 0.006), 0.01));
    }
}
