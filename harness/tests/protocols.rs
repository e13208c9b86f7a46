//! Secure elicitation and polling on the live runtime: every outcome is counted, the sums close, and what the
//! owners, boxes and logs counted agrees with what the askers saw.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod common;

use std::collections::HashMap;

use common::{Ran, run_with};
use tailbeam_harness::load::{Elicit, Poll, Secure, Workload};
use tailbeam_harness::plan::{Arrivals, LimitPlan, LogAck, LogCore, LogSync, Plan, Span, Targets};
use tailbeam_harness::verdict::Outcomes;

fn plan(agents: u64, seconds: u64) -> Plan {
    let mut plan = common::plan(agents, seconds);
    plan.think = Span::ms(100, 300);
    plan.delay = Span::ms(5, 20);
    plan
}

fn outcomes(ran: &Ran) -> Outcomes {
    let mut all = Outcomes::default();
    for second in ran.run.windows.iter().flat_map(|window| &window.seconds) {
        all.merge(&second.counts.outcomes);
    }
    let end = ran.run.end.as_ref().unwrap();
    all.open_at_stop += end.open_at_stop;
    all.lost += end.lost;
    assert_eq!(all.sum(), all.attempts, "{all:?}");
    assert!(all.attempts > 0);
    all
}

struct Counts(HashMap<String, u64>);

impl Counts {
    fn of(ran: &Ran) -> Self {
        let end = ran.run.end.as_ref().unwrap();
        Self(end.protocol.iter().map(|record| (record.name.clone(), record.count)).collect())
    }

    fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no count {name:?} in {:?}", self.0.keys()))
    }
}

#[test]
fn every_elicitation_ends_once_and_each_end_is_counted_twice_alike() {
    let mut plan = plan(200, 3);
    (plan.protocol.decline, plan.protocol.cancel) = (0.1, 0.1);
    let Some(ran) = run_with::<Secure>(&plan) else { return };
    let (all, counts) = (outcomes(&ran), Counts::of(&ran));
    assert!(all.ok > 1_000 && all.declined > 50 && all.cancelled > 50, "{all:?}");
    assert_eq!((all.error, all.refused, all.lost), (0, 0, 0), "{all:?}");
    assert_eq!(counts.get("created"), all.attempts);
    // A cancel and an answer may cross: then the owner says which came first, and the asker counts that.
    for (state, seen) in
        [("accepted", all.ok), ("declined", all.declined), ("cancelled", all.cancelled)]
    {
        assert_eq!(counts.get(state), seen, "{state}: {all:?}");
    }
    let ended = ["accepted", "declined", "cancelled", "expired"].map(|state| counts.get(state));
    assert_eq!(counts.get("created"), ended.iter().sum::<u64>() + counts.get("pending at the end"));
    // Each transition is an event, beside the mark that each log begins with.
    let events = counts.get("created") + ended.iter().sum::<u64>();
    let marks = ran.run.manifest.cores.len() as u64;
    assert_eq!(counts.get("log: events"), events + marks);
    assert_eq!((counts.get("events not logged"), counts.get("log: lost")), (0, 0));
    assert_eq!(counts.get("log: syncs"), 0, "durability none");
    assert!(counts.get("audit lines") >= events);
    // Stages hold with an owner on the way, too.
    let total = ran.total();
    let (staged, system) = (total.staged_ns() as f64, total.system_ns as f64);
    assert!((staged - system).abs() <= 0.01 * system, "stages {staged} against {system}");
}

/// Sessions of a second in the mean: agents go when they are idle, and the load does not notice.
fn come_and_go<W: Workload>(session_ns: Option<u64>) -> Option<(Outcomes, Counts)> {
    let mut plan = plan(200, 4);
    plan.protocol.poll.interval_ns = 10_000_000;
    plan.shape.session_ns = session_ns;
    let ran = run_with::<W>(&plan)?;
    let (go, counts) = (outcomes(&ran), Counts::of(&ran));
    if session_ns.is_none() {
        return Some((go, counts));
    }
    // An agent goes at its next idle instant, 0.1 s later: 200 * 4 / 1.1 sessions, with a deviation of 26.
    let ended = counts.get("sessions that ended");
    assert!((600..=830).contains(&ended), "{}: {ended} sessions", W::NAME);
    Some((go, counts))
}

#[test]
fn agents_that_come_and_go_lose_no_request() {
    let Some((stay, _)) = come_and_go::<Elicit>(None) else { return };
    let Some((_, stays)) = come_and_go::<Poll>(None) else { return };
    for ran in [come_and_go::<Elicit>, come_and_go::<Secure>, come_and_go::<Poll>] {
        let Some((all, counts)) = ran(Some(1_000_000_000)) else { return };
        assert_eq!(all.ok, all.attempts, "{all:?}");
        assert_eq!(all.attempts, stay.attempts, "the schedule is the same");
        assert_eq!(counts.get("sessions that ended with requests open"), 0);
        // Whoever takes an agent's place looks as often as that one did, and not beside it.
        if let Some(looks) = counts.0.get("looks") {
            let stays = stays.get("looks");
            assert!(*looks < stays + stays / 5, "{looks} looks, {stays} without sessions");
        }
    }
}

#[test]
fn an_agent_that_never_rests_goes_after_the_grace_and_what_it_had_open_is_lost() {
    let mut plan = plan(50, 4);
    // Each has several open at any time.
    (plan.think, plan.delay) = (Span::ms(10, 20), Span::ms(300, 300));
    (plan.timeout_ns, plan.pending_max) = (400_000_000, 1_000);
    plan.shape.arrivals = Arrivals::Poisson;
    plan.shape.session_ns = Some(1_000_000_000);
    let Some(ran) = run_with::<Elicit>(&plan) else { return };
    let (all, counts) = (outcomes(&ran), Counts::of(&ran));
    let cut = counts.get("sessions that ended with requests open");
    assert!(cut > 50 && cut <= counts.get("sessions that ended"), "{cut}");
    assert!(
        all.lost > cut && all.expired > 0,
        "its own are lost, those that it held expire: {all:?}"
    );
}

#[test]
fn what_is_told_is_durable_first() {
    for (durability, ack) in [
        (LogSync::Batch, LogAck::After),
        (LogSync::Batch, LogAck::Before),
        (LogSync::PerEvent, LogAck::After),
    ] {
        let mut plan = plan(20, 2);
        (plan.protocol.durability, plan.protocol.ack) = (durability, ack);
        let Some(ran) = run_with::<Secure>(&plan) else { return };
        let (all, counts) = (outcomes(&ran), Counts::of(&ran));
        assert!(all.ok > 50, "{durability:?}: {all:?}");
        let (events, syncs) = (counts.get("log: events"), counts.get("log: syncs"));
        match durability {
            LogSync::PerEvent => assert_eq!(syncs, events, "a sync each"),
            _ => assert!(syncs > 0 && syncs <= events),
        }
        let waits = counts.get("waits for the log");
        let expected = if ack == LogAck::Before { 0 } else { 2 * all.ok };
        assert!(waits >= expected, "{waits} waits, {all:?}");
        assert_eq!(waits == 0, ack == LogAck::Before);
    }
}

#[test]
fn stock_limits_refuse_at_the_desk_and_that_is_no_error() {
    let mut plan = plan(50, 4);
    plan.protocol.limits = LimitPlan::Stock;
    let Some(ran) = run_with::<Secure>(&plan) else { return };
    let (all, counts) = (outcomes(&ran), Counts::of(&ran));
    // 13 at once and one every 6 s: each agent asks about 19 times in 4 s.
    assert!(all.refused > 100 && all.error == 0, "{all:?}");
    assert!(all.ok <= 50 * 14, "{all:?}");
    assert!(counts.get("desk refused: rate limit") >= all.refused);
    assert_eq!(counts.get("created") + all.refused, all.attempts);
}

#[test]
fn without_an_answer_the_owners_clock_ends_it() {
    let mut plan = plan(50, 2);
    // Nobody may hold more than one: the others are not answered.
    (plan.pending_max, plan.timeout_ns) = (1, 400_000_000);
    plan.delay = Span::ms(100, 200);
    plan.shape.targets = Targets::First(5);
    let Some(ran) = run_with::<Secure>(&plan) else { return };
    let (all, counts) = (outcomes(&ran), Counts::of(&ran));
    assert!(all.expired > 50 && all.ok > 0, "{all:?}");
    assert!(counts.get("addressee full") >= all.expired, "{all:?}");
    assert!(counts.get("expired") > 0);
    assert!(counts.get("askers told of expiry") <= counts.get("expired"));
    assert_eq!(counts.get("created"), all.attempts);
}

#[test]
fn the_log_may_have_a_core_of_its_own() {
    let mut plan = plan(50, 1);
    plan.protocol.log_core = LogCore::Own;
    plan.protocol.durability = LogSync::Batch;
    let Some(ran) = run_with::<Secure>(&plan) else { return };
    let all = outcomes(&ran);
    assert!(all.ok > 50 && all.error == 0, "{all:?}");
    let second = &ran.run.windows[0].seconds[0];
    assert_eq!(second.live_agents, 50, "owners and logs are none of the workload's");
}

#[test]
fn a_sleep_poll_waits_for_its_look_and_a_long_poll_does_not() {
    let interval = 200_000_000;
    let mut plan = plan(200, 4);
    plan.protocol.poll.interval_ns = interval;
    let Some(ran) = run_with::<Poll>(&plan) else { return };
    let (all, counts) = (outcomes(&ran), Counts::of(&ran));
    assert!(all.ok > 1_000, "{all:?}");
    assert_eq!((all.error, all.refused, all.lost, all.expired), (0, 0, 0, 0), "{all:?}");
    assert_eq!(counts.get("messages found"), 2 * all.ok, "a request and an answer each");
    // U(0, T): the mean is T / 2. A quarter of T either way is far beyond chance and host.
    for series in [3, 5] {
        let path = &ran.run.histograms[series];
        let mean = path.mean().unwrap();
        assert!((mean / interval as f64 - 0.5).abs() < 0.25, "series {series}: {mean} ns");
        assert!(path.quantile(0.01).unwrap() < interval / 8, "some find it at once");
    }
    assert!(counts.get("looks") > 200 * 10, "200 agents look 5 times a second for 4 s");
    plan.protocol.poll.long = true;
    let Some(ran) = run_with::<Poll>(&plan) else { return };
    let (all, counts) = (outcomes(&ran), Counts::of(&ran));
    assert!(all.ok > 1_000 && all.error == 0, "{all:?}");
    let path = ran.run.histograms[3].mean().unwrap();
    assert!(path < interval as f64 / 8.0, "woken: {path} ns");
    assert_eq!(counts.get("messages found"), 2 * all.ok);
}

#[test]
fn what_is_too_old_when_it_is_found_is_not_delivered() {
    let mut plan = plan(50, 3);
    plan.timeout_ns = 1_000_000_000;
    plan.protocol.poll.interval_ns = 400_000_000;
    plan.protocol.poll.ttl_ns = Some(200_000_000);
    let Some(ran) = run_with::<Poll>(&plan) else { return };
    let (all, counts) = (outcomes(&ran), Counts::of(&ran));
    assert!(counts.get("messages too old") > 50, "about half of each leg");
    assert!(all.ok > 0 && all.expired > 50, "{all:?}");
}

#[test]
fn shapes_are_what_they_say() {
    let mut ring = plan(20, 2);
    ring.shape.targets = Targets::Ring;
    ring.shape.arrivals = Arrivals::Closed;
    ring.think = Span::ms(50, 50);
    ring.delay = Span::ms(0, 0);
    let Some(ran) = run_with::<Secure>(&ring) else { return };
    let all = outcomes(&ran);
    // Each agent asks at most once in 50 ms, and waits for its answer in between.
    assert!(all.ok > 100 && all.attempts <= 20 * 41, "{all:?}");
    let mut fan = plan(50, 2);
    fan.shape.targets = Targets::First(3);
    fan.shape.arrivals = Arrivals::Poisson;
    let Some(ran) = run_with::<Secure>(&fan) else { return };
    let service = ran.run.service_ns.as_ref().unwrap();
    assert!(service[..3].iter().all(|&ns| ns > 0) && service[3..].iter().all(|&ns| ns == 0));
    let rate = outcomes(&ran).attempts as f64 / 2.0;
    let planned = fan.rate_per_s();
    // Poisson: five standard deviations of the number in two seconds.
    assert!((rate - planned).abs() < 5.0 * (planned / 2.0).sqrt(), "{rate} of {planned}");
}

#[test]
fn long_texts_come_whole() {
    let mut plan = plan(10, 2);
    plan.protocol.message_bytes = 1 << 20;
    plan.think = Span::ms(400, 600);
    for durability in [LogSync::None, LogSync::Batch] {
        plan.protocol.durability = durability;
        let Some(ran) = run_with::<Secure>(&plan) else { return };
        let all = outcomes(&ran);
        assert!(all.ok > 10 && all.error == 0, "{all:?}");
    }
}
