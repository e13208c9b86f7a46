//! `compare` and `scale` as processes: pairs, rules, sums, stops, and documents that are computed anew.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");
/// A load that gives a P99 in a second: 300 agents, 1,000 requests/s.
/// Whatever else runs beside it leaves nothing out here.
const LOAD: &str = "--agents 300 --duration 1s --cool-down 0ms --progress none --format json";
const KEEP: &str = "--others-max 100% --steal-max 100%";
const THINK: &str = "-- --think 100ms..500ms --delay 0ms --timeout 500ms";

fn command(store: &Path, line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--store").arg(store).args(line.split(' ')).stdin(Stdio::null());
    command
}

fn run(store: &Path, line: &str) -> Output {
    command(store, line).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The data of a document that its published schema accepts.
fn data(store: &Path, command: &str, output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    let schema = run(store, &format!("{command} --schema"));
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        schema.iter_errors(&value).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    value["data"].clone()
}

/// Whether this machine's kernel gives us rings; where `TAILBEAM_TEST_RINGS` is set, a skip is a failure.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn has_rings() -> bool {
    let store = tempfile::tempdir().unwrap();
    let output = run(store.path(), "soak --agents 2 --duration 1s --progress none");
    let missing = output.status.code() == Some(5) && text(&output.stderr).contains("no io_uring");
    if missing {
        assert!(std::env::var_os("TAILBEAM_TEST_RINGS").is_none(), "this kernel has no io_uring");
        eprintln!("SKIPPED: this kernel has no io_uring");
    }
    !missing
}

fn verdicts(data: &Value) -> BTreeMap<String, String> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = data["metrics"].as_array().unwrap().iter();
    rows.map(|row| (word(&row["metric"]), word(&row["judged"]))).collect()
}

#[test]
fn pairs_share_their_schedule_and_a_comparison_is_computed_anew_from_its_runs() {
    if !has_rings() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path();
    let output =
        run(store, &format!("compare elicit ask --pairs 2 --aa 1 --seed 7 {KEEP} {LOAD} {THINK}"));
    let found = data(store, "compare", &output);
    // Two pairs are too few for any claim.
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(verdicts(&found).values().all(|verdict| verdict == "INCONCLUSIVE"), "{found}");
    let pairs = found["pairs"].as_array().unwrap();
    assert_eq!((pairs.len(), found["aa"].as_array().unwrap().len()), (2, 1), "{found}");
    for pair in pairs {
        let (a, b) = (&pair["a"], &pair["b"]);
        assert_eq!((&a["workload"], &b["workload"]), (&"elicit".into(), &"ask".into()));
        assert_eq!(a["seed"], b["seed"]);
        // The same schedule: as many requests were due on both sides.
        assert_eq!(a["outcomes"]["attempts"], b["outcomes"]["attempts"]);
    }
    assert_ne!(pairs[0]["a"]["seed"], pairs[1]["a"]["seed"]);
    for side in found["outcomes"].as_array().unwrap() {
        assert_eq!((&side["closed"], &side["runs"]), (&true.into(), &2.into()), "{side}");
    }
    let keys: Vec<&str> = found["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["workload"], "nothing else differs");
    let again = run(store, "compare --from @last --format json");
    assert_eq!((data(store, "compare", &again), again.status.code()), (found.clone(), Some(4)));
    let page = text(&run(store, "compare --from @last").stdout);
    assert!(page.contains("Verdict  INCONCLUSIVE") && page.contains("a claim needs 6"), "{page}");
    let page = text(&run(store, "compare --from @last --format md").stdout);
    assert!(page.contains("| metric | A | B |"), "{page}");
    is_one_html_file(store, "compare", &found);
    stored_runs_compare_as_well(store, pairs);
    // A run that has gone is said, and its pair with it.
    fs::remove_dir_all(store.join(pairs[1]["b"]["run"].as_str().unwrap())).unwrap();
    let less = data(store, "compare", &run(store, "compare --from @last~1 --format json"));
    assert_eq!(less["pairs"].as_array().unwrap().len(), 1);
    assert_eq!(less["excluded"][0]["why"]["rule"], "failed", "{less}");
}

fn stored_runs_compare_as_well(store: &Path, pairs: &[Value]) {
    let id = |pair: usize, side: &str| pairs[pair][side]["run"].as_str().unwrap().to_owned();
    let (a, b) = ([id(0, "a"), id(1, "a")].join(","), [id(0, "b"), id(1, "b")].join(","));
    let output = run(store, &format!("compare {a} {b} {KEEP} --format json"));
    let found = data(store, "compare", &output);
    assert_eq!(found["pairs"].as_array().unwrap().len(), 2, "{found}");
    assert_eq!(found["seed"], Value::Null);
    let caveats = found["caveats"].to_string();
    assert!(caveats.contains("stored before"), "{caveats}");
    let uneven = run(store, &format!("compare {a} {} {KEEP} --format json", id(0, "b")));
    assert_eq!(uneven.status.code(), Some(2), "{}", text(&uneven.stderr));
    assert!(text(&uneven.stderr).contains("2 runs on side A and 1 on side B"));
}

/// The baseline is compared at its best, whoever names it; its waits follow its law, and the sums of both close.
#[test]
fn the_polling_baseline_is_swept_also_when_a_file_names_it() {
    if !has_rings() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("poll.toml");
    fs::write(&file, "workload = \"wait_for_messages\"\n").unwrap();
    let load = "--agents 300 --duration 3s --cool-down 0ms --progress none --format json";
    let line = format!(
        "compare elicitation {} --pairs 2 --aa 0 --sweep 200ms,100ms {KEEP} {load} -- \
         --think 100ms..500ms --delay 0ms --timeout 2s",
        file.display()
    );
    let found = data(dir.path(), "compare", &run(dir.path(), &line));
    let points = found["sweep"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 3, "the long-poll, and two intervals: {found}");
    for (point, interval_ms) in points[1..].iter().zip([200.0, 100.0]) {
        let law = &point["law"];
        let mean_ms = law["mean_ns"].as_f64().unwrap_or_else(|| panic!("{point}")) / 1e6;
        assert!((mean_ms / interval_ms - 0.5).abs() < 0.1, "{interval_ms} ms: {law}");
    }
    assert!(found["sweep"]["chosen"].is_string() || found["verdict"] == "INCONCLUSIVE", "{found}");
    for side in found["outcomes"].as_array().unwrap() {
        assert_eq!((&side["closed"], &side["runs"]), (&true.into(), &2.into()), "{side}");
    }
}

#[test]
fn a_side_that_cannot_run_is_left_out_by_its_rule_and_ends_after_a_bound() {
    if !has_rings() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let line = format!(
        "compare --a-bin {PROGRAM} --b-bin /bin/false --pairs 1 --aa 0 {KEEP} {LOAD} {THINK}"
    );
    let output = run(dir.path(), &line);
    let found = data(dir.path(), "compare", &output);
    assert_eq!(output.status.code(), Some(4));
    let excluded = found["excluded"].as_array().unwrap();
    assert_eq!(excluded.len(), 2, "one pair and one more for it: {found}");
    assert!(excluded.iter().all(|out| out["why"]["rule"] == "failed" && out["role"] == "B"));
    assert!(found["caveats"].to_string().contains("0 of 1 pairs"), "{found}");
}

#[test]
fn bad_sides_get_one_clear_error_and_the_right_code() {
    let dir = tempfile::tempdir().unwrap();
    for (line, code, said) in [
        ("compare elicit", 2, "two sides"),
        ("compare elicit ask --pairs 0", 2, "0 pairs"),
        ("compare @last ask", 1, "no run named @last"),
        ("compare --from @last", 1, "no run named @last"),
        (
            "compare elicit ask --b-args --nonsense --pairs 1 --duration 1s --cool-down 0ms",
            2,
            "--nonsense",
        ),
        ("scale --to 1", 2, "--to is 1"),
        ("scale --points 1", 2, "--points"),
        ("scale --from @last", 1, "no run named @last"),
    ] {
        let output = run(dir.path(), line);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {err}");
        assert!(err.contains(said) && err.contains("remedy:"), "{line}: {err}");
    }
}

#[test]
fn a_stop_keeps_what_was_measured() {
    if !has_rings() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let line = "compare elicit ask --agents 50 --duration 30s --pairs 6 --cool-down 0ms --format json -- --timeout 500ms --delay 0ms";
    let child =
        command(dir.path(), line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Until its first run has begun.
    for _ in 0..200 {
        if fs::read_dir(dir.path()).unwrap().count() > 1 {
            break;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let found = data(dir.path(), "compare", &output);
    assert!(found["caveats"].to_string().contains("stopped"), "{found}");
    assert_eq!(found["excluded"][0]["why"]["rule"], "unfinished", "{found}");
}

#[test]
fn a_series_has_every_fleet_and_one_that_cannot_run_is_unknown() {
    if !has_rings() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path();
    let line = format!("scale --to 1000 --refine 0 {} {THINK}", LOAD.replace("--agents 300 ", ""));
    let output = run(store, &line);
    let found = data(store, "scale", &output);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let agents: Vec<u64> =
        found["points"].as_array().unwrap().iter().map(|p| p["agents"].as_u64().unwrap()).collect();
    assert_eq!(agents, [10, 100, 1_000]);
    for point in found["points"].as_array().unwrap() {
        assert_eq!(point["cost"]["live_min"], point["agents"], "{point}");
    }
    assert!(
        found["limit"]["causes"].as_array().is_some_and(|causes| !causes.is_empty()),
        "{found}"
    );
    let again = run(store, "scale --from @last --format json");
    assert_eq!(data(store, "scale", &again), found);
    let page = text(&run(store, "scale --from @last").stdout);
    assert!(page.contains("capacity") && page.contains("P99 over agents"), "{page}");
    is_one_html_file(store, "scale", &found);
    without_memory(store);
}

/// The page holds the document, and every table of the text.
fn is_one_html_file(store: &Path, command: &str, data: &Value) {
    let html = text(&run(store, &format!("{command} --from @last --format html")).stdout);
    assert!(html.starts_with("<!DOCTYPE html>") && !html.contains(" src="), "{html}");
    let embedded = html.split_once("type=\"application/json\">").unwrap().1;
    let embedded: Value =
        serde_json::from_str(embedded.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(embedded["data"], *data);
    let plain = text(&run(store, &format!("{command} --from @last --format md")).stdout);
    let (mut rows, mut cells) = (0, 0);
    for row in plain.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| --")) {
        rows += 1;
        for cell in row.trim_matches(['|', ' ']).split(" | ").filter(|cell| !cell.is_empty()) {
            // Both escape in their own way; what neither has to is compared.
            if !cell.contains(['\\', '&', '<', '>', '"']) {
                cells += 1;
                assert!(html.contains(cell), "{cell:?} of {row}");
            }
        }
    }
    assert!(rows >= 4 && cells > 20, "{rows} rows, {cells} cells: {plain}");
    let figures = figures(&html);
    assert!(figures.len() > 10, "{} figures", figures.len());
    for (at, value) in figures {
        let known = embedded.pointer(at).and_then(Value::as_f64);
        assert_eq!(known, value.parse().ok(), "{at} says {value}");
    }
    assert!(html.contains("<svg role=\"img\""), "a picture is drawn");
}

/// Pointers into the document, and what the page gives as their values.
fn figures(html: &str) -> Vec<(&str, &str)> {
    let tag = |piece| {
        let (value, rest) = str::split_once(piece, "\" data-at=\"")?;
        Some((rest.split_once('"')?.0, value))
    };
    html.split("<data value=\"").skip(1).filter_map(tag).collect()
}

/// A meminfo of a small host, seen by the series only: the large fleet is unknown, with its cause.
fn without_memory(store: &Path) {
    let can = Command::new("unshare").args(["-m", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return;
    }
    let small = tempfile::NamedTempFile::new().unwrap();
    fs::write(small.path(), "MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\n").unwrap();
    let line = format!(
        "scale --to 2m --points 2 --refine 0 {} {THINK}",
        LOAD.replace("--agents 300 ", "")
    );
    let script = format!(
        "mount --bind {} /proc/meminfo && exec \"$PROGRAM\" --store \"$STORE\" {line}",
        small.path().display()
    );
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", &script]).env("PROGRAM", PROGRAM).env("STORE", store);
    let output = shell.stdin(Stdio::null()).output().unwrap();
    let found = data(store, "scale", &output);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let cause = found["points"][1]["cost"]["unknown"].as_str().unwrap();
    assert!(cause.contains("MB of memory"), "{found}");
    assert_eq!(found["capacity"]["fails"], 2_000_000, "{found}");
}
