//! A soak that is killed, continued, killed again and finished: it reads whole, what nobody measured is stated, and
//! a certificate of it verifies.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");

fn command(store: &Path, line: &str) -> Command {
    command_of(PROGRAM.as_ref(), store, line)
}

fn command_of(program: &Path, store: &Path, line: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("--store").arg(store).args(line.split(' ')).stdin(Stdio::null());
    command
}

fn run(store: &Path, line: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(store, line).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code().unwrap_or(-1), text(&stdout), text(&stderr))
}

fn data(store: &Path, line: &str) -> Value {
    let (_, out, err) = run(store, line);
    let value: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
    value["data"].clone()
}

/// Starts a command, and kills it so long after its first second of load was seen on stderr.
fn killed(store: &Path, line: &str, after: Duration) {
    let mut child =
        command(store, line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let begun = lines.find(|line| line.contains("run 2"));
    assert!(begun.is_some(), "it never began: {}", rest(&mut child, lines));
    thread::park_timeout(after);
    child.kill().unwrap();
    assert!(child.wait().unwrap().code().is_none(), "it was to be killed in the middle");
}

fn rest(child: &mut Child, lines: impl Iterator<Item = String>) -> String {
    let rest = lines.collect::<Vec<_>>().join("\n");
    format!("{:?} {rest}", child.wait())
}

const SOAK: &str =
    "soak --agents 200 --think 200ms..500ms --delay 1ms..5ms --duration 26s --progress plain";

/// Whether this machine's kernel gives us rings at all; where `TAILBEAM_TEST_RINGS` is set a skip is a failure.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn has_rings(store: &Path) -> bool {
    let (code, _, err) = run(store, "soak --agents 2 --duration 1s --progress none");
    let missing = code == 5 && err.contains("no io_uring");
    let required = std::env::var_os("TAILBEAM_TEST_RINGS").is_some();
    assert!(!(missing && required), "TAILBEAM_TEST_RINGS is set and this kernel has no io_uring");
    if missing {
        eprintln!("SKIPPED: this kernel has no io_uring");
    }
    !missing
}

#[test]
fn a_soak_killed_twice_is_continued_and_reads_whole() {
    let scratch = tempfile::tempdir().unwrap();
    if !has_rings(&scratch.path().join("rings")) {
        return;
    }
    let store = &scratch.path().join("store");
    // In its first window; then in the drawn-out middle of the second one of the next epoch.
    killed(store, SOAK, Duration::from_secs(2));
    refused(store, "soak --resume @last --agents 5", 2, "cannot be used with");
    thread::park_timeout(Duration::from_millis(700));
    killed(store, "soak --resume @last --progress plain", Duration::from_millis(12_500));
    let unsealed = data(store, "report @last --format json");
    assert_eq!(unsealed["run"]["end"], "unsealed");
    assert!(unsealed["caveats"].to_string().contains("soak --resume"), "{}", unsealed["caveats"]);
    let (code, out, err) = run(store, "soak --resume @last --progress plain --format json");
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("epoch 3: 1") && err.contains(" s of the plan are left"), "{err}");

    let report: Value = serde_json::from_str::<Value>(&out).unwrap()["data"].clone();
    assert_eq!(report, data(store, "report @last --format json"), "replayed, it is the same");
    epochs(&report);
    let outcomes = &report["load"]["outcomes"];
    let count = |name: &str| outcomes[name].as_u64().unwrap();
    let names =
        ["ok", "declined", "cancelled", "expired", "refused", "lost", "error", "open_at_stop"];
    assert_eq!(count("attempts"), names.into_iter().map(count).sum::<u64>(), "{outcomes}");
    assert_eq!(report["latency"][0]["count"].as_u64(), Some(count("ok")), "no window twice");
    let gate = |name: &str| {
        let mut gates = report["gates"].as_array().unwrap().iter();
        gates.find(|gate| gate["gate"] == name).unwrap_or_else(|| panic!("no gate {name}")).clone()
    };
    assert_eq!(gate("outcomes")["verdict"], "PASS", "{}", gate("outcomes"));
    // The agents of the epoch that was cut behind its first window are known by what was written there.
    assert_eq!(gate("fairness")["verdict"], "PASS", "{}", gate("fairness"));
    let leaks = gate("leaks");
    assert!(leaks["measured"].as_str().unwrap().contains("over 3 epochs"), "{leaks}");
    assert!(leaks["reason"].as_str().unwrap().contains("epoch 2: "), "{leaks}");
    assert_eq!(report["verdict"], "INCONCLUSIVE");
    schema(store, &report);
    shown(store);
    let (code, out, _) = run(store, "runs fsck @last --strict");
    assert_eq!(code, 0, "{out}");
    refused(store, "soak --resume @last", 2, "it was sealed as finished");
    certified(store, scratch.path());
}

fn refused(store: &Path, line: &str, wanted: i32, cause: &str) {
    let (code, out, err) = run(store, line);
    assert_eq!((code, out.as_str()), (wanted, ""), "{line}: {err}");
    assert!(err.contains(cause), "{line}: {err}");
}

fn epochs(report: &Value) {
    let rows = report["epochs"]["rows"].as_array().unwrap();
    let ends: Vec<&str> = rows.iter().map(|row| row["end"].as_str().unwrap()).collect();
    assert_eq!(ends, ["killed", "killed", "sealed"]);
    let windows: Vec<u64> = rows.iter().map(|row| row["windows"].as_u64().unwrap()).collect();
    assert_eq!(windows[..2], [0, 1], "at most one window is lost by a cut");
    let s = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no figure: {value}"));
    let measured: f64 = rows.iter().map(|row| s(&row["measured_s"])).sum();
    assert!((25.9..26.5).contains(&measured), "what was planned was measured: {measured}");
    // The first epoch ran for 2 s of which nothing is on disk, and nobody ran for 0.7 s.
    let gap = s(&rows[1]["unmeasured_before_s"]);
    assert!((2.7..20.0).contains(&gap), "{gap}");
    let whole = s(&report["epochs"]["unmeasured_s"]);
    assert!((whole - gap - s(&rows[2]["unmeasured_before_s"])).abs() < 1e-6, "{whole}");
    assert!(rows[1]["open_at_cut"].as_u64().is_some() && rows[0]["open_at_cut"] == 0);
    let seeds: std::collections::BTreeSet<u64> =
        rows.iter().map(|row| row["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds.len(), 3, "no epoch draws what another has drawn");
    let builds: Vec<&Value> = rows.iter().map(|row| &row["build_id"]).collect();
    assert!(builds.iter().all(|build| *build == builds[0]), "one program: {builds:?}");
    let said = report["caveats"].to_string();
    assert!(
        said.contains("epoch 2 ended early: its process was killed or died; nobody measured for"),
        "{said}"
    );
    let check =
        report["validity"].as_array().unwrap().iter().find(|check| check["name"] == "unbroken");
    assert_eq!(check.unwrap()["holds"], false);
    let events = report["timeline"]["events"].as_array().unwrap();
    assert_eq!(events.iter().filter(|event| event["kind"] == "epoch").count(), 2, "{events:?}");
    let rows = report["degradation"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["epoch"] == 3), "each epoch is judged on its own");
}

fn schema(store: &Path, report: &Value) {
    let (_, schema, _) = run(store, "report --schema");
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let document =
        serde_json::json!({"schema": "tailbeam.report", "schema_version": 1, "data": report});
    schema.validate(&document).unwrap_or_else(|error| panic!("{error}"));
}

/// Text and page say what the document says.
fn shown(store: &Path) {
    let (_, text, _) = run(store, "report @last");
    assert!(text.contains("Epochs    3, nobody measured for"), "{text}");
    assert!(text.contains("validity: unbroken: 3 epochs"), "{text}");
    let (_, page, _) = run(store, "report @last --format html");
    assert!(page.contains("Epochs: who recorded which part"), "no table of epochs");
}

/// Strict by default; a policy may take what was measured, and the gaps are in what is signed.
fn certified(store: &Path, scratch: &Path) {
    let key = scratch.join("me.pem");
    run(store, &format!("certify --new-key {}", key.display()));
    let policy = |continuity: &str| {
        let path = scratch.join("policy.toml");
        let text = format!(
            "name = \"short\"\nversion = 1\nabout = \"26 s\"\n[[run]]\nname = \"soak\"\nseconds_min = 25\nagents_min = 200\n{continuity}[[gate]]\nid = \"sum\"\nrun = \"soak\"\nrequire = \"outcomes\"\n"
        );
        fs::write(&path, text).unwrap();
        let line = format!("certify @last --policy {} --key {}", path.display(), key.display());
        let (code, out, err) = run(store, &line);
        let (verified, said, _) = run(store, &format!("verify @last --key {}.pub", key.display()));
        assert_eq!(verified, code, "replayed, the verdict is the same: {out}{err}{said}");
        assert!(
            said.contains("in 3 epochs; what each did"),
            "drawn again by the seed of each: {said}"
        );
        (code, out)
    };
    let (code, out) = policy("");
    assert!(code == 4 && out.contains("the policy needs a run of one piece: 3 epochs"), "{out}");
    refused(store, "soak --resume @last", 2, "it is signed");
    let (code, out) = policy("continuity = \"cumulative\"\n");
    assert!(code == 0 && out.contains("nobody measured for"), "{out}");
}

/// The program, linked anew as far as anybody can tell: one bit of its build-id is another.
fn upgraded(to: &Path) -> bool {
    /// Of a note: length of its owner's name, of the id, the type `NT_GNU_BUILD_ID`, the owner.
    const NOTE: &[u8] = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    let mut bytes = fs::read(PROGRAM).unwrap();
    let Some(at) = bytes.windows(NOTE.len()).position(|window| window == NOTE) else {
        return false;
    };
    bytes[at + NOTE.len()] ^= 1;
    fs::write(to, bytes).unwrap();
    fs::set_permissions(to, fs::metadata(PROGRAM).unwrap().permissions()).unwrap();
    true
}

#[test]
fn a_run_goes_on_under_another_build() {
    let scratch = tempfile::tempdir().unwrap();
    if !has_rings(&scratch.path().join("rings")) {
        return;
    }
    let store = &scratch.path().join("store");
    let new = &scratch.path().join("tailbeam");
    assert!(upgraded(new), "the linker of this host gives programs no build-id: use one that does");
    let line =
        "soak --agents 200 --think 200ms..500ms --delay 1ms..5ms --duration 16s --progress plain";
    killed(store, line, Duration::from_millis(12_500));
    let line = "soak --resume @last --progress plain --format json";
    let Output { status, stdout, stderr } = command_of(new, store, line).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(4), "{said}");
    let report: Value = serde_json::from_slice::<Value>(&stdout).unwrap()["data"].clone();
    assert_eq!(report, data(store, "report @last --format json"), "either build reads the same");
    let rows = report["epochs"]["rows"].as_array().unwrap();
    let builds: Vec<&str> = rows.iter().map(|row| row["build_id"].as_str().unwrap()).collect();
    assert!(builds.len() == 2 && builds[0] != builds[1], "{builds:?}");
    let told = format!("another build went on, {}", builds[1]);
    assert!(report["caveats"].to_string().contains(&told), "{}", report["caveats"]);
    assert_eq!(report["validity"].to_string().matches("\"unbroken\"").count(), 1);
    // What two builds have shown is said of neither, unless the policy says so.
    let certified = |builds: &str| {
        let path = scratch.path().join("policy.toml");
        let needs = "seconds_min = 15\nagents_min = 200\ncontinuity = \"cumulative\"\n";
        let gate = "[[gate]]\nid = \"sum\"\nrun = \"soak\"\nrequire = \"outcomes\"\n";
        let head = "name = \"short\"\nversion = 1\nabout = \"\"\n[[run]]\nname = \"soak\"\n";
        fs::write(&path, [head, needs, builds, gate].concat()).unwrap();
        let (code, out, err) = run(store, &format!("certify @last --policy {}", path.display()));
        (code, out + &err)
    };
    let (code, out) = certified("");
    assert!(code == 4 && out.contains("several builds of the program recorded it"), "{out}");
    let (code, out) = certified("builds = \"any\"\n");
    assert_eq!(code, 0, "{out}");
}

/// Nobody reads what it says any more, and it is told that its terminal is gone.
#[test]
fn a_run_outlives_its_terminal() {
    let scratch = tempfile::tempdir().unwrap();
    if !has_rings(&scratch.path().join("rings")) {
        return;
    }
    let store = &scratch.path().join("store");
    let line = "soak --agents 20 --think 100ms..200ms --duration 4s --progress plain";
    let mut child =
        command(store, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("run 2")));
    drop((lines, child.stdout.take()));
    let told = Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert!(child.wait().unwrap().code().is_some(), "it was ended by the signal");
    let report = data(store, "report @last --format json");
    assert_eq!(report["run"]["end"], "finished");
    assert!(report["run"]["measured_s"].as_f64().unwrap() > 3.5, "{}", report["run"]);
}

#[test]
fn a_run_that_is_recorded_is_not_resumed() {
    let scratch = tempfile::tempdir().unwrap();
    if !has_rings(&scratch.path().join("rings")) {
        return;
    }
    let store = &scratch.path().join("store");
    let line = "soak --agents 20 --think 1s..2s --duration 30s --progress plain";
    let mut child =
        command(store, line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("run 2")));
    // The lock is taken when the run is written, a moment after its name is known.
    thread::park_timeout(Duration::from_millis(500));
    refused(store, "soak --resume @last", 2, "another process is recording it");
    child.kill().unwrap();
    child.wait().unwrap();
    refused(store, "soak --resume nothing", 1, "no run named nothing");
}
