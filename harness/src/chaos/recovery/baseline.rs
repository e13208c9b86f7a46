//! What is usual for a service, and the band around it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::super::board::{BUCKETS, Cell, bucket_from_ns, nearest_edge_ns};
use super::seek::Brief;
use super::{AVAILABLE, Axis, RETURN_WINDOWS};

/// Share of its requests that a window in the band answers, unless the baseline has a worse one.
const ANSWERED: f64 = 0.999;
/// Share of latencies above the limit that a window in the band may have, unless the baseline has a worse one.
pub(super) const OVER: f64 = 0.01;
/// Share of latencies of a return that may be longer than any that is usual.
const FAR: f64 = 0.001;
/// The limit, in P99 of the baseline, and what is longer than usual, in its longest latency.
const MARGIN: f64 = 1.2;
/// Share of the plan's requests that must have been due: below it who asks was not there.
const OFFERED: f64 = 0.95;
/// Latencies that a baseline must have for a P99 that is worth 1 %.
const BASELINE_MIN: u64 = 1_000;

/// What is usual for the service.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Windows of a second that it was taken from.
    pub windows: usize,
    /// Latencies in them.
    pub timed: u64,
    /// Their P99, ns, at most 6.25 % too high.
    pub p99_ns: u64,
    /// The limit that a window in the band may exceed as rarely as `over` says, ns: 1.2 times the P99 as the buckets of the
    /// counts show it, which is 1.09 to 1.31 times the P99 itself, at the edge of a bucket: what exceeds it is known exactly.
    pub limit_ns: u64,
    /// Largest share of latencies above the limit in a window in the band.
    pub over: f64,
    /// Smallest share of answered requests in a window in the band.
    pub answered: f64,
    /// Smallest share of answered requests in the windows of a return together.
    #[serde(default)]
    pub return_answered: f64,
    /// 1.2 times the longest latency, ns: what is above it is usual nowhere.
    #[serde(default = "longest")]
    pub far_ns: u64,
    /// How long one has to look for a return in the baseline itself, from its worst instant, ns: so much of a recovery may
    /// be the noise of the host.
    #[serde(default)]
    pub noise_ns: u64,
    /// Largest share of requests that were not answered, or late, in a slot, in a second and in five of the baseline.
    #[serde(default)]
    pub worst: [f64; 3],
}

/// Series that were recorded before there was such a bound have none, until they are judged again.
const fn longest() -> u64 {
    u64::MAX
}

impl Baseline {
    /// From the slots of a time without faults; `None` with fewer than five windows or a thousand latencies; when a
    /// window answered less than 99 %, or less was due than the plan has; and when nothing in it would be a return: a service that is not well, that nobody asks, or that is never the same for five seconds, has no usual
    /// state to come back to.
    #[must_use]
    pub fn of(axis: &Axis, slots: Range<usize>) -> Option<Self> {
        let second = axis.second();
        let slots = slots.start..slots.end.min(axis.cells.len());
        let all = axis.sum(slots.clone());
        let limit_ns = nearest_edge_ns(all.quantile_within_ns(0.99)? * MARGIN);
        let longest = (0..BUCKETS).rev().find(|&at| all.buckets[at] > 0)?;
        let far_ns = nearest_edge_ns(bucket_from_ns(longest + 1) as f64 * MARGIN);
        let brief = |cell: &Cell| Brief::of(cell, limit_ns, far_ns);
        let known: Vec<Brief> = axis.cells[slots].iter().map(brief).collect();
        let windows: Vec<Brief> = known.chunks_exact(second).map(Brief::sum).collect();
        let expected = axis.expected * second as f64;
        let asked = all.due as f64 >= axis.expected * known.len() as f64 * OFFERED;
        let well = |window: &Brief| {
            window.answered() >= AVAILABLE && window.due() as f64 >= offered(expected)
        };
        let well = asked && windows.iter().all(well);
        if windows.len() < RETURN_WINDOWS || all.timed() < BASELINE_MIN || !well {
            return None;
        }
        let mut found = Self {
            windows: windows.len(),
            timed: all.timed(),
            p99_ns: all.quantile_ns(0.99)?,
            limit_ns,
            over: windows.iter().map(Brief::over).fold(OVER, f64::max),
            answered: windows.iter().map(Brief::answered).fold(ANSWERED, f64::min),
            return_answered: brief(&all).answered().min(ANSWERED),
            far_ns,
            noise_ns: 0,
            worst: [1, second, RETURN_WINDOWS * second].map(|n| worst(&known, n)),
        };
        found.noise_ns = found.longest_look(&known, axis)? as u64 * axis.slot_ns;
        Some(found)
    }

    /// What a slot, or some of them together, have for the band.
    pub(super) fn brief(&self, cell: &Cell) -> Brief {
        Brief::of(cell, self.limit_ns, self.far_ns)
    }

    /// Whether a window is as usual. `expected`: requests that the plan has due in it.
    #[must_use]
    pub fn holds(&self, window: &Cell, expected: f64) -> bool {
        self.is_in_band(&self.brief(window), expected)
    }

    fn is_in_band(&self, window: &Brief, expected: f64) -> bool {
        window.due() as f64 >= offered(expected)
            && window.answered() >= self.answered
            && window.over() <= self.over
    }

    /// Whether so many windows in a row are a return.
    fn is_return(&self, windows: [Brief; RETURN_WINDOWS], expected: f64) -> bool {
        let together = Brief::sum(&windows);
        windows.iter().all(|window| self.is_in_band(window, expected))
            && together.answered() >= self.return_answered
            && together.over() <= OVER
            && together.far() <= FAR
    }

    /// The first of these slots at `from` or later that begins a return.
    pub(super) fn return_in(&self, known: &[Brief], from: usize, axis: &Axis) -> Option<usize> {
        let second = axis.second();
        let expected = axis.expected * second as f64;
        let returns = |&at: &usize| {
            let window = |n: usize| Brief::sum(&known[at + n * second..at + (n + 1) * second]);
            self.is_return(std::array::from_fn(window), expected)
        };
        let last = known.len().checked_sub(RETURN_WINDOWS * second)?;
        (from..=last).find(returns)
    }

    /// Slots from the worst of these to the next return; of those behind the last return, so many as there are. `None`:
    /// there is none.
    fn longest_look(&self, known: &[Brief], axis: &Axis) -> Option<usize> {
        let (mut from, mut longest) = (0, 0);
        while let Some(at) = self.return_in(known, from, axis) {
            longest = longest.max(at - from);
            from = at + 1;
        }
        let last = known.len() - RETURN_WINDOWS * axis.second();
        // Behind the last one it was looked for in vain.
        (from > 0).then_some(longest.max((last + 1).saturating_sub(from)))
    }
}

/// Fewer requests than this were due by no chance: who asks was not there. 95 % of what the plan has due, and where so few
/// are due that chance alone has less, four standard deviations of a Poisson count below it (once in 30,000).
pub(super) fn offered(expected: f64) -> f64 {
    (expected * OFFERED).min(expected - 4.0 * expected.sqrt()).max(0.0)
}

/// The worst of so many slots in a row.
fn worst(known: &[Brief], slots: usize) -> f64 {
    known.windows(slots).map(|few| Brief::sum(few).bad(0.0)).fold(0.0, f64::max)
}
