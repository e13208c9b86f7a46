//! Writes segments: append, then one fdatasync per window.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use super::format::{FRAME_MAX, Frame, KIND_SEAL, KIND_SEGMENT};

/// The file under a segment; tests put a faulty twin here.
pub trait LogFile: Send {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// The kernel's error; a part may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended durable.
    ///
    /// # Errors
    /// The kernel's error; what was appended since the last sync may be gone.
    fn sync(&mut self) -> io::Result<()>;
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Why a frame could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file system refused. After this the writer refuses everything: a kernel that failed a
    /// sync may drop the pages and report success the next time (Rebello et al., 2020).
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// An earlier write or sync failed; this segment is closed for good.
    #[error("the segment was given up after an earlier write error")]
    Poisoned,
    /// The payload does not fit a frame.
    #[error("a payload of {len} bytes is larger than a frame's {FRAME_MAX}")]
    TooLarge {
        /// Its length.
        len: usize,
    },
}

/// The writer of one segment.
pub struct SegmentWriter {
    file: Box<dyn LogFile>,
    seq: u64,
    bytes: u64,
    poisoned: bool,
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("seq", &self.seq)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> WriteError {
    move |source| WriteError::Io { action, source }
}

impl SegmentWriter {
    /// Creates `dir/NNNN.log`, writes its first frame and syncs file and directory.
    ///
    /// # Errors
    /// [`WriteError::Io`]; an existing file is never overwritten.
    pub fn create(
        dir: &Path,
        number: u32,
        first_seq: u64,
        prev_sha: [u8; 32],
    ) -> Result<Self, WriteError> {
        let file = File::create_new(dir.join(format!("{number:04}.log")))
            .map_err(io_error("create a segment"))?;
        let mut writer = Self::over(Box::new(file), number, first_seq, prev_sha)?;
        writer.sync()?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(io_error("sync the directory"))?;
        Ok(writer)
    }

    /// A segment over any [`LogFile`].
    ///
    /// # Errors
    /// [`WriteError::Io`] when its first frame cannot be written.
    pub fn over(
        file: Box<dyn LogFile>,
        number: u32,
        first_seq: u64,
        prev_sha: [u8; 32],
    ) -> Result<Self, WriteError> {
        let mut writer = Self { file, seq: first_seq, bytes: 0, poisoned: false };
        let mut payload = number.to_le_bytes().to_vec();
        payload.extend_from_slice(&prev_sha);
        writer.append(KIND_SEGMENT, 1, 0, &payload)?;
        Ok(writer)
    }

    /// Appends a frame; durable only after [`SegmentWriter::sync`].
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn append(
        &mut self,
        kind: u16,
        version: u16,
        mono_ns: u64,
        payload: &[u8],
    ) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let frame = Frame { kind, version, seq: self.seq, mono_ns, payload: payload.to_vec() };
        let bytes = frame.encode().ok_or(WriteError::TooLarge { len: payload.len() })?;
        let written = self.file.append(&bytes);
        self.poisoned = written.is_err();
        written.map_err(io_error("append a frame"))?;
        self.seq += 1;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// One fdatasync.
    ///
    /// # Errors
    /// [`WriteError`]; never retried.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let synced = self.file.sync();
        self.poisoned = synced.is_err();
        synced.map_err(io_error("sync a segment"))
    }

    /// Appends the last frame and syncs.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn seal(&mut self) -> Result<(), WriteError> {
        self.append(KIND_SEAL, 1, 0, &[])?;
        self.sync()
    }

    /// Sequence number of the next frame.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.seq
    }

    /// Bytes written to this segment.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}
