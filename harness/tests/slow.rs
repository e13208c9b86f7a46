//! Planted slowness in short real runs: the stage that is planted is the one that takes the time, and the
//! agent that has it is the one that is named.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod common;

use common::{Ran, largest, run, slow};
use tailbeam_harness::plan::SlowKind;
use tailbeam_harness::report::latency::{self, Question};
use tailbeam_harness::verdict::{Gate, GateVerdict};
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

/// 200 agents send half of their requests, 1,000/s, to one that answers 20/s: its mailbox takes 256 from each core.
#[test]
fn a_full_mailbox_is_counted_and_named_and_gives_the_request_back() {
    let mut plan = slow(SlowKind::Flood, 50, 2);
    plan.timeout_ns = 2_000_000_000;
    let Some(ran) = run(&plan) else { return };
    let seconds = || ran.run.windows.iter().flat_map(|window| &window.seconds);
    let full: u64 = seconds().map(|second| second.counts.mailbox_full).sum();
    let errors: u64 = seconds().map(|second| second.counts.outcomes.error).sum();
    assert!(full > 100, "{full} found it full");
    assert!(errors >= full, "a request that is given back is an error: {full} of {errors}");
    // Whose it was: each core's list holds nobody else, and every one of them.
    let lists = ran.windows.iter().flat_map(|window| &window.more.top_full);
    let named: Vec<(u32, u64)> = lists.map(|top| (top.agent, top.weight)).collect();
    assert!(named.iter().all(|(agent, _)| *agent == AGENT), "{named:?}");
    assert_eq!(named.iter().map(|(_, times)| times).sum::<u64>(), full);
    // What was given back is nobody's latency and is not lost: every attempt has its outcome.
    let report = tailbeam_harness::report::build(&ran.dir, Some(&[Gate::Outcomes {}])).unwrap();
    assert_eq!(report.gates[0].verdict, GateVerdict::Pass, "{:?}", report.gates);
    assert!(report.caveats.iter().any(|caveat| caveat.contains("mailbox of the agent")));
    let latency = latency::build(&ran.dir, &Question::default()).unwrap();
    let of = &latency.agents.full;
    assert_eq!((of.len(), of[0].agent, of[0].at_least), (1, AGENT, full), "{of:?}");
    let said = latency.caveats.iter().find(|caveat| caveat.contains("a mailbox was full"));
    assert!(said.is_some_and(|text| text.contains("agent 17 on core")), "{:?}", latency.caveats);
    // Those that found room waited in it, behind its owner.
    let waited = ran.exemplars().filter(|of| of.stamps.answered_ns != 0 && of.responder == AGENT);
    let staged: Vec<_> = waited.map(|of| stages(&of.stamps, 1_000).stages).collect();
    let mailbox = staged.iter().filter(|stages| largest(stages) == Stage::Mailbox).count();
    assert!(mailbox * 2 > staged.len(), "{mailbox} of {} waited in the mailbox", staged.len());
    // And the other agents' requests did not.
    let others = ran.exemplars().filter(|of| of.responder != AGENT);
    let mut others: Vec<u64> =
        others.map(|of| stages(&of.stamps, 1_000).stages[Stage::Mailbox.index()]).collect();
    others.sort_unstable();
    assert!(
        others[others.len() / 2] < 1_000_000,
        "{} ns in the mailboxes of others",
        others[others.len() / 2]
    );
}
