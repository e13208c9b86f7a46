//! A disk that fails as told, and a power cut that keeps what a kernel may keep.

use std::collections::BTreeMap;

use super::core::{Action, Core};
use super::format::{Header, LogKey};
use super::scan::{Recovered, Scanner, Segment};

/// What the disk does to one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// A write leaves only so many bytes, and says so.
    Short(usize),
    /// EIO or ENOSPC: nothing was done. A sync that fails drops what was written since the last one.
    Refuse,
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    /// What survives a power cut.
    pub(super) durable: Vec<u8>,
    /// What a reader sees while the machine runs.
    pub(super) seen: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Twin {
    pub(super) key: LogKey,
    pub(super) files: BTreeMap<u32, File>,
    current: u32,
    segment_bytes: usize,
    /// Says of a sync that has failed that it has worked: to prove that a test finds what comes of it.
    pub(super) lies: bool,
}

impl Twin {
    pub(super) fn new(key: LogKey, segment_bytes: usize) -> Self {
        Self { key, files: BTreeMap::new(), current: 0, segment_bytes, lies: false }
    }

    /// Does one action of `core`; `false` when there is nothing to do.
    pub(super) fn step(&mut self, core: &mut Core, now_ns: u64, fault: Fault) -> bool {
        match core.next(now_ns) {
            Action::Rotate { segment, first_seq } => {
                let worked = fault == Fault::None;
                if worked {
                    let mut zeros = vec![0; self.segment_bytes];
                    let header = Header { segment, first_seq, mono_ns: now_ns, real_ns: 1 };
                    zeros[..64].copy_from_slice(&header.encode(self.key));
                    self.files.insert(segment, File { durable: zeros.clone(), seen: zeros });
                    self.current = segment;
                }
                core.rotated(worked);
            }
            Action::Write { at, bytes } => {
                let kept = match fault {
                    Fault::None => bytes.len(),
                    Fault::Short(kept) => kept.min(bytes.len()),
                    Fault::Refuse => 0,
                };
                let at = usize::try_from(at).unwrap();
                let file = self.files.get_mut(&self.current).unwrap();
                file.seen[at..at + kept].copy_from_slice(&bytes[..kept]);
                core.wrote(kept == bytes.len(), bytes);
            }
            Action::Sync => {
                let file = self.files.get_mut(&self.current).unwrap();
                if fault == Fault::None {
                    file.durable.clone_from(&file.seen);
                } else {
                    file.seen.clone_from(&file.durable);
                }
                core.synced(fault == Fault::None || self.lies);
            }
            Action::Wait(_) | Action::Dead => return false,
        }
        true
    }

    /// The power goes: of what was not synced, each 512-byte sector is kept when `keep` says so.
    pub(super) fn cut(&mut self, mut keep: impl FnMut() -> bool) {
        for file in self.files.values_mut() {
            for (durable, seen) in file.durable.chunks_mut(512).zip(file.seen.chunks(512)) {
                if durable != seen && keep() {
                    durable.copy_from_slice(seen);
                }
            }
            file.seen.clone_from(&file.durable);
        }
    }

    /// Everything that can be read: (sequence number, payload).
    pub(super) fn read(&self) -> (Vec<(u64, Vec<u8>)>, Recovered) {
        let files: Vec<(u32, &[u8])> = self.files.iter().map(|(n, f)| (*n, &f.seen[..])).collect();
        read(self.key, &files)
    }
}

/// Reads segments that lie in memory.
pub(super) fn read(key: LogKey, files: &[(u32, &[u8])]) -> (Vec<(u64, Vec<u8>)>, Recovered) {
    let (mut scanner, mut records) = (Scanner::new(key, None), Vec::new());
    for (index, &(number, bytes)) in files.iter().enumerate() {
        let follower = files.get(index + 1);
        let head = follower.and_then(|(n, bytes)| Header::decode(bytes, *n, key));
        let (next_first, last) = (head.map(|header| header.first_seq), follower.is_none());
        scanner.segment(Segment { number, bytes, next_first, last }, |found| {
            records.push((found.record.seq, found.record.payload.to_vec()));
        });
    }
    (records, scanner.finish())
}
