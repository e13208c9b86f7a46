//! How fast the process of a run grows, which is Tailbeam's own memory and that of the agents together, and what of
//! the heap no agent owns.

use serde::{Deserialize, Serialize};
use tailbeam_probes::analyse::leak::{Interval, LeakReport, Spread, Verdict};
use tailbeam_probes::stats::trend;

use super::degradation::{hours, parts};
use super::leaks::{Heaps, pooled};
use super::{Measured, figures};
use crate::evidence::RunFrames;
use crate::evidence::records::{Reading, WindowRecord};
use crate::verdict::degradation::warm_up;

/// A slope of memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Theil and Sen's slope after the warm-up, bytes/h; of several epochs the mean, weighed by what each is worth.
    pub per_hour: f64,
    /// Lower 95 % bound, bytes/h.
    pub low: f64,
    /// Upper bound, bytes/h.
    pub high: f64,
    /// The series wanders as a random walk does; the interval is that of one.
    pub wanders: bool,
    /// Windows that it is from.
    pub windows: u64,
}

/// What of the heap no agent owns: Tailbeam's own, and what the program has made outside its agents. Of a run of several
/// epochs, in its last one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OwnMemory {
    /// Estimated bytes that live at the end.
    pub bytes: f64,
    /// Call sites.
    pub sites: u64,
    /// Of these, LEAK.
    pub leaks: u64,
    /// SUSPECT.
    pub suspects: u64,
    /// Sum of the rates of the sites whose objects are old enough to tell one, bytes/h; 95 % interval.
    pub per_hour: Option<(f64, f64, f64)>,
}

/// The slope of what `take` reads of each window. No line goes through a restart.
pub(super) fn slope(run: &RunFrames, take: fn(&WindowRecord) -> &Reading) -> Measured<Growth> {
    let last = figures::measured(run.windows.last().map(take));
    if let Measured::Unknown { unknown, remedy } = last {
        return Measured::Unknown { unknown, remedy };
    }
    let each: Vec<Growth> =
        parts(run).filter_map(|(_, part)| of_epoch(run, &run.windows[part], take)).collect();
    let interval = |of: &Growth| Interval { estimate: of.per_hour, low: of.low, high: of.high };
    let all = match &each[..] {
        [one] => Some(interval(one)),
        several => pooled(&several.iter().map(interval).collect::<Vec<_>>()),
    };
    match all {
        Some(Interval { estimate, low, high }) => Measured::Known(Growth {
            per_hour: estimate,
            low,
            high,
            wanders: each.iter().any(|of| of.wanders),
            windows: each.iter().map(|of| of.windows).sum(),
        }),
        None => Measured::unknown(
            "fewer than 8 windows after the warm-up",
            "record for at least 2 min: a window has 10 s",
        ),
    }
}

fn of_epoch(
    run: &RunFrames,
    windows: &[WindowRecord],
    take: fn(&WindowRecord) -> &Reading,
) -> Option<Growth> {
    let points: Vec<(f64, f64)> = windows
        .iter()
        .filter_map(|window| match take(window) {
            Reading::Value(bytes) => Some((hours(run, window)?, *bytes as f64)),
            Reading::Missing { .. } => None,
        })
        .collect();
    let cut = warm_up(&points.iter().map(|p| p.1).collect::<Vec<_>>());
    let found = trend(&points[cut..])?;
    Some(Growth {
        per_hour: found.slope,
        low: found.low,
        high: found.high,
        wanders: found.wanders,
        windows: (points.len() - cut) as u64,
    })
}

/// What no agent owns in the heap of the last epoch, whose objects are those that live at the end.
pub(super) fn own(heaps: &Heaps, run: &RunFrames) -> Measured<OwnMemory> {
    if let Some((unknown, remedy)) = heaps.why_none(run) {
        return Measured::Unknown { unknown, remedy };
    }
    heaps.reports().last().map_or_else(unjudged, |heap| Measured::Known(of_heap(heap)))
}

fn of_heap(heap: &LeakReport) -> OwnMemory {
    let sites = || heap.sites.iter().filter(|site| site.spread == Spread::Untagged);
    let count = |of| sites().filter(|site| site.finding.verdict == of).count() as u64;
    OwnMemory {
        bytes: sites().map(|site| site.survivors.bytes.estimate).sum(),
        sites: sites().count() as u64,
        leaks: count(Verdict::Leak),
        suspects: count(Verdict::Suspect),
        per_hour: sum(sites().filter_map(|site| site.finding.rate))
            .map(|of| (of.estimate, of.low, of.high)),
    }
}

/// Nobody asked for a verdict on the heap.
pub(super) fn unjudged() -> Measured<OwnMemory> {
    Measured::unknown(
        "the heap was not judged for this report",
        "record with --gate 'leaks<2MB/h', or see `tailbeam leaks`",
    )
}

/// The sum of rates that are independent: their half widths add up as their squares do.
fn sum(rates: impl Iterator<Item = Interval>) -> Option<Interval> {
    let each: Vec<Interval> = rates.collect();
    let side = |of: fn(&Interval) -> f64| each.iter().map(|rate| of(rate).powi(2)).sum::<f64>();
    let estimate: f64 = each.iter().map(|rate| rate.estimate).sum();
    (!each.is_empty()).then(|| Interval {
        estimate,
        low: estimate - side(|rate| rate.estimate - rate.low).sqrt(),
        high: estimate + side(|rate| rate.high - rate.estimate).sqrt(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_sites_add_up_and_their_errors_as_squares() {
        let rate = |estimate: f64, low: f64, high: f64| Interval { estimate, low, high };
        let of = sum([rate(1.0, -2.0, 4.0), rate(2.0, -2.0, 6.0)].into_iter()).unwrap();
        assert!((of.estimate - 3.0).abs() < 1e-9, "{of:?}");
        assert!((of.low + 2.0).abs() < 1e-9 && (of.high - 8.0).abs() < 1e-9, "{of:?}");
        assert!(sum(std::iter::empty()).is_none());
    }
}
