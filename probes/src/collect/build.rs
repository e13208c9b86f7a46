//! Which build runs: the build-id that the linker has written into the program.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::Unavailable;

const SOURCE: &str = "/proc/self/exe";
const HEADER: usize = 64;
const PT_NOTE: u32 = 4;
/// `NT_GNU_BUILD_ID` of the note named `GNU` (elf(5)).
const BUILD_ID: u32 = 3;
/// Program headers and bytes of notes that are looked at; a program of ours has 15 of the first.
const SEGMENTS_MAX: u64 = 128;
const NOTES_MAX: u64 = 64 << 10;

/// The build-id of the running program, lower-case hex. Two builds of different sources differ in it. A few reads.
///
/// # Errors
/// [`Unavailable`]: the file cannot be read, is no 64-bit little-endian ELF, or was linked without one.
pub fn build_id() -> Result<String, Unavailable> {
    let found = read(Path::new(SOURCE));
    let unavailable = |cause: String| Unavailable {
        source: SOURCE,
        cause,
        remedy: "mount /proc, and link with --build-id, as gcc and rustc do by default".to_owned(),
    };
    match found {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(unavailable("the program has no build-id".to_owned())),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    // 64 bits, little endian.
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let (at, count) = (u64_at(&header, 32), u64::from(u16_at(&header, 56)));
    let size = u64::from(u16_at(&header, 54));
    for segment in 0..count.min(SEGMENTS_MAX) {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, at.saturating_add(segment * size))?;
        if u32_at(&entry, 0) != PT_NOTE {
            continue;
        }
        let (from, len) = (u64_at(&entry, 8), u64_at(&entry, 32).min(NOTES_MAX));
        let mut notes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut notes, from)?;
        if let Some(id) = of_notes(&notes) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The build-id among notes: name length, content length, type, name and content, each padded to 4.
fn of_notes(mut notes: &[u8]) -> Option<String> {
    while notes.len() >= 12 {
        let [name, content] = [u32_at(notes, 0), u32_at(notes, 4)].map(|len| len as usize);
        let from = 12 + name.next_multiple_of(4);
        let id = notes.get(from..from.checked_add(content)?)?;
        if u32_at(notes, 8) == BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(from + content.next_multiple_of(4)..)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_among_notes_and_garbage_is_none() {
        let note = |kind: u32, name: &[u8], content: &[u8]| {
            let mut bytes = Vec::new();
            for word in [name.len(), content.len()] {
                bytes.extend_from_slice(&u32::try_from(word).unwrap().to_le_bytes());
            }
            bytes.extend_from_slice(&kind.to_le_bytes());
            for part in [name, content] {
                bytes.extend_from_slice(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let other = note(1, b"GNU\0", &[9; 16]);
        let id = note(BUILD_ID, b"GNU\0", &[0xab, 0x01, 0xff]);
        assert_eq!(of_notes(&[&other[..], &id].concat()).as_deref(), Some("ab01ff"));
        assert_eq!(of_notes(&other), None);
        for cut in 0..id.len() - 1 {
            assert_eq!(of_notes(&id[..cut]), None, "cut at {cut}");
        }
        assert_eq!(of_notes(&[0xff; 64]), None);
    }

    #[test]
    fn what_is_no_program_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, [b'x'; 100]).unwrap();
        assert!(matches!(read(&path), Ok(None)));
        std::fs::write(&path, b"\x7fELF").unwrap();
        assert!(read(&path).is_err());
    }
}
