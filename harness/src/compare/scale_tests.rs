use super::*;
use crate::compare::outcome::tests::run;

fn cost(p99_ms: f64, delivery: f64) -> Cost {
    let mut figures = run("r", p99_ms * 1e6);
    figures.delivery = Measured::Known(delivery);
    Cost {
        figures,
        planned_per_s: 1_000.0,
        lateness_p99_ns: Measured::Known(1),
        live_min: Measured::Known(10),
        bytes_per_agent: Measured::Known(500.0),
        rss_per_agent: Measured::Known(900.0),
        core_max: Measured::Known(0.97),
        slowest: Measured::Known(Slowest {
            band: "p99-p99.9".to_owned(),
            stage: "run queue".to_owned(),
            share: 0.8,
        }),
        log: None,
    }
}

fn of(points: Vec<(u64, Measured<Cost>)>) -> Series {
    let id = ("s".to_owned(), String::new());
    series(id, Vec::new(), 300_000_000, points, false)
}

fn known(points: &[(u64, f64, f64)]) -> Vec<(u64, Measured<Cost>)> {
    points.iter().map(|&(n, p99, delivery)| (n, Measured::Known(cost(p99, delivery)))).collect()
}

#[test]
fn the_knee_is_where_the_curve_bends_and_the_capacity_where_it_stops_to_keep_up() {
    let points = known(&[
        (10, 0.10, 1.0),
        (100, 0.11, 1.0),
        (1_000, 0.10, 1.0),
        (10_000, 0.12, 1.0),
        (100_000, 4.0, 1.0),
        (1_000_000, 9_000.0, 0.3),
    ]);
    let found = of(points);
    assert_eq!(found.knee, Measured::Known(10_000));
    assert_eq!(found.capacity, Capacity { keeps_up: Some(100_000), fails: Some(1_000_000) });
    let limit = found.limit.known().unwrap();
    assert!(limit.behind && limit.agents == 1_000_000);
    assert!(limit.causes[0].starts_with("CPU") && limit.causes[1].contains("run queue"));
    assert_eq!(next(found.capacity), Some(320_000));
    assert_eq!(next(Capacity { keeps_up: Some(100), fails: Some(110) }), None);
    assert_eq!(next(Capacity { keeps_up: None, fails: Some(110) }), None);
    assert_eq!(next(Capacity { keeps_up: Some(100), fails: None }), None);
}

#[test]
fn a_flat_curve_has_no_knee_and_a_point_that_could_not_run_is_unknown() {
    let mut points =
        known(&[(10, 0.1, 1.0), (100, 0.1, 1.0), (1_000, 0.11, 1.0), (10_000, 0.12, 1.0)]);
    points.push((1_000_000, Measured::unknown("1000000 agents need 1600 MB", "more memory")));
    let found = of(points);
    assert!(found.knee.known().is_none());
    assert_eq!(found.capacity, Capacity { keeps_up: Some(10_000), fails: Some(1_000_000) });
    assert!(found.points[4].behind.known().is_none());
    let limit = found.limit.known().unwrap();
    assert!(!limit.behind && limit.agents == 10_000, "{limit:?}");
    assert!(limit.causes.last().unwrap().contains("1600 MB"), "{limit:?}");
    assert!(of(Vec::new()).limit.known().is_none());
}

/// A log that syncs each event is what limits, and is called so before the core that waits for it.
#[test]
fn a_log_that_is_waited_for_is_the_limit() {
    let limits = |log: LogCost| {
        let mut slow = cost(400.0, 1.0);
        slow.log = Some(log);
        let found = of(vec![(10, Measured::Known(slow))]);
        found.limit.known().unwrap().causes[0].clone()
    };
    // Its P50 is some share of 400 ms.
    let log = LogCost {
        waits: 9_000,
        wait_mean_ns: Some(390e6),
        syncs_per_s: 900.0,
        events_per_sync: Some(1.0),
        refused: 0,
    };
    let said = limits(log);
    assert!(
        said.starts_with("the sync of the event log (900 syncs/s of 1.0 events each): "),
        "{said}"
    );
    assert!(said.contains("9000 answers wait 390.0 ms"), "{said}");
    let short = LogCost { wait_mean_ns: Some(1e3), ..log };
    assert!(limits(short).starts_with("CPU"));
    assert!(limits(LogCost { refused: 1, ..short }).contains("1 requests were refused"));
    // A log that syncs nothing has no sync that could limit.
    let none =
        LogCost { waits: 0, wait_mean_ns: None, events_per_sync: None, syncs_per_s: 0.0, ..log };
    assert!(limits(none).starts_with("CPU"));
    assert!(limits(LogCost { refused: 2, ..none }).starts_with("the event log, without a sync: 2"));
}

#[test]
fn each_way_to_fall_behind_is_named() {
    let why = |change: fn(&mut Cost)| {
        let mut cost = cost(1.0, 1.0);
        change(&mut cost);
        behind(&cost, 300_000_000).known().map(|why| why.join("; ")).unwrap()
    };
    assert_eq!(why(|_| {}), "");
    assert!(
        why(|c| c.figures.throughput_per_s = Measured::Known(900.0)).contains("serves 90.00 %")
    );
    assert!(why(|c| c.planned_per_s = 2_000.0).contains("offers 50.00 %"));
    assert!(why(|c| c.figures.delivery = Measured::Known(0.99)).contains("delivers 99.00 %"));
    assert!(why(|c| c.figures.p99_ns = Measured::Known(3e8)).contains("not below 300 ms"));
    assert!(
        why(|c| {
            if let Measured::Known(outcomes) = &mut c.figures.outcomes {
                outcomes.attempts += 1;
            }
        })
        .contains("do not add up")
    );
}

#[test]
fn fleets_reach_from_ten_to_the_last() {
    assert_eq!(fleets(10, 1_000_000, None), [10, 100, 1_000, 10_000, 100_000, 1_000_000]);
    assert_eq!(fleets(10, 250_000, None).last(), Some(&250_000));
    assert_eq!(fleets(10, 1_000, Some(5)), [10, 32, 100, 320, 1_000]);
    assert_eq!(fleets(10, 5, None), [5]);
    assert_eq!(fleets(202, 100_000, None), [202, 1_000, 10_000, 100_000]);
    assert_eq!(fleets(202, 10_000, Some(3)), [202, 1_400, 10_000]);
}

/// The compare preset has 101 agents that all others ask.
#[test]
fn a_plan_that_needs_more_agents_than_ten_begins_where_it_can() {
    let refused = |least: u64| move |n: u64| (n < least).then(|| format!("{n} of {least}"));
    assert_eq!(smallest(1_000, refused(2)), Ok((10, None)));
    assert_eq!(smallest(1_000, refused(202)), Ok((202, Some("201 of 202".to_owned()))));
    assert_eq!(smallest(1_000, refused(1_000)), Ok((1_000, Some("999 of 1000".to_owned()))));
    assert_eq!(smallest(1_000, refused(1_001)), Err("1000 of 1001".to_owned()));
    assert_eq!(smallest(5, refused(2)), Ok((5, None)));
}

#[test]
fn a_fleet_of_which_something_is_unknown_neither_keeps_up_nor_falls_behind() {
    let few = || Measured::unknown("30 values are fewer than the 100 of this rank", "run longer");
    let mut small = cost(1.0, 1.0);
    small.figures.p99_ns = few();
    let Measured::Unknown { unknown, .. } = behind(&small, 300_000_000) else { panic!("known") };
    assert_eq!(unknown, "its P99: 30 values are fewer than the 100 of this rank");
    small.figures.delivery = Measured::Known(0.5);
    assert!(behind(&small, 300_000_000).known().is_some(), "one reason is enough");
    small.figures.delivery = Measured::Known(1.0);
    let mut points = known(&[(100, 0.1, 1.0), (1_000, 0.1, 1.0), (10_000, 900.0, 1.0)]);
    points.push((10, Measured::Known(small.clone())));
    points.push((2_000, Measured::Known(small.clone())));
    let found = of(points);
    assert_eq!(found.capacity, Capacity { keeps_up: Some(1_000), fails: Some(10_000) });
    let nothing = of(vec![(10, Measured::Known(small))]);
    assert_eq!(nothing.capacity, Capacity { keeps_up: None, fails: None });
}
