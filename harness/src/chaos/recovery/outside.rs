//! What the seconds of a service that was not back lacked.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::baseline::offered;
use super::{Axis, Baseline};

/// Seconds after the revert, and how many of them were out of the band by what; one may be by several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// Seconds that were looked at, one after the other.
    pub seconds: usize,
    /// In which fewer requests were due than the plan has.
    pub few_due: usize,
    /// In which fewer were answered than in the band.
    pub unanswered: usize,
    /// In which more were late than in the band.
    pub late: usize,
}

impl Outside {
    /// Of these slots.
    pub(super) fn of(axis: &Axis, baseline: &Baseline, slots: Range<usize>) -> Self {
        let (second, mut found) = (axis.second(), Self::default());
        let expected = axis.expected * second as f64;
        for at in slots.clone().step_by(second).filter(|at| at + second <= slots.end) {
            let window = baseline.brief(&axis.sum(at..at + second));
            found.seconds += 1;
            found.few_due += usize::from((window.due() as f64) < offered(expected));
            found.unanswered += usize::from(window.answered() < baseline.answered);
            found.late += usize::from(window.over() > baseline.over);
        }
        found
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { seconds, few_due, unanswered, late } = *self;
        if seconds == 0 {
            return "no whole second after it is known".to_owned();
        }
        let parts = [
            (few_due, "had too few requests due"),
            (unanswered, "too few answered"),
            (late, "too many late"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if parts.is_empty() {
            // Each was in the band, and no five in a row were together.
            return format!(
                "of {seconds} seconds each was as usual, and no five in a row together"
            );
        }
        format!("of {seconds} seconds {}", parts.join(", "))
    }
}
