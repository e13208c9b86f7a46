//! A segment, little endian; records begin at multiples of 8:
//!
//! | bytes | header (64 bytes) | | bytes | record |
//! |---|---|---|---|---|
//! | 0..4 | magic `TBEL` | | 0..4 | checksum of what follows, padding included |
//! | 4..6 | version | | 4..8 | payload length n |
//! | 6..8 | 0 | | 8..16 | sequence number, one more than that of the record before |
//! | 8..12 | segment number | | 16..24 | all below this number was durable when this was written |
//! | 12..16 | 0 | | 24..26 | kind |
//! | 16..24 | first sequence number | | 26..28 | version of the payload |
//! | 24..32 | monotonic ns | | 28..32 | magic `TBR1` |
//! | 32..40 | wall clock, ns since 1970 | | 32..32+n | payload |
//! | 40..60 | 0 | | ..8k | zeros |
//! | 60..64 | checksum of bytes 0..60 | | | |
//!
//! A header whose first sequence number was used by the segment before says: that one was given up after
//! an error, and what it holds from there on was written again here. Zeros to the end are room not used.
//!
//! The checksum is CRC32C that begins with the log's key and the segment's number. Payloads are written
//! by agents: one that holds the bytes of a record must not become a record when the one around it is
//! damaged, nor may a record of another log or another place. The frames of `probes::record` have no such
//! key, because nobody else writes their payloads; they are also written one by one, and these in batches.

/// Bytes of a segment's header.
pub const HEADER_LEN: usize = 64;
/// Bytes of a record before its payload.
pub const RECORD_LEN: usize = 32;
/// Version of the format.
pub const VERSION: u16 = 1;

const SEGMENT_MAGIC: [u8; 4] = *b"TBEL";
const RECORD_MAGIC: [u8; 4] = *b"TBR1";

/// What the checksums of a log begin with. It is no signature: whoever can write the files can have it
/// from the run's secret only, but 32 bits can be guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogKey(pub [u8; 16]);

impl std::fmt::Debug for LogKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogKey")
    }
}

impl LogKey {
    /// The start of the checksums of a segment.
    #[must_use]
    pub fn salt(self, segment: u32) -> Salt {
        Salt(crc32c::crc32c_append(crc32c::crc32c(&self.0), &segment.to_le_bytes()))
    }
}

/// The start of a segment's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(u32);

impl Salt {
    fn sum(self, bytes: &[u8]) -> [u8; 4] {
        crc32c::crc32c_append(self.0, bytes).to_le_bytes()
    }
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number; also the file's name.
    pub segment: u32,
    /// Sequence number of its first record.
    pub first_seq: u64,
    /// Monotonic clock when it was begun, ns.
    pub mono_ns: u64,
    /// Wall clock at the same time, ns since 1970.
    pub real_ns: u64,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self, key: LogKey) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&SEGMENT_MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.mono_ns.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.real_ns.to_le_bytes());
        let sum = key.salt(self.segment).sum(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum);
        bytes
    }

    /// Reads the header of segment `number`; none when it is not that segment's of this log.
    #[must_use]
    pub fn decode(bytes: &[u8], number: u32, key: LogKey) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let right = bytes[60..] == key.salt(number).sum(&bytes[..60]);
        let known = bytes[0..4] == SEGMENT_MAGIC && bytes[4..6] == VERSION.to_le_bytes();
        if !right || !known || bytes[8..12] != number.to_le_bytes() {
            return None;
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (first_seq, mono_ns, real_ns) = (u64_at(16), u64_at(24), u64_at(32));
        Some(Self { segment: number, first_seq, mono_ns, real_ns })
    }
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Sequence number.
    pub seq: u64,
    /// All below this was durable when it was written.
    pub durable: u64,
    /// Kind, given by the owner of the log.
    pub kind: u16,
    /// Version of the payload.
    pub version: u16,
    /// Payload.
    pub payload: &'a [u8],
}

/// Bytes of a record with a payload of `len`, padding included.
#[must_use]
pub const fn record_len(len: usize) -> usize {
    (RECORD_LEN + len).next_multiple_of(8)
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its header is all zeros: the end, if all that follows is.
    Zeros,
    /// It ends behind the segment.
    Short,
    /// No record begins like this.
    Magic,
    /// The checksum is another.
    Sum,
}

impl<'a> Record<'a> {
    /// Appends it.
    ///
    /// # Panics
    /// With a payload of 4 GiB or more; the log's bound is far below.
    pub fn encode(&self, salt: Salt, out: &mut Vec<u8>) {
        let at = out.len();
        let len = u32::try_from(self.payload.len()).expect("bounded far below 4 GiB");
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.durable.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&RECORD_MAGIC);
        out.extend_from_slice(self.payload);
        out.resize(at + record_len(self.payload.len()), 0);
        let sum = salt.sum(&out[at + 4..]);
        out[at..at + 4].copy_from_slice(&sum);
    }

    /// Reads the record at the start of `bytes`, and its length with padding.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn decode(bytes: &'a [u8], salt: Salt) -> Result<(Self, usize), Broken> {
        Self::read(bytes, Some(salt))
    }

    /// The same; without a salt whatever has the form of a record is one. For a reader that is to be found out.
    pub(super) fn read(bytes: &'a [u8], salt: Option<Salt>) -> Result<(Self, usize), Broken> {
        let Some(header) = bytes.first_chunk::<RECORD_LEN>() else {
            return Err(if bytes.iter().all(|&byte| byte == 0) {
                Broken::Zeros
            } else {
                Broken::Short
            });
        };
        if header[28..] != RECORD_MAGIC {
            return Err(if header == &[0; RECORD_LEN] { Broken::Zeros } else { Broken::Magic });
        }
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u64_at =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let len = u32::from_le_bytes(header[4..8].try_into().expect("4 bytes")) as usize;
        let whole = record_len(len);
        let Some(record) = bytes.get(..whole) else { return Err(Broken::Short) };
        if salt.is_some_and(|salt| record[..4] != salt.sum(&record[4..])) {
            return Err(Broken::Sum);
        }
        let payload = &record[RECORD_LEN..RECORD_LEN + len];
        let (seq, durable, kind, version) = (u64_at(8), u64_at(16), u16_at(24), u16_at(26));
        Ok((Self { seq, durable, kind, version, payload }, whole))
    }
}

/// Name of a segment's file.
#[must_use]
pub fn file_name(segment: u32) -> String {
    format!("{segment:08}.tbl")
}

/// The segment that a file name is of.
#[must_use]
pub fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".tbl").filter(|digits| digits.len() == 8)?;
    digits.parse().ok().filter(|&number| file_name(number) == name)
}
