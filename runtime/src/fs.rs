//! Files on the shard's ring. What cannot be done at once is done by kernel threads: the shard never waits.
//!
//! ```
//! use tailbeam_runtime::fs::File;
//! use tailbeam_runtime::{Cx, OpError};
//!
//! async fn write_durably(cx: &mut Cx<'_>, path: &std::path::Path) -> Result<(), OpError> {
//!     let file = File::create(cx, path).await?;
//!     let (written, _buffer) = file.write_at(b"kept", 0).await;
//!     assert_eq!(written?, 4);
//!     file.sync_data().await?;
//!     let (read, buffer) = file.read_at(vec![0; 16], 0).await;
//!     assert_eq!((read?, &buffer[..4]), (4, &b"kept"[..]));
//!     file.close().await
//! }
//! ```

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use crate::agent::Cx;
use crate::error::OpError;
use crate::op::{Ops, SendBuf, file, open, sync};

/// Permissions of a new file, before the umask.
const MODE: u32 = 0o666;

/// An open file of one shard. Dropping it closes it with a system call that may wait for the disk;
/// [`File::close`] does not.
#[derive(Debug)]
pub struct File {
    ops: Rc<Ops>,
    file: Rc<OwnedFd>,
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`OpError::Io`] with what open(2) says; [`OpError::Full`] without room for the operation.
    pub fn open(
        cx: &mut Cx<'_>,
        path: &Path,
    ) -> impl Future<Output = Result<Self, OpError>> + use<> {
        Self::open_as(cx, path, libc::O_RDONLY)
    }

    /// Opens a file for reading and writing, empty; makes it if there is none.
    ///
    /// # Errors
    /// As [`File::open`].
    pub fn create(
        cx: &mut Cx<'_>,
        path: &Path,
    ) -> impl Future<Output = Result<Self, OpError>> + use<> {
        Self::open_as(cx, path, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC)
    }

    /// Opens a file for reading and writing as it is; makes it if there is none.
    ///
    /// # Errors
    /// As [`File::open`].
    pub fn open_or_create(
        cx: &mut Cx<'_>,
        path: &Path,
    ) -> impl Future<Output = Result<Self, OpError>> + use<> {
        Self::open_as(cx, path, libc::O_RDWR | libc::O_CREAT)
    }

    fn open_as(
        cx: &mut Cx<'_>,
        path: &Path,
        flags: i32,
    ) -> impl Future<Output = Result<Self, OpError>> + use<> {
        let ops = Rc::clone(cx.ops());
        let path = CString::new(path.as_os_str().as_bytes());
        async move {
            let path = path.map_err(|_| OpError::Io(io::ErrorKind::InvalidInput.into()))?;
            let file = open::open(&ops, path, flags, MODE).await?;
            Ok(Self { ops, file: Rc::new(file) })
        }
    }

    /// Reads from byte `at` until the buffer is full (its length counts, not its capacity) or the file
    /// ends; hands it back with the number of bytes read.
    ///
    /// # Errors
    /// [`OpError::Io`]; [`OpError::Full`] without room for the operation.
    pub async fn read_at(&self, buffer: Vec<u8>, at: u64) -> (Result<usize, OpError>, Vec<u8>) {
        file::read_at(&self.ops, &self.file, buffer, at).await
    }

    /// Writes all of a buffer from byte `at` on and hands it back with the number of bytes written.
    ///
    /// # Errors
    /// [`OpError::Io`]: some bytes may have been written. [`OpError::Full`] without room for the operation.
    pub async fn write_at<B: SendBuf>(&self, buffer: B, at: u64) -> (Result<usize, OpError>, B) {
        file::write_at(&self.ops, &self.file, buffer, at).await
    }

    /// Makes data durable, and as much metadata as is needed to read it (fdatasync).
    ///
    /// # Errors
    /// [`OpError::Io`]: what was written since the last sync may be lost, and a second sync that succeeds
    /// proves nothing.
    pub async fn sync_data(&self) -> Result<(), OpError> {
        sync::sync(&self.ops, &self.file, true).await
    }

    /// Makes data and metadata durable (fsync).
    ///
    /// # Errors
    /// As [`File::sync_data`].
    pub async fn sync_all(&self) -> Result<(), OpError> {
        sync::sync(&self.ops, &self.file, false).await
    }

    /// Reserves room for `len` bytes from byte `at`; the file grows to hold them.
    ///
    /// # Errors
    /// [`OpError::Io`]: ENOSPC without room, EOPNOTSUPP where the file system cannot.
    pub async fn allocate(&self, at: u64, len: u64) -> Result<(), OpError> {
        sync::allocate(&self.ops, &self.file, at, len).await
    }

    /// Closes the file without waiting in a system call. While operations on it are still with the kernel,
    /// it is closed when the last of them ends, and their outcome is not told here.
    ///
    /// # Errors
    /// [`OpError::Io`] with what close(2) says; the descriptor is gone all the same.
    pub async fn close(self) -> Result<(), OpError> {
        match Rc::try_unwrap(self.file) {
            Ok(file) => open::close(&self.ops, file).await,
            Err(_) => Ok(()),
        }
    }
}
