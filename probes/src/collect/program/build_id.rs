//! The GNU build-id of an ELF file, from its notes (elf(5)).

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Notes that are read; a build-id is among the first.
const NOTES_MAX: usize = 64 << 10;
/// `PT_NOTE`.
const NOTE: u32 = 4;
/// `NT_GNU_BUILD_ID`.
const BUILD_ID: u32 = 3;

/// The build-id of the file, empty where there is none or it cannot be read.
pub(in crate::collect) fn of(path: &str) -> Vec<u8> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length.min(NOTES_MAX)];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    find(&read).unwrap_or_default()
}

/// The same over any way to read bytes at an offset: pure.
fn find(read: &dyn Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let head = read(0, 64)?;
    // ELF of 64 bits, little-endian.
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let word =
        |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let half =
        |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (table, count) = (word(&head, 32)?, u16::from_le_bytes([head[56], head[57]]));
    let headers = read(table, usize::from(count) * 56)?;
    for header in headers.chunks_exact(56).filter(|header| half(header, 0) == Some(NOTE)) {
        let notes = read(word(header, 8)?, usize::try_from(word(header, 32)?).ok()?)?;
        let mut at = 0usize;
        while let (Some(name), Some(text), Some(kind)) =
            (half(&notes, at), half(&notes, at + 4), half(&notes, at + 8))
        {
            let from = at + 12 + (name as usize).next_multiple_of(4);
            let end = from.checked_add(text as usize)?;
            if kind == BUILD_ID && notes.get(at + 12..at + 16) == Some(b"GNU\0") {
                return notes.get(from..end).filter(|id| id.len() <= 64).map(<[u8]>::to_vec);
            }
            at = end.checked_next_multiple_of(4)?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_has_none() {
        assert_eq!(of("/proc/self/status"), [0u8; 0]);
        assert_eq!(of("/nowhere"), [0u8; 0]);
        let cut = |at: u64, _: usize| (at == 0).then(|| b"\x7fELF\x02\x01".to_vec());
        assert_eq!(find(&cut), None);
    }
}
