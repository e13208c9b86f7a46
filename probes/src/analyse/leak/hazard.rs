//! Do old objects still die? A survivor-hazard test that may be read at any time.
//!
//! The null for an age `a`: an object older than `a` dies with a hazard of at least `alpha0 / age`, which
//! every bounded lifetime does in the end and a Pareto tail with a larger exponent does always. Deaths
//! beyond `a` are then a counting process whose intensity is at least that of
//! `D(t) = alpha0 x sum ln(age / a)`, summed over the objects that reached `a`, and for every
//! `theta` in `0..=1` the product `theta^N x exp((1 - theta) D)` is a supermartingale that starts at 1.
//! So is its mean over `theta`, `e^D x integral of theta^N e^(-theta D)`, and so is a weighted mean over a
//! fixed grid of ages. By Ville's inequality it exceeds `1 / p` at any time with a probability of at most
//! `p`: reading it every minute costs nothing. (Ramdas, Gruenwald, Vovk, Shafer, "Game-theoretic statistics
//! and safe anytime-valid inference", 2023; Andersen, Borgan, Gill, Keiding, "Statistical models based on
//! counting processes", for the intensity.)
//!
//! Only ages between a sixteenth and a half of the run are read: objects with a lifetime that is long but
//! bounded break the null at ages far below that lifetime and are no leak. So the error rate holds for
//! sites whose objects obey the null beyond some age, from sixteen times that age on.

use statrs::function::gamma::{gamma_lr, ln_gamma};

use super::LeakConfig;
use super::cohort::Cohort;
use crate::record::heap::{AGE_BINS, age_bin_from_ns};

/// Youngest and oldest age that is read, as shares of the run.
const OLD_SHARES: (f64, f64) = (1.0 / 16.0, 0.5);
/// Share of the deaths the null expects from which old objects are said to die after all, and deaths that
/// are let pass.
const RESUMES: (f64, f64) = (0.5, 1.0);
/// Bins between two ages of the grid: half an octave.
const GRID_STEP: usize = 2;

/// The case against the null at one age.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct AtAge {
    /// First [`age_bin`](crate::record::heap::age_bin) that counts as old.
    pub(super) bin: usize,
    /// Its lower edge, ns.
    pub(super) old_ns: f64,
    /// Living objects older than that.
    pub(super) alive: u64,
    /// Deaths of objects older than that.
    pub(super) dead: u64,
    /// Deaths the null expects at least.
    pub(super) expected: f64,
    /// ln of the e-value.
    pub(super) log_e: f64,
}

/// The case at all ages together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Hazard {
    /// ln of the mixed e-value.
    pub(super) log_e: f64,
    /// The age at which the case is strongest.
    pub(super) best: AtAge,
    /// At that age or an older one, objects die at half the null's rate or faster: the case is made of young
    /// ages, as it is by a cache whose entries all live long and not for ever.
    pub(super) resumes: bool,
}

/// Weighs the cohort. `None` while no age of the grid fits the run.
pub(super) fn weigh(cohort: &Cohort<'_>, config: &LeakConfig) -> Option<Hazard> {
    let now = cohort.now_ns as f64;
    let mut ages: Vec<f64> = cohort.alive.iter().map(|s| cohort.age_ns(s)).collect();
    ages.sort_by(|a, b| b.total_cmp(a));
    let mut terms = Vec::new();
    let mut best: Option<AtAge> = None;
    let mut resumes = false;
    for (index, bin) in grid(config).enumerate() {
        if !admissible(age_bin_from_ns(bin), now) {
            continue;
        }
        let at = at_age(&ages, &cohort.dead_by_bin, bin, config.alpha0);
        let rank = index as f64;
        terms.push(at.log_e - ((rank + 1.0) * (rank + 2.0)).ln());
        if best.is_none_or(|best| at.log_e > best.log_e) {
            best = Some(at);
            resumes = false;
        }
        resumes |= at.dead as f64 > RESUMES.0 * at.expected + RESUMES.1;
    }
    best.map(|best| Hazard { log_e: log_sum_exp(&terms), best, resumes })
}

/// Whether an age is read in a run of `now` ns.
pub(super) fn admissible(old_ns: f64, now: f64) -> bool {
    (now * OLD_SHARES.0..=now * OLD_SHARES.1).contains(&old_ns)
}

/// Bins whose lower edges are the ages of the grid; it depends on declarations only, never on the data or
/// the time, for the e-values to add up. The k-th has the weight `1 / ((k + 1)(k + 2))`.
pub(super) fn grid(config: &LeakConfig) -> impl Iterator<Item = usize> {
    let youngest = config.earliest_ns() as f64 * OLD_SHARES.0;
    let first = (1..AGE_BINS).find(|&bin| age_bin_from_ns(bin) >= youngest).unwrap_or(AGE_BINS);
    (first..AGE_BINS).step_by(GRID_STEP)
}

/// `ages` falls.
fn at_age(ages: &[f64], dead_by_bin: &[u64; AGE_BINS], bin: usize, alpha0: f64) -> AtAge {
    let old_ns = age_bin_from_ns(bin);
    let alive = ages.partition_point(|&age| age > old_ns);
    let mut exposure: f64 = ages[..alive].iter().map(|age| (age / old_ns).ln()).sum();
    let mut dead = 0;
    for (later, &count) in dead_by_bin.iter().enumerate().skip(bin) {
        // The lower edge: an object that died in the bin was exposed at least so long.
        exposure += count as f64 * (age_bin_from_ns(later) / old_ns).ln();
        dead += count;
    }
    let expected = alpha0 * exposure;
    AtAge { bin, old_ns, alive: alive as u64, dead, expected, log_e: log_e(dead, expected) }
}

/// ln of `e^d x integral over 0..1 of theta^n e^(-theta d)`; the integral is `gamma(n + 1, d) / d^(n + 1)`.
pub(super) fn log_e(dead: u64, expected: f64) -> f64 {
    let n = dead as f64 + 1.0;
    if expected < 1e-6 {
        return -n.ln();
    }
    let lower = gamma_lr(n, expected);
    if lower <= f64::MIN_POSITIVE {
        // Far more deaths than expected: the leading term, e^-d d^n / n!, of the series of the integral.
        return -n.ln();
    }
    expected + ln_gamma(n) + lower.ln() - n * expected.ln()
}

/// ln of the sum of the exponentials.
pub(super) fn log_sum_exp(terms: &[f64]) -> f64 {
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top.is_infinite() {
        return f64::NEG_INFINITY;
    }
    top + terms.iter().map(|term| (term - top).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_e_value_is_the_integral() {
        for (dead, expected) in [(0u64, 12.0f64), (3, 20.0), (40, 30.0), (500, 20.0), (2, 0.5)] {
            let steps = 200_000;
            let sum: f64 = (0..steps)
                .map(|i| (f64::from(i) + 0.5) / f64::from(steps))
                .map(|theta| theta.powf(dead as f64) * ((1.0 - theta) * expected).exp())
                .sum();
            let exact = (sum / f64::from(steps)).ln();
            let got = log_e(dead, expected);
            // Below an e-value of 1 the bound is all that matters.
            assert!((got - exact).abs() < 1e-3 || (exact < 0.0 && got < 0.0), "{got} for {exact}");
        }
    }

    #[test]
    fn under_the_null_its_mean_is_one() {
        // Poisson deaths with the expected mean: sum of P(n) e(n) is 1 for every d.
        for expected in [0.5f64, 5.0, 30.0] {
            let mut probability = (-expected).exp();
            let mut mean = 0.0;
            for dead in 0..200u64 {
                mean += probability * log_e(dead, expected).exp();
                probability *= expected / (dead as f64 + 1.0);
            }
            assert!((mean - 1.0).abs() < 0.02, "{mean} at {expected}");
        }
    }
}
