//! `go tool pprof`.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use tailbeam::render::export::pprof::Metric;
use tailbeam::render::leaks::By;
use tailbeam_probes::analyse::profile::{Frames, HeapProfile};

use super::programs::{TOP, consumer, flat, npm, pprof, run};
use super::{Made, earlier};

/// Live bytes by function as the document has them, unknown frames named as pprof names them.
fn expected(made: &Made) -> BTreeMap<String, i64> {
    let mut expected = BTreeMap::new();
    for (name, bytes) in made.by_function() {
        let name = match name.split_once("+0x") {
            Some((file, _)) => format!("[{file}]"),
            None => name,
        };
        *expected.entry(name).or_default() += bytes;
    }
    expected.retain(|_, bytes| *bytes != 0);
    expected
}

#[test]
fn top_agrees_with_leaks_by_site_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heap.pb.gz");
    let made = Made::new(|_| {});
    made.file(&path, None, "pprof");
    let Some(top) = pprof(&TOP, &[&path]) else { return };
    assert_eq!(flat(&top), expected(&made), "{top}");
    let total = made.profile.live_total().bytes;
    assert!(top.contains(&format!("Total samples = {total}B")), "{top}");
    assert!(top.contains("Type: inuse_space") && top.contains("Duration: 8hrs"), "{top}");
    // The metric that nobody asked for is the one that leaks are about.
    let plain = pprof(&["-top", "-unit=B", "-nodefraction=0"], &[&path]).unwrap();
    assert_eq!(flat(&plain), expected(&made), "{plain}");
}

#[test]
fn each_metric_has_its_own_sums() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heap.pb.gz");
    let made = Made::new(|_| {});
    made.file(&path, None, "pprof");
    for metric in Metric::ALL {
        let (name, _) = metric.name();
        let index = format!("-sample_index={name}");
        let Some(top) = pprof(&["-top", &index, "-unit=B", "-nodefraction=0"], &[&path]) else {
            return;
        };
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        let live = made.profile.live.iter().map(|holding| (holding.stack, holding.amount));
        let ever = made.profile.allocated.iter().copied().enumerate();
        let parts: Vec<_> = if name.starts_with("inuse") { live.collect() } else { ever.collect() };
        for (stack, amount) in parts {
            let name = made.profile.names(&made.profile.stacks[stack]).swap_remove(0);
            let name = name.split_once("+0x").map_or(name.clone(), |(file, _)| format!("[{file}]"));
            *sums.entry(name).or_default() += metric.of(amount);
        }
        sums.retain(|_, sum| *sum != 0);
        assert_eq!(flat(&top), sums, "{name}: {top}");
    }
}

#[test]
fn a_base_shows_the_growth_in_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let (now, before, diff) = (file("now.pb.gz"), file("before.pb.gz"), file("diff.pb.gz"));
    let (made, earlier) = (Made::new(|_| {}), earlier());
    made.file(&now, None, "pprof");
    earlier.file(&before, None, "pprof");
    made.file(&diff, Some(&earlier), "pprof");
    let mut growth = expected(&made);
    for (name, bytes) in expected(&earlier) {
        *growth.entry(name).or_default() -= bytes;
    }
    growth.retain(|_, bytes| *bytes != 0);
    assert!(growth["exchange::book::Book::apply"] > 7_000_000, "{growth:?}");
    assert!(growth["exchange::wire::decode"] < 0, "{growth:?}");
    let base = format!("-diff_base={}", before.display());
    let Some(theirs) = pprof(&[&TOP[..], &[&base]].concat(), &[&now]) else { return };
    assert_eq!(flat(&theirs), growth, "{theirs}");
    let ours = pprof(&TOP, &[&diff]).unwrap();
    assert_eq!(flat(&ours), growth, "{ours}");
}

#[test]
fn labels_are_agent_core_size_class_and_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heap.pb.gz");
    let made = Made::new(|_| {});
    made.file(&path, None, "pprof");
    let Some(tags) = pprof(&["-tags", "-unit=B"], &[&path]) else { return };
    for (by, label, name) in [
        (By::Agent, "agent", "agent"),
        (By::Core, "core", "core"),
        (By::Size, "size_class", "up_to_bytes"),
    ] {
        let block = tags.split("\n\n").find(|block| block.trim().starts_with(label)).unwrap();
        let document = made.leaks(by);
        for row in document["data"]["live"]["rows"].as_array().unwrap() {
            let bytes = row["bytes"].as_i64().unwrap();
            let value = match &row[name] {
                Value::String(text) => text.clone(),
                number => number.to_string() + if label == "size_class" { "B" } else { "" },
            };
            let line = block.lines().find(|line| line.trim_end().ends_with(&format!("): {value}")));
            match line {
                Some(line) => assert!(line.contains(&format!("{bytes}.0B (")), "{line}: {bytes}"),
                None => assert_eq!(bytes, 0, "{value} is not in {block}"),
            }
        }
    }
    let leak = pprof(&[&TOP[..], &["-tagfocus=verdict=LEAK"]].concat(), &[&path]).unwrap();
    let only = BTreeMap::from([("exchange::book::Book::apply".to_owned(), 15_562_476)]);
    assert_eq!(flat(&leak), only, "{leak}");
    let suspect = pprof(&[&TOP[..], &["-tagfocus=verdict=SUSPECT"]].concat(), &[&path]).unwrap();
    assert_eq!(flat(&suspect)["exchange::session::Cache::remember"], 659_718, "{suspect}");
}

#[test]
fn the_raw_profile_names_build_run_and_period() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heap.pb.gz");
    let mut made = Made::new(|_| {});
    made.profile = HeapProfile::of(&made.snapshot, &made.symbols, Frames::All);
    made.file(&path, None, "pprof");
    let Some(raw) = pprof(&["-raw"], &[&path]) else { return };
    let build_id = "ab".repeat(20);
    for line in [
        "Comment: run 20261124-070000-000",
        "PeriodType: space bytes",
        "Period: 65536",
        "Time: 2026-11-24 15:00:00 +0000 UTC",
        "Duration: 8h0m",
        "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]",
        &format!("1: 0x550000000000/0x550000100000/0x0 /opt/exchange {build_id} [FN][FL][LN][IN]"),
    ] {
        assert!(raw.lines().any(|found| found.trim() == line), "{line:?} is not in\n{raw}");
    }
    // Inlined functions share one address, innermost first; the address of the unknown one is kept.
    let inlined: Vec<&str> = raw.lines().filter(|line| line.contains("raw_vec.rs:472")).collect();
    assert_eq!(inlined.len(), 1, "{raw}");
    let below = raw.lines().skip_while(|line| !line.contains("raw_vec.rs:472")).nth(2).unwrap();
    assert!(below.contains("exchange::book::Book::apply /src/exchange/src/book.rs:214"), "{below}");
    assert!(raw.contains("0x7f0000001070 M=2"), "{raw}");
}

/// A decoder that is not Google's: npm's `pprof-format`.
#[test]
fn another_decoder_finds_the_same_sums() {
    let modules = npm().join("node_modules");
    let node = modules.join("node/bin/node");
    let found = node.exists() && modules.join("pprof-format").exists();
    if !consumer("pprof-format with node", found) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heap.pb.gz");
    let made = Made::new(|_| {});
    made.file(&path, None, "pprof");
    let script = r"
        const { Profile } = require(process.argv[1] + '/pprof-format');
        const bytes = require('zlib').gunzipSync(require('fs').readFileSync(process.argv[2]));
        const profile = Profile.decode(bytes), text = n => profile.stringTable.strings[Number(n)];
        const types = profile.sampleType.map(type => text(type.type)).join(' ');
        const sums = types.split(' ').map((_, k) => profile.sample.reduce((sum, s) => sum + Number(s.value[k]), 0));
        console.log(types, sums.join(' '), text(profile.defaultSampleType), text(profile.comment[0]));
    ";
    let mut command = Command::new(node);
    command.args(["-e", script]).arg(&modules).arg(&path);
    let printed = run(&mut command);
    let live = made.profile.live_total();
    let ever = made.profile.allocated.iter().fold(live.less(live), |sum, part| sum.plus(*part));
    let expected = format!(
        "alloc_objects alloc_space inuse_objects inuse_space {} {} {} {} inuse_space run 20261124-070000-000",
        ever.objects, ever.bytes, live.objects, live.bytes
    );
    assert_eq!(printed.trim(), expected);
}
