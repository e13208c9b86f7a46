//! The large fleets, each alone on the machine: `.ci/scale` runs them in a release build.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs a soak; returns the report.
fn soak(line: &str) -> Value {
    let store = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailbeam"));
    program.arg("--store").arg(store.path()).args(line.split(' ')).args(["--format", "json"]);
    let output = program.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    // Too short for every gate: INCONCLUSIVE is what a run of this length can say.
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["data"].clone()
}

#[expect(clippy::print_stderr, reason = "the figures are what the run is for")]
fn nothing_is_capped(data: &Value, agents: u64) {
    assert_eq!(data["agents"]["live_min"], agents);
    assert_eq!(data["agents"]["live_max"], agents);
    let load = &data["load"];
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no figure: {value}"));
    let ratio = number(&load["offered_per_s"]) / number(&load["planned_per_s"]);
    assert!((0.98..1.02).contains(&ratio), "{load}");
    let outcomes = &load["outcomes"];
    assert_eq!(outcomes["attempts"], outcomes["ok"], "{outcomes}");
    for bytes in ["bytes_per_agent", "rss_per_agent"] {
        assert!((100.0..10_000.0).contains(&number(&data["agents"][bytes])), "{}", data["agents"]);
    }
    eprintln!(
        "{agents} agents: {:.0}/s, {} B per agent in tables, {} B RSS per agent, p50 {} p99 {} max {} ns, little {}",
        number(&load["served_per_s"]),
        data["agents"]["bytes_per_agent"],
        data["agents"]["rss_per_agent"],
        data["latency"][0]["p50_ns"],
        data["latency"][0]["p99_ns"],
        data["latency"][0]["max_ns"],
        data["littles_law"]["ratio"],
    );
}

#[test]
#[ignore = "30 s alone on the machine, in a release build: .ci/scale"]
fn a_hundred_thousand_agents() {
    nothing_is_capped(&soak("soak --agents 100000 --duration 30s"), 100_000);
}

#[test]
#[ignore = "60 s alone on the machine, in a release build: .ci/scale"]
fn a_million_agents() {
    let line = "soak --agents 1000000 --think 30s..60s --duration 60s";
    nothing_is_capped(&soak(line), 1_000_000);
}
