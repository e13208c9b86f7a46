//! The state file: made whole at the start, and copied by a forked child.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};

use super::collector::Collector;
use super::memory::Words;
use crate::record::heap_layout::head;

/// Makes an empty state file of `bytes` and maps it.
pub(super) fn create(path: &Path, bytes: u64) -> std::io::Result<Words> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    reserve(&file, bytes)?;
    let words = usize::try_from(bytes / 8).map_err(std::io::Error::other)?;
    Words::file(file.as_fd(), words)
}

/// Takes the room on the disk now: a store into a hole of a full disk would kill the program.
fn reserve(file: &File, bytes: u64) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => zeros(file, bytes),
        other => Ok(other?),
    }
}

fn zeros(mut file: &File, bytes: u64) -> std::io::Result<()> {
    let block = [0u8; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let next = left.min(block.len() as u64);
        file.write_all(&block[..usize::try_from(next).map_err(std::io::Error::other)?])?;
        left -= next;
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
        self.go_on_in(file.as_fd())
    }

    fn go_on_in(&self, file: BorrowedFd<'_>) -> std::io::Result<()> {
        self.words.write_to(file)?;
        self.words.replace_by_file(file)?;
        // Whoever held the lock is not in this process.
        self.lock.store(0, Ordering::Relaxed);
        self.words[head::PID].store(u64::from(std::process::id()), Ordering::Relaxed);
        self.own[0].store(1, Ordering::Release);
        Ok(())
    }
}
