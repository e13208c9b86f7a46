//! Latency by percentile: of the whole run, and of its first and its last part.
//!
//! The two parts are there to look at. Whether the run became slower is judged elsewhere, by all of its
//! blocks: a first part against a last one says nothing about noise.

use serde::Serialize;
use tailbeam_probes::stats::Histogram;

/// A part of a long run, ns; of a shorter one a quarter.
const PART_NS: u64 = 3_600 * 1_000_000_000;
/// Points between a rank and the one that halves what is above it.
const PER_OCTAVE: u32 = 6;

/// Latency by percentile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// `whole`, `first`, `last`.
    pub part: String,
    /// `system` or `end_to_end`.
    pub series: String,
    /// From here, s after the start.
    pub from_s: f64,
    /// To here.
    pub to_s: f64,
    /// Requests.
    pub count: u64,
    /// Shares of the requests that are not slower.
    pub ranks: Vec<f64>,
    /// Their latency, ns.
    pub ns: Vec<u64>,
}

impl Curve {
    fn of(part: &str, series: &str, extent_ns: (u64, u64), histogram: &Histogram) -> Self {
        let (mut ranks, mut ns) = (Vec::new(), Vec::new());
        let count = histogram.count();
        for step in 0.. {
            let above = 0.5f64.powf(f64::from(step) / f64::from(PER_OCTAVE));
            // The rank of the last but one value is the last that is more than the maximum.
            if count == 0 || above * (count as f64) < 1.0 {
                break;
            }
            let Some(value) = histogram.quantile(1.0 - above) else { break };
            ranks.push(1.0 - above);
            ns.push(value);
        }
        let seconds = |ns: u64| (ns / 1_000_000) as f64 / 1e3;
        Self {
            part: part.to_owned(),
            series: series.to_owned(),
            from_s: seconds(extent_ns.0),
            to_s: seconds(extent_ns.1),
            count,
            ranks,
            ns,
        }
    }
}

/// Histograms by part.
pub(super) struct Curves {
    start_ns: u64,
    first_end_ns: u64,
    last_begin_ns: u64,
    extent_ns: Option<(u64, u64)>,
    system: Histogram,
    end_to_end: Histogram,
    first: Histogram,
    last: Histogram,
}

impl Curves {
    pub(super) fn new(duration_ns: u64, start_ns: u64) -> Self {
        let part_ns = PART_NS.min(duration_ns / 4);
        Self {
            start_ns,
            first_end_ns: start_ns + part_ns,
            last_begin_ns: start_ns + duration_ns.saturating_sub(part_ns),
            extent_ns: None,
            system: Histogram::new(),
            end_to_end: Histogram::new(),
            first: Histogram::new(),
            last: Histogram::new(),
        }
    }

    /// Adds a window by the middle of its time.
    pub(super) fn add(&mut self, (from, to): (u64, u64), system: &Histogram, whole: &Histogram) {
        self.extent_ns = Some((self.extent_ns.map_or(from, |before| before.0), to));
        self.system.merge(system);
        self.end_to_end.merge(whole);
        let middle = from / 2 + to / 2;
        if middle < self.first_end_ns {
            self.first.merge(system);
        }
        if middle >= self.last_begin_ns {
            self.last.merge(system);
        }
    }

    pub(super) fn done(self) -> Vec<Curve> {
        let Some((from, to)) = self.extent_ns else { return Vec::new() };
        let after = |ns: u64| ns.saturating_sub(self.start_ns);
        let whole = (after(from), after(to));
        let parts = [
            Curve::of("whole", "system", whole, &self.system),
            Curve::of("first", "system", (whole.0, after(self.first_end_ns)), &self.first),
            Curve::of("last", "system", (after(self.last_begin_ns), whole.1), &self.last),
            Curve::of("whole", "end_to_end", whole, &self.end_to_end),
        ];
        parts.into_iter().filter(|curve| curve.count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_where_its_values_do() {
        let mut histogram = Histogram::new();
        (1..=1_000).for_each(|us| histogram.record(us * 1_000));
        let curve = Curve::of("whole", "system", (0, 2_000_000_000), &histogram);
        assert_eq!((curve.ranks[0], curve.ns[0]), (0.0, 1_000));
        assert!(curve.ranks.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(curve.ns.windows(2).all(|pair| pair[0] <= pair[1]));
        let last = curve.ranks[curve.ranks.len() - 1];
        assert!((0.998..0.9991).contains(&last), "{last}");
        assert!(Curve::of("whole", "system", (0, 1), &Histogram::new()).ranks.is_empty());
    }

    #[test]
    fn parts_are_the_outer_quarters_of_a_short_run() {
        let mut curves = Curves::new(80, 1_000);
        let mut one = Histogram::new();
        one.record(5);
        for from in (1_000..1_080).step_by(10) {
            curves.add((from, from + 10), &one, &Histogram::new());
        }
        let counts: Vec<(String, u64)> =
            curves.done().into_iter().map(|curve| (curve.part, curve.count)).collect();
        let expected = [("whole", 8), ("first", 2), ("last", 2)];
        assert_eq!(counts, expected.map(|(part, count)| (part.to_owned(), count)));
    }
}
