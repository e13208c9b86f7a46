//! Reads segments back. A torn tail, a flipped bit or a lost page is data about the log, never a panic:
//! each damage has its place, its length and the sequence numbers that are missing because of it.

use std::fs;
use std::io;
use std::path::Path;

use super::format::{Broken, HEADER_LEN, Header, LogKey, Record, Salt, number_of};

/// A record at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// Segment.
    pub segment: u32,
    /// Byte offset.
    pub offset: u64,
    /// The record.
    pub record: Record<'a>,
}

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The header is not that segment's of this log. Its records are read all the same: they have
    /// checksums of their own.
    Header,
    /// Bytes between two records, or to the end of a segment that another follows, are no record.
    BadRecord,
    /// Bytes at the end of the last segment are no record: it was being written. They are cut.
    TornTail,
    /// A record that was read before comes again; it is not given again.
    Duplicate,
    /// Records are missing and nothing is there in their place.
    Gap,
}

/// Damage at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Segment.
    pub segment: u32,
    /// Byte offset.
    pub offset: u64,
    /// Bytes that were set aside.
    pub bytes: u64,
    /// Kind.
    pub kind: DamageKind,
    /// Missing sequence numbers, from the first to below the second; none are known to be missing at a
    /// tail, where nothing says how many there were.
    pub missing: Option<(u64, u64)>,
    /// Whether what is missing had been said to be durable: a later record tells. Without durability
    /// nothing was.
    pub acknowledged: bool,
}

impl Damage {
    /// Whether it is what a write leaves that was cut off, by a death or by an error: nobody was told of what is there, and
    /// nothing is missing behind it.
    #[must_use]
    pub const fn is_cut_off(&self) -> bool {
        matches!(self.kind, DamageKind::TornTail | DamageKind::BadRecord)
            && self.missing.is_none()
            && !self.acknowledged
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { segment, offset, bytes, kind, .. } = self;
        write!(f, "{kind:?} in segment {segment} at byte {offset}, {bytes} bytes set aside")?;
        if let Some((from, to)) = self.missing {
            let what = if self.acknowledged { "acknowledged" } else { "not acknowledged" };
            write!(f, "; events {from}..{to} are missing ({what})")?;
        }
        Ok(())
    }
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Records given.
    pub records: u64,
    /// Sequence number that follows the last record.
    pub next_seq: u64,
    /// Number of a new segment.
    pub next_segment: u32,
    /// Where the last segment's records end.
    pub tail: Option<(u32, u64)>,
    /// Damage, in the order of the files.
    pub damage: Vec<Damage>,
}

/// Reads the segments of a log one after the other.
#[derive(Debug)]
pub struct Scanner {
    key: LogKey,
    /// Records below this are not wanted: a snapshot holds them.
    from: u64,
    /// Sequence number that must come next; any at first.
    expected: Option<u64>,
    /// The highest durable number that any record names.
    durable: u64,
    /// Records are not held against their sums.
    blind: bool,
    found: Recovered,
}

/// A segment to read.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Number.
    pub number: u32,
    /// All its bytes.
    pub bytes: &'a [u8],
    /// First sequence number of the segment that follows, if there is one whose header can be read:
    /// records from there on were written again in it.
    pub next_first: Option<u64>,
    /// Whether none follows.
    pub last: bool,
}

impl Scanner {
    /// A scanner of a log with this key, from sequence number `from` on if a snapshot holds what is below.
    #[must_use]
    pub fn new(key: LogKey, from: Option<u64>) -> Self {
        let found = Recovered::default();
        Self { key, from: from.unwrap_or(0), expected: from, durable: 0, blind: false, found }
    }

    /// A reader without its defence against damage, to see that it is found out.
    #[must_use]
    pub(crate) fn blind(self) -> Self {
        Self { blind: true, ..self }
    }

    fn damage(&mut self, segment: u32, (from, to): (usize, usize), kind: DamageKind) {
        let (offset, bytes) = (from as u64, (to - from) as u64);
        let (missing, acknowledged) = (None, false);
        self.found.damage.push(Damage { segment, offset, bytes, kind, missing, acknowledged });
    }

    /// Reads one segment; gives each record to `take`.
    pub fn segment(&mut self, segment: Segment<'_>, mut take: impl FnMut(Found<'_>)) {
        let Segment { number, bytes, next_first, last } = segment;
        let salt = Some(self.key.salt(number)).filter(|_| !self.blind);
        let mut at = HEADER_LEN.min(bytes.len());
        if number == 0 {
            // A log begins with number 0 in segment 0, also when that header is lost.
            self.expected = self.expected.or(Some(0));
        }
        match Header::decode(bytes, number, self.key) {
            Some(header) => self.begins(number, header.first_seq),
            // Prepared and never begun: its numbers, if it had any, are missed by what follows.
            None if bytes.iter().all(|&byte| byte == 0) => at = bytes.len(),
            None => self.damage(number, (0, at), DamageKind::Header),
        }
        let mut end = at;
        while at < bytes.len() {
            match Record::read(&bytes[at..], salt) {
                Ok((record, len)) => {
                    let found = Found { segment: number, offset: at as u64, record };
                    // Written again in the next segment: read there.
                    if next_first.is_none_or(|next| record.seq < next) {
                        self.record(found, len, &mut take);
                    }
                    at += len;
                    end = at;
                }
                Err(Broken::Zeros) if bytes[at..].iter().all(|&byte| byte == 0) => break,
                Err(_) => {
                    let next = resume(bytes, at, salt);
                    let kind = if last && next.is_none() {
                        DamageKind::TornTail
                    } else {
                        DamageKind::BadRecord
                    };
                    self.damage(number, (at, next.unwrap_or(bytes.len())), kind);
                    let Some(next) = next else { break };
                    at = next;
                }
            }
        }
        self.found.tail = Some((number, end as u64));
        self.found.next_segment = number.saturating_add(1);
    }

    /// A segment says which number it begins with: what the one before lost at its end shows here.
    fn begins(&mut self, segment: u32, first_seq: u64) {
        match self.expected {
            Some(expected) if first_seq > expected => self.gap((segment, 0), (expected, first_seq)),
            _ => {}
        }
        if self.expected.is_none_or(|expected| expected < first_seq) {
            self.expected = Some(first_seq);
        }
    }

    fn record(&mut self, found: Found<'_>, len: usize, take: &mut impl FnMut(Found<'_>)) {
        let seq = found.record.seq;
        let at = usize::try_from(found.offset).expect("an offset of a slice");
        let expected = self.expected.unwrap_or(seq);
        self.durable = self.durable.max(found.record.durable);
        if seq < self.from {
            return;
        }
        if seq < expected {
            self.damage(found.segment, (at, at + len), DamageKind::Duplicate);
            return;
        }
        if seq > expected {
            self.gap((found.segment, at), (expected, seq));
        }
        self.expected = Some(seq + 1);
        self.found.records += 1;
        self.found.next_seq = seq + 1;
        take(found);
    }

    /// Numbers are missing: because of the damage that was just set aside, or of nothing that is seen.
    fn gap(&mut self, (segment, at): (u32, usize), missing: (u64, u64)) {
        let explained = self.found.damage.last().is_some_and(|last| {
            last.missing.is_none()
                && matches!(last.kind, DamageKind::BadRecord | DamageKind::TornTail)
        });
        if !explained {
            self.damage(segment, (at, at), DamageKind::Gap);
        }
        if let Some(last) = self.found.damage.last_mut() {
            last.missing = Some(missing);
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> Recovered {
        for damage in &mut self.found.damage {
            damage.acknowledged = damage.missing.is_some_and(|(from, _)| from < self.durable);
        }
        self.found.next_seq = self.found.next_seq.max(self.expected.unwrap_or(0));
        self.found
    }
}

/// The next record behind `at`. Records lie at multiples of 8, and no other bytes have this segment's sums.
fn resume(bytes: &[u8], at: usize, salt: Option<Salt>) -> Option<usize> {
    let from = at.next_multiple_of(8).max(HEADER_LEN) + if at.is_multiple_of(8) { 8 } else { 0 };
    (from..bytes.len()).step_by(8).find(|&at| Record::read(&bytes[at..], salt).is_ok())
}

/// Reads a log's directory; each record goes to `take` in order. Reads a segment at a time. Not on a core
/// that hosts agents: it waits for the disk.
///
/// # Errors
/// What the kernel says; damaged content is no error.
pub fn recover_dir(
    dir: &Path,
    key: LogKey,
    from: Option<u64>,
    take: impl FnMut(Found<'_>),
) -> io::Result<Recovered> {
    recover_by(Scanner::new(key, from), dir, key, take)
}

/// The same by a reader that has begun nothing yet.
pub(crate) fn recover_by(
    mut scanner: Scanner,
    dir: &Path,
    key: LogKey,
    mut take: impl FnMut(Found<'_>),
) -> io::Result<Recovered> {
    let mut segments: Vec<u32> = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_str().and_then(number_of)))
        .filter_map(io::Result::transpose)
        .collect::<io::Result<_>>()?;
    segments.sort_unstable();
    let path = |number| dir.join(super::format::file_name(number));
    let mut next = segments.first().map(|&first| fs::read(path(first))).transpose()?;
    for (index, &number) in segments.iter().enumerate() {
        let bytes = next.take().unwrap_or_default();
        let follower = segments.get(index + 1).copied();
        next = follower.map(|follower| fs::read(path(follower))).transpose()?;
        let head = follower.zip(next.as_deref());
        let next_first = head
            .and_then(|(follower, bytes)| Header::decode(bytes, follower, key))
            .map(|header| header.first_seq);
        let last = follower.is_none();
        scanner.segment(Segment { number, bytes: &bytes, next_first, last }, &mut take);
    }
    Ok(scanner.finish())
}

/// Takes a segment away that was made ahead and never begun: the last one, if there is not one bit in it. A process that
/// is killed leaves it, and the next one makes its own.
///
/// # Errors
/// What the kernel says.
pub fn remove_prepared(dir: &Path) -> io::Result<()> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
    let numbers = names.map(|name: io::Result<_>| Ok(name?.to_str().and_then(number_of)));
    let last = numbers
        .filter_map(io::Result::transpose)
        .try_fold(None, |last, number| Ok::<_, io::Error>(last.max(Some(number?))))?;
    let Some(path) = last.map(|number| dir.join(super::format::file_name(number))) else {
        return Ok(());
    };
    let mut pieces = io::BufReader::with_capacity(1 << 20, fs::File::open(&path)?);
    loop {
        let piece = io::BufRead::fill_buf(&mut pieces)?;
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(());
        }
        let read = piece.len();
        if read == 0 {
            return fs::remove_file(path);
        }
        io::BufRead::consume(&mut pieces, read);
    }
}

/// What holds for any bytes, also from a fuzzer: reading ends, gives each sequence number at most once and
/// in order, and what it does not give is accounted for.
///
/// # Panics
/// When that does not hold.
pub fn check_scan(bytes: &[u8]) {
    let mut scanner = Scanner::new(LogKey([7; 16]), None);
    let mut last = None;
    let mut given = 0;
    scanner.segment(Segment { number: 0, bytes, next_first: None, last: true }, |found| {
        assert!(last.is_none_or(|last| last < found.record.seq), "in order, once");
        last = Some(found.record.seq);
        given += super::format::record_len(found.record.payload.len()) as u64;
    });
    let found = scanner.finish();
    let aside: u64 = found.damage.iter().map(|damage| damage.bytes).sum();
    let zeros = bytes.len() as u64 - found.tail.map_or(0, |(_, at)| at.min(bytes.len() as u64));
    assert!(aside + given + zeros + HEADER_LEN as u64 >= bytes.len() as u64, "{found:?}");
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
