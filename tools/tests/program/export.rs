//! The CPU profile in other tools' formats; `tests/consumers` lets the tools themselves read them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::bench::{Bench, sampled, samples, text};

#[test]
fn folded_stacks_begin_with_the_thread_and_sum_to_the_samples() {
    let Some(bench) = Bench::new() else { return };
    bench.record(&["--hz", "499"], &["burn", "500"]);
    let report = bench.report("@last");
    if !sampled(&report) {
        return;
    }
    let output = bench.tailbeam(&["export", "@last", "--format", "folded"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut by_leaf: BTreeMap<String, u64> = BTreeMap::new();
    let mut all = 0;
    for line in text(&output.stdout).lines() {
        let (stack, samples) = line.rsplit_once(' ').unwrap();
        let samples: u64 = samples.parse().unwrap();
        assert!(stack.starts_with("burn;"), "{line}");
        all += samples;
        *by_leaf.entry(stack.rsplit(';').next().unwrap().to_owned()).or_default() += samples;
    }
    assert_eq!(all, report["samples"].as_u64().unwrap());
    for row in report["functions"].as_array().unwrap() {
        let own = row["self_samples"].as_u64().unwrap();
        assert_eq!(by_leaf.get(row["name"].as_str().unwrap()).copied().unwrap_or(0), own, "{row}");
    }
    assert!(samples(&report, "main") * 10 > all * 9, "chains reach main");
}

#[test]
fn a_firefox_profile_has_a_track_per_thread_and_the_cpu_time_of_each_sample() {
    let Some(bench) = Bench::new() else { return };
    bench.record(&[], &["idle", "500"]);
    let report = bench.report("@last");
    let output = bench.tailbeam(&["export", "@last", "--format", "firefox"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let profile: Value = serde_json::from_slice(&output.stdout).unwrap();
    let threads = profile["threads"].as_array().unwrap();
    let named = |name: &str| threads.iter().find(|thread| thread["name"] == name).unwrap();
    assert_eq!(named("idle")["samples"]["length"], 0);
    let burn = named("burn");
    let count = burn["samples"]["length"].as_u64().unwrap();
    assert_eq!(count, report["samples"].as_u64().unwrap());
    if sampled(&report) {
        assert!(count > 20, "{count}");
        let deltas = burn["samples"]["threadCPUDelta"].as_array().unwrap();
        assert!(deltas.iter().all(|delta| *delta == 10_101), "a period in us: {deltas:?}");
    }
    let counters = profile["counters"].as_array().unwrap();
    assert!(counters.iter().any(|counter| counter["name"] == "cpu_us"), "{counters:?}");
}

#[test]
fn a_pprof_file_is_gzip_and_no_text_for_a_terminal() {
    let Some(bench) = Bench::new() else { return };
    bench.record(&[], &["burn", "200"]);
    let path = bench.path().join("cpu.pb.gz");
    let output = bench
        .tailbeam(&["export", "@last", "--to", "pprof", "-o", path.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(std::fs::read(&path).unwrap()[..2], [0x1f, 0x8b]);
}

#[test]
fn with_a_heap_the_cpu_profile_is_asked_for() {
    let Some(bench) = Bench::new() else { return };
    let object =
        std::path::Path::new(crate::bench::PROGRAM).with_file_name("libtailbeam_preload.so");
    let deps =
        std::path::Path::new(crate::bench::PROGRAM).with_file_name("deps/libtailbeam_preload.so");
    if !object.exists() && !deps.exists() {
        return crate::bench::skip("the object to preload is not built");
    }
    let output = bench.record(&["--heap"], &["burn", "300"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let cpu = bench.tailbeam(&["export", "@last", "--to", "folded", "--cpu"]).output().unwrap();
    let heap = bench.tailbeam(&["export", "@last", "--to", "folded"]).output().unwrap();
    assert_eq!((cpu.status.code(), heap.status.code()), (Some(0), Some(0)));
    let report = bench.report("@last");
    assert!(!sampled(&report) || text(&cpu.stdout).contains(";three;"), "{}", text(&cpu.stdout));
    assert!(!text(&heap.stdout).contains(";three;"));
}
