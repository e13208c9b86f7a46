//! Segment files on the ring.

use std::path::Path;
use std::rc::Rc;

use tailbeam_runtime::fs::File;
use tailbeam_runtime::{Cx, OpError};

use super::format::{Header, LogKey, file_name};

/// One write of zeros.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Makes a segment's file, full of zeros and durable: later syncs have data to write and no metadata.
/// Written in steps, so that the disk serves others between them.
pub(super) async fn prepare(
    cx: &mut Cx<'_>,
    dir: &Path,
    segment: u32,
    bytes: u64,
) -> Result<Rc<File>, OpError> {
    let file = File::create(cx, &dir.join(file_name(segment))).await?;
    match file.allocate(0, bytes).await {
        // A file system that cannot reserve: the zeros take the room all the same.
        Err(OpError::Io(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
        other => other?,
    }
    let mut at = 0;
    while at < bytes {
        let len = ZEROS.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
        file.write_at(&ZEROS[..len], at).await.0?;
        at += len as u64;
    }
    file.sync_all().await?;
    let parent = File::open(cx, dir).await?;
    parent.sync_all().await?;
    parent.close().await?;
    Ok(Rc::new(file))
}

/// Writes a segment's header. The first sync of its records makes it durable too; a header that is lost
/// costs no record.
pub(super) async fn begin(file: &File, header: Header, key: LogKey) -> Result<(), OpError> {
    file.write_at(header.encode(key).to_vec(), 0).await.0.map(drop)
}
