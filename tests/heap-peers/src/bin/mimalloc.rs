//! The baseline: mimalloc as its crate gives it, in a program that is the same but for the allocator. It
//! holds the sampler's code too, which never runs: code that lies between a program's functions costs by
//! its size alone when functions are put in another order.

#[path = "../sampled.rs"]
mod sampled;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    tailbeam_heap_peers::main_of(sampled::session);
}
