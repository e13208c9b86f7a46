//! The frame, little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic `TBF1` |
//! | 4..6 | version of the payload |
//! | 6..8 | kind |
//! | 8..12 | payload length |
//! | 12..20 | sequence number, without gaps over the segments of a run |
//! | 20..28 | monotonic ns |
//! | 28..28+n | payload |
//! | 28+n.. | CRC32C of everything before it |
//!
//! A segment begins with a frame of kind [`KIND_SEGMENT`] (number u32, SHA-256 of the segment before)
//! and, once sealed, ends with one of kind [`KIND_SEAL`]. Zero bytes after the last frame are space
//! that was reserved and not yet used.

/// Bytes before the payload.
pub const HEADER_LEN: usize = 28;
/// Largest payload; a larger length in a file is damage, not a request for memory.
pub const FRAME_MAX: usize = 16 << 20;
/// First frame of a segment.
pub const KIND_SEGMENT: u16 = 0xFFF0;
/// Last frame of a sealed segment.
pub const KIND_SEAL: u16 = 0xFFF1;

const MAGIC: [u8; 4] = *b"TBF1";
const CRC_LEN: usize = 4;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Kind, given by the owner of the log.
    pub kind: u16,
    /// Version of the payload.
    pub version: u16,
    /// Sequence number.
    pub seq: u64,
    /// Monotonic instant, ns.
    pub mono_ns: u64,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The bytes of the frame. `None` when the payload is larger than [`FRAME_MAX`].
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let length = u32::try_from(self.payload.len()).ok().filter(|&n| n as usize <= FRAME_MAX)?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len() + CRC_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.kind.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.mono_ns.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        Some(bytes)
    }

    /// Reads the frame at the start of `bytes` and its length.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, usize), Broken> {
        if bytes.len() >= MAGIC.len() && bytes[..MAGIC.len()] != MAGIC {
            return Err(Broken::Magic);
        }
        if bytes.len() < HEADER_LEN {
            return Err(Broken::Short);
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u64_at = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of the header"))
        };
        let length =
            u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes of the header")) as usize;
        if length > FRAME_MAX {
            return Err(Broken::Length);
        }
        let end = HEADER_LEN + length;
        let Some(crc) = bytes.get(end..end + CRC_LEN) else { return Err(Broken::Short) };
        if crc32c::crc32c(&bytes[..end]).to_le_bytes() != crc {
            return Err(Broken::Crc);
        }
        let frame = Self {
            kind: u16_at(6),
            version: u16_at(4),
            seq: u64_at(12),
            mono_ns: u64_at(20),
            payload: bytes[HEADER_LEN..end].to_vec(),
        };
        Ok((frame, end + CRC_LEN))
    }

    /// Offset of the next place in `bytes` that looks like a frame.
    pub(super) fn find(bytes: &[u8]) -> Option<usize> {
        bytes.windows(4).position(|window| window == MAGIC)
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Short,
    Magic,
    Length,
    Crc,
}
