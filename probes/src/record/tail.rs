//! The tail of a directory of segments whose writer died: cut behind the last whole frame and sealed, so that a
//! new segment can follow. Nothing that can be read is overwritten.
//!
//! A writer syncs after each frame of one kind, the mark. So of what a machine that lost its power left behind,
//! everything up to the last mark but one was durable, and what lies behind the first place that is no frame
//! may hold one more mark: a page that was written back before the one in front of it. Two marks behind such a
//! place mean that something durable is not there any more; that is damage, and nothing is cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::format::{Frame, KIND_SEAL};
use super::reader::read_bytes;

/// Where a writer goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Number of the segment to make.
    pub number: u32,
    /// Sequence number of its first frame.
    pub next_seq: u64,
    /// SHA-256 of the segment before it.
    pub prev_sha: [u8; 32],
    /// Bytes that were cut; room that was reserved and never used is not among them.
    pub cut_bytes: u64,
}

/// Why a tail is left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// A file cannot be read or written.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// No segment holds a frame.
    #[error("no segment holds a whole frame")]
    Empty,
    /// What is damaged had been durable.
    #[error(
        "{segment} is damaged at byte {offset}, and {marks} synced frames follow: that is no torn tail"
    )]
    Damaged {
        /// File name.
        segment: String,
        /// Where.
        offset: u64,
        /// Frames behind which the writer had synced.
        marks: usize,
    },
}

/// What to do with the bytes of the last segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    /// Bytes of whole frames; the rest goes.
    keep: usize,
    /// Sequence number of the last of them; none when there is none.
    last_seq: Option<u64>,
    sealed: bool,
    /// Bytes behind them, unless all are zeros.
    torn: usize,
}

/// Decides; pure. `mark`: the kind of frame behind which the writer syncs.
fn cut(name: &str, bytes: &[u8], mark: u16) -> Result<Cut, TailError> {
    let mut cut = Cut { keep: 0, last_seq: None, sealed: false, torn: 0 };
    while let Ok((frame, length)) = Frame::decode(&bytes[cut.keep..]) {
        cut.keep += length;
        cut.last_seq = Some(frame.seq);
        cut.sealed = frame.kind == KIND_SEAL;
    }
    let rest = &bytes[cut.keep..];
    // Zeros to the end are room that was reserved; behind others a frame that was written back early may lie.
    cut.torn = if rest.iter().all(|&byte| byte == 0) { 0 } else { rest.len() };
    let (mut frames, mut damage) = (Vec::new(), Vec::new());
    read_bytes(name, rest, true, &mut frames, &mut damage);
    let marks = frames.iter().filter(|frame| frame.kind == mark).count();
    if marks > 1 || (cut.sealed && cut.torn > 0) {
        let (segment, offset) = (name.to_owned(), cut.keep as u64);
        return Err(TailError::Damaged { segment, offset, marks });
    }
    Ok(cut)
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> TailError {
    move |source| TailError::Io { action, source }
}

/// Cuts and seals the last segment of `dir`, synced; says where to go on. A segment without a whole frame, as one
/// whose writer died while it made it, is removed. Doing it twice does nothing the second time.
///
/// # Errors
/// [`TailError`]; with [`TailError::Damaged`] nothing was changed.
pub fn close_tail(dir: &Path, mark: u16) -> Result<Tail, TailError> {
    let mut cut_bytes = 0;
    loop {
        let number = last_segment(dir)?.ok_or(TailError::Empty)?;
        let (name, path) = (format!("{number:04}.log"), dir.join(format!("{number:04}.log")));
        let bytes = fs::read(&path).map_err(failed("read a segment"))?;
        let cut = cut(&name, &bytes, mark)?;
        cut_bytes += cut.torn as u64;
        let Some(last_seq) = cut.last_seq else {
            fs::remove_file(&path).map_err(failed("remove an empty segment"))?;
            continue;
        };
        let next_seq = close(&path, &cut, last_seq)?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(failed("sync the directory"))?;
        let held = fs::read(&path).map_err(failed("read a segment"))?;
        let prev_sha = Sha256::digest(&held).into();
        return Ok(Tail { number: number + 1, next_seq, prev_sha, cut_bytes });
    }
}

/// Cuts and seals one segment; the sequence number that follows.
fn close(path: &Path, cut: &Cut, last_seq: u64) -> Result<u64, TailError> {
    let opened = OpenOptions::new().append(true).open(path);
    let mut file = opened.map_err(failed("open a segment"))?;
    file.set_len(cut.keep as u64).map_err(failed("cut a segment"))?;
    let mut next_seq = last_seq.wrapping_add(1);
    if !cut.sealed {
        let seal =
            Frame { kind: KIND_SEAL, version: 1, seq: next_seq, mono_ns: 0, payload: Vec::new() };
        let bytes = seal.encode().unwrap_or_default();
        file.write_all(&bytes).map_err(failed("seal a segment"))?;
        next_seq = next_seq.wrapping_add(1);
    }
    file.sync_all().map_err(failed("sync a segment"))?;
    Ok(next_seq)
}

/// The highest number of a segment.
fn last_segment(dir: &Path) -> Result<Option<u32>, TailError> {
    let entries = fs::read_dir(dir).map_err(failed("read the directory"))?;
    let number = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_suffix(".log")?.parse().ok().filter(|n: &u32| format!("{n:04}.log") == name)
    };
    Ok(entries.filter_map(number).max())
}

#[cfg(test)]
mod tests {
    use super::super::reader::read_dir;
    use super::super::writer::SegmentWriter;
    use super::*;

    const MARK: u16 = 2;
    const PART: u16 = 3;

    /// Three windows of two parts and a mark each, not sealed; lengths after each frame.
    fn bytes() -> (Vec<u8>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::create(dir.path(), 0, 0, [0; 32]).unwrap();
        let mut ends = vec![usize::try_from(writer.bytes()).unwrap()];
        for window in 0..3u8 {
            for kind in [PART, PART, MARK] {
                writer.append(kind, 1, u64::from(window), &[window + 1; 40]).unwrap();
                ends.push(usize::try_from(writer.bytes()).unwrap());
            }
            writer.sync().unwrap();
        }
        (fs::read(dir.path().join("0000.log")).unwrap(), ends)
    }

    fn held(bytes: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0000.log"), bytes).unwrap();
        dir
    }

    /// Goes on behind the tail with one frame; what is read then.
    fn resumed(dir: &Path) -> (Tail, Vec<u16>) {
        let tail = close_tail(dir, MARK).unwrap();
        let again = close_tail(dir, MARK).unwrap();
        assert_eq!((again.cut_bytes, &again.prev_sha), (0, &tail.prev_sha), "done once");
        let mut writer =
            SegmentWriter::create(dir, tail.number, tail.next_seq, tail.prev_sha).unwrap();
        writer.append(9, 1, 0, b"on").unwrap();
        writer.seal().unwrap();
        let (frames, damage) = read_dir(dir).unwrap();
        assert_eq!(damage, [], "what was cut reads whole");
        (tail, frames.iter().map(|frame| frame.kind).collect())
    }

    #[test]
    fn a_tail_torn_at_every_byte_is_cut_behind_the_last_whole_frame() {
        let (bytes, ends) = bytes();
        let head = ends[0];
        for length in head..=bytes.len() {
            let dir = held(&bytes[..length]);
            let whole = ends.iter().filter(|&&end| end <= length).count();
            let (tail, kinds) = resumed(dir.path());
            assert_eq!(kinds.len(), whole, "torn at {length}: frames before it, and the new one");
            assert_eq!(tail.cut_bytes, (length - ends[whole - 1]) as u64, "torn at {length}");
            let kept = fs::read(dir.path().join("0000.log")).unwrap();
            assert_eq!(kept[..ends[whole - 1]], bytes[..ends[whole - 1]], "nothing is overwritten");
        }
    }

    #[test]
    fn every_byte_of_the_last_window_may_be_wrong_and_every_one_before_is_damage() {
        let (bytes, ends) = bytes();
        let last_window = ends[ends.len() - 4];
        for at in ends[0]..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            let dir = held(&changed);
            let before = ends.iter().filter(|&&end| end <= at).count();
            // The window before it had one mark behind it, its own or the next one's.
            let marks = (before..ends.len()).filter(|i| i % 3 == 0).count();
            let broken_mark = before % 3 == 0;
            let left = marks - usize::from(broken_mark);
            if left > 1 {
                let refused = close_tail(dir.path(), MARK);
                assert!(
                    matches!(refused, Err(TailError::Damaged { .. })),
                    "byte {at}: {refused:?}"
                );
                assert_eq!(fs::read(dir.path().join("0000.log")).unwrap(), changed);
            } else {
                let (_, kinds) = resumed(dir.path());
                assert_eq!(kinds.len(), before, "byte {at}");
            }
            assert!(left <= 1 || at < last_window, "a byte of the last window is never damage");
        }
    }

    #[test]
    fn room_that_was_reserved_is_no_torn_tail() {
        let (bytes, ends) = bytes();
        let dir = held(&[&bytes[..], &[0; 500]].concat());
        let (tail, kinds) = resumed(dir.path());
        assert_eq!((tail.cut_bytes, kinds.len()), (0, ends.len()));
        // A hole in front of a page that was written back early.
        let mut holed = bytes.clone();
        let from = ends[ends.len() - 3];
        holed[from..from + 10].fill(0);
        let (tail, kinds) = resumed(held(&holed).path());
        assert_eq!((tail.cut_bytes, kinds.len()), ((bytes.len() - from) as u64, ends.len() - 2));
    }

    #[test]
    fn a_segment_that_was_being_made_goes_and_one_that_was_sealed_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(close_tail(dir.path(), MARK), Err(TailError::Empty)));
        let mut first = SegmentWriter::create(dir.path(), 0, 0, [0; 32]).unwrap();
        first.append(MARK, 1, 0, b"x").unwrap();
        first.seal().unwrap();
        for torn in [&b""[..], b"TBF1", &[0; 64]] {
            fs::write(dir.path().join("0001.log"), torn).unwrap();
            let tail = close_tail(dir.path(), MARK).unwrap();
            assert_eq!((tail.number, tail.next_seq), (1, first.next_seq()));
            assert!(!dir.path().join("0001.log").exists());
        }
        let (_, kinds) = resumed(dir.path());
        assert_eq!(kinds, [MARK, 9]);
    }
}
