//! The C library's allocator, for what is preloaded over it.

#[global_allocator]
static ALLOCATOR: std::alloc::System = std::alloc::System;

fn main() {
    tailbeam_heap_peers::main_of(|| ());
}
