//! Layout of a heap state file: 64-bit little-endian words, a header, then sections of equal records.
//!
//! ```text
//! 0..128    header: magic, version, facts, counters (`head::*`), then per section offset and count
//! 128..256  command line, UTF-8, zero-padded
//! entries   8 words  check:32 site:32 | owner:32 grown:32 | size:48 core:16 | extent | born ns |
//!                    address | mean f32:32 tag:32 | grown ns
//! sites     2 words  hash (0 = free) | frames from:32 len:16 flags:16
//! frames    1 word   return address
//! rows      98 words site + 1:32 kind:8 | epoch ns | 64 sums of weights, f64 | 32 pairs of counts
//! events    5 words  turn | site:32 kind:8 count:8 | born ns | 0 | weight f64
//! census    6 words  at ns | live bytes | live objects | held + 1 | rss + 1 | operations + 1
//! classes   4 words  up to | live bytes | live objects | allocated bytes
//! ended     2 words  owner + 1 | at ns
//! names     8 words  owner:32 len:32 | 56 bytes
//! modules   64 words bias | from | to | path len:32 build-id len:32 | 32 bytes id | 448 bytes path
//! ```
//! An entry is whole when its check is [`check`] of its other words; 0 is empty. The writer stores the
//! check last and spoils it first, so an entry torn by a kill is told from a whole one.

use super::heap::age_bin;

/// First word of the file.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"TBHEAP\r\n");
/// Version of this layout.
pub(crate) const VERSION: u64 = 1;
/// Words before the first section.
pub(crate) const HEADER_WORDS: usize = 256;
/// First word of the command line, and its length.
pub(crate) const COMMAND: (usize, usize) = (128, 128);
/// Frames that a site keeps at most.
pub(crate) const FRAMES_MAX: usize = 64;
/// Kind of a row or an event that counts births; any smaller kind is the age bin of deaths.
pub(crate) const KIND_BIRTHS: u8 = 0xFF;
/// Kind of an event that says that an owner ended: `site` is the owner, `born_ns` the instant.
pub(crate) const KIND_ENDED: u8 = 0xFE;
/// Check word of an entry that holds nothing. A real check has bit 1 set, so these three are apart.
pub(crate) const EMPTY: u32 = 0;
/// Check word of an entry that is being changed.
pub(crate) const BUSY: u32 = 1;
/// Check word of an entry whose object died while it was being changed.
pub(crate) const DEAD: u32 = 4;
/// Birth epochs in a row.
pub(crate) const EPOCHS: usize = super::heap::EPOCHS;

/// Words of the header.
pub(crate) mod head {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const FILE_WORDS: usize = 2;
    pub(crate) const STARTED_UNIX: usize = 3;
    pub(crate) const PID: usize = 4;
    pub(crate) const EPOCH: usize = 5;
    pub(crate) const MEAN: usize = 6;
    pub(crate) const MEAN_MIN: usize = 7;
    pub(crate) const MEAN_MAX: usize = 8;
    pub(crate) const EXACT: usize = 9;
    pub(crate) const KEPT: usize = 10;
    pub(crate) const TRUNCATED: usize = 11;
    pub(crate) const ALLOCS: usize = 12;
    pub(crate) const FREES: usize = 13;
    pub(crate) const OPERATIONS: usize = 14;
    pub(crate) const STATE_BYTES: usize = 15;
    pub(crate) const RING_TAIL: usize = 16;
    pub(crate) const CENSUS_LEN: usize = 17;
    pub(crate) const CENSUS_STEP: usize = 18;
    pub(crate) const MODULES_LEN: usize = 19;
    pub(crate) const CLASSES_LEN: usize = 20;
    pub(crate) const FINISHED: usize = 21;
    pub(crate) const FRAMES_USED: usize = 22;
    pub(crate) const SITES_USED: usize = 23;
    pub(crate) const ENDED_LEN: usize = 24;
    pub(crate) const NAMES_LEN: usize = 25;
    pub(crate) const TICKS: usize = 26;
    /// Written by every sample; on lines apart from what every sample reads.
    pub(crate) const AT: usize = 32;
    pub(crate) const TAKEN: usize = 33;
    pub(crate) const SELF_NS: usize = 34;
    pub(crate) const RING_HEAD: usize = 40;
    /// One word per [`super::LOST`].
    pub(crate) const LOST: usize = 48;
    /// Offset and count per section.
    pub(crate) const SECTIONS: usize = 96;
}

/// Low half of a word.
#[expect(clippy::cast_possible_truncation, reason = "the half that is asked for")]
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

/// High half of a word.
pub(crate) const fn high(word: u64) -> u32 {
    low(word >> 32)
}

/// Why something was lost; the order is the order of the words at [`head::LOST`].
pub(crate) const LOST: [&str; 14] = [
    "live table full",
    "address range full",
    "address table full",
    "hook entered again",
    "history full",
    "event ring full",
    "site table full",
    "owner ends full",
    "owner names full",
    "modules full",
    "changed while thinned",
    "large alignment",
    "torn",
    "refused allocations that count as live",
];

/// Index into [`LOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    Table,
    Range,
    Addresses,
    Reentry,
    History,
    Ring,
    Sites,
    Ended,
    Names,
    Modules,
    Thinned,
    Alignment,
    Torn,
    Refused,
}

/// Sections in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Entries,
    Sites,
    Frames,
    Rows,
    Events,
    Census,
    Classes,
    Ended,
    Names,
    Modules,
}

/// Number of sections.
pub(crate) const SECTIONS: usize = 10;
/// Words of a record, by section.
pub(crate) const RECORD_WORDS: [usize; SECTIONS] = [8, 2, 1, 98, 5, 6, 4, 2, 8, 64];

/// Records per section, and where each section starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    counts: [usize; SECTIONS],
    offsets: [usize; SECTIONS],
    words: usize,
}

impl Layout {
    /// Sections one after another, each from a cache line of its own.
    pub(crate) fn new(counts: [usize; SECTIONS]) -> Layout {
        let (mut offsets, mut words) = ([0; SECTIONS], HEADER_WORDS);
        for (index, count) in counts.iter().enumerate() {
            offsets[index] = words;
            words += (count * RECORD_WORDS[index]).next_multiple_of(8);
        }
        Layout { counts, offsets, words }
    }

    /// The layout that a header tells of, if it fits into `words` words without overlap.
    pub(crate) fn read(word: impl Fn(usize) -> u64, words: usize) -> Option<Layout> {
        let mut counts = [0; SECTIONS];
        for (index, count) in counts.iter_mut().enumerate() {
            *count = usize::try_from(word(head::SECTIONS + 2 * index + 1)).ok()?;
            let whole = count.checked_mul(RECORD_WORDS[index])?;
            if whole > words {
                return None;
            }
        }
        let layout = Layout::new(counts);
        let told = |index| word(head::SECTIONS + 2 * index) == layout.offsets[index] as u64;
        ((0..SECTIONS).all(told) && layout.words <= words).then_some(layout)
    }

    /// Words of the whole file.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// Records of a section.
    pub(crate) fn count(&self, section: Section) -> usize {
        self.counts[section as usize]
    }

    /// First word of record `index`, which must be below the count.
    pub(crate) fn at(&self, section: Section, index: usize) -> usize {
        debug_assert!(index < self.count(section), "{section:?} {index}");
        self.offsets[section as usize] + index * RECORD_WORDS[section as usize]
    }

    /// Header words (place, value) that [`Layout::read`] reads.
    pub(crate) fn header(&self) -> impl Iterator<Item = (usize, u64)> {
        let (counts, offsets) = (self.counts, self.offsets);
        (0..SECTIONS).flat_map(move |index| {
            let at = head::SECTIONS + 2 * index;
            [(at, offsets[index] as u64), (at + 1, counts[index] as u64)]
        })
    }
}

/// An object of the live table.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Entry {
    pub(crate) site: u32,
    pub(crate) owner: u32,
    pub(crate) core: u16,
    pub(crate) grown: u32,
    pub(crate) size: u64,
    /// Largest size so far: what its chance to be sampled came from.
    pub(crate) extent: u64,
    pub(crate) born_ns: u64,
    pub(crate) grown_ns: u64,
    pub(crate) address: u64,
    pub(crate) mean: f32,
    pub(crate) tag: u32,
}

impl Entry {
    /// Words of the entry, check included.
    pub(crate) fn encode(&self) -> [u64; 8] {
        let mut words = [
            u64::from(self.site) << 32,
            u64::from(self.owner) | u64::from(self.grown) << 32,
            (self.size & SIZE_MASK) | u64::from(self.core) << 48,
            self.extent,
            self.born_ns,
            self.address,
            u64::from(self.mean.to_bits()) | u64::from(self.tag) << 32,
            self.grown_ns,
        ];
        words[0] |= u64::from(check(&words));
        words
    }

    /// The entry that the words hold, whatever their check says.
    pub(crate) fn decode(words: &[u64; 8]) -> Entry {
        Entry {
            site: high(words[0]),
            owner: low(words[1]),
            grown: high(words[1]),
            size: words[2] & SIZE_MASK,
            core: u16::try_from(words[2] >> 48).unwrap_or(u16::MAX),
            extent: words[3],
            born_ns: words[4],
            address: words[5],
            mean: f32::from_bits(low(words[6])),
            tag: high(words[6]),
            grown_ns: words[7],
        }
    }
}

const SIZE_MASK: u64 = (1 << 48) - 1;

/// A change of what is known about the objects of a site that were born at an instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Event {
    pub(crate) site: u32,
    /// [`KIND_BIRTHS`], [`KIND_ENDED`], or the age bin of a death.
    pub(crate) kind: u8,
    /// Objects to add, or to take away.
    pub(crate) count: i8,
    pub(crate) born_ns: u64,
    /// Weight to add, bytes.
    pub(crate) bytes: f64,
}

impl Event {
    pub(crate) fn birth(site: u32, born_ns: u64, bytes: f64) -> Event {
        Event { site, kind: KIND_BIRTHS, count: 1, born_ns, bytes }
    }

    pub(crate) fn death(site: u32, born_ns: u64, age_ns: u64, bytes: f64) -> Event {
        let kind = u8::try_from(age_bin(age_ns)).expect("AGE_BINS is below 255");
        Event { site, kind, count: 1, born_ns, bytes }
    }

    /// Corrects births: `count` objects and `bytes` of weight more.
    pub(crate) fn correction(site: u32, born_ns: u64, count: i8, bytes: f64) -> Event {
        Event { site, kind: KIND_BIRTHS, count, born_ns, bytes }
    }

    /// An owner's end.
    pub(crate) fn ended(owner: u32, at_ns: u64) -> Event {
        Event { site: owner, kind: KIND_ENDED, count: 0, born_ns: at_ns, bytes: 0.0 }
    }

    /// Words 1.. of the event in the ring.
    pub(crate) fn encode(&self) -> [u64; 4] {
        let what = u64::from(self.site)
            | u64::from(self.kind) << 32
            | u64::from(self.count.cast_unsigned()) << 40;
        [what, self.born_ns, 0, self.bytes.to_bits()]
    }

    /// The event that the words hold.
    #[expect(clippy::cast_possible_truncation, reason = "fields are taken apart")]
    pub(crate) fn decode(words: &[u64; 4]) -> Event {
        Event {
            site: low(words[0]),
            kind: (words[0] >> 32) as u8,
            count: ((words[0] >> 40) as u8).cast_signed(),
            born_ns: words[1],
            bytes: f64::from_bits(words[3]),
        }
    }
}

/// Check of an entry: 32 bits of its words, with bit 1 set. Word 0 holds the site alone.
pub(crate) fn check(words: &[u64; 8]) -> u32 {
    let mut hash = words[0] >> 32;
    for word in &words[1..] {
        hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    high(hash) | 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_read_back_and_an_impossible_one_is_refused() {
        let layout = Layout::new([10, 4, 100, 3, 8, 5, 2, 2, 2, 1]);
        let mut words = vec![0u64; layout.words()];
        layout.header().for_each(|(at, value)| words[at] = value);
        assert_eq!(Layout::read(|at| words[at], words.len()), Some(layout));
        assert_eq!(Layout::read(|at| words[at], words.len() - 1), None);
        words[head::SECTIONS + 3] = u64::MAX;
        assert_eq!(Layout::read(|at| words[at], words.len()), None);
    }

    #[test]
    fn a_changed_word_changes_the_check() {
        let words = [5 << 32, 1, 2, 3, 4, 5, 6, 7];
        for index in 1..8 {
            let mut other = words;
            other[index] ^= 1 << 40;
            assert_ne!(check(&words), check(&other), "{index}");
        }
    }
}
