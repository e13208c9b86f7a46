//! The hooks allocate nothing: with every object sampled, the program's own are all that is counted.

use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::heap::{HeapConfig, TailbeamAlloc, live, owner, owner_ended, start};

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

#[test]
fn sampling_ticks_and_tags_allocate_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = HeapConfig { mean_bytes: 1, ..HeapConfig::new(dir.path().join("heap.tbh")) };
    let session = start(&config).expect("starts");
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(10_000);
    let before = live().expect("installed");
    for index in 0..10_000u32 {
        let _agent = owner::scope(index % 7);
        held.push(vec![1; 64]);
        drop(std::hint::black_box(vec![1u8; 100]));
        if index % 1_000 == 0 {
            owner_ended(index % 7);
            session.tick(monotonic_ns());
        }
    }
    let after = live().expect("installed");
    assert_eq!(after.objects - before.objects, 10_000);
    assert_eq!(after.bytes - before.bytes, 640_000);
}
