//! The state file: made whole at the start, and copied by a forked child.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, fallocate, open, seek};

use super::collector::Collector;
use super::modules::put_bytes;
use crate::collect::words::Words;
use crate::record::heap_layout::head;

/// Longest path of a state file.
pub(super) const PATH_BYTES: usize = 4_096;

/// Makes an empty state file of `bytes` and maps it.
pub(super) fn create(path: &Path, bytes: u64) -> std::io::Result<Words> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    reserve(file.as_fd(), bytes)?;
    let words = usize::try_from(bytes / 8).map_err(std::io::Error::other)?;
    Words::file(file.as_fd(), words)
}

/// Takes the room on the disk now: a store into a hole of a full disk would kill the program.
fn reserve(file: BorrowedFd<'_>, bytes: u64) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => zeros(file, bytes),
        other => Ok(other?),
    }
}

fn zeros(file: BorrowedFd<'_>, bytes: u64) -> std::io::Result<()> {
    let block = [0u8; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let next = left.min(block.len() as u64);
        let next = usize::try_from(next).map_err(std::io::Error::other)?;
        left -= rustix::io::write(file, &block[..next])? as u64;
    }
    Ok(())
}

impl Collector {
    /// In the child of a fork: goes on in a file of its own, at `path`, that begins as a copy of the
    /// parent's. Until this is called, and when it fails, the child records nothing and the parent's
    /// file stays the parent's. What other threads of the parent changed since the fork may be in the
    /// copy. Allocates nothing.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn forked(&self, path: &CStr) -> std::io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH)?;
        self.go_on_in(path, file.as_fd())
    }

    fn go_on_in(&self, path: &CStr, file: BorrowedFd<'_>) -> std::io::Result<()> {
        let mut parent = [0u8; PATH_BYTES];
        for (bytes, word) in parent.chunks_mut(8).zip(self.path.iter()) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let parent = CStr::from_bytes_until_nul(&parent).map_err(std::io::Error::other)?;
        let parent = open(parent, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        reserve(file, self.words.len() as u64 * 8)?;
        self.copy_used(parent.as_fd(), file)?;
        self.words.replace_by_file(file)?;
        put_bytes(&self.path, path.to_bytes_with_nul());
        // Threads of the parent went on while this was copied: what they did is taken out again, and a ring
        // whose ends do not match its contents would hold a producer for ever.
        self.live.forked(&self.words);
        // Whoever held the lock is not in this process.
        self.lock.store(0, Ordering::Relaxed);
        self.alone(|alone| alone.drain());
        self.ring.clear(&self.words);
        self.words[head::PID].store(u64::from(std::process::id()), Ordering::Relaxed);
        self.own[0].store(1, Ordering::Release);
        Ok(())
    }

    /// Copies what was ever written, as the file system tells it (lseek(2), SEEK_DATA): a fork of a small
    /// program copies a few hundred KiB of a state of 12 MB.
    fn copy_used(&self, parent: BorrowedFd<'_>, file: BorrowedFd<'_>) -> std::io::Result<()> {
        let bytes = self.words.len() as u64 * 8;
        let mut at = 0;
        while at < bytes {
            let from = match seek(parent, SeekFrom::Data(at)) {
                Ok(from) => from,
                // No data behind this place.
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            at = seek(parent, SeekFrom::Hole(from))?;
            let range = |at: u64| usize::try_from(at).map_err(std::io::Error::other);
            self.words.write_range(file, range(from)?, range(at)?)?;
        }
        Ok(())
    }
}
