//! When were the survivors born? Flat, rising or declining; since when; until when.
//!
//! Births of a leak's survivors are a Poisson process that goes on. Laplace's test compares the mean
//! birth time with the middle of the window; a change point is the split in two constant rates that
//! the likelihood prefers (Cox and Lewis, "The statistical analysis of series of events").

/// Laplace's statistic below which births decline: 2.3 % of flat ones do so by chance.
pub(super) const DECLINE: f64 = -2.0;
/// Gain in log-likelihood that a change point must bring: a scan of all splits of a flat process reaches it
/// in less than 1 of 100 (see the test).
const CHANGE_GAIN: f64 = 8.0;
/// Gain from which a change point is beyond doubt: by chance once in a million.
const SURE_GAIN: f64 = 18.0;
/// Drop from the top within which a change point may lie.
const ONSET_DROP: f64 = 3.0;

/// Birth times, rising, within a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) times: &'a [f64],
    pub(super) from: f64,
    pub(super) to: f64,
}

/// A split of a window in two constant rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Change {
    pub(super) at: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Events before it.
    pub(super) before: usize,
    /// A flat process has one so clear once in a million, and not once in a hundred.
    pub(super) sure: bool,
}

impl<'a> Window<'a> {
    /// The events of `sorted` within `from..=to`.
    pub(super) fn new(sorted: &'a [f64], from: f64, to: f64) -> Self {
        let first = sorted.partition_point(|&t| t < from);
        let last = sorted.partition_point(|&t| t <= to).max(first);
        Self { times: &sorted[first..last], from, to }
    }

    pub(super) fn length(&self) -> f64 {
        (self.to - self.from).max(0.0)
    }

    /// Laplace's statistic: standard normal when births are flat, negative when they decline. 0 without
    /// an event.
    pub(super) fn laplace(&self) -> f64 {
        let n = self.times.len() as f64;
        if n == 0.0 || self.length() <= 0.0 {
            return 0.0;
        }
        let mean = self.times.iter().map(|t| (t - self.from) / self.length()).sum::<f64>() / n;
        (mean - 0.5) * (12.0 * n).sqrt()
    }

    /// The best split with a higher rate after it, if it is worth one.
    pub(super) fn onset(&self) -> Option<Change> {
        self.change(|before, after| after > before)
    }

    /// The best split with a lower rate after it, if it is worth one.
    pub(super) fn stop(&self) -> Option<Change> {
        self.change(|before, after| after < before)
    }

    fn change(&self, wanted: impl Fn(f64, f64) -> bool) -> Option<Change> {
        let (n, length) = (self.times.len(), self.length());
        if n < 4 || length <= 0.0 {
            return None;
        }
        let flat = n as f64 * (n as f64 / length).ln();
        // A split just before or just after an event; one at the very edge splits nothing.
        let gain = |at: f64, before: usize| {
            let (left, right) = (at - self.from, self.to - at);
            if left < length * 1e-3 || right < length * 1e-3 {
                return f64::NEG_INFINITY;
            }
            let (rate_left, rate_right) = (before as f64 / left, (n - before) as f64 / right);
            if !wanted(rate_left, rate_right) {
                return f64::NEG_INFINITY;
            }
            let part = |count: f64, rate: f64| if count > 0.0 { count * rate.ln() } else { 0.0 };
            part(before as f64, rate_left) + part((n - before) as f64, rate_right) - flat
        };
        let splits = || {
            self.times
                .iter()
                .enumerate()
                .flat_map(|(i, &t)| [(t, i), (t, i + 1)])
                .map(|(at, before)| Split { gain: gain(at, before), at, before })
        };
        let best = splits().max_by(|a, b| a.gain.total_cmp(&b.gain))?;
        if best.gain < CHANGE_GAIN {
            return None;
        }
        let near = splits().filter(|split| split.gain > best.gain - ONSET_DROP);
        let (low, high) = near
            .fold((best.at, best.at), |(low, high), split| (low.min(split.at), high.max(split.at)));
        let sure = best.gain >= SURE_GAIN;
        Some(Change { at: best.at, low, high, before: best.before, sure })
    }
}

/// Laplace's statistic of the births within the warm-up from which they are said to dwindle.
const DWINDLES: f64 = -3.0;
/// Standard deviations above what a warm-up that dwindles still brings, for more to be at work.
const EXCESS: f64 = 3.0;

/// Whether `count` survivors born between the end of the warm-up and `to` are no more than the tail of a
/// warm-up whose births dwindle exponentially: the constant is fitted to the births within it (maximum
/// likelihood of the truncated exponential) and carried on.
pub(super) fn still_warming(early: &[f64], warm_up: f64, to: f64, count: usize) -> bool {
    let during = Window { times: early, from: 0.0, to: warm_up };
    if warm_up <= 0.0 || during.laplace() > DWINDLES {
        return false;
    }
    let n = early.len() as f64;
    let mean = early.iter().sum::<f64>() / n / warm_up;
    // mean = 1 / x - 1 / (e^x - 1) falls in x, the warm-up over the constant.
    let (mut low, mut high) = (1e-6, 700.0);
    for _ in 0..60 {
        let x = f64::midpoint(low, high);
        if 1.0 / x - 1.0 / x.exp_m1() > mean { low = x } else { high = x }
    }
    let x = f64::midpoint(low, high);
    let carried = n * ((-x).exp() - (-x * to / warm_up).exp()) / -(-x).exp_m1();
    // The constant is not known better than to about 1 / sqrt(n).
    let sigma = (carried + (carried * x).powi(2) / n).sqrt();
    (count as f64) < carried + EXCESS * sigma
}

#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    at: f64,
    before: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(count: usize, from: f64, to: f64) -> Vec<f64> {
        (0..count).map(|i| from + (to - from) * (i as f64 + 0.5) / count as f64).collect()
    }

    #[test]
    fn flat_births_have_no_change_and_no_trend() {
        let times = even(50, 0.0, 4.0);
        let window = Window::new(&times, 0.0, 4.0);
        assert!(window.laplace().abs() < 1e-9);
        assert_eq!((window.onset(), window.stop()), (None, None));
        assert_eq!(Window::new(&[], 0.0, 4.0).laplace(), 0.0);
    }

    #[test]
    fn onset_and_stop_are_found_where_they_are() {
        let late = even(40, 3.0, 4.0);
        let onset = Window::new(&late, 0.0, 4.0).onset().unwrap();
        assert!(
            (onset.at - 3.0).abs() < 0.1 && onset.low <= 3.05 && onset.high >= 3.0,
            "{onset:?}"
        );
        let early = even(40, 0.0, 1.0);
        let window = Window::new(&early, 0.0, 4.0);
        let stop = window.stop().unwrap();
        assert!((stop.at - 1.0).abs() < 0.1, "{stop:?}");
        assert!(window.laplace() < DECLINE && window.onset().is_none());
    }

    #[test]
    fn a_flat_process_seldom_has_a_change_point() {
        let mut state = 1u64;
        let mut unit = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut found = Vec::new();
        for n in [10, 50, 300] {
            let onsets = (0..1_000).filter(|_| {
                let mut times: Vec<f64> = (0..n).map(|_| unit()).collect();
                times.sort_by(f64::total_cmp);
                Window::new(&times, 0.0, 1.0).onset().is_some()
            });
            found.push(onsets.count());
        }
        assert!(found.iter().all(|&onsets| onsets <= 10), "{found:?} of 1000 each");
    }

    #[test]
    fn the_tail_of_a_warm_up_is_told_from_a_leak_beside_it() {
        // 200 objects that come with a constant of 20 min, half an hour of which is the warm-up.
        let times: Vec<f64> =
            (0..200).map(|i| -20.0 * (1.0 - (f64::from(i) + 0.5) / 200.0).ln()).collect();
        let early: Vec<f64> = times.iter().copied().filter(|t| *t < 30.0).collect();
        let later = times.iter().filter(|t| (30.0..80.0).contains(*t)).count();
        assert!(still_warming(&early, 30.0, 80.0, later));
        assert!(!still_warming(&early, 30.0, 80.0, later + 60));
        // A burst at the start is over; even births do not dwindle.
        assert!(!still_warming(&even(200, 0.0, 1.0), 30.0, 80.0, 5));
        assert!(!still_warming(&even(30, 0.0, 30.0), 30.0, 80.0, 30));
    }

    #[test]
    fn a_filling_structure_declines() {
        // exp(20 min) seen for an hour.
        let filled = 1.0 - (-3.0f64).exp();
        let times: Vec<f64> =
            (0..60).map(|i| -(1.0 - filled * (f64::from(i) + 0.5) / 60.0).ln() / 3.0).collect();
        assert!(Window::new(&times, 0.0, 1.0).laplace() < 2.0 * DECLINE);
    }
}
