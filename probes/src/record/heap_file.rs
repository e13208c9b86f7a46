//! Reads a heap state file, of a sampler that runs, ended, or was killed: whatever is torn is left
//! out and counted; nothing in the file can make it panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::heap::{
    AGE_BINS, Births, Census, ClassTotals, Deaths, Frame, HeapSnapshot, Module, OwnerEnd,
    SITE_OTHER, Sample, SamplerFacts, Site,
};
use super::heap_layout::{
    BUSY, COMMAND, DEAD, EMPTY, EPOCHS, Entry, Event, FRAMES_MAX, HEADER_WORDS, KIND_BIRTHS,
    KIND_ENDED, LOST, Layout, Lost, MAGIC, RECORD_WORDS, Section, VERSION, check, head, high, low,
};

/// Why a heap state file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeapFileError {
    /// The file cannot be opened or read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// The file does not begin like a heap state file; its sampler may have been killed at its start.
    #[error("not a heap state file of tailbeam")]
    Magic,
    /// Written by another version.
    #[error("heap state file of version {version}; this program reads version {VERSION}")]
    Version {
        /// The version found.
        version: u64,
    },
    /// The file is shorter than its header says, or its header is impossible.
    #[error("heap state file is cut or damaged: {bytes} bytes, its header tells of {told}")]
    Cut {
        /// Size of the file.
        bytes: u64,
        /// Size by the header.
        told: u64,
    },
}

/// Reads a state file.
///
/// # Errors
/// [`HeapFileError`], when the file cannot be read or is not whole.
pub fn read(path: &Path) -> Result<HeapSnapshot, HeapFileError> {
    let io = |error| HeapFileError::Io { path: path.to_owned(), error };
    read_bytes(&std::fs::read(path).map_err(io)?)
}

/// Reads the bytes of a state file.
///
/// # Errors
/// As [`read`], but for `Io`.
pub fn read_bytes(bytes: &[u8]) -> Result<HeapSnapshot, HeapFileError> {
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|eight| u64::from_le_bytes(eight.try_into().expect("eight bytes")))
        .collect();
    if words.first() != Some(&MAGIC) {
        return Err(HeapFileError::Magic);
    }
    let told = words.get(head::FILE_WORDS).copied().unwrap_or(0).saturating_mul(8);
    let cut = || HeapFileError::Cut { bytes: bytes.len() as u64, told };
    if words.len() < HEADER_WORDS {
        return Err(cut());
    }
    let version = words[head::VERSION];
    if version != VERSION {
        return Err(HeapFileError::Version { version });
    }
    let layout = Layout::read(|at| words[at], words.len()).ok_or_else(cut)?;
    if words[head::EPOCH] == 0 || told > bytes.len() as u64 {
        return Err(cut());
    }
    Ok(File { words: &words, layout, torn: 0 }.snapshot())
}

struct File<'a> {
    words: &'a [u64],
    layout: Layout,
    torn: u64,
}

impl File<'_> {
    fn snapshot(mut self) -> HeapSnapshot {
        let modules = self.modules();
        let sites = self.sites(&modules);
        let samples = self.samples(&sites);
        let mut history = self.rows();
        let mut ended = self.ended();
        self.events(&mut history, &mut ended);
        let (births, deaths) = history.sparse();
        let (census, classes) = (self.census(), self.classes());
        let owner_names = self.names();
        HeapSnapshot {
            at_ns: self.words[head::AT],
            started_unix_ns: self.words[head::STARTED_UNIX],
            pid: u32::try_from(self.words[head::PID]).unwrap_or(0),
            command: text(&self.words[COMMAND.0..COMMAND.0 + COMMAND.1], COMMAND.1 * 8),
            epoch_ns: self.words[head::EPOCH],
            modules,
            sites,
            samples,
            births,
            deaths,
            census,
            classes,
            ended,
            owner_names,
            // Last: by now all that is torn has been met.
            sampler: self.facts(),
        }
    }

    fn record(&self, section: Section, index: usize) -> &[u64] {
        let at = self.layout.at(section, index);
        &self.words[at..at + RECORD_WORDS[section as usize]]
    }

    /// Records of a section, as many as a word of the header tells of and as there is room for.
    fn told(&self, section: Section, at: usize) -> std::ops::Range<usize> {
        let room = self.layout.count(section);
        0..usize::try_from(self.words[at]).unwrap_or(room).min(room)
    }

    fn facts(&self) -> SamplerFacts {
        let word = |at: usize| self.words[at];
        let lost = LOST.iter().enumerate().map(|(index, why)| {
            let torn = if index == Lost::Torn as usize { self.torn } else { 0 };
            ((*why).to_owned(), word(head::LOST + index).saturating_add(torn))
        });
        SamplerFacts {
            mean_bytes: word(head::MEAN),
            mean_range: (word(head::MEAN_MIN), word(head::MEAN_MAX)),
            exact: word(head::EXACT) == 1,
            kept: f64::from_bits(word(head::KEPT)),
            taken: word(head::TAKEN),
            lost: lost.filter(|(_, count)| *count > 0).collect(),
            truncated_stacks: word(head::TRUNCATED),
            allocs: word(head::ALLOCS),
            frees: word(head::FREES),
            operations: some(word(head::OPERATIONS)),
            self_ns: word(head::SELF_NS),
            state_bytes: word(head::STATE_BYTES),
        }
    }

    fn modules(&self) -> Vec<Module> {
        let module = |index| {
            let record = self.record(Section::Modules, index);
            let (path_len, id_len) = (record[3] & 0xFFFF_FFFF, record[3] >> 32);
            let id = bytes(&record[4..8], usize::try_from(id_len).unwrap_or(32));
            Module {
                path: text(&record[8..], usize::try_from(path_len).unwrap_or(0)),
                build_id: id,
                bias: record[0],
                range: (record[1], record[2]),
            }
        };
        self.told(Section::Modules, head::MODULES_LEN).map(module).collect()
    }

    fn sites(&mut self, modules: &[Module]) -> Vec<Site> {
        let mut sites = vec![Site { id: SITE_OTHER, frames: Vec::new(), truncated: true }];
        for index in 1..self.layout.count(Section::Sites) {
            let (hash, told) = {
                let record = self.record(Section::Sites, index);
                (record[0], record[1])
            };
            if hash == 0 {
                continue;
            }
            let (from, len) = (told & 0xFFFF_FFFF, told >> 32 & 0xFFFF);
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let room = self.layout.count(Section::Frames);
            let whole = len <= FRAMES_MAX && from.checked_add(len).is_some_and(|end| end <= room);
            if !whole || told == 0 {
                self.torn += 1;
            }
            let len = if whole { len } else { 0 };
            let frame = |at| frame(self.record(Section::Frames, from + at)[0], modules);
            let frames = (0..len).map(frame).collect();
            let id = u32::try_from(index).unwrap_or(SITE_OTHER);
            sites.push(Site { id, frames, truncated: told >> 48 & 1 == 1 || !whole || told == 0 });
        }
        sites
    }

    fn samples(&mut self, sites: &[Site]) -> Vec<Sample> {
        let mut samples = Vec::new();
        for index in 0..self.layout.count(Section::Entries) {
            let words: [u64; 8] =
                self.record(Section::Entries, index).try_into().expect("eight words a record");
            match low(words[0]) {
                EMPTY | DEAD => continue,
                BUSY => self.torn += 1,
                found if found != check(&words) => self.torn += 1,
                _ => {
                    let entry = Entry::decode(&words);
                    let known = sites.binary_search_by_key(&entry.site, |site| site.id).is_ok();
                    let mean = entry.mean.is_finite() && entry.mean >= 1.0;
                    if known && mean { samples.push(sample(&entry)) } else { self.torn += 1 }
                }
            }
        }
        samples
    }

    fn rows(&mut self) -> History {
        let epoch_ns = self.words[head::EPOCH];
        let mut history = History::default();
        for index in 0..self.layout.count(Section::Rows) {
            let row = self.record(Section::Rows, index);
            let (key, row_epoch_ns) = (row[0], row[1]);
            if key == 0 {
                continue;
            }
            let site = (key & 0xFFFF_FFFF).saturating_sub(1);
            let (site, kind) =
                (u32::try_from(site).unwrap_or(0), u8::try_from(high(key)).unwrap_or(254));
            let known = kind == KIND_BIRTHS || usize::from(kind) < AGE_BINS;
            if !known || row_epoch_ns == 0 || !epoch_ns.is_multiple_of(row_epoch_ns) {
                self.torn += 1;
                continue;
            }
            // A row that a doubling did not come to is brought to the header's length here.
            let factor = epoch_ns / row_epoch_ns;
            for epoch in 0..EPOCHS {
                let pair = row[2 + EPOCHS + epoch / 2];
                let count = pair >> (epoch % 2 * 32) & 0xFFFF_FFFF;
                let bytes = f64::from_bits(row[2 + epoch]);
                let epoch = u16::try_from(epoch as u64 / factor).expect("below EPOCHS");
                if count > 0 && bytes.is_finite() {
                    history.add((site, kind, epoch), count.cast_signed(), bytes);
                }
            }
        }
        history
    }

    /// Events that nobody took out of the ring before the file was read.
    fn events(&mut self, history: &mut History, ended: &mut Vec<OwnerEnd>) {
        let room = self.layout.count(Section::Events) as u64;
        let (tail, end) = (self.words[head::RING_TAIL], self.words[head::RING_HEAD]);
        if room == 0 || end.wrapping_sub(tail) > room {
            self.torn += u64::from(end != tail);
            return;
        }
        for turn in (0..end.wrapping_sub(tail)).map(|more| tail.wrapping_add(more)) {
            let index = turn % room;
            let slot = self.record(Section::Events, usize::try_from(index).expect("below room"));
            let ready = slot[0].wrapping_add(index) == turn.wrapping_add(1);
            let event = Event::decode(&slot[1..].try_into().expect("five words a record"));
            if ready && event.kind == KIND_ENDED {
                ended.push(OwnerEnd { owner: event.site, at_ns: event.born_ns });
            } else if ready && event.bytes.is_finite() {
                let epoch = event.born_ns / self.words[head::EPOCH];
                // The last epoch may not have been reached when the process was killed.
                let epoch = u16::try_from(epoch.min(EPOCHS as u64 - 1)).expect("below EPOCHS");
                let key = (event.site, event.kind, epoch);
                history.add(key, i64::from(event.count), event.bytes);
            } else {
                self.torn += 1;
            }
        }
    }

    fn census(&self) -> Vec<Census> {
        let census = |index| {
            let record = self.record(Section::Census, index);
            Census {
                at_ns: record[0],
                live_bytes: record[1],
                live_objects: record[2],
                held_bytes: some(record[3]),
                rss_bytes: some(record[4]),
                operations: some(record[5]),
            }
        };
        self.told(Section::Census, head::CENSUS_LEN).map(census).collect()
    }

    fn classes(&self) -> Vec<ClassTotals> {
        let class = |index| {
            let record = self.record(Section::Classes, index);
            ClassTotals {
                up_to: record[0],
                live_bytes: record[1],
                live_objects: record[2],
                allocated_bytes: record[3],
            }
        };
        self.told(Section::Classes, head::CLASSES_LEN).map(class).collect()
    }

    fn ended(&self) -> Vec<OwnerEnd> {
        let end = |index| {
            let record = self.record(Section::Ended, index);
            OwnerEnd { owner: low(record[0].wrapping_sub(1)), at_ns: record[1] }
        };
        self.told(Section::Ended, head::ENDED_LEN).map(end).collect()
    }

    fn names(&self) -> Vec<(u32, String)> {
        let name = |index| {
            let record = self.record(Section::Names, index);
            let len = usize::try_from(record[0] >> 32).unwrap_or(0);
            (low(record[0]), text(&record[1..], len))
        };
        self.told(Section::Names, head::NAMES_LEN).map(name).collect()
    }
}

/// Counts and weights by site, kind and epoch.
#[derive(Default)]
struct History(BTreeMap<(u32, u8, u16), (i64, f64)>);

impl History {
    fn add(&mut self, key: (u32, u8, u16), count: i64, bytes: f64) {
        let cell = self.0.entry(key).or_default();
        *cell = (cell.0.saturating_add(count), cell.1 + bytes);
    }

    fn sparse(self) -> (Vec<Births>, Vec<Deaths>) {
        let (mut births, mut deaths) = (Vec::new(), Vec::new());
        for ((site, kind, epoch), (count, bytes)) in self.0 {
            let count = u64::try_from(count).unwrap_or(0);
            if count == 0 {
                continue;
            }
            if kind == KIND_BIRTHS {
                births.push(Births { site, epoch, count, bytes });
            } else if usize::from(kind) < AGE_BINS {
                deaths.push(Deaths { site, epoch, age: kind, count, bytes });
            }
        }
        (births, deaths)
    }
}

fn sample(entry: &Entry) -> Sample {
    Sample {
        site: entry.site,
        owner: entry.owner,
        core: entry.core,
        size: entry.size,
        weight: super::heap::weight(entry.size, entry.extent, entry.mean),
        born_ns: entry.born_ns,
        grown: entry.grown,
        grown_ns: entry.grown_ns,
        address: entry.address,
    }
}

fn frame(address: u64, modules: &[Module]) -> Frame {
    // A return address may lie just behind the last instruction of its function, or of its module.
    let inside =
        |module: &Module| (module.range.0..module.range.1).contains(&address.wrapping_sub(1));
    // The newest first: an address range may have held another file before.
    match modules.iter().rposition(inside) {
        Some(index) => Frame {
            module: u32::try_from(index).unwrap_or(u32::MAX),
            address: address.wrapping_sub(modules[index].bias),
        },
        None => Frame { module: u32::MAX, address },
    }
}

/// A value that was stored plus one, 0 for none.
fn some(word: u64) -> Option<u64> {
    word.checked_sub(1)
}

fn bytes(words: &[u64], len: usize) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).take(len).collect()
}

fn text(words: &[u64], len: usize) -> String {
    let bytes = bytes(words, len);
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::heap::HeapConfig;
    use crate::collect::heap::Registers;
    use crate::collect::heap::collector::{Birth, Collector, Thread};

    /// Bytes of a file with a hundred objects, as small as they get.
    fn file() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heap.tbh");
        let config = HeapConfig { objects_max: 128, ..HeapConfig::new(&path) };
        let (collector, thread) = (Collector::create(&config).unwrap(), Thread::new());
        for address in 1..=100u64 {
            let registers = Registers { ip: 0x1000 + address % 7, sp: 0, fp: 0 };
            let birth = Birth { address: address * 64, size: 99, mean: 524_288.0, registers };
            let index = collector.born(&thread, &birth).unwrap();
            if address > 60 {
                assert!(collector.died(&thread, index, address * 64));
            }
        }
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn a_torn_entry_is_left_out_and_counted() {
        let mut bytes = file();
        let seen = read_bytes(&bytes).unwrap();
        assert_eq!((seen.samples.len(), seen.sampler.lost.len()), (60, 0));
        // The size of the first object, of which the check knows.
        let at = HEADER_WORDS * 8 + 16;
        bytes[at] ^= 1;
        let seen = read_bytes(&bytes).unwrap();
        assert_eq!(seen.samples.len(), 59);
        assert_eq!(seen.sampler.lost, [("torn".to_owned(), 1)]);
    }

    #[test]
    fn what_is_no_state_file_is_refused_by_name() {
        let bytes = file();
        assert!(matches!(read_bytes(&[]), Err(HeapFileError::Magic)));
        assert!(matches!(read_bytes(&[b'x'; 10_000]), Err(HeapFileError::Magic)));
        assert!(matches!(read_bytes(&bytes[..bytes.len() - 8]), Err(HeapFileError::Cut { .. })));
        assert!(matches!(read_bytes(&bytes[..100]), Err(HeapFileError::Cut { .. })));
        let mut other = bytes.clone();
        other[8] = 9;
        assert!(matches!(read_bytes(&other), Err(HeapFileError::Version { version: 9 })));
        assert!(matches!(read(Path::new("/nonexistent")), Err(HeapFileError::Io { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn garbage_never_panics(
            cut in 0usize..1 << 24,
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..200),
            header in any::<bool>(),
        ) {
            let mut bytes = file();
            for (place, value) in &hits {
                // Half of the runs hit the header, where the damage is greatest.
                let words = if header { HEADER_WORDS } else { bytes.len() / 8 };
                let at = place.index(words) * 8;
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            bytes.truncate(cut.max(bytes.len() / 2));
            let _ = read_bytes(&bytes);
        }

        #[test]
        fn random_words_behind_a_whole_header_never_panic(seed in any::<u64>()) {
            let mut bytes = file();
            let mut state = seed;
            for word in bytes[HEADER_WORDS * 8..].chunks_exact_mut(8).step_by(7) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                word.copy_from_slice(&state.to_le_bytes());
            }
            let seen = read_bytes(&bytes).unwrap();
            prop_assert!(!seen.sampler.lost.is_empty());
        }
    }
}
