//! stub
use crate::real::Block;
use crate::thread::Thread;
use core::sync::atomic::{AtomicU32, Ordering};

/// Registers of the program at its call.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) ip: usize,
    pub(crate) sp: usize,
    pub(crate) fp: usize,
}
const LARGE: u64 = 1 << 20;
static SLOTS: AtomicU32 = AtomicU32::new(0);
pub(crate) static MEAN: AtomicU32 = AtomicU32::new(64 << 10);
fn draw(thread: &mut Thread) -> u64 {
    if thread.draws == 0 {
        thread.draws = (core::ptr::from_mut(thread) as u64) | 1;
    }
    thread.draws ^= thread.draws << 13;
    thread.draws ^= thread.draws >> 7;
    thread.draws ^= thread.draws << 17;
    let u = ((thread.draws >> 11) + 1) as f64 / (1u64 << 53) as f64;
    (-u.ln() * f64::from(MEAN.load(Ordering::Relaxed))) as u64
}
pub(crate) fn settle(thread: &mut Thread, before: u64, size: usize) -> bool {
    let total = if thread.draws == 0 { draw(thread) } else { before + thread.rest };
    let bytes = size as u64 + 1;
    let chosen = bytes >= total;
    let left = if chosen { draw(thread) } else { total - bytes };
    thread.left = left.min(LARGE);
    thread.rest = left - thread.left;
    chosen || bytes > LARGE
}
pub(crate) fn born(_block: Block, _size: usize, caller: Caller) -> Option<u32> {
    core::hint::black_box((caller.ip, caller.sp, caller.fp));
    Some(SLOTS.fetch_add(1, Ordering::Relaxed) & 0xffff)
}
pub(crate) fn died(slot: u32, _block: Block) {
    core::hint::black_box(slot);
}
pub(crate) fn forget(_slot: u32, _block: Block) {}
pub(crate) fn resized(_slot: u32, _old: Block, _new: Block, _size: usize) {}
pub(crate) fn lost_inside() {}
pub(crate) fn lost_unaligned() {}
