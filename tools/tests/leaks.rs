//! Leaks planted in a soak are found, with their site, agent and rate; decoys are not called leaks. Rates are high, so
//! that seconds do for hours: the statistics see sampled objects and their ages, not the clock.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tailbeam_harness::evidence::{Store, read_run};

const SOAK: &str = "soak --agents 100 --think 50ms..100ms --duration 16s --warm-up 2s --horizon 4s --heap-sample 16KiB \
                    --gate leaks --progress none";

fn run(store: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailbeam"));
    command.arg("--store").arg(store).args(line.split_whitespace()).stdin(Stdio::null());
    command.output().unwrap()
}

/// The leak report of a soak with these plants, and the soak's exit code; none where there is no io_uring.
fn leaks(plants: &str) -> Option<(Value, i32)> {
    let store = tempfile::tempdir().unwrap();
    let soak = run(store.path(), &format!("{SOAK} {plants}"));
    let err = String::from_utf8_lossy(&soak.stderr).into_owned();
    if soak.status.code() == Some(5) && err.contains("no io_uring") {
        assert!(std::env::var_os("TAILBEAM_TEST_RINGS").is_none(), "rings are required here");
        return None;
    }
    let leaks = run(store.path(), "leaks @last --format json");
    let report: Value = serde_json::from_slice(&leaks.stdout)
        .unwrap_or_else(|error| panic!("{error}: {err}{}", String::from_utf8_lossy(&leaks.stderr)));
    let mut data = report["data"].clone();
    data["planted"] = planted(store.path()).into();
    Some((data, soak.status.code().unwrap()))
}

/// Objects that the last run has planted, by plant.
fn planted(root: &Path) -> Vec<u64> {
    let dir = Store::open_existing(root).unwrap().resolve("@last").unwrap();
    let end = read_run(&dir).unwrap().end.unwrap();
    end.planted.iter().map(|plant| plant.objects).collect()
}

fn sites(report: &Value, verdict: &str) -> Vec<Value> {
    let all = report["sites"].as_array().unwrap().iter();
    all.filter(|site| site["finding"]["verdict"] == verdict).cloned().collect()
}

/// Whether a function of this name is on the site's stack.
fn passes(site: &Value, function: &str) -> bool {
    let frames = site["stack"].as_array().unwrap().iter();
    frames.filter_map(|frame| frame["function"].as_str()).any(|name| name.contains(function))
}

#[test]
fn a_forgotten_insert_is_found_with_its_agent_and_its_rate() {
    let plant = "--plant-leak kind=forgotten-insert,rate=700MB/h,agent=17";
    let Some((report, code)) = leaks(plant) else { return };
    assert_eq!((code, &report["verdict"]), (3, &"LEAK".into()));
    let found = sites(&report, "LEAK");
    // Two sites leak, the values and the nodes of the map that they lie in; the rate is that of the values.
    let values = |site: &&Value| passes(site, "planted_object");
    let all = report["sites"].as_array().unwrap();
    assert_eq!(
        all.iter().filter(values).count(),
        1,
        "its stack is the same with stamps and without"
    );
    let site = found.iter().find(values).unwrap_or_else(|| {
        panic!("{:?}", all.iter().filter(values).map(|site| &site["finding"]).collect::<Vec<_>>())
    });
    assert!(found.iter().all(|site| passes(site, "forgotten_insert")), "{found:?}");
    assert_eq!(site["agents"][0]["agent"], "17");
    let rate = &site["finding"]["rate_bytes_per_h"];
    let (low, high) = (rate["low"].as_f64().unwrap(), rate["high"].as_f64().unwrap());
    // 99.9 % of the time, not 95: the bounds are widened by two thirds.
    let slack = (high - low) / 3.0;
    assert!(low - slack < 700e6 && high + slack > 700e6, "{rate}");
}

#[test]
fn every_kind_of_leak_is_found() {
    let kinds = [
        ("rc-cycle", "rc_cycle"),
        ("growing-vec", "growing_vec"),
        ("forgotten-task", "forgotten_task"),
        ("orphan", "orphaned"),
    ];
    let plants: Vec<String> = kinds
        .iter()
        .map(|(kind, _)| format!("--plant-leak kind={kind},rate=500MB/h,agent=3"))
        .collect();
    let Some((report, code)) = leaks(&plants.join(" ")) else { return };
    assert_eq!(code, 3);
    let found = sites(&report, "LEAK");
    for (kind, function) in kinds {
        let of_kind =
            report["sites"].as_array().unwrap().iter().find(|site| passes(site, function));
        let why = of_kind.map(|site| site["finding"].clone());
        assert!(found.iter().any(|site| passes(site, function)), "{kind}: {why:?}");
    }
}

/// Handlers and futures that the registry calls forgotten, with the function they are of; and wakers of ended agents.
fn forgotten(report: &Value) -> (u64, Vec<String>, u64) {
    let rows = |key: &str| report["waits"][key].as_array().unwrap().clone();
    let waiting = rows("waiting").into_iter().filter(|of| of["forgotten"] == true);
    let (mut handlers, mut names) = (0, Vec::new());
    for of in waiting {
        assert_eq!((&of["wait_for"], of["wakers"].as_u64()), (&"nothing".into(), Some(0)));
        handlers += of["handlers"].as_u64().unwrap();
        names.push(of["type"].as_str().unwrap().to_owned());
    }
    let late = rows("late").iter().map(|of| of["wakers"].as_u64().unwrap()).sum::<u64>();
    (handlers, names, late + report["waits"]["late_unlisted_wakers"].as_u64().unwrap())
}

#[test]
fn forgotten_tasks_and_kept_wakers_are_counted_by_the_registry_and_a_clean_run_has_none() {
    let plants = "--plant-leak kind=forgotten-task,rate=50MB/h,agent=3 \
                  --plant-leak kind=kept-waker,rate=50MB/h,agent=4";
    let Some((report, _)) = leaks(plants) else { return };
    let (handlers, names, late) = forgotten(&report);
    let found: Value = vec![handlers, late].into();
    assert!(found == report["planted"] && handlers > 100 && late > 100, "{found} {report}");
    assert!(names.len() == 1 && names[0].contains("forgotten_task"), "{names:?}");
    let Some((clean, _)) = leaks("") else { return };
    assert_eq!(forgotten(&clean), (0, Vec::new(), 0), "{}", clean["waits"]);
}

#[test]
fn decoys_are_not_called_leaks() {
    let decoys = "--plant-decoy bounded-cache --plant-decoy plateau --plant-decoy kind=fragmentation,rate=2GB/h,agent=5";
    let Some((report, _)) = leaks(decoys) else { return };
    assert_eq!(sites(&report, "LEAK"), Vec::<Value>::new());
}

#[test]
fn a_run_without_a_heap_says_so() {
    let Some(()) = leaks("").map(drop) else { return };
    let store = tempfile::tempdir().unwrap();
    let line = "soak --agents 10 --duration 1s --heap-sample off --gate leaks --progress none";
    let soak = run(store.path(), line);
    let out = String::from_utf8_lossy(&soak.stdout).into_owned();
    assert_eq!(soak.status.code(), Some(4), "{out}");
    assert!(out.contains("the heap was not sampled") && out.contains("--heap-sample"), "{out}");
    let leaks = run(store.path(), "leaks @last");
    assert_eq!(leaks.status.code(), Some(1));
}
