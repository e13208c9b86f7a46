//! Latency over time read by the programs its exports are for: the Firefox Profiler, HdrHistogram's Python
//! reader, promtool.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tailbeam::render::export::{gzipped, hlog, openmetrics, timeline};
use tailbeam_harness::evidence::Intervals;
use tailbeam_probes::stats::Histogram;

use super::firefox::Session;
use super::latency_fixture::Run;
use super::programs::{consumer, npm, run};

pub(crate) fn intervals(change: impl FnOnce(&mut Run)) -> (tempfile::TempDir, Intervals) {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::new();
    change(&mut run);
    run.write(dir.path());
    let intervals = Intervals::open(dir.path()).unwrap();
    (dir, intervals)
}

#[test]
fn the_firefox_profiler_lists_cores_markers_and_counters() {
    let session = Session::open(|path| {
        let (_dir, mut intervals) = intervals(|_| {});
        let mut file = File::create(path).unwrap();
        gzipped(&mut file, |out| timeline::write(&mut intervals, &mut |_| true, out).map(drop))
            .unwrap();
    });
    let Some(session) = session else { return };
    let threads = session.json(&["thread", "list"])["threads"].clone();
    let names: Vec<&str> =
        threads.as_array().unwrap().iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Core 1", "Core 3"]);
    let markers = session.ask(&["thread", "markers", "--thread", "t-0"]);
    for name in ["run queue", "service", "long turn", "preempted"] {
        assert!(markers.contains(name), "{name:?} is not in {markers}");
    }
    let counters = session.ask(&["counter", "list"]);
    for name in ["task-clock, core 1", "page-faults, core 3"] {
        assert!(counters.contains(name), "{name:?} is not in {counters}");
    }
    assert!(!counters.contains("cycles"), "what is unknown is no series: {counters}");
}

/// A virtual environment of `.ci/consumers`, where it has this module.
pub(crate) fn python(module: &str) -> Option<PathBuf> {
    let python = npm().join("py/bin/python");
    let found = Command::new(&python)
        .args(["-c", &format!("import {module}")])
        .output()
        .is_ok_and(|output| output.status.success());
    consumer(&format!("Python with {module}"), found).then_some(python)
}

#[test]
fn pythons_hdrhistogram_reads_the_same_counts_and_percentiles() {
    let Some(python) = python("hdrh") else { return };
    let (dir, mut intervals) = intervals(|_| {});
    let path = dir.path().join("latency.hlog");
    let windows =
        hlog::write(&mut intervals, &mut |_| true, &mut File::create(&path).unwrap()).unwrap();
    assert_eq!(windows, 6);
    let script = "
import json, sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
found = {}
reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 3600 * 10**9, 3))
while True:
    h = reader.get_next_interval_histogram()
    if h is None: break
    one = found.setdefault(h.get_tag(), [HdrHistogram(1, 3600 * 10**9, 3), 0])
    one[0].add(h); one[1] += 1
print(json.dumps({tag: [h.get_total_count(), n, h.get_value_at_percentile(50.0),
    h.get_value_at_percentile(99.0), h.get_max_value()] for tag, (h, n) in found.items()}))";
    let out = run(Command::new(python).arg("-c").arg(script).arg(&path));
    let found: Value = serde_json::from_str(&out).unwrap();
    let mut all = Histogram::new();
    for window in Run::new().windows {
        window.system.iter().for_each(|of| all.merge(of));
    }
    let row = &found["system.all"];
    assert_eq!((&row[0], &row[1]), (&all.count().into(), &6.into()), "{found}");
    let (max, exact) = (row[4].as_u64().unwrap(), all.max().unwrap());
    // Theirs is the upper end of a bucket; ours is never above the exact maximum.
    let percentile = |k: usize| row[k].as_u64().map(|ns| ns.min(exact));
    assert_eq!((percentile(2), percentile(3)), (all.quantile(0.5), all.quantile(0.99)));
    assert!(max >= exact && max - exact <= exact / 1_000, "{max} for {exact}");
    for core in ["system.core1", "system.core3"] {
        assert_eq!(found[core][0], 3_000, "{found}");
    }
}

fn promtool() -> Option<PathBuf> {
    let own = npm().join("prometheus/usr/bin/promtool");
    let path = if own.exists() { own } else { PathBuf::from("promtool") };
    let found = Command::new(&path).arg("--version").output().is_ok();
    consumer("promtool", found).then_some(path)
}

#[test]
fn promtool_builds_blocks_from_the_backfill() {
    let Some(promtool) = promtool() else { return };
    let (dir, mut intervals) = intervals(|run| {
        // A counter that is unknown for a window starts again.
        for tick in &mut run.windows[2].cores[0].ticks {
            tick.counters[1].count =
                tailbeam_probes::record::latency::Count::Unknown("x".to_owned());
        }
    });
    let path = dir.path().join("run.om");
    openmetrics::write(&mut intervals, &mut |_| true, &mut File::create(&path).unwrap()).unwrap();
    let blocks = dir.path().join("blocks");
    let mut command = Command::new(promtool);
    command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&path).arg(&blocks);
    let out = run(&mut command);
    assert!(out.contains("BLOCK ULID"), "{out}");
    let made = fs::read_dir(&blocks).unwrap().filter_map(Result::ok);
    let made: Vec<_> = made.filter(|entry| has_chunks(&entry.path())).collect();
    assert!(!made.is_empty(), "a block with chunks is on disk");
    let text = fs::read_to_string(&path).unwrap();
    let last = |name: &str| {
        let line = text.lines().rfind(|line| line.starts_with(name)).unwrap();
        line.split(' ').nth(1).unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(last("tailbeam_requests_total{outcome=\"ok\"}"), 6_000.0);
    assert_eq!(last("tailbeam_system_latency_seconds_count{core=\"1\"}"), 3_000.0);
    let faults = "tailbeam_core_events_total{core=\"1\",counter=\"page-faults\"}";
    let rows = text.lines().filter(|line| line.starts_with(faults)).count();
    assert_eq!(rows, 5, "no sample where it is unknown");
}

fn has_chunks(block: &Path) -> bool {
    block.join("chunks").is_dir() && block.join("meta.json").is_file()
}
