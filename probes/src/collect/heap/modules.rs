#![expect(unsafe_code, reason = "dl_iterate_phdr and what it points to")]
//! Files mapped as code: into the state file for the reader, and as ranges for the walk.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::collect::words::Words;
use crate::record::heap_layout::{Layout, Section, head};

const MODULE_WORDS: usize = 64;
const ID_BYTES: usize = 32;
const PATH_BYTES: usize = 448;

/// Ranges of code, for a look-up without a lock.
pub(super) struct Code {
    ranges: Words,
    /// Range that matched last: stacks stay in few modules.
    last: AtomicU64,
    seen: AtomicU64,
}

impl Code {
    pub(super) fn new(layout: &Layout) -> std::io::Result<Code> {
        let ranges = Words::anonymous(layout.count(Section::Modules) * 2)?;
        Ok(Code { ranges, last: AtomicU64::new(0), seen: AtomicU64::new(0) })
    }

    /// Whether the address lies in a known module's code. A few ns; lock-free.
    pub(super) fn holds(&self, words: &[AtomicU64], address: u64) -> bool {
        let len = words[head::MODULES_LEN].load(Ordering::Acquire);
        let inside = |index: u64| {
            let Ok(at) = usize::try_from(index * 2) else { return false };
            let from = self.ranges[at].load(Ordering::Relaxed);
            (from..self.ranges[at + 1].load(Ordering::Relaxed)).contains(&address)
        };
        let last = self.last.load(Ordering::Relaxed);
        if last < len && inside(last) {
            return true;
        }
        let found = (0..len).find(|&index| inside(index));
        if let Some(index) = found {
            self.last.store(index, Ordering::Relaxed);
        }
        found.is_some()
    }

    /// Adds modules that came since the last call. Only the holder of the lock may call it; takes the
    /// dynamic loader's lock for a moment. Returns how many found no room.
    pub(super) fn refresh(&self, words: &[AtomicU64], layout: &Layout) -> u64 {
        let mut visit = Visit { code: self, words, layout, full: 0, changed: None };
        let data = (&raw mut visit).cast();
        // SAFETY: `each` matches the callback's type and casts `data` back to what it is; nothing is
        // kept beyond the call (dl_iterate_phdr(3)).
        unsafe { libc::dl_iterate_phdr(Some(each), data) };
        visit.full
    }

    /// Bytes beside the state file.
    pub(super) fn private_bytes(&self) -> u64 {
        self.ranges.len() as u64 * 8
    }
}

struct Visit<'a> {
    code: &'a Code,
    words: &'a [AtomicU64],
    layout: &'a Layout,
    full: u64,
    /// Whether modules came or went since the last visit; `None` before the first one.
    changed: Option<bool>,
}

struct Found<'a> {
    bias: u64,
    range: (u64, u64),
    path: &'a [u8],
    id: &'a [u8],
}

unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
    // SAFETY: refresh passes a Visit that outlives the iteration, and nothing else refers to it.
    let visit = unsafe { &mut *data.cast::<Visit<'_>>() };
    // SAFETY: the loader passes a valid record for the length of the call.
    let info = unsafe { &*info };
    // The loader counts what came and went: unchanged means that there is nothing to do.
    let count = info.dlpi_adds.wrapping_add(info.dlpi_subs.rotate_left(32));
    if visit.changed.is_none() {
        visit.changed = Some(visit.code.seen.swap(count, Ordering::Relaxed) != count);
    }
    if visit.changed == Some(false) {
        return 1;
    }
    // SAFETY: dlpi_phdr points to dlpi_phnum headers of a loaded file.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let code = headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_X != 0);
    let bias = info.dlpi_addr;
    let edges = |h: &libc::Elf64_Phdr| {
        let from = bias.wrapping_add(h.p_vaddr);
        (from, from.wrapping_add(h.p_memsz))
    };
    let whole = code.map(edges).reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)));
    if let Some(range) = whole {
        // SAFETY: the loader's own string, alive for the length of the call.
        let name = (!info.dlpi_name.is_null()).then(|| unsafe { CStr::from_ptr(info.dlpi_name) });
        let mut program = [0; PATH_BYTES];
        let path = match name.map_or(&[][..], CStr::to_bytes) {
            [] => own_path(&mut program),
            path => path,
        };
        let id = build_id(headers, bias);
        visit.add(&Found { bias, range, path, id });
    }
    0
}

/// Path of the program itself, which the loader leaves empty.
fn own_path(buffer: &mut [u8; PATH_BYTES]) -> &[u8] {
    let link = c"/proc/self/exe".as_ptr();
    // SAFETY: writes at most the buffer's length (readlink(2)).
    let len = unsafe { libc::readlink(link, buffer.as_mut_ptr().cast(), buffer.len()) };
    &buffer[..usize::try_from(len).unwrap_or(0)]
}

/// GNU build-id in the notes of a loaded file (elf(5), NT_GNU_BUILD_ID = 3).
fn build_id(headers: &[libc::Elf64_Phdr], bias: u64) -> &[u8] {
    for header in headers.iter().filter(|h| h.p_type == libc::PT_NOTE) {
        let start =
            std::ptr::with_exposed_provenance::<u8>(word_size(bias.wrapping_add(header.p_vaddr)));
        // SAFETY: notes of a loaded file lie in one of its loaded segments, p_memsz bytes long.
        let notes = unsafe { std::slice::from_raw_parts(start, word_size(header.p_memsz)) };
        if let Some(id) = id_in(notes) {
            return id;
        }
    }
    &[]
}

/// Addresses and sizes of a loaded file fit the machine it is loaded on.
fn word_size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

fn id_in(mut notes: &[u8]) -> Option<&[u8]> {
    let field = |notes: &[u8], at: usize| {
        let bytes: [u8; 4] = notes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    loop {
        let (name, text, kind) = (field(notes, 0)?, field(notes, 4)?, field(notes, 8)?);
        let from = 12usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let end = from.checked_add(text)?;
        if kind == 3 && notes.get(12..16) == Some(b"GNU\0") {
            return notes.get(from..end).filter(|id| id.len() <= ID_BYTES);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

impl Visit<'_> {
    fn add(&mut self, found: &Found<'_>) {
        let len_word = &self.words[head::MODULES_LEN];
        let len = usize::try_from(len_word.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let known = |index: usize| {
            let at = self.layout.at(Section::Modules, index);
            self.words[at].load(Ordering::Relaxed) == found.bias
                && self.words[at + 1].load(Ordering::Relaxed) == found.range.0
        };
        if (0..len.min(self.layout.count(Section::Modules))).any(known) {
            return;
        }
        if len >= self.layout.count(Section::Modules) {
            self.full += 1;
            return;
        }
        let path = &found.path[..found.path.len().min(PATH_BYTES)];
        let at = self.layout.at(Section::Modules, len);
        let slot = &self.words[at..at + MODULE_WORDS];
        slot[0].store(found.bias, Ordering::Relaxed);
        slot[1].store(found.range.0, Ordering::Relaxed);
        slot[2].store(found.range.1, Ordering::Relaxed);
        slot[3].store(path.len() as u64 | (found.id.len() as u64) << 32, Ordering::Relaxed);
        put_bytes(&slot[4..8], found.id);
        put_bytes(&slot[8..], path);
        self.code.ranges[len * 2].store(found.range.0, Ordering::Relaxed);
        self.code.ranges[len * 2 + 1].store(found.range.1, Ordering::Relaxed);
        // Release: pairs with the Acquire in holds, and with the reader of the file.
        len_word.store(len as u64 + 1, Ordering::Release);
    }
}

/// Stores bytes, eight to a word, little-endian; the last word is padded with zeros.
pub(super) fn put_bytes(words: &[AtomicU64], bytes: &[u8]) {
    for (word, chunk) in words.iter().zip(bytes.chunks(8)) {
        let mut eight = [0u8; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_is_found_among_notes_and_garbage_is_none() {
        let mut notes = Vec::new();
        for (kind, name, text) in [(1u32, b"XY\0\0", &[1u8; 5][..]), (3, b"GNU\0", &[7; 20])] {
            for field in [4u32, u32::try_from(text.len()).unwrap(), kind] {
                notes.extend(field.to_ne_bytes());
            }
            notes.extend(name);
            notes.extend(text);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(id_in(&notes), Some(&[7u8; 20][..]));
        assert_eq!(id_in(&notes[..30]), None);
        assert_eq!(id_in(&[0xFF; 64]), None);
    }
}
