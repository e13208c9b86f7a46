//! Protocols from the command line: presets, scenarios, secure elicitation, polling, attacks.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");
const SMALL: &str = "--agents 100 --think 100ms..300ms --delay 5ms..20ms --duration 2s --heap-sample off \
     --gate outcomes --progress none --format json";

fn run(store: &Path, line: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("--store").arg(store).args(line.split_whitespace()).stdin(Stdio::null());
    command.output().unwrap()
}

/// The document, and the exit code.
fn data(store: &Path, line: &str) -> (Value, i32) {
    let output = run(store, line);
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (value["data"].clone(), output.status.code().unwrap())
}

/// The runtime of a host without io_uring ends with exit code 5 before anything is run: the test skips, and fails where
/// `TAILBEAM_TEST_RINGS` is set.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn no_ring() -> bool {
    let store = tempfile::tempdir().unwrap();
    let tried = run(store.path(), &format!("soak {SMALL} --duration 1s"));
    let why = String::from_utf8_lossy(&tried.stderr);
    let missing = tried.status.code() == Some(5) && why.contains("no io_uring");
    if missing {
        assert!(std::env::var_os("TAILBEAM_TEST_RINGS").is_none(), "rings are required: {why}");
        eprintln!("SKIPPED: this kernel has no io_uring");
    }
    missing
}

fn count(data: &Value, name: &str) -> u64 {
    let counts = data["protocol"].as_array().unwrap();
    let found = counts.iter().find(|record| record["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {counts:?}"))["count"].as_u64().unwrap()
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let is_child = |child: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().nth(1));
        fields.flatten() == Some(pid.to_string().as_str())
    };
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_child).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    panic!("in 20 s: {what}");
}

#[test]
fn half_of_the_responders_answer_in_a_second_process_that_dies_with_the_first() {
    if no_ring() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let tcp = "soak --workload elicitation --responders tcp";
    let (data, code) = data(store.path(), &format!("{tcp} {SMALL}"));
    assert_eq!(code, 0, "{}", data["gates"]);
    let junit = run(store.path(), "export @last --to junit");
    let junit = String::from_utf8_lossy(&junit.stdout);
    let cases =
        data["gates"].as_array().unwrap().len() + data["validity"].as_array().unwrap().len();
    assert_eq!(junit.matches("<testcase ").count(), cases, "{junit}");
    assert!(!junit.contains("<failure") && junit.contains("name=\"outcomes\""), "{junit}");
    let (ok, attempts) = (&data["load"]["outcomes"]["ok"], count(&data, "created"));
    assert_eq!(ok.as_u64(), Some(attempts));
    let carried = count(&data, "second process: requests carried");
    assert!(carried > 100 && carried < attempts, "{carried} of {attempts}");
    assert_eq!(count(&data, "second process: has answered"), carried);
    assert!(count(&data, "second process: CPU time, ns") > 0);

    let refused = run(store.path(), &format!("soak --workload ask --responders tcp {SMALL}"));
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));

    let line = format!("{tcp} {SMALL} --duration 60s");
    let mut soak = Command::new(PROGRAM)
        .arg("--store")
        .arg(store.path())
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut second = Vec::new();
    wait_until("a second process", || {
        second = children(soak.id());
        !second.is_empty()
    });
    soak.kill().unwrap();
    soak.wait().unwrap();
    wait_until("it is gone", || {
        second.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
}

#[test]
fn elicitation_and_polling_report_what_their_parts_counted() {
    if no_ring() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    for how in ["--durability none", "--durability batch --ack before", "--durability batch"] {
        let line = format!("soak --workload elicitation {SMALL} {how}");
        let (data, code) = data(store.path(), &line);
        assert_eq!(code, 0, "{how}: {}", data["gates"]);
        let (ok, attempts) = (&data["load"]["outcomes"]["ok"], count(&data, "created"));
        assert_eq!(ok.as_u64(), Some(attempts), "{how}");
        assert_eq!(count(&data, "read again: began"), attempts, "{how}");
        assert_eq!(count(&data, "read again: ended"), attempts, "{how}");
        for bad in ["read again: ended without having begun", "read again: damaged places"] {
            assert_eq!(count(&data, bad), 0, "{how}");
        }
    }
    for how in ["--poll-interval 50ms", "--long-poll"] {
        let line = format!("soak --workload wait_for_messages {SMALL} {how}");
        let (data, code) = data(store.path(), &line);
        assert_eq!(code, 0, "{how}: {}", data["gates"]);
        assert!(count(&data, "looks") > 0 && data["load"]["outcomes"]["ok"].as_u64() > Some(100));
    }
    let left: Vec<_> = std::fs::read_dir(store.path()).unwrap().map(Result::unwrap).collect();
    let hidden = left.iter().filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0, "the event logs are gone: {left:?}");
}

#[test]
fn the_live_runtime_holds_against_attacks() {
    if no_ring() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let only = "--only relay,forged-signature,replayed-answer,third-party-cancel";
    let (data, code) = data(store.path(), &format!("attack {SMALL} {only}"));
    assert_eq!((code, data["held"].as_u64(), data["broken"].as_u64()), (0, Some(4), Some(0)));
    assert!(data["findings"].as_array().unwrap().iter().all(|f| f["tries"].as_u64() > Some(0)));
    assert!(data["outcomes"]["ok"].as_u64() > Some(100), "the load went on");
}

#[test]
fn what_cannot_be_meant_is_a_usage_error_that_says_what_to_do() {
    let store = tempfile::tempdir().unwrap();
    let scenario = store.path().join("bad.toml");
    std::fs::write(&scenario, "agents = 20\nagnets = 5\n").unwrap();
    let scenario = format!("soak --scenario {}", scenario.display());
    for (line, says) in [
        ("soak --preset compair", "tailbeam presets"),
        ("soak --workload elicit --durability batch", "no event log"),
        ("soak --workload elicitation --message-bytes 2MiB", "between 1B and 1MiB"),
        ("soak --workload elicitation --targets some", "uniform, ring"),
        ("soak --workload elicitation --decline 2", "between 0 and 1"),
        ("soak --workload elicitation --agents 10 --targets 11", "--targets is 11"),
        ("soak --workload wait_for_messages --poll-interval 0ms", "--poll-interval"),
        ("attack --only nothing", "no attack"),
        ("attack --workload elicit", "only elicitation"),
        (&scenario, "bad.toml:2:1"),
    ] {
        let output = run(store.path(), line);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert!(text.contains(says) && text.contains("remedy:"), "{line}: {text}");
    }
    let presets = run(store.path(), "presets");
    let text = String::from_utf8_lossy(&presets.stdout);
    for name in ["soak", "compare", "burst-ring", "poisson", "fan-in", "size-1m"] {
        assert!(text.contains(name), "{text}");
    }
}
