#![expect(unsafe_code, reason = "an allocator that counts")]
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
//! Readings, drains and judgements allocate nothing once their source is open.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tailbeam_probes::analyse::join::{OffShare, Span, join};
use tailbeam_probes::clock::line::{Clamps, SharedLine};
use tailbeam_probes::clock::{CycleClock, monotonic_ns};
use tailbeam_probes::collect::cpu_times::CpuTimesReader;
use tailbeam_probes::collect::gap::GapMeter;
use tailbeam_probes::collect::perf::{
    CounterBackend, CpuGroup, CpuOptions, OffCpu, Plain, Reading, SwitchRing, ThreadGroup,
    ThreadOptions, between, explain, rules,
};
use tailbeam_probes::collect::schedstat::Schedstat;

thread_local! {
    // Counts the allocations of this thread while it is on.
    static COUNTED: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

fn count() {
    COUNTED.set(COUNTED.get().map(|count| count + 1));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a const thread-local
// without a destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's duties are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the block came from `System` with this layout.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    COUNTED.set(Some(0));
    work();
    COUNTED.replace(None).unwrap()
}

#[test]
fn the_hot_path_of_each_source_allocates_nothing() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1, "the count counts");
    let mut backends: Vec<Box<dyn CounterBackend>> =
        vec![Box::new(Plain::new(&explain(libc::EPERM, None)))];
    if let Ok(group) = ThreadGroup::open(ThreadOptions::default()) {
        backends.push(Box::new(group));
    }
    if let Ok(group) = CpuGroup::open(0, CpuOptions::default()) {
        backends.push(Box::new(group));
    }
    let mut ring = SwitchRing::open(4_096).ok();
    let schedstat = Schedstat::own().unwrap();
    let mut times = CpuTimesReader::open(256).unwrap();
    let clock = CycleClock::start();
    let line = SharedLine::new(clock.line());
    let (rules, mut meter, mut clamps) = (rules(None), GapMeter::new(1_000), Clamps::default());
    let mut intervals: Vec<OffCpu> = Vec::with_capacity(10_000);
    let (polls, mut shares) = ([Span { from_ns: 0, to_ns: 1 }; 4], [OffShare::default(); 4]);
    let counted = allocations(|| {
        for _ in 0..100 {
            for backend in &mut backends {
                let (mut before, mut after) = (Reading::default(), Reading::default());
                backend.read(monotonic_ns(), &mut before);
                backend.read(monotonic_ns(), &mut after);
                std::hint::black_box(between(backend.support(), &rules, &before, &after));
            }
            rustix::thread::sched_yield();
            if let Some(ring) = &mut ring {
                ring.drain(1_000, |interval| intervals.push(interval));
            }
            schedstat.read().unwrap();
            times.read(0).unwrap();
            let ticks = clock.counter().ticks();
            meter.look(ticks);
            clamps.between(ticks, clock.counter().ticks());
            std::hint::black_box(line.load().ns(ticks));
            join(&polls, &intervals, &mut shares);
            intervals.clear();
        }
    });
    assert_eq!(counted, 0);
}
