//! Little's law: requests in a leg = rate x mean time in it (Little, 1961), whatever the distributions.
//!
//! The left side is sampled at instants that do not depend on the requests; the right side is the time in
//! the leg by stamps, summed over the requests that left it. A request that is missing on the right is on the
//! left, and the other way round. What is in the leg when the run begins and ends is in one side only: at
//! most as much as the last window's samples saw, for the mean time of the leg.
//!
//! The interval is Student's t over the windows' differences, widened by `(1 + phi) / (1 - phi)` where
//! neighbours resemble each other, at 99.9 %. It is no narrower than that of a Poisson count of as many requests as
//! the samples should have met: where they should have met one, windows that all met none have no spread, and say
//! nothing. A comparison that would not see a quarter of the leg missing is not made.

use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF as _, DiscreteCDF as _, Normal, Poisson, StudentsT};

use super::check::{Check, Figures, Misfit, What};
use super::{Given, SHARE};
use crate::record::latency::LegSum;

/// Windows that an interval needs.
const WINDOWS: usize = 5;
/// One-sided level of the interval: 99.9 % on two sides.
const LEVEL: f64 = 0.999_5;
/// Share of a leg that a comparison must be able to see.
const BLUNT: f64 = 0.25;
/// By how much a leg may have been fuller than on average when a sample should have looked that came late: what keeps the
/// sampler keeps requests too. A choice: beside a core that is taken for a sixth of the time, as `harness/tests/causes.rs`
/// plants it, all of a queue's time is in that sixth.
const LATE_FULLER: f64 = 5.0;
/// Correlation above which no more is corrected for.
const PHI_MAX: f64 = 0.9;

/// One window, all cores together.
#[derive(Debug, Clone, Copy, Default)]
struct Joint {
    number: u32,
    from_ns: u64,
    to_ns: u64,
    occupancy: [u64; 3],
    samples: u64,
    late: u64,
    legs: [LegSum; 3],
    unknown: LegSum,
    /// Stages were off for a part of it.
    off: bool,
    /// Requests of which it is known that they ended in it.
    ended: u64,
}

impl Joint {
    fn len_ns(&self) -> f64 {
        self.to_ns.saturating_sub(self.from_ns) as f64
    }

    /// Whether its legs have all that ended: where they have not, while stages were off, the samples went on.
    const fn is_whole(&self) -> bool {
        !self.off || self.legs[2].count + self.unknown.count >= self.ended
    }

    /// Mean number in the leg: sampled, and by stamps.
    fn sides(&self, leg: usize) -> (f64, f64) {
        let sampled = self.occupancy[leg] as f64 / self.samples.max(1) as f64;
        (sampled, self.legs[leg].ns as f64 / self.len_ns().max(1.0))
    }
}

fn joint(given: &Given<'_>) -> Vec<Joint> {
    let mut found: BTreeMap<u32, Joint> = BTreeMap::new();
    for window in given.windows {
        let new = Joint { number: window.window, from_ns: u64::MAX, ..Joint::default() };
        let to = found.entry(window.window).or_insert(new);
        to.from_ns = to.from_ns.min(window.from_ns);
        to.to_ns = to.to_ns.max(window.to_ns);
        to.samples += window.occupancy_samples;
        to.late += window.more.samples_late;
        to.off |= window.unstaged.count > 0;
        let staged = window.buckets.iter().map(|bucket| bucket.sums.count).sum::<u64>();
        let others = [window.disordered, window.unstaged.count, window.more.undrawn.count];
        to.ended += staged + others.iter().sum::<u64>();
        to.unknown.count += window.legs_unknown.count;
        to.unknown.ns = to.unknown.ns.saturating_add(window.legs_unknown.ns);
        for leg in 0..3 {
            to.occupancy[leg] += window.occupancy[leg];
            to.legs[leg].count += window.legs[leg].count;
            to.legs[leg].ns = to.legs[leg].ns.saturating_add(window.legs[leg].ns);
        }
    }
    found.into_values().collect()
}

pub(super) fn all(given: &Given<'_>) -> Vec<Check> {
    let all = joint(given);
    let whole = |joint: &Joint| joint.samples > 0 && joint.len_ns() > 0.0 && joint.is_whole();
    let sampled: Vec<Joint> = all.into_iter().filter(whole).collect();
    (0..3).map(|leg| of_leg(&sampled, leg)).collect()
}

fn of_leg(windows: &[Joint], leg: usize) -> Check {
    let what = What::Little { leg };
    let source = "samples of requests in a leg";
    if windows.len() < WINDOWS {
        let cause = format!("{} windows with samples, an interval needs {WINDOWS}", windows.len());
        return Check::unknown(what, source, cause, "record longer, or in shorter windows");
    }
    let time: f64 = windows.iter().map(Joint::len_ns).sum();
    let mean = |side: fn((f64, f64)) -> f64| {
        windows.iter().map(|joint| side(joint.sides(leg)) * joint.len_ns()).sum::<f64>() / time
    };
    let (left, right) = (mean(|sides| sides.0), mean(|sides| sides.1));
    let count: u64 = windows.iter().map(|joint| joint.legs[leg].count).sum();
    let n: u64 = windows.iter().map(|joint| joint.samples).sum();
    let half = half_width(windows, leg).max(of_counts(left, right, n));
    // What is in the leg at the ends, for its mean time.
    let mean_ns = right * time / count.max(1) as f64;
    let ends = windows[0].sides(leg).0.max(windows[windows.len() - 1].sides(leg).0);
    let edge = ends * (mean_ns / time).min(1.0);
    let unknown = windows.iter().map(|joint| joint.unknown.ns).fold(0, u64::saturating_add);
    let allowed = half + SHARE * right + edge;
    let figures = Figures { left, right, allowed, n };
    let larger = left.max(right);
    if larger <= 0.0 {
        return Check::unknown(what, source, "no request was in it", "record more").with(figures);
    }
    // One that got no answer was in some leg, until its end or beyond.
    let open = unknown as f64 / time;
    if open > BLUNT * larger {
        let cause =
            "requests without an answer were longer in unknown legs than all others in this one";
        return Check::unknown(what, source, cause, "see why they got none").with(figures);
    }
    let figures = Figures { allowed: allowed + open, ..figures };
    if let Some(window) = silent(windows, leg, mean_ns) {
        return Check::of(what, figures, false, || Misfit::Window(window));
    }
    if figures.allowed > BLUNT * larger && figures.residual().abs() <= figures.allowed {
        let share = 100.0 * figures.allowed / larger;
        let cause = format!("{n} samples would not show that {share:.0} % of the leg are missing");
        return Check::unknown(what, source, cause, "record longer").with(figures);
    }
    let late: u64 = windows.iter().map(|joint| joint.late).sum();
    // What late samples may have missed, if the leg was so much fuller at the instants at which they should have looked.
    let missed = LATE_FULLER * larger * late as f64 / n.max(1) as f64;
    let off = figures.residual().abs();
    if off > figures.allowed && off <= figures.allowed + missed {
        let cause = format!(
            "{late} samples came late or not at all beside {n}, kept from a CPU by what may have kept requests too"
        );
        let remedy = "give the controller a CPU of its own (--cores), or keep others away";
        return Check::unknown(what, source, cause, remedy).with(figures);
    }
    Check::both_sides(what, figures, || Misfit::Itself)
}

/// Half width of the interval of the mean difference; infinite where there is none.
fn half_width(windows: &[Joint], leg: usize) -> f64 {
    let n = windows.len() as f64;
    let differences: Vec<f64> = windows
        .iter()
        .map(|joint| {
            let (sampled, stamped) = joint.sides(leg);
            sampled - stamped
        })
        .collect();
    let mean = differences.iter().sum::<f64>() / n;
    let squares: f64 = differences.iter().map(|d| (d - mean).powi(2)).sum();
    let products: f64 = differences.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum();
    let lag1 = if squares > 0.0 { products / squares } else { 0.0 };
    let phi = (lag1 + (1.0 + 4.0 * lag1) / n).clamp(0.0, PHI_MAX);
    let inflation = (1.0 + phi) / (1.0 - phi);
    let degrees = (n / inflation - 1.0).max(3.0);
    let Ok(t) = StudentsT::new(0.0, 1.0, degrees) else { return f64::INFINITY };
    t.inverse_cdf(LEVEL) * (squares / (n - 1.0) / n * inflation).sqrt()
}

/// From this count on the normal distribution is as good (its skew is below 1 %), and its quantile takes no search.
const NORMAL_FROM: f64 = 1e4;

/// By how much the mean of so many samples may be off as they are counts, towards the side on which it is.
fn of_counts(left: f64, right: f64, samples: u64) -> f64 {
    let n = samples.max(1) as f64;
    let expected = right * n;
    // Nothing by stamps: whatever was seen is too much.
    let Ok(counts) = Poisson::new(expected) else { return 0.0 };
    if expected > NORMAL_FROM {
        return Normal::standard().inverse_cdf(LEVEL) * expected.sqrt() / n;
    }
    if left < right {
        (expected - counts.inverse_cdf(1.0 - LEVEL) as f64) / n
    } else {
        (counts.inverse_cdf(LEVEL) as f64 - expected) / n
    }
}

/// Requests that a silent window must have been expected to let go.
const EXPECTED: f64 = 20.0;

/// A window whose samples saw requests in the leg and that none left, though they stay for far less than a
/// window: its requests were dropped.
fn silent(windows: &[Joint], leg: usize, mean_ns: f64) -> Option<u32> {
    windows
        .iter()
        .find(|joint| {
            let short = mean_ns > 0.0 && mean_ns * EXPECTED < joint.len_ns();
            let gone = joint.sides(leg).0 * joint.len_ns() / mean_ns.max(1.0);
            short && joint.legs[leg].count == 0 && joint.occupancy[leg] >= 3 && gone > EXPECTED
        })
        .map(|joint| joint.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six windows of a second, whose 48 samples each met so many requests in the first leg, in which 1,000 were for
    /// `mean_ns` each.
    fn judged(met: u64, mean_ns: u64) -> Check {
        late_judged(met, mean_ns, 0)
    }

    /// The same with so many late samples in each window.
    fn late_judged(met: u64, mean_ns: u64, late: u64) -> Check {
        let window = |number: u32| Joint {
            number,
            to_ns: 1_000_000_000,
            occupancy: [met, 0, 0],
            samples: 48,
            late,
            legs: [LegSum { count: 1_000, ns: 1_000 * mean_ns + u64::from(number) }; 3],
            ..Joint::default()
        };
        of_leg(&(0..6).map(window).collect::<Vec<_>>(), 0)
    }

    #[test]
    fn samples_that_should_have_met_one_request_and_met_none_say_nothing() {
        use super::super::check::Outcome;
        let outcome = |met, mean_ns| judged(met, mean_ns).outcome;
        // 3.6 us: 1.04 of 288.
        assert!(matches!(outcome(0, 3_600), Outcome::Unknown(_)), "{:?}", judged(0, 3_600));
        // 10 were to be met: none is no chance (once in 22,000), nor are 24 (4 a window).
        assert_eq!(outcome(0, 35_000), Outcome::Fail(Misfit::Itself), "{:?}", judged(0, 35_000));
        assert_eq!(outcome(4, 35_000), Outcome::Fail(Misfit::Itself), "{:?}", judged(4, 35_000));
        // However many there are.
        for expected in [9_999.0, 2e10, 1e300] {
            let half = [0.0, 2.0].map(|left| of_counts(left * expected, expected, 1));
            assert!(
                half.iter().all(|half| (half / expected.sqrt() / 3.29 - 1.0).abs() < 0.02),
                "{half:?}"
            );
        }
        // 480 of 288 samples, as should be, and a quarter less.
        assert_eq!(outcome(80, 1_666_667), Outcome::Pass);
        // Half of the leg is more than one sample in 48 can have missed that came late; a quarter may be what four have.
        let late = |met, late| late_judged(met, 1_666_667, late).outcome;
        assert_eq!(late(40, 1), Outcome::Fail(Misfit::Itself));
        assert!(matches!(late(60, 4), Outcome::Unknown(_)), "{:?}", late(60, 4));
        assert_eq!(late(30, 3), Outcome::Fail(Misfit::Itself));
        assert_eq!(late(80, 4), Outcome::Pass);
    }
}
