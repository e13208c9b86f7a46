//! The checks: sound runs pass, each fault fails, what is unknown is not passed.

use tailbeam_probes::analyse::latency::conservation;
use tailbeam_probes::analyse::latency::conserve::{
    Check, Conservation, Given, Misfit, Outcome, Verdict, What,
};
use tailbeam_probes::record::latency::{Count, CounterRecord, LatencyWindow, Stage};

use crate::book::{Book, Fault};
use crate::world::{BOUND, MS, Plan, US, World};

fn plan(seed: u64) -> Plan {
    Plan { seed, requests: 40_000, every_ns: 12 * US, sample_ns: 20 * US, ..Plan::default() }
}

fn checked(windows: &[LatencyWindow], book: &Book) -> Conservation {
    conservation(&Given { windows, counted: Some(&book.counted), clock_ns: BOUND })
}

fn what(check: &Check) -> What {
    check.what
}

fn with(fault: Fault) -> Conservation {
    let book = World::book(&plan(3));
    let mut windows = book.windows.clone();
    assert_eq!(checked(&windows, &book).verdict, Verdict::Pass, "the clean twin");
    fault.apply(&mut windows);
    let found = checked(&windows, &book);
    assert_eq!(found.verdict, Verdict::Fail, "{fault:?}");
    found
}

fn fails(found: &Conservation, wanted: What) -> Misfit {
    let check = found.failed().find(|check| check.what == wanted);
    let Some(Check { outcome: Outcome::Fail(misfit), .. }) = check else {
        panic!("{wanted:?} is not among {:?}", found.failed().map(what).collect::<Vec<_>>())
    };
    misfit.clone()
}

const ALL: What = What::Band { band: None };

#[test]
fn a_sound_run_passes_every_check() {
    let book = World::book(&plan(1));
    let found = checked(&book.windows, &book);
    let wrong: Vec<_> =
        found.checks.iter().filter(|check| check.outcome != Outcome::Pass).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(found.verdict, Verdict::Pass);
    // All requests, five bands, two counts, books, order, windows, stages of at least two bands, seven of
    // each core, three legs.
    assert!(found.checks.len() >= 6 + 5 + 2 + 14 + 3, "{}", found.checks.len());
    assert!(book.windows.iter().map(|window| window.clamped).sum::<u64>() > 0, "clocks differ");
}

#[test]
fn a_stage_that_is_dropped_or_counted_twice_is_named() {
    for stage in [Stage::Service, Stage::RunQueue, Stage::ReplyHop, Stage::Suspended] {
        let dropped = with(Fault::Dropped(stage));
        assert_eq!(fails(&dropped, ALL), Misfit::Stages(vec![stage]), "{stage:?} dropped");
        let found = dropped.failed().any(|check| {
            matches!(check.what, What::Band { band: Some(_) })
                && check.outcome == Outcome::Fail(Misfit::Stages(vec![stage]))
        });
        assert!(found, "{stage:?} dropped is named in a band");
        let doubled = with(Fault::Doubled(stage));
        assert_eq!(fails(&doubled, ALL), Misfit::Stages(vec![stage]), "{stage:?} doubled");
    }
}

#[test]
fn stages_that_are_exchanged_keep_the_sum_and_still_fail() {
    let found = with(Fault::Exchanged(Stage::Service, Stage::Settle));
    assert!(found.failed().all(|check| !matches!(check.what, What::Band { .. })), "{found:#?}");
    let misfit = fails(&found, What::Stages { band: 0 });
    assert_eq!(misfit, Misfit::Stages(vec![Stage::Service, Stage::Settle]));
}

#[test]
fn stamps_that_are_exchanged_fail() {
    let book = World::book(&Plan { swapped: true, ..plan(3) });
    let found = checked(&book.windows, &book);
    assert_eq!(found.verdict, Verdict::Fail);
    fails(&found, What::Order);
}

#[test]
fn a_lost_ring_fails_whether_it_says_so_or_not() {
    let found = with(Fault::LostRing);
    let Misfit::SwitchesLost(lost) = fails(&found, What::OnOff { shard: 0 }) else { panic!() };
    assert!(lost >= 40);
    let found = with(Fault::SilentRing);
    for shard in [0, 1] {
        assert!(matches!(fails(&found, What::OnOff { shard }), Misfit::Window(_)));
        fails(&found, What::Waiting { shard });
    }
}

#[test]
fn a_window_whose_requests_are_gone_fails() {
    let found = with(Fault::WindowEmptied(4));
    assert_eq!(fails(&found, What::Requests), Misfit::Window(4));
    assert_eq!(fails(&found, What::Latency), Misfit::Window(4));
    for leg in 0..3 {
        assert_eq!(fails(&found, What::Little { leg }), Misfit::Window(4));
    }
    let found = with(Fault::WindowGone(4));
    assert_eq!(fails(&found, What::Windows), Misfit::Window(4));
    // Without any count of the recorder's own, the samples alone show it.
    let book = World::book(&plan(3));
    let mut windows = book.windows.clone();
    Fault::WindowEmptied(4).apply(&mut windows);
    let alone = conservation(&Given { windows: &windows, counted: None, clock_ns: BOUND });
    assert_eq!(fails(&alone, What::Little { leg: 0 }), Misfit::Window(4));
}

#[test]
fn a_part_of_a_cores_time_that_is_gone_fails() {
    let found = with(Fault::ParkingDropped);
    fails(&found, What::Blocked { shard: 0 });
    let found = with(Fault::TurnsDropped);
    assert_eq!(fails(&found, What::Service { shard: 1 }), Misfit::Stages(vec![Stage::Service]));
    let found = with(Fault::TicksDropped);
    fails(&found, What::Ticks { shard: 0 });
}

#[test]
fn a_core_whose_parts_are_more_than_its_time_fails_in_that_window() {
    let book = World::book(&plan(3));
    let mut windows = book.windows.clone();
    let tick = &mut windows.iter_mut().find(|w| w.window == 5).unwrap().ticks[1];
    tick.turns_ns += 500 * US;
    let found = checked(&windows, &book);
    assert_eq!(fails(&found, What::Parts { shard: 0 }), Misfit::Window(5));
    assert_eq!(found.failed().count(), 1);
    // A read that came late moves time from one tick to its neighbour; that is no fault.
    let mut windows = book.windows.clone();
    let ticks = &mut windows.iter_mut().find(|w| w.window == 5).unwrap().ticks;
    ticks[1].turns_ns += 500 * US;
    ticks[2].turns_ns = ticks[2].turns_ns.saturating_sub(500 * US);
    ticks[2].parked_ns = ticks[2].parked_ns.saturating_sub(500 * US);
    assert_eq!(checked(&windows, &book).verdict, Verdict::Pass);
}

/// The scheduler charges a thread from its wake-up on: what it counts more than the task clock may be as long as
/// the core was asleep and 20 us a switch, and no longer; less is right only for what is on and off the CPU at once.
#[test]
fn run_time_may_hold_wake_ups_and_nothing_else() {
    let book = World::book(&plan(3));
    let with = |switches: u64, change: &dyn Fn(u64, u64) -> u64| {
        let mut windows = book.windows.clone();
        for tick in windows.iter_mut().flat_map(|window| &mut window.ticks) {
            let (run, blocked) = (tick.run_ns.unwrap(), tick.blocked_ns.unwrap());
            tick.run_ns = Some(change(run, blocked));
            let (name, count) = ("context-switches".to_owned(), Count::Exact(switches));
            tick.counters.push(CounterRecord { name, count });
        }
        checked(&windows, &book)
    };
    let many = 1_000_000;
    assert_eq!(with(many, &|run, blocked| run + blocked / 2).verdict, Verdict::Pass);
    for wrong in [
        with(many, &|run, _| run / 2),
        with(many, &|run, blocked| run + blocked + 2 * MS),
        with(0, &|run, blocked| run + blocked / 2),
    ] {
        fails(&wrong, What::RunTime { shard: 0 });
        assert!(wrong.failed().all(|check| matches!(check.what, What::RunTime { .. })));
    }
}

#[test]
fn run_time_may_lack_the_moment_of_each_switch_that_is_on_and_off_the_cpu() {
    let book = World::book(&plan(3));
    let with = |switches: u64, both_ns: u64, lacks_ns: u64| {
        let mut windows = book.windows.clone();
        for tick in windows.iter_mut().flat_map(|window| &mut window.ticks) {
            tick.blocked_ns = Some(tick.blocked_ns.unwrap() + both_ns);
            tick.parked_ns += both_ns;
            tick.turns_ns = tick.turns_ns.saturating_sub(both_ns);
            tick.run_ns = Some(tick.run_ns.unwrap().saturating_sub(lacks_ns));
            let (name, count) = ("context-switches".to_owned(), Count::Exact(switches));
            tick.counters.push(CounterRecord { name, count });
        }
        let found = checked(&windows, &book);
        found.failed().any(|check| matches!(check.what, What::RunTime { .. }))
    };
    // All together may be 20 ms and 1 % off, by the kernel's lag.
    let ticks = book.windows.iter().filter(|window| window.shard == 0).flat_map(|of| &of.ticks);
    let lacks_ns = 2 * (20 * MS + ticks.clone().map(|of| of.to_ns - of.from_ns).sum::<u64>() / 100)
        / ticks.count() as u64;
    let switches = lacks_ns / 1_000;
    assert!(with(switches, 0, lacks_ns), "nothing is in both");
    assert!(with(0, lacks_ns, lacks_ns), "there were no switches");
    assert!(!with(switches, lacks_ns, lacks_ns), "1 us of each switch");
    assert!(with(switches, lacks_ns / 4, lacks_ns), "less is in both than it lacks");
}

#[test]
fn a_moment_of_each_switch_is_on_and_off_the_cpu_and_no_more() {
    let book = World::book(&plan(3));
    let with = |switches: u64, more_ns: i64| {
        let mut windows = book.windows.clone();
        for tick in windows.iter_mut().flat_map(|window| &mut window.ticks) {
            let blocked = tick.blocked_ns.unwrap().saturating_add_signed(more_ns);
            (tick.blocked_ns, tick.parked_ns) = (Some(blocked), tick.to_ns - tick.from_ns);
            tick.turns_ns = 0;
            let (name, count) = ("context-switches".to_owned(), Count::Exact(switches));
            tick.counters.push(CounterRecord { name, count });
        }
        let found = checked(&windows, &book);
        found.failed().any(|check| matches!(check.what, What::OnOff { .. }))
    };
    // Two us of each switch; the least that is allowed besides is 50 us.
    assert!(!with(1_000, 2_000_000), "each switch is in both for a while");
    assert!(with(0, 2_000_000) && with(1_000, 6_000_000), "no switch is for that long");
    assert!(with(1_000, -2_000_000), "and none is in neither");
}

#[test]
fn what_is_not_known_is_not_passed() {
    let book = World::book(&plan(3));
    let unknown = |found: &Conservation| {
        assert_eq!(
            found.verdict,
            Verdict::Inconclusive,
            "{:#?}",
            found.failed().collect::<Vec<_>>()
        );
        found.unknown().map(what).collect::<Vec<_>>()
    };
    let mut windows = book.windows.clone();
    for tick in windows.iter_mut().flat_map(|window| &mut window.ticks) {
        (tick.preempted_ns, tick.blocked_ns) = (None, None);
        tick.counters.clear();
    }
    let missing = unknown(&checked(&windows, &book));
    assert_eq!(missing.len(), 8, "four of each core: {missing:?}");
    assert!(missing.contains(&What::OnOff { shard: 1 }));
    let none = conservation(&Given { windows: &book.windows, counted: None, clock_ns: BOUND });
    assert_eq!(unknown(&none), [What::Requests, What::Latency]);
    let mut windows = book.windows.clone();
    windows.iter_mut().for_each(|window| window.exemplars.clear());
    assert_eq!(unknown(&checked(&windows, &book)), [What::Stages { band: 0 }]);
    windows.clone_from(&book.windows);
    windows.iter_mut().for_each(|window| window.occupancy_samples = 0);
    assert_eq!(unknown(&checked(&windows, &book)).len(), 3);
    let nothing = conservation(&Given { windows: &[], counted: Some(&[]), clock_ns: 0 });
    assert_eq!(nothing.verdict, Verdict::Inconclusive);
}

#[test]
fn a_window_with_stages_off_is_counted_and_no_fault() {
    let book = World::book(&plan(3));
    let mut windows = book.windows.clone();
    Fault::Off(4).apply(&mut windows);
    let found = checked(&windows, &book);
    assert_eq!(found.verdict, Verdict::Pass, "{:#?}", found.failed().collect::<Vec<_>>());
    windows.iter_mut().find(|window| window.window == 4).unwrap().unstaged.count -= 1;
    assert_eq!(fails(&checked(&windows, &book), What::Requests), Misfit::Window(4));
}

#[test]
fn some_ticks_without_a_figure_leave_the_rest_and_half_of_them_leave_it_unknown() {
    // 480 ticks a core: one of them is less than a hundredth, one in fifty is more.
    let book = World::book(&Plan { tick_ns: MS, ..plan(3) });
    let without = |every: usize, silent: bool| {
        let mut windows = book.windows.clone();
        for (k, tick) in windows.iter_mut().flat_map(|window| &mut window.ticks).enumerate() {
            (tick.preempted_ns, tick.blocked_ns) = match k % every {
                0 => (None, None),
                _ if silent => (Some(0), Some(0)),
                _ => (tick.preempted_ns, tick.blocked_ns),
            };
        }
        checked(&windows, &book)
    };
    assert_eq!(without(50, false).verdict, Verdict::Inconclusive, "one in fifty is too many");
    assert_eq!(without(1_000, false).verdict, Verdict::Pass);
    let found = without(2, true);
    assert_eq!(found.verdict, Verdict::Fail, "what is known is wrong");
    fails(&found, What::OnOff { shard: 0 });
}

#[test]
fn few_samples_are_no_law() {
    let book = World::book(&Plan { sample_ns: 5 * MS, ..plan(3) });
    let found = checked(&book.windows, &book);
    let legs: Vec<_> = found.unknown().map(what).collect();
    assert!(legs.contains(&What::Little { leg: 0 }), "{:#?}", found.checks);
    assert_eq!(found.verdict, Verdict::Inconclusive);
}

/// Sound runs that a leg's check calls wrong, and runs in which a third of a leg is missing that it calls
/// sound, of 240 seeds with three legs each.
#[test]
fn false_alarms_of_littles_law_stay_rare_and_it_sees_a_third_missing() {
    const SEEDS: u64 = 240;
    let (mut alarms, mut unknown, mut missed, mut made) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let plan = Plan {
            requests: 12_000,
            window_ns: 10 * MS,
            keep: 4,
            preempted: 40,
            ..plan(seed + 100)
        };
        let book = World::book(&plan);
        let mut windows = book.windows.clone();
        let legs = |found: &Conservation| -> Vec<Outcome> {
            let legs = found.checks.iter().filter(|c| matches!(c.what, What::Little { .. }));
            legs.map(|check| check.outcome.clone()).collect()
        };
        for outcome in legs(&checked(&windows, &book)) {
            match outcome {
                Outcome::Pass => made += 1,
                Outcome::Fail(_) => alarms += 1,
                Outcome::Unknown(_) => unknown += 1,
            }
        }
        for leg in windows.iter_mut().flat_map(|window| &mut window.legs) {
            leg.ns -= leg.ns / 3;
        }
        missed += legs(&checked(&windows, &book)).iter().filter(|o| **o == Outcome::Pass).count();
    }
    let all = SEEDS * 3;
    println!(
        "Little's law, {all} legs: {alarms} false alarms, {unknown} unknown, {made} passed; with a third \
         missing {missed} passed"
    );
    assert!(alarms * 100 <= all, "{alarms} false alarms of {all}");
    assert!(unknown * 10 <= all, "{unknown} unknown of {all}");
    assert!(missed as u64 * 50 <= all, "{missed} missed of {all}");
}
