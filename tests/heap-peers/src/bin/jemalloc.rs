//! jemalloc; the runner sets its profile by environment.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    tailbeam_heap_peers::main_of(|| ());
}
