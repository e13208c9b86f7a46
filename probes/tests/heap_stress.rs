//! Many threads, frees by other threads, reallocations, threads that end: the live table against what
//! the program holds, block by block.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::heap::{HeapConfig, TailbeamAlloc, live, start};
use tailbeam_probes::record::heap_file;

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

const THREADS: usize = 6;
/// Turns of a thread between two ticks that it waits for: fewer events than the ring has room for, however the
/// machine shares its cores.
const PACE: u32 = 100;
static TICKS: AtomicU64 = AtomicU64::new(0);

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit).expect("small")
    }
}

/// Allocates, grows, shrinks, frees, and hands blocks over to the other threads.
fn work(
    seed: u64,
    send: &mpsc::SyncSender<Vec<u8>>,
    receive: &mpsc::Receiver<Vec<u8>>,
) -> Vec<Vec<u8>> {
    let mut random = Random(seed);
    let mut held: Vec<Vec<u8>> = Vec::new();
    for turn in 0..30_000 {
        if turn % PACE == 0 {
            let seen = TICKS.load(Ordering::Acquire);
            while TICKS.load(Ordering::Acquire) == seen {
                thread::yield_now();
            }
        }
        // Mostly small, some around the border to large ones.
        let size = match random.below(1_000) {
            0 => (1 << 20) - 500 + random.below(1_000),
            1..=50 => random.below(100_000),
            _ => random.below(2_000),
        };
        let fill = u8::try_from(size % 251).expect("small");
        let mut block = vec![fill; size];
        if random.below(4) == 0 {
            block.resize(block.len() + random.below(4_000), fill);
            block.truncate(block.len() / (1 + random.below(3)));
            block.shrink_to_fit();
        }
        match random.below(10) {
            0..=3 => drop(send.try_send(block)),
            4..=6 => held.push(block),
            _ => drop(block),
        }
        if let Ok(other) = receive.try_recv() {
            check(&other);
            if random.below(2) == 0 {
                held.push(other);
            }
        }
        if held.len() > 300 {
            let gone = held.swap_remove(random.below(300));
            check(&gone);
        }
    }
    held
}

fn check(block: &[u8]) {
    assert!(block.windows(2).all(|pair| pair[0] == pair[1]), "a block was overwritten");
}

#[test]
fn the_table_holds_just_the_sampled_blocks_that_live() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap.tbh");
    let config = HeapConfig { mean_bytes: 700, objects_max: 1 << 16, ..HeapConfig::new(&path) };
    let session = start(&config).expect("starts");
    let (sends, receives): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| mpsc::sync_channel::<Vec<u8>>(64)).unzip();
    let mut threads = Vec::new();
    for (index, receive) in receives.into_iter().enumerate() {
        let send = sends[(index + 1) % THREADS].clone();
        threads.push(thread::spawn(move || work(index as u64 * 77 + 1, &send, &receive)));
    }
    drop(sends);
    // Threads that come and go meanwhile, and ticks between everything.
    for round in 0.. {
        if round < 1_200 {
            let short = thread::spawn(move || drop(vec![vec![1u8; 100]; 20]));
            short.join().expect("no panic");
        } else if threads.iter().all(thread::JoinHandle::is_finished) {
            break;
        }
        session.tick(monotonic_ns());
        TICKS.fetch_add(1, Ordering::Release);
    }
    let held: Vec<Vec<u8>> =
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
    session.tick(monotonic_ns());
    let seen = heap_file::read(&path).expect("readable");
    assert_eq!(seen.sampler.lost, []);
    let sizes: HashMap<u64, u64> =
        held.iter().map(|b| (b.as_ptr().addr() as u64, b.capacity() as u64)).collect();
    let found: HashMap<u64, u64> = seen.samples.iter().map(|s| (s.address, s.size)).collect();
    assert_eq!(found.len(), seen.samples.len(), "no address twice");
    // Each sampled block that the program holds has the size that the table says.
    let ours = found.iter().filter(|(at, size)| sizes.get(*at) == Some(*size)).count();
    let wrong = found.iter().filter(|(at, size)| sizes.get(*at).is_some_and(|s| s != *size));
    assert_eq!(wrong.count(), 0);
    // What the table holds beyond that is the test's own: the list of blocks, threads' results.
    assert!(found.len() - ours < 100, "{} of {} are nobody's", found.len() - ours, found.len());
    let expected: f64 =
        sizes.values().map(|&s| tailbeam_probes::record::heap::chance(s, 700.0)).sum();
    assert!((ours as f64 / expected - 1.0).abs() < 0.15, "{ours} of {expected}");
    let large = sizes.iter().filter(|(_, size)| **size > 1 << 20);
    assert!(large.clone().all(|(at, _)| found.contains_key(at)), "large ones are all there");
    held.iter().for_each(|block| check(block));
    let before = live().expect("installed");
    let bytes: u64 = sizes.values().sum();
    drop(held);
    let freed = before.bytes - live().expect("installed").bytes;
    assert!(freed.abs_diff(bytes) < 100_000, "exact totals: {freed} of {bytes}");
    session.tick(monotonic_ns());
    let seen = heap_file::read(&path).expect("readable");
    assert!(seen.samples.len() < 100, "{} are left", seen.samples.len());
    assert!(seen.sampler.state_bytes <= 16_000_000, "{}", seen.sampler.state_bytes);
}
