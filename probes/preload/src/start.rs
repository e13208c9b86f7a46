//! stub
#![expect(unsafe_code, reason = "constructor")]
use crate::{hook, map, sink};
use core::sync::atomic::{AtomicU8, Ordering};
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Waiting,
    Refused,
    Sampling,
    Exact,
}
static MODE: AtomicU8 = AtomicU8::new(0);
pub(crate) fn mode() -> Mode {
    match MODE.load(Ordering::Relaxed) {
        0 => Mode::Waiting,
        1 => Mode::Sampling,
        2 => Mode::Exact,
        _ => Mode::Refused,
    }
}
pub(crate) fn bits() -> u32 {
    if MODE.load(Ordering::Relaxed) == 2 { map::EXACT_BITS } else { map::SAMPLED_BITS }
}
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = start;
extern "C" fn start() {
    let get = |name: &core::ffi::CStr| unsafe {
        let p = libc::getenv(name.as_ptr());
        if p.is_null() { 0 } else { libc::atoi(p) }
    };
    let mean = get(c"TB_MEAN");
    if mean > 0 {
        sink::MEAN.store(mean as u32, Ordering::Relaxed);
    }
    let mode = get(c"TB_MODE");
    if mode == 2 {
        crate::real::resolve();
        crate::real::FREE_NEXT.store(hook::free as *mut core::ffi::c_void, Ordering::Relaxed);
    }
    MODE.store(mode as u8, Ordering::Relaxed);
}
