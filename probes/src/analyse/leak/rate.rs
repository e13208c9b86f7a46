//! How many of the old objects will never die, with an interval.
//!
//! Objects that reach the age `a` are a mixture: `mu` that never die and `nu` that die with the hazard
//! `beta / age`, `beta >= alpha0`. Living ones tell `mu + nu (a / age)^beta`, dead ones
//! `nu beta (a / age)^beta`, all of them `exp(-mu - nu)`. The interval of `mu` is where the likelihood,
//! maximised over the other two, lies within `chi^2_1(0.95) / 2` of the top; with no death it is the exact
//! interval of a Poisson mean (Garwood, "Fiducial limits for the Poisson distribution", 1936). Weights that
//! differ spread the sum further than the count; the likelihood, or the count, is divided by
//! `k x sum w^2 / (sum w)^2` for that (compound Poisson).

use statrs::function::gamma::{gamma_lr, gamma_ur};

use super::hazard::log_sum_exp;

/// Half of the 95 % point of chi square with one degree of freedom.
const DROP: f64 = 1.920_729;
/// Steps of the inner and outer searches; each gains a digit or more.
const EM_STEPS: usize = 60;
const SEARCH_STEPS: usize = 30;
/// No lifetime falls faster than this power.
const BETA_MAX: f64 = 60.0;
/// Cells of ln(age / a) that the living are counted in: one to 1/12 of an octave up to 2^6.
const CELLS: usize = 72;
const CELL: f64 = std::f64::consts::LN_2 / 12.0;

/// What is known of the objects that reached an age.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    /// Living objects by ln(age / a): middle and count.
    alive: Vec<(f64, f64)>,
    alive_count: f64,
    dead: f64,
    /// Sum of ln(age at death / a).
    dead_ln: f64,
    alpha0: f64,
    /// Overdispersion by weights, at least 1.
    spread: f64,
}

/// The estimate of `mu`, a count of sampled objects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Immortals {
    pub(super) count: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Of the mortal ones, those that live; subtracted from the living.
    pub(super) nu: f64,
    pub(super) beta: f64,
    /// Lower bound that holds at any time with 95 %.
    pub(super) low_any_time: f64,
}

impl Tail {
    /// `alive_ln` and `dead` hold ln(age / a), the latter with counts; `weights` of the living.
    pub(super) fn new(alive_ln: &[f64], dead: &[(f64, u64)], weights: &[f64], alpha0: f64) -> Self {
        let mut cells = [(0.0, 0.0); CELLS];
        for &ln in alive_ln {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "small and positive"
            )]
            let cell = ((ln.max(0.0) / CELL) as usize).min(CELLS - 1);
            cells[cell].0 += ln.max(0.0);
            cells[cell].1 += 1.0;
        }
        let alive = cells.iter().filter(|c| c.1 > 0.0).map(|c| (c.0 / c.1, c.1)).collect();
        let (sum, squares) =
            weights.iter().fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
        let spread =
            if sum > 0.0 { (weights.len() as f64 * squares / (sum * sum)).max(1.0) } else { 1.0 };
        Self {
            alive,
            alive_count: alive_ln.len() as f64,
            dead: dead.iter().map(|d| d.1 as f64).sum(),
            dead_ln: dead.iter().map(|&(ln, count)| ln * count as f64).sum(),
            alpha0,
            spread,
        }
    }

    /// The estimate with its bounds.
    pub(super) fn immortals(&self) -> Immortals {
        if self.dead == 0.0 {
            return self.without_deaths();
        }
        let (count, top) = self.maximum();
        let drop = DROP * self.spread;
        let below = |mu: f64| top - self.profile(mu).0 > drop;
        let low = if below(0.0) { bisect(0.0, count, below) } else { 0.0 };
        let ceiling = (self.alive_count + self.dead + 10.0 + 10.0 * self.spread) * 2.0;
        let high = bisect(ceiling, count.max(1e-9), below);
        let (_, nu, beta) = self.profile(count);
        // A normal variance from the half-width; never less than Poisson's.
        let sigma = (high - low) / (2.0 * 1.96);
        let excess = (sigma * sigma / count.max(1.0)).max(self.spread);
        let low_any_time = (low_any_time(count / excess) * excess).min(low.max(0.0));
        Immortals { count, low, high, nu, beta, low_any_time }
    }

    fn without_deaths(&self) -> Immortals {
        let k = self.alive_count;
        let (low, high) = poisson(k / self.spread);
        let (low, high) = (low * self.spread, high * self.spread);
        let low_any_time = low_any_time(k / self.spread) * self.spread;
        Immortals { count: k, low, high, nu: 0.0, beta: self.alpha0, low_any_time }
    }

    /// Golden-section search for the top of the profile.
    fn maximum(&self) -> (f64, f64) {
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        let (mut from, mut to) = (0.0, self.alive_count);
        for _ in 0..SEARCH_STEPS {
            let (left, right) = (to - golden * (to - from), from + golden * (to - from));
            if self.profile(left).0 >= self.profile(right).0 {
                to = right;
            } else {
                from = left;
            }
        }
        let inside = f64::midpoint(from, to);
        // The edge is a candidate of its own: no object is immortal.
        let (edge, top) = (self.profile(0.0).0, self.profile(inside).0);
        if edge >= top { (0.0, edge) } else { (inside, top) }
    }

    /// Log-likelihood at `mu`, and the `nu` and `beta` that maximise it (EM: which of the living are mortal).
    fn profile(&self, mu: f64) -> (f64, f64, f64) {
        let mut nu = self.dead + (self.alive_count - mu).max(0.1);
        let mut beta = 1.5f64.max(self.alpha0);
        for _ in 0..EM_STEPS {
            let (mut mortal, mut mortal_ln) = (0.0, 0.0);
            for &(ln, count) in &self.alive {
                let part = nu * (-beta * ln).exp();
                let share = if part > 0.0 { part / (mu + part) } else { 0.0 } * count;
                mortal += share;
                mortal_ln += share * ln;
            }
            let next_nu = self.dead + mortal;
            let exposed = self.dead_ln + mortal_ln;
            let next_beta = if exposed > 0.0 { self.dead / exposed } else { BETA_MAX };
            let next_beta = next_beta.clamp(self.alpha0, BETA_MAX);
            let moved = (next_nu - nu).abs() / nu.max(1.0) + (next_beta - beta).abs() / beta;
            (nu, beta) = (next_nu, next_beta);
            if moved < 1e-5 {
                break;
            }
        }
        let living: f64 = self
            .alive
            .iter()
            .map(|&(ln, count)| count * (mu + nu * (-beta * ln).exp()).max(1e-300).ln())
            .sum();
        let died = self.dead * (nu * beta).max(1e-300).ln() - beta * self.dead_ln;
        (living + died - mu - nu, nu, beta)
    }
}

/// The point between `bad` and `good` where `is_bad` changes.
fn bisect(bad: f64, good: f64, is_bad: impl Fn(f64) -> bool) -> f64 {
    let (mut bad, mut good) = (bad, good);
    for _ in 0..SEARCH_STEPS {
        let middle = f64::midpoint(bad, good);
        if is_bad(middle) {
            bad = middle;
        } else {
            good = middle;
        }
    }
    f64::midpoint(bad, good)
}

/// The exact 95 % interval of a Poisson mean after `count` events.
fn poisson(count: f64) -> (f64, f64) {
    let top = (count + 10.0) * 3.0;
    let low = |mean: f64| gamma_lr(count, mean) < 0.025;
    let high = |mean: f64| gamma_ur(count + 1.0, mean) < 0.025;
    (if count > 0.0 { bisect(1e-9, count, low) } else { 0.0 }, bisect(top, count.max(1e-9), high))
}

/// Ratios of alternatives to the bound that is tested, and their prior weights: most of it lies where a
/// leak is a small multiple of the floor.
const RATIOS: [(f64, f64); 14] = [
    (1.2, 0.08),
    (1.4, 0.1),
    (1.6, 0.1),
    (1.8, 0.1),
    (2.0, 0.12),
    (2.3, 0.1),
    (2.7, 0.1),
    (3.2, 0.08),
    (4.0, 0.06),
    (6.0, 0.05),
    (9.0, 0.04),
    (16.0, 0.03),
    (32.0, 0.02),
    (64.0, 0.02),
];

/// The largest Poisson mean that `count` events refute at 5 %, at any time.
pub(super) fn low_any_time(count: f64) -> f64 {
    if count <= 0.0 || !refutes(count, 0.0) {
        return 0.0;
    }
    bisect(count, 0.0, |mean| !refutes(count, mean))
}

/// Whether `count` events refute a Poisson mean of at most `mean`: the mixture over larger means of the
/// likelihood ratio is a supermartingale when the true mean is not larger.
pub(super) fn refutes(count: f64, mean: f64) -> bool {
    let terms =
        RATIOS.map(|(ratio, weight)| weight.ln() + count * ratio.ln() - mean * (ratio - 1.0));
    log_sum_exp(&terms) >= 20f64.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_deaths_it_is_poissons_exact_interval() {
        let found = Tail::new(&[0.5; 16], &[], &[1.0; 16], 0.7).immortals();
        assert!((found.count - 16.0).abs() < 1e-6);
        // Garwood's table: 9.15 and 25.98 for 16 events, 0 and 3.69 for none.
        assert!(
            (found.low - 9.145).abs() < 1e-2 && (found.high - 25.983).abs() < 1e-2,
            "{found:?}"
        );
        assert!((poisson(0.0).1 - 3.689).abs() < 1e-2);
        assert!(found.low_any_time < found.low && found.low_any_time > 4.0, "{found:?}");
        assert_eq!(Tail::new(&[], &[], &[], 0.7).immortals().low, 0.0);
    }

    #[test]
    fn read_at_every_event_the_bound_still_holds() {
        let mut state = 5u64;
        let mut unit = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            ((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let (mut any_time, mut one_instant) = (0, 0);
        for _ in 0..400 {
            // A Poisson process of rate 1: the mean of its count by `at` is `at`.
            let (mut at, mut refuted, mut excluded) = (0.0f64, false, false);
            for count in 1..=500u32 {
                at -= unit().ln();
                let k = f64::from(count);
                refuted |= refutes(k, at);
                excluded |= k > at && k * (k / at).ln() - k + at > DROP;
            }
            any_time += usize::from(refuted);
            one_instant += usize::from(excluded);
        }
        // 5 % of 400 and its chance; a bound that is meant for one reading fails much oftener.
        assert!(any_time <= 29, "{any_time} of 400");
        assert!(one_instant > 60, "{one_instant} of 400");
    }

    #[test]
    fn a_pareto_tail_alone_has_no_immortals() {
        // Quantiles of a Pareto(1.5) tail seen over ages up to 16 a, births even in time.
        let (mut alive, mut dead) = (Vec::new(), Vec::new());
        for birth in 1..40 {
            let seen = f64::from(birth) / 40.0 * 16f64.ln();
            for step in 0..10 {
                let life = -((f64::from(step) + 0.5) / 10.0).ln() / 1.5;
                if life > seen { alive.push(seen) } else { dead.push((life, 1)) }
            }
        }
        let weights = vec![1.0; alive.len()];
        let found = Tail::new(&alive, &dead, &weights, 0.7).immortals();
        assert!(found.count < 6.0 && found.low < 0.1, "{found:?} of {}", alive.len());
        // The same with 60 that never die.
        let immortals: Vec<f64> = (0..60).map(|i| f64::from(i) / 60.0 * 16f64.ln()).collect();
        let all: Vec<f64> = alive.iter().copied().chain(immortals).collect();
        let found = Tail::new(&all, &dead, &vec![1.0; all.len()], 0.7).immortals();
        assert!(found.low < 60.0 && 60.0 < found.high && found.low > 20.0, "{found:?}");
    }
}
