//! Cost over the number of agents: the curve, where it bends, how far it keeps up, and what limits it.
//!
//! Two places are named, each by its own rule:
//! - the **knee**, where the P99 begins to grow faster than the load: the point of the convex log-log curve of P99
//!   over agents farthest below the chord of its ends ("Kneedle", Satopaa et al. 2011), if it is farther than 0.2;
//! - the **capacity**, a bracket: the largest fleet below all that do not keep up, and the smallest that does
//!   not. A fleet keeps up if it answers 99 % of what its schedule asks for, delivers 99.9 %, and its P99 is
//!   below the limit. The bracket is narrowed by runs at its geometric middle ([`next`]).
//!
//! What limits is read from the run that does not keep up, or else from the largest: the CPU of a core, other
//! programs, memory that refuses a larger fleet, and the stage where the slowest requests spend most of their
//! time. A point that could not run is unknown, with its cause.

use serde::{Deserialize, Serialize};

use super::figures::{RunFigures, map};
use super::sweep::{DELIVERY_MIN, SERVED_MIN};
use crate::report::latency::Band;
use crate::report::{Measured, Report};

/// Distance below the chord from which a bend is one.
const BEND_MIN: f64 = 0.2;
/// A bracket closer than this is narrow enough.
const NARROW: f64 = 1.2;
/// A core that works more than this share of the time has nothing left.
const SATURATED: f64 = 0.9;
/// Other programs' share of a core that is worth naming.
const OTHERS: f64 = 0.05;

/// A series of runs over the number of agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Id.
    pub id: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// Flags that all points have.
    pub shared: Vec<String>,
    /// P99 up to which a fleet keeps up, ns.
    pub limit_ns: u64,
    /// The points, by agents.
    pub points: Vec<Point>,
    /// Where the latency bends.
    pub knee: Measured<u64>,
    /// How far it keeps up.
    pub capacity: Capacity,
    /// What limits.
    pub limit: Measured<Limit>,
    /// Why no smaller fleet than the first can be planned, where that is above 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none_below: Option<String>,
    /// It was stopped before its end.
    pub stopped: bool,
}

/// One fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Agents.
    pub agents: u64,
    /// What its run measured, or why it could not run.
    pub cost: Measured<Cost>,
    /// Why it does not keep up; empty where it does, unknown where it did not run.
    pub behind: Measured<Vec<String>>,
}

/// What a fleet costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Figures of its run.
    pub figures: RunFigures,
    /// Requests per second that its schedule asks for.
    pub planned_per_s: f64,
    /// P99 of the lateness of sends, ns.
    pub lateness_p99_ns: Measured<u64>,
    /// Smallest number of agents alive at any sample.
    pub live_min: Measured<u64>,
    /// Bytes of runtime tables per agent.
    pub bytes_per_agent: Measured<f64>,
    /// Resident bytes per agent.
    pub rss_per_agent: Measured<f64>,
    /// CPU time of the busiest core over the time during which requests were due: work that is left for the drain
    /// counts, so above 1 there was more than the core could do.
    pub core_max: Measured<f64>,
    /// Where the slowest requests spent most of their time.
    pub slowest: Measured<Slowest>,
    /// What it waited for its event log; none where it has no log, or was not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogCost>,
}

/// What an event log cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LogCost {
    /// Answers that waited until their event was in it.
    pub waits: u64,
    /// How long they did in the mean, ns; none where none waited.
    pub wait_mean_ns: Option<f64>,
    /// Syncs per second of the measured time.
    pub syncs_per_s: f64,
    /// Events per sync; none where nothing is synced.
    pub events_per_sync: Option<f64>,
    /// Requests refused because it was full.
    pub refused: u64,
}

impl LogCost {
    fn of(report: &Report) -> Option<Self> {
        let count =
            |name: &str| report.protocol.iter().find(|of| of.name == name).map(|of| of.count);
        let (events, syncs) = (count("log: events")?, count("log: syncs")?);
        let waits = count("waits for the log")?;
        let waited_ns = count("wait for the log, ns")?;
        let per = |all: u64, n: u64| (n > 0).then(|| all as f64 / n as f64);
        let full = report.protocol.iter().filter(|of| of.name.ends_with("refused: log full"));
        Some(Self {
            waits,
            wait_mean_ns: per(waited_ns, waits),
            syncs_per_s: syncs as f64 / report.run.measured_s.max(1e-9),
            events_per_sync: per(events, syncs),
            refused: full.map(|of| of.count).sum(),
        })
    }

    /// In words, where answers wait for it for half of the median of the latency or more, or are refused for it.
    fn limits(&self, p50_ns: &Measured<f64>) -> Option<String> {
        let long_ns =
            self.wait_mean_ns.zip(p50_ns.known()).filter(|(wait, p50)| *wait >= *p50 / 2.0);
        let waited = long_ns.map(|(wait, _)| {
            format!("{} answers wait {:.1} ms for it in the mean", self.waits, wait / 1e6)
        });
        let refused = (self.refused > 0)
            .then(|| format!("{} requests were refused because it was full", self.refused));
        let causes: Vec<String> = waited.into_iter().chain(refused).collect();
        let what = match self.events_per_sync {
            Some(events) => format!(
                "the sync of the event log ({:.0} syncs/s of {events:.1} events each)",
                self.syncs_per_s
            ),
            None => "the event log, without a sync".to_owned(),
        };
        (!causes.is_empty()).then(|| format!("{what}: {}", causes.join(", ")))
    }
}

/// The largest stage of the slowest band.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slowest {
    /// Band, such as `p99-p99.9`.
    pub band: String,
    /// Stage.
    pub stage: String,
    /// Its share of their time.
    pub share: f64,
}

/// How far a series keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// The largest fleet below all that do not.
    pub keeps_up: Option<u64>,
    /// The smallest fleet that does not, or cannot run.
    pub fails: Option<u64>,
}

/// What limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// The fleet that it is read from.
    pub agents: u64,
    /// It does not keep up; otherwise it is the largest that ran.
    pub behind: bool,
    /// In words, the strongest first.
    pub causes: Vec<String>,
}

impl Cost {
    /// What `report` says, and the `bands` of its latency report.
    #[must_use]
    pub fn of(report: &Report, bands: &[Band]) -> Self {
        let lateness = report.latency.iter().find(|row| row.series == "lateness");
        let mut core_max = Measured::unknown("the run has no cores on record", "record a new run");
        for core in &report.cores {
            match (core.cpu_share.known(), core_max.known()) {
                (Some(share), Some(most)) if share <= most => {}
                _ => core_max = core.cpu_share.clone(),
            }
        }
        let longer = report.run.whole_s / report.run.measured_s.max(1e-9);
        Self {
            figures: RunFigures::of(report),
            planned_per_s: report.load.planned_per_s,
            lateness_p99_ns: lateness.map_or_else(
                || Measured::unknown("no sends on record", "record a new run"),
                |row| row.p99_ns.clone(),
            ),
            live_min: report.agents.live_min.clone(),
            bytes_per_agent: report.agents.bytes_per_agent.clone(),
            rss_per_agent: report.agents.rss_per_agent.clone(),
            core_max: map(&core_max, |share| share * longer),
            slowest: slowest(bands),
            log: LogCost::of(report),
        }
    }
}

/// The largest stage of the slowest band whose requests were answered: of one that was not, only that is known.
fn slowest(bands: &[Band]) -> Measured<Slowest> {
    let largest = |band: &Band| {
        let stages = band.composition.stages.iter();
        let most = stages.max_by(|a, b| a.share.total_cmp(&b.share))?;
        (most.stage != "unanswered" && most.share > 0.0).then(|| Slowest {
            band: band.name.clone(),
            stage: most.stage.replace('_', " "),
            share: most.share,
        })
    };
    bands.iter().rev().find_map(largest).map_or_else(
        || Measured::unknown("no answered request was attributed", "record for longer"),
        Measured::Known,
    )
}

/// Smallest fleet of a series, unless its plan asks for more.
pub const FLEET_MIN: u64 = 10;

/// Fleets between `from` and `to`: these, and the powers of ten between them, or `points` at equal ratios.
#[must_use]
pub fn fleets(from: u64, to: u64, points: Option<usize>) -> Vec<u64> {
    let from = from.min(to);
    let mut fleets: Vec<u64> = match points {
        None => {
            let powers = (1..=19).map(|power| 10u64.pow(power));
            std::iter::once(from).chain(powers.filter(|n| (from..to).contains(n))).collect()
        }
        Some(points) => {
            let steps = points.max(2) as f64 - 1.0;
            let ratio = (to as f64 / from as f64).ln() / steps;
            let at = |k: usize| from as f64 * (ratio * k as f64).exp();
            (0..points.max(2) - 1).map(|k| rounded(at(k)).clamp(from, to)).collect()
        }
    };
    fleets.push(to);
    fleets.sort_unstable();
    fleets.dedup();
    fleets
}

/// The smallest fleet of 10 or more, up to `to`, that a plan allows, and why none smaller; `refused`: why a plan of so many
/// agents is none. `Err`: `to` itself is refused.
///
/// # Errors
/// The cause by which `to` is refused.
pub fn smallest(
    to: u64,
    refused: impl Fn(u64) -> Option<String>,
) -> Result<(u64, Option<String>), String> {
    if let Some(cause) = refused(to) {
        return Err(cause);
    }
    let mut low = FLEET_MIN.min(to);
    let Some(mut cause) = refused(low) else { return Ok((low, None)) };
    // A plan that asks for more agents than there are allows every larger fleet.
    let mut high = to;
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        match refused(middle) {
            Some(why) => (low, cause) = (middle, why),
            None => high = middle,
        }
    }
    Ok((high, Some(cause)))
}

/// To two digits: a fleet is a number that people can repeat.
fn rounded(agents: f64) -> u64 {
    let unit = 10f64.powf((agents.log10().floor() - 1.0).max(0.0));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "10 to 16 million")]
    let whole = ((agents / unit).round() * unit) as u64;
    whole.max(2)
}

/// The fleet that narrows the bracket, if it is wide.
#[must_use]
pub fn next(capacity: Capacity) -> Option<u64> {
    let (low, high) = (capacity.keeps_up?, capacity.fails?);
    let middle = rounded((low as f64 * high as f64).sqrt());
    (high as f64 / low as f64 > NARROW && middle > low && middle < high).then_some(middle)
}

/// Why a fleet does not keep up; empty if it does, and unknown where something that it must be known by is.
#[must_use]
pub fn behind(cost: &Cost, limit_ns: u64) -> Measured<Vec<String>> {
    let why = falls_behind(cost, limit_ns);
    let figures = &cost.figures;
    let of = [
        ("what it serves", &figures.throughput_per_s),
        ("what it is offered", &figures.offered_per_s),
        ("its delivery", &figures.delivery),
        ("its P99", &figures.p99_ns),
    ];
    let unknown = of.into_iter().find_map(|(name, figure)| match figure {
        Measured::Unknown { unknown, remedy } => Some((format!("{name}: {unknown}"), remedy)),
        Measured::Known(_) => None,
    });
    match (unknown, figures.closed()) {
        // One reason is enough.
        _ if !why.is_empty() => Measured::Known(why),
        (Some((cause, remedy)), _) => Measured::unknown(cause, remedy.clone()),
        (None, None) => Measured::unknown("its outcomes are not known", "record for longer"),
        (None, Some(_)) => Measured::Known(why),
    }
}

fn falls_behind(cost: &Cost, limit_ns: u64) -> Vec<String> {
    let mut why = Vec::new();
    let figures = &cost.figures;
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    if let Some(served) = figures.throughput_per_s.known()
        && let Some(offered) = figures.offered_per_s.known()
    {
        // What was never offered was not kept up with either; a schedule of few requests is a matter of chance.
        let few = 3.0 * (cost.planned_per_s.max(1.0)).sqrt() / cost.planned_per_s.max(1.0);
        if *served < SERVED_MIN * offered {
            why.push(format!("serves {} of what is offered", percent(served / offered)));
        }
        if *offered < (SERVED_MIN - few).max(0.0) * cost.planned_per_s {
            why.push(format!("offers {} of its schedule", percent(offered / cost.planned_per_s)));
        }
    }
    if let Some(delivery) = figures.delivery.known().filter(|share| **share < DELIVERY_MIN) {
        why.push(format!("delivers {}", percent(*delivery)));
    }
    if let Some(p99) = figures.p99_ns.known().filter(|p99| **p99 >= limit_ns as f64) {
        let (p99, limit) = (p99 / 1e6, limit_ns as f64 / 1e6);
        why.push(format!("P99 {p99:.1} ms is not below {limit:.0} ms"));
    }
    if figures.closed() == Some(false) {
        why.push("its outcomes do not add up".to_owned());
    }
    why
}

/// Sorts and judges the points.
#[must_use]
pub fn series(
    (id, started): (String, String),
    shared: Vec<String>,
    limit_ns: u64,
    mut found: Vec<(u64, Measured<Cost>)>,
    stopped: bool,
) -> Series {
    found.sort_by_key(|point| point.0);
    let points: Vec<Point> = found
        .into_iter()
        .map(|(agents, cost)| {
            let behind = match &cost {
                Measured::Known(cost) => behind(cost, limit_ns),
                Measured::Unknown { unknown, remedy } => Measured::unknown(unknown, remedy),
            };
            Point { agents, cost, behind }
        })
        .collect();
    let (knee, capacity) = (knee(&points), capacity(&points));
    let limit = limit(&points, capacity);
    let none_below = None;
    Series { id, started, shared, limit_ns, points, knee, capacity, limit, none_below, stopped }
}

/// How far the points keep up. A fleet that ran and of which that is not known is on neither side.
#[must_use]
pub fn capacity(points: &[Point]) -> Capacity {
    let keeps = |point: &&Point| point.behind.known().is_some_and(Vec::is_empty);
    let falls = |point: &&Point| {
        point.cost.known().is_none() || point.behind.known().is_some_and(|why| !why.is_empty())
    };
    let fails = points.iter().find(falls).map(|point| point.agents);
    let below = points.iter().take_while(|point| Some(point.agents) != fails).filter(keeps);
    Capacity { keeps_up: below.last().map(|point| point.agents), fails }
}

fn knee(points: &[Point]) -> Measured<u64> {
    let curve: Vec<(f64, f64, u64)> = points
        .iter()
        .filter_map(|point| {
            let p99 = point.cost.known()?.figures.p99_ns.known()?;
            (*p99 > 0.0).then(|| ((point.agents as f64).ln(), p99.ln(), point.agents))
        })
        .collect();
    let [first, .., last] = curve.as_slice() else {
        return Measured::unknown("fewer than four points have a P99", "measure more or longer");
    };
    if curve.len() < 4 {
        return Measured::unknown("fewer than four points have a P99", "measure more or longer");
    }
    let least = curve.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let most = curve.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let flat = most - least;
    // A P99 that doubles at most has no bend worth a name.
    let below = |point: &(f64, f64, u64)| {
        (point.0 - first.0) / (last.0 - first.0) - (point.1 - least) / flat.max(f64::MIN_POSITIVE)
    };
    let bend = curve.iter().max_by(|a, b| below(a).total_cmp(&below(b)));
    match bend.filter(|bend| flat > 2f64.ln() && below(bend) > BEND_MIN) {
        Some(bend) => Measured::Known(bend.2),
        None => Measured::unknown(
            "the P99 does not bend within these fleets",
            "measure larger fleets: --to",
        ),
    }
}

fn limit(points: &[Point], capacity: Capacity) -> Measured<Limit> {
    let ran = |agents: u64| points.iter().find(|p| p.agents == agents && p.cost.known().is_some());
    let failing = capacity.fails.and_then(ran);
    let largest = points.iter().rev().find(|point| point.cost.known().is_some());
    let Some(point) = failing.or(largest) else {
        return Measured::unknown("no fleet could run", "see the points' causes");
    };
    let cost = point.cost.known().expect("only points that ran are looked at");
    let waits = cost.log.and_then(|log| log.limits(&cost.figures.p50_ns));
    let mut causes: Vec<String> = waits.into_iter().collect();
    let percent = |share: &f64| format!("{:.0} %", share * 100.0);
    match cost.core_max.known() {
        Some(share) if *share >= SATURATED => {
            causes.push(format!("CPU: a core works {} of the time", percent(share)));
        }
        Some(share) => {
            causes.push(format!("no core is full: the busiest works {}", percent(share)))
        }
        None => {}
    }
    if let Some(share) = cost.figures.others.known().filter(|share| **share > OTHERS) {
        causes.push(format!("other programs had a core {} of the time", percent(share)));
    }
    if let Some(most) = cost.slowest.known() {
        let (band, stage) = (&most.band, &most.stage);
        causes.push(format!("requests of {band} spend {} in {stage}", percent(&most.share)));
    }
    let refused =
        points.iter().find(|other| other.agents > point.agents && other.cost.known().is_none());
    if let Some(Point { agents, cost: Measured::Unknown { unknown, .. }, .. }) = refused {
        causes.push(format!("{agents} agents could not run: {unknown}"));
    }
    Measured::Known(Limit { agents: point.agents, behind: failing.is_some(), causes })
}

#[cfg(test)]
#[path = "scale_tests.rs"]
mod tests;
