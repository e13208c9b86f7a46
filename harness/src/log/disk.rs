//! Segment files on the ring: the one place where a log's bytes meet its disk.
//!
//! What a [`Board`] plants in the disk is planted here, on this side of the kernel, because nothing outside the process
//! sees an operation of io_uring: syncs that are late or fail, writes that fail or leave only their beginning. A sync
//! that is to fail is not made, as by a kernel that has lost the pages. The log has no other way to its disk, so the
//! making of segments and their headers suffer the same.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tailbeam_runtime::fs::File;
use tailbeam_runtime::{Cx, OpError};

use super::format::{Header, LogKey, file_name};
use crate::chaos::board::{Board, Knob};
use crate::chaos::scenario::RENEW_NS;

/// One write of zeros.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
/// A wall clock that is further from what is right is skewed, ns.
const SKEWED_NS: u64 = 1_000_000;
/// What makes a wall clock wrong.
const CLOCKS: [Knob; 2] = [Knob::RealtimeOffsetNs, Knob::RealtimeDriftPpm];
/// A sync that is held back looks this often whether it still is, ns.
const LOOK_NS: u64 = 10_000_000;

/// Where a log's segments lie.
pub(super) struct Disk {
    dir: PathBuf,
    board: Option<Arc<Board>>,
}

/// Which error a knob asks for.
fn errno(board: &Board, knob: Knob) -> Option<OpError> {
    let errno = i32::try_from(board.level(knob)).ok().filter(|&errno| errno > 0)?;
    board.bite(knob);
    Some(std::io::Error::from_raw_os_error(errno).into())
}

impl Disk {
    /// In a directory that is there. Without a board nothing is planted, and nothing is looked at.
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir, board: None }
    }

    pub(super) fn plant(&mut self, board: Option<Arc<Board>>) {
        self.board = board;
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a segment's file, full of zeros and durable: later syncs have data to write and no metadata.
    /// Written in steps, so that the disk serves others between them.
    pub(super) async fn prepare(
        &self,
        cx: &mut Cx<'_>,
        segment: u32,
        bytes: u64,
    ) -> Result<Rc<File>, OpError> {
        let file = File::create(cx, &self.dir.join(file_name(segment))).await?;
        match file.allocate(0, bytes).await {
            // A file system that cannot reserve: the zeros take the room all the same.
            Err(OpError::Io(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            other => other?,
        }
        let mut at = 0;
        while at < bytes {
            if let Some(error) =
                self.board.as_deref().and_then(|board| errno(board, Knob::LogWriteErrno))
            {
                return Err(error);
            }
            let len = ZEROS.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
            file.write_at(&ZEROS[..len], at).await.0?;
            at += len as u64;
        }
        self.hold_sync(cx).await?;
        file.sync_all().await?;
        let parent = File::open(cx, &self.dir).await?;
        parent.sync_all().await?;
        parent.close().await?;
        Ok(Rc::new(file))
    }

    /// How often a supervisor wants the next segment begun, ns. A clock that is wrong shows where one begins.
    pub(super) fn renews_every(&self) -> Option<u64> {
        let board = self.board.as_deref()?;
        match board.level(Knob::LogRenewNs) {
            0 => CLOCKS.iter().any(|knob| board.level(*knob) != 0).then_some(RENEW_NS),
            every_ns => Some(every_ns),
        }
    }

    /// It was.
    pub(super) fn renewed(&self) {
        if let Some(board) = self.board.as_ref().filter(|board| board.level(Knob::LogRenewNs) != 0)
        {
            board.bite(Knob::LogRenewNs);
        }
    }

    /// The log has written down a time of day that was wrong by so much.
    pub(super) fn told_the_time(&self, skewed_ns: i64) {
        let Some(board) = self.board.as_deref() else { return };
        for knob in CLOCKS {
            if board.level(knob) != 0 && skewed_ns.unsigned_abs() >= SKEWED_NS {
                board.bite(knob);
            }
        }
    }

    /// What the making of a segment that is needed now came to, for a supervisor that fills disks.
    pub(super) fn came_to<T>(&self, made: &Result<T, OpError>) {
        if let (Some(board), Err(OpError::Io(error))) = (&self.board, made)
            && error.kind() == std::io::ErrorKind::StorageFull
        {
            board.no_room();
        }
    }

    /// Takes away a segment that never began. One that cannot be is in nobody's way, but for its room. An unlink on
    /// this core, after an error only.
    pub(super) fn remove(&self, segment: u32) {
        let _ = std::fs::remove_file(self.dir.join(file_name(segment)));
    }

    /// Writes a segment's header. The first sync of its records makes it durable too; a header that is lost
    /// costs no record.
    pub(super) async fn begin(
        &self,
        file: &File,
        header: Header,
        key: LogKey,
    ) -> Result<(), OpError> {
        self.write(file, header.encode(key).to_vec(), 0).await.0
    }

    /// Writes all of `bytes` at `at`, and hands them back.
    pub(super) async fn write(
        &self,
        file: &File,
        mut bytes: Vec<u8>,
        at: u64,
    ) -> (Result<(), OpError>, Vec<u8>) {
        let Some(board) = self.board.as_deref() else {
            let (written, bytes) = file.write_at(bytes, at).await;
            return (written.map(drop), bytes);
        };
        if let Some(error) = errno(board, Knob::LogWriteErrno) {
            return (Err(error), bytes);
        }
        let kept = usize::try_from(board.level(Knob::LogWriteShort)).unwrap_or(usize::MAX);
        // One that keeps all is not short.
        let short = (1..=bytes.len()).contains(&kept);
        if !short {
            let (written, bytes) = file.write_at(bytes, at).await;
            return (written.map(drop), bytes);
        }
        board.bite(Knob::LogWriteShort);
        bytes.truncate(kept - 1);
        let (written, bytes) = file.write_at(bytes, at).await;
        let short = || std::io::Error::from(std::io::ErrorKind::WriteZero).into();
        (written.and_then(|_| Err(short())), bytes)
    }

    /// Makes what was written to a segment durable.
    pub(super) async fn sync(&self, cx: &mut Cx<'_>, file: &File) -> Result<(), OpError> {
        self.hold_sync(cx).await?;
        file.sync_data().await
    }

    /// What is planted before a sync: it waits as long as it is told to, and may fail then.
    async fn hold_sync(&self, cx: &mut Cx<'_>) -> Result<(), OpError> {
        let Some(board) = self.board.as_deref() else { return Ok(()) };
        let from_ns = cx.fresh_ns();
        let mut held = false;
        loop {
            let until_ns = from_ns.saturating_add(board.level(Knob::LogSyncDelayNs));
            let now_ns = cx.fresh_ns();
            if until_ns <= now_ns {
                break;
            }
            if !std::mem::replace(&mut held, true) {
                board.bite(Knob::LogSyncDelayNs);
            }
            // Without room for a timer it waits no longer, and the knob has bitten for less than it says.
            if cx.sleep_until(until_ns.min(now_ns + LOOK_NS)).await.is_err() {
                break;
            }
        }
        errno(board, Knob::LogSyncErrno).map_or(Ok(()), Err)
    }
}
