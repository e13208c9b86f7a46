//! A process that is killed leaves a file that says what lived.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::heap::{HeapConfig, TailbeamAlloc, owner, owner_ended, start};
use tailbeam_probes::record::heap::HeapSnapshot;
use tailbeam_probes::record::heap_file;

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

const CHILD: &str = "TAILBEAM_TEST_HEAP_KILLED";

/// Runs this test program again as the process that dies.
fn killed(mode: &str, path: &Path) -> HeapSnapshot {
    let status = Command::new(std::env::current_exe().expect("known"))
        .args(["--exact", "the_child", "--nocapture"])
        .env(CHILD, format!("{mode} {}", path.display()))
        .status()
        .expect("runs");
    assert_eq!(status.signal(), Some(9), "it was killed");
    heap_file::read(path).expect("readable after a kill")
}

#[test]
fn the_child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (mode, path) = order.split_once(' ').expect("two words");
    let config = match mode {
        "exact" => HeapConfig::exact(path),
        _ => HeapConfig { mean_bytes: 8_192, ..HeapConfig::new(path) },
    };
    let session = start(&config).expect("starts");
    let leak = |count: usize, bytes: usize| {
        (0..count).for_each(|_| std::mem::forget(std::hint::black_box(vec![7u8; bytes])));
    };
    {
        let _agent = owner::scope(5);
        leak(1_000, 7_777);
    }
    // The agent ends and leaves its blocks behind; the next one outlives the process.
    owner_ended(5);
    if mode == "ticked" {
        session.tick(monotonic_ns());
    }
    {
        let _agent = owner::scope(6);
        leak(500, 3_333);
        drop(std::hint::black_box(vec![1u8; 5_555]));
    }
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .expect("allowed");
}

fn check(mode: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let seen = killed(mode, &dir.path().join("heap.tbh"));
    let of = |owner: u32, size: u64| {
        seen.samples.iter().filter(|s| s.owner == owner && s.size == size).collect::<Vec<_>>()
    };
    for (owner, size, count) in [(5, 7_777, 1_000), (6, 3_333, 500)] {
        let found = of(owner, size);
        let bytes = found.iter().map(|s| s.weight).sum::<f64>();
        if mode == "exact" {
            assert_eq!(found.len(), count, "every object");
            assert!(found.iter().all(|s| s.weight == size as f64 && s.address != 0));
        }
        let truth = size as f64 * count as f64;
        assert!((bytes / truth - 1.0).abs() < 0.25, "{mode} {owner}: {bytes} of {truth}");
    }
    assert!(of(6, 5_555).is_empty(), "it was freed");
    assert_eq!(seen.ended.iter().map(|e| e.owner).collect::<Vec<_>>(), [5], "an orphan's owner");
    assert_eq!(seen.sampler.lost, []);
    assert_eq!(seen.census.len(), usize::from(mode == "ticked"));
    let births: u64 = seen.births.iter().map(|b| b.count).sum();
    let deaths: u64 = seen.deaths.iter().map(|d| d.count).sum();
    assert_eq!(births - deaths, seen.samples.len() as u64, "events that nobody took are counted");
    assert!(std::fs::metadata(dir.path().join("heap.tbh")).expect("is").len() < 80 << 20);
}

#[test]
fn sampled_objects_survive_a_kill_with_and_without_a_tick() {
    check("ticked");
    check("bare");
}

#[test]
fn exact_mode_lists_every_object_after_a_kill() {
    check("exact");
}
