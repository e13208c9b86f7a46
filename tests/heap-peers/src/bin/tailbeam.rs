//! Ours: counting only, or sampling with the mean of the fourth argument, or exact (1).

use tailbeam_probes::collect::heap::TailbeamAlloc;

#[path = "../sampled.rs"]
mod sampled;

#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

fn main() {
    tailbeam_heap_peers::main_of(sampled::session);
}
