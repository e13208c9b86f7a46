//! Hierarchical timing wheel (Varghese and Lauck 1987): 4 levels of 256 slots, intrusive lists in a
//! slab, bitmaps to find the next event. It does not know the time. Insert and cancel are O(1); a timer
//! never fires early and at most one tick (131 us) late, plus the time until `advance` is called.
#![expect(
    clippy::cast_possible_truncation,
    reason = "level numbers and list numbers are below 1025"
)]

/// log2 of a tick in ns: 131 us. Sleeps shorter than that are rounded up to it.
const TICK_BITS: u32 = 17;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 4;
const NONE: u32 = u32::MAX;
/// List number of timers that are due already.
const DUE: u32 = (LEVELS * SLOTS) as u32;

/// Names a timer; a stale id is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// A timer that has come due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fired {
    pub(crate) deadline_ns: u64,
    pub(crate) owner: u64,
    pub(crate) token: Option<u64>,
}

#[derive(Debug)]
struct Node {
    fired: Fired,
    tick: u64,
    list: u32,
    prev: u32,
    next: u32,
    generation: u32,
    used: bool,
}

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    nodes: Vec<Node>,
    free: u32,
    heads: Vec<u32>,
    tails: Vec<u32>,
    bits: [[u64; SLOTS / 64]; LEVELS],
    now_tick: u64,
    pending: u32,
    max: u32,
}

impl Wheel {
    pub(crate) fn new(now_ns: u64, max: u32) -> Self {
        Self {
            nodes: Vec::new(),
            free: NONE,
            heads: vec![NONE; LEVELS * SLOTS + 1],
            tails: vec![NONE; LEVELS * SLOTS + 1],
            bits: [[0; SLOTS / 64]; LEVELS],
            now_tick: now_ns >> TICK_BITS,
            pending: 0,
            max,
        }
    }

    pub(crate) const fn pending(&self) -> u32 {
        self.pending
    }

    /// Bytes of the tables.
    pub(crate) const fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + 2 * self.heads.capacity() * size_of::<u32>()
    }

    /// Inserts a timer; `None` when the bound is reached.
    pub(crate) fn insert(&mut self, fired: Fired) -> Option<TimerId> {
        let index = self.vacant()?;
        let tick = (fired.deadline_ns >> TICK_BITS) + 1;
        let node = &mut self.nodes[index as usize];
        (node.fired, node.tick, node.used) = (fired, tick, true);
        let generation = node.generation;
        self.pending += 1;
        self.link(index);
        Some(TimerId { index, generation })
    }

    fn vacant(&mut self) -> Option<u32> {
        if self.free != NONE {
            let index = self.free;
            self.free = self.nodes[index as usize].next;
            return Some(index);
        }
        let index = u32::try_from(self.nodes.len()).ok().filter(|&i| i < self.max && i != NONE)?;
        let fired = Fired { deadline_ns: 0, owner: 0, token: None };
        self.nodes.push(Node {
            fired,
            tick: 0,
            list: DUE,
            prev: NONE,
            next: NONE,
            generation: 0,
            used: false,
        });
        Some(index)
    }

    /// Puts a node on the list its tick asks for, seen from the current tick.
    fn link(&mut self, index: u32) {
        let tick = self.nodes[index as usize].tick;
        let list = self.list_of(tick);
        // At the tail: what is due first is delivered first, however much is due at once.
        let tail = std::mem::replace(&mut self.tails[list as usize], index);
        let node = &mut self.nodes[index as usize];
        (node.list, node.prev, node.next) = (list, tail, NONE);
        match tail {
            NONE => self.heads[list as usize] = index,
            _ => self.nodes[tail as usize].next = index,
        }
        self.mark(list, true);
    }

    fn list_of(&self, tick: u64) -> u32 {
        let ahead = tick.saturating_sub(self.now_tick);
        if ahead == 0 {
            return DUE;
        }
        let top = LEVELS as u32 - 1;
        // Beyond the last level's reach it waits in that level's farthest slot and is linked again there.
        let reach = 1u64 << (SLOT_BITS * LEVELS as u32);
        let tick = if ahead >= reach { self.now_tick + reach - 1 } else { tick };
        let level = ((63 - (tick - self.now_tick).leading_zeros()) / SLOT_BITS).min(top);
        let slot = (tick >> (SLOT_BITS * level)) & (SLOTS as u64 - 1);
        level * SLOTS as u32 + u32::try_from(slot).expect("masked to 8 bits")
    }

    fn mark(&mut self, list: u32, on: bool) {
        if list == DUE {
            return;
        }
        let (level, slot) = (list as usize / SLOTS, list as usize % SLOTS);
        let bit = 1u64 << (slot % 64);
        let word = &mut self.bits[level][slot / 64];
        *word = if on { *word | bit } else { *word & !bit };
    }

    /// Cancels a timer; `false` when it has fired or was cancelled.
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        match self.nodes.get(id.index as usize) {
            Some(node) if node.used && node.generation == id.generation => {}
            _ => return false,
        }
        self.unlink(id.index);
        self.release(id.index);
        true
    }

    /// Whether a timer has neither fired nor been cancelled.
    pub(crate) fn is_pending(&self, id: TimerId) -> bool {
        let node = self.nodes.get(id.index as usize);
        node.is_some_and(|node| node.used && node.generation == id.generation)
    }

    fn unlink(&mut self, index: u32) {
        let Node { list, prev, next, .. } = self.nodes[index as usize];
        match prev {
            NONE => self.heads[list as usize] = next,
            _ => self.nodes[prev as usize].next = next,
        }
        match next {
            NONE => self.tails[list as usize] = prev,
            _ => self.nodes[next as usize].prev = prev,
        }
        if self.heads[list as usize] == NONE {
            self.mark(list, false);
        }
    }

    fn release(&mut self, index: u32) {
        let free = self.free;
        let node = &mut self.nodes[index as usize];
        node.used = false;
        node.generation = node.generation.wrapping_add(1);
        node.next = free;
        self.free = index;
        self.pending -= 1;
    }

    /// When `advance` has something to do next, ns; 0 when it has now.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if self.heads[DUE as usize] != NONE {
            return Some(0);
        }
        self.next_event().map(|tick| tick << TICK_BITS)
    }

    /// The next tick at which a slot fires or must be spread over the level below.
    fn next_event(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_of_level(level)).min()
    }

    fn next_of_level(&self, level: usize) -> Option<u64> {
        let shift = SLOT_BITS * level as u32;
        let base = self.now_tick >> shift;
        let current = usize::try_from(base & (SLOTS as u64 - 1)).expect("masked to 8 bits");
        let distance = self.distance(level, current)?;
        Some((base + distance) << shift)
    }

    /// Slots from `current` (excluded, so 1..=256) to the next marked one.
    fn distance(&self, level: usize, current: usize) -> Option<u64> {
        let words = &self.bits[level];
        let start = (current + 1) % SLOTS;
        for step in 0..=words.len() {
            let at = (start / 64 + step) % words.len();
            let mut word = words[at];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words.len() {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let slot = at * 64 + word.trailing_zeros() as usize;
                return Some(((slot + SLOTS - start) % SLOTS) as u64 + 1);
            }
        }
        None
    }

    /// Moves the time on and collects what is due, at most `room` timers; the rest stays due.
    pub(crate) fn advance(&mut self, now_ns: u64, out: &mut Vec<Fired>, room: usize) {
        let target = (now_ns >> TICK_BITS).max(self.now_tick);
        while let Some(event) = self.next_event().filter(|&event| event <= target) {
            self.now_tick = event;
            for level in (1..LEVELS).rev() {
                let shift = SLOT_BITS * level as u32;
                if event & ((1 << shift) - 1) == 0 {
                    self.relink(level * SLOTS + slot_of(event >> shift));
                }
            }
            self.relink(slot_of(event));
        }
        self.now_tick = target;
        while out.len() < room && self.heads[DUE as usize] != NONE {
            let index = self.heads[DUE as usize];
            self.unlink(index);
            out.push(self.nodes[index as usize].fired);
            self.release(index);
        }
    }

    fn relink(&mut self, list: usize) {
        let mut index = std::mem::replace(&mut self.heads[list], NONE);
        self.tails[list] = NONE;
        self.mark(u32::try_from(list).expect("a list number is below 1025"), false);
        while index != NONE {
            let next = self.nodes[index as usize].next;
            self.link(index);
            index = next;
        }
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick & (SLOTS as u64 - 1)).expect("masked to 8 bits")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rng(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// Against a sorted map: nothing early, nothing lost, nothing later than a tick, cancels exact.
    #[test]
    fn agrees_with_a_sorted_map() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut wheel = Wheel::new(1_000_000, 1 << 16);
        let (mut now, mut out) = (1_000_000u64, Vec::new());
        let mut model: BTreeMap<u64, (u64, TimerId)> = BTreeMap::new();
        for owner in 0..200_000u64 {
            match rng(&mut seed) % 4 {
                0 | 1 => {
                    let spans = [1_000_000, 60_000_000, 20_000_000_000, 40_000_000_000_000_000];
                    let span = spans[(rng(&mut seed) % 4) as usize];
                    let deadline_ns = now + rng(&mut seed) % span;
                    if let Some(id) = wheel.insert(Fired { deadline_ns, owner, token: None }) {
                        model.insert(owner, (deadline_ns, id));
                    }
                }
                2 if !model.is_empty() => {
                    let key = *model
                        .keys()
                        .nth((rng(&mut seed) % model.len().min(50) as u64) as usize)
                        .unwrap();
                    let (_, id) = model.remove(&key).unwrap();
                    assert!(wheel.cancel(id) && !wheel.cancel(id));
                }
                _ => {
                    let next = wheel.next_deadline();
                    now += rng(&mut seed)
                        % [100_000, 5_000_000, 10_000_000_000][(rng(&mut seed) % 3) as usize];
                    out.clear();
                    wheel.advance(now, &mut out, usize::MAX);
                    for fired in &out {
                        let (deadline, _) = model.remove(&fired.owner).expect("fired once");
                        assert!(deadline <= now, "early");
                        assert!(
                            next.is_some_and(|next| next <= now),
                            "the park would have overslept"
                        );
                    }
                    let late = model.values().filter(|(d, _)| d + (2 << TICK_BITS) <= now).count();
                    assert_eq!(late, 0, "left behind");
                }
            }
            assert_eq!(wheel.pending() as usize, model.len());
        }
    }

    #[test]
    fn more_due_timers_than_room_come_in_the_order_of_their_ticks() {
        let mut wheel = Wheel::new(0, 10_000);
        for owner in 0..10_000u64 {
            let deadline_ns = (owner * 7_919 % 10_000) << TICK_BITS;
            assert!(wheel.insert(Fired { deadline_ns, owner, token: None }).is_some());
        }
        let (mut out, mut last) = (Vec::new(), 0);
        for _ in 0..10 {
            out.clear();
            wheel.advance(20_000 << TICK_BITS, &mut out, 1_000);
            assert_eq!(out.len(), 1_000);
            for fired in &out {
                assert!(fired.deadline_ns >= last, "an earlier one was overtaken");
                last = fired.deadline_ns;
            }
        }
        assert_eq!((wheel.pending(), wheel.next_deadline()), (0, None));
    }

    #[test]
    fn the_bound_and_the_room_hold() {
        let mut wheel = Wheel::new(0, 2);
        let fired = Fired { deadline_ns: 5, owner: 1, token: Some(2) };
        assert!(wheel.insert(fired).is_some() && wheel.insert(fired).is_some());
        assert!(wheel.insert(fired).is_none());
        let mut out = Vec::new();
        wheel.advance(1 << 20, &mut out, 1);
        assert_eq!(out.len(), 1);
        assert_eq!(wheel.next_deadline(), Some(0), "the other is still due");
        wheel.advance(1 << 20, &mut out, 8);
        assert_eq!((out.len(), wheel.next_deadline()), (2, None));
    }
}
