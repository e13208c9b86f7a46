//! A program of its own with the sampler on: what the file says against what the program did.

use std::sync::mpsc;
use std::thread;

use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::heap::{
    HeapConfig, HeapError, TailbeamAlloc, live, name_owner, owner, owner_ended, start,
};
use tailbeam_probes::record::heap_file;

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

#[inline(never)]
fn leak(bytes: usize, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| std::hint::black_box(vec![1u8; bytes])).collect()
}

#[test]
fn the_file_tells_what_lives_by_site_and_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap.tbh");
    let config =
        HeapConfig { mean_bytes: 4_096, seed: 5, command: "test".into(), ..HeapConfig::new(&path) };
    let session = start(&config).expect("starts");
    assert!(matches!(start(&config), Err(HeapError::Running)));
    assert!(name_owner(17, "agent seventeen"));
    let held = {
        let _agent = owner::scope(17);
        leak(10_000, 2_000)
    };
    let gone = leak(500, 20_000);
    drop(gone);
    // Freed by another thread.
    let (send, receive) = mpsc::channel::<Vec<Vec<u8>>>();
    let other = thread::spawn(move || receive.into_iter().map(|b| b.len()).sum::<usize>());
    send.send(leak(3_000, 3_000)).expect("the thread lives");
    drop(send);
    assert_eq!(other.join().expect("no panic"), 3_000);
    let big = vec![7u8; 40 << 20];
    let mut grown = Vec::new();
    for i in 0..300_000u64 {
        grown.push(i);
    }
    owner_ended(17);
    session.operations(99);
    session.tick(monotonic_ns());
    let seen = heap_file::read(&path).expect("readable");
    let bytes = |owner: u32| {
        let of = seen.samples.iter().filter(|s| s.owner == owner && s.size < 1 << 20);
        of.map(|s| s.weight).sum::<f64>()
    };
    assert!((bytes(17) / 20e6 - 1.0).abs() < 0.05, "{}", bytes(17));
    let large: Vec<_> = seen.samples.iter().filter(|s| s.size > 1 << 20).collect();
    assert!(large.iter().any(|s| s.size == 40 << 20 && s.weight == s.size as f64), "{large:?}");
    let chain = seen.samples.iter().find(|s| s.size == grown.capacity() as u64 * 8);
    assert!(chain.is_some_and(|s| s.grown > 5), "{chain:?}");
    assert_eq!(seen.ended.len(), 1);
    assert_eq!(seen.owner_names, [(17, "agent seventeen".to_owned())]);
    assert_eq!(seen.sampler.lost, []);
    let census = seen.census.last().expect("ticked");
    assert!(census.live_bytes.abs_diff(live().expect("installed").bytes) < 1 << 20, "{census:?}");
    assert_eq!(census.operations, Some(99));
    assert!(census.held_bytes.is_some_and(|held| held > 20_000_000), "{census:?}");
    assert!(census.rss_bytes.is_some_and(|rss| rss > 50_000_000), "{census:?}");
    assert!(seen.modules.iter().any(|m| m.path.contains("heap_sampled") && !m.build_id.is_empty()));
    // The owner's site has the function that leaks among its frames.
    let site = seen.samples.iter().find(|s| s.owner == 17).expect("sampled").site;
    let site = seen.sites.iter().find(|s| s.id == site).expect("told");
    assert!(site.frames.len() > 5 && site.frames.iter().all(|f| f.module != u32::MAX), "{site:?}");
    // Births less deaths is what lives, in counts and in bytes.
    let count = |site: u32| {
        let births = seen.births.iter().filter(|b| b.site == site).map(|b| b.count).sum::<u64>();
        let deaths = seen.deaths.iter().filter(|d| d.site == site).map(|d| d.count).sum::<u64>();
        births - deaths
    };
    let sum = |site: u32| {
        let births = seen.births.iter().filter(|b| b.site == site).map(|b| b.bytes).sum::<f64>();
        births - seen.deaths.iter().filter(|d| d.site == site).map(|d| d.bytes).sum::<f64>()
    };
    for site in &seen.sites {
        let live: Vec<_> = seen.samples.iter().filter(|s| s.site == site.id).collect();
        assert_eq!(count(site.id), live.len() as u64, "{site:?}");
        let weight = live.iter().map(|s| s.weight).sum::<f64>();
        assert!((sum(site.id) - weight).abs() < 1e-6 * weight.max(1e6), "{site:?}");
    }
    assert!(seen.sampler.state_bytes <= 16_000_000, "{}", seen.sampler.state_bytes);
    drop((held, big, grown));
    drop(session);
    let seen = heap_file::read(&path).expect("readable");
    assert!(!seen.samples.iter().any(|s| s.owner == 17), "all were freed");
}
