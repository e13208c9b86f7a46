//! In a scope one allocation in so many is really refused, by the allocator itself; outside of it, on other threads and
//! afterwards nothing is, and the totals are exact all along, also while every object is sampled.

use std::hint::black_box;

use tailbeam_probes::collect::heap::{HeapConfig, TailbeamAlloc, live, shortage, start};

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

fn made(n: u64) -> Option<Box<[u64; 8]>> {
    black_box(shortage::try_box(|| [n; 8]))
}

/// What is asked for in and beside a scope; the totals must be what is held.
fn round() {
    let mut held = Vec::with_capacity(1_000);
    let mut bytes: Vec<u8> = Vec::new();
    let before = live().expect("installed");
    let mut refused = 0;
    for n in 0..300u64 {
        let short = shortage::scope(3);
        held.extend(made(n));
        refused += short.refused();
    }
    assert_eq!((held.len(), refused), (200, 100), "one in three, whatever the scopes");
    assert!(held.iter().all(|one| one[0] == one[7]), "each is whole");
    held.extend((0..50).filter_map(made));
    assert_eq!(held.len(), 250, "outside of a scope none is");
    {
        let _short = shortage::scope(1);
        assert!(bytes.try_reserve_exact(100).is_err() && made(1).is_none());
        {
            let _none = shortage::scope(0);
            bytes.try_reserve_exact(100).expect("a scope in it that refuses none");
            bytes.resize(100, 7);
        }
        assert!(bytes.try_reserve_exact(100_000).is_err(), "it grows in vain");
        assert!(bytes.iter().all(|byte| *byte == 7), "and is what it was");
        bytes.shrink_to(50);
        held.truncate(200);
    }
    {
        let _short = shortage::scope(1_000);
        bytes.try_reserve_exact(3 << 20).expect("another one is refused");
        bytes.resize(2 << 20, 8);
        assert!(bytes[..100].iter().all(|byte| *byte == 7));
        bytes.truncate(0);
        bytes.shrink_to(0);
        assert!(vec![0u32; 1_000].iter().all(|word| *word == 0), "zeroed as outside");
    }
    let after = live().expect("installed");
    assert_eq!(after.objects - before.objects, 200);
    assert_eq!(after.bytes - before.bytes, 200 * 64);
}

#[test]
fn a_scope_refuses_its_share_and_the_totals_stay_exact() {
    round();
    let short = shortage::scope(1);
    let elsewhere = {
        let _none = shortage::scope(0);
        std::thread::spawn(|| (0..10).filter_map(made).count()).join().expect("it ends")
    };
    assert_eq!((elsewhere, short.refused()), (10, 0), "another thread has no scope");
    drop(short);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap.tbh");
    let session = start(&HeapConfig { mean_bytes: 1, ..HeapConfig::new(path) }).expect("starts");
    round();
    session.tick(tailbeam_probes::clock::monotonic_ns());
    round();
}
