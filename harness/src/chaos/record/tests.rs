//! Each thing that must prevent a PASS does.

use super::super::scenario::{Act, Damage, Fault};
use super::*;

const SECOND: u64 = 1_000_000_000;

fn recovery(took: Took) -> Recovery {
    Recovery {
        onset_ns: Some(0),
        from_injection: took,
        from_revert: took,
        slots: 50,
        available: 10,
        during_p99_ns: Some(200_000_000),
        after_p99_ns: Some(3_000_000),
        outside: None,
        due: 1_000,
        answered: 900,
        not_asked: 0,
    }
}

pub(in super::super) fn trial(took: Took) -> Trial {
    Trial {
        open: None,
        levels: None,
        span: Span { injected_ns: 0, reverted_ns: SECOND, until_ns: 10 * SECOND },
        bites: vec![Bite {
            source: "nr_throttled".into(),
            unit: "periods".into(),
            before: Some(1),
            after: Some(9),
            bit: true,
        }],
        reverted: Ok(()),
        recovery: Some(recovery(took)),
        checks: vec![Check::seen("durable", true, "all there")],
    }
}

pub(in super::super) fn record(trials: Vec<Trial>) -> FaultRecord {
    let fault = Fault {
        name: "quota".into(),
        what: "half".into(),
        act: Act::CpuQuota(50),
        hold_ns: None,
        p99_max_ns: Some(300_000_000),
        answered_min: Some(0.8),
    };
    FaultRecord {
        how: fault.act.how(),
        fault,
        ability: Ability::Available,
        trials,
        ended: None,
        tail: None,
    }
}

fn verdict(change: impl Fn(&mut FaultRecord)) -> Verdict {
    let mut record = record(vec![trial(Took::Ns(2 * SECOND)); 5]);
    change(&mut record);
    record.judged().verdict
}

#[test]
fn five_that_recover_pass() {
    assert_eq!(verdict(|_| ()), Verdict::Pass);
}

#[test]
fn one_of_five_is_enough_to_fail() {
    let took = |ns| move |r: &mut FaultRecord| r.trials[3].recovery = Some(recovery(Took::Ns(ns)));
    assert_eq!(verdict(took(29 * SECOND)), Verdict::Pass);
    assert_eq!(verdict(took(31 * SECOND)), Verdict::Partial);
    assert_eq!(verdict(took(61 * SECOND)), Verdict::Fail);
    let not =
        |ns| move |r: &mut FaultRecord| r.trials[3].recovery = Some(recovery(Took::MoreThan(ns)));
    assert_eq!(
        (verdict(not(65 * SECOND)), verdict(not(9 * SECOND))),
        (Verdict::Fail, Verdict::Inconclusive)
    );
}

#[test]
fn what_did_not_bite_or_was_not_taken_back_is_no_pass() {
    assert_eq!(verdict(|r| r.trials[0].bites[0].bit = false), Verdict::Inconclusive);
    assert_eq!(verdict(|r| r.trials[0].bites.clear()), Verdict::Inconclusive);
    assert_eq!(verdict(|r| r.trials[4].reverted = Err("reads 20000".into())), Verdict::Fail);
    assert_eq!(verdict(|r| r.trials.truncate(4)), Verdict::Inconclusive);
    assert_eq!(
        verdict(|r| r.ended = Some("the sixth could not be done".into())),
        Verdict::Inconclusive
    );
    assert_eq!(verdict(|r| r.trials.clear()), Verdict::Inconclusive);
    assert_eq!(verdict(|r| r.trials[1].recovery = None), Verdict::Inconclusive);
    let copy = |r: &mut FaultRecord| {
        r.fault.act = Act::Corrupt(Damage::BitFlip);
        r.trials.iter_mut().for_each(|trial| trial.recovery = None);
    };
    assert_eq!(verdict(copy), Verdict::Pass, "its checks are what is judged");
    let neither = |r: &mut FaultRecord| {
        copy(r);
        r.trials[1].checks.clear();
    };
    assert_eq!(verdict(neither), Verdict::Inconclusive);
}

#[test]
fn limits_and_checks_count() {
    assert_eq!(verdict(|r| r.fault.p99_max_ns = Some(100_000_000)), Verdict::Fail);
    assert_eq!(verdict(|r| r.fault.answered_min = Some(0.999)), Verdict::Fail);
    assert_eq!(verdict(|r| r.trials[2].checks[0].holds = Some(false)), Verdict::Fail);
    assert_eq!(verdict(|r| r.trials[2].checks[0].holds = None), Verdict::Inconclusive);
    let impossible =
        Ability::Impossible { cause: "no controller".into(), remedy: "mount it".into() };
    assert_eq!(verdict(|r| r.ability = impossible.clone()), Verdict::Inconclusive);
}

#[test]
fn a_scenario_and_a_series_are_worth_their_worst() {
    let scenario = |faults: Vec<FaultRecord>| ScenarioRecord {
        name: "cpu".into(),
        about: String::new(),
        subjects: vec![SubjectRecord {
            run: None,
            quiet: (0, 0),
            processes: 1,
            baseline: None,
            levels: None,
            checks: Vec::new(),
        }],
        faults: faults.into_iter().map(|fault| (0, fault)).collect(),
        residue: Vec::new(),
        guard_limits: String::new(),
    };
    let good = || record(vec![trial(Took::Ns(0)); 5]);
    let late = || record(vec![trial(Took::Ns(40 * SECOND)); 5]);
    assert_eq!(scenario(vec![good(), good()]).judged().verdict, Verdict::Pass);
    assert_eq!(scenario(vec![good(), late()]).judged().verdict, Verdict::Partial);
    let mut left = scenario(vec![good()]);
    left.residue.push(Check::seen("cgroups", false, "one is left"));
    assert_eq!(left.judged().verdict, Verdict::Fail);
    assert_eq!(scenario(Vec::new()).judged().verdict, Verdict::Inconclusive);
    left.residue.clear();
    left.subjects[0].checks.push(Check::unknown("logs", "not read"));
    assert_eq!(left.judged().verdict, Verdict::Inconclusive);
}
