//! The frames of a recorded program: written window by window, read back whole or while they grow.
//!
//! What is written is in the page cache at once, so a killed recorder loses nothing; a host that loses
//! power loses at most [`SYNC_NS`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tailbeam_probes::record::program::{
    ProgramEnd, ProgramSamples, ProgramStacks, ProgramStart, ProgramTick, from_bytes, to_bytes,
};
use tailbeam_probes::record::{
    Frame, HEADER_LEN, KIND_SEAL, KIND_SEGMENT, ReadError, SegmentWriter, WriteError, read_bytes,
    read_dir,
};

use super::records::{FRAME_VERSION, kind};

/// A segment is closed at this size.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Between two syncs, ns.
const SYNC_NS: u64 = 10_000_000_000;
/// Bytes of a frame behind its payload.
const CRC_LEN: usize = 4;

/// Why a recording cannot be written on.
#[derive(Debug, thiserror::Error)]
#[error(
    "the recording of {run} ends here\n  cause: {cause}\n  remedy: free space, or name another store with --store DIR"
)]
pub struct ProgramLogError {
    /// Run directory.
    pub run: String,
    /// Why.
    pub cause: String,
}

/// Writes the frames of one recording.
#[derive(Debug)]
pub struct ProgramLog {
    dir: PathBuf,
    segment: SegmentWriter,
    number: u32,
    sealed_bytes: u64,
    bytes_max: u64,
    synced_ns: u64,
}

impl ProgramLog {
    /// Begins a recording in a run directory; `bytes_max` bounds its frames.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn create(
        dir: &Path,
        start: &ProgramStart,
        bytes_max: u64,
    ) -> Result<Self, ProgramLogError> {
        let failed = |error: WriteError| failed(dir, &error);
        let segment = SegmentWriter::create(&dir.join("seg"), 0, 0, [0; 32]).map_err(failed)?;
        let synced_ns = start.start_ns;
        let dir = dir.to_owned();
        let mut log = Self { dir, segment, number: 0, sealed_bytes: 0, bytes_max, synced_ns };
        log.frame(kind::PROGRAM_START, start.start_ns, &to_bytes(start))?;
        log.sync(start.start_ns)?;
        Ok(log)
    }

    /// Whether the frames have reached their bound: nothing more is to be written but the end.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sealed_bytes + self.segment.bytes() >= self.bytes_max
    }

    /// Writes a window, in the order in which parts refer to each other.
    ///
    /// # Errors
    /// The disk refuses; nothing more can be written.
    pub fn window(
        &mut self,
        tick: &ProgramTick,
        stacks: &ProgramStacks,
        samples: &ProgramSamples,
    ) -> Result<(), ProgramLogError> {
        let now_ns = tick.to_ns;
        self.frame(kind::PROGRAM_TICK, now_ns, &to_bytes(tick))?;
        if !stacks.is_empty() {
            self.frame(kind::PROGRAM_STACKS, now_ns, &to_bytes(stacks))?;
        }
        if !samples.samples.is_empty() {
            self.frame(kind::PROGRAM_SAMPLES, now_ns, &to_bytes(samples))?;
        }
        if now_ns.saturating_sub(self.synced_ns) >= SYNC_NS {
            self.sync(now_ns)?;
        }
        self.rotate()
    }

    /// Writes the last frame and seals the segment.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn end(&mut self, end: &ProgramEnd) -> Result<(), ProgramLogError> {
        self.frame(kind::PROGRAM_END, end.end_ns, &to_bytes(end))?;
        self.segment.seal().map_err(|error| failed(&self.dir, &error))
    }

    fn frame(&mut self, kind: u16, at_ns: u64, payload: &[u8]) -> Result<(), ProgramLogError> {
        self.segment
            .append(kind, FRAME_VERSION, at_ns, payload)
            .map_err(|error| failed(&self.dir, &error))
    }

    fn sync(&mut self, now_ns: u64) -> Result<(), ProgramLogError> {
        self.synced_ns = now_ns;
        self.segment.sync().map_err(|error| failed(&self.dir, &error))
    }

    fn rotate(&mut self) -> Result<(), ProgramLogError> {
        if self.segment.bytes() < SEGMENT_BYTES_MAX {
            return Ok(());
        }
        self.segment.seal().map_err(|error| failed(&self.dir, &error))?;
        let seg = self.dir.join("seg");
        let sealed = fs::read(seg.join(format!("{:04}.log", self.number)))
            .map_err(|error| failed(&self.dir, &error))?;
        let sha: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&sealed).into();
        self.sealed_bytes += self.segment.bytes();
        self.number += 1;
        self.segment = SegmentWriter::create(&seg, self.number, self.segment.next_seq(), sha)
            .map_err(|error| failed(&self.dir, &error))?;
        Ok(())
    }
}

fn failed(dir: &Path, cause: &dyn std::fmt::Display) -> ProgramLogError {
    ProgramLogError { run: dir.display().to_string(), cause: cause.to_string() }
}

/// A part of a recording, as it lies in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum ProgramRun {
    /// The first.
    Start(ProgramStart),
    /// Counts.
    Tick(ProgramTick),
    /// What samples refer to.
    Stacks(ProgramStacks),
    /// Samples.
    Samples(ProgramSamples),
    /// The last.
    End(ProgramEnd),
}

/// Bytes of the first frame of a segment: its number and a hash.
pub(super) const SEGMENT_HEAD: usize = HEADER_LEN + 36 + CRC_LEN;

/// Whether a run directory holds the frames of a recorded program.
#[must_use]
pub fn is_program(dir: &Path) -> bool {
    // The kind of the second frame.
    let at = SEGMENT_HEAD + 6;
    let head = fs::File::open(dir.join("seg/0000.log")).and_then(|file| {
        let mut kind = [0u8; 2];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut kind, at as u64).map(|()| kind)
    });
    head.is_ok_and(|found| u16::from_le_bytes(found) == kind::PROGRAM_START)
}

/// Reads a recording: its parts in order, and what is damaged in words.
///
/// # Errors
/// The directory or a file cannot be read.
pub fn read_program(dir: &Path) -> Result<(Vec<ProgramRun>, Vec<String>), ReadError> {
    let (frames, damage) = read_dir(&dir.join("seg"))?;
    let mut damage: Vec<String> = damage.iter().map(ToString::to_string).collect();
    let parts = frames.iter().filter_map(|frame| part(frame, &mut damage)).collect();
    Ok((parts, damage))
}

fn part(frame: &Frame, damage: &mut Vec<String>) -> Option<ProgramRun> {
    let bytes = &frame.payload;
    let read = match frame.kind {
        kind::PROGRAM_START => from_bytes(bytes).map(ProgramRun::Start),
        kind::PROGRAM_TICK => from_bytes(bytes).map(ProgramRun::Tick),
        kind::PROGRAM_STACKS => from_bytes(bytes).map(ProgramRun::Stacks),
        kind::PROGRAM_SAMPLES => from_bytes(bytes).map(ProgramRun::Samples),
        kind::PROGRAM_END => from_bytes(bytes).map(ProgramRun::End),
        _ => return None,
    };
    if read.is_none() {
        damage.push(format!("frame {}: unreadable, kind {}", frame.seq, frame.kind));
    }
    read
}

/// Follows the frames of a run while they are written, of whatever kind.
#[derive(Debug)]
pub struct Following {
    seg: PathBuf,
    number: u32,
    offset: u64,
}

impl Following {
    /// From the first frame of a run.
    #[must_use]
    pub fn from_start(run: &Path) -> Self {
        Self { seg: run.join("seg"), number: 0, offset: 0 }
    }

    /// Frames that came whole since the last call, oldest first. A frame that is not whole yet comes with
    /// a later call; behind a damaged one nothing comes: see the report.
    ///
    /// # Errors
    /// A file cannot be read. One that is not there yet is no error.
    pub fn fresh(&mut self) -> io::Result<Vec<Frame>> {
        let mut found = Vec::new();
        loop {
            let name = format!("{:04}.log", self.number);
            let bytes = match tail(&self.seg.join(&name), self.offset) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
                Err(error) => return Err(error),
            };
            let frames = whole(&name, &bytes);
            // Up to the last whole frame; what follows is torn, or reserved and not yet written.
            let length: usize = frames.iter().map(frame_len).sum();
            self.offset += length as u64;
            let sealed = frames.last().is_some_and(|frame| frame.kind == KIND_SEAL);
            found.extend(
                frames.into_iter().filter(|f| f.kind != KIND_SEAL && f.kind != KIND_SEGMENT),
            );
            if !sealed {
                return Ok(found);
            }
            (self.number, self.offset) = (self.number + 1, 0);
        }
    }
}

/// Frames from the start of `bytes` up to the first that is not whole.
fn whole(name: &str, bytes: &[u8]) -> Vec<Frame> {
    let (mut frames, mut damage) = (Vec::new(), Vec::new());
    read_bytes(name, bytes, true, &mut frames, &mut damage);
    let first = damage.first().map_or(u64::MAX, |damage| damage.offset);
    let mut end = 0;
    frames.retain(|frame| {
        end += frame_len(frame) as u64;
        end <= first
    });
    frames
}

const fn frame_len(frame: &Frame) -> usize {
    HEADER_LEN + frame.payload.len() + CRC_LEN
}

fn tail(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(to_ns: u64) -> ProgramTick {
        ProgramTick { to_ns, ..ProgramTick::default() }
    }

    #[test]
    fn a_recording_that_is_cut_anywhere_is_read_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("seg")).unwrap();
        let start = ProgramStart { process: 7, ..ProgramStart::default() };
        let mut log = ProgramLog::create(dir.path(), &start, 1 << 20).unwrap();
        assert!(is_program(dir.path()) && !log.is_full());
        let none = (ProgramStacks::default(), ProgramSamples::default());
        for at in 1..4 {
            log.window(&tick(at), &none.0, &none.1).unwrap();
        }
        log.end(&ProgramEnd::default()).unwrap();
        let path = dir.path().join("seg/0000.log");
        let whole = fs::read(&path).unwrap();
        let count = |length: usize| {
            fs::write(&path, &whole[..length]).unwrap();
            let (parts, _) = read_program(dir.path()).unwrap();
            parts.iter().filter(|part| matches!(part, ProgramRun::Tick(_))).count()
        };
        let mut last = 0;
        for length in 0..=whole.len() {
            let ticks = count(length);
            assert!(ticks >= last && ticks <= 3, "{length}");
            last = ticks;
        }
        assert_eq!(last, 3);
    }

    #[test]
    fn a_follower_gets_each_frame_once_and_waits_for_torn_ones() {
        let dir = tempfile::tempdir().unwrap();
        let seg = dir.path().join("seg");
        fs::create_dir(&seg).unwrap();
        let mut following = Following::from_start(dir.path());
        assert_eq!(following.fresh().unwrap(), []);
        let mut log = ProgramLog::create(dir.path(), &ProgramStart::default(), 1 << 20).unwrap();
        let none = (ProgramStacks::default(), ProgramSamples::default());
        assert_eq!(following.fresh().unwrap().len(), 1);
        log.window(&tick(1), &none.0, &none.1).unwrap();
        let path = seg.join("0000.log");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(following.fresh().unwrap(), []);
        fs::write(&path, &whole).unwrap();
        let frames = following.fresh().unwrap();
        assert_eq!((frames.len(), frames[0].kind), (1, kind::PROGRAM_TICK));
        assert_eq!(following.fresh().unwrap(), []);
    }
}
