//! One real heap from the allocator to every view and export: a program that leaks on purpose, in exact
//! mode and on a manual clock, so that every figure is known. In a binary of its own, for it has the
//! allocator.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "consumers/programs.rs"]
mod programs;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tailbeam::{TailbeamAlloc, workloads};
use tailbeam_probes::collect::heap::{HeapConfig, owner, start};

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

const STEPS: u64 = 960;
const STEP_NS: u64 = 30_000_000_000;

#[inline(never)]
fn forget_an_order(kept: &mut Vec<Box<[u8]>>) {
    kept.push(std::hint::black_box(vec![7; 1_000]).into_boxed_slice());
}

#[inline(never)]
fn pass_by() {
    drop(std::hint::black_box(vec![1u8; 3_000]));
}

/// Eight virtual hours: one order forgotten each step by agent 17, five things that pass by.
fn record(run: &Path) -> Vec<Box<[u8]>> {
    let state = run.join("heap.tbh");
    let config = HeapConfig {
        manual_clock: true,
        command: "trader --live".to_owned(),
        ..HeapConfig::exact(&state)
    };
    // The list itself is there before the sampler: it is not one of the objects.
    let mut kept = Vec::with_capacity(usize::try_from(STEPS).unwrap());
    let session = start(&config).unwrap();
    for step in 0..STEPS {
        session.tick(step * STEP_NS);
        let agent = owner::scope(17);
        forget_an_order(&mut kept);
        drop(agent);
        for _ in 0..5 {
            pass_by();
        }
        if step == STEPS / 2 {
            fs::copy(&state, run.join("heap-at-14400s.tbh")).unwrap();
        }
    }
    session.tick(STEPS * STEP_NS);
    drop(session);
    kept
}

struct Cli<'a>(&'a Path);

impl Cli<'_> {
    /// Exit code, stdout, stderr.
    fn run(&self, line: &str) -> (u8, Vec<u8>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let words = ["tailbeam", "--store"].map(OsString::from).into_iter();
        let words = words.chain([self.0.as_os_str().to_owned()]);
        let words = words.chain(line.split(' ').map(OsString::from));
        let code = tailbeam::run(words, workloads![tailbeam::Elicit], &mut out, &mut err);
        (code, out, String::from_utf8(err).unwrap())
    }

    fn json(&self, line: &str) -> Value {
        let (_, out, err) = self.run(&format!("{line} --format json"));
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{line}: {error}: {err}"))
    }

    fn text(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!((code, &*err), (0, ""), "{line}");
        String::from_utf8(out).unwrap()
    }

    /// The one error that a line must end in.
    fn refused(&self, line: &str, code: u8, parts: &[&str]) {
        let (found, out, err) = self.run(line);
        assert_eq!((found, out.len()), (code, 0), "{line}: {err}");
        for part in parts.iter().chain(&["error: ", "\n  cause: ", "\n  remedy: "]) {
            assert!(err.contains(part), "{line}: {part:?} is not in {err}");
        }
    }
}

fn site<'a>(document: &'a Value, name: &str) -> &'a Value {
    let rows = document["data"]["live"]["rows"].as_array().unwrap();
    let found = rows.iter().find(|row| row["function"].as_str().unwrap().ends_with(name));
    found.unwrap_or_else(|| panic!("{name} is not in {rows:#?}"))
}

#[test]
fn a_heap_from_the_allocator_to_every_view_and_export() {
    let store = tempfile::tempdir().unwrap();
    let id = "20261125-120000-000";
    let run = store.path().join(id);
    fs::create_dir_all(run.join("seg")).unwrap();
    let kept = record(&run);
    let cli = Cli(store.path());
    leaks(&cli, &run);
    gates(&cli);
    views(&cli);
    exports(&cli, store.path());
    refusals(&cli, store.path(), &run);
    drop(kept);
}

fn leaks(cli: &Cli<'_>, run: &Path) {
    let document = cli.json("leaks @last --by site");
    let schema: Value = serde_json::from_str(&cli.text("leaks --schema")).unwrap();
    jsonschema::validator_for(&schema).unwrap().validate(&document).unwrap();
    let order = site(&document, "forget_an_order");
    assert_eq!((&order["bytes"], &order["objects"]), (&960_000.into(), &960.into()), "{order}");
    assert!(order["line"].as_str().unwrap().contains("heap_run.rs:"), "{order}");
    let passed = site(&document, "pass_by");
    assert_eq!(passed["bytes"], 0, "{passed}");
    assert_eq!(passed["allocated"], serde_json::json!({"bytes": 14_400_000, "objects": 4_800}));
    let by_agent = cli.json("leaks @last --by agent");
    let agent = &by_agent["data"]["live"]["rows"].as_array().unwrap()[0];
    assert_eq!((&agent["agent"], &agent["bytes"]), (&"17".into(), &960_000.into()), "{agent}");
    // By every name that a run has.
    for name in ["@last", "2026", run.to_str().unwrap(), run.join("heap.tbh").to_str().unwrap()] {
        let again = cli.json(&format!("leaks {name} --by site"));
        assert_eq!(site(&again, "forget_an_order"), order, "{name}");
    }
    let limits = "--warm-up 10m --horizon 20m --limit 20KB/h";
    let (code, out, _) = cli.run(&format!("leaks @last {limits} --fail-on leak"));
    let text = String::from_utf8(out).unwrap();
    assert_eq!(code, 3, "{text}");
    let (first, rest) = text.split_once("#1 LEAK").unwrap_or_else(|| panic!("no leak in {text}"));
    assert!(first.contains("Verdict  LEAK"), "{text}");
    let title = rest.lines().next().unwrap();
    assert!(title.contains("forget_an_order") && title.contains("+117 KiB/h"), "{title}");
    assert!(rest.contains("agent 17") && rest.contains("heap_run.rs:"), "{text}");
}

/// What `--fail-on` says of runs that leak, do not, or cannot be judged.
fn gates(cli: &Cli<'_>) {
    let limits = "--warm-up 10m --horizon 20m";
    for (line, code) in [
        (format!("leaks @last {limits} --limit 20KB/h"), 0),
        (format!("leaks @last {limits} --limit 20KB/h --fail-on suspect"), 3),
        // 8 hours are younger than three times this warm-up.
        ("leaks @last --warm-up 4h --limit 20KB/h --fail-on leak".to_owned(), 4),
    ] {
        let (found, out, err) = cli.run(&line);
        assert_eq!(found, code, "{line}: {}{err}", String::from_utf8_lossy(&out));
    }
    let plan = cli.text("leaks --plan 2MB/h --mean 64KiB");
    assert!(plan.contains("64.0 KiB") && !plan.contains("512 KiB"), "{plan}");
    let (code, _, err) = cli.run("leaks --plan 2MB");
    assert!(code == 2 && err.contains("2MB/h"), "{err}");
}

fn views(cli: &Cli<'_>) {
    let tree = cli.text("leaks @last --view tree");
    assert!(tree.contains("forget_an_order"), "{tree}");
    let objects = cli.json("leaks @last --view objects");
    let list = objects["data"]["objects"].as_array().unwrap();
    let orders: Vec<&Value> = list.iter().filter(|object| object["owner"] == 17).collect();
    assert_eq!(orders.len(), 960);
    assert!(orders.iter().all(|o| o["size_bytes"] == 1_000 && o["address"].as_u64() > Some(0)));
    let drawn = cli.text("leaks @last --view objects --top 3");
    assert!(drawn.contains("960 objects live, 960,000 bytes requested"), "{drawn}");
    let diff = cli.json("leaks @last --base @last@4h");
    let rows = diff["data"]["diff"]["rows"].as_array().unwrap();
    let order =
        rows.iter().find(|row| row["function"].as_str().unwrap().ends_with("forget_an_order"));
    let order = order.unwrap();
    assert_eq!(
        (&order["before"]["objects"], &order["after"]["objects"]),
        (&481.into(), &960.into())
    );
}

fn exports(cli: &Cli<'_>, dir: &Path) {
    let file = |name: &str| dir.join(name);
    let pb = file("heap.pb.gz");
    let (code, out, err) = cli.run(&format!("export @last --to pprof -o {}", pb.display()));
    assert_eq!((code, out.len()), (0, 0), "{err}");
    assert!(err.starts_with("pprof: "), "{err}");
    let (_, piped, _) = cli.run("export @last --to pprof");
    assert_eq!(piped, fs::read(&pb).unwrap(), "stdout is the same profile");
    let folded = cli.text("export @last --to folded --metric inuse-objects");
    let line = folded.lines().find(|line| line.ends_with(" 960")).unwrap();
    assert!(line.contains("record;") && line.contains("forget_an_order 960"), "{line}");
    let firefox: Value = serde_json::from_str(&cli.text("export @last --to firefox")).unwrap();
    let weights = firefox["threads"].as_array().unwrap().iter();
    let weights = weights.flat_map(|t| t["nativeAllocations"]["weight"].as_array().unwrap());
    let sum: i64 = weights.map(|weight| weight.as_i64().unwrap()).sum();
    let document = cli.json("leaks @last --by site");
    assert_eq!(document["data"]["live"]["total"]["bytes"], sum);
    let Some(top) = programs::pprof(&programs::TOP, &[&pb]) else { return };
    let mut expected = std::collections::BTreeMap::new();
    for row in document["data"]["live"]["rows"].as_array().unwrap() {
        let name = row["function"].as_str().unwrap().to_owned();
        *expected.entry(name).or_insert(0) += row["bytes"].as_i64().unwrap();
    }
    expected.retain(|_, bytes| *bytes != 0);
    assert_eq!(programs::flat(&top), expected, "{top}");
}

fn refusals(cli: &Cli<'_>, store: &Path, run: &Path) {
    cli.refused("leaks nothing", 1, &["no run named nothing", "runs list"]);
    cli.refused("leaks ./none/heap.tbh", 1, &["no such file or directory"]);
    cli.refused("export nothing --to folded", 1, &["no run named nothing"]);
    cli.refused("leaks @last --view diff", 2, &["--base RUN"]);
    cli.refused("leaks @last --base @last@1h", 1, &["no heap state", "it kept 14400s"]);
    cli.refused("leaks @last --pid 77", 1, &["heap-77.tbh", "--pid"]);
    cli.refused("export @last --to firefox --base @last", 2, &["no base"]);
    cli.refused("export @last --to folded -o /nowhere/x", 1, &["cannot write /nowhere/x"]);
    let bare = store.join("20261125-110000-000");
    fs::create_dir_all(bare.join("seg")).unwrap();
    let why = ["carried no heap probe", "tailbeam record --heap"];
    cli.refused("leaks 20261125-11", 1, &why);
    cli.refused("export 20261125-11 --to pprof", 1, &why);
    // Cut, foreign, empty, of another version.
    let good = fs::read(run.join("heap.tbh")).unwrap();
    let mut newer = good.clone();
    newer[8] ^= 0x40;
    for (bytes, part) in [
        (&good[..good.len() / 2], "cut or damaged"),
        (&b"#!/bin/sh\necho no heap state here"[..], "not a heap state file"),
        (&[][..], "not a heap state file"),
        (&newer[..], "version"),
    ] {
        fs::write(bare.join("heap.tbh"), bytes).unwrap();
        cli.refused("leaks 20261125-11", 6, &[part]);
        cli.refused("export 20261125-11 --to folded", 6, &[part]);
    }
}
