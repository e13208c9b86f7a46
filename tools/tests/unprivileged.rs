//! As a user without any privilege: a soak, its latency and its counters work; what is refused is a stated mode, with
//! cause and remedy, and never a zero; exit 0.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stderr, reason = "a test that skips must say so")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");

/// Nobody's program and store; without root the test is the user that it runs as.
struct Nobody {
    dir: tempfile::TempDir,
    store: tempfile::TempDir,
    root: bool,
}

fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Nobody {
    fn new() -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        let dir = tempfile::tempdir().unwrap();
        open(dir.path());
        // In memory: a sync on a disk that others write to takes seconds, and a service that waits for it is not well.
        let store = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        open(store.path());
        let program = dir.path().join("tailbeam");
        fs::copy(PROGRAM, &program).unwrap();
        open(&program);
        let nobody = Self { dir, store, root };
        let tried = nobody.command(&["--version"]).output();
        if tried.is_ok_and(|output| output.status.success()) {
            return Some(nobody);
        }
        eprintln!("SKIPPED: no `setpriv`, or its user may not run programs from here");
        None
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = self.dir.path().join("tailbeam");
        let mut command = if self.root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg("--store").arg(self.store.path().join("store")).args(args);
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Runs it; it must end with 0.
    fn does(&self, line: &str) -> Output {
        let args: Vec<&str> = line.split(' ').collect();
        let output = self.command(&args).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {said}");
        output
    }

    fn data(&self, line: &str) -> Value {
        let output = self.does(line);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["data"].clone()
    }
}

/// Every object `{unknown, remedy}` below says why and what to do; how many there are.
fn stated(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(stated).sum(),
        Value::Object(map) => {
            if let (Some(why), Some(remedy)) = (map.get("unknown"), map.get("remedy")) {
                if why.is_null() {
                    return 0;
                }
                let said = |text: &Value| text.as_str().is_some_and(|text| !text.is_empty());
                assert!(said(why) && said(remedy), "{value}");
                return 1;
            }
            map.values().map(stated).sum()
        }
        _ => 0,
    }
}

#[test]
fn a_soak_its_latency_and_its_counters_work_and_each_refusal_is_a_mode() {
    let Some(nobody) = Nobody::new() else { return };
    let tried = nobody.command(&["soak", "--agents", "2", "--duration", "1s"]).output().unwrap();
    let why = text(&tried.stderr);
    if tried.status.code() == Some(5) && why.contains("no io_uring") {
        assert!(std::env::var_os("TAILBEAM_TEST_RINGS").is_none(), "rings are required: {why}");
        eprintln!("SKIPPED: no soak here: {}", text(&tried.stderr));
        return;
    }
    let soak = "soak --agents 2000 --duration 20s --progress none --gate outcomes";
    let soak = nobody.does(soak);
    assert!(text(&soak.stdout).contains("GO"), "{}", text(&soak.stdout));

    let latency = nobody.data("latency @last --format json");
    let whole = |value: &Value| value.as_u64().unwrap_or(0);
    let requests = &latency["requests"];
    assert!(whole(&requests["banded"]) > 5_000, "{requests}");
    let bands = latency["bands"].as_array().unwrap();
    assert!(bands.len() >= 3, "{bands:?}");
    for band in bands {
        assert_eq!(band["check"]["holds"], "OK", "{band}");
        let sum: f64 = band["composition"]["sum_ns"].as_f64().unwrap();
        let mean: f64 = band["composition"]["mean_ns"].as_f64().unwrap();
        assert!((sum - mean).abs() <= 0.01 * mean + 2_000.0, "{sum} against {mean}");
    }
    // The table comes first and has a row for each area; what is refused has its cause and what to do.
    let matrix = latency["host"]["matrix"].as_array().unwrap();
    for area in ["counters", "off-cpu", "sampling"] {
        assert!(matrix.iter().any(|row| row["area"] == area), "{area} is not in {matrix:?}");
    }
    assert!(stated(&latency["host"]["unknown"]) >= 4, "{}", latency["host"]);
    stated(&latency);

    let counters = nobody.data("counters @last --format json");
    for core in counters["cores"].as_array().unwrap() {
        let total = core["total"]["counters"].as_array().unwrap();
        let named = |name: &str| total.iter().find(|of| of["name"] == name).unwrap();
        for name in ["task-clock", "context-switches", "page-faults"] {
            assert!(whole(&named(name)["count"]) > 0, "{name} needs no privilege: {}", named(name));
        }
        for of in total.iter().filter(|of| of["quality"] == "unknown") {
            assert!(of["count"].is_null() && of["unknown"].is_string(), "{of}");
            assert!(of["remedy"].is_string(), "{of}");
        }
    }
    let shown = text(&nobody.does("latency @last").stdout);
    assert!(shown.contains("unknown   cycles"), "{shown}");
    assert!(text(&nobody.does("counters @last").stdout).contains("task-clock"));
    assert!(text(&nobody.does("latency @last --outliers").stdout).contains("Slow requests"));
}

/// Faults that need no privilege are injected and judged; the others say what they would need.
#[test]
fn a_user_without_privileges_can_do_harm_to_its_own() {
    let Some(nobody) = Nobody::new() else { return };
    let list = text(&nobody.does("chaos --list").stdout);
    let line =
        |fault: &str| list.lines().find(|line| line.contains(fault)).unwrap_or_default().to_owned();
    for fault in [
        "network_partition/total",
        "process_crash/kill",
        "disk_io_stress/slow_sync",
        "fd_exhaustion/limit",
    ] {
        assert!(line(fault).trim_end().ends_with("yes"), "{list}");
    }
    for fault in ["cpu_throttling/quota", "memory_exhaustion/limit", "disk_io_stress/power_cut"] {
        assert!(line(fault).contains("no: "), "{list}");
    }
    let small = "--agents 200 --think 50ms..150ms --hold 500ms --baseline 6s --patience 20s --injections 1 --format json --progress none";
    // One of each kind that needs nothing: its own messages, its own log, its own descriptors, its own death.
    let able = ["total", "slow_sync", "kill", "limit"];
    let args = format!(
        "chaos network_partition/total process_crash/kill disk_io_stress/slow_sync fd_exhaustion/limit \
         cpu_throttling/quota {small} -- --delay 5ms..20ms --timeout 2s"
    );
    let args: Vec<&str> = args.split_whitespace().collect();
    let output = nobody.command(&args).output().unwrap();
    let said = text(&output.stderr);
    // One injection of each proves too little for a PASS, and the quota is impossible.
    assert_eq!(output.status.code(), Some(4), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let scenarios = document["data"]["series"]["scenarios"].as_array().unwrap();
    let faults: Vec<&Value> =
        scenarios.iter().flat_map(|of| of["faults"].as_array().unwrap()).map(|of| &of[1]).collect();
    let named = |name: &str| *faults.iter().find(|of| of["fault"]["name"] == name).unwrap();
    for name in able {
        let trials = named(name)["trials"].as_array().unwrap();
        assert_eq!(trials.len(), 1, "{name}: {said}");
        let trial = &trials[0];
        let bites = trial["bites"].as_array().unwrap();
        assert!(
            !bites.is_empty() && bites.iter().all(|bite| bite["bit"] == true),
            "{name}: {bites:?}"
        );
        assert!(
            trial["reverted"]["Ok"].is_null() && trial["reverted"].get("Ok").is_some(),
            "{trial}"
        );
        for check in trial["checks"].as_array().unwrap() {
            assert_eq!(check["holds"], true, "{name}: {check}");
        }
        assert!(!trial["recovery"].is_null(), "{name} is judged: {trial}");
    }
    let checks = |of: &Value| of.as_array().unwrap().clone();
    for scenario in scenarios {
        let subjects = scenario["subjects"].as_array().unwrap().iter();
        let of_subjects = subjects.flat_map(|subject| checks(&subject["checks"]));
        for check in of_subjects.chain(checks(&scenario["residue"])) {
            assert_ne!(check["holds"], false, "{}: {check}", scenario["name"]);
        }
    }
    let refused = &named("quota")["ability"];
    assert_eq!(refused["is"], "impossible");
    for part in ["cause", "remedy"] {
        assert!(refused[part].as_str().is_some_and(|text| !text.is_empty()), "{refused}");
    }
}
