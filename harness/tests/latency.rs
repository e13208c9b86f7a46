//! Where the time goes in short real runs: every request is in a bucket, and its stages are its latency.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod common;

use common::{Ran, plan, run};
use tailbeam_harness::plan::Span;
use tailbeam_probes::analyse::latency::conserve::{Given, Outcome, What};
use tailbeam_probes::analyse::latency::{conservation, stages, sum_ns, system_ns};
use tailbeam_probes::record::latency::{Stage, Why};

/// What holds of every run.
fn holds(ran: &Ran) {
    let total = ran.total();
    assert_eq!(total.count + ran.disordered(), ran.closed(), "each request is in one bucket");
    if ran.disordered() == 0 {
        let (count, sum) = ran.histogram();
        assert_eq!((total.count, u128::from(total.system_ns)), (count, sum), "to the ns");
    }
    let share = |part: u64| part as f64 / total.count.max(1) as f64;
    assert!(share(ran.disordered()) < 0.01, "{} of {} disordered", ran.disordered(), total.count);
    let (staged, system) = (total.staged_ns() as f64, total.system_ns as f64);
    assert!((staged - system).abs() <= 0.01 * system, "stages {staged} against {system}");
    let shards = ran.run.manifest.cores.len();
    assert_eq!(ran.windows.len(), ran.run.windows.len() * shards, "one per core and window");
    for window in &ran.windows {
        let bucketed: u64 = window.buckets.iter().map(|bucket| bucket.sums.count).sum();
        let responded: u64 = window.responders.iter().map(|sums| sums.all.count).sum();
        assert_eq!(bucketed, responded, "each request has one responder");
        assert!(window.responders.iter().all(|sums| sums.late.count <= sums.all.count));
        assert!(window.from_ns < window.to_ns);
    }
}

/// Nothing that is said of the requests disagrees with what is said of them elsewhere.
fn add_up(ran: &Ran) {
    let clock_ns = ran.run.manifest.clock_bound_ns.unwrap();
    let given = Given { windows: &ran.windows, counted: None, clock_ns };
    let checks = conservation(&given).checks;
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| {
            let of_requests = matches!(
                check.what,
                What::Band { .. }
                    | What::Books
                    | What::Order
                    | What::Windows
                    | What::Stages { .. }
                    | What::Ticks { .. }
                    | What::Parts { .. }
                    | What::Service { .. }
                    | What::Little { .. }
            );
            of_requests && matches!(check.outcome, Outcome::Fail(_))
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let passed = checks.iter().filter(|check| matches!(check.outcome, Outcome::Pass)).count();
    assert!(passed >= 10, "{passed} of {} could be made", checks.len());
}

#[test]
fn every_request_is_in_one_bucket_and_its_stages_are_its_latency() {
    let Some(ran) = run(&plan(300, 6)) else { return };
    holds(&ran);
    add_up(&ran);
    assert!(ran.total().count > 3_000, "{} requests", ran.total().count);
    for exemplar in ran.exemplars() {
        let staged = stages(&exemplar.stamps, 1_000);
        assert_eq!(staged.stages[Stage::Timer.index()], 0, "no plan, no timer");
        if staged.disordered.is_none() && staged.clamped == 0 {
            assert_eq!(sum_ns(&staged.stages), system_ns(&exemplar.stamps), "{exemplar:?}");
        }
    }
    let per_agent: u64 = ran.run.system_ns.as_ref().unwrap().iter().sum();
    let all = ran.total().system_ns;
    assert!(per_agent >= all, "agents' sums {per_agent} hold the disordered too: {all}");
    assert_eq!(ran.run.worst_ns.as_ref().unwrap().len(), 300);
    assert_eq!(ran.run.service_ns.as_ref().unwrap().len(), 300);
}

#[test]
fn a_planned_delay_is_no_latency() {
    let mut plan = plan(300, 3);
    plan.delay = Span::ms(20, 40);
    let Some(ran) = run(&plan) else { return };
    holds(&ran);
    let total = ran.total();
    assert!(total.system_ns / total.count < 20_000_000, "below the planned delay: {total:?}");
    let timed = ran.exemplars().filter(|exemplar| exemplar.stamps.timer_turn_ns > 0).count();
    assert_eq!(timed, ran.exemplars().count(), "a timer sends each answer");
    for exemplar in ran.exemplars() {
        assert!(exemplar.stamps.timer_turn_ns >= exemplar.stamps.due_ns, "{exemplar:?}");
    }
}

#[test]
fn drawn_and_late_requests_are_counted_and_the_slowest_are_there() {
    let Some(ran) = run(&plan(300, 4)) else { return };
    let of = |why: Why| ran.exemplars().filter(move |exemplar| exemplar.why == why);
    assert!(of(Why::Uniform).count() > 50 && of(Why::Late).count() > 0 && of(Why::Top).count() > 0);
    assert!(of(Why::Uniform).all(|exemplar| exemplar.counts.is_some()), "all drawn are counted");
    let counts: Vec<_> = of(Why::Uniform).filter_map(|exemplar| exemplar.counts).collect();
    assert!(counts.iter().all(|counts| counts.minor_faults.is_some() && counts.cpu_ns > Some(0)));
    // This program's allocator is another one: what it did is unknown, and not 0.
    assert!(counts.iter().all(|counts| counts.allocations.is_none()));
    let unknowns = &ran.run.manifest.unknowns;
    assert!(unknowns.iter().any(|unknown| unknown.thing.contains("allocations")), "{unknowns:?}");
    let mut late = ran.windows.iter().filter(|window| window.late_ns.is_some());
    assert!(late.clone().count() > 0 && ran.windows[0].late_ns.is_none());
    assert!(late.all(|window| {
        let late = window.exemplars.iter().filter(|exemplar| exemplar.why == Why::Late);
        late.count() <= 64
    }));
    for window in &ran.windows {
        let top = window.exemplars.iter().filter(|exemplar| exemplar.why == Why::Top);
        let slowest = top.map(|exemplar| system_ns(&exemplar.stamps)).max().unwrap_or(0);
        let others = window.exemplars.iter().map(|exemplar| system_ns(&exemplar.stamps));
        assert!(others.max().unwrap_or(0) <= slowest, "the slowest is a top one");
    }
}

#[test]
fn ticks_tell_the_whole_time_of_each_core() {
    let Some(ran) = run(&plan(300, 3)) else { return };
    let shards = u16::try_from(ran.run.manifest.cores.len()).unwrap();
    assert!(!ran.run.manifest.matrix.is_empty());
    for shard in 0..shards {
        let windows = ran.windows.iter().filter(|window| window.shard == shard);
        let ticks: Vec<_> = windows.flat_map(|window| &window.ticks).collect();
        assert!(ticks.len() >= 20, "{} ticks of 50 ms in 3 s", ticks.len());
        assert!(ticks.windows(2).all(|pair| pair[0].to_ns == pair[1].from_ns), "without a hole");
        assert!(ticks.iter().map(|tick| tick.turns).sum::<u64>() > 1_000);
        for tick in &ticks {
            let told = tick.turns_ns + tick.parked_ns + tick.spun_ns + tick.tick_ns;
            assert!(told <= tick.to_ns - tick.from_ns + 1_000_000, "{tick:?}");
        }
        let parked: u64 = ticks.iter().map(|tick| tick.parked_ns).sum();
        assert!(parked > 0, "it sleeps between requests");
    }
    let occupied = &ran.windows.iter().find(|window| window.shard == 0).unwrap();
    assert!(occupied.occupancy_samples > 10);
}

#[test]
fn a_run_of_ten_thousand_agents_reads_whole() {
    let mut plan = plan(10_000, 3);
    plan.think = Span::ms(500, 1_500);
    let Some(ran) = run(&plan) else { return };
    holds(&ran);
    assert!(ran.total().count > 20_000, "{} requests", ran.total().count);
    let end = ran.run.end.as_ref().unwrap();
    assert_eq!((end.lost, end.open_at_stop), (0, 0));
    let legs = |leg: usize| ran.windows.iter().map(|window| window.legs[leg].count).sum::<u64>();
    assert_eq!([legs(0), legs(1), legs(2)], [legs(0); 3], "each answered request left each leg");
}

/// The closed loop after the load: its spans are there, and its requests are in no figure of the run.
#[test]
fn a_saturated_phase_is_in_no_other_figure() {
    let mut plan = plan(300, 2);
    plan.observe.saturate_ns = 4_000_000_000;
    let Some(ran) = run(&plan) else { return };
    holds(&ran);
    let due = 2.0 * plan.rate_per_s();
    assert!((ran.total().count as f64) < 1.5 * due, "{} of {due}", ran.total().count);
    let end = ran.run.end.as_ref().unwrap();
    assert_eq!((end.saturated.len(), end.lost, end.open_at_stop), (4, 0, 0));
    for pair in &end.saturated {
        let [on, off] = [&pair.on, &pair.off];
        let busiest = on.requests.max(off.requests) as f64;
        assert!(busiest > 10.0 * due, "{busiest} replies in half a second: {pair:?}");
        assert!(on.cpu_ns > 0 && off.cpu_ns > 0 && on.len_ns >= 500_000_000, "{pair:?}");
    }
    let units = ran.run.manifest.units.unwrap();
    assert!(units.turn_ns > 0.0 && units.request_ns > 0.0, "{units:?}");
}

#[test]
fn off_is_off() {
    let mut plan = plan(100, 1);
    plan.observe.on = false;
    let Some(ran) = run(&plan) else { return };
    assert!(ran.windows.is_empty() && ran.run.manifest.matrix.is_empty());
    assert!(ran.closed() > 0);
}
