//! Pictures of figures as plain values, and the arithmetic of their axes.

use super::Unit;

/// A picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Chart {
    /// Lines over time, or over percentiles.
    Lines(Lines),
    /// Rows of stacked parts.
    Bars(Bars),
    /// Rows of cells over time.
    Heat(Heat),
    /// Intervals of ratios around the line at 1.
    Forest(Forest),
}

/// What the x axis of lines is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Across {
    /// Time, s.
    Time,
    /// A share of requests, drawn by what is above it.
    Ranks,
    /// A number of things, drawn by its logarithm.
    Many,
}

/// Lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// Title.
    pub title: String,
    /// Where its points are, in words: for those who do not see it.
    pub about: String,
    /// Begin and end of each point on the x axis; equal for instants.
    pub x: Vec<(f64, f64)>,
    /// JSON pointers of begins and ends.
    pub x_at: (String, String),
    /// What x is.
    pub across: Across,
    /// y is drawn by its logarithm.
    pub log: bool,
    /// Unit of y.
    pub unit: Unit,
    /// Lines, the most important first.
    pub lines: Vec<Line>,
    /// An area between two of the lines.
    pub band: Option<Area>,
    /// Where the x axis ends at least.
    pub end: f64,
    /// Instants with a name.
    pub marks: Vec<(f64, String)>,
}

/// An area between two lines, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Lower line.
    pub low: usize,
    /// Upper line.
    pub high: usize,
}

/// One line; a missing point breaks it.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Name.
    pub name: String,
    /// JSON pointer of its points.
    pub at: String,
    /// Points.
    pub points: Vec<Option<f64>>,
    /// Points of x of its own, where lines do not share them.
    pub x: Option<Vec<f64>>,
}

/// Rows of stacked parts, each row to 100 %.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// Title.
    pub title: String,
    /// In words.
    pub about: String,
    /// Rows.
    pub rows: Vec<Row>,
}

/// A row of parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name.
    pub name: String,
    /// What the whole of it is.
    pub whole: String,
    /// Parts.
    pub parts: Vec<Part>,
}

/// A part of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Name.
    pub name: String,
    /// Colour, by number.
    pub colour: usize,
    /// Share of the row.
    pub share: f64,
}

/// Rows of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// Title.
    pub title: String,
    /// In words.
    pub about: String,
    /// Begin of the first and end of the last cell, s.
    pub extent: (f64, f64),
    /// Rows: name, and the cells, 0 to 1.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

/// Intervals of ratios, one below the other, on a logarithmic axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    /// Title.
    pub title: String,
    /// In words.
    pub about: String,
    /// Rows; each of positive numbers.
    pub rows: Vec<Ratio>,
}

/// A ratio with its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratio {
    /// Of what.
    pub name: String,
    /// Estimate.
    pub at: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// Ratios between its inverse and itself are no difference.
    pub band: f64,
    /// The estimate and what it is worth, in words.
    pub said: String,
}

impl Ratio {
    /// Whether it can be drawn.
    #[must_use]
    pub fn is_drawable(&self) -> bool {
        [self.at, self.low, self.high, self.band].iter().all(|v| v.is_finite() && *v > 0.0)
    }
}

impl Forest {
    /// Ratios at both ends of the axis.
    #[must_use]
    pub fn extent(&self) -> (f64, f64) {
        let ends = self.rows.iter().flat_map(|row| [row.low, row.high, row.band, row.band.recip()]);
        let (low, high) =
            ends.fold((1.0f64, 1.0f64), |(low, high), end| (low.min(end), high.max(end)));
        // A little room at both ends, and an axis even where nothing differs.
        let room = ((high / low).ln() * 0.05).max(0.01).exp();
        (low / room, high * room)
    }

    /// Place of a ratio between 0 and 1.
    #[must_use]
    pub fn place(&self, ratio: f64) -> f64 {
        let (low, high) = self.extent();
        ((ratio / low).ln() / (high / low).ln()).clamp(0.0, 1.0)
    }

    /// Ratios with a tick: 1, and others that are not too near to each other.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.extent();
        let decades = (-6i32..=6).map(|power| 10f64.powi(power));
        let near = [0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.01, 1.02, 1.05, 1.1, 1.25, 2.0, 5.0, 0.2];
        let mut ticks = vec![1.0];
        for tick in decades.chain(near).filter(|tick| (low..=high).contains(tick)) {
            let far = |other: &f64| (self.place(*other) - self.place(tick)).abs() > 0.09;
            if ticks.iter().all(far) {
                ticks.push(tick);
            }
        }
        ticks.sort_by(f64::total_cmp);
        ticks
    }
}

/// Where an axis begins and ends, and its ticks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) ticks: Vec<f64>,
    pub(super) log: bool,
}

impl Axis {
    /// An axis from 0 that holds `max`.
    pub(super) fn linear(max: f64, steps: f64) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let step = nice(max / steps);
        let top = (max / step).ceil() * step;
        let mut ticks = vec![0.0];
        while ticks[ticks.len() - 1] + step < top + step / 2.0 {
            ticks.push(ticks[ticks.len() - 1] + step);
        }
        Self { min: 0.0, max: top, ticks, log: false }
    }

    /// The same in binary steps, for bytes.
    pub(super) fn bytes(max: f64) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let unit = 1_024f64.powf(max.log(1_024.0).floor().max(0.0));
        let mut axis = Self::linear(max / unit, 4.0);
        axis.max *= unit;
        axis.ticks.iter_mut().for_each(|tick| *tick *= unit);
        axis
    }

    /// A logarithmic axis of whole decades around `min` and `max`.
    pub(super) fn decades(min: f64, max: f64) -> Self {
        let low = min.max(1.0).log10().floor();
        let high = max.max(1.0).log10().ceil().max(low + 1.0);
        let mut ticks = Vec::new();
        let mut decade = low;
        while decade <= high {
            ticks.push(10f64.powf(decade));
            decade += 1.0;
        }
        Self { min: 10f64.powf(low), max: 10f64.powf(high), ticks, log: true }
    }

    /// Time from 0 to `end`, s.
    pub(super) fn time(end: f64) -> Self {
        let end = if end > 0.0 { end } else { 1.0 };
        let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0];
        let hours = [1.0, 2.0, 4.0, 6.0, 12.0, 24.0, 48.0, 96.0, 168.0].map(|h| h * 3_600.0);
        let step = steps.into_iter().chain(hours).find(|step| end / step <= 8.0);
        let step = step.unwrap_or(end / 8.0);
        let mut ticks = vec![0.0];
        while ticks[ticks.len() - 1] + step <= end {
            ticks.push(ticks[ticks.len() - 1] + step);
        }
        Self { min: 0.0, max: end, ticks, log: false }
    }

    /// Place between 0 and 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.log {
            let value = value.max(self.min);
            (value / self.min).log10() / (self.max / self.min).log10()
        } else {
            (value - self.min) / (self.max - self.min)
        }
        .clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let found = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= step * 0.999);
    found.unwrap_or(10.0) * power
}

/// A share of requests by what is above it: 0 %, 90 %, 99 % and so on are equally far apart.
pub(super) fn rank_place(rank: f64, last: f64) -> f64 {
    let nines = |rank: f64| -(1.0 - rank).max(1e-12).log10();
    (nines(rank) / nines(last).max(1e-9)).clamp(0.0, 1.0)
}

/// Smallest, median and largest of what is known.
pub(super) fn summary(points: &[Option<f64>]) -> Option<(f64, f64, f64)> {
    let mut known: Vec<f64> = points.iter().flatten().copied().collect();
    known.sort_by(f64::total_cmp);
    Some((*known.first()?, known[(known.len() - 1) / 2], *known.last()?))
}

/// Seconds on an axis.
pub(super) fn clock(s: f64) -> String {
    match s {
        s if s < 0.5 => "0".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forest_has_room_for_its_rows_and_a_tick_at_one() {
        let row = |at, low, high| Ratio {
            name: "p50".to_owned(),
            at,
            low,
            high,
            band: 1.05,
            said: String::new(),
        };
        let of = |rows| Forest { title: String::new(), about: String::new(), rows };
        let wide = of(vec![row(0.01, 0.009, 0.011), row(1.2, 1.1, 1.3)]);
        let (low, high) = wide.extent();
        assert!(low < 0.009 && high > 1.3, "{low} {high}");
        assert!(wide.place(0.01) < wide.place(1.0) && wide.place(1.0) < wide.place(1.2));
        let ticks = wide.ticks();
        assert!([0.01, 0.1, 1.0].iter().all(|tick| ticks.contains(tick)), "{ticks:?}");
        assert!(ticks.windows(2).all(|two| wide.place(two[1]) - wide.place(two[0]) > 0.09));
        let same = of(vec![row(1.0, 1.0, 1.0)]);
        assert!((same.place(1.0) - 0.5).abs() < 1e-9);
        assert!(same.ticks().contains(&1.0) && same.ticks().len() >= 3, "{:?}", same.ticks());
        assert!(of(Vec::new()).extent().0 < 1.0);
        assert!(!row(f64::NAN, 1.0, 1.0).is_drawable() && !row(1.0, 0.0, 1.0).is_drawable());
    }

    #[test]
    fn axes_hold_what_they_must() {
        let axis = Axis::linear(3_100.0, 4.0);
        assert_eq!((axis.max, axis.ticks.len()), (4_000.0, 5));
        assert_eq!(Axis::linear(0.0, 4.0).ticks.first(), Some(&0.0));
        let decades = Axis::decades(11_000.0, 4_900_000.0);
        assert_eq!((decades.min, decades.max), (1e4, 1e7));
        assert_eq!(decades.place(1e4), 0.0);
        assert!((decades.place(1e7) - 1.0).abs() < 1e-9);
        assert_eq!(Axis::bytes(700.0 * 1_048_576.0).ticks[1], 200.0 * 1_048_576.0);
        assert!(Axis::time(259_200.0).ticks.len() <= 9);
    }

    #[test]
    fn ranks_are_placed_by_their_nines() {
        assert!((rank_place(0.9, 0.999) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!((rank_place(0.0, 0.99), rank_place(0.99, 0.99)), (0.0, 1.0));
    }

    #[test]
    fn a_summary_leaves_out_what_is_unknown() {
        assert_eq!(summary(&[None, Some(3.0), Some(1.0), Some(2.0)]), Some((1.0, 2.0, 3.0)));
        assert_eq!(summary(&[None]), None);
    }
}
