//! Planted slowness in short real runs: the stage that is planted is the one that takes the time, and the
//! agent that has it is the one that is named.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod common;

use common::{Ran, largest, run, slow};
use tailbeam_harness::plan::SlowKind;
use tailbeam_probes::analyse::latency::{stages, system_ns};
use tailbeam_probes::record::latency::{Exemplar, Stage};

const AGENT: u32 = 17;

/// Requests to the planted agent that took the planted time and longer.
fn struck(ran: &Ran, ns: u64) -> Vec<Exemplar> {
    let long = |exemplar: &&Exemplar| {
        exemplar.responder == AGENT
            && exemplar.stamps.service_ns + exemplar.stamps.suspended_ns >= ns
    };
    ran.exemplars().filter(long).copied().collect()
}

/// The planted requests' largest stage is the planted one, and it was struck as often as is recorded.
fn named(ran: &Ran, stage: Stage, ns: u64) -> Vec<Exemplar> {
    let slowed = &ran.run.end.as_ref().unwrap().slowed[0];
    assert!(slowed.times > 0 && slowed.ns >= slowed.times * ns, "{slowed:?}");
    let struck = struck(ran, ns);
    assert!(!struck.is_empty(), "none of {} slow requests is among the exemplars", slowed.times);
    let staged: Vec<_> = struck.iter().map(|e| stages(&e.stamps, 1_000).stages).collect();
    assert!(staged.iter().all(|stages| stages[stage.index()] >= ns), "all of it in its stage");
    // Medians: on a busy machine any stage of some request may be longer.
    let median = |place: usize| {
        let mut times: Vec<u64> = staged.iter().map(|stages| stages[place]).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let medians = std::array::from_fn(median);
    assert_eq!(largest(&medians), stage, "{medians:?}");
    struck
}

/// The heaviest agent of a list.
fn heaviest(ran: &Ran, late: bool) -> u32 {
    let mut sums = std::collections::HashMap::<u32, u64>::new();
    for window in &ran.windows {
        let list = if late { &window.top_late } else { &window.top_service };
        for top in list {
            *sums.entry(top.agent).or_default() += top.weight - top.error;
        }
    }
    sums.into_iter().max_by_key(|(_, weight)| *weight).unwrap().0
}

#[test]
fn an_agent_that_computes_is_service() {
    let Some(ran) = run(&slow(SlowKind::Compute, 5, 1)) else { return };
    let struck = named(&ran, Stage::Service, 5_000_000);
    assert_eq!(heaviest(&ran, false), AGENT, "by service");
    let service = ran.run.service_ns.as_ref().unwrap();
    let most = (0..service.len()).max_by_key(|agent| service[*agent]);
    assert_eq!(most, Some(AGENT as usize));
    let counted: Vec<_> = struck.iter().filter_map(|exemplar| exemplar.counts).collect();
    assert!(!counted.is_empty(), "late ones and drawn ones are counted");
}

#[test]
fn an_agent_that_faults_is_service_with_faults() {
    let Some(ran) = run(&slow(SlowKind::Faults, 5, 1)) else { return };
    let struck = named(&ran, Stage::Service, 5_000_000);
    let counted: Vec<_> = struck.iter().filter_map(|exemplar| exemplar.counts).collect();
    assert!(!counted.is_empty() && counted.iter().all(|counts| counts.minor_faults > Some(100)));
    let others = ran.exemplars().filter(|exemplar| exemplar.responder != AGENT);
    let faults = others.filter_map(|exemplar| exemplar.counts?.minor_faults).max();
    assert!(faults < Some(100), "{faults:?} in others");
}

#[test]
fn an_agent_that_awaits_a_timer_is_suspended_and_others_wait_in_its_mailbox() {
    let Some(ran) = run(&slow(SlowKind::Timer, 5, 1)) else { return };
    named(&ran, Stage::Suspended, 5_000_000);
    assert_eq!(heaviest(&ran, true), AGENT, "the late ones are its");
}

#[test]
fn a_flooded_agent_is_mailbox_wait_at_its_name() {
    // 2,000 requests/s, each twentieth of them to it: 100/s of 9 ms are 0.9 of its time.
    let Some(ran) = run(&slow(SlowKind::Flood, 9, 20)) else { return };
    let waited = |exemplar: &&Exemplar| {
        largest(&stages(&exemplar.stamps, 1_000).stages) == Stage::Mailbox
            && system_ns(&exemplar.stamps) > 9_000_000
    };
    let waiting: Vec<_> = ran.exemplars().filter(waited).collect();
    assert!(!waiting.is_empty(), "some waited longer than they were served");
    assert!(waiting.iter().all(|exemplar| exemplar.responder == AGENT));
    assert_eq!(heaviest(&ran, true), AGENT);
}

#[test]
fn what_strikes_seldom_strikes_as_often_as_planted() {
    let Some(ran) = run(&slow(SlowKind::Alloc, 8, 5)) else { return };
    named(&ran, Stage::Service, 8_000_000);
    let slowed = &ran.run.end.as_ref().unwrap().slowed[0];
    let all = ran.total().count / 200;
    assert!(slowed.times <= all / 3, "{} of about {all} requests", slowed.times);
}
