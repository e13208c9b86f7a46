//! The line between ticks and `CLOCK_MONOTONIC`, measured anew every 10 s; pure.
//!
//! Each sample pairs the counter with two clocks. `CLOCK_MONOTONIC_RAW` is the hardware's own pace and
//! judges the counter: NTP bends `CLOCK_MONOTONIC` by up to 500 ppm, and that is no fault of the
//! counter. `CLOCK_MONOTONIC` is what lines are drawn to, as perf's records carry it.
//!
//! A new line starts where the old one ends, so time by the lines neither jumps nor goes back, and its
//! slope takes back the error of the old one over the next period. Only a step (an error that no slope
//! explains) moves it, and then the window says so. The error inside a window is largest at one of its
//! ends as both paces are straight lines there, so the bound of a window is the larger of both errors
//! and the width of the readings; a window whose paces are not straight is the one that is suspect.

use super::PERIOD_NS;
use super::line::{Line, SHIFT};

/// More change of the counter's pace than this between two windows is no drift, parts per billion.
const PACE_PPB_MAX: i64 = 50_000;

/// NTP bends `CLOCK_MONOTONIC` by at most this (adjtimex(2)), parts per billion; an error beyond it
/// is a step. Twice, as the bend may change from one end to the other.
const BEND_PPB_MAX: i64 = 1_000_000;

/// A clock read between two readings of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Middle of the two, ticks.
    pub ticks: u64,
    /// The clock, ns.
    pub ns: u64,
    /// Half of what lies between the two, ticks: the error of `ticks` at most.
    pub half_width: u64,
}

impl Point {
    /// `ns` was read after `before` and before `after`.
    #[must_use]
    pub const fn between(before: u64, ns: u64, after: u64) -> Self {
        let half_width = after.saturating_sub(before).div_ceil(2);
        Self { ticks: before.saturating_add(half_width), ns, half_width }
    }
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// `CLOCK_MONOTONIC_RAW`.
    pub raw: Point,
    /// `CLOCK_MONOTONIC`.
    pub mono: Point,
}

impl Sample {
    pub(super) const fn width(&self) -> u64 {
        self.raw.half_width.saturating_add(self.mono.half_width)
    }
}

/// Why the stamps of a window are not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspect {
    /// The counter's pace against the hardware clock changed by so much, parts per billion.
    Pace(i64),
    /// `CLOCK_MONOTONIC` and the line differ by more than drift and NTP explain, ns.
    Step(i64),
    /// The kernel changed its clock source.
    Clocksource,
    /// The counter or a clock went back or stood still.
    Backwards,
}

/// One window between two samples. Worth keeping: 10 s of stamps are read by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The sample that opened the window.
    pub from: Sample,
    /// The sample that closed it.
    pub to: Sample,
    /// The line that was in force.
    pub line: Line,
    /// At the end: `CLOCK_MONOTONIC` less the line, ns.
    pub error_ns: i64,
    /// No stamp of the window is off by more, ns, unless it is suspect.
    pub bound_ns: u64,
    /// The counter's pace against the window before, parts per billion.
    pub pace_ppb: i64,
    /// Why not to trust the window.
    pub suspect: Option<Suspect>,
}

/// Keeps the line.
#[derive(Debug, Clone)]
pub struct Calibrator {
    line: Line,
    last: Sample,
    /// Pace by `CLOCK_MONOTONIC_RAW` of the window before, and its relative error, parts per billion.
    pace: Pace,
    /// |error| of the line at the sample before, ns.
    opened_ns: u64,
    period_ticks: u64,
    identity: bool,
}

/// A slope with what the width of its two readings leaves open.
#[derive(Debug, Clone, Copy)]
struct Pace {
    slope: u64,
    bound_ppb: i64,
}

/// Slope through two points; `None` when either did not grow.
fn pace(from: Point, to: Point) -> Option<Pace> {
    let ticks = to.ticks.checked_sub(from.ticks).filter(|ticks| *ticks > 0)?;
    let ns = to.ns.checked_sub(from.ns).filter(|ns| *ns > 0)?;
    let slope = u64::try_from((u128::from(ns) << SHIFT) / u128::from(ticks)).ok()?;
    let width = u128::from(from.half_width) + u128::from(to.half_width);
    let bound = width * 1_000_000_000 / u128::from(ticks);
    Some(Pace { slope, bound_ppb: i64::try_from(bound).unwrap_or(i64::MAX) })
}

/// `a` against `b`, parts per billion.
fn ppb(a: u64, b: u64) -> i64 {
    let difference = i128::from(a) - i128::from(b);
    saturated(difference * 1_000_000_000 / i128::from(b.max(1)))
}

/// `a` less `b`, as a signed number.
fn signed(a: u64, b: u64) -> i64 {
    saturated(i128::from(a) - i128::from(b))
}

fn saturated(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}

impl Calibrator {
    /// Of a counter whose ticks are ns of `CLOCK_MONOTONIC`: the line is exact, and stays.
    #[must_use]
    pub fn identity(first: Sample) -> Self {
        let pace = Pace { slope: 1 << SHIFT, bound_ppb: 0 };
        let line = Line::IDENTITY;
        Self { line, last: first, pace, opened_ns: 0, period_ticks: PERIOD_NS, identity: true }
    }

    /// Through two samples. When the second is not after the first the line is that of 1 ns per tick,
    /// and the next window will say so.
    #[must_use]
    pub fn start(first: Sample, second: Sample) -> Self {
        let unknown = Pace { slope: 1 << SHIFT, bound_ppb: 0 };
        let slope = pace(first.mono, second.mono).unwrap_or(unknown).slope;
        let line = Line { base_ticks: second.mono.ticks, base_ns: second.mono.ns, slope };
        let pace = pace(first.raw, second.raw).unwrap_or(unknown);
        let period_ticks = line.ticks_in(PERIOD_NS);
        Self { line, last: second, pace, opened_ns: 0, period_ticks, identity: false }
    }

    /// The line in force.
    #[must_use]
    pub const fn line(&self) -> Line {
        self.line
    }

    /// Whether a period has gone by at `ticks`.
    #[must_use]
    pub const fn due(&self, ticks: u64) -> bool {
        ticks.saturating_sub(self.last.mono.ticks) >= self.period_ticks
    }

    /// Closes the window with `sample`; `changed` when the kernel has another clock source than at the
    /// sample before.
    pub fn observe(&mut self, sample: Sample, changed: bool) -> Record {
        let (from, line) = (self.last, self.line);
        let paces = pace(from.raw, sample.raw).zip(pace(from.mono, sample.mono));
        let Some((raw, mono)) = paces else {
            self.last = sample;
            self.line = Line { base_ticks: sample.mono.ticks, base_ns: sample.mono.ns, ..line };
            let suspect = Some(Suspect::Backwards);
            let error_ns = signed(sample.mono.ns, line.ns(sample.mono.ticks));
            let bound_ns = error_ns.unsigned_abs();
            return Record { from, to: sample, line, error_ns, bound_ns, pace_ppb: 0, suspect };
        };
        let error_ns = signed(sample.mono.ns, line.ns(sample.mono.ticks));
        let width_ns = line.duration_ns(from.mono.half_width.max(sample.mono.half_width)) + 1;
        let bound_ns = self.opened_ns.max(error_ns.unsigned_abs()).saturating_add(width_ns);
        let pace_ppb = if self.identity { 0 } else { ppb(raw.slope, self.pace.slope) };
        let open_ppb = raw.bound_ppb.saturating_add(self.pace.bound_ppb);
        let elapsed_ns = sample.mono.ns - from.mono.ns;
        let bend_ns = saturated(
            i128::from(elapsed_ns) * i128::from(BEND_PPB_MAX) / 1_000_000_000
                + i128::from(width_ns),
        );
        let suspect = if changed {
            Some(Suspect::Clocksource)
        } else if pace_ppb.saturating_abs() > PACE_PPB_MAX.saturating_add(open_ppb) {
            Some(Suspect::Pace(pace_ppb))
        } else if error_ns.saturating_abs() > bend_ns {
            Some(Suspect::Step(error_ns))
        } else {
            None
        };
        self.last = sample;
        self.pace = raw;
        if !self.identity {
            self.draw(sample.mono, mono.slope, error_ns, error_ns.saturating_abs() > bend_ns);
        }
        Record { from, to: sample, line, error_ns, bound_ns, pace_ppb, suspect }
    }

    /// The next line: from the end of the old one, back to the truth within a period; or, after a step,
    /// from the truth.
    fn draw(&mut self, at: Point, slope: u64, error_ns: i64, step: bool) {
        let (base_ns, takes_back) =
            if step { (at.ns, 0) } else { (self.line.ns(at.ticks), error_ns) };
        let bend = i128::from(slope) * i128::from(takes_back) / i128::from(PERIOD_NS);
        // A bend is at most 1,000 ppm of the slope here, so it neither vanishes nor changes its sign.
        let slope = u64::try_from(i128::from(slope) + bend).unwrap_or(slope);
        self.line = Line { base_ticks: at.ticks, base_ns, slope };
        self.opened_ns = takes_back.unsigned_abs();
        self.period_ticks = self.line.ticks_in(PERIOD_NS);
    }
}

#[cfg(test)]
mod tests;
