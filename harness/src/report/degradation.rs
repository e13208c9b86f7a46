//! Whether a run got worse while it ran: the series of its windows, each judged on its own.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::epochs::covered;
use super::{Measured, figures};
use crate::evidence::records::WindowRecord;
use crate::evidence::{Epoch, RunFrames};
use crate::verdict::degradation::{Degradation, Judged, Worse, judge, judgeable};
use crate::verdict::{Gate, GateResult, GateVerdict};

/// Margin of the rows where no gate names one.
const MARGIN: f64 = 0.05;
const HOUR_NS: f64 = 3.6e12;

/// One series of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DegradationRow {
    /// Epoch, in a run of several: each is judged on its own, with a warm-up of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// `p50`, `p99`, `throughput` or `cpu_per_request`.
    pub series: String,
    /// Unit of the level: `ns` or `per_s`.
    pub unit: String,
    /// Which way is worse.
    pub worse: Worse,
    /// How it was judged.
    pub found: Degradation,
}

/// The margin that `gates` ask for.
pub(super) fn margin(gates: &[Gate]) -> f64 {
    let asked = gates.iter().find_map(|gate| match gate {
        Gate::Degradation { per_day } => Some(*per_day),
        _ => None,
    });
    asked.unwrap_or(MARGIN)
}

/// Every series of every epoch: a line through a restart would be one of two programs.
pub(super) fn rows(run: &RunFrames, margin: f64) -> Vec<DegradationRow> {
    let series: Vec<Series> =
        parts(run).flat_map(|(epoch, part)| of_epoch(run, part, epoch)).collect();
    // Each that can be judged is one more chance to be wrong.
    let family = series.iter().filter(|of| judgeable(&of.points)).count();
    series
        .into_iter()
        .map(|of| DegradationRow {
            epoch: of.epoch,
            series: of.name.to_owned(),
            unit: of.unit.to_owned(),
            worse: of.worse,
            found: judge(&of.points, of.worse, margin, family),
        })
        .collect()
}

/// The windows of each epoch, with its number where there are several.
pub(super) fn parts(run: &RunFrames) -> impl Iterator<Item = (Option<u32>, Range<usize>)> {
    let several = run.epochs.len() > 1;
    let mut from = 0;
    run.epochs.iter().map(move |epoch| {
        let part = from..(from + epoch.windows as usize).min(run.windows.len());
        from = part.end;
        (several.then_some(epoch.number), part)
    })
}

/// A series before it is judged.
struct Series {
    epoch: Option<u32>,
    name: &'static str,
    unit: &'static str,
    worse: Worse,
    points: Vec<(f64, f64)>,
}

fn of_epoch(run: &RunFrames, part: Range<usize>, epoch: Option<u32>) -> [Series; 4] {
    let of = |name, unit, worse, points| Series { epoch, name, unit, worse, points };
    let windows = &run.windows[part.clone()];
    let latencies = run.window_latency.get(part).unwrap_or_default();
    let quantile = |take: fn(&crate::evidence::WindowLatency) -> Option<u64>| {
        let windows = windows.iter().zip(latencies).filter(|(w, _)| whole(w));
        windows
            .filter_map(|(window, latency)| Some((hours(run, window)?, take(latency)? as f64)))
            .collect::<Vec<_>>()
    };
    [
        of("p50", "ns", Worse::Higher, quantile(|latency| latency.p50_ns)),
        of("p99", "ns", Worse::Higher, quantile(|latency| latency.p99_ns)),
        of("throughput", "per_s", Worse::Lower, throughput(run, windows)),
        of("cpu_per_request", "ns", Worse::Higher, cpu(run, windows)),
    ]
}

/// Requests were due all the time.
fn whole(window: &WindowRecord) -> bool {
    !window.seconds.is_empty() && window.seconds.iter().all(|second| second.issuing)
}

/// Middle of a window, h since the start.
pub(super) fn hours(run: &RunFrames, window: &WindowRecord) -> Option<f64> {
    let (first, last) = (window.seconds.first()?, window.seconds.last()?);
    let middle = first.from_ns.midpoint(last.from_ns.saturating_add(last.len_ns));
    Some(middle.saturating_sub(run.manifest.start_ns) as f64 / HOUR_NS)
}

/// Terminal replies of a window.
fn replies(window: &WindowRecord) -> u64 {
    let outcomes = window.seconds.iter().map(|second| &second.counts.outcomes);
    outcomes.map(|outcomes| outcomes.ok + outcomes.declined).sum()
}

fn throughput(run: &RunFrames, windows: &[WindowRecord]) -> Vec<(f64, f64)> {
    let rate = |window: &WindowRecord| {
        let length_ns: u64 = window.seconds.iter().map(|second| second.len_ns).sum();
        let hours = hours(run, window).filter(|_| length_ns > 0)?;
        Some((hours, replies(window) as f64 * 1e9 / length_ns as f64))
    };
    windows.iter().filter(|window| whole(window)).filter_map(rate).collect()
}

/// CPU time per reply, from the difference of two windows' sums.
fn cpu(run: &RunFrames, windows: &[WindowRecord]) -> Vec<(f64, f64)> {
    let sum = |window: &WindowRecord| match figures::measured(Some(&window.cpu_ns)) {
        Measured::Known(ns) => Some(ns),
        Measured::Unknown { .. } => None,
    };
    let cost = |two: &[WindowRecord]| {
        let (before, window) = (&two[0], &two[1]);
        let spent = sum(window)?.checked_sub(sum(before)?)?;
        let answered = replies(window);
        (answered > 0 && whole(window))
            .then(|| Some((hours(run, window)?, spent as f64 / answered as f64)))
            .flatten()
    };
    windows.windows(2).filter_map(cost).collect()
}

/// FAIL when one series of one epoch degrades, PASS when all are stable in nearly all of the time.
pub(super) fn gate(gate: &Gate, rows: &[DegradationRow], epochs: &[Epoch]) -> GateResult {
    let of = |judged| rows.iter().find(|row| row.found.judged == judged);
    let stable = |number: u32| {
        let mut own = rows.iter().filter(|row| row.epoch == Some(number));
        own.all(|row| row.found.judged == Judged::Stable)
    };
    let short = epochs.len() > 1 && covered(epochs, stable);
    let (verdict, telling) = match (of(Judged::Degrades), of(Judged::Undecided)) {
        (None, Some(_)) if short => (GateVerdict::Pass, steepest(rows)),
        (Some(row), _) => (GateVerdict::Fail, Some(row)),
        (None, Some(row)) => (GateVerdict::Inconclusive, Some(row)),
        (None, None) if rows.is_empty() => (GateVerdict::Inconclusive, None),
        (None, None) => (GateVerdict::Pass, steepest(rows)),
    };
    let open = rows.iter().filter(|row| row.found.judged == Judged::Undecided);
    let needs = open
        .filter_map(|row| row.found.needs_more_h)
        .fold(None, |most: Option<f64>, h| Some(most.map_or(h, |other| other.max(h))));
    GateResult {
        gate: gate.name(),
        requirement: gate.requirement(),
        measured: telling.map_or_else(|| "unknown".to_owned(), measured),
        n: rows.iter().map(|row| row.found.windows).max().unwrap_or(0),
        blocks: None,
        verdict,
        reason: telling.map_or_else(
            || "no series is on disk".to_owned(),
            |row| format!("{}: {}", name(row), row.found.reason),
        ),
        needs_more_s: needs.filter(|_| verdict == GateVerdict::Inconclusive).map(|h| h * 3_600.0),
        latency: true,
    }
}

fn name(row: &DegradationRow) -> String {
    match row.epoch {
        Some(epoch) => format!("{} of epoch {epoch}", row.series),
        None => row.series.clone(),
    }
}

/// The row with the strongest trend to the worse.
fn steepest(rows: &[DegradationRow]) -> Option<&DegradationRow> {
    let slope = |row: &DegradationRow| row.found.per_day.map_or(f64::NEG_INFINITY, |s| s.slope);
    rows.iter().max_by(|a, b| slope(a).total_cmp(&slope(b)))
}

fn measured(row: &DegradationRow) -> String {
    row.found.per_day.map_or_else(
        || "unknown".to_owned(),
        |s| {
            let percent = |share: f64| share * 100.0;
            let (at, low, high) = (percent(s.slope), percent(s.low), percent(s.high));
            format!("{} {at:+.1} %/day [{low:+.1}, {high:+.1}]", name(row))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::degradation::Slope;

    fn row(series: &str, judged: Judged, slope: f64) -> DegradationRow {
        DegradationRow {
            epoch: None,
            series: series.to_owned(),
            unit: "ns".to_owned(),
            worse: Worse::Higher,
            found: Degradation {
                judged,
                reason: "why".to_owned(),
                windows: 500,
                warm_up: 0,
                level: 1.0,
                block: 4,
                per_day: Some(Slope { slope, low: slope, high: slope, wanders: false }),
                p: Some(0.5),
                changes: Vec::new(),
                needs_more_h: Some(2.0),
                family: 1,
            },
        }
    }

    #[test]
    fn one_series_is_enough_to_fail_and_all_are_needed_to_pass() {
        let asked = Gate::Degradation { per_day: 0.05 };
        let judged = |rows: &[DegradationRow]| gate(&asked, rows, &[]);
        let (stable, bad) = (row("p50", Judged::Stable, 0.0), row("p99", Judged::Degrades, 0.2));
        let open = row("throughput", Judged::Undecided, 0.1);
        let failed = judged(&[stable.clone(), bad.clone(), open.clone()]);
        assert_eq!(failed.verdict, GateVerdict::Fail);
        assert!(failed.measured.starts_with("p99 +20.0 %/day"), "{failed:?}");
        let undecided = judged(&[stable.clone(), open]);
        assert_eq!(
            (undecided.verdict, undecided.needs_more_s),
            (GateVerdict::Inconclusive, Some(7_200.0))
        );
        let passed = judged(&[stable.clone(), row("p99", Judged::Stable, 0.01)]);
        assert_eq!((passed.verdict, passed.needs_more_s), (GateVerdict::Pass, None));
        assert!(passed.measured.starts_with("p99"));
        assert_eq!(judged(&[]).verdict, GateVerdict::Inconclusive);
        assert!((margin(&[asked, Gate::Outcomes {}]) - 0.05).abs() < 1e-12);
    }
}
