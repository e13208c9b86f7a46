//! How long must a soak be to find a leak of a given rate? The verdict's own clauses, with the survivors'
//! number as a Poisson mean and their ages even over the window.

use statrs::distribution::{DiscreteCDF as _, Poisson};

use super::LeakConfig;
use super::cohort::HOUR_NS;
use super::hazard;
use super::rate::refutes;
use crate::record::heap::age_bin_from_ns;

/// A soak that is planned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Soak {
    /// Rate of the leak that must be found, bytes/h.
    pub rate: f64,
    /// Live bytes of churn at the same site.
    pub churn_bytes: f64,
    /// Mean lifetime of the churn, s; its lifetimes are taken as exponential.
    pub churn_life_s: f64,
    /// Mean distance between samples, bytes.
    pub mean_bytes: f64,
    /// Sites that are judged together.
    pub sites: u64,
}

impl Soak {
    /// A leak beside 20 MB of churn that lives a minute, among a thousand sites.
    #[must_use]
    pub const fn of(rate: f64, mean_bytes: f64) -> Self {
        Self { rate, churn_bytes: 20e6, churn_life_s: 60.0, mean_bytes, sites: 1_000 }
    }
}

/// How long a soak must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Hours for LEAK with 80 %; `None` if [`HOURS_MAX`] are not enough.
    pub hours_80: Option<f64>,
    /// Hours for LEAK with 95 %.
    pub hours_95: Option<f64>,
    /// Power by hours, rising, from the earliest verdict to that with 99 %.
    pub curve: Vec<(f64, f64)>,
}

/// Longest soak that is planned, h.
pub const HOURS_MAX: f64 = 2_000.0;
/// Growth of the hours from one point of the curve to the next.
const STEP: f64 = 1.05;
/// Power that births of a leak do not decline by chance.
const NOT_DECLINING: f64 = 0.977;

/// The minimum soak time.
#[must_use]
pub fn plan(soak: &Soak, config: &LeakConfig) -> Plan {
    let mut plan = Plan { hours_80: None, hours_95: None, curve: Vec::new() };
    let earliest = (config.earliest_ns() as f64 / HOUR_NS).max(0.1);
    let mut hours = earliest;
    while hours <= HOURS_MAX {
        let power = power_at(hours, soak, config);
        plan.curve.push((hours, power));
        if power >= 0.8 {
            plan.hours_80.get_or_insert(hours);
        }
        if power >= 0.95 {
            plan.hours_95.get_or_insert(hours);
        }
        if power >= 0.99 * NOT_DECLINING {
            break;
        }
        hours *= STEP;
    }
    plan
}

/// The chance of LEAK by `hours`, read at that instant alone: what was read before can only add to it.
#[must_use]
pub fn power_at(hours: f64, soak: &Soak, config: &LeakConfig) -> f64 {
    let now = hours * HOUR_NS;
    if soak.rate <= 0.0 || now < config.earliest_ns() as f64 {
        return 0.0;
    }
    let best = hazard::grid(config)
        .enumerate()
        .map(|(index, bin)| (index, age_bin_from_ns(bin)))
        .filter(|(_, old)| hazard::admissible(*old, now))
        .map(|(index, old)| at_age(now, (index, old), soak, config))
        .fold(0.0, f64::max);
    best * if best > 0.0 { NOT_DECLINING } else { 1.0 }
}

fn at_age(now: f64, (index, old): (usize, f64), soak: &Soak, config: &LeakConfig) -> f64 {
    let window = now - old - config.warm_up_ns as f64;
    if window <= 0.0 || window < config.horizon_ns as f64 {
        return 0.0;
    }
    // Churn that is still alive at that age.
    let life_ns = soak.churn_life_s * 1e9;
    let stale = soak.churn_bytes / soak.mean_bytes * (window / life_ns) * (-old / life_ns).exp();
    // Mean of ln(age / old) over ages even between `old` and `old + window`.
    let ratio = (old + window) / old;
    let exposure = ratio * ratio.ln() / (ratio - 1.0) - 1.0;
    let rank = index as f64;
    let wanted = (soak.sites.max(1) as f64 / config.fdr).ln() + ((rank + 1.0) * (rank + 2.0)).ln();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let dead = (stale + 2.0 * stale.sqrt()).round().min(1e6) as u64;
    let proves = |k: u64| hazard::log_e(dead, config.alpha0 * k as f64 * exposure) >= wanted;
    let floor = config.floor * window / HOUR_NS / soak.mean_bytes;
    let fast = |k: u64| refutes(k as f64, floor);
    let mean = soak.rate * window / HOUR_NS / soak.mean_bytes;
    // Both clauses hold from some count on.
    let (mut low, mut high) = (0u64, 4_000_000u64);
    while low < high {
        let middle = low.midpoint(high);
        if proves(middle) && fast(middle) { high = middle } else { low = middle + 1 }
    }
    if low == 0 {
        return 1.0;
    }
    Poisson::new(mean).map_or(0.0, |d| d.sf(low - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_leak_finer_samples_and_fewer_sites_need_less_time() {
        let config = LeakConfig::default();
        let hours = |soak: Soak| plan(&soak, &config).hours_80.unwrap();
        let base = Soak::of(2e6, 65_536.0);
        let at = hours(base);
        assert!((1.5..2.1).contains(&at), "{at}");
        assert!(hours(Soak { mean_bytes: 524_288.0, ..base }) > 2.0 * at);
        assert!(hours(Soak { rate: 20e6, ..base }) <= at);
        assert!(hours(Soak { sites: 1_000_000, ..base }) >= at);
        let plan = plan(&base, &config);
        assert!(plan.hours_95.unwrap() > at);
        assert!(plan.curve.windows(2).all(|w| w[0].0 < w[1].0));
    }

    #[test]
    fn a_leak_at_the_floor_cannot_be_planned_for() {
        let plan = plan(&Soak::of(1e6, 65_536.0), &LeakConfig::default());
        assert_eq!(plan.hours_80, None);
    }
}
