//! Certificates of a real, short run: what they may say, and that no change goes unseen.

#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tailbeam_harness::certify::{
    CERTIFICATE, CertifyError, Judged, Policy, RunDirs, Schedule, Signer, Verified, judge, junit,
    schedule, statement, verify,
};
use tailbeam_harness::drive::{self, Control};
use tailbeam_harness::evidence::{Store, read_run};
use tailbeam_harness::load::Elicit;
use tailbeam_harness::plan::{Arrivals, Plan, Span};
use tailbeam_harness::verdict::{GateVerdict, Overall, parse_gates};

/// A policy that a run of seconds can meet, with the gate of the test.
fn policy(require: &str, seconds_min: u64) -> Policy {
    let text = format!(
        "name=\"short\"\nversion=1\nabout=\"\"\n[[run]]\nname=\"soak\"\nseconds_min={seconds_min}\nagents_min=100\n\
         [[gate]]\nid=\"sum\"\nrun=\"soak\"\nrequire=\"outcomes\"\n[[gate]]\nid=\"asked\"\nrun=\"soak\"\nrequire=\"{require}\"\n"
    );
    Policy::parse(&text).unwrap()
}

fn plan() -> Plan {
    Plan {
        agents: 100,
        duration_ns: 2_000_000_000,
        think: Span::ms(20, 50),
        delay: Span::ms(1, 5),
        gates: parse_gates("p99<300ms,outcomes").unwrap(),
        ..Plan::soak("elicit")
    }
}

fn record(store: &Path) -> PathBuf {
    let store = Store::open(store).unwrap();
    drive::run::<Elicit>(&plan(), &store, &Control::default(), &mut |_| {}).unwrap()
}

fn runs(dir: &Path) -> RunDirs {
    RunDirs::from([("soak".to_owned(), dir.to_owned())])
}

fn certify(judged: Judged, dir: &Path, signer: &Signer) -> Vec<u8> {
    let statement = statement(judged, &runs(dir), "2026-11-26T00:00:00Z").unwrap();
    let bytes = signer.sign(&serde_json::to_vec(&statement).unwrap()).unwrap().bytes();
    fs::write(dir.join(CERTIFICATE), &bytes).unwrap();
    bytes
}

fn checked(dir: &Path, signer: &Signer) -> Verified {
    verify(&fs::read(dir.join(CERTIFICATE)).unwrap(), &runs(dir), &signer.verifier(), None)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

#[test]
fn a_certificate_says_what_the_run_shows_and_no_change_goes_unseen() {
    let store = tempfile::tempdir().unwrap();
    let dir = record(&store.path().join("a"));
    let signer = Signer::from_seed(&[3; 32]);

    // Short of the policy's time, a PASS is none; with enough of it, it is one.
    let long = judge(&policy("fairness<50", 259_200), &runs(&dir)).unwrap();
    assert_eq!(long.verdict, Overall::Inconclusive, "{:?}", long.gates);
    assert!(long.gates[0].result.reason.contains("of the 259200 s"), "{:?}", long.gates[0]);
    let short = judge(&policy("fairness<50", 1), &runs(&dir)).unwrap();
    assert_eq!(short.verdict, Overall::Go, "{:?}", short.gates);
    // A FAIL is a FAIL however short the run was, and fail wins.
    let never = judge(&policy("fairness<1.000001", 259_200), &runs(&dir)).unwrap();
    assert_eq!(never.gates[1].result.verdict, GateVerdict::Fail, "{:?}", never.gates);
    assert_eq!(never.verdict, Overall::NoGo);
    // What was not counted, not measured or not given is no PASS.
    let uncounted = judge(&policy("p50<77ms", 1), &runs(&dir)).unwrap();
    assert!(uncounted.gates[1].result.reason.contains("--gate p50<77ms"), "{:?}", uncounted.gates);
    assert_eq!(uncounted.verdict, Overall::Inconclusive);
    let shipped = Policy::shipped("lighthouse-sla").unwrap();
    assert_eq!(judge(&shipped, &RunDirs::new()).unwrap().verdict, Overall::Inconclusive);
    let unasked = RunDirs::from([("other".to_owned(), dir.clone())]);
    assert!(matches!(judge(&shipped, &unasked), Err(CertifyError::Unasked { .. })));
    let xml = junit(&never).unwrap();
    assert!(
        xml.contains("<failure") && xml.contains("<error") && xml.contains("tests=\"2\""),
        "{xml}"
    );

    certify(short.clone(), &dir, &signer);
    let verified = checked(&dir, &signer);
    assert!(verified.holds() && verified.verdict() == Some(Overall::Go), "{:?}", verified.findings);
    // A run that was moved is the same run.
    let moved = store.path().join("elsewhere");
    fs::rename(&dir, &moved).unwrap();
    assert!(checked(&moved, &signer).holds());

    every_change_is_caught(&moved, &signer, store.path());
    forgeries_are_caught(&moved, &signer, &short, store.path());
}

/// A byte of every file, at many places; a file taken away, added, or swapped with that of another run.
fn every_change_is_caught(dir: &Path, signer: &Signer, scratch: &Path) {
    let mut names = Vec::new();
    files(dir, &mut names);
    assert!(names.len() >= 4, "{names:?}");
    for name in &names {
        let whole = fs::read(name).unwrap();
        let step = (whole.len() / 16).max(1);
        for at in (0..whole.len()).step_by(step).chain(whole.len().checked_sub(1)) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            fs::write(name, &changed).unwrap();
            let verified = checked(dir, signer);
            assert!(
                !verified.holds() && verified.verdict().is_none(),
                "{} byte {at}",
                name.display()
            );
        }
        fs::write(name, &whole).unwrap();
        if !name.ends_with(CERTIFICATE) {
            fs::remove_file(name).unwrap();
            assert!(!checked(dir, signer).holds(), "{} taken away", name.display());
            fs::write(name, &whole).unwrap();
        }
    }
    fs::write(dir.join("seg/extra"), b"x").unwrap();
    assert!(!checked(dir, signer).holds(), "a file too many");
    fs::remove_file(dir.join("seg/extra")).unwrap();
    let other = record(&scratch.join("b"));
    let (mine, theirs) = (dir.join("seg/0000.log"), other.join("seg/0000.log"));
    let whole = fs::read(&mine).unwrap();
    fs::copy(&theirs, &mine).unwrap();
    assert!(!checked(dir, signer).holds(), "a segment of another run");
    fs::write(&mine, &whole).unwrap();
    fs::copy(dir.join(CERTIFICATE), other.join(CERTIFICATE)).unwrap();
    assert!(!checked(&other, signer).holds(), "a certificate of another run");
    assert!(checked(dir, signer).holds());
}

/// Each run's own certificate is a file like any other in one of both, but where that lies.
#[test]
fn the_certificate_of_another_run_is_covered_and_a_policy_is_what_it_is_called() {
    let store = tempfile::tempdir().unwrap();
    let (first, second) = (record(&store.path().join("a")), record(&store.path().join("b")));
    let signer = Signer::from_seed(&[3; 32]);
    certify(judge(&policy("fairness<50", 1), &runs(&second)).unwrap(), &second, &signer);
    let text = |name: &str| {
        let run = |name: &str| format!("[[run]]\nname=\"{name}\"\nseconds_min=1\nagents_min=100\n");
        let gate =
            |run: &str| format!("[[gate]]\nid=\"{run}\"\nrun=\"{run}\"\nrequire=\"outcomes\"\n");
        let runs = [run("soak"), run("compare"), gate("soak"), gate("compare")].concat();
        format!("name=\"{name}\"\nversion=1\nabout=\"\"\n{runs}")
    };
    let both = Policy::parse(&text("both")).unwrap();
    let dirs =
        RunDirs::from([("soak".to_owned(), first.clone()), ("compare".to_owned(), second.clone())]);
    let signed = |policy: &Policy| {
        let statement = statement(judge(policy, &dirs).unwrap(), &dirs, "2026-11-27T00:00:00Z");
        signer.sign(&serde_json::to_vec(&statement.unwrap()).unwrap()).unwrap().bytes()
    };
    let envelope = signed(&both);
    fs::write(first.join(CERTIFICATE), &envelope).unwrap();
    let holds =
        |wanted: Option<&Policy>| verify(&envelope, &dirs, &signer.verifier(), wanted).holds();
    assert!(holds(None) && holds(Some(&both)));
    assert!(!holds(Some(&policy("fairness<50", 1))), "not the policy that is wanted");
    let theirs = second.join(CERTIFICATE);
    let whole = fs::read(&theirs).unwrap();
    fs::write(&theirs, [&whole[..], b" "].concat()).unwrap();
    assert!(!holds(None), "a byte more in the certificate of the other run");
    fs::write(&theirs, &whole).unwrap();
    assert!(holds(None));
    // Whoever writes a statement by hand may call his policy what he likes.
    let weaker = Policy { name: "lighthouse-sla".to_owned(), ..both.clone() };
    let verified = verify(&signed(&weaker), &dirs, &signer.verifier(), None);
    let found = verified.findings.iter().find(|finding| finding.check == "policy").unwrap();
    assert!(!found.holds && found.text.contains("may ask for less"), "{found:?}");
}

/// Sums can be made to fit; the schedule is drawn from the seed.
#[test]
fn requests_that_no_schedule_has_are_found() {
    let store = tempfile::tempdir().unwrap();
    let dir = record(&store.path().join("a"));
    let mut run = read_run(&dir).unwrap();
    let Ok(Schedule::Drawn(said)) = schedule(&run) else { panic!("{:?}", schedule(&run)) };
    assert!(said.contains("that 100 of 100 agents had due by seed"), "{said}");
    // A window that is left out, or there twice, with everything else as it was.
    let windows = run.windows.clone();
    let busy = windows
        .iter()
        .position(|of| of.seconds.iter().any(|second| second.counts.outcomes.attempts > 0));
    let busy = busy.unwrap();
    run.windows.remove(busy);
    assert!(schedule(&run).unwrap_err().contains("its windows have"));
    run.windows = windows.clone();
    run.windows.insert(busy, windows[busy].clone());
    assert!(schedule(&run).unwrap_err().contains("its windows have"));
    run.windows = windows;
    let asked = run.attempts.clone();
    run.attempts.as_mut().unwrap()[17] += 1;
    run.attempts.as_mut().unwrap()[18] -= 1;
    let found = schedule(&run).unwrap_err();
    assert!(found.starts_with("agent 17 asked "), "{found}");
    run.attempts = asked.clone();
    run.attempts.as_mut().unwrap()[18] -= 1;
    assert!(schedule(&run).unwrap_err().contains("its windows have"));
    // One in twenty is missing, in the windows too.
    run.attempts = asked.map(|of| of.iter().map(|n| n - n / 20).collect());
    let left: u64 = run.attempts.iter().flatten().map(|&n| u64::from(n)).sum();
    let mut all = 0;
    for second in run.windows.iter_mut().flat_map(|window| &mut window.seconds) {
        all += std::mem::take(&mut second.counts.outcomes.attempts);
    }
    run.windows[busy].seconds[0].counts.outcomes.attempts = left;
    assert!(left < all);
    let found = schedule(&run).unwrap_err();
    assert!(found.contains("agents had due"), "{found}");
    run.attempts = None;
    assert!(schedule(&run).is_err());
    run.end.as_mut().unwrap().reason = "interrupted".to_owned();
    assert!(
        matches!(schedule(&run), Ok(Schedule::NotDrawn(why)) if why.ends_with("it was cut or stopped"))
    );
}

#[test]
fn a_run_of_another_workload_or_a_closed_loop_is_not_what_a_policy_needs() {
    let store = tempfile::tempdir().unwrap();
    let dir = record(&store.path().join("a"));
    let mut needs = policy("fairness<50", 1);
    assert_eq!(judge(&needs, &runs(&dir)).unwrap().verdict, Overall::Go);
    // A rate alone is not the load.
    let wants = |needs: &mut Policy, key: &str, value: u64| {
        needs.runs[0].plan = BTreeMap::from([(key.to_owned(), value.into())]);
    };
    wants(&mut needs, "shape.fan_out", 1);
    assert_eq!(judge(&needs, &runs(&dir)).unwrap().verdict, Overall::Go);
    for (key, value, says) in [
        ("shape.fan_out", 5, "its plan has 1 for shape.fan_out, the policy needs 5"),
        ("shape.fan_in", 5, "its plan has nothing for shape.fan_in"),
    ] {
        wants(&mut needs, key, value);
        let judged = judge(&needs, &runs(&dir)).unwrap();
        assert_eq!(judged.verdict, Overall::Inconclusive);
        assert!(judged.runs[0].lacks[0].contains(says), "{:?}", judged.runs[0]);
    }
    needs.runs[0].plan.clear();
    needs.runs[0].workload = Some("elicitation".to_owned());
    let judged = judge(&needs, &runs(&dir)).unwrap();
    assert_eq!(judged.verdict, Overall::Inconclusive);
    assert!(judged.runs[0].lacks[0].contains("of the workload elicit,"), "{:?}", judged.runs[0]);
    let mut plan = plan();
    plan.shape.arrivals = Arrivals::Closed;
    let store = Store::open(&store.path().join("closed")).unwrap();
    let dir = drive::run::<Elicit>(&plan, &store, &Control::default(), &mut |_| {}).unwrap();
    let judged = judge(&policy("p99<300ms", 1), &runs(&dir)).unwrap();
    assert_eq!(judged.verdict, Overall::Inconclusive, "{:?}", judged.gates);
    assert!(judged.runs[0].lacks[0].contains("its loop was closed"), "{:?}", judged.runs[0]);
}

/// Signed anew, by the wrong key or by the right one, with a figure that the frames do not give.
fn forgeries_are_caught(dir: &Path, signer: &Signer, judged: &Judged, scratch: &Path) {
    let forged = scratch.join("forged");
    copy(dir, &forged);
    certify(judged.clone(), &forged, &Signer::from_seed(&[4; 32]));
    let by_another = checked(&forged, signer);
    assert!(
        by_another.findings[0].text.contains("not by the key that you trust"),
        "{by_another:?}"
    );
    let mut edited = judged.clone();
    edited.gates[0].result.measured = "1 of 1".to_owned();
    certify(edited, &forged, signer);
    let verified = checked(&forged, signer);
    let figures = verified.findings.iter().find(|f| f.check == "figures").unwrap();
    assert!(!figures.holds && figures.text.contains("/gates/0/result/measured"), "{figures:?}");
    let mut kinder = judged.clone();
    kinder.verdict = Overall::NoGo;
    certify(kinder, &forged, signer);
    assert!(!checked(&forged, signer).holds(), "a verdict that does not follow");
    // What is written beside what is checked.
    let statement = statement(judged.clone(), &runs(&forged), "2026-11-26T00:00:00Z").unwrap();
    let honest = serde_json::to_value(&statement).unwrap();
    for (at, says) in [
        ("/predicate", "it says /predicate/more"),
        ("/predicate/gates/0/result", "it says /predicate/gates/0/result/more"),
        ("/predicate/policy/gate/0", "unknown field"),
    ] {
        let mut told = honest.clone();
        let place = told.pointer_mut(at).unwrap_or_else(|| panic!("{at}: {honest}"));
        place["more"] = "GO".into();
        let verified = resigned(&forged, signer, &told);
        let found = verified.findings.iter().find(|of| of.check == "statement").unwrap();
        assert!(!verified.holds() && found.text.contains(says), "{found:?}");
    }
    let mut wide = honest.clone();
    wide["predicate"]["scope"] = "for every host".into();
    assert!(!resigned(&forged, signer, &wide).holds(), "a scope of one's own");
    let mut larger = honest.clone();
    larger["subject"][0]["annotations"]["bytes"] = 1.into();
    assert!(!resigned(&forged, signer, &larger).holds(), "a size that the file has not");
    assert!(resigned(&forged, signer, &honest).holds());
}

fn resigned(dir: &Path, signer: &Signer, statement: &serde_json::Value) -> Verified {
    let bytes = signer.sign(&serde_json::to_vec(statement).unwrap()).unwrap().bytes();
    verify(&bytes, &runs(dir), &signer.verifier(), None)
}
