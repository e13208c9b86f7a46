//! Sampling from its start to its end, as a program sees it.

use std::sync::atomic::Ordering;

use super::alone::Totals;
use super::config::{HeapConfig, HeapError};
use super::global::local;
use super::sampler::{Sampler, sampler};
use super::{cells, plain};
use crate::record::heap::Census;
use crate::record::heap_layout::{Lost, head};

/// The running sampler. Dropping it takes the last census and ends sampling; blocks that were sampled
/// are freed as before.
pub struct HeapSession {
    sampler: &'static Sampler,
}

/// Starts sampling in this process; it can be done once.
///
/// # Errors
/// [`HeapError`]; then nothing has changed.
pub fn start(config: &HeapConfig) -> Result<HeapSession, HeapError> {
    // An allocation of this thread, so that the question whether we are the allocator is answered.
    drop(std::hint::black_box(Box::new(0u8)));
    if !cells::used() {
        return Err(HeapError::NoAllocator);
    }
    let sampler = Sampler::start(config)?;
    local(cells::notice);
    Ok(HeapSession { sampler })
}

impl HeapSession {
    /// Takes a census and everything that is due, at `now_ns` of `CLOCK_MONOTONIC` (with a manual
    /// clock: ns since the start). Call it about once a second from an ordinary thread; the sampler
    /// has none. Costs 20 us to 1 ms, allocates nothing.
    ///
    /// Without ticks sampling goes on and the live table stays readable, but there is no census, the
    /// budget is not followed and files loaded later are not known.
    pub fn tick(&self, now_ns: u64) {
        tick(self.sampler, now_ns);
    }

    /// Sets how many operations (requests, messages) the program has done, for rates per operation.
    pub fn operations(&self, count: u64) {
        self.sampler.operations.store(count.saturating_add(1), Ordering::Relaxed);
    }

    /// ns since the start of sampling.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.sampler.collector.now_ns()
    }
}

impl Drop for HeapSession {
    fn drop(&mut self) {
        let now_ns = self.sampler.collector.now_ns();
        with_totals(self.sampler, |totals| self.sampler.collector.finish(now_ns, Some(totals)));
    }
}

fn tick(sampler: &Sampler, now_ns: u64) {
    let since = sampler.collector.since_start(now_ns);
    with_totals(sampler, |totals| {
        sampler.note_state();
        let refused = &sampler.collector.words[head::LOST + Lost::Refused as usize];
        refused.store(plain::refusals(), Ordering::Relaxed);
        // Whoever is alone ends soon; when he was put to sleep there, the next tick does it.
        for _ in 0..1_000 {
            if sampler.collector.tick(since, Some(totals)) {
                return;
            }
            std::thread::yield_now();
        }
    });
}

fn with_totals(sampler: &Sampler, work: impl FnOnce(&Totals<'_>)) {
    let classes = cells::classes();
    let sums = cells::all();
    let census = Census {
        at_ns: 0,
        live_bytes: sums.allocated.saturating_sub(sums.freed),
        live_objects: sums.allocs.saturating_sub(sums.frees),
        held_bytes: Some(plain::held_bytes()),
        rss_bytes: rss_bytes(),
        operations: sampler.operations.load(Ordering::Relaxed).checked_sub(1),
    };
    let last = classes.iter().rposition(|class| class.allocated_bytes > 0).map_or(0, |at| at + 1);
    work(&Totals {
        census,
        allocs: sums.allocs,
        frees: sums.frees,
        allocated_bytes: sums.allocated,
        classes: &classes[..last],
    });
}

/// Resident set by /proc/self/statm (proc(5)), read without allocating.
fn rss_bytes() -> Option<u64> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open("/proc/self/statm", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0u8; 128];
    let len = rustix::io::read(&file, &mut text).ok()?;
    let pages = std::str::from_utf8(&text[..len]).ok()?.split(' ').nth(1)?.parse::<u64>().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Says that an owner ended: what it still holds is orphaned from now on. Nothing happens while
/// nobody samples. Lock-free, about 30 ns.
pub fn owner_ended(owner: u32) {
    if let Some(sampler) = sampler() {
        sampler.collector.owner_ended(owner);
    }
}

/// Names an owner in the record; cut at 56 bytes. False when nobody samples, or names are full.
pub fn name_owner(owner: u32, name: &str) -> bool {
    sampler().is_some_and(|sampler| {
        (0..1_000).any(|_| {
            let named = sampler.collector.name_owner(owner, name);
            if !named {
                std::thread::yield_now();
            }
            named
        })
    })
}
