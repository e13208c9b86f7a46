//! What is planted into one request is found in its stage, to the ns, and in no other.

use std::collections::HashMap;

use tailbeam_probes::analyse::latency::explain::{Behind, Index, causes};
use tailbeam_probes::analyse::latency::{bands, explain, outliers};
use tailbeam_probes::record::latency::{STAGES, Stage, StageNs};

use crate::many::sums_agree;
use crate::world::{BOUND, HOG, MS, Plan, US, World};

/// One request at a time, on clocks that agree, without ticks and preemptions.
fn quiet(plants: HashMap<u64, (Stage, u64)>) -> Plan {
    Plan {
        requests: 200,
        every_ns: 10 * MS,
        exact: true,
        suspended: 300,
        planned: 300,
        preempted: 0,
        tick_ns: u64::MAX / 2,
        window_ns: 100 * MS,
        sample_ns: 100 * MS,
        skew_ns: 0,
        plants,
        ..Plan::default()
    }
}

fn all(plan: &Plan) -> HashMap<u64, StageNs> {
    let every = World::book(plan).every;
    assert_eq!(every.len(), 200);
    every
}

/// Stages that a request goes through at all; what is planted into another one is not there.
fn has(stages: &StageNs, stage: Stage) -> bool {
    match stage {
        Stage::Mailbox | Stage::ReplyMailbox | Stage::Schedule => true,
        _ => stages[stage.index()] > 0,
    }
}

#[test]
fn each_stage_grows_by_exactly_what_was_planted_and_no_other_moves() {
    let base = all(&quiet(HashMap::new()));
    for stage in Stage::ALL.into_iter().filter(|stage| *stage != Stage::Unanswered) {
        // A timer is late where there is one: it starts at 0, so any planned request will do.
        let suits = |stages: &StageNs| match stage {
            Stage::Timer => stages[Stage::Timer.index()] > 0,
            _ => has(stages, stage),
        };
        let mut fitting: Vec<u64> =
            base.iter().filter(|(_, stages)| suits(stages)).map(|(id, _)| *id).collect();
        fitting.sort_unstable();
        assert!(fitting.len() >= 20, "{stage:?}: {} requests have it", fitting.len());
        for (id, ns) in fitting.iter().step_by(7).zip([1, 777, 45 * US, 3 * MS + 1, 5 * MS]) {
            let planted = all(&quiet(HashMap::from([(*id, (stage, ns))])));
            for (other, stages) in &planted {
                let mut expected = base[other];
                if other == id {
                    expected[stage.index()] += ns;
                }
                assert_eq!(*stages, expected, "{stage:?} +{ns} in {id}, seen in {other}");
            }
        }
    }
}

/// A planted turn of 5 ms on a busy core: the request that it hits is explained by it, and so are those
/// that queue behind it, whoever they are for.
#[test]
fn what_a_long_turn_does_to_others_is_waiting_behind_its_owner() {
    let plan = Plan { every_ns: 10 * US, keep: 512, ..Plan::default() };
    let clean = World::run(&plan);
    let plants = HashMap::from([(9_000, (Stage::RunQueue, 5 * MS))]);
    let windows = World::run(&Plan { plants, ..plan });
    let slowest = |windows: &[_]| outliers(windows)[0].system_ns;
    assert!(slowest(&clean) < 2 * MS, "{}", slowest(&clean));
    let index = Index::new(&windows);
    let slow: Vec<_> =
        outliers(&windows).into_iter().filter(|outlier| outlier.system_ns > 2 * MS).collect();
    assert!(slow.len() > 50, "{}", slow.len());
    let hog = windows.iter().flat_map(|w| &w.long_turns).find(|turn| turn.agent == HOG).unwrap();
    let (mut behind_all, mut system_all) = (0, 0);
    for outlier in &slow {
        let explained = explain(&outlier.exemplar, &index, BOUND);
        let behind: u64 = explained
            .waits
            .iter()
            .flat_map(|wait| &wait.causes)
            .filter(|cause| cause.behind == Behind::Turn { agent: HOG })
            .map(|cause| cause.ns)
            .sum();
        // What it left is a queue of short turns, which are not recorded one by one.
        let met = outlier.exemplar.stamps.intended_ns < hog.from_ns + hog.len_ns;
        assert!(!met || behind > 0, "{explained:?}");
        behind_all += behind;
        system_all += outlier.system_ns;
        for wait in &explained.waits {
            let known: u64 = wait.causes.iter().map(|cause| cause.ns).sum();
            assert_eq!(known + wait.rest_ns, wait.to_ns - wait.from_ns);
        }
    }
    assert!(behind_all * 2 > system_all, "{behind_all} of {system_all}");
    let found = bands(&windows);
    let top = causes(&windows, &found, &index, BOUND)[4].clone().unwrap();
    let first = top.waits.iter().find(|blame| blame.behind.is_some()).unwrap();
    assert_eq!(first.behind, Some(Behind::Turn { agent: HOG }), "{top:?}");
    assert!(first.ns.mean > 1e6 && top.draws.late > 0, "{top:?}");
}

#[test]
fn a_request_without_an_answer_is_unanswered_and_still_adds_up() {
    let plan = Plan { silent: 20, every_ns: 50 * US, ..Plan::default() };
    let windows = World::run(&plan);
    let found = bands(&windows);
    assert_eq!(found.total.count, plan.requests);
    let ns = found.total.stages[Stage::Unanswered.index()];
    assert!((300..520).contains(&(ns / (2 * MS))), "2 % of 20,000, 2 ms each: {ns}");
    sums_agree(&found);
    assert_eq!(STAGES, found.total.stages.len());
}
