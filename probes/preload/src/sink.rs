//! The collector, as the hooks see it: draws for a thread's countdown, births, deaths, new sizes, and the
//! work that is due once a second, which falls to whoever samples then.

use std::ffi::CStr;
use std::sync::OnceLock;

use tailbeam_probes::collect::heap::Registers;
use tailbeam_probes::collect::heap::collector::{Birth, Collector};
use tailbeam_probes::collect::heap::sample::LARGE;

use crate::real::Block;
use crate::start::{self, Mode};
use crate::thread::Thread;

/// Registers of the program at its call.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) ip: usize,
    pub(crate) sp: usize,
    pub(crate) fp: usize,
}

static COLLECTOR: OnceLock<Collector> = OnceLock::new();
/// Distance of ticks.
const TICK_NS: u64 = 1_000_000_000;

/// Takes the collector; the mode changes after this.
pub(crate) fn start(collector: Collector) {
    // The constructor runs once.
    let _ = COLLECTOR.set(collector);
}

/// Settles a countdown that stood at `before` and met a block of `size` bytes; whether to record it.
pub(crate) fn settle(thread: &mut Thread, before: u64, size: usize) -> bool {
    let Some(collector) = COLLECTOR.get() else { return false };
    let units = size as u64 + 1;
    let total = match thread.mean == 0.0 {
        // The first distance of a thread is drawn as well: else its first block would always be met.
        true => draw(collector, thread),
        false => before.saturating_add(thread.rest),
    };
    let chosen = units > total;
    thread.met = thread.mean;
    let next = if chosen { draw(collector, thread) } else { total - units };
    // No more than a large block at a time, so that each large one gets here.
    thread.left = next.min(LARGE as u64);
    thread.rest = next - thread.left;
    // The chance of a large block is 1, as long as the mean is not above it too.
    chosen || (size > LARGE && size as f32 > thread.met)
}

fn draw(collector: &Collector, thread: &mut Thread) -> u64 {
    let draw = collector.draw(&thread.state);
    thread.mean = draw.mean;
    u64::try_from(draw.left).unwrap_or(0)
}

/// Records a block; its slot, unless it was thinned or lost.
pub(crate) fn born(thread: &Thread, block: Block, size: usize, caller: Caller) -> Option<u32> {
    let collector = COLLECTOR.get()?;
    let Caller { ip, sp, fp } = caller;
    let registers = Registers { ip: ip as u64, sp: sp as u64, fp: fp as u64 };
    let mean = if start::mode() == Mode::Exact { 1.0 } else { thread.met };
    let birth = Birth { address: block as u64, size: size as u64, mean, registers };
    let slot = collector.born(&thread.state, &birth);
    collector.tend(TICK_NS, None);
    slot
}

/// A recorded block was freed. Harmless for a slot that thinning has given to another.
pub(crate) fn died(thread: &Thread, slot: u32, block: Block) {
    if let Some(collector) = COLLECTOR.get() {
        collector.died(&thread.state, slot, block as u64);
    }
}

/// A recorded block has a new size, and perhaps a new address.
pub(crate) fn resized(slot: u32, old: Block, new: Block, size: usize) {
    if let Some(collector) = COLLECTOR.get() {
        collector.grown(slot, old as u64, (new as u64, size as u64));
    }
}

/// There was no room to remember where the block is: its birth is taken back.
pub(crate) fn forget(slot: u32, block: Block) {
    if let Some(collector) = COLLECTOR.get() {
        collector.forget(slot, block as u64);
    }
}

/// Keeps the loader's lock free of us while the process forks; whether `after_fork` must follow.
pub(crate) fn before_fork() -> bool {
    COLLECTOR.get().is_some_and(Collector::before_fork)
}

/// In the parent, after it.
pub(crate) fn after_fork() {
    if let Some(collector) = COLLECTOR.get() {
        collector.after_fork();
    }
}

/// Goes on in a file of its own, in the child of a fork. Whether that could be.
pub(crate) fn forked(path: &CStr) -> bool {
    COLLECTOR.get().is_some_and(|collector| collector.forked(path).is_ok())
}

/// The last look at everything; blocks that later destructors free are still taken out.
pub(crate) fn end() {
    if let Some(collector) = COLLECTOR.get() {
        collector.tick(collector.now_ns(), None);
    }
}
