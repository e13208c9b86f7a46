//! Exact totals and the countdown to the next sample, per thread.
//!
//! An allocation changes one word and a free another, each by one instruction of `hook.c`; a word that
//! both changed would make each wait for the one before (store-to-load forwarding). A word holds units that are left
//! of a grant, and in its low 24 bits how many operations took from it; an operation on `size` bytes takes
//! `size + 1` units. What was granted less what is left is the sum of the sizes and of the operations, so
//! the countdown to the next sample is the counter. When a word gets negative, the slow path takes its
//! count out, and draws or grants more.
//!
//! With `BY_CLASS` there are such words per power of two, and each counts down a Poisson process of its
//! own; the union of independent Poisson processes is one, so it changes no object's chance.

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use super::collector::Thread;
use super::hook::{self, Fast, OWN};
use super::sample::{Draw, LARGE};
use super::shortage::Shortage;
use crate::record::heap::ClassTotals;

/// Classes by powers of two: class `k` holds sizes up to `2^(k + 3)`.
pub(super) const CLASSES: usize = 62;
/// Threads with cells of their own at one time; the others count by shared atomic additions.
const THREADS: usize = 512;
/// Low bits of a word that count operations. No grant is above 2^23 units and each operation takes one at
/// least, so the count stays below 2^24.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const _: () = assert!(OWN == class(LARGE) + 1, "every class that is not large has words");
/// Units that the word of allocations is granted at most.
const GRANT_MAX: i64 = LARGE as i64;
/// Units that the word of frees is granted.
const GRANT_FREE: i64 = 1 << 23;
/// Units that a word is granted while nobody samples. A thread notices the start of sampling after
/// this many bytes.
const GRANT_OFF: i64 = 1 << 17;

/// Class of a size.
#[inline(always)]
const fn class(size: usize) -> usize {
    61 - (size.wrapping_sub(1) | 7).leading_zeros() as usize
}

/// Words that count a size: the first for all up to [`LARGE`], or those of the size's class.
#[inline(always)]
const fn words_of<const BY_CLASS: bool>(size: usize) -> usize {
    if !BY_CLASS {
        return 0;
    }
    let class = class(size);
    if class < OWN { class } else { OWN - 1 }
}

/// Units and count of a word.
const fn parts(word: u64) -> (i64, u64) {
    (word.cast_signed() >> COUNT_BITS, word & COUNT)
}

/// Whether objects of this size are always sampled, and counted apart.
#[inline(always)]
pub(super) const fn is_large(size: usize) -> bool {
    size > LARGE
}

/// What a thread keeps beside its cells.
pub(super) struct Local {
    /// What `hook.c` counts in too; there, instead of `None`, are words that always lead here.
    cells: Cell<Option<&'static Cells>>,
    /// All cells were taken when this thread first asked.
    refused: Cell<bool>,
    pub(super) thread: Thread,
    pub(super) shortage: Shortage,
}

impl Local {
    pub(super) const fn new() -> Local {
        let (thread, shortage) = (Thread::new(), Shortage::new());
        Local { cells: Cell::new(None), refused: Cell::new(false), thread, shortage }
    }

    /// The thread's own cells.
    fn own(&self) -> Option<&'static Cells> {
        self.cells.get()
    }

    /// What `hook.c` counts in, outside of a shortage.
    pub(super) fn fast(&self) -> &'static Fast {
        self.own().map_or_else(hook::nobodys, |cells| &cells.fast)
    }
}

/// What the slow path keeps per class; all but `rest` and `mean` only rise.
#[repr(C)]
struct Behind {
    /// All units that `left` was ever granted.
    granted: AtomicU64,
    /// Operations that were taken out of `left`.
    counted: AtomicU64,
    /// The same for `freed`.
    freed_granted: AtomicU64,
    freed_counted: AtomicU64,
    /// Units of the draw that did not fit into the grant.
    rest: AtomicU64,
    /// Mean of the draw, bits of an f32; 0: nothing was drawn.
    mean: AtomicU32,
}

/// State of one thread. Only that thread writes the words; a thread that is gone leaves them to a new
/// one, which counts on. The fast path of a program that does not count by class needs the first line.
#[repr(C, align(128))]
struct Cells {
    fast: Fast,
    behind: [Behind; OWN],
    /// Odd while words and what is behind them disagree.
    turn: AtomicU32,
    /// Kernel id of the thread; 0: never taken.
    thread: AtomicI32,
}

impl Cells {
    /// Cells that look up nothing, whose words are used up.
    const fn new() -> Cells {
        const fn zero() -> AtomicU64 {
            AtomicU64::new(0)
        }
        let behind = [const {
            Behind {
                granted: zero(),
                counted: zero(),
                freed_granted: zero(),
                freed_counted: zero(),
                rest: zero(),
                mean: AtomicU32::new(0),
            }
        }; OWN];
        let (turn, thread) = (AtomicU32::new(0), AtomicI32::new(0));
        Cells { fast: Fast::new(), behind, turn, thread }
    }
}

static CELLS: [Cells; THREADS] = [const { Cells::new() }; THREADS];
/// 1 once a thread counts by class.
static BY_CLASS_USED: AtomicU32 = AtomicU32::new(0);
/// Cells that were ever taken.
static USED: AtomicUsize = AtomicUsize::new(0);
/// What [`Fast::range`] shall be.
static RANGE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Totals of large objects by class, and of threads without cells.
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

/// Makes every free look up blocks in `base .. base + span`. Comes before the first such block.
pub(super) fn look_up(base: usize, span: usize) {
    // SeqCst, here and in `take`: either take sees the range, or we see its cells.
    RANGE[0].store(base, Ordering::SeqCst);
    RANGE[1].store(span, Ordering::SeqCst);
    for cells in &CELLS[..USED.load(Ordering::SeqCst).min(THREADS)] {
        cells.look_up();
    }
}

/// Ends what the calling thread was granted while nobody sampled: its next allocation is a trial.
pub(super) fn notice(local: &Local) {
    if let Some(cells) = local.own() {
        (0..OWN).for_each(|at| cells.fill(at, 0, None));
    }
}

/// Whether the block lies in what a free looks up.
pub(super) fn in_range(address: usize) -> bool {
    let [base, span] = &RANGE;
    address.wrapping_sub(base.load(Ordering::Relaxed)) < span.load(Ordering::Relaxed)
}

/// An allocation of this size was taken from nobody's words, and is counted anew.
pub(super) fn nobody_again<const BY_CLASS: bool>(size: usize) {
    hook::nobody_again(words_of::<BY_CLASS>(size));
}

/// Counts an allocation as the fast path does; true when [`slow_alloc`] must follow.
pub(super) fn count_alloc<const BY_CLASS: bool>(local: &Local, size: usize) -> bool {
    hook::count_alloc::<BY_CLASS>(local.fast(), size)
}

/// Counts a reallocation as the fast path does, without the free of the old block: that is counted apart,
/// and before, so the thread has cells unless there are none. True when [`slow_alloc`] must follow.
pub(super) fn count_realloc<const BY_CLASS: bool>(local: &Local, old: usize, size: usize) -> bool {
    // Without cells the slow path counts it elsewhere, and nobody reads these.
    hook::count_realloc::<BY_CLASS>(local.fast(), old, size)
}

/// Grants more frees of objects of this size.
#[cold]
pub(super) fn refill_freed<const BY_CLASS: bool>(local: &Local, size: usize) {
    if let Some(cells) = local.own() {
        cells.fill_freed(words_of::<BY_CLASS>(size));
    }
}

/// Adds to a word that only this thread writes: a load and a store, no locked instruction.
#[inline(always)]
fn add(word: &AtomicU64, more: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// A counted allocation that is to be continued.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) size: usize,
    /// Units it was charged: size + 1, or what a reallocation grew by.
    pub(super) units: u64,
}

/// Continues a counted allocation: fills the word again, and says whether the object is sampled, with
/// the mean of its draw.
#[cold]
pub(super) fn slow_alloc<const BY_CLASS: bool>(
    local: &Local,
    counted: Counted,
    draws: &impl Draws,
) -> Option<f32> {
    let at = words_of::<BY_CLASS>(counted.size);
    if is_large(counted.size) {
        count_wide::<BY_CLASS>(counted.size);
        return fresh_trial(local, counted, draws);
    }
    let Some(cells) = local.own() else {
        hook::nobody_again(at);
        if take::<BY_CLASS>(local).is_none() {
            count_wide::<BY_CLASS>(counted.size);
            return fresh_trial(local, counted, draws);
        }
        // Counted now, where nothing may be granted: a fresh word is negative then, as it must be here.
        let _ = count_alloc::<BY_CLASS>(local, counted.size);
        return slow_alloc::<BY_CLASS>(local, counted, draws);
    };
    let (left, _) = parts(cells.fast.words[at].left.load(Ordering::Relaxed));
    if draws.exact() {
        cells.fill(at, 0, None);
        return fresh_trial(local, counted, draws);
    }
    let Some(draw) = draws.draw(&local.thread) else {
        cells.fill(at, GRANT_OFF, None);
        return None;
    };
    let mean = f32::from_bits(cells.behind[at].mean.load(Ordering::Relaxed));
    if mean > 0.0 {
        let rest = cells.behind[at].rest.load(Ordering::Relaxed).cast_signed();
        let remaining = left.saturating_add(rest);
        if remaining >= 0 {
            cells.fill(at, remaining, Some(mean));
            return None;
        }
        cells.fill(at, draw.left, Some(draw.mean));
        return Some(mean);
    }
    // The word was filled while nobody sampled: this object gets a trial of its own.
    let remaining = draw.left.saturating_sub_unsigned(counted.units);
    if remaining >= 0 {
        cells.fill(at, remaining, Some(draw.mean));
        return None;
    }
    let next = draws.draw(&local.thread).unwrap_or(draw);
    cells.fill(at, next.left, Some(next.mean));
    Some(draw.mean)
}

fn fresh_trial(local: &Local, counted: Counted, draws: &impl Draws) -> Option<f32> {
    let draw = draws.draw(&local.thread)?;
    let large = is_large(counted.size) && counted.size as f64 > f64::from(draw.mean);
    let met = draws.exact() || large || draw.left.cast_unsigned() < counted.units;
    met.then_some(draw.mean)
}

/// Takes the count of an allocation back.
pub(super) fn uncount_alloc<const BY_CLASS: bool>(local: &Local, size: usize) {
    match local.own().filter(|_| !is_large(size)) {
        Some(cells) => {
            let behind = &cells.behind[words_of::<BY_CLASS>(size)];
            cells.exclusive(|| {
                add(&behind.counted, u64::MAX);
                add(&behind.granted, (size as u64 + 1).wrapping_neg());
            });
        }
        None => {
            let wide = &WIDE[wide_of::<BY_CLASS>(size)];
            wide.allocs.fetch_sub(1, Ordering::Relaxed);
            wide.allocated.fetch_sub(size as u64, Ordering::Relaxed);
        }
    }
}

/// Counts any free: of a large object, of a thread that has no cells yet.
pub(super) fn slow_free<const BY_CLASS: bool>(local: &Local, size: usize) {
    if is_large(size) || take::<BY_CLASS>(local).is_none() {
        let wide = &WIDE[wide_of::<BY_CLASS>(size)];
        wide.frees.fetch_add(1, Ordering::Relaxed);
        wide.freed.fetch_add(size as u64, Ordering::Relaxed);
    } else if hook::count_free::<BY_CLASS>(local.fast(), size) {
        refill_freed::<BY_CLASS>(local, size);
    }
}

fn count_wide<const BY_CLASS: bool>(size: usize) {
    let wide = &WIDE[wide_of::<BY_CLASS>(size)];
    wide.allocs.fetch_add(1, Ordering::Relaxed);
    wide.allocated.fetch_add(size as u64, Ordering::Relaxed);
}

const fn wide_of<const BY_CLASS: bool>(size: usize) -> usize {
    if is_large(size) { class(size) } else { words_of::<BY_CLASS>(size) }
}

impl Cells {
    #[inline(always)]
    fn exclusive(&self, change: impl FnOnce()) {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        // Readers see the odd turn before the change, and the change before the even one.
        fence(Ordering::Release);
        change();
        self.turn.store(turn.wrapping_add(2), Ordering::Release);
    }

    /// Sets what is left of a class to `units` at most; the rest waits.
    fn fill(&self, at: usize, units: i64, mean: Option<f32>) {
        let behind = &self.behind[at];
        let grant = units.min(GRANT_MAX);
        self.grant(&self.fast.words[at].left, grant, (&behind.granted, &behind.counted));
        behind.rest.store((units - grant).cast_unsigned(), Ordering::Relaxed);
        behind.mean.store(mean.unwrap_or(0.0).to_bits(), Ordering::Relaxed);
    }

    fn fill_freed(&self, at: usize) {
        let behind = &self.behind[at];
        let sums = (&behind.freed_granted, &behind.freed_counted);
        self.grant(&self.fast.words[at].freed, GRANT_FREE, sums);
    }

    /// Makes a word stand at `grant` units and no operation.
    fn grant(&self, word: &AtomicU64, grant: i64, (granted, counted): (&AtomicU64, &AtomicU64)) {
        self.exclusive(|| {
            let (units, count) = parts(word.load(Ordering::Relaxed));
            add(granted, (grant - units).cast_unsigned());
            add(counted, count);
            word.store(grant.cast_unsigned() << COUNT_BITS, Ordering::Relaxed);
        });
    }

    fn look_up(&self) {
        let [base, span] = [0, 1].map(|at: usize| RANGE[at].load(Ordering::SeqCst));
        if span != 0 {
            self.fast.range[0].store(base, Ordering::Relaxed);
            self.fast.range[1].store(span, Ordering::Relaxed);
        }
    }

    fn words_now(&self, at: usize) -> Sums {
        let (words, behind) = (&self.fast.words[at], &self.behind[at]);
        let now = |word: &AtomicU64| word.load(Ordering::Acquire);
        // Frees first: what is freed was allocated before.
        let (units, count) = parts(now(&words.freed));
        let frees = now(&behind.freed_counted).wrapping_add(count);
        let freed = now(&behind.freed_granted).wrapping_sub(units.cast_unsigned());
        let (units, count) = parts(now(&words.left));
        let counted = now(&behind.counted).wrapping_add(count);
        let charged = now(&behind.granted).wrapping_sub(units.cast_unsigned());
        Sums {
            allocated: charged.wrapping_sub(counted).wrapping_add(now(&words.kept)),
            allocs: counted.wrapping_add(now(&words.reallocs)),
            freed: freed.wrapping_sub(frees),
            frees,
        }
    }

    /// Counts of a class. One operation that runs meanwhile may be half counted.
    fn read(&self, at: usize) -> Sums {
        for _ in 0..1_000 {
            let turn = self.turn.load(Ordering::Acquire);
            let read = self.words_now(at);
            // Pairs with the fence in exclusive.
            fence(Ordering::Acquire);
            if turn.is_multiple_of(2) && self.turn.load(Ordering::Relaxed) == turn {
                return read;
            }
            std::hint::spin_loop();
        }
        // The owner was stopped in the middle of a change: off by one grant at most.
        self.words_now(at)
    }
}

/// Cells for the calling thread: its own, fresh ones, or those of a thread that is gone.
fn take<const BY_CLASS: bool>(local: &Local) -> Option<&'static Cells> {
    if local.refused.get() || local.own().is_some() {
        return local.own();
    }
    BY_CLASS_USED.fetch_or(u32::from(BY_CLASS), Ordering::Relaxed);
    let own = super::threads::id();
    let more = |used| (used < THREADS).then_some(used + 1);
    let cells = match USED.fetch_update(Ordering::SeqCst, Ordering::Relaxed, more) {
        Ok(index) => {
            if index == 0 {
                super::plain::watch();
            }
            let cells = &CELLS[index];
            cells.thread.store(own, Ordering::Relaxed);
            cells.look_up();
            Some(cells)
        }
        Err(_) => inherit(own),
    };
    local.cells.set(cells);
    if let Some(cells) = cells {
        hook::count_in(&cells.fast);
    }
    local.refused.set(cells.is_none());
    cells
}

fn inherit(own: i32) -> Option<&'static Cells> {
    CELLS.iter().find(|cells| {
        let before = cells.thread.load(Ordering::Relaxed);
        let swap = || {
            // Acquire: the last words of the thread that is gone are seen.
            let (set, failed) = (Ordering::Acquire, Ordering::Relaxed);
            cells.thread.compare_exchange(before, own, set, failed).is_ok()
        };
        // A thread that the kernel does not know writes its words no more, its last free included.
        before != 0 && super::threads::gone(before) && swap()
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

impl Sums {
    fn plus(self, other: Sums) -> Sums {
        Sums {
            allocated: self.allocated.wrapping_add(other.allocated),
            allocs: self.allocs.wrapping_add(other.allocs),
            freed: self.freed.wrapping_add(other.freed),
            frees: self.frees.wrapping_add(other.frees),
        }
    }
}

/// Whether a thread has ever allocated through this allocator.
pub(super) fn used() -> bool {
    USED.load(Ordering::Relaxed) > 0
}

/// Sums of a class. Costs a few ns per thread. A block that moves between two threads meanwhile may be
/// seen freed and not yet allocated.
fn sums(class: usize) -> Sums {
    let used = USED.load(Ordering::Relaxed).min(THREADS);
    let wide = Sums {
        freed: WIDE[class].freed.load(Ordering::Acquire),
        frees: WIDE[class].frees.load(Ordering::Acquire),
        allocated: WIDE[class].allocated.load(Ordering::Acquire),
        allocs: WIDE[class].allocs.load(Ordering::Acquire),
    };
    let own = if class < OWN { &CELLS[..used] } else { &[] };
    own.iter().fold(wide, |sums, cells| sums.plus(cells.read(class)))
}

/// Sums over all classes.
pub(super) fn all() -> Sums {
    (0..CLASSES).map(sums).fold(Sums::default(), Sums::plus)
}

/// Sums of the thread's own words; `None` before its first allocation.
pub(super) fn own(local: &Local) -> Option<Sums> {
    let cells = local.own()?;
    Some((0..OWN).map(|at| cells.words_now(at)).fold(Sums::default(), Sums::plus))
}

/// Totals of every class. Unless threads count by class, the first one holds all up to [`LARGE`].
pub(super) fn classes() -> [ClassTotals; CLASSES] {
    std::array::from_fn(|class| {
        let sums = sums(class);
        let coarse = class == 0 && BY_CLASS_USED.load(Ordering::Relaxed) == 0;
        let power = if coarse { LARGE.ilog2() } else { u32::try_from(class + 3).unwrap_or(64) };
        ClassTotals {
            up_to: 1u64.checked_shl(power).unwrap_or(u64::MAX),
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
