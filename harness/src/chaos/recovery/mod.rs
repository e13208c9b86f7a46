//! When a service left what is usual for it, when it was back, and how much of the time it was there.
//!
//! Everything is by the instant at which a request was due, so a subject that stands still, or is dead, has the
//! requests that were due meanwhile among its unanswered ones. The baseline says what is usual: a window is *in the
//! band* when it answers as many of its requests as the baseline's worst window did or 99.9 %, has at most 1 % of its
//! latencies above 1.2 times the baseline's P99 or as many as the baseline's worst window, and as many requests due as
//! the plan has. A return is five of these in a row whose P99 together is at most 1.2 times that of the
//! baseline, with at most one in a thousand above 1.2 times its longest latency, and as many answered as in all of it or
//! 99.9 %: no bad second of the baseline excuses them. What the host's noise adds to a recovery by that is told: how long
//! one has to look for such five seconds in the baseline itself.

mod baseline;
mod onset;
mod outside;
mod seek;

pub use baseline::Baseline;
use onset::least;
pub use outside::Outside;
pub use seek::Seek;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::board::Cell;
use seek::Brief;

/// A slot is available when so much of what was due in it was answered.
pub const AVAILABLE: f64 = 0.99;
/// Windows in a row that are a return.
pub const RETURN_WINDOWS: usize = 5;
/// A recovery below this passes, ns.
pub const PASS_NS: u64 = 30_000_000_000;
/// One below this is partial, which certifies nothing, ns.
pub const PARTIAL_NS: u64 = 60_000_000_000;
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

    /// Slots of a second.
    fn second(&self) -> usize {
        self.slots(1_000_000_000).max(1)
    }
}

fn answered(cell: &Cell) -> f64 {
    Brief::of(cell, u64::MAX, u64::MAX).answered()
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
    /// When what was worse than anything of its length in the baseline began, from the injection, ns; negative when
    /// requests that were due before it suffered. `None`: nothing was.
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
    let onset = onset::onset(axis, baseline, from, after.unwrap_or(end).max(to).min(end));
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
    let least = least(axis, 1);
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

/// Whether the service was back by what is known now: an answer that came after its second was looked at may have been
/// the one too many that was late.
#[must_use]
pub fn is_back(axis: &Axis, baseline: &Baseline, span: Span) -> bool {
    let (to, end) = (axis.slots(span.reverted_ns), axis.slots(span.until_ns).min(axis.cells.len()));
    back(axis, baseline, to, end).is_some()
}

/// First slot at `from` or later from which five windows of a second follow that are a return.
fn back(axis: &Axis, baseline: &Baseline, from: usize, end: usize) -> Option<usize> {
    let cells = axis.cells.get(from..end)?;
    let known: Vec<Brief> = cells.iter().map(|cell| baseline.brief(cell)).collect();
    baseline.return_in(&known, 0, axis).map(|at| from + at)
}

/// Upper bound of the probability that one injection fails, when none of `trials` did, at 95 % (the rule of three,
/// exact): 1 - 0.05^(1/n).
#[must_use]
pub fn failure_bound(trials: u32) -> f64 {
    if trials == 0 { 1.0 } else { 1.0 - 0.05_f64.powf(1.0 / f64::from(trials)) }
}

#[cfg(test)]
mod tests;
