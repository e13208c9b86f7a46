#![expect(unsafe_code, reason = "fork and waitpid have no safe form")]
//! A forked child: the parent's file stays the parent's, the child has one of its own.

use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::heap::{HeapConfig, OnFork, TailbeamAlloc, start};
use tailbeam_probes::record::heap_file;

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

fn leak(count: usize, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| std::hint::black_box(vec![1u8; bytes])).collect()
}

#[test]
fn a_child_goes_on_in_its_own_file_and_leaves_the_parents_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap.tbh");
    let config = HeapConfig { mean_bytes: 2_048, on_fork: OnFork::Own, ..HeapConfig::new(&path) };
    let session = start(&config).expect("starts");
    let before = leak(2_000, 4_321);
    session.tick(monotonic_ns());
    // SAFETY: the child only allocates, frees and ends by _exit; other threads hold no lock it needs.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "forks");
    if child == 0 {
        // Blocks from before the fork are freed here, new ones are sampled here.
        drop(before);
        std::mem::forget(leak(1_000, 5_432));
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    // SAFETY: waits for our own child, the status is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0), "the child ended well");
    session.tick(monotonic_ns());
    let of = |path: &std::path::Path, size: u64| {
        let seen = heap_file::read(path).expect("readable");
        assert_eq!(seen.sampler.lost, [], "{}", path.display());
        (seen.pid, seen.samples.iter().filter(|s| s.size == size).count())
    };
    let parent = std::process::id();
    let (pid, old) = of(&path, 4_321);
    assert!(pid == parent && old > 1_500, "{pid} {old}");
    assert_eq!(of(&path, 5_432).1, 0, "the child wrote nothing here");
    let own = dir.path().join(format!("heap.tbh.{child}"));
    let (pid, old) = of(&own, 4_321);
    assert_eq!((i64::from(pid), old), (i64::from(child), 0), "freed in the child");
    assert!(of(&own, 5_432).1 > 800);
    drop(before);
}
