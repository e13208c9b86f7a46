//! When a service left what is usual for it, when it was back, and how much of the time it was there.
//!
//! Everything is by the instant at which a request was due, so a subject that stands still, or is dead, has the
//! requests that were due meanwhile among its unanswered ones. The baseline says what is usual: a window is *in the
//! band* when it answers as many of its requests as the baseline's worst window did or 99.9 %, has at most 1 % of its
//! latencies above 1.2 times the baseline's P99 or as many as the baseline's worst window, and at least 95 % of the
//! requests that the plan has due. A return is five of these in a row that are also together within what five seconds of
//! the baseline would be in 99 of 100 cases: one bad second of it is no excuse for five.

mod outside;
mod seek;

pub use outside::Outside;
pub use seek::Seek;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::board::Cell;
use crate::verdict::student::quantile;
use seek::Brief;

/// A slot is available when so much of what was due in it was answered.
pub const AVAILABLE: f64 = 0.99;
/// Share of its requests that a window in the band answers, unless the baseline has a worse one.
const ANSWERED: f64 = 0.999;
/// Share of latencies above the limit that a window in the band may have, unless the baseline has a worse one.
const OVER: f64 = 0.01;
/// The limit, in P99 of the baseline.
const MARGIN: f64 = 1.2;
/// Share of the plan's requests that must have been due: below it who asks was not there.
const OFFERED: f64 = 0.95;
/// Windows in a row that are a return.
pub const RETURN_WINDOWS: usize = 5;
/// A recovery below this passes, ns.
pub const PASS_NS: u64 = 30_000_000_000;
/// One below this is partial, which certifies nothing, ns.
pub const PARTIAL_NS: u64 = 60_000_000_000;
/// Latencies that a baseline must have for a P99 that is worth 1 %.
const BASELINE_MIN: u64 = 1_000;

/// Slots of time with what was counted in each.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Cells of all cores.
    pub cells: Vec<Cell>,
    /// Length of a slot, ns.
    pub slot_ns: u64,
    /// Requests that the plan has due in a slot, in the mean.
    pub expected: f64,
}

impl Axis {
    fn slots(&self, ns: u64) -> usize {
        usize::try_from(ns / self.slot_ns.max(1)).unwrap_or(usize::MAX)
    }

    fn sum(&self, slots: Range<usize>) -> Cell {
        let mut sum = Cell::default();
        let end = slots.end.min(self.cells.len());
        self.cells[slots.start.min(end)..end].iter().for_each(|cell| sum.merge(cell));
        sum
    }

    /// Fewer requests than this are due in a slot by chance once in 30,000 (four standard deviations of a Poisson count):
    /// below it who asks was not there.
    fn least(&self) -> f64 {
        (self.expected - 4.0 * self.expected.sqrt()).max(0.0)
    }

    /// Slots of a second.
    fn second(&self) -> usize {
        self.slots(1_000_000_000).max(1)
    }
}

/// What is usual for the service.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Windows of a second that it was taken from.
    pub windows: usize,
    /// Latencies in them.
    pub timed: u64,
    /// Their P99, ns, at most 6.25 % too high.
    pub p99_ns: u64,
    /// The limit that a window in the band may exceed as rarely as `over` says, ns.
    pub limit_ns: u64,
    /// Largest share of latencies above the limit in a window in the band.
    pub over: f64,
    /// Smallest share of answered requests in a window in the band.
    pub answered: f64,
    /// Largest share of latencies above the limit in the windows of a return together.
    #[serde(default = "one")]
    pub return_over: f64,
    /// Smallest share of answered requests in them.
    #[serde(default)]
    pub return_answered: f64,
    /// Largest share of requests of a slot that were not answered, or late, in the baseline.
    pub slot_bad: f64,
}

/// Series that were recorded before returns had a bound of their own have none, until they are judged again.
const fn one() -> f64 {
    1.0
}

impl Baseline {
    /// From the slots of a time without faults; `None` with fewer than two windows or a thousand latencies, and when a
    /// window answered less than 99 %, or had less than 95 % of the plan's requests due: a service that is not well, or
    /// that nobody asks, has no usual state to come back to.
    #[must_use]
    pub fn of(axis: &Axis, slots: Range<usize>) -> Option<Self> {
        let second = axis.second();
        let all = axis.sum(slots.clone());
        let p99_ns = all.quantile_ns(0.99)?;
        let limit_ns = (p99_ns as f64 * MARGIN) as u64;
        let starts = slots.clone().step_by(second).filter(|from| from + second <= slots.end);
        let windows: Vec<Cell> = starts.map(|from| axis.sum(from..from + second)).collect();
        let expected = axis.expected * second as f64;
        let well = windows
            .iter()
            .all(|window| answered(window) >= AVAILABLE && window.due as f64 >= expected * OFFERED);
        if windows.len() < 2 || all.timed() < BASELINE_MIN || !well {
            return None;
        }
        let windows: Vec<Brief> = windows.iter().map(|cell| Brief::of(cell, limit_ns)).collect();
        let overs: Vec<f64> = windows.iter().map(Brief::over).collect();
        let answers: Vec<f64> = windows.iter().map(Brief::answered).collect();
        let over = overs.iter().copied().fold(OVER, f64::max);
        let answered = answers.iter().copied().fold(ANSWERED, f64::min);
        let ((mean_over, far_over), (mean_answered, far_answered)) = (far(&overs), far(&answers));
        let bad = |at: usize| bad(&axis.cells[at], limit_ns, 0.0);
        let slot_bad = slots.filter(|&at| at < axis.cells.len()).map(bad).fold(0.0, f64::max);
        Some(Self {
            windows: windows.len(),
            timed: all.timed(),
            p99_ns,
            limit_ns,
            over,
            answered,
            return_over: (mean_over + far_over).clamp(OVER, over),
            return_answered: (mean_answered - far_answered).clamp(answered, ANSWERED),
            slot_bad,
        })
    }

    /// Whether a window is as usual. `expected`: requests that the plan has due in it.
    #[must_use]
    pub fn holds(&self, window: &Cell, expected: f64) -> bool {
        self.is_in_band(&Brief::of(window, self.limit_ns), expected)
    }

    fn is_in_band(&self, window: &Brief, expected: f64) -> bool {
        window.due() as f64 >= expected * OFFERED
            && window.answered() >= self.answered
            && window.over() <= self.over
    }

    /// Whether so many windows in a row are a return.
    fn is_return(&self, windows: [Brief; RETURN_WINDOWS], expected: f64) -> bool {
        let together = Brief::sum(&windows);
        windows.iter().all(|window| self.is_in_band(window, expected))
            && together.answered() >= self.return_answered
            && together.over() <= self.return_over
    }
}

/// Mean of the windows of a baseline, and how far from it the mean of a return's windows lies in 99 of 100 cases at most on
/// one side, when it is as they are: Student's prediction interval (Hahn and Meeker, "Statistical Intervals", 1991,
/// chapter 4). A band, and no error rate: shares are skewed, and a return may begin at any slot.
fn far(windows: &[f64]) -> (f64, f64) {
    let n = windows.len() as f64;
    let mean = windows.iter().sum::<f64>() / n;
    let variance = windows.iter().map(|of| (of - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let error = (variance * (1.0 / RETURN_WINDOWS as f64 + 1.0 / n)).sqrt();
    (mean, quantile(0.99, n - 1.0) * error)
}

fn answered(cell: &Cell) -> f64 {
    Brief::of(cell, u64::MAX).answered()
}

/// Share of a slot's requests that were not answered or were late; of one in which fewer were due than `least`, all.
fn bad(cell: &Cell, limit_ns: u64, least: f64) -> f64 {
    if (cell.due as f64) < least || cell.due == 0 {
        return 1.0;
    }
    let late = cell.over(limit_ns).min(cell.answered()) as f64 / cell.due as f64;
    (1.0 - answered(cell) + late).min(1.0)
}

/// How long something took, or that it had not happened when nobody looked any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Took {
    /// So long, ns.
    Ns(u64),
    /// Longer than this, ns.
    MoreThan(u64),
}

impl Took {
    /// The length, or the least that it was, ns.
    #[must_use]
    pub const fn at_least_ns(self) -> u64 {
        match self {
            Self::Ns(ns) | Self::MoreThan(ns) => ns,
        }
    }
}

/// When a fault began and ended, on the axis of the slots, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// It was done at this instant.
    pub injected_ns: u64,
    /// It was taken back.
    pub reverted_ns: u64,
    /// Up to here whatever was due is known.
    pub until_ns: u64,
}

/// What one fault did to the service.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// When the first slot lay that was worse than any of the baseline, from the injection, ns; negative when requests
    /// that were due before it suffered. `None`: none was.
    pub onset_ns: Option<i64>,
    /// From the injection until the service was back.
    pub from_injection: Took,
    /// From the revert until the service was back.
    pub from_revert: Took,
    /// Slots between injection and return.
    pub slots: usize,
    /// Of those, with 99 % or more of their requests answered.
    pub available: usize,
    /// P99 of the requests that were due between injection and revert, ns. `None`: none has a latency.
    pub during_p99_ns: Option<u64>,
    /// P99 of those in the windows of the return, ns; of a service that was not back, of the last five seconds.
    pub after_p99_ns: Option<u64>,
    /// Of a service that was not back: what its seconds lacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// Requests between injection and return that were due, and that were answered.
    pub due: u64,
    /// Answered ones of these.
    pub answered: u64,
    /// Of those that the plan had due and nobody asked, because who asks was not there.
    pub not_asked: u64,
}

/// Judges one fault.
#[must_use]
pub fn judge(axis: &Axis, baseline: &Baseline, span: Span) -> Recovery {
    let (from, to) = (axis.slots(span.injected_ns), axis.slots(span.reverted_ns));
    let end = axis.slots(span.until_ns).min(axis.cells.len());
    let after = back(axis, baseline, to, end);
    // What is bad after the return is no work of the fault.
    let onset = onset(axis, baseline, from, after.unwrap_or(end).max(to).min(end));
    let injected = onset.map(|onset| onset.max(from));
    // A service that never left the band was never away.
    let away = injected.map(|onset| back(axis, baseline, onset, end));
    let took = |since_ns: u64, back: Option<usize>| match back {
        Some(slot) => Took::Ns((slot as u64 * axis.slot_ns).saturating_sub(since_ns)),
        None => Took::MoreThan(span.until_ns.saturating_sub(since_ns)),
    };
    let from_injection = match away {
        // Five good seconds while it lasts are no return from a fault that is not over.
        _ if after != Some(to) => took(span.injected_ns, after),
        Some(back) => took(span.injected_ns, back),
        None => Took::Ns(0),
    };
    let ended = after.unwrap_or(end).max(to).max(from);
    let (slots, sum) = (from..ended.min(end), axis.sum(from..ended));
    let least = axis.least();
    let there = |at: &usize| {
        let cell = &axis.cells[*at];
        cell.due as f64 >= least && cell.due > 0 && answered(cell) >= AVAILABLE
    };
    let missing = |at: usize| (axis.expected - axis.cells[at].due as f64).max(0.0);
    let absent = slots.clone().filter(|&at| (axis.cells[at].due as f64) < least);
    Recovery {
        onset_ns: onset
            .map(|at| (at as u64 * axis.slot_ns).cast_signed() - span.injected_ns.cast_signed()),
        from_injection,
        from_revert: took(span.reverted_ns, after),
        slots: slots.len(),
        available: slots.filter(there).count(),
        during_p99_ns: axis.sum(from..to).quantile_ns(0.99),
        after_p99_ns: {
            let windows = RETURN_WINDOWS * axis.second();
            let at = after.unwrap_or_else(|| end.saturating_sub(windows).max(to));
            axis.sum(at..(at + windows).min(end)).quantile_ns(0.99)
        },
        outside: after.is_none().then(|| Outside::of(axis, baseline, to..end)),
        due: sum.due,
        answered: sum.answered(),
        not_asked: absent.map(missing).sum::<f64>().round() as u64,
    }
}

/// First slot that is worse than any of the baseline. Requests that were open at the injection were due before it.
fn onset(axis: &Axis, baseline: &Baseline, from: usize, end: usize) -> Option<usize> {
    let least = axis.least();
    let worse = |&at: &usize| {
        let cell = &axis.cells[at];
        let bad = bad(cell, baseline.limit_ns, least);
        // Three requests or more: one slow one of few is no onset.
        bad > baseline.slot_bad && (bad * cell.due as f64 >= 3.0 || (cell.due as f64) < least)
    };
    (from.saturating_sub(axis.second())..end).find(worse)
}

/// First slot at `from` or later from which five windows of a second follow that are in the band.
fn back(axis: &Axis, baseline: &Baseline, from: usize, end: usize) -> Option<usize> {
    let second = axis.second();
    let expected = axis.expected * second as f64;
    let window = |at: usize| Brief::of(&axis.sum(at..at + second), baseline.limit_ns);
    let returns =
        |at: usize| baseline.is_return(std::array::from_fn(|n| window(at + n * second)), expected);
    let last = end.checked_sub(RETURN_WINDOWS * second)?;
    (from..=last).find(|&at| returns(at))
}

/// Upper bound of the probability that one injection fails, when none of `trials` did, at 95 % (the rule of three,
/// exact): 1 - 0.05^(1/n).
#[must_use]
pub fn failure_bound(trials: u32) -> f64 {
    if trials == 0 { 1.0 } else { 1.0 - 0.05_f64.powf(1.0 / f64::from(trials)) }
}

#[cfg(test)]
mod tests;
