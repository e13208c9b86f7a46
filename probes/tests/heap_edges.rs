//! What is rare: threads that end while they allocate, signals, a full range, few addresses, a budget.
//! Each in a process of its own, because a process has one sampler.

use std::cell::RefCell;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::heap::{
    HeapConfig, TailbeamAlloc, live, name_owner, owner, owner_ended, start,
};
use tailbeam_probes::record::heap::HeapSnapshot;
use tailbeam_probes::record::heap_file;

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

const CHILD: &str = "TAILBEAM_TEST_HEAP_EDGES";
const SECOND_NS: u64 = 1_000_000_000;

/// Runs this test program again for one case.
fn run(case: &str, path: &Path) -> Output {
    Command::new(std::env::current_exe().expect("known"))
        .args(["--exact", "the_child", "--nocapture"])
        .env(CHILD, format!("{case} {}", path.display()))
        .output()
        .expect("runs")
}

fn seen(case: &str) -> HeapSnapshot {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("heap.tbh");
    let output = run(case, &path);
    assert!(output.status.success(), "{case}: {output:?}");
    heap_file::read(&path).expect("readable")
}

fn lost(heap: &HeapSnapshot, why: &str) -> u64 {
    heap.sampler.lost.iter().filter(|(name, _)| name.contains(why)).map(|(_, n)| n).sum()
}

#[test]
fn the_child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (case, path) = order.split_once(' ').expect("two words");
    match case {
        "teardown" => teardown(path),
        "signals" => signals(path),
        "full" => full(path),
        "few" => few_addresses(path),
        _ => budget(path),
    }
}

/// Sizes that nobody else allocates.
const KEPT: usize = 7_771;
const DROPPED: usize = 7_777;

thread_local! {
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

struct Late(Vec<u8>);

impl Drop for Late {
    fn drop(&mut self) {
        // The thread is being taken apart: its allocator must still work.
        std::mem::forget(black_box(vec![1u8; KEPT]));
        drop(black_box(vec![1u8; DROPPED]));
        assert_eq!(self.0.len(), DROPPED);
    }
}

fn teardown(path: &str) {
    let config = HeapConfig { mean_bytes: 1, ..HeapConfig::new(path) };
    let _session = start(&config).expect("starts");
    for turn in 0..700 {
        let thread = std::thread::spawn(move || {
            LATE.with(|late| *late.borrow_mut() = Some(Late(vec![2; DROPPED])));
            let _agent = owner::scope(turn % 5 + 1);
        });
        thread.join().expect("no panic");
    }
}

#[test]
fn destructors_of_a_thread_may_allocate() {
    // More threads than there are cells: the later ones count in those of threads that are gone.
    let heap = seen("teardown");
    let of = |size: usize| heap.samples.iter().filter(|s| s.size == size as u64).count();
    assert_eq!((of(KEPT), of(DROPPED)), (700, 0));
    assert!(heap.samples.iter().filter(|s| s.size == KEPT as u64).all(|s| s.owner == 0));
}

static FIRED: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_signal(_: libc::c_int) {
    FIRED.fetch_add(1, Ordering::Relaxed);
    let _agent = owner::scope(9);
    drop(black_box(vec![1u8; 100]));
    owner_ended(8);
}

#[expect(unsafe_code, reason = "a signal handler and a timer")]
fn signals(path: &str) {
    let config = HeapConfig { mean_bytes: 1, ..HeapConfig::new(path) };
    let session = start(&config).expect("starts");
    // SAFETY: the handler only uses what the interrupted code below does not: mimalloc may not be entered
    // twice, our hooks may.
    unsafe { libc::signal(libc::SIGALRM, on_signal as *const () as libc::sighandler_t) };
    let every = libc::timeval { tv_sec: 0, tv_usec: 100 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the timer is read before the call returns, and the old one is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    let before = live().expect("installed");
    let mut turn = 0u32;
    // Everything here runs in our hooks and allocates nothing.
    while FIRED.load(Ordering::Relaxed) < 2_000 {
        turn += 1;
        owner_ended(turn % 7);
        name_owner(turn % 7, "seven");
        if turn.is_multiple_of(64) {
            session.tick(u64::from(turn));
        }
    }
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: none, it_value: none };
    // SAFETY: as above.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    let after = live().expect("installed");
    assert_eq!((before.bytes, before.objects), (after.bytes, after.objects));
}

#[test]
fn a_handler_may_interrupt_the_collector() {
    let heap = seen("signals");
    assert!(heap.samples.iter().all(|s| s.owner != 9), "what handlers allocated was freed");
    let born: u64 = heap.births.iter().map(|row| row.count).sum();
    assert!(born > 1_000, "handlers were sampled: {born}");
}

const OBJECTS: usize = 140_000;

fn full(path: &str) {
    let config = HeapConfig { mean_bytes: 1, objects_max: 1 << 18, ..HeapConfig::new(path) };
    let mut held: Vec<Box<[u8; 32]>> = Vec::with_capacity(OBJECTS);
    let session = start(&config).expect("starts");
    let before = live().expect("installed");
    for _ in 0..OBJECTS {
        held.push(black_box(Box::new([3; 32])));
    }
    let after = live().expect("installed");
    assert_eq!(after.objects - before.objects, OBJECTS as u64);
    session.tick(SECOND_NS);
    assert!(held.iter().all(|block| block[31] == 3));
    drop(session);
}

#[test]
fn a_full_range_is_a_counted_loss_and_the_program_goes_on() {
    let heap = seen("full");
    let held = heap.samples.iter().filter(|s| s.size == 32).count();
    let none = lost(&heap, "range");
    assert_eq!(held, 1 << 17, "as many as an area has slots");
    assert!(
        held as u64 + none >= OBJECTS as u64,
        "{held} and {none} lost: {:?}",
        heap.sampler.lost
    );
}

#[expect(unsafe_code, reason = "limits the address space")]
fn few_addresses(path: &str) {
    let limit = libc::rlimit { rlim_cur: 8 << 30, rlim_max: 8 << 30 };
    // SAFETY: the limit is read before the call returns.
    let rc = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(rc, 0);
    let error = start(&HeapConfig::new(path)).map(|_| ()).expect_err("there are too few addresses");
    let text = error.to_string();
    assert!(text.contains("address space") && text.contains("ulimit -v"), "{text}");
    // Nothing changed, and it may be asked again.
    assert_eq!(start(&HeapConfig::new(path)).map(|_| ()).map_err(|e| e.to_string()), Err(text));
    assert_eq!(black_box(vec![5u8; 100_000]).len(), 100_000);
}

#[test]
fn without_addresses_it_says_so_and_nothing_has_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run("few", &dir.path().join("heap.tbh"));
    assert!(output.status.success(), "{output:?}");
}

#[inline(never)]
fn keep(bytes: usize, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| black_box(vec![1u8; bytes])).collect()
}

fn budget(path: &str) {
    // The real clock: a budget is kept by what hooks took.
    let config =
        HeapConfig { mean_bytes: 4_096, budget: Some(0.001), seed: 3, ..HeapConfig::new(path) };
    let session = start(&config).expect("starts");
    let mut held = Vec::new();
    for _ in 0..100 {
        session.tick(monotonic_ns());
        held.push(keep(2_000, 100));
        drop(keep(2_000, 900));
    }
    session.tick(monotonic_ns());
    std::mem::forget(held);
}

#[test]
fn a_budget_raises_the_mean_and_estimates_stay_right() {
    let heap = seen("budget");
    let (least, most) = heap.sampler.mean_range;
    assert_eq!(least, 4_096);
    assert!(most > 8_192, "{:?}", heap.sampler);
    let bytes: f64 = heap.samples.iter().filter(|s| s.size == 2_000).map(|s| s.weight).sum();
    // 20 MB at the largest mean that was in force: four standard errors.
    let four = 4.0 * (most as f64 / 20e6).sqrt();
    assert!((bytes / 20e6 - 1.0).abs() < four, "{bytes} of 20e6, {four}, {:?}", heap.sampler);
}
