use libmimalloc_sys::*;
use std::alloc::{GlobalAlloc, Layout};
struct D;
unsafe impl GlobalAlloc for D {
    #[inline(never)]
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        unsafe { mi_malloc(l.size()) as _ }
    }
    #[inline(never)]
    unsafe fn dealloc(&self, p: *mut u8, _: Layout) {
        unsafe { mi_free(p as _) }
    }
    #[inline(never)]
    unsafe fn alloc_zeroed(&self, l: Layout) -> *mut u8 {
        unsafe { mi_zalloc(l.size()) as _ }
    }
    #[inline(never)]
    unsafe fn realloc(&self, p: *mut u8, _l: Layout, n: usize) -> *mut u8 {
        unsafe { mi_realloc(p as _, n) as _ }
    }
}
#[global_allocator]
static ALLOCATOR: D = D;
fn main() {
    tailbeam_heap_peers::main_of(|| ());
}
