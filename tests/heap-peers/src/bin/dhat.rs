//! dhat-rs: every allocation is recorded.

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() {
    tailbeam_heap_peers::main_of(|| dhat::Profiler::builder().testing().build());
}
