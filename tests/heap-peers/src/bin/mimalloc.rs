//! The baseline: mimalloc as its crate gives it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    tailbeam_heap_peers::main_of(|| ());
}
