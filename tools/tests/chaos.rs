//! `chaos` as its user sees it: a short series, its document, and what it says of a host.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stderr, reason = "a test that skips must say so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::Value;

#[path = "chaos/certified.rs"]
mod certified;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");
/// Two hundred agents that ask ten times a second: a baseline is there in seconds.
const SMALL: &str = "--agents 200 --think 50ms..150ms --hold 500ms --baseline 6s --patience 20s --progress none -- \
                     --delay 5ms..20ms --timeout 2s";

/// What is usual for a subject is not what it has beside nine others: a test that judges recoveries runs alone.
static ALONE: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    ALONE.write().unwrap_or_else(PoisonError::into_inner)
}

fn beside_others() -> RwLockReadGuard<'static, ()> {
    ALONE.read().unwrap_or_else(PoisonError::into_inner)
}

/// A store in memory, where there is room for one: a sync on a disk that others write to takes seconds, and a service that
/// waits for it is not well. Disks that are slow, full and cut off have tests of their own.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn command(store: &Path, line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--store").arg(store).args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn run(store: &Path, line: &str) -> Output {
    command(store, line).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The data of a series that the published schema accepts.
fn data(store: &Path, output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)));
    let schema: Value = serde_json::from_slice(&run(store, "chaos --schema").stdout).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> =
        schema.iter_errors(&value).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    value["data"].clone()
}

fn series(store: &Path) -> PathBuf {
    let found: Vec<PathBuf> =
        fs::read_dir(store.join("chaos")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found.len(), 1);
    found[0].clone()
}

/// What was done in process and on a copy needs no privilege: a slow disk and a flipped bit.
#[test]
fn a_short_series_is_whole_and_can_be_judged_again() {
    let alone = alone();
    let dir = place();
    let store = dir.path();
    let line = format!(
        "chaos disk_io_stress/slow_sync event_store_corruption/bit_flip --injections 1 --format json {SMALL}"
    );
    let output = run(store, &line);
    assert_eq!(output.status.code(), Some(4), "one injection is no PASS: {}", text(&output.stderr));
    let found = data(store, &output);
    let faults: Vec<&Value> = found["series"]["scenarios"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|of| of["faults"].as_array().unwrap())
        .map(|pair| &pair[1])
        .collect();
    assert_eq!(faults.len(), 2);
    for fault in &faults {
        let trial = &fault["trials"][0];
        assert!(
            trial["bites"].as_array().unwrap().iter().all(|bite| bite["bit"] == true),
            "{fault}"
        );
        assert!(
            trial["checks"].as_array().unwrap().iter().all(|of| of["holds"] == true),
            "{fault}"
        );
    }
    // What is done to a copy is nobody's tail.
    assert!(faults[1].get("tail").is_none(), "{}", faults[1]);
    let tail = &faults[0]["tail"];
    assert!(tail["mean_ns"].as_f64() > Some(1e8) && tail["requests"].as_u64() > Some(0), "{tail}");
    let slow = &faults[0]["trials"][0]["recovery"];
    let back = slow["from_revert"]["ns"].is_u64();
    assert!(slow["during_p99_ns"].as_u64().unwrap() > 300_000_000, "500 ms of each sync: {slow}");
    for scenario in found["series"]["scenarios"].as_array().unwrap() {
        let subject = &scenario["subjects"][0];
        assert!(subject["baseline"]["timed"].as_u64().unwrap() > 1_000, "{subject}");
        let checks = subject["checks"].as_array().unwrap().iter();
        let all: Vec<&Value> = checks.chain(scenario["residue"].as_array().unwrap()).collect();
        assert!(all.len() >= 9 && all.iter().all(|of| of["holds"] == true), "{all:?}");
        for name in ["no slot is left", "no timer is left", "no operation is left"] {
            assert!(all.iter().any(|of| of["name"] == name), "{name}: {all:?}");
        }
    }
    let again = run(store, "chaos --from @last --format json");
    assert_eq!((again.status.code(), data(store, &again)), (Some(4), found));
    let page = text(&run(store, "chaos --from @last").stdout);
    assert!(page.contains("slow_sync") && page.contains("1 of 5 injections"), "{page}");
    let html = text(&run(store, "chaos --from @last --format html").stdout);
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("1 of 5 injections"), "{html}");
    drop(alone);
    certified::a_series_is_certified(store, back);
    slots_are_believed_when_they_are_whole(store);
}

fn slots_are_believed_when_they_are_whole(store: &Path) {
    let file = series(store).join("disk_io_stress-0.slots.jsonl");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let output = run(store, "chaos --from @last");
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("slots.jsonl cannot be used"));
}

#[test]
fn what_cannot_be_run_says_why() {
    let dir = place();
    for (line, said) in [
        ("chaos earthquake", "there are network_partition"),
        ("chaos cpu_throttling/none", "no scenario \"cpu_throttling/none\""),
        ("chaos cpu_throttling --injections 0", "--injections is 0"),
        ("chaos cpu_throttling --hold 1h", "--hold in ms"),
        ("chaos --swarm 1000", "--swarm is 1000"),
        ("chaos cpu_throttling -- --agent 5", "--agent"),
        ("chaos --resume @last --agents 5", "cannot be used with"),
        ("chaos", "required"),
        ("chaos --from @last", "remedy"),
        ("chaos --all --list --format html", "no HTML page"),
    ] {
        let output = run(dir.path(), line);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{line}: {:?}", output.status);
        assert!(text(&output.stderr).contains(said), "{line}: {}", text(&output.stderr));
    }
    let dry = text(&run(dir.path(), "chaos --all --dry-run").stdout);
    for part in ["cpu_throttling", "SIGKILL", "LinkLossPpm", "undo", "ProxyReset of the board"] {
        assert!(dry.contains(part), "{dry}");
    }
    // What cannot be done here has no step.
    let step = dry.lines().skip_while(|line| !line.starts_with("  hog: ")).nth(1);
    assert!(step.is_some_and(|line| line.starts_with("    ")), "{step:?} in {dry}");
    let list = text(&run(dir.path(), "chaos dependency_failure --list").stdout);
    for fault in ["proxy_reset", "proxy_half_open", "proxy_latency"] {
        let line = list.lines().find(|line| line.contains(&format!("/{fault} "))).unwrap();
        assert!(line.contains("by a proxy on the way"), "{line}");
    }
    assert!(!dir.path().join("chaos").exists(), "nothing was done");
}

const FILE: &str = r#"
[[scenario]]
name = "slow_night"
about = "the disk is slow and the clock is off"
[[scenario.faults]]
name = "both"
what = "a sync takes 200 ms longer, the wall clock jumps an hour"
hold_ns = 1_000_000_000
act = { together = [{ knobs = [["log_sync_delay_ns", 200_000_000]] }, { knobs = [["realtime_offset_ns", 3_600_000_000_000]] }] }
"#;

/// A scenario of a file is run as those of the program are; what it cannot mean is refused with its place.
#[test]
fn scenarios_come_from_a_file_or_a_seed() {
    let _alone = alone();
    let dir = place();
    let file = dir.path().join("night.toml");
    fs::write(&file, FILE).unwrap();
    let line = format!("chaos --file {} --injections 1 --format json {SMALL}", file.display());
    let output = run(dir.path(), &line);
    let found = data(dir.path(), &output);
    let trial = &found["series"]["scenarios"][0]["faults"][0][1]["trials"][0];
    let bites = trial["bites"].as_array().unwrap();
    assert!(bites.len() == 2 && bites.iter().all(|bite| bite["bit"] == true), "{trial}");
    for (from, to, said) in [
        ("hold_ns = 1_000_000_000", "hold_ns = 0", "slow_night/both"),
        ("log_sync_delay_ns", "log_sink_delay", "unknown variant"),
        ("about", "abuot", "abuot"),
    ] {
        fs::write(&file, FILE.replace(from, to)).unwrap();
        let output = run(dir.path(), &format!("chaos --list --file {}", file.display()));
        assert_eq!(output.status.code(), Some(2));
        let err = text(&output.stderr);
        assert!(err.contains(said) && err.contains("remedy:"), "{err}");
    }
    let swarm =
        |seed: u32| text(&run(dir.path(), &format!("chaos --swarm 5 --seed {seed} --list")).stdout);
    assert!(swarm(1) == swarm(1) && swarm(1) != swarm(2) && swarm(1).contains('+'), "{}", swarm(1));
}

/// A cable between two namespaces is cut under the load: it is back afterwards, and `latency` names the hop.
#[test]
fn half_of_the_responders_are_cut_off_and_come_back() {
    let _alone = alone();
    let dir = place();
    let store = dir.path();
    let list = text(&run(store, "chaos --list").stdout);
    let line = list.lines().find(|line| line.contains("network_partition/tcp ")).unwrap();
    if line.contains("no: ") {
        eprintln!("SKIPPED: {}", line.trim());
        return;
    }
    let small = SMALL.replace("--hold 500ms", "--hold 4s");
    let line = format!(
        "chaos network_partition/tcp dependency_failure/proxy_reset --injections 1 --format json {small}"
    );
    let output = run(store, &line);
    let found = data(store, &output);
    let scenario = &found["series"]["scenarios"][0];
    let trial = &scenario["faults"][0][1]["trials"][0];
    assert_eq!(trial["bites"][0]["bit"], true, "{trial}");
    let recovery = &trial["recovery"];
    let slots = |name: &str| recovery[name].as_u64().unwrap();
    assert!(slots("available") * 10 < slots("slots") * 9, "half was cut off: {recovery}");
    let tail = &scenario["faults"][0][1]["tail"];
    let said = tail["fleet"].as_array().unwrap().iter().filter_map(Value::as_str);
    assert!(said.into_iter().any(|of| of.contains("the hop to the second process")), "{tail}");
    for name in
        ["the subject lives", "every request has one end", "the second process has answered"]
    {
        assert!(check(&found, name), "{name}: {scenario}");
    }
    for of in scenario["residue"].as_array().unwrap() {
        assert_eq!(of["holds"], true, "{of}");
    }
    let reset = &found["series"]["scenarios"][1]["faults"][0][1]["trials"][0];
    assert_eq!(reset["bites"][0]["bit"], true, "{reset}");
    let lost = &reset["recovery"];
    assert!(lost["answered"].as_u64() < lost["due"].as_u64(), "{reset}");
    let subjects = series(store).join("subjects");
    let latency = text(&run(&subjects, "latency @last~1").stdout);
    assert!(latency.contains("the hop to the second process"), "{latency}");
}

/// Whoever resumes a series that runs would undo its faults; of one whose supervisor was killed nothing is lost, also in
/// its first scenario.
#[test]
fn a_series_is_run_by_one_process_at_a_time() {
    let _beside = beside_others();
    let dir = place();
    let line = format!("chaos event_store_corruption/restart --injections 1 {SMALL}");
    let mut first = command(dir.path(), &line).stdout(Stdio::null()).spawn().unwrap();
    // Its subject has logs: those of another secret must not be in the way of the next one's.
    let begun = || {
        let logs = "subjects/logs-event_store_corruption-0/owner-0";
        let series = fs::read_dir(dir.path().join("chaos")).into_iter().flatten().flatten();
        series
            .map(|of| of.path().join(logs))
            .any(|logs| fs::read_dir(logs).is_ok_and(|of| of.count() > 0))
    };
    while !begun() {
        assert!(first.try_wait().unwrap().is_none(), "it ended and has no record");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let other = run(dir.path(), "chaos --resume @last --progress none");
    assert_eq!(other.status.code(), Some(1), "{}", text(&other.stdout));
    assert!(text(&other.stderr).contains("another process runs it"), "{}", text(&other.stderr));
    first.kill().unwrap();
    first.wait().unwrap();
    let output = run(dir.path(), "chaos --resume @last --progress none --format json");
    let found = data(dir.path(), &output);
    assert_eq!(
        found["series"]["scenarios"][0]["faults"][0][1]["trials"][0]["bites"][0]["bit"],
        true
    );
    for name in [
        "everything is undone",
        "nothing durable is lost",
        "every answer was durable before its asker had it",
        "the log is whole but for writes that were cut off",
        "a restart restores its log",
        "a restart names what is damaged in its log",
    ] {
        assert!(check(&found, name), "{name}: {found}");
    }
}

/// Whether this host can do a fault, as SCENARIO/FAULT; what it cannot do is said.
fn is_able(fault: &str) -> bool {
    let dir = place();
    let (scenario, _) = fault.split_once('/').unwrap();
    let list = text(&run(dir.path(), &format!("chaos {scenario} --list")).stdout);
    let line = list.lines().find(|line| line.contains(&format!("{fault} "))).unwrap();
    let able = !line.contains("no: ");
    if !able {
        eprintln!("SKIPPED: {}", line.trim());
    }
    able
}

/// A guard that cannot fail is none.
#[test]
fn a_defence_that_is_switched_off_makes_its_scenario_fail() {
    let _beside = beside_others();
    std::thread::scope(|scope| {
        for (defence, fault, hold, said) in [
            ("expiry", "network_partition/total", "500ms", "every request has one end"),
            ("replay", "process_crash/kill", "500ms", "a restart restores its log"),
            ("checksum", "event_store_corruption/bit_flip", "500ms", "the damage is named"),
            (
                "checksum",
                "event_store_corruption/restart",
                "500ms",
                "a restart names what is damaged in its log",
            ),
            // Half of the requests of three seconds are more than two mailboxes hold.
            ("mailbox", "slow_consumer/crowd", "3s", "mailboxes keep their bound"),
            // 16 objects of each request that is refused, some 10,000 a time; what is open comes and goes by a few hundred.
            ("cleanup", "memory_exhaustion/allocation", "3s", "allocation leaves no live object"),
            // What was written and not synced when the power went.
            (
                "ack",
                "disk_io_stress/power_cut",
                "500ms",
                "every answer was durable before its asker had it",
            ),
        ] {
            if defence == "ack" && !is_able(fault) {
                continue;
            }
            // A bit of a record's form is seen without checksums too, as up to a quarter of all are: so several bits.
            // What each injection leaves is seen from the second one on.
            let n = match (defence, fault) {
                ("checksum", "event_store_corruption/bit_flip") => 8,
                // Two logs each time.
                ("checksum", _) | ("cleanup", _) => 2,
                // A cut may come when nothing is on its way to the log.
                ("ack", _) => 3,
                _ => 1,
            };
            scope.spawn(move || {
                let held = |off: &str| {
                    let dir = place();
                    let small = SMALL.replace("--hold 500ms", &format!("--hold {hold}"));
                    let line =
                        format!("chaos {fault} --injections {n} --format json {off} {small}");
                    let output = run(dir.path(), &line);
                    let found = data(dir.path(), &output);
                    looked(&found, said).map(|holds| (output.status.code(), holds))
                };
                // Beside eleven others a service may not be back from the first injection, and then there is no second
                // one to compare it with: it is done again.
                let held = |off: &str| {
                    let tries = (0..3).find_map(|_| held(off));
                    tries.unwrap_or_else(|| panic!("{fault} {off}: no check {said}, three times"))
                };
                let off = held(&format!("--break {defence}"));
                assert_eq!(off, (Some(3), false), "{defence} is off");
                let (_, on) = held("");
                assert!(on, "{defence} is on, and {said} does not hold");
            });
        }
    });
}

/// What the kernel refuses to a subject is stated, those that are to go on without rings say so and wait for them, and one
/// that loses a core says which and ends.
#[test]
fn what_a_subject_lacks_is_stated_and_the_service_goes_on_or_comes_back() {
    let _beside = beside_others();
    let able = |fault: &&(&str, &str, &str)| is_able(fault.0);
    let faults = [
        ("dependency_failure/perf_source", "counters and groups", "no refused counter has"),
        ("dependency_failure/io_uring", "starts that were refused", "each refused start ends"),
        ("process_crash/core", "cores that were told", "a process that loses a core says which"),
    ];
    std::thread::scope(|scope| {
        for &(fault, proof, said) in faults.iter().filter(able) {
            scope.spawn(move || lacks(fault, proof, said));
        }
    });
}

fn lacks(fault: &str, proof: &str, said: &str) {
    let dir = place();
    let line = format!("chaos {fault} --injections 1 --format json {SMALL}");
    // A store that is named from where the user stands: guards and helpers stand elsewhere.
    let output = command(Path::new("st"), &line).current_dir(dir.path()).output().unwrap();
    let found = data(dir.path(), &output);
    let trial = &found["series"]["scenarios"][0]["faults"][0][1]["trials"][0];
    let bites = trial["bites"].as_array().unwrap();
    let starts = |bite: &Value| bite["source"].as_str().unwrap().starts_with(proof);
    assert!(bites.iter().any(starts), "{trial}");
    assert!(bites.iter().all(|bite| bite["bit"] == true), "{trial}");
    let all = ["every request has one end", "everything is undone", "nothing is left on the host"];
    for name in [said].into_iter().chain(all) {
        assert!(check(&found, name), "{fault}: {name}: {found}");
    }
}

/// Whether every check of this name holds; none if there is none.
fn looked(series: &Value, name: &str) -> Option<bool> {
    fn look<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
        if value["name"].as_str().is_some_and(|of| of.starts_with(name))
            && value.get("holds").is_some()
        {
            found.push(&value["holds"]);
        }
        match value {
            Value::Array(all) => all.iter().for_each(|one| look(one, name, found)),
            Value::Object(all) => all.values().for_each(|one| look(one, name, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    look(series, name, &mut found);
    (!found.is_empty()).then(|| found.iter().all(|holds| **holds == true))
}

/// The same, of a check that is there.
fn check(series: &Value, name: &str) -> bool {
    looked(series, name).unwrap_or_else(|| panic!("no check {name}"))
}
