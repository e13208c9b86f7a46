//! Hierarchical timing wheel (Varghese and Lauck 1987): 4,096 slots of a tick (131 us), 4,096 of half a
//! second, 256 of 37 minutes. It does not know the time. A timer never fires early and at most one tick
//! late, plus the time until `advance` is called; timers with equal deadlines fire in the order in which
//! they were set (unless that was more than six days ahead). Insert and cancel are O(1).
//!
//! ```text
//! state  generation 4 | place 4                   one per timer: which entry of which block names it
//! due    deadline 8 | owner 8 | token 8           one per timer, read when it fires or goes down a level
//! block  15 timers, 4 each | used 4               a piece of a slot's list
//! ring   prev 4 | next 4                          the heads of the slots' lists, then one per block
//! live   1                                        timers of a block that are not cancelled
//! ```
//!
//! A list of blocks and not of timers: a cancel touches a timer's state and a count, not its neighbours, and
//! the timers of a block are loaded together, not one after the other. An entry whose timer says that it is
//! elsewhere is void. A block without a live timer is free at once, so there are never more blocks than
//! timers. A level is chosen by the
//! highest digit in which tick and present differ, so that all timers of a tick go down together, in order.
#![expect(
    clippy::cast_possible_truncation,
    reason = "slot numbers are masked; there are less than 2^27 timers and blocks"
)]

use super::bits::Bits;
use super::table::Table;
use crate::prefetch::{prefetch, prefetch_write};

/// log2 of a tick in ns: 131 us. Sleeps shorter than that are rounded up to it.
const TICK_BITS: u32 = 17;
/// A tick, ns.
pub(crate) const TICK_NS: u64 = 1 << TICK_BITS;
/// log2 of the slots of the two lower levels, and of the top level.
const SLOT_BITS: u32 = 12;
const TOP_BITS: u32 = 8;
const SLOTS: u32 = 1 << SLOT_BITS;
const TOP_SLOTS: u32 = 1 << TOP_BITS;
/// Lists: of what is due, then of each slot.
const DUE: u32 = 0;
const LOW: u32 = 1;
const MIDDLE: u32 = LOW + SLOTS;
const TOP: u32 = MIDDLE + SLOTS;
const LISTS: u32 = TOP + TOP_SLOTS;
/// Timers named by a block: with the counts they fill a cache line.
const ENTRIES: usize = 15;
/// Places of the free list that are being fetched: what was cancelled long ago is in no cache.
const AHEAD: usize = 8;

/// A place: whether the timer has a token, its block, its entry there. No block is 0, so 0 is no place.
const TOKEN: u32 = 1 << 31;
const BLOCK_SHIFT: u32 = 4;
/// Most timers, so that a block's number fits a place.
const TIMERS_MAX: u32 = (1 << 27) - 2;

/// Names a timer; a stale id is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    generation: u32,
    /// Whose wheel it is in: an agent takes its ids along when it moves.
    shard: u16,
}

impl TimerId {
    /// The same in the wheel of a shard.
    pub(crate) fn at(self, shard: usize) -> Self {
        Self { shard: u16::try_from(shard).expect("a handle has 8 bits for it"), ..self }
    }

    pub(crate) fn is_at(self, shard: usize) -> bool {
        usize::from(self.shard) == shard
    }
}

/// A timer that has come due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fired {
    pub(crate) deadline_ns: u64,
    pub(crate) owner: u64,
    pub(crate) token: Option<u64>,
    /// Place among the timers of one list.
    order: u32,
}

/// What a cancel needs of a timer.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    generation: u32,
    place: u32,
}

/// What is needed of a timer when it is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    deadline_ns: u64,
    owner: u64,
    token: u64,
}

/// A piece of a list. An entry is the index of a timer, if that timer's place is this entry.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Block {
    entries: [u32; ENTRIES],
    used: u32,
}

/// The neighbours of a block, or the ends of a list; lists are rings, so that neither end is special.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    prev: u32,
    next: u32,
}

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    states: Table<State>,
    dues: Table<Due>,
    blocks: Table<Block>,
    rings: Table<Ring>,
    lives: Table<u8>,
    /// Timers that were used and are not, last released last.
    free: Table<u32>,
    frees: usize,
    /// Timers that were ever used.
    fresh: u32,
    /// First of the free blocks, which are chained by their `next`; 0 when there is none.
    free_block: u32,
    /// Blocks that were ever used, and block 0.
    fresh_block: u32,
    low: Bits,
    middle: Bits,
    top: Bits,
    now_tick: u64,
    pending: u32,
    max: u32,
}

impl Wheel {
    /// `None` when the system has no address space left.
    pub(crate) fn new(now_ns: u64, max: u32) -> Option<Self> {
        let max = max.min(TIMERS_MAX);
        // Block 0 is none, and one more is live while its timers go down a level.
        let blocks = max as usize + 2;
        let mut rings = Table::new(LISTS as usize + blocks)?;
        for list in 0..LISTS {
            rings.all_mut()[list as usize] = Ring { prev: list, next: list };
        }
        Some(Self {
            states: Table::new(max as usize)?,
            dues: Table::new(max as usize)?,
            blocks: Table::new(blocks)?,
            rings,
            lives: Table::new(blocks)?,
            free: Table::new(max as usize)?,
            frees: 0,
            fresh: 0,
            free_block: 0,
            fresh_block: 1,
            low: Bits::new(),
            middle: Bits::new(),
            top: Bits::new(),
            now_tick: now_ns >> TICK_BITS,
            pending: 0,
            max,
        })
    }

    pub(crate) const fn pending(&self) -> u32 {
        self.pending
    }

    /// Bytes of the tables, as far as they were ever used.
    pub(crate) const fn bytes(&self) -> usize {
        let timer = size_of::<State>() + size_of::<Due>() + size_of::<u32>();
        let blocks = self.fresh_block as usize * (size_of::<Block>() + size_of::<Ring>() + 1);
        self.fresh as usize * timer + blocks + LISTS as usize * size_of::<Ring>()
    }

    /// Inserts a timer; `None` when the bound is reached.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        deadline_ns: u64,
        owner: u64,
        token: Option<u64>,
    ) -> Option<TimerId> {
        let index = self.vacant()?;
        let flag = if token.is_some() { TOKEN } else { 0 };
        let token = token.unwrap_or_default();
        self.dues.all_mut()[index as usize] = Due { deadline_ns, owner, token };
        self.pending += 1;
        self.append(index, tick_of(deadline_ns), flag);
        let generation = self.states.all()[index as usize].generation;
        Some(TimerId { index, generation, shard: 0 })
    }

    #[inline]
    fn vacant(&mut self) -> Option<u32> {
        if let Some(last) = self.frees.checked_sub(1) {
            self.frees = last;
            if let Some(ahead) = last.checked_sub(AHEAD) {
                let ahead = self.free.all()[ahead] as usize;
                prefetch_write(&raw const self.states.all()[ahead]);
                // It may lie in two lines.
                prefetch_write(&raw const self.dues.all()[ahead].deadline_ns);
                prefetch_write(&raw const self.dues.all()[ahead].token);
            }
            return Some(self.free.all()[last]);
        }
        let index = self.fresh;
        (index < self.max).then(|| {
            self.fresh += 1;
            index
        })
    }

    /// Puts a timer at the end of the list that its tick asks for, seen from the current tick.
    #[inline]
    fn append(&mut self, index: u32, tick: u64, flag: u32) {
        let list = self.list_of(tick);
        let mut at = self.rings.all()[list as usize].prev;
        if at < LISTS || self.block(at).used as usize == ENTRIES {
            at = self.add_block(list);
        }
        let block = self.block(at);
        let entry = block.used;
        block.entries[entry as usize] = index;
        block.used += 1;
        self.lives.all_mut()[(at - LISTS) as usize] += 1;
        let place = (at - LISTS) << BLOCK_SHIFT | entry | flag;
        self.states.all_mut()[index as usize].place = place;
    }

    /// The list of a tick. What is farther than the top level reaches waits in that level's farthest slot.
    #[inline]
    const fn list_of(&self, tick: u64) -> u32 {
        if tick <= self.now_tick {
            return DUE;
        }
        let differ = tick ^ self.now_tick;
        if differ < 1 << SLOT_BITS {
            return LOW + low_digits(tick, SLOT_BITS);
        }
        if differ < 1 << (2 * SLOT_BITS) {
            return MIDDLE + low_digits(tick >> SLOT_BITS, SLOT_BITS);
        }
        let farthest = (self.now_tick >> (2 * SLOT_BITS)) + TOP_SLOTS as u64 - 1;
        let slot = tick >> (2 * SLOT_BITS);
        TOP + low_digits(if slot < farthest { slot } else { farthest }, TOP_BITS)
    }

    /// The block at a ring that is no list's head.
    #[inline]
    const fn block(&mut self, at: u32) -> &mut Block {
        &mut self.blocks.all_mut()[(at - LISTS) as usize]
    }

    /// Adds an empty block at the end of a list; returns its ring.
    fn add_block(&mut self, list: u32) -> u32 {
        let rings = self.rings.all_mut();
        let at = if self.free_block == 0 {
            self.fresh_block += 1;
            LISTS + self.fresh_block - 1
        } else {
            let at = self.free_block;
            self.free_block = rings[at as usize].next;
            at
        };
        let tail = std::mem::replace(&mut rings[list as usize].prev, at);
        rings[tail as usize].next = at;
        rings[at as usize] = Ring { prev: tail, next: list };
        self.block(at).used = 0;
        self.lives.all_mut()[(at - LISTS) as usize] = 0;
        if tail == list {
            self.mark(list, true);
        }
        at
    }

    const fn mark(&mut self, list: u32, on: bool) {
        let (bits, slot) = match list {
            DUE => return,
            LOW..MIDDLE => (&mut self.low, list - LOW),
            MIDDLE..TOP => (&mut self.middle, list - MIDDLE),
            _ => (&mut self.top, list - TOP),
        };
        if on {
            bits.set(slot as usize);
        } else {
            bits.clear(slot as usize);
        }
    }

    /// Cancels a timer; `false` when it has fired or was cancelled.
    #[inline]
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        if id.index >= self.fresh {
            return false;
        }
        let State { generation, place } = self.states.all()[id.index as usize];
        if place == 0 || generation != id.generation {
            return false;
        }
        self.release(id.index);
        let block = (place & !TOKEN) >> BLOCK_SHIFT;
        let live = &mut self.lives.all_mut()[block as usize];
        *live -= 1;
        if *live == 0 {
            self.remove_block(LISTS + block);
        }
        true
    }

    /// Cancels the timers of some owners. Looks at every timer: 10 ms for a million.
    pub(crate) fn cancel_all(&mut self, of: impl Fn(u64) -> bool) {
        for index in 0..self.fresh {
            let State { generation, place } = self.states.all()[index as usize];
            if place != 0 && of(self.dues.all()[index as usize].owner) {
                self.cancel(TimerId { index, generation, shard: 0 });
            }
        }
    }

    /// Owners of the timers that poll them, with repetitions. Looks at every timer: 10 ms for a million.
    pub(crate) fn polled_owners(&self) -> impl Iterator<Item = u64> {
        let timers = self.states.all().iter().zip(self.dues.all()).take(self.fresh as usize);
        timers
            .filter(|(state, _)| state.place != 0 && state.place & TOKEN == 0)
            .map(|(_, due)| due.owner)
    }

    /// Whether a timer has neither fired nor been cancelled.
    pub(crate) fn is_pending(&self, id: TimerId) -> bool {
        let known = id.index < self.fresh;
        let state = || self.states.all()[id.index as usize];
        known && state().place != 0 && state().generation == id.generation
    }

    /// Frees a timer.
    #[inline]
    fn release(&mut self, index: u32) {
        let state = &mut self.states.all_mut()[index as usize];
        (state.generation, state.place) = (state.generation.wrapping_add(1), 0);
        self.free.all_mut()[self.frees] = index;
        self.frees += 1;
        self.pending -= 1;
    }

    /// Takes a block without a live timer from its list.
    fn remove_block(&mut self, at: u32) {
        let rings = self.rings.all_mut();
        let Ring { prev, next } = rings[at as usize];
        rings[prev as usize].next = next;
        rings[next as usize].prev = prev;
        // Both neighbours are the head: the list is empty.
        if prev == next {
            self.mark(prev, false);
        }
        self.free_block(at);
    }

    const fn free_block(&mut self, at: u32) {
        self.rings.all_mut()[at as usize].next = self.free_block;
        self.free_block = at;
    }

    /// When `advance` has something to do next, ns; 0 when it has now.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if self.rings.all()[DUE as usize].next != DUE {
            return Some(0);
        }
        self.next_event().map(|tick| tick << TICK_BITS)
    }

    /// The next tick at which a slot fires or must be spread over the levels below: those of a lower level
    /// are all before those of a higher one.
    fn next_event(&self) -> Option<u64> {
        let now = self.now_tick;
        let after = |digits: u64| low_digits(digits, SLOT_BITS) as usize + 1;
        if let Some(slot) = self.low.first(after(now)) {
            return Some((now >> SLOT_BITS << SLOT_BITS) + slot as u64);
        }
        if let Some(slot) = self.middle.first(after(now >> SLOT_BITS)) {
            return Some(
                (now >> (2 * SLOT_BITS) << (2 * SLOT_BITS)) + ((slot as u64) << SLOT_BITS),
            );
        }
        let base = now >> (2 * SLOT_BITS);
        let current = low_digits(base, TOP_BITS) as usize;
        let slot = self.top.first(current + 1).or_else(|| self.top.first(0))?;
        let ahead = (slot + TOP_SLOTS as usize - current - 1) % TOP_SLOTS as usize + 1;
        Some((base + ahead as u64) << (2 * SLOT_BITS))
    }

    /// Moves the time on and collects what is due, at most `room` timers, by deadline and among equals in
    /// the order in which they were set; the rest stays due.
    pub(crate) fn advance(&mut self, now_ns: u64, out: &mut Vec<Fired>, room: usize) {
        let target = (now_ns >> TICK_BITS).max(self.now_tick);
        while let Some(event) = self.next_event().filter(|&event| event <= target) {
            self.now_tick = event;
            if low_digits(event, 2 * SLOT_BITS) == 0 {
                self.spread(TOP + low_digits(event >> (2 * SLOT_BITS), TOP_BITS));
            }
            if low_digits(event, SLOT_BITS) == 0 {
                self.spread(MIDDLE + low_digits(event >> SLOT_BITS, SLOT_BITS));
            }
            self.fall_due(LOW + low_digits(event, SLOT_BITS));
        }
        self.now_tick = target;
        let from = out.len();
        loop {
            let at = self.rings.all()[DUE as usize].next;
            if at == DUE || out.len() >= room {
                break;
            }
            self.fetch(at);
            self.fire(at, out, room);
        }
        // They come by tick, and in a tick as they were set.
        let fired = &mut out[from..];
        if !fired.is_sorted_by_key(|timer| timer.deadline_ns) {
            fired.sort_unstable_by_key(|timer| (timer.deadline_ns, timer.order));
        }
    }

    /// Takes the timers of a block, as far as there is room, and the block with the last of them.
    fn fire(&mut self, at: u32, out: &mut Vec<Fired>, room: usize) {
        let Block { entries, used } = *self.block(at);
        for (entry, &index) in (0..used).zip(&entries) {
            let Some(flag) = self.names(at, entry, index) else { continue };
            if out.len() >= room {
                return;
            }
            let Due { deadline_ns, owner, token } = self.dues.all()[index as usize];
            let (token, order) = ((flag != 0).then_some(token), out.len() as u32);
            out.push(Fired { deadline_ns, owner, token, order });
            self.release(index);
            self.lives.all_mut()[(at - LISTS) as usize] -= 1;
        }
        self.remove_block(at);
    }

    /// The timer's flag if an entry of a block stands for it: it may have been cancelled, and set again.
    #[inline]
    const fn names(&self, at: u32, entry: u32, index: u32) -> Option<u32> {
        let place = self.states.all()[index as usize].place;
        if place & !TOKEN == (at - LISTS) << BLOCK_SHIFT | entry {
            Some(place & TOKEN)
        } else {
            None
        }
    }

    /// Starts to load all timers of a block, and the block behind it.
    fn fetch(&self, at: u32) {
        let behind = self.rings.all()[at as usize].next;
        if let Some(behind) = behind.checked_sub(LISTS) {
            prefetch(&raw const self.blocks.all()[behind as usize], 1);
        }
        let block = &self.blocks.all()[(at - LISTS) as usize];
        for &index in &block.entries[..block.used as usize] {
            prefetch_write(&raw const self.states.all()[index as usize]);
            prefetch(&raw const self.dues.all()[index as usize].deadline_ns, 1);
            prefetch(&raw const self.dues.all()[index as usize].token, 1);
        }
    }

    /// Adds a slot of the lowest level, all of one tick, to what is due.
    fn fall_due(&mut self, list: u32) {
        let rings = self.rings.all_mut();
        let Ring { prev: last, next: first } = rings[list as usize];
        if first == list {
            return;
        }
        let tail = rings[DUE as usize].prev;
        rings[tail as usize].next = first;
        rings[first as usize].prev = tail;
        rings[last as usize].next = DUE;
        rings[DUE as usize].prev = last;
        self.empty(list);
    }

    fn empty(&mut self, list: u32) {
        self.rings.all_mut()[list as usize] = Ring { prev: list, next: list };
        self.mark(list, false);
    }

    /// Puts each timer of a slot that begins now where it belongs seen from now.
    fn spread(&mut self, list: u32) {
        let mut at = self.rings.all()[list as usize].next;
        if at == list {
            return;
        }
        self.empty(list);
        while at != list {
            self.fetch(at);
            let next = self.rings.all()[at as usize].next;
            let Block { entries, used } = *self.block(at);
            for (entry, &index) in (0..used).zip(&entries) {
                let Some(flag) = self.names(at, entry, index) else { continue };
                let tick = tick_of(self.dues.all()[index as usize].deadline_ns);
                self.append(index, tick, flag);
            }
            self.free_block(at);
            at = next;
        }
    }
}

/// The tick at which a deadline has passed.
const fn tick_of(deadline_ns: u64) -> u64 {
    (deadline_ns >> TICK_BITS) + 1
}

const fn low_digits(number: u64, bits: u32) -> u32 {
    (number & ((1 << bits) - 1)) as u32
}

#[cfg(all(test, not(loom)))]
mod tests;
