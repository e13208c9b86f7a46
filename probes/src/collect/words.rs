#![expect(unsafe_code, reason = "mmap, and atomics laid over it")]
//! Words of mapped memory. The heap's collector takes all of its memory from here, once, at the start: an
//! allocator cannot ask itself. Two processes that map one file share them.

use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// A mapping seen as 64-bit atomics, zero at first.
pub struct Words {
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: atomics may be shared; the mapping belongs to no thread.
unsafe impl Send for Words {}
// SAFETY: as for Send; `&Words` gives only shared references to atomics.
unsafe impl Sync for Words {}

impl Words {
    /// Private memory. Pages take room when they are first written.
    pub(crate) fn anonymous(len: usize) -> std::io::Result<Words> {
        Words::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1)
    }

    /// The first `len` words of a file, shared: what is stored outlives the process. The file must have them as long as
    /// this lives: who touches a word that it has no more is ended by SIGBUS.
    ///
    /// # Errors
    /// The kernel's refusal (mmap(2)).
    pub fn file(file: BorrowedFd<'_>, len: usize) -> std::io::Result<Words> {
        let words = Words::map(len, libc::MAP_SHARED, file.as_raw_fd())?;
        // Now and not in a hook: an old kernel refuses, then pages come as they are written.
        // SAFETY: the range is our own mapping (madvise(2), MADV_POPULATE_WRITE).
        unsafe { libc::madvise(words.start.as_ptr().cast(), len * 8, libc::MADV_POPULATE_WRITE) };
        Ok(words)
    }

    fn map(len: usize, flags: i32, fd: i32) -> std::io::Result<Words> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is asked for, so no existing mapping is touched (mmap(2)).
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len.max(1) * 8, access, flags, fd, 0) };
        match NonNull::new(start.cast::<AtomicU64>()) {
            Some(words) if start != libc::MAP_FAILED => Ok(Words { start: words, len }),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// The same memory as 32-bit atomics. A word is used in one width only.
    #[must_use]
    pub fn halves(&self) -> &[AtomicU32] {
        // SAFETY: the mapping holds 2 * len halves, aligned, zero or written by atomics, and lives as
        // long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len * 2) }
    }

    /// Writes the bytes from `from` to `to` to the same place of a file, by system calls only.
    pub(crate) fn write_range(
        &self,
        file: BorrowedFd<'_>,
        from: usize,
        to: usize,
    ) -> std::io::Result<()> {
        let to = to.min(self.len * 8);
        let mut done = from;
        while done < to {
            // SAFETY: below the end of the mapping.
            let at = unsafe { self.start.as_ptr().cast::<u8>().add(done) };
            let offset = libc::off_t::try_from(done).map_err(std::io::Error::other)?;
            // SAFETY: the kernel reads at most the rest of the range (pwrite(2)).
            let rc = unsafe { libc::pwrite(file.as_raw_fd(), at.cast(), to - done, offset) };
            match usize::try_from(rc) {
                Ok(written) if written > 0 => done += written,
                _ => return Err(std::io::Error::last_os_error()),
            }
        }
        Ok(())
    }

    /// The child of a fork reads zeros here (madvise(2), MADV_WIPEONFORK, private memory only).
    pub(crate) fn wipe_on_fork(&self) -> std::io::Result<()> {
        let bytes = self.len * 8;
        // SAFETY: the range is our own private mapping.
        let rc = unsafe { libc::madvise(self.start.as_ptr().cast(), bytes, libc::MADV_WIPEONFORK) };
        if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    /// Puts a file under the same addresses; whoever holds a reference sees its contents.
    pub(crate) fn replace_by_file(&self, file: BorrowedFd<'_>) -> std::io::Result<()> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let (at, bytes) = (self.start.as_ptr().cast(), self.len * 8);
        // SAFETY: exactly our own mapping is replaced, by one of the same size and access.
        let start = unsafe { libc::mmap(at, bytes, access, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Words").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds `len` aligned words that are only accessed as atomics, and it
        // lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows it any more. It cannot fail for a whole
        // mapping (munmap(2)).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len.max(1) * 8) };
    }
}
