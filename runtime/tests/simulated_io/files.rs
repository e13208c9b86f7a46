//! Programs over files: each writes to one of its own, reads it back and knows which bytes must be there. What a write
//! that failed, or was given up, has left is not known.

use std::path::{Path, PathBuf};

use tailbeam_runtime::fs::File;
use tailbeam_runtime::{Cx, OpError};

use crate::world::{Shared, Works, below, both, index, one_in, world};

/// Bytes of a file.
const LEN_MAX: usize = 40_000;

/// What is known of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Byte {
    Is(u8),
    /// A write failed here.
    Unknown,
    /// A write was given up here, and may still come.
    Lost,
}

/// A file as it must be.
#[derive(Debug)]
pub(crate) struct FileRecord {
    pub(crate) path: PathBuf,
    /// As far as it may reach; at least this long it is.
    bytes: Vec<Byte>,
    len_min: usize,
    made: bool,
}

impl FileRecord {
    /// Notes a write to `at..at + len` that has begun, and may never be told to have ended; what was known before.
    fn begin(&mut self, at: usize, len: usize) -> Vec<Byte> {
        self.reach(at + len);
        let known = &mut self.bytes[at..at + len];
        let before = known.to_vec();
        known.fill(Byte::Lost);
        before
    }

    fn reach(&mut self, end: usize) {
        if self.bytes.len() < end {
            self.bytes.resize(end, Byte::Is(0));
        }
    }

    /// Notes how it has ended.
    fn end(&mut self, at: usize, bytes: &[u8], before: &[Byte], outcome: Outcome) {
        let end = at + bytes.len();
        for ((known, &before), &byte) in self.bytes[at..end].iter_mut().zip(before).zip(bytes) {
            *known = match (outcome, before) {
                (Outcome::Dropped, _) | (_, Byte::Lost) => Byte::Lost,
                (Outcome::Done, _) => Byte::Is(byte),
                (Outcome::Failed, _) => Byte::Unknown,
            };
        }
        if outcome == Outcome::Done {
            self.len_min = self.len_min.max(end);
        }
    }

    /// What is wrong with bytes that were read from `at` on, by a read that had room for `room`.
    fn judge(&self, at: usize, bytes: &[u8], room: usize) -> Option<String> {
        let least = room.min(self.len_min.saturating_sub(at));
        let most = room.min(self.bytes.len().saturating_sub(at));
        if bytes.len() < least || bytes.len() > most {
            let path = self.path.display();
            return Some(format!("{path}: read {} at {at}, not {least} to {most}", bytes.len()));
        }
        let known = self.bytes.get(at..).unwrap_or_default();
        let differs = |(byte, known): (&u8, &Byte)| matches!(known, Byte::Is(is) if is != byte);
        let strange = bytes.iter().zip(known).position(differs)?;
        Some(format!("{}: byte {} is {}", self.path.display(), at + strange, bytes[strange]))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    Dropped,
}

fn failed(error: &OpError) -> Outcome {
    world(|w| {
        w.tally.errors += 1;
        let expected = match error {
            OpError::Io(_) => w.fails,
            OpError::Full => w.tight,
            _ => false,
        };
        w.check(expected, || format!("a file: {error}, which nothing explains"));
    });
    Outcome::Failed
}

/// Awaits an operation, or gives it up; `None` then, and when it has failed.
async fn attempt<T>(
    cx: &Shared<'_, '_>,
    op: impl Future<Output = Result<T, OpError>>,
) -> Result<T, Outcome> {
    let outcome = if one_in(16) { cx.briefly(op).await } else { Some(op.await) };
    match outcome {
        Some(done) => done.map_err(|error| failed(&error)),
        None => {
            world(|w| w.tally.file_ops_dropped += 1);
            Err(Outcome::Dropped)
        }
    }
}

async fn write(id: usize, file: &File, cx: &Shared<'_, '_>, (from, room): (usize, usize)) {
    let at = from + index(room);
    let len = 1 + index(from + room - at);
    let salt = below(256);
    let bytes: Vec<u8> = (0..len as u64).map(|n| (n * 7 + salt).to_le_bytes()[0]).collect();
    let before = world(|w| w.files[id].begin(at, len));
    let write = file.write_at(bytes.clone(), at as u64);
    let outcome = if one_in(16) { cx.briefly(write).await } else { Some(write.await) };
    let outcome = match outcome {
        Some((result, buffer)) => {
            world(|w| w.check(buffer == bytes, || "a buffer came back changed".to_owned()));
            match result {
                Ok(count) => {
                    world(|w| w.check(count == len, || format!("{count} of {len} written")));
                    Outcome::Done
                }
                Err(error) => {
                    world(|w| w.check_errno(&error));
                    failed(&error)
                }
            }
        }
        None => Outcome::Dropped,
    };
    world(|w| {
        w.tally.bytes_written += if outcome == Outcome::Done { len as u64 } else { 0 };
        w.tally.file_ops_dropped += u64::from(outcome == Outcome::Dropped);
        w.files[id].end(at, &bytes, &before, outcome);
    });
}

async fn read(id: usize, file: &File, cx: &Shared<'_, '_>) {
    let (at, room) = (index(LEN_MAX), 1 + index(LEN_MAX));
    let read = async {
        let (count, buffer) = file.read_at(vec![0; room], at as u64).await;
        count.as_ref().err().into_iter().for_each(|error| world(|w| w.check_errno(error)));
        Ok((count?, buffer))
    };
    let Ok((count, buffer)) = attempt(cx, read).await else { return };
    world(|w| {
        w.tally.bytes_read += count as u64;
        // What was written meanwhile is not known to be there, or not to be.
        if let Some(wrong) = w.files[id].judge(at, &buffer[..count], room) {
            w.wrong(|| wrong);
        }
    });
}

/// Writes, reads, syncs, closes and opens again.
pub(crate) async fn work(path: &Path, cx: &mut Cx<'_>) {
    let _works = Works::begin();
    let cx = Shared::new(cx);
    let id = world(|w| {
        w.tally.files += 1;
        let (bytes, len_min, made) = (Vec::new(), 0, false);
        w.files.push(FileRecord { path: path.to_owned(), bytes, len_min, made });
        w.files.len() - 1
    });
    let Ok(mut file) = attempt(&cx, cx.with(|cx| File::create(cx, path))).await else { return };
    world(|w| w.files[id].made = true);
    for _ in 0..index(24) {
        match below(12) {
            0..5 => write(id, &file, &cx, (0, LEN_MAX)).await,
            5 => {
                let half = LEN_MAX / 2;
                let halves = ((0, half), (half, half));
                both(write(id, &file, &cx, halves.0), write(id, &file, &cx, halves.1)).await;
            }
            6..9 => read(id, &file, &cx).await,
            9 => {
                let sync = async {
                    if one_in(2) { file.sync_all().await } else { file.sync_data().await }
                };
                let _ = attempt(&cx, sync).await;
            }
            10 => reserve(id, &file, &cx).await,
            _ => {
                // Closed whatever it says; one that is given up is closed too.
                let _ = attempt(&cx, file.close()).await;
                let open = cx.with(|cx| File::open_or_create(cx, path));
                let Ok(again) = attempt(&cx, open).await else { return };
                file = again;
            }
        }
        if one_in(8) {
            cx.nap().await;
        }
        if one_in(400) {
            world(|w| w.tally.panics += 1);
            std::panic::resume_unwind(Box::new("planned"));
        }
    }
    if one_in(2) {
        let _ = attempt(&cx, file.close()).await;
    }
}

async fn reserve(id: usize, file: &File, cx: &Shared<'_, '_>) {
    let (at, len) = (index(LEN_MAX), 1 + index(LEN_MAX));
    let end = at + len;
    world(|w| w.files[id].reach(end));
    let done = attempt(cx, file.allocate(at as u64, len as u64)).await;
    if done.is_ok() {
        world(|w| w.files[id].len_min = w.files[id].len_min.max(end));
    }
}

/// Reads every file as it is now.
pub(crate) fn judge_all() -> Result<(), String> {
    world(|w| {
        for record in &w.files {
            let found = std::fs::read(&record.path);
            let Ok(bytes) = found else {
                if record.made {
                    return Err(format!("{} is not there", record.path.display()));
                }
                continue;
            };
            if let Some(wrong) = record.judge(0, &bytes, usize::MAX) {
                return Err(wrong);
            }
        }
        Ok(())
    })
}
