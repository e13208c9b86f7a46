//! A state in one file, so that the segments before it can go.
//!
//! It is a segment of its own: a header, records numbered from 0, and a last one of kind [`END`] with their
//! number. It is written beside its name, synced, renamed, and the directory synced: under its name it is
//! whole or it is damaged, never half written. Writing waits for the disk; not on a core that hosts agents.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::core::Entry;
use super::format::{Header, LogKey, Record};
use super::scan::{Damage, Scanner, Segment};

/// Kind of the last record.
pub const END: u16 = u16::MAX;

/// The number that its checksums begin with: no segment has it.
const SEGMENT: u32 = u32::MAX;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The kernel's answer.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// It is not whole; an older one, or the log from its start, is.
    #[error("the snapshot is not whole: {0:?}")]
    Damaged(Vec<Damage>),
}

fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:020}.tbs"))
}

/// The bytes of a snapshot of everything below `seq`.
#[must_use]
pub fn encode(seq: u64, mono_ns: u64, entries: &[Entry], key: LogKey) -> Vec<u8> {
    let salt = key.salt(SEGMENT);
    let header = Header { segment: SEGMENT, first_seq: 0, mono_ns, real_ns: seq };
    let mut bytes = header.encode(key).to_vec();
    let count = (entries.len() as u64).to_le_bytes();
    let records = entries.iter().map(|entry| (entry.kind, entry.version, &entry.payload[..]));
    for (n, (kind, version, payload)) in (0..).zip(records.chain([(END, 1, &count[..])])) {
        Record { seq: n, durable: 0, kind, version, payload }.encode(salt, &mut bytes);
    }
    bytes
}

/// Reads a snapshot: the number of the first event that is not in it, and its entries.
///
/// # Errors
/// [`SnapshotError::Damaged`]: half a state is none.
pub fn decode(bytes: &[u8], key: LogKey) -> Result<(u64, Vec<Entry>), SnapshotError> {
    let (mut scanner, mut entries) = (Scanner::new(key, Some(0)), Vec::new());
    let segment = Segment { number: SEGMENT, bytes, next_first: None, last: true };
    scanner.segment(segment, |found| {
        let Record { kind, version, payload, .. } = found.record;
        entries.push(Entry { kind, version, payload: payload.into() });
    });
    let found = scanner.finish();
    let whole = entries.pop().is_some_and(|end| {
        end.kind == END && end.payload[..] == (entries.len() as u64).to_le_bytes()
    });
    match Header::decode(bytes, SEGMENT, key) {
        Some(header) if whole && found.damage.is_empty() => Ok((header.real_ns, entries)),
        _ => Err(SnapshotError::Damaged(found.damage)),
    }
}

/// Writes the bytes of [`encode`] for `seq` under its name.
///
/// # Errors
/// [`SnapshotError::Io`]; an older snapshot stays as it is.
pub fn write(dir: &Path, seq: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
    let (name, beside) = (path(dir, seq), path(dir, seq).with_extension("tmp"));
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, &name))
        .and_then(|()| File::open(dir)?.sync_all());
    written.map_err(|source| SnapshotError::Io { path: name, source })
}

/// The newest snapshot that is whole, and what is wrong with newer ones.
///
/// # Errors
/// [`SnapshotError::Io`] when the directory cannot be read.
#[expect(clippy::type_complexity, reason = "named in the first line")]
pub fn newest(
    dir: &Path,
    key: LogKey,
) -> Result<(Option<(u64, Vec<Entry>)>, Vec<(PathBuf, SnapshotError)>), SnapshotError> {
    let io_error = |path: &Path, source| SnapshotError::Io { path: path.to_owned(), source };
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(|source| io_error(dir, source))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "tbs"))
        .collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut broken = Vec::new();
    for file in files {
        let read = fs::read(&file).map_err(|source| io_error(&file, source));
        match read.and_then(|bytes| decode(&bytes, key)) {
            Ok(snapshot) => return Ok((Some(snapshot), broken)),
            Err(error) => broken.push((file, error)),
        }
    }
    Ok((None, broken))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LogKey = LogKey([4; 16]);

    fn entries() -> Vec<Entry> {
        (0..5u8)
            .map(|n| Entry { kind: u16::from(n), version: 1, payload: vec![n; 20].into() })
            .collect()
    }

    #[test]
    fn it_is_whole_or_it_is_none() {
        let bytes = encode(77, 5, &entries(), KEY);
        assert_eq!(decode(&bytes, KEY).unwrap(), (77, entries()));
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at], KEY).is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(decode(&flipped, KEY).is_err(), "byte {at}");
        }
        assert_eq!(decode(&encode(0, 0, &[], KEY), KEY).unwrap(), (0, vec![]));
    }

    #[test]
    fn the_newest_whole_one_is_taken_and_the_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (none, broken) = newest(dir.path(), KEY).unwrap();
        assert!(none.is_none() && broken.is_empty());
        for seq in [10, 20, 30] {
            write(dir.path(), seq, &encode(seq, 5, &entries(), KEY)).unwrap();
        }
        fs::write(path(dir.path(), 30), b"half").unwrap();
        let (found, broken) = newest(dir.path(), KEY).unwrap();
        assert_eq!((found.unwrap().0, broken.len()), (20, 1));
    }
}
