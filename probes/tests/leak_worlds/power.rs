//! A leak of 2 MB/h in one agent, at a sampling mean of 64 KiB: how soon it is called, and how well its
//! rate is told.

use tailbeam_probes::analyse::leak::{LeakConfig, Soak, Verdict, analyse, plan};

use crate::soak::{OWNER, SITE, built, soak};
use crate::world::{HOUR_NS, MINUTE_NS, Who, World};

const R64: f64 = 65_536.0;
const RATE: f64 = 2e6;

fn beside(churn: f64, seed: u64, hours: u64) -> World {
    let build = |w: &mut World| {
        w.churn(SITE, churn);
        w.leak(SITE, Who::One(OWNER), RATE, 0..u64::MAX);
    };
    built(build, seed, R64, hours)
}

/// Soaks in which the right site and agent were called by each of `minutes`.
fn called(churn: f64, soaks: u64, minutes: &[u64]) -> Vec<usize> {
    let mut by = vec![0; minutes.len()];
    for seed in 0..soaks {
        let seen = soak(&beside(churn, seed, 4), 15 * MINUTE_NS, &LeakConfig::default());
        assert!(!seen.wrong, "seed {seed} called another site or agent");
        for (count, minutes) in by.iter_mut().zip(minutes) {
            *count += usize::from(seen.right_ns.is_some_and(|at| at <= minutes * MINUTE_NS));
        }
    }
    by
}

#[test]
fn beside_20_mb_it_is_called_by_2_h_and_surely_by_4_h() {
    let by = called(20e6, 50, &[120, 240]);
    assert!(by[0] >= 40 && by[1] >= 48, "{by:?} of 50");
}

#[test]
fn beside_200_mb_it_is_called_by_4_h() {
    let by = called(200e6, 30, &[240]);
    assert!(by[0] >= 29, "{by:?} of 30");
}

#[test]
fn the_interval_of_the_rate_holds_the_rate() {
    let soaks = 80;
    let mut held = 0;
    let mut mean = 0.0;
    for seed in 100..100 + soaks {
        let report = analyse(&beside(20e6, seed, 4).snapshot(4 * HOUR_NS), &LeakConfig::default());
        let rate = report.site(SITE).unwrap().finding.rate.unwrap();
        held += usize::from(rate.low <= RATE && RATE <= rate.high);
        mean += rate.estimate / soaks as f64;
    }
    assert!(held >= 70, "{held} of {soaks}");
    assert!((mean / RATE - 1.0).abs() < 0.06, "mean {mean}");
}

#[test]
fn the_plan_keeps_its_promise() {
    let config = LeakConfig::default();
    let soak_plan = Soak { sites: 1, ..Soak::of(RATE, R64) };
    let hours = plan(&soak_plan, &config).hours_80.unwrap();
    let at_ns = crate::world::ns(hours * HOUR_NS as f64);
    let soaks = 60;
    let called = (200..200 + soaks)
        .filter(|&seed| {
            let report = analyse(&beside(20e6, seed, 4).snapshot(at_ns), &config);
            report.site(SITE).unwrap().finding.verdict == Verdict::Leak
        })
        .count();
    assert!((39..=57).contains(&called), "{called} of {soaks} at {hours} h");
}

#[test]
fn both_units_of_the_rate_agree() {
    let report = analyse(&beside(20e6, 3, 4).snapshot(4 * HOUR_NS), &LeakConfig::default());
    let finding = &report.site(SITE).unwrap().finding;
    // 1 000 operations a second are 3.6 million an hour.
    let (hour, million) = (finding.rate.unwrap(), finding.per_million.unwrap());
    assert!((hour.estimate / million.estimate - 3.6).abs() < 1e-9);
    let day = finding.hours_until(48e6).unwrap();
    assert!(day.low < 24.0 && 24.0 < day.high && day.low < day.estimate, "{day:?}");
}
