#![expect(unsafe_code, reason = "slots of any type in memory of our own")]
//! Agents in memory: each has one slot, a header of one cache line and its state behind it, in chunks of equal
//! slots. A slot's number gives its address without a table of slots, so that a message that waits in a
//! queue can have its agent loaded ahead. Chunks lie in regions of 2 MiB for which huge pages are asked.

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};

use super::Shard;
use super::suspended::Pending;
use crate::agent::{Class, GENERATIONS, Notice, Stop};
use crate::memory::Pages;
use crate::prefetch::prefetch;

/// Slots of a chunk.
pub(crate) const CHUNK_SLOTS: usize = 512;
const CHUNK_SLOTS_U32: u32 = 512;
/// A cache line, in whose multiples slots are measured.
const LINE: usize = 64;
/// Slot sizes in lines; a larger state is boxed.
const CLASSES: [usize; 18] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 32, 64];
/// Bytes of the first region, if its first chunk fits: of 1,024 slots of 128 bytes.
const FIRST: usize = 128 << 10;
/// Cache lines of a slot that are loaded ahead.
const LINES_AHEAD: usize = 4;

/// Chunks that a table of `agents_max` may need: all agents may be of any one size.
pub(crate) fn chunks_max(agents_max: u32) -> usize {
    CLASSES.len() * (agents_max as usize / CHUNK_SLOTS + 1)
}

/// What is the same for all agents of a type.
pub(crate) struct AgentType {
    /// Whose type this is.
    pub(crate) id: TypeId,
    /// Names of the type and of its messages.
    pub(crate) name: fn() -> &'static str,
    pub(crate) message: fn() -> &'static str,
    /// What lives in the slot.
    pub(crate) role: Role,
    /// The queue that its turns wait in.
    pub(crate) class: Class,
    /// Whether it is told of a linked agent's failure instead of ending with it.
    pub(crate) traps: bool,
    /// Drops the state in the slot.
    pub(crate) drop_state: unsafe fn(NonNull<u8>),
    /// Calls its `on_timer`; `Err` ends it.
    pub(crate) timer: OnTimer,
    /// Calls its hook for a notice; `Err` ends it.
    pub(crate) notice: OnNotice,
}

/// What lives in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Agent,
    /// A spawned future.
    Task,
    /// An agent that has moved: its address leads on from here.
    Forward,
}

/// The head of a slot: one cache line.
#[repr(C, align(64))]
pub(crate) struct Header {
    /// `None` while the slot is vacant.
    pub(crate) kind: Cell<Option<&'static AgentType>>,
    /// What waits: a suspended handler and the messages behind it.
    pub(crate) pending: Cell<Option<Box<Pending>>>,
    pub(crate) generation: Cell<u32>,
    /// Messages read whose sender has not been told, and the core that sent them.
    pub(crate) arrears: Cell<u16>,
    pub(crate) arrears_of: Cell<u8>,
    flags: Cell<u8>,
    /// Messages handled.
    pub(crate) messages: Cell<u32>,
    /// Turns other than the first polls of handlers, which `messages` counts.
    pub(crate) polls: Cell<u32>,
    /// CPU time of its turns, estimated from a sample of them, ns.
    pub(crate) cpu_ns: Cell<u64>,
    /// Whom its handler asks and waits for; where a moved agent lives now. 0 is nobody.
    pub(crate) waits_for: Cell<u64>,
    /// Longest wait of a message, in units of 1,024 ns.
    pub(crate) age_max: Cell<u32>,
    /// Its relations to others, as a number of the shard's table; 0 is none.
    pub(crate) kin: Cell<u32>,
    /// Earlier lives of a supervised agent: their timers are void.
    pub(crate) incarnation: Cell<u32>,
    /// Wakers of it that are out.
    pub(crate) wakers: Cell<u32>,
}

const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == LINE && CHUNK_SLOTS_U32 as usize == CHUNK_SLOTS);

/// Calls a hook of the agent in a slot: place, handle, what has happened.
type OnNotice = unsafe fn(&Shard, NonNull<u8>, u64, Notice) -> Result<(), Stop>;
/// Calls `on_timer` of the agent in a slot: place, handle, token.
type OnTimer = unsafe fn(&Shard, NonNull<u8>, u64, u64) -> Result<(), Stop>;

/// A wake for it is in the queue.
const QUEUED: u8 = 1;
/// It takes no message now: they wait in `pending`.
const BUSY: u8 = 2;
/// It has no state: it failed and waits for its supervisor, or it has not arrived yet. Busy too.
const DOWN: u8 = 4;
/// It has not arrived yet. Down too.
const EXPECTED: u8 = 8;

impl Header {
    /// Notes that a wake is on its way; `false` when one is already.
    pub(crate) fn queue(&self) -> bool {
        let flags = self.flags.get();
        self.flags.set(flags | QUEUED);
        flags & QUEUED == 0
    }

    pub(crate) fn unqueue(&self) {
        self.flags.set(self.flags.get() & !QUEUED);
    }

    pub(crate) const fn is_queued(&self) -> bool {
        self.flags.get() & QUEUED != 0
    }

    pub(crate) const fn is_busy(&self) -> bool {
        self.flags.get() & BUSY != 0
    }

    pub(crate) fn set_busy(&self, busy: bool) {
        let flags = self.flags.get() & !BUSY;
        self.flags.set(if busy { flags | BUSY } else { flags });
    }

    pub(crate) const fn is_down(&self) -> bool {
        self.flags.get() & DOWN != 0
    }

    pub(crate) fn set_down(&self, down: bool) {
        let flags = self.flags.get() & !(DOWN | BUSY);
        self.flags.set(if down { flags | DOWN | BUSY } else { flags });
    }

    /// Whether an agent is on its way to this slot.
    pub(crate) const fn is_expected(&self) -> bool {
        self.flags.get() & EXPECTED != 0
    }

    /// Notes that an agent comes, or that it has come.
    pub(crate) fn set_expected(&self, expected: bool) {
        self.set_down(expected);
        let flags = self.flags.get() & !EXPECTED;
        self.flags.set(if expected { flags | EXPECTED } else { flags });
    }

    /// Counts a turn that is no first poll of a handler.
    pub(crate) fn count_poll(&self) {
        self.polls.set(self.polls.get().wrapping_add(1));
    }

    pub(crate) fn role(&self) -> Option<Role> {
        self.kind.get().map(|kind| kind.role)
    }

    pub(crate) fn is(&self, kind: &'static AgentType) -> bool {
        // The same type may have several copies of its constant: their addresses say nothing.
        self.kind.get().is_some_and(|own| own.id == kind.id)
    }
}

/// Whether a state of this layout lies in its slot; a larger one is boxed.
pub(crate) const fn fits(size: usize, align: usize) -> bool {
    align <= LINE && HEADER + size <= CLASSES[CLASSES.len() - 1] * LINE
}

/// The size class of a slot for a state.
pub(crate) fn class(size: usize) -> usize {
    let lines = (HEADER + size).div_ceil(LINE);
    CLASSES.iter().position(|&class| class >= lines).expect("a larger state is boxed")
}

#[derive(Clone, Copy)]
struct Chunk {
    base: *mut u8,
    stride: usize,
}

/// Fresh slots of a class: the next index, and how many follow it in its chunk.
#[derive(Clone, Copy, Default)]
struct Fresh {
    next: u32,
    left: u32,
}

struct Size {
    free: Vec<u32>,
    fresh: Fresh,
}

/// The slots of one shard.
pub(crate) struct Slab {
    chunks: Box<[Cell<Chunk>]>,
    used: Cell<usize>,
    classes: RefCell<[Size; CLASSES.len()]>,
    regions: RefCell<Vec<Region>>,
    live: Cell<u32>,
    max: u32,
    bytes: Cell<usize>,
}

impl Slab {
    pub(crate) fn new(agents_max: u32) -> Self {
        let none = Chunk { base: ptr::null_mut(), stride: 0 };
        Self {
            chunks: (0..chunks_max(agents_max)).map(|_| Cell::new(none)).collect(),
            used: Cell::new(0),
            classes: RefCell::new(std::array::from_fn(|_| Size {
                free: Vec::new(),
                fresh: Fresh::default(),
            })),
            regions: RefCell::default(),
            live: Cell::new(0),
            max: agents_max,
            bytes: Cell::new(0),
        }
    }

    #[inline]
    fn place(&self, index: u32) -> Option<NonNull<u8>> {
        let chunk = self.chunks.get(index as usize / CHUNK_SLOTS)?.get();
        let base = NonNull::new(chunk.base)?;
        // SAFETY: a chunk has CHUNK_SLOTS slots of `stride` bytes behind its base.
        Some(unsafe { base.add(index as usize % CHUNK_SLOTS * chunk.stride) })
    }

    /// The header of a slot, vacant or not.
    #[inline]
    pub(crate) fn header(&self, index: u32) -> Option<&Header> {
        // SAFETY: slots are aligned to a line and begin with a header; memory that was never written is
        // zero, which is a vacant one. Only shared references to headers are made, and it lives as long as
        // the slab.
        Some(unsafe { self.place(index)?.cast::<Header>().as_ref() })
    }

    /// Where the state of an occupied slot begins, aligned to a cache line. A state without bytes lies at the
    /// end of its slot.
    #[inline]
    pub(crate) fn state(&self, index: u32) -> Option<NonNull<u8>> {
        // SAFETY: the slot has a header, and the state behind it.
        Some(unsafe { self.place(index)?.add(HEADER) })
    }

    /// [`Slab::header`] and [`Slab::state`].
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> Option<(&Header, NonNull<u8>)> {
        let place = self.place(index)?;
        // SAFETY: as in `header`.
        let header = unsafe { place.cast::<Header>().as_ref() };
        // SAFETY: as in `state`.
        Some((header, unsafe { place.add(HEADER) }))
    }

    /// Starts to load a slot.
    #[inline]
    pub(crate) fn prefetch(&self, index: u32) {
        let Some(chunk) = self.chunks.get(index as usize / CHUNK_SLOTS) else { return };
        let chunk = chunk.get();
        let at = chunk.base.wrapping_add(index as usize % CHUNK_SLOTS * chunk.stride);
        prefetch(at, (chunk.stride / LINE).min(LINES_AHEAD));
    }

    /// A vacant slot of a class, which the caller must occupy; `None` when the table is full.
    pub(crate) fn vacant(&self, class: usize) -> Option<u32> {
        if self.live.get() >= self.max {
            return None;
        }
        let index = match self.take_free(class) {
            Some(index) => index,
            None => self.carve(class)?,
        };
        self.live.set(self.live.get() + 1);
        Some(index)
    }

    fn take_free(&self, class: usize) -> Option<u32> {
        let mut classes = self.classes.borrow_mut();
        let class = &mut classes[class];
        if let Some(index) = class.free.pop() {
            return Some(index);
        }
        let Fresh { next, left } = class.fresh;
        if left == 0 {
            return None;
        }
        class.fresh = Fresh { next: next + 1, left: left - 1 };
        drop(classes);
        // 0 is no generation, so that the zero word of a slot never used matches no handle.
        self.header(next)?.generation.set(1);
        Some(next)
    }

    /// The first slot of a new chunk.
    fn carve(&self, class: usize) -> Option<u32> {
        let number = self.used.get();
        let stride = CLASSES[class] * LINE;
        let base = self.memory(CHUNK_SLOTS * stride)?;
        self.chunks.get(number)?.set(Chunk { base: base.as_ptr(), stride });
        self.used.set(number + 1);
        self.bytes.set(self.bytes.get() + CHUNK_SLOTS * stride);
        let next = u32::try_from(number * CHUNK_SLOTS).ok()?;
        self.classes.borrow_mut()[class].fresh = Fresh { next, left: CHUNK_SLOTS_U32 };
        self.take_free(class)
    }

    fn memory(&self, bytes: usize) -> Option<NonNull<u8>> {
        let mut regions = self.regions.borrow_mut();
        if let Some(place) = regions.last_mut().and_then(|region| region.take(bytes)) {
            return Some(place);
        }
        // The first region is of small pages, so that a few agents cost a few pages; it is small too, so that
        // some thousands lie on huge ones.
        let pages = match bytes {
            ..=FIRST if regions.is_empty() => Pages::new(FIRST)?,
            _ => Pages::region(!regions.is_empty())?,
        };
        let mut region = Region { pages, used: 0 };
        let place = region.take(bytes);
        regions.push(region);
        place
    }

    /// Gives a slot to its next generation; addresses of the last one are stale now.
    pub(crate) fn end_generation(&self, header: &Header) {
        header.generation.set(header.generation.get() + 1);
        header.flags.set(0);
        header.waits_for.set(0);
        header.incarnation.set(0);
    }

    /// Takes back a slot whose generation has ended. One that has had them all is never used again: a
    /// stale address must match nobody.
    pub(crate) fn free(&self, index: u32) {
        self.live.set(self.live.get() - 1);
        let Some(header) = self.header(index) else { return };
        if header.generation.get() < GENERATIONS {
            let chunk = self.chunks[index as usize / CHUNK_SLOTS].get();
            let lines = chunk.stride / LINE;
            let class = CLASSES.iter().position(|&class| class == lines).expect("made of a class");
            self.classes.borrow_mut()[class].free.push(index);
        }
    }

    /// Indices that slots have or had are below this.
    pub(crate) const fn slots(&self) -> usize {
        self.used.get() * CHUNK_SLOTS
    }

    /// Every occupied slot.
    pub(crate) fn occupied(&self) -> Vec<u32> {
        let slots = u32::try_from(self.slots()).unwrap_or(u32::MAX);
        (0..slots).filter(|&i| self.header(i).is_some_and(|h| h.kind.get().is_some())).collect()
    }

    /// Occupied slots.
    pub(crate) const fn live(&self) -> u32 {
        self.live.get()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get() + size_of_val(&*self.chunks)
    }
}

/// Memory that chunks are cut from.
struct Region {
    pages: Pages,
    used: usize,
}

impl Region {
    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > self.pages.bytes() - self.used {
            return None;
        }
        // SAFETY: the place lies within the region.
        let place = unsafe { self.pages.base().add(self.used) };
        self.used += bytes;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HUGE_PAGE;

    #[test]
    fn slots_have_the_size_of_their_class_and_a_bound() {
        let slab = Slab::new(3);
        let (small, large) = (class(0), class(4_032));
        assert_eq!((small, large, class(64), class(65)), (0, CLASSES.len() - 1, 1, 2));
        assert!(fits(4_032, 64) && !fits(4_033, 8) && !fits(8, 128));
        let (a, b) = (slab.vacant(small).expect("room"), slab.vacant(small).expect("room"));
        assert_eq!(
            slab.place(b).expect("used").addr().get() - slab.place(a).expect("used").addr().get(),
            64
        );
        let c = slab.vacant(large).expect("room");
        assert!(slab.vacant(small).is_none(), "three at most");
        slab.end_generation(slab.header(c).expect("used"));
        slab.free(c);
        assert_eq!(slab.header(c).expect("was used").generation.get(), 2);
        assert_eq!(slab.vacant(large), Some(c), "reused");
        assert!(slab.header(u32::MAX).is_none());
    }

    #[test]
    fn a_slot_retires_after_its_last_generation() {
        let slab = Slab::new(1);
        let first = slab.vacant(0).expect("room");
        for _ in 2..GENERATIONS {
            slab.end_generation(slab.header(first).expect("used"));
            slab.free(first);
            assert_eq!(slab.vacant(0), Some(first));
        }
        slab.end_generation(slab.header(first).expect("used"));
        slab.free(first);
        assert_eq!(slab.vacant(0), Some(first + 1));
    }

    #[test]
    fn many_chunks_lie_in_aligned_regions() {
        let slab = Slab::new(100_000);
        for _ in 0..100_000 {
            let index = slab.vacant(1).expect("room");
            let place = slab.place(index).expect("carved");
            assert_eq!(place.addr().get() % LINE, 0);
        }
        assert!(slab.vacant(1).is_none());
        assert_eq!(
            slab.regions.borrow().len(),
            1 + (100_000usize.div_ceil(512) * 512 * 128 - FIRST).div_ceil(HUGE_PAGE)
        );
    }
}
