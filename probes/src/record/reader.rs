//! Reads segments back. A torn tail, a flipped bit or a foreign file is data about the run, never a panic.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::format::{Broken, Frame, KIND_SEAL, KIND_SEGMENT};

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The last frame of the last segment was not written whole.
    TornTail,
    /// A frame whose checksum, magic or length is wrong.
    BadFrame,
    /// Frames are missing.
    SequenceGap,
    /// A file that is not a segment.
    ForeignFile,
    /// A segment that does not follow the one before it: another run's, or one was changed after it was
    /// sealed.
    BrokenChain,
}

/// Damage at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File name of the segment.
    pub segment: String,
    /// Byte offset.
    pub offset: u64,
    /// Kind.
    pub kind: DamageKind,
    /// Details.
    pub text: String,
}

impl std::fmt::Display for DamageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TornTail => "torn tail",
            Self::BadFrame => "damaged frame",
            Self::SequenceGap => "missing frames",
            Self::ForeignFile => "foreign file",
            Self::BrokenChain => "broken chain",
        })
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {} at byte {}: {}", self.kind, self.segment, self.offset, self.text)
    }
}

/// Why a directory of segments cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct ReadError {
    /// Where.
    pub path: String,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// Every readable frame of the segments in `dir`, in order, and what is damaged.
///
/// # Errors
/// [`ReadError`] when the directory or a file cannot be read; damaged content is no error.
pub fn read_dir(dir: &Path) -> Result<(Vec<Frame>, Vec<Damage>), ReadError> {
    let error = |source| ReadError { path: dir.display().to_string(), source };
    let mut names = fs::read_dir(dir)
        .map_err(error)?
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(error)?;
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    let (mut frames, mut damage) = (Vec::new(), Vec::new());
    let mut before = None;
    for (index, name) in names.iter().enumerate() {
        let bytes = fs::read(dir.join(name)).map_err(error)?;
        let last = index + 1 == names.len();
        let known = frames.len();
        read_bytes(name, &bytes, last, &mut frames, &mut damage);
        let broken = chain(name, &frames[known..], before.as_ref(), last);
        damage.extend(broken.map(|text| Damage {
            segment: name.clone(),
            offset: 0,
            kind: DamageKind::BrokenChain,
            text,
        }));
        before = Some(Sha256::digest(&bytes).into());
    }
    gaps(&frames, &mut damage);
    frames.retain(|frame| frame.kind != KIND_SEGMENT && frame.kind != KIND_SEAL);
    Ok((frames, damage))
}

/// Reads one segment's bytes, appending to `frames` and `damage`.
pub fn read_bytes(
    name: &str,
    bytes: &[u8],
    last: bool,
    frames: &mut Vec<Frame>,
    damage: &mut Vec<Damage>,
) {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        match Frame::decode(rest) {
            Ok((frame, length)) => {
                frames.push(frame);
                at += length;
            }
            Err(_) if rest.iter().all(|&byte| byte == 0) => return,
            Err(broken) => {
                let next = Frame::find(&rest[1..]).map(|found| at + 1 + found);
                damage.push(Damage {
                    segment: name.to_owned(),
                    offset: at as u64,
                    kind: classify(broken, at, last && next.is_none()),
                    text: match next {
                        Some(next) => format!("{broken:?}; {} bytes skipped", next - at),
                        None => format!("{broken:?}; the last {} bytes are not read", rest.len()),
                    },
                });
                let Some(next) = next else { return };
                at = next;
            }
        }
    }
}

/// What a segment's first and last frames say against its name and the SHA-256 of the segment before.
fn chain(name: &str, frames: &[Frame], before: Option<&[u8; 32]>, last: bool) -> Option<String> {
    // Nothing readable: that is damage of its own.
    let (first, end) = (frames.first()?, frames.last()?);
    let head = (first.kind == KIND_SEGMENT).then(|| first.payload.split_at_checked(4)).flatten();
    let Some((number, sha)) = head else {
        return Some("its first frame is not the head of a segment".to_owned());
    };
    let number = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
    if format!("{number:04}.log") != name {
        return Some(format!("its first frame says that it is segment {number}"));
    }
    if sha != before.unwrap_or(&[0; 32]) {
        return Some("the SHA-256 it holds is not that of the segment before".to_owned());
    }
    (!last && end.kind != KIND_SEAL).then(|| "it was not sealed, and another follows".to_owned())
}

const fn classify(broken: Broken, at: usize, tail: bool) -> DamageKind {
    match broken {
        Broken::Magic if at == 0 => DamageKind::ForeignFile,
        _ if tail => DamageKind::TornTail,
        _ => DamageKind::BadFrame,
    }
}

fn gaps(frames: &[Frame], damage: &mut Vec<Damage>) {
    for pair in frames.windows(2) {
        let expected = pair[0].seq.wrapping_add(1);
        if pair[1].seq != expected {
            damage.push(Damage {
                segment: "sequence".to_owned(),
                offset: 0,
                kind: DamageKind::SequenceGap,
                text: format!("frame {expected} expected, {} found", pair[1].seq),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::super::writer::{LogFile, SegmentWriter, WriteError};
    use super::*;

    /// The faulty twin: keeps bytes in memory, tears a write at `tear`, fails the sync numbered `bad_sync`.
    #[derive(Clone, Default)]
    struct Faulty {
        bytes: Arc<Mutex<Vec<u8>>>,
        tear: Option<usize>,
        bad_sync: bool,
    }

    impl LogFile for Faulty {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            let mut held = self.bytes.lock().unwrap();
            let room = self
                .tear
                .map_or(bytes.len(), |tear| tear.saturating_sub(held.len()).min(bytes.len()));
            held.extend_from_slice(&bytes[..room]);
            if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
        fn sync(&mut self) -> io::Result<()> {
            if self.bad_sync { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }
    }

    fn segment(frames: u8) -> Vec<u8> {
        let file = Faulty::default();
        let mut writer = SegmentWriter::over(Box::new(file.clone()), 0, 0, [0; 32]).unwrap();
        for i in 0..frames {
            writer.append(7, 1, u64::from(i), &vec![i; usize::from(i) * 3]).unwrap();
        }
        writer.seal().unwrap();
        std::mem::take(&mut *file.bytes.lock().unwrap())
    }

    #[test]
    fn a_full_disk_and_a_bad_sync_close_the_segment_for_good() {
        let file = Faulty { tear: Some(100), ..Faulty::default() };
        let mut writer = SegmentWriter::over(Box::new(file.clone()), 0, 0, [0; 32]).unwrap();
        assert!(matches!(writer.append(1, 1, 0, &[1; 64]), Err(WriteError::Io { .. })));
        assert!(matches!(writer.append(1, 1, 0, &[]), Err(WriteError::Poisoned)));
        let (mut frames, mut damage) = (Vec::new(), Vec::new());
        read_bytes("0000.log", &file.bytes.lock().unwrap(), true, &mut frames, &mut damage);
        assert_eq!((frames.len(), damage[0].kind), (1, DamageKind::TornTail));
        let mut writer = SegmentWriter::over(
            Box::new(Faulty { bad_sync: true, ..Faulty::default() }),
            0,
            0,
            [0; 32],
        )
        .unwrap();
        assert!(matches!(writer.sync(), Err(WriteError::Io { .. })));
        assert!(
            matches!(writer.sync(), Err(WriteError::Poisoned)),
            "a failed sync is never retried"
        );
    }

    #[test]
    fn a_directory_round_trip_over_two_segments() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = SegmentWriter::create(dir.path(), 0, 0, [0; 32]).unwrap();
        first.append(3, 1, 9, b"abc").unwrap();
        first.seal().unwrap();
        assert!(SegmentWriter::create(dir.path(), 0, 0, [0; 32]).is_err(), "never overwritten");
        let sha = Sha256::digest(fs::read(dir.path().join("0000.log")).unwrap()).into();
        let mut second = SegmentWriter::create(dir.path(), 1, first.next_seq(), sha).unwrap();
        second.append(4, 2, 10, b"d").unwrap();
        second.sync().unwrap();
        let (frames, damage) = read_dir(dir.path()).unwrap();
        assert_eq!(damage, []);
        assert_eq!(
            frames.iter().map(|f| (f.kind, f.payload.as_slice())).collect::<Vec<_>>(),
            [(3, &b"abc"[..]), (4, b"d")]
        );
        fs::remove_file(dir.path().join("0000.log")).unwrap();
        fs::write(dir.path().join("0002.log"), b"hello, I am a text").unwrap();
        let (_, damage) = read_dir(dir.path()).unwrap();
        assert!(damage.iter().any(|d| d.kind == DamageKind::ForeignFile), "{damage:?}");
    }

    /// Two segments, sealed as `seal` says, the second with the hash that `sha` makes of the true one.
    fn two(seal: bool, sha: impl Fn([u8; 32]) -> [u8; 32], name: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut first = SegmentWriter::create(dir.path(), 0, 0, [0; 32]).unwrap();
        first.append(3, 1, 9, b"abc").unwrap();
        if seal {
            first.seal().unwrap()
        } else {
            first.sync().unwrap()
        }
        let held = Sha256::digest(fs::read(dir.path().join("0000.log")).unwrap()).into();
        drop(SegmentWriter::create(dir.path(), 1, first.next_seq(), sha(held)).unwrap());
        fs::rename(dir.path().join("0001.log"), dir.path().join(name)).unwrap();
        let (_, damage) = read_dir(dir.path()).unwrap();
        damage.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_segment_must_follow_the_one_before_it() {
        assert_eq!(two(true, |sha| sha, "0001.log"), [""; 0]);
        for (damage, says) in [
            (two(true, |_| [7; 32], "0001.log"), "SHA-256"),
            (two(true, |sha| sha, "0002.log"), "says that it is segment 1"),
            (two(false, |sha| sha, "0001.log"), "not sealed"),
        ] {
            assert!(matches!(&damage[..], [one] if one.contains(says)), "{damage:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_or_flip_keeps_the_frames_before_it(frames in 1u8..12, at in any::<prop::sample::Index>(), flip in 0u8..) {
            let whole = segment(frames);
            let at = at.index(whole.len());
            let (mut good, mut none) = (Vec::new(), Vec::new());
            read_bytes("x", &whole, true, &mut good, &mut none);
            prop_assert_eq!(&none, &[]);
            let mut bytes = whole.clone();
            if flip == 0 { bytes.truncate(at) } else { bytes[at] ^= flip }
            let (mut read, mut damage) = (Vec::new(), Vec::new());
            read_bytes("x", &bytes, true, &mut read, &mut damage);
            // Every frame that is read is one that was written, and all those that end before `at` are read.
            prop_assert!(read.iter().all(|frame| good.contains(frame)));
            let mut end = 0;
            let before = good.iter().take_while(|f| { end += f.payload.len() + 32; end <= at }).count();
            prop_assert!(read.len() >= before && read[..before] == good[..before]);
            prop_assert!(read.len() == good.len() || !damage.is_empty() || flip == 0);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (mut frames, mut damage) = (Vec::new(), Vec::new());
            read_bytes("x", &bytes, true, &mut frames, &mut damage);
        }
    }
}
