#![expect(unsafe_code, reason = "words in mapped memory")]
//! Credits: how many messages of one core wait for each agent of another, or of the same.
//!
//! Each core counts for itself what it has sent, in a word per slot of the target, and takes it back when the
//! target says what was read ([`Ack`]). No word is shared, so that a send touches no other core's memory.

use std::alloc::Layout;
use std::cell::Cell;
use std::slice;

use super::slab::{CHUNK_SLOTS, chunks_max};
use crate::agent::GENERATIONS;
use crate::error::SendError;
use crate::memory::Pages;
use crate::prefetch::prefetch;

/// Messages that a mailbox may hold from one core at most: a count has 16 bits.
pub(crate) const MAILBOX_MAX: u32 = 50_000;
/// The count of an agent that is known to have ended.
const GONE: u32 = 0xffff;

const _: () = assert!(reservations(MAILBOX_MAX) < GONE && GENERATIONS <= 1 << 16);

/// Messages from another core that are read before it is told so: a quarter of `max`.
pub(crate) const fn arrears(max: u32) -> u32 {
    if max < 8 { 1 } else { max / 4 }
}

/// Messages that a sender on another core may count, so that a mailbox of `max` is never called full while
/// it holds fewer: those in arrears are read already.
pub(crate) const fn reservations(max: u32) -> u32 {
    max + arrears(max) - 1
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Gone,
}

impl Refused {
    /// Gives the message back.
    pub(crate) fn with<M>(self, msg: M) -> SendError<M> {
        match self {
            Self::Full => SendError::Full(msg),
            Self::Gone => SendError::Gone(msg),
        }
    }
}

/// Generation of a slot in the high half, unread messages to it in the low half.
#[derive(Debug, Default)]
pub(crate) struct Word(Cell<u32>);

impl Word {
    /// Counts a message to the generation that the word is of, if there is room; `false` says no more than that
    /// it must be looked at closely.
    #[inline]
    pub(crate) fn try_reserve(&self, generation: u32, max: u32) -> bool {
        let word = self.0.get();
        // The count of one that is gone is above every `max`.
        let room = word >> 16 == generation && word & 0xffff < max;
        if room {
            self.0.set(word + 1);
        }
        room
    }

    /// Counts a message to `generation` of a slot of the own core, which is told of every renewal.
    #[inline]
    pub(crate) fn reserve(&self, generation: u32, max: u32) -> Result<(), Refused> {
        let word = self.0.get();
        if word >> 16 != generation {
            return Err(Refused::Gone);
        }
        if word & 0xffff >= max {
            return Err(Refused::Full);
        }
        self.0.set(word + 1);
        Ok(())
    }

    /// Counts a message to `generation` of a slot of another core, which tells of an end when it is asked.
    #[inline]
    pub(crate) fn reserve_remote(&self, generation: u32, max: u32) -> Result<(), Refused> {
        let word = self.0.get();
        if word >> 16 < generation {
            // A successor: what its predecessor still holds is read or dropped by itself.
            self.0.set(generation << 16);
        } else if word & 0xffff == GONE {
            return Err(Refused::Gone);
        }
        self.reserve(generation, max)
    }

    /// Takes back one message of the live generation.
    #[inline]
    pub(crate) fn release_one(&self) {
        self.0.set(self.0.get() - 1);
    }

    /// Takes back what was counted and not sent, or what the target says was read.
    pub(crate) fn release(&self, ack: Ack) {
        let word = self.0.get();
        if word >> 16 != ack.generation || word & 0xffff == GONE {
            return;
        }
        let less = word - u32::from(ack.count).min(word & 0xffff);
        self.0.set(if ack.gone { word | GONE } else { less });
    }

    /// The slot of the own core goes to another generation, with an empty mailbox.
    pub(crate) fn renew(&self, generation: u32) {
        self.0.set(generation << 16);
    }
}

/// What a target says to a sender: 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    /// Messages read.
    pub(crate) count: u16,
    /// The agent has ended.
    pub(crate) gone: bool,
}

/// Most messages of one [`Ack`].
pub(crate) const ACK_MAX: u16 = (1 << 15) - 1;

impl Ack {
    pub(crate) fn pack(self) -> u64 {
        let low = u64::from(self.count & ACK_MAX) << 1 | u64::from(self.gone);
        u64::from(self.index) << 32 | u64::from(self.generation & 0xffff) << 16 | low
    }

    #[expect(clippy::cast_possible_truncation, reason = "the fields are cut out of the word")]
    pub(crate) const fn unpack(bits: u64) -> Self {
        Self {
            index: (bits >> 32) as u32,
            generation: (bits >> 16) as u32 & 0xffff,
            count: (bits >> 1) as u16 & ACK_MAX,
            gone: bits & 1 == 1,
        }
    }
}

/// The words for the slots of one shard, by slot. Address space for all that there may ever be; memory comes with
/// the first message to a page of them, and beyond half a million slots in huge pages: a table of pieces cost
/// every send another load that the next one waits for.
pub(crate) struct Lane {
    pages: Pages,
    slots: u32,
    /// Words that were ever written lie before this.
    used: Cell<u32>,
}

impl Lane {
    /// `None` when the system has no address space left.
    pub(crate) fn new(agents_max: u32) -> Option<Self> {
        let slots = u32::try_from(chunks_max(agents_max) * CHUNK_SLOTS).unwrap_or(u32::MAX);
        let Ok(layout) = Layout::array::<Word>(slots as usize) else {
            unreachable!("a word has 4 bytes, and a slot's number 32 bits");
        };
        let pages = Pages::reserve(layout.size())?;
        Some(Self { pages, slots, used: Cell::new(0) })
    }

    /// The word of a slot; `None` when no shard has such a slot.
    #[inline]
    pub(crate) fn word(&self, index: u32) -> Option<&Word> {
        if index >= self.slots {
            return None;
        }
        // SAFETY: the mapping holds `slots` words.
        let word = unsafe { self.pages.base().cast::<Word>().add(index as usize) };
        // SAFETY: zero or written as such; it lives as long as `self`, which hands out shared references only.
        Some(unsafe { word.as_ref() })
    }

    /// Starts to load the word of a slot.
    #[inline]
    pub(crate) fn prefetch(&self, index: u32) {
        let words = self.pages.base().as_ptr().cast::<Word>();
        prefetch(words.wrapping_add(index as usize), 1);
    }

    /// Notes that the word of a slot is about to be used for the first time.
    pub(crate) fn note(&self, index: u32) {
        self.used.set(self.used.get().max(index.saturating_add(1)).min(self.slots));
    }

    fn words(&self) -> &[Word] {
        // SAFETY: as in `word`; `used` is at most `slots`.
        unsafe {
            slice::from_raw_parts(self.pages.base().as_ptr().cast(), self.used.get() as usize)
        }
    }

    /// Messages counted as unread, over all slots.
    pub(crate) fn unread(&self) -> u64 {
        let counts = self.words().iter().map(|word| u64::from(word.0.get() & 0xffff));
        counts.filter(|&count| count != u64::from(GONE)).sum()
    }

    /// Bytes up to the last word that was used.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(generation: u32, count: u16, gone: bool) -> Ack {
        Ack { index: 3, generation, count, gone }
    }

    #[test]
    fn a_word_counts_one_generation_only() {
        let lane = Lane::new(2).expect("address space");
        let word = lane.word(1).expect("in the first chunk");
        word.renew(7);
        assert_eq!(word.reserve(7, 1), Ok(()));
        assert_eq!(word.reserve(7, 1), Err(Refused::Full));
        assert_eq!(word.reserve(6, 9), Err(Refused::Gone));
        word.release(ack(6, 1, false));
        assert_eq!(word.reserve(7, 1), Err(Refused::Full), "a stale release changes nothing");
        word.release(ack(7, 1, false));
        assert_eq!(word.reserve(7, 1), Ok(()));
        word.release_one();
        assert_eq!(word.reserve(7, 1), Ok(()));
        assert!(lane.word(u32::MAX).is_none());
    }

    #[test]
    fn a_successor_is_adopted_and_the_dead_are_remembered() {
        let word = Word::default();
        assert_eq!(word.reserve_remote(1, 2), Ok(()));
        word.release(ack(1, 1, true));
        assert_eq!(word.reserve_remote(1, 2), Err(Refused::Gone));
        word.release(ack(1, 1, false));
        assert_eq!(word.reserve_remote(1, 2), Err(Refused::Gone), "it does not come back");
        assert_eq!((word.reserve_remote(2, 2), word.reserve_remote(2, 2)), (Ok(()), Ok(())));
        assert_eq!(word.reserve_remote(2, 2), Err(Refused::Full));
        assert_eq!(word.reserve_remote(1, 2), Err(Refused::Gone), "its predecessor stays dead");
        word.release(ack(1, 5, true));
        word.release(ack(2, 1, false));
        assert_eq!(word.reserve_remote(2, 2), Ok(()));
    }

    #[test]
    fn an_ack_is_what_was_packed() {
        for (generation, count, gone) in [(1, 1, false), (65_535, ACK_MAX, true), (7, 300, true)] {
            assert_eq!(
                Ack::unpack(ack(generation, count, gone).pack()),
                ack(generation, count, gone)
            );
        }
        for max in [1, 4, 8, 64, 1_000] {
            assert!(reservations(max) >= max && reservations(max) < max + max.div_ceil(4));
        }
    }
}
