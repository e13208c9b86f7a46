//! One planted leak of each kind, and what the report says of it.

use tailbeam_probes::analyse::leak::{
    Growth, LeakConfig, LeakReport, Reason, SiteReport, Spread, Verdict, analyse,
};
use tailbeam_probes::stats::Judgement;

use crate::soak::{OWNER, SITE, built, decoys, soak};
use crate::world::{HOUR_NS, MINUTE_NS, Who, World};

const R64: f64 = 65_536.0;

fn read(build: impl Fn(&mut World), seed: u64, hours: u64) -> LeakReport {
    analyse(&built(build, seed, R64, hours).snapshot(hours * HOUR_NS), &LeakConfig::default())
}

fn planted(report: &LeakReport) -> &SiteReport {
    report.site(SITE).expect("the site has objects")
}

#[test]
fn a_forgotten_insert_among_decoys() {
    let report = read(
        |w| {
            decoys(w);
            w.leak(SITE, Who::One(OWNER), 2e6, 0..u64::MAX);
        },
        1,
        4,
    );
    let site = planted(&report);
    assert_eq!((report.sites[0].site, report.count(Verdict::Leak)), (SITE, 1));
    assert_eq!((report.verdict, &report.gate.judgement), (Verdict::Leak, &Judgement::Fail));
    assert_eq!((site.finding.growth, site.spread), (Some(Growth::Inserts), Spread::One(OWNER)));
    assert!(site.finding.since.unwrap().from_start && site.finding.reason.is_none());
    assert_eq!(site.survivors.sizes[0].size, Some(96));
    assert!(site.survivors.oldest_ns > 3 * HOUR_NS);
    let explained = report.totals.explained;
    assert!(explained.low < 2e6 && 2e6 < explained.high, "{explained:?}");
}

#[test]
fn growth_is_explained_and_the_rest_is_near_nothing() {
    let mut held = 0;
    for seed in 0..20 {
        let report = read(
            |w| {
                w.churn(2, 20e6);
                w.leak(SITE, Who::One(OWNER), 4e6, 0..u64::MAX);
            },
            seed,
            4,
        );
        let rest = report.totals.unexplained.unwrap();
        held += usize::from(rest.low < 0.0 && 0.0 < rest.high);
        let share = report.totals.explained_share.unwrap();
        assert!((0.8..1.2).contains(&share), "{share}");
    }
    assert!(held >= 17, "{held} of 20");
}

#[test]
fn a_leak_of_all_agents_is_not_one_agents() {
    let report = read(
        |w| {
            w.churn(2, 20e6);
            w.leak(SITE, Who::Any(1_000), 2e6, 0..u64::MAX);
        },
        2,
        4,
    );
    let site = planted(&report);
    assert_eq!(site.finding.verdict, Verdict::Leak);
    assert!(matches!(site.spread, Spread::Even { owners } if owners > 50), "{:?}", site.spread);
    assert!(site.owners.iter().all(|o| o.finding.verdict != Verdict::Leak));
    assert!(site.owners_left_out > 0 && site.owners.len() == 32);
}

#[test]
fn a_leak_that_starts_late_is_dated() {
    let (mut called, mut dated) = (0, 0);
    for seed in 0..12 {
        let from = 2 * HOUR_NS;
        let report = read(
            |w| {
                w.churn(SITE, 20e6);
                w.leak(SITE, Who::One(OWNER), 4e6, from..u64::MAX);
            },
            seed,
            4,
        );
        let finding = &planted(&report).finding;
        called += usize::from(finding.verdict == Verdict::Leak);
        let since = finding.since.unwrap();
        let (low, high) = (from - 20 * MINUTE_NS, from + 20 * MINUTE_NS);
        dated += usize::from(!since.from_start && (low..high).contains(&since.at_ns));
        let rate = finding.rate.unwrap();
        assert!(rate.low < 4.4e6 && 3.6e6 < rate.high, "{rate:?}");
    }
    assert!(called == 12 && dated >= 11, "called {called}, dated {dated} of 12");
}

#[test]
fn a_leak_that_stopped_says_so() {
    let (mut said, mut called) = (0, 0);
    for seed in 0..12 {
        let until = 3 * HOUR_NS;
        let world = built(
            |w| {
                w.churn(SITE, 20e6);
                w.leak(SITE, Who::One(OWNER), 2e6, 0..until);
            },
            seed,
            R64,
            8,
        );
        let during = analyse(&world.snapshot(until), &LeakConfig::default());
        called += usize::from(planted(&during).finding.verdict == Verdict::Leak);
        for hours in 5..=8 {
            let report = analyse(&world.snapshot(hours * HOUR_NS), &LeakConfig::default());
            let finding = &planted(&report).finding;
            assert_ne!(finding.verdict, Verdict::Leak, "seed {seed} at {hours} h");
            if let Some(Reason::Stopped { at_ns }) = finding.reason {
                assert!(at_ns.abs_diff(until) < HOUR_NS / 2, "{at_ns}");
                said += usize::from(finding.verdict == Verdict::Suspect);
            }
        }
    }
    assert!(called >= 10 && said >= 40, "called {called} of 12, said {said} of 48");
}

#[test]
fn an_unbounded_vec_is_one_object_that_grows() {
    let report = read(
        |w| {
            w.churn(2, 20e6);
            w.growing_vec(SITE, OWNER, 2e6, u64::MAX);
        },
        3,
        4,
    );
    let site = planted(&report);
    assert_eq!(site.finding.verdict, Verdict::Leak, "{:?}", site.finding);
    let Some(Growth::Chains { chains: 1, doublings }) = site.finding.growth else {
        panic!("{:?}", site.finding.growth)
    };
    assert!((15..=18).contains(&doublings), "{doublings}");
    assert_eq!(site.spread, Spread::One(OWNER));
    let rate = site.finding.rate.unwrap();
    assert!(rate.low < 2e6 && 2e6 < rate.high, "{rate:?}");
    // The twin that was filled once and stayed.
    let filled = |w: &mut World| w.growing_vec(SITE, OWNER, 20e6, 40 * MINUTE_NS);
    let seen = soak(&built(filled, 3, R64, 8), 10 * MINUTE_NS, &LeakConfig::default());
    assert_eq!(seen.leak_ns, None);
}

#[test]
fn orphans_need_no_waiting() {
    let build = |w: &mut World| {
        w.churn(2, 20e6);
        w.orphans(SITE, 4e6);
    };
    let world = built(build, 4, R64, 4);
    let config = LeakConfig { owners: Some(100_000), ..LeakConfig::default() };
    let seen = soak(&world, 5 * MINUTE_NS, &config);
    assert!(seen.leak_ns.is_some_and(|at| at < config.earliest_ns()), "{:?}", seen.leak_ns);
    let report = seen.last.unwrap();
    let site = planted(&report);
    assert_eq!(site.finding.growth, Some(Growth::Orphans));
    let orphans = site.orphans.unwrap();
    assert!(u64::from(orphans.owners) == orphans.sampled && orphans.sampled > 150, "{orphans:?}");
    // The twin whose owners live.
    let report = read(|w| w.leak(SITE, Who::Any(1_000), 4e6, 0..u64::MAX), 4, 4);
    assert_eq!(planted(&report).orphans, None);
}

#[test]
fn owners_that_keep_one_each_are_a_plateau_to_come() {
    // 2 000 agents, touched over many hours: it declines too slowly to be seen, but nobody comes twice.
    let build = |w: &mut World| w.fill(SITE, 80e6, 6 * HOUR_NS, Some(2_000));
    let world = built(build, 6, R64, 4);
    let config = LeakConfig { owners: Some(2_000), ..LeakConfig::default() };
    let seen = soak(&world, 10 * MINUTE_NS, &config);
    assert_eq!(seen.leak_ns, None);
    let plateau = seen.readings.iter().filter(|r| r.2.contains("PerOwner")).count();
    assert!(plateau > 3, "{:?}", seen.readings);
}
