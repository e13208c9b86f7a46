//! What is compared of a run, and the rules by which a run is left out.

use serde::{Deserialize, Serialize};

use crate::report::{Measured, Report, RunEnd};
use crate::verdict::Outcomes;

/// The figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFigures {
    /// Run id.
    pub run: String,
    /// Workload.
    pub workload: String,
    /// Agents.
    pub agents: u64,
    /// Seed.
    pub seed: u64,
    /// Median system latency from the intended instant, ns.
    pub p50_ns: Measured<f64>,
    /// Its 99th percentile, ns.
    pub p99_ns: Measured<f64>,
    /// Requests per second that were due.
    pub offered_per_s: Measured<f64>,
    /// Terminal replies per second.
    pub throughput_per_s: Measured<f64>,
    /// CPU time of the process per terminal reply, ns.
    pub cpu_per_op_ns: Measured<f64>,
    /// Terminal replies / (attempts - refused).
    pub delivery: Measured<f64>,
    /// All outcomes.
    pub outcomes: Measured<Outcomes>,
    /// It was sealed after its planned duration.
    pub finished: bool,
    /// The longest hole that the run did not cause itself, in words; none is good.
    pub stall: Option<String>,
    /// Largest share of a core's time that other programs had.
    pub others: Measured<f64>,
}

impl RunFigures {
    /// The figures that `report` holds.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let system = report.latency.first();
        let nothing = || Measured::unknown("the run has no latency series", "record a new run");
        let unanswered = report.load.outcomes.known().map_or(0.0, unanswered);
        let quantile = |q: f64, take: fn(&crate::report::LatencyRow) -> &Measured<u64>| {
            let of = |row| answered(q, unanswered, map(take(row), |ns| *ns as f64));
            system.map_or_else(nothing, of)
        };
        let stalled = report.validity.iter().find(|check| check.outside && !check.holds);
        Self {
            run: report.run.id.clone(),
            workload: report.run.workload.clone(),
            agents: report.agents.asked,
            seed: report.run.seed,
            p50_ns: quantile(0.5, |row| &row.p50_ns),
            p99_ns: quantile(0.99, |row| &row.p99_ns),
            offered_per_s: report.load.offered_per_s.clone(),
            throughput_per_s: report.load.served_per_s.clone(),
            cpu_per_op_ns: report.memory.cpu_per_request_ns.clone(),
            delivery: report.load.delivery.clone(),
            outcomes: report.load.outcomes.clone(),
            finished: report.run.end == RunEnd::Finished,
            stall: stalled.map(|check| check.text.clone()),
            others: others(report),
        }
    }

    /// Whether every attempt has exactly one outcome; `None` when they are not known.
    #[must_use]
    pub fn closed(&self) -> Option<bool> {
        self.outcomes.known().map(|outcomes| outcomes.sum() == outcomes.attempts)
    }
}

/// Share of the requests that were asked and not refused to which nobody saw an answer in time.
fn unanswered(outcomes: &Outcomes) -> f64 {
    let without = outcomes.expired + outcomes.lost + outcomes.error;
    let asked = outcomes.attempts.saturating_sub(outcomes.refused).max(1);
    without as f64 / asked as f64
}

/// A percentile of those that were answered is none of all requests where more had no answer than are above it: a side that
/// lets its slowest ones expire would be the faster one.
fn answered(q: f64, unanswered: f64, figure: Measured<f64>) -> Measured<f64> {
    // The largest of those that were answered is the percentile where exactly so many were not.
    if unanswered <= 1.0 - q + f64::EPSILON {
        return figure;
    }
    Measured::unknown(
        format!(
            "it is above the deadline: {:.2} % of the requests had no answer",
            unanswered * 100.0
        ),
        "ask for a longer deadline, or for less",
    )
}

/// Applies `change` to a known figure.
pub(super) fn map<T, R>(measured: &Measured<T>, change: impl FnOnce(&T) -> R) -> Measured<R> {
    match measured {
        Measured::Known(value) => Measured::Known(change(value)),
        Measured::Unknown { unknown, remedy } => Measured::unknown(unknown, remedy),
    }
}

/// The core that lost most to other programs.
fn others(report: &Report) -> Measured<f64> {
    let mut most = Measured::unknown("the run has no cores on record", "record a new run");
    for core in &report.cores {
        match (&core.outside_share, &most) {
            (Measured::Known(share), Measured::Known(other)) if share <= other => {}
            (Measured::Known(share), _) => most = Measured::Known(*share),
            (unknown, _) => return unknown.clone(),
        }
    }
    most
}

/// By which rules a run is left out; stated before the first run and never by what it measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// The host took more than this share of the CPUs' time (steal).
    pub steal_max: f64,
    /// Other programs had a core for more than this share of the time.
    pub others_max: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { steal_max: 0.01, others_max: 0.05 }
    }
}

/// Why a run was left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exclusion {
    /// `failed`, `unfinished`, `stall`, `steal` or `others`.
    pub rule: String,
    /// What was seen.
    pub seen: String,
}

impl Rules {
    /// The rules in words.
    #[must_use]
    pub fn text(&self) -> Vec<String> {
        vec![
            "failed: the run could not be made or read".to_owned(),
            "unfinished: it did not end after its planned duration".to_owned(),
            "stall: the process was stopped or the host stood still".to_owned(),
            format!(
                "steal: the host took more than {} % of the CPUs' time",
                self.steal_max * 100.0
            ),
            format!(
                "others: other programs had a core more than {} % of the time",
                self.others_max * 100.0
            ),
        ]
    }

    /// The first rule that leaves a run out. What is not known leaves nothing out.
    #[must_use]
    pub fn exclude(&self, figures: &RunFigures, steal: Option<f64>) -> Option<Exclusion> {
        let by = |rule: &str, seen: String| Some(Exclusion { rule: rule.to_owned(), seen });
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        if !figures.finished {
            return by("unfinished", "it was interrupted or not sealed".to_owned());
        }
        if let Some(stall) = &figures.stall {
            return by("stall", stall.clone());
        }
        if let Some(steal) = steal.filter(|steal| *steal > self.steal_max) {
            return by("steal", percent(steal));
        }
        let others = figures.others.known().copied();
        match others.filter(|others| *others > self.others_max) {
            Some(others) => by("others", percent(others)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lets_the_slow_ones_expire_is_not_faster() {
        let of = |expired, refused| {
            let outcomes = Outcomes { attempts: 1_000, expired, refused, ..Outcomes::default() };
            let figure = |q| answered(q, unanswered(&outcomes), Measured::Known(5e6));
            [0.5, 0.99].map(|q| figure(q).known().is_some())
        };
        assert_eq!([of(0, 500), of(10, 0)], [[true; 2]; 2]);
        assert_eq!([of(11, 0), of(6, 500)], [[true, false]; 2]);
        assert_eq!(of(501, 0), [false; 2]);
    }
}
