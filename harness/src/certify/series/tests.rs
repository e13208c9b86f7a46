//! A series in which everything went well passes; each thing that must prevent it does.

use super::judge::judge;
use super::*;
use crate::certify::Policy;
use crate::chaos::board::Defence;
use crate::chaos::checks;
use crate::chaos::record::{
    Ability, Bite, ChaosPlan, ChaosRecord, Check, FaultRecord, ScenarioRecord, SubjectRecord,
    Trial, VERSION,
};
use crate::chaos::recovery::{Recovery, Span, Took};
use crate::chaos::series::Load;
use crate::verdict::{GateResult, GateVerdict};

const SECOND: u64 = 1_000_000_000;

fn need() -> SeriesNeed {
    let policy = Policy::shipped("lighthouse-sla").unwrap();
    policy.series[0].clone()
}

fn gates() -> Vec<SeriesGate> {
    let spelled = ["recovery<30s", "integrity", "residue", "scenarios"];
    spelled.map(|text| SeriesGate::parse(text).unwrap()).into()
}

fn recovery(took: Took) -> Recovery {
    Recovery {
        onset_ns: Some(0),
        from_injection: took,
        from_revert: took,
        slots: 50,
        available: 49,
        during_p99_ns: Some(20_000_000),
        after_p99_ns: Some(3_000_000),
        outside: None,
        due: 10_000,
        answered: 9_999,
        not_asked: 0,
    }
}

fn trial(of_the_service: bool) -> Trial {
    Trial {
        open: None,
        levels: None,
        span: Span { injected_ns: 0, reverted_ns: 5 * SECOND, until_ns: 20 * SECOND },
        bites: vec![Bite {
            source: "level".into(),
            unit: "1".into(),
            before: Some(0),
            after: Some(1),
            bit: true,
        }],
        reverted: Ok(()),
        recovery: of_the_service.then(|| recovery(Took::Ns(2 * SECOND))),
        checks: vec![Check::seen("the subject lives", true, "it lives")],
    }
}

fn subject() -> SubjectRecord {
    let checks = vec![
        Check::seen(checks::NO_DESCRIPTOR, true, "9 before, 9 after"),
        Check::seen("every request has one end", true, "all"),
        Check::seen(checks::LOST, true, "0 of 100"),
        Check::seen(checks::ACKNOWLEDGED, true, "100 and 100"),
    ];
    SubjectRecord { run: None, quiet: (0, 100), processes: 1, baseline: None, levels: None, checks }
}

/// Every scenario that the policy asks for, each fault five times.
fn series() -> ChaosRecord {
    let named = need().scenarios;
    let of = scenario::all().into_iter().filter(|of| named.contains(&of.name));
    let record = |fault: scenario::Fault| FaultRecord {
        how: fault.act.how(),
        trials: vec![trial(fault.act.is_of_the_service()); 5],
        fault,
        ability: Ability::Available,
        ended: None,
        tail: None,
    };
    let scenarios = of.map(|of| ScenarioRecord {
        name: of.name,
        about: of.about,
        subjects: vec![subject()],
        faults: of.faults.into_iter().map(|fault| (0, record(fault))).collect(),
        residue: vec![Check::seen("nothing is left on the host", true, "as before")],
        guard_limits: String::new(),
    });
    ChaosRecord {
        version: VERSION,
        id: "20261126T000000Z-000".into(),
        started: "2026-11-26T00:00:00Z".into(),
        host: "Linux".into(),
        plan: ChaosPlan {
            agents: 10_000,
            rate_per_s: 3_030.0,
            flags: Vec::new(),
            warm_ns: SECOND,
            baseline_ns: 15 * SECOND,
            hold_ns: 5 * SECOND,
            injections: 5,
            patience_ns: 65 * SECOND,
            timeout_ns: 10 * SECOND,
            settle_ns: SECOND,
            slot_ns: SECOND / 10,
            seed: 1,
            broken: None,
        },
        asked: Vec::new(),
        scenarios: scenarios.collect(),
        stopped: false,
    }
}

const LOAD: (Load, u64) = (Load { agents: 10_000, per_s: 3_030.0 }, 900 * SECOND);

fn results(change: impl Fn(&mut ChaosRecord)) -> Vec<GateResult> {
    let mut record = series();
    change(&mut record);
    judge(&need(), &gates(), &record, LOAD).1
}

/// Of recovery, integrity, residue and scenarios.
fn verdicts(change: impl Fn(&mut ChaosRecord)) -> Vec<GateVerdict> {
    results(change).into_iter().map(|result| result.verdict).collect()
}

fn one(record: &mut ChaosRecord) -> &mut Trial {
    let of = record.scenarios.iter_mut().find(|of| of.name == "cpu_throttling").unwrap();
    &mut of.faults[1].1.trials[3]
}

use GateVerdict::{Fail, Inconclusive, Pass};

#[test]
fn a_series_without_a_fault_of_its_own_passes_with_its_figures() {
    let results = results(|record| {
        one(record).recovery = Some(recovery(Took::Ns(6_500_000_000)));
    });
    let verdicts: Vec<GateVerdict> = results.iter().map(|result| result.verdict).collect();
    assert_eq!(verdicts, [Pass; 4], "{results:?}");
    assert_eq!(results[0].measured, "at most 6.5 s (cpu_throttling/hog)");
    assert_eq!(results[3].measured, "8 of 8 PASS");
    let faults = series().scenarios.iter().map(|of| of.faults.len()).sum::<usize>() as u64;
    let copies = 4;
    assert_eq!((results[0].n, results[3].n), (5 * (faults - copies), 5 * faults));
    assert!(results.iter().all(|of| of.reason.contains("at most 45 %")), "{results:?}");
    let (described, _) = judge(&need(), &gates(), &series(), LOAD);
    assert!(described.lacks.is_empty(), "{described:?}");
    assert_eq!(described.shortest_hold_ns, Some(5 * SECOND));
    assert!(described.caveats[0].contains("what a kernel or a device would do"), "{described:?}");
}

#[test]
fn what_comes_back_late_or_not_is_a_fail() {
    let took = |took: Took| verdicts(|record| one(record).recovery = Some(recovery(took)));
    assert_eq!(took(Took::Ns(29_900_000_000)), [Pass; 4]);
    assert_eq!(took(Took::Ns(30 * SECOND)), [Fail, Pass, Pass, Fail], "PARTIAL is a FAIL");
    assert_eq!(took(Took::Ns(61 * SECOND)), [Fail, Pass, Pass, Fail]);
    assert_eq!(took(Took::MoreThan(65 * SECOND)), [Fail, Pass, Pass, Fail]);
    assert_eq!(took(Took::MoreThan(9 * SECOND)), [Inconclusive, Pass, Pass, Inconclusive]);
    let none = verdicts(|record| one(record).recovery = None);
    assert_eq!(none, [Inconclusive, Pass, Pass, Inconclusive]);
}

#[test]
fn a_limit_of_one_scenario_judges_that_one() {
    let of = |gate: &str, took: Took| {
        let mut record = series();
        one(&mut record).recovery = Some(recovery(took));
        let gate = SeriesGate::parse(gate).unwrap();
        judge(&need(), &[gate], &record, LOAD).1.remove(0)
    };
    let slow = Took::Ns(16 * SECOND);
    let verdict = |gate| of(gate, slow).verdict;
    assert_eq!(verdict("recovery[network_partition]<15s"), Pass);
    assert_eq!(verdict("recovery[cpu_throttling]<15s"), Fail);
    assert_eq!(verdict("recovery[cpu_throttling/hog]<15s"), Fail);
    assert_eq!(verdict("recovery[cpu_throttling/quota]<15s"), Pass);
    assert_eq!(verdict("recovery[disk_io_stress]<15s"), Pass);
    // Of what is judged on copies nothing comes back.
    assert_eq!(verdict("recovery[event_store_corruption/bit_flip]<15s"), Inconclusive);
    let result = of("recovery[network_partition]<15s", slow);
    assert_eq!(
        (result.gate.as_str(), result.measured.starts_with("at most 2.0 s (network_partition/")),
        ("recovery[network_partition]", true)
    );
    assert!(result.requirement.contains("from network_partition < 15 s"), "{}", result.requirement);
    assert!(result.reason.contains("of each of 8 faults"), "{}", result.reason);
}

#[test]
fn what_is_missing_rare_or_impossible_is_no_pass_of_any_gate() {
    let nothing = [Inconclusive; 4];
    assert_eq!(verdicts(|record| record.scenarios.truncate(7)), nothing);
    assert_eq!(verdicts(|record| record.scenarios.clear()), nothing);
    assert_eq!(verdicts(|record| drop(record.scenarios[1].faults.remove(0))), nothing);
    let fewer = |record: &mut ChaosRecord| drop(record.scenarios[1].faults[0].1.trials.pop());
    assert_eq!(verdicts(fewer), nothing);
    let reason = &results(fewer)[0].reason;
    assert!(reason.contains("process_crash/kill: 4 of 5 injections"), "{reason}");
    let impossible = |record: &mut ChaosRecord| {
        let of = &mut record.scenarios[4].faults[0].1;
        of.trials.clear();
        let (cause, remedy) = ("no controller".to_owned(), "mount it".to_owned());
        of.ability = Ability::Impossible { cause, remedy };
    };
    assert_eq!(verdicts(impossible), nothing);
    assert!(results(impossible)[1].reason.contains("no controller"));
    let ended = |record: &mut ChaosRecord| {
        record.scenarios[0].faults[0].1.ended = Some("not back after injection 5".into());
    };
    assert_eq!(verdicts(ended), nothing);
    // A fault of a file that calls itself as one of the program.
    let other = |record: &mut ChaosRecord| record.scenarios[0].faults[0].1.fault.hold_ns = Some(1);
    assert_eq!(verdicts(other), nothing);
    assert!(results(other)[0].reason.contains("another fault than this version's"));
}

#[test]
fn what_did_not_bite_is_neither_a_recovery_nor_a_pass() {
    let dull = verdicts(|record| one(record).bites[0].bit = false);
    assert_eq!(dull, [Inconclusive, Pass, Pass, Inconclusive]);
    let none = verdicts(|record| one(record).bites.clear());
    assert_eq!(none, [Inconclusive, Pass, Pass, Inconclusive]);
}

#[test]
fn checks_belong_to_integrity_or_to_residue() {
    let lost = verdicts(|record| one(record).checks[0].holds = Some(false));
    assert_eq!(lost, [Pass, Fail, Pass, Fail]);
    let subject = |n: usize, holds: Option<bool>| {
        verdicts(move |record| record.scenarios[2].subjects[0].checks[n].holds = holds)
    };
    assert_eq!(subject(0, Some(false)), [Pass, Pass, Fail, Fail], "a descriptor is left");
    assert_eq!(subject(0, None), [Pass, Pass, Inconclusive, Inconclusive]);
    assert_eq!(subject(1, Some(false)), [Pass, Fail, Pass, Fail], "a request has no end");
    assert_eq!(subject(1, None), [Pass, Inconclusive, Pass, Inconclusive]);
    let left = verdicts(|record| record.scenarios[2].residue[0].holds = Some(false));
    assert_eq!(left, [Pass, Pass, Fail, Fail]);
    let kept = verdicts(|record| one(record).reverted = Err("it reads 20000".into()));
    assert_eq!(kept, [Inconclusive, Pass, Fail, Fail]);
}

#[test]
fn what_nobody_has_looked_at_is_no_pass_of_any_gate() {
    let nothing = [Inconclusive; 4];
    assert_eq!(verdicts(|record| record.scenarios[2].residue.clear()), nothing);
    assert_eq!(verdicts(|record| one(record).checks.clear()), nothing);
    let subject = |record: &mut ChaosRecord| record.scenarios[2].subjects[0].checks.remove(0);
    assert_eq!(verdicts(|record| drop(subject(record))), nothing);
    let reason = &results(|record| drop(subject(record)))[1].reason;
    assert!(reason.contains("nobody looked at what is left in subject 0"), "{reason}");
}

#[test]
fn a_fault_that_fails_beside_those_asked_for_fails_too() {
    let beside = verdicts(|record| {
        let mut crowd = record.scenarios[0].clone();
        crowd.name = "slow_consumer".into();
        crowd.faults.truncate(1);
        crowd.faults[0].1.trials[0].recovery = Some(recovery(Took::Ns(40 * SECOND)));
        record.scenarios.push(crowd);
    });
    assert_eq!(beside, [Fail, Pass, Pass, Fail]);
}

#[test]
fn a_series_that_is_not_what_the_policy_needs_lacks_it() {
    let lacks = |change: fn(&mut ChaosRecord), load: (Load, u64)| {
        let mut record = series();
        change(&mut record);
        judge(&need(), &gates(), &record, load).0.lacks
    };
    let one = |lacks: Vec<String>, said: &str| {
        assert!(lacks.len() == 1 && lacks[0].contains(said), "{said}: {lacks:?}");
    };
    let (load, ns) = LOAD;
    one(lacks(|_| (), (load, 599 * SECOND)), "of the 600 s");
    one(lacks(|_| (), (Load { agents: 9_999, ..load }, ns)), "of the 10000");
    one(lacks(|_| (), (Load { per_s: 2_999.0, ..load }, ns)), "of the 3000/s");
    one(lacks(|record| record.stopped = true, LOAD), "stopped");
    one(lacks(|record| record.plan.broken = Some(Defence::Expiry), LOAD), "switched off");
    let short = |record: &mut ChaosRecord| {
        // A process that is killed is so at once; a limit is not.
        record.scenarios[1].faults[0].1.trials[0].span.reverted_ns = 0;
        self::one(record).span.reverted_ns = 4_900_000_000;
    };
    one(lacks(short, LOAD), "4.9 s of the 5 s");
    assert!(lacks(|_| (), LOAD).is_empty());
}

#[test]
fn a_policy_names_scenarios_and_gates_that_are_some() {
    for (text, ns) in [("recovery<30s", 30 * SECOND), (" recovery < 500ms ", SECOND / 2)] {
        assert_eq!(SeriesGate::parse(text), Ok(SeriesGate::Recovery { of: None, limit_ns: ns }));
    }
    for of in ["network_partition", "cpu_throttling/quota"] {
        let gate = SeriesGate::parse(&format!("recovery[{of}]<15s")).unwrap();
        assert_eq!(gate, SeriesGate::Recovery { of: Some(of.to_owned()), limit_ns: 15 * SECOND });
        assert_eq!(gate.name(), format!("recovery[{of}]"));
    }
    for text in
        ["recovery[earthquake]<15s", "recovery[]<15s", "recovery[clock_skew<15s", "recoverys<15s"]
    {
        assert!(SeriesGate::parse(text).is_err(), "{text}");
    }
    for text in ["recovery", "recovery<30", "recovery<=30s", "integrity<1s", "p99<300ms", ""] {
        assert!(SeriesGate::parse(text).is_err(), "{text}");
    }
    let policy = |scenarios: &str, least: u32, gate: &str| {
        Policy::parse(&format!(
            "name=\"x\"\nversion=1\nabout=\"\"\n[[series]]\nname=\"chaos\"\nscenarios={scenarios}\ninjections_min={least}\n\
             seconds_min=1\nagents_min=1\n[[gate]]\nid=\"a\"\nrun=\"chaos\"\nrequire=\"{gate}\"\n"
        ))
    };
    assert!(policy("[\"cpu_throttling/hog\", \"clock_skew\"]", 1, "integrity").is_ok());
    for (scenarios, least, gate, said) in [
        ("[]", 1, "integrity", "no scenario or no injection"),
        ("[\"clock_skew\"]", 0, "integrity", "no scenario or no injection"),
        ("[\"earthquake\"]", 1, "integrity", "no scenario or fault"),
        ("[\"clock_skew/none\"]", 1, "integrity", "no scenario or fault"),
        ("[\"clock_skew\"]", 1, "p99<300ms", "no gate of a series"),
        ("[\"clock_skew\"]", 1, "recovery[cpu_throttling]<1s", "is not among the scenarios"),
        ("[\"network_partition/tcp\"]", 1, "recovery[network_partition]<1s", "is not among"),
        (
            "[\"event_store_corruption\"]",
            1,
            "recovery[event_store_corruption/bit_flip]<1s",
            "nothing comes back",
        ),
    ] {
        let error = policy(scenarios, least, gate).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}
