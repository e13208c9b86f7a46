//! Exact totals and the countdown to the next sample, per thread and size class.
//!
//! The fast path of an allocation changes one word of its own thread, and that of a free another:
//!
//! ```text
//! allocation  left:44 count:20   left falls by size + 1, count rises by 1; negative: slow path
//! free        count:22 bytes:42  both rise; negative (2^21 frees): slow path
//! ```
//! What an allocation word was granted less what is left is what was allocated, so the countdown is
//! the counter. Each class counts down its own Poisson process over bytes; the union of independent
//! Poisson processes is one, so a class changes no object's chance. Two words that both operations
//! change would make each wait for the one before (store-to-load forwarding).

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::collector::Thread;
use super::sample::{Draw, LARGE};
use crate::record::heap::ClassTotals;

/// Classes by powers of two: class `k` holds sizes up to `2^(k + 3)`.
pub(super) const CLASSES: usize = 62;
/// First class of sizes above [`LARGE`]: it is granted nothing, so each operation is slow.
const LARGE_CLASS: usize = class(LARGE) + 1;
/// Threads with cells of their own at one time; the others count by shared atomic additions.
const THREADS: usize = 512;
/// Units that a word is granted at most, below 2^20, so that the count cannot overflow.
const GRANT_MAX: i64 = (1 << 19) - 1;
/// Units that a word is granted while nobody samples. A thread notices the start of sampling after
/// this many bytes of a class.
const GRANT_OFF: i64 = 1 << 15;
const COUNT_BITS: u32 = 20;
const FREED_BITS: u32 = 42;
/// A free word of a large class: negative whatever is added.
const ALWAYS: u64 = 1 << 63;

/// Class of a size.
#[inline(always)]
pub(super) const fn class(size: usize) -> usize {
    61 - (size.wrapping_sub(1) | 7).leading_zeros() as usize
}

/// What a thread keeps beside its cells.
pub(super) struct Local {
    cells: Cell<Option<&'static Cells>>,
    /// All cells were taken when this thread first asked.
    refused: Cell<bool>,
    pub(super) thread: Thread,
}

impl Local {
    pub(super) const fn new() -> Local {
        Local { cells: Cell::new(None), refused: Cell::new(false), thread: Thread::new() }
    }
}

/// Words of one thread. Only that thread writes them; a thread that is gone leaves them to a new one,
/// which counts on from what they hold.
#[repr(C, align(128))]
struct Cells {
    left: [AtomicU64; CLASSES],
    freed: [AtomicU64; CLASSES],
    /// Units behind `left` when it was last filled, and those added since by reallocations.
    granted: [AtomicU64; CLASSES],
    /// Units of the draw that did not fit into the grant.
    rest: [AtomicU64; CLASSES],
    /// Mean of the draw, bits of an f32; 0: nothing was drawn.
    mean: [AtomicU32; CLASSES],
    /// Odd while words move into the totals.
    turn: AtomicU32,
    /// Kernel id of the thread; 0: never taken.
    thread: AtomicI32,
}

static CELLS: [Cells; THREADS] = [const {
    Cells {
        left: [const { AtomicU64::new(0) }; CLASSES],
        freed: [const { AtomicU64::new(0) }; CLASSES],
        granted: [const { AtomicU64::new(0) }; CLASSES],
        rest: [const { AtomicU64::new(0) }; CLASSES],
        mean: [const { AtomicU32::new(0) }; CLASSES],
        turn: AtomicU32::new(0),
        thread: AtomicI32::new(0),
    }
}; THREADS];
/// Cells that were ever taken.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Totals of a class that left the cells.
#[repr(align(64))]
struct Wide {
    allocated: AtomicU64,
    allocs: AtomicU64,
    freed: AtomicU64,
    frees: AtomicU64,
}

static WIDE: [Wide; CLASSES] = [const {
    Wide {
        allocated: AtomicU64::new(0),
        allocs: AtomicU64::new(0),
        freed: AtomicU64::new(0),
        frees: AtomicU64::new(0),
    }
}; CLASSES];

/// What the slow path asks of whoever samples.
pub(super) trait Draws {
    /// A fresh draw, `None` while nobody samples.
    fn draw(&self, thread: &Thread) -> Option<Draw>;
    /// Whether every object is sampled.
    fn exact(&self) -> bool;
}

/// Counts an allocation; true when [`slow_alloc`] must follow.
#[inline(always)]
pub(super) fn count_alloc(local: &Local, size: usize) -> bool {
    let Some(cells) = local.cells.get() else { return true };
    let word = &cells.left[class(size)];
    let units = (size as u64).wrapping_add(1) << COUNT_BITS;
    let next = word.load(Ordering::Relaxed).wrapping_sub(units).wrapping_add(1);
    word.store(next, Ordering::Relaxed);
    next.cast_signed() < 0
}

/// Counts a free; true when [`slow_free`] must follow.
#[inline(always)]
pub(super) fn count_free(local: &Local, size: usize) -> bool {
    let Some(cells) = local.cells.get() else { return true };
    let word = &cells.freed[class(size)];
    let next = word.load(Ordering::Relaxed).wrapping_add((1 << FREED_BITS) + size as u64);
    word.store(next, Ordering::Relaxed);
    next.cast_signed() < 0
}

/// Counts a reallocation as an allocation that is charged for what it grew by; true when
/// [`slow_alloc`] must follow. The free of the old block is counted apart.
#[inline(always)]
pub(super) fn count_realloc(local: &Local, old: usize, size: usize) -> bool {
    let Some(cells) = local.cells.get() else { return true };
    let class = class(size);
    // The units of the old block were charged at its birth: grant them once more.
    let given = old.min(size) as u64 + 1;
    let (word, granted) = (&cells.left[class], &cells.granted[class]);
    let units = (size as u64 + 1).wrapping_sub(given) << COUNT_BITS;
    let next = word.load(Ordering::Relaxed).wrapping_sub(units).wrapping_add(1);
    cells.exclusive(|| {
        granted.store(granted.load(Ordering::Relaxed).wrapping_add(given), Ordering::Relaxed);
        word.store(next, Ordering::Relaxed);
    });
    // A reallocation that does not grow uses no units, so only here the count can come near its end.
    next.cast_signed() < 0 || next & COUNT_MASK > COUNT_MASK - 2
}

const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// A counted allocation whose word said that more is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) size: usize,
    /// Units it was charged: size + 1, or what a reallocation grew by.
    pub(super) units: u64,
}

/// Continues a counted allocation: moves counts on, fills the word again, and says whether the object
/// is sampled, with the mean of its draw.
#[cold]
pub(super) fn slow_alloc(local: &Local, counted: Counted, draws: &impl Draws) -> Option<f32> {
    let class = class(counted.size);
    let Some(cells) = local.cells.get() else {
        if take(local).is_none() {
            WIDE[class].allocs.fetch_add(1, Ordering::Relaxed);
            WIDE[class].allocated.fetch_add(counted.size as u64, Ordering::Relaxed);
            return fresh_trial(local, counted, draws);
        }
        // It is counted now, with nothing granted: the word is negative, as it must be here.
        let _ = count_alloc(local, counted.size);
        return slow_alloc(local, counted, draws);
    };
    let word = cells.left[class].load(Ordering::Relaxed);
    let left = word.cast_signed() >> COUNT_BITS;
    cells.exclusive(|| cells.move_allocs(class));
    if class >= LARGE_CLASS || draws.exact() {
        cells.fill(class, 0, None);
        return fresh_trial(local, counted, draws);
    }
    let Some(draw) = draws.draw(&local.thread) else {
        cells.fill(class, GRANT_OFF, None);
        return None;
    };
    let mean = f32::from_bits(cells.mean[class].load(Ordering::Relaxed));
    if mean > 0.0 {
        let rest = cells.rest[class].load(Ordering::Relaxed).cast_signed();
        let remaining = left.saturating_add(rest);
        if remaining >= 0 {
            cells.fill(class, remaining, Some(mean));
            return None;
        }
        cells.fill(class, draw.left, Some(draw.mean));
        return Some(mean);
    }
    // The word was filled while nobody sampled: this object gets a trial of its own.
    let remaining = draw.left.saturating_sub_unsigned(counted.units);
    if remaining >= 0 {
        cells.fill(class, remaining, Some(draw.mean));
        return None;
    }
    let next = draws.draw(&local.thread).unwrap_or(draw);
    cells.fill(class, next.left, Some(next.mean));
    Some(draw.mean)
}

fn fresh_trial(local: &Local, counted: Counted, draws: &impl Draws) -> Option<f32> {
    let draw = draws.draw(&local.thread)?;
    let large = counted.size > LARGE && counted.size as f64 > f64::from(draw.mean);
    let met = draws.exact() || large || draw.left.cast_unsigned() < counted.units;
    met.then_some(draw.mean)
}

/// Continues a counted free: moves counts on.
#[cold]
pub(super) fn slow_free(local: &Local, size: usize) {
    let class = class(size);
    let Some(cells) = local.cells.get() else {
        if take(local).is_none() {
            WIDE[class].frees.fetch_add(1, Ordering::Relaxed);
            WIDE[class].freed.fetch_add(size as u64, Ordering::Relaxed);
        } else if count_free(local, size) {
            slow_free(local, size);
        }
        return;
    };
    cells.exclusive(|| cells.move_frees(class));
}

/// Whether frees of this size may be of tracked blocks: a look at the size, for the slow path.
pub(super) fn is_large(size: usize) -> bool {
    class(size) >= LARGE_CLASS
}

impl Cells {
    #[inline(always)]
    fn exclusive(&self, change: impl FnOnce()) {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        // Readers see the odd turn before the change, and the change before the even one.
        std::sync::atomic::fence(Ordering::Release);
        change();
        self.turn.store(turn.wrapping_add(2), Ordering::Release);
    }

    fn move_allocs(&self, class: usize) {
        let (bytes, count) = self.allocated(class);
        WIDE[class].allocated.fetch_add(bytes, Ordering::Relaxed);
        WIDE[class].allocs.fetch_add(count, Ordering::Relaxed);
        self.left[class].store(0, Ordering::Relaxed);
        self.granted[class].store(0, Ordering::Relaxed);
    }

    fn move_frees(&self, class: usize) {
        let (bytes, count) = self.freed(class);
        WIDE[class].freed.fetch_add(bytes, Ordering::Relaxed);
        WIDE[class].frees.fetch_add(count, Ordering::Relaxed);
        let empty = if class >= LARGE_CLASS { ALWAYS } else { 0 };
        self.freed[class].store(empty, Ordering::Relaxed);
    }

    /// Bytes and objects in the allocation word of a class.
    fn allocated(&self, class: usize) -> (u64, u64) {
        let word = self.left[class].load(Ordering::Relaxed);
        let left = (word.cast_signed() >> COUNT_BITS).cast_unsigned();
        let count = word & COUNT_MASK;
        let units = self.granted[class].load(Ordering::Relaxed).wrapping_sub(left);
        (units.wrapping_sub(count), count)
    }

    /// Bytes and objects in the free word of a class.
    fn freed(&self, class: usize) -> (u64, u64) {
        let word = self.freed[class].load(Ordering::Relaxed);
        let word = if class >= LARGE_CLASS { word & !ALWAYS } else { word };
        (word & ((1 << FREED_BITS) - 1), word >> FREED_BITS)
    }

    /// Fills the word of a class with up to `units`; the rest waits.
    fn fill(&self, class: usize, units: i64, mean: Option<f32>) {
        let grant = units.min(GRANT_MAX);
        self.exclusive(|| {
            self.granted[class].store(grant.cast_unsigned(), Ordering::Relaxed);
            self.left[class].store((grant << COUNT_BITS).cast_unsigned(), Ordering::Relaxed);
        });
        self.rest[class].store((units - grant).cast_unsigned(), Ordering::Relaxed);
        self.mean[class].store(mean.unwrap_or(0.0).to_bits(), Ordering::Relaxed);
    }
}

/// Cells for the calling thread: fresh ones, or those of a thread that is gone.
fn take(local: &Local) -> Option<&'static Cells> {
    if local.refused.get() {
        return None;
    }
    let own = super::threads::id();
    let more = |used| (used < THREADS).then_some(used + 1);
    let fresh = USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    let cells = match fresh {
        Ok(index) => {
            let cells = &CELLS[index];
            for class in LARGE_CLASS..CLASSES {
                cells.freed[class].store(ALWAYS, Ordering::Relaxed);
            }
            cells.thread.store(own, Ordering::Relaxed);
            Some(cells)
        }
        Err(_) => inherit(own),
    };
    local.cells.set(cells);
    local.refused.set(cells.is_none());
    cells
}

fn inherit(own: i32) -> Option<&'static Cells> {
    CELLS.iter().find(|cells| {
        let before = cells.thread.load(Ordering::Relaxed);
        // A thread that the kernel does not know writes its words no more, its last free included.
        // Acquire: its last words are seen.
        before != 0
            && super::threads::gone(before)
            && cells
                .thread
                .compare_exchange(before, own, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    })
}

/// Sums over all threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) allocated: u64,
    pub(super) allocs: u64,
    pub(super) freed: u64,
    pub(super) frees: u64,
}

/// Whether a thread has ever allocated through this allocator.
pub(super) fn used() -> bool {
    USED.load(Ordering::Relaxed) > 0
}

/// Sums of a class. Costs a few ns per thread. Counts of threads that run meanwhile may be late, and a
/// block that moves between two threads may be seen freed and not yet allocated.
pub(super) fn sums(class: usize) -> Sums {
    let used = USED.load(Ordering::Relaxed).min(THREADS);
    let wide = &WIDE[class];
    let mut sums = Sums::default();
    for _ in 0..8 {
        let seen = wide.all();
        sums = seen;
        for cells in &CELLS[..used] {
            let [allocated, freed] = cells.read(class);
            sums.allocated = sums.allocated.wrapping_add(allocated.0);
            sums.allocs = sums.allocs.wrapping_add(allocated.1);
            sums.freed = sums.freed.wrapping_add(freed.0);
            sums.frees = sums.frees.wrapping_add(freed.1);
        }
        // Nothing moved from cells to totals meanwhile, so nothing was counted twice or not at all.
        if wide.all() == seen {
            break;
        }
    }
    sums
}

/// Sums over all classes.
pub(super) fn all() -> Sums {
    (0..CLASSES).map(sums).fold(Sums::default(), |all, one| Sums {
        allocated: all.allocated.wrapping_add(one.allocated),
        allocs: all.allocs.wrapping_add(one.allocs),
        freed: all.freed.wrapping_add(one.freed),
        frees: all.frees.wrapping_add(one.frees),
    })
}

impl Cells {
    /// Allocated and freed (bytes, objects) of a class, as of one instant.
    fn read(&self, class: usize) -> [(u64, u64); 2] {
        for _ in 0..1_000 {
            let turn = self.turn.load(Ordering::Acquire);
            let read = [self.allocated(class), self.freed(class)];
            // Pairs with the fence in exclusive.
            std::sync::atomic::fence(Ordering::Acquire);
            if turn.is_multiple_of(2) && self.turn.load(Ordering::Relaxed) == turn {
                return read;
            }
            std::hint::spin_loop();
        }
        // The owner was stopped in the middle of a move: its words are late.
        [(0, 0); 2]
    }
}

impl Wide {
    fn all(&self) -> Sums {
        Sums {
            freed: self.freed.load(Ordering::Acquire),
            frees: self.frees.load(Ordering::Acquire),
            allocated: self.allocated.load(Ordering::Acquire),
            allocs: self.allocs.load(Ordering::Acquire),
        }
    }
}

/// Totals of every class.
pub(super) fn classes() -> [ClassTotals; CLASSES] {
    std::array::from_fn(|class| {
        let sums = sums(class);
        ClassTotals {
            up_to: 1u64.checked_shl(u32::try_from(class + 3).unwrap_or(64)).unwrap_or(u64::MAX),
            live_bytes: sums.allocated.saturating_sub(sums.freed),
            live_objects: sums.allocs.saturating_sub(sums.frees),
            allocated_bytes: sums.allocated,
        }
    })
}

/// Bytes of cells that threads took so far.
pub(super) fn state_bytes() -> u64 {
    (USED.load(Ordering::Relaxed).min(THREADS) * size_of::<Cells>() + size_of_val(&WIDE)) as u64
}
