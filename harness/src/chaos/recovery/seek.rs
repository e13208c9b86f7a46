//! The return of a service, looked for while it is watched. A look costs what has become known since the one before:
//! who looks on runs on the cores of the service, and one that read all slots again at each look would take the more of
//! them the longer a return took, until there was none.

use super::super::board::{Cell, Fate};
use super::{Axis, Baseline, RETURN_WINDOWS};

/// What a slot has for the band.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Brief {
    due: u64,
    answered: u64,
    cancelled: u64,
    timed: u64,
    over: u64,
    far: u64,
}

impl Brief {
    /// `far_ns`: a latency above it is longer than any that is usual.
    pub(super) fn of(cell: &Cell, limit_ns: u64, far_ns: u64) -> Self {
        Self {
            due: cell.due,
            answered: cell.answered(),
            cancelled: cell.fate(Fate::Cancelled),
            timed: cell.timed(),
            over: cell.over(limit_ns),
            far: cell.over(far_ns),
        }
    }

    pub(super) fn sum(slots: &[Self]) -> Self {
        slots.iter().fold(Self::default(), |sum, of| Self {
            due: sum.due + of.due,
            answered: sum.answered + of.answered,
            cancelled: sum.cancelled + of.cancelled,
            timed: sum.timed + of.timed,
            over: sum.over + of.over,
            far: sum.far + of.far,
        })
    }

    /// A cancelled request was dealt with as its asker wished: it counts neither for nor against. A refused one got no
    /// answer: what the baseline's worst second refused is in its band, more is not.
    pub(super) fn answered(&self) -> f64 {
        share(self.answered, self.due.saturating_sub(self.cancelled), 0.0)
    }

    pub(super) fn over(&self) -> f64 {
        share(self.over, self.timed, 1.0)
    }

    pub(super) fn far(&self) -> f64 {
        share(self.far, self.timed, 1.0)
    }

    pub(super) const fn due(&self) -> u64 {
        self.due
    }

    /// Share of its requests that were not answered or were late; of one in which fewer were due than `least`, all.
    pub(super) fn bad(&self, least: f64) -> f64 {
        if (self.due as f64) < least || self.due == 0 {
            return 1.0;
        }
        let late = self.over.min(self.answered) as f64 / self.due as f64;
        (1.0 - self.answered() + late).min(1.0)
    }
}

fn share(part: u64, whole: u64, of_none: f64) -> f64 {
    if whole == 0 { of_none } else { part as f64 / whole as f64 }
}

/// Looks for the return from a fault. What is answered after its slot was read is not seen: a return may be told late, not
/// before the patience is over, or where an answer comes that is one too many late: whoever stops looking asks
/// [`is_back`](super::is_back) first.
#[derive(Debug)]
pub struct Seek {
    baseline: Baseline,
    /// First slot.
    from: usize,
    /// It and those behind it, as far as they were known at the last look.
    known: Vec<Brief>,
    /// The first of them that may still be the begin of a return.
    next: usize,
}

impl Seek {
    /// From `reverted_ns` on, the instant at which the fault was taken back.
    #[must_use]
    pub fn new(axis: &Axis, baseline: Baseline, reverted_ns: u64) -> Self {
        Self { baseline, from: axis.slots(reverted_ns), known: Vec::new(), next: 0 }
    }

    /// Slots that were read.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    /// First slot from which five windows of a second follow that are in the band, as far as `until_ns`, up to where
    /// whatever was due is known; each slot is read once.
    pub fn look(&mut self, axis: &Axis, until_ns: u64) -> Option<usize> {
        let end = axis.slots(until_ns).min(axis.cells.len());
        let from = self.from + self.known.len();
        if from < end {
            let baseline = self.baseline;
            self.known.extend(axis.cells[from..end].iter().map(|cell| baseline.brief(cell)));
        }
        if let Some(at) = self.baseline.return_in(&self.known, self.next, axis) {
            return Some(self.from + at);
        }
        self.next = (self.known.len() + 1).saturating_sub(RETURN_WINDOWS * axis.second());
        None
    }
}
