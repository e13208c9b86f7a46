//! A series under a policy: what a certificate says of it, and that no change of its files or figures goes unseen.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tailbeam_harness::certify::{
    CERTIFICATE, Judged, Policy, RunDirs, Signer, Verified, judge, statement, verify,
};
use tailbeam_harness::verdict::{GateVerdict, Overall};

use super::{run, series, text};

/// What the series of the test has, once each.
const HAS: &str = "\"disk_io_stress/slow_sync\", \"event_store_corruption/bit_flip\"";

fn policy(scenarios: &str, injections: u32) -> String {
    let mut text = format!(
        "name = \"faults\"\nversion = 1\nabout = \"a slow disk and a flipped bit\"\n[[series]]\nname = \"chaos\"\n\
         scenarios = [{scenarios}]\ninjections_min = {injections}\nseconds_min = 1\nagents_min = 200\noffered_per_s_min = 1000\n"
    );
    for gate in ["scenarios", "recovery<30s", "integrity", "residue"] {
        let id = gate.split('<').next().unwrap_or(gate);
        text += &format!("[[gate]]\nid = \"{id}\"\nrun = \"chaos\"\nrequire = \"{gate}\"\n");
    }
    text
}

fn judged(dir: &Path, scenarios: &str, injections: u32) -> Judged {
    judge(&Policy::parse(&policy(scenarios, injections)).unwrap(), &dirs(dir)).unwrap()
}

fn dirs(dir: &Path) -> RunDirs {
    RunDirs::from([("chaos".to_owned(), dir.to_owned())])
}

/// `series` of the store, as the test before has left it; whether its one slow disk was back in time.
pub(super) fn a_series_is_certified(store: &Path, back: bool) {
    let dir = series(store);
    let few = judged(&dir, HAS, 5);
    let open = |of: &Judged| of.gates.iter().all(|g| g.result.verdict == GateVerdict::Inconclusive);
    assert!(few.verdict == Overall::Inconclusive && open(&few), "{:?}", few.gates);
    let reason = &few.gates[2].result.reason;
    // On a host that is busy otherwise the service may be back too late, and then that is the reason.
    assert!(!back || reason.contains("1 of 5 injections that the policy needs"), "{reason}");
    let missing = judged(&dir, &format!("{HAS}, \"clock_skew\""), 1);
    assert!(missing.verdict == Overall::Inconclusive && open(&missing), "{:?}", missing.gates);
    let reason = &missing.gates[2].result.reason;
    assert!(reason.contains("clock_skew/ahead is not in the series; and"), "{reason}");

    let once = judged(&dir, HAS, 1);
    let wanted = if back { Overall::Go } else { Overall::Inconclusive };
    assert_eq!(once.verdict, wanted, "{:?}", once.gates);
    assert_eq!(once.gates[1].result.n, 1, "a copy that is damaged has nothing to come back to");
    let described = &once.series[0];
    assert!(described.loaded_ns > Some(5_000_000_000), "two subjects: {described:?}");
    assert_eq!((described.agents, described.scenarios.len()), (Some(200), 2));
    commands(store, &dir, wanted.exit_code());
    what_is_stored_is_not_believed(&dir, &once);
    every_change_is_caught(&dir, &once);
}

/// As its user does it.
fn commands(store: &Path, dir: &Path, code: u8) {
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str| scratch.path().join(name).display().to_string();
    let (key, faults, junit) = (file("me.pem"), file("faults.toml"), file("gates.xml"));
    fs::write(&faults, policy(HAS, 1)).unwrap();
    assert!(run(store, &format!("certify --new-key {key}")).status.success());
    let line =
        format!("certify --series chaos=@last --policy {faults} --key {key} --junit {junit}");
    let issued = run(store, &line);
    let shown = text(&issued.stdout);
    assert_eq!(issued.status.code(), Some(i32::from(code)), "{shown}{}", text(&issued.stderr));
    for said in ["Series of faults", "longest recovery < 30 s", "2 of 2 PASS", "disk_io_stress"] {
        assert!(code != 0 || shown.contains(said), "{said}: {shown}");
    }
    let xml = fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("tests=\"4\"") && xml.contains("checks hold"), "{xml}");
    let verified = run(store, &format!("verify --series chaos=@last --key {key}.pub"));
    assert_eq!(verified.status.code(), Some(i32::from(code)), "{}", text(&verified.stdout));
    let certificate = dir.join(CERTIFICATE);
    for format in ["md", "html"] {
        let line = format!("report {} --format {format}", certificate.display());
        let page = text(&run(store, &line).stdout).replace('\\', "");
        assert!(page.contains("Series of faults") && page.contains("slow_sync"), "{page}");
    }
    let run_for_series =
        run(store, &format!("certify --run chaos={} --policy {faults}", dir.display()));
    assert!(text(&run_for_series.stderr).contains("remedy:"));
    fs::remove_file(certificate).unwrap();
    let shipped = run(store, "certify --series chaos=@last --format json");
    let shipped: Value = serde_json::from_slice(&shipped.stdout).unwrap();
    let gates = shipped["data"]["gates"].as_array().unwrap().iter();
    let chaos: Vec<&Value> = gates.filter(|gate| gate["run"] == "chaos").collect();
    assert!(chaos.len() == 6, "{chaos:?}");
    assert!(chaos.iter().all(|gate| gate["result"]["verdict"] == "INCONCLUSIVE"), "{chaos:?}");
}

fn edited(dir: &Path, edit: impl Fn(&mut Value)) -> Vec<u8> {
    let file = dir.join("recipe.json");
    let before = fs::read(&file).unwrap();
    let mut record: Value = serde_json::from_slice(&before).unwrap();
    edit(&mut record);
    fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
    before
}

/// Whatever the record says of what can be computed, it is computed.
fn what_is_stored_is_not_believed(dir: &Path, once: &Judged) {
    let before = edited(dir, |record| {
        for scenario in record["scenarios"].as_array_mut().unwrap() {
            for subject in scenario["subjects"].as_array_mut().unwrap() {
                subject["baseline"] = Value::Null;
                for check in subject["checks"].as_array_mut().unwrap() {
                    let name = check["name"].as_str().unwrap();
                    if ["every request has one end", "the run's outcomes add up"].contains(&name) {
                        check["holds"] = false.into();
                    }
                }
            }
        }
        let slow = &mut record["scenarios"][0]["faults"][0][1]["trials"][0]["recovery"];
        slow["from_revert"] = serde_json::json!({ "ns": 45_000_000_000_u64 });
        slow["answered"] = 0.into();
    });
    assert_eq!(&judged(dir, HAS, 1), once);
    fs::write(dir.join("recipe.json"), &before).unwrap();
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 5] = [
        ("no name of a file beside it", |of| of["subjects"][0]["run"] = "../../elsewhere".into()),
        ("the run of a subject, and not there", |of| of["subjects"][0]["run"] = "gone".into()),
        ("a baseline of", |of| of["subjects"][0]["quiet"] = serde_json::json!([0, u64::MAX / 2])),
        ("a baseline of", |of| of["subjects"][0]["quiet"] = serde_json::json!([9, 8])),
        ("a fault of", |of| of["subjects"] = serde_json::json!([])),
    ];
    let policy = Policy::parse(&policy(HAS, 1)).unwrap();
    for (said, edit) in edits {
        let before = edited(dir, |record| edit(&mut record["scenarios"][0]));
        let refused = judge(&policy, &dirs(dir)).unwrap_err().to_string();
        assert!(refused.contains(said) && refused.contains("remedy:"), "{refused}");
        fs::write(dir.join("recipe.json"), &before).unwrap();
    }
    let before = edited(dir, |record| {
        let other = record["scenarios"][1]["subjects"][0]["run"].clone();
        record["scenarios"][0]["subjects"][0]["run"] = other;
    });
    let refused = judge(&policy, &dirs(dir)).unwrap_err().to_string();
    assert!(refused.contains("is that of two subjects"), "{refused}");
    fs::write(dir.join("recipe.json"), &before).unwrap();
    // Without a run nothing of it can be judged again: what the record says of it is not taken for that.
    let before = edited(dir, |record| {
        record["scenarios"][0]["subjects"][0]["run"] = Value::Null;
    });
    let judged = judge(&policy, &dirs(dir)).unwrap();
    assert_eq!(judged.gates[2].result.verdict, GateVerdict::Inconclusive, "{:?}", judged.gates[2]);
    fs::write(dir.join("recipe.json"), &before).unwrap();
}

fn certify(judged: &Judged, dir: &Path, signer: &Signer) {
    let statement = statement(judged.clone(), &dirs(dir), "2026-11-26T00:00:00Z").unwrap();
    let bytes = signer.sign(&serde_json::to_vec(&statement).unwrap()).unwrap().bytes();
    fs::write(dir.join(CERTIFICATE), bytes).unwrap();
}

fn checked(dir: &Path, signer: &Signer) -> Verified {
    verify(&fs::read(dir.join(CERTIFICATE)).unwrap(), &dirs(dir), &signer.verifier(), None)
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

/// A byte of every file; slots and a run taken away; figures and trials that were edited and signed anew.
fn every_change_is_caught(dir: &Path, once: &Judged) {
    let signer = Signer::from_seed(&[5; 32]);
    certify(once, dir, &signer);
    let verified = checked(dir, &signer);
    assert!(
        verified.holds() && verified.verdict() == Some(once.verdict),
        "{:?}",
        verified.findings
    );
    let mut names = Vec::new();
    files(dir, &mut names);
    let slots = |name: &&PathBuf| name.to_string_lossy().ends_with(".slots.jsonl");
    assert!(names.len() >= 13 && names.iter().filter(slots).count() == 2, "{names:?}");
    for name in &names {
        let whole = fs::read(name).unwrap();
        let mut changed = whole.clone();
        if let Some(byte) = changed.get_mut(whole.len() / 2) {
            *byte ^= 0x10;
        } else {
            changed.push(b'x');
        }
        fs::write(name, &changed).unwrap();
        assert!(!checked(dir, &signer).holds(), "{} changed", name.display());
        if slots(&name) || name.ends_with("plan.toml") {
            fs::remove_file(name).unwrap();
            assert!(!checked(dir, &signer).holds(), "{} taken away", name.display());
        }
        fs::write(name, &whole).unwrap();
    }
    let figures = |what: &str| {
        let verified = checked(dir, &signer);
        let figures = verified.findings.iter().find(|of| of.check == "figures").unwrap();
        assert!(!figures.holds && !verified.holds(), "{what}: {:?}", verified.findings);
    };
    let mut faster = once.clone();
    faster.gates[1].result.measured = "at most 0.0 s".to_owned();
    certify(&faster, dir, &signer);
    figures("a figure");
    let mut longer = once.clone();
    longer.series[0].loaded_ns = Some(1);
    certify(&longer, dir, &signer);
    figures("a length");
    let before = edited(dir, |record| {
        let trials = &mut record["scenarios"][0]["faults"][0][1]["trials"];
        trials.as_array_mut().unwrap().clear();
    });
    certify(once, dir, &signer);
    figures("a trial that was dropped");
    fs::write(dir.join("recipe.json"), &before).unwrap();
    fs::remove_file(dir.join(CERTIFICATE)).unwrap();
}
