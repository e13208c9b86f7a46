//! What the clauses of the verdict look at, for one cohort: the case against the null, when the survivors
//! were born, how many never die and how fast they come.

use super::births::{self, Change, Window};
use super::cohort::{Cohort, HOUR_NS};
use super::hazard::{self, Hazard};
use super::rate::{Immortals, Tail};
use super::{Interval, LeakConfig};
use crate::record::heap::{AGE_BINS, AGE_UNIT_NS, Sample, age_bin_from_ns};

/// Figures of a cohort. Times in ns, rates in bytes/h.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Study {
    pub(super) now_ns: u64,
    pub(super) hazard: Hazard,
    pub(super) onset: Option<Change>,
    pub(super) stop: Option<Change>,
    /// Laplace's statistic of the survivors' births since the start or the onset.
    pub(super) laplace: f64,
    /// The survivors are no more than a warm-up that dwindles still brings.
    pub(super) warming: bool,
    /// [`Self::laplace`] before the stop, and how long that part was.
    pub(super) before_stop: Option<(f64, f64)>,
    /// From the warm-up's end, or the onset, to the youngest birth that is old by now.
    pub(super) span_ns: f64,
    pub(super) rate: Option<Interval>,
    pub(super) low_any_time: f64,
    /// Rate of the later half of the births.
    pub(super) recent: Option<Interval>,
    /// First birth that stayed, last birth that stayed.
    pub(super) first_ns: f64,
    pub(super) last_ns: f64,
}

/// Studies a cohort at the age where the case is strongest.
pub(super) fn study(cohort: &Cohort<'_>, config: &LeakConfig) -> Study {
    let hazard = hazard::weigh(cohort, config);
    let old_ns = hazard.map_or(AGE_UNIT_NS as f64, |h| h.best.old_ns);
    let (from, to) = (cohort.from_ns as f64, cohort.now_ns as f64 - old_ns);
    let mut old: Vec<&Sample> =
        cohort.alive.iter().copied().filter(|s| s.born_ns as f64 <= to).collect();
    old.sort_by_key(|s| s.born_ns);
    let times: Vec<f64> = old.iter().map(|s| s.born_ns as f64).collect();
    let whole = Window::new(&times, from, to);
    let onset = whole.onset();
    let start = onset.map_or(from, |o| o.at);
    let active = Window::new(&times, start, to);
    let stop = active.stop();
    let seen = |from: f64| hazard.and_then(|_| Seen::new(cohort, &old, old_ns, from, to));
    let now_seen = seen(stop.map_or(start, |s| s.at));
    // A change that chance may have made was chosen by the data: what holds without it may hold as well.
    let doubted = [(onset, from), (stop, start)];
    let also = doubted.iter().filter(|(change, _)| change.is_some_and(|change| !change.sure));
    let also: Vec<Seen> = also.filter_map(|&(_, from)| seen(from)).collect();
    Study {
        now_ns: cohort.now_ns,
        hazard: hazard.unwrap_or_default(),
        onset,
        stop,
        laplace: active.laplace(),
        warming: births::still_warming(&cohort.early_ns, from, to, whole.times.len()),
        before_stop: stop.map(|stop| {
            let before = Window::new(&times, start, stop.at);
            (before.laplace(), before.length())
        }),
        span_ns: active.length(),
        rate: now_seen.map(|seen| also.iter().fold(seen.rate(), |rate, it| rate.with(it.rate()))),
        low_any_time: now_seen.map_or(0.0, |seen| {
            also.iter().fold(seen.low_any_time(), |low, it| low.min(it.low_any_time()))
        }),
        recent: seen(f64::midpoint(start, to)).map(|seen| seen.rate()),
        first_ns: active.times.first().copied().unwrap_or(start),
        last_ns: active.times.last().copied().unwrap_or(start),
    }
}

/// What was born in a window and grew old.
#[derive(Debug, Clone, Copy)]
struct Seen {
    immortals: Immortals,
    /// Mean weight of a survivor, bytes.
    weight: f64,
    hours: f64,
}

impl Seen {
    fn new(cohort: &Cohort<'_>, old: &[&Sample], old_ns: f64, from: f64, to: f64) -> Option<Self> {
        let hours = (to - from) / HOUR_NS;
        if hours <= 0.0 {
            return None;
        }
        let born: Vec<&&Sample> = old.iter().filter(|s| s.born_ns as f64 >= from).collect();
        let alive: Vec<f64> = born.iter().map(|s| (cohort.age_ns(s) / old_ns).ln()).collect();
        let weights: Vec<f64> = born.iter().map(|s| s.weight).collect();
        let dead: Vec<(f64, u64)> = cohort
            .dead
            .iter()
            .filter(|&&(ends, bin, _)| ends as f64 > from && age_bin_from_ns(bin) >= old_ns)
            .map(|&(_, bin, count)| ((middle_ns(bin) / old_ns).ln(), count))
            .collect();
        let sum: f64 = weights.iter().sum();
        let weight = if alive.is_empty() { cohort.weight } else { sum / alive.len() as f64 };
        let immortals = Tail::new(&alive, &dead, &weights, cohort.alpha0).immortals();
        Some(Self { immortals, weight, hours })
    }

    fn per_hour(&self, count: f64) -> f64 {
        count * self.weight / self.hours
    }

    fn low_any_time(&self) -> f64 {
        self.per_hour(self.immortals.low_any_time)
    }

    fn rate(&self) -> Interval {
        Interval {
            estimate: self.per_hour(self.immortals.count),
            low: self.per_hour(self.immortals.low),
            high: self.per_hour(self.immortals.high),
        }
    }
}

/// Geometric middle of a bin of age.
fn middle_ns(bin: usize) -> f64 {
    (age_bin_from_ns(bin) * age_bin_from_ns((bin + 1).min(AGE_BINS))).sqrt()
}
