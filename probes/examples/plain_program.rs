//! The probes in a program without our runtime.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use tailbeam_probes::clock;
use tailbeam_probes::collect::heap::{TailbeamAlloc, live};
use tailbeam_probes::stats::Histogram;

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

fn main() {
    let mut histogram = Histogram::new();
    for size in 0..10_000usize {
        let start = clock::monotonic_ns();
        std::hint::black_box(vec![0u8; size]);
        histogram.record(clock::monotonic_ns() - start);
    }
    println!(
        "{} allocations, P99 {:?} ns, max {:?} ns",
        histogram.count(),
        histogram.quantile(0.99),
        histogram.max()
    );
    println!("live: {:?}", live());
}
