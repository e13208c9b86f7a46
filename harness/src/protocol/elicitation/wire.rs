//! Messages as bytes, little endian; `n` bytes of content are preceded by their number in a u32:
//!
//! | kind | fields after version (u8) and kind (u8) |
//! |---|---|
//! | 1 create | from u32, to u32, nonce 32, created u64, timeout u64, message n, schema n, signature 32 |
//! | 2 accept | id 16, by u32, challenge 32, at u64, data n, signature 32 |
//! | 3 decline | id 16, by u32, challenge 32, at u64, signature 32 |
//! | 4 cancel | id 16, by u32, at u64, signature 32 |
//! | 5 pending | by u32, 0 or (1, id 16) |
//! | 6 status | by u32, id 16 |
//!
//! Every message has exactly one encoding and every encoding is one message: decoding refuses what it
//! would not write. It reads a length only against what is there and a bound, so no input makes it reserve
//! more than the input's own size. On a stream, a message follows its length in a u32.

use std::sync::Arc;

use super::auth::Tag;
use super::message::{Cancel, Create, Id, Message, Nonce, Respond, Say};

/// Version of the format. Never 0.
pub const VERSION: u8 = 1;

const CREATE: u8 = 1;
const ACCEPT: u8 = 2;
const DECLINE: u8 = 3;
const CANCEL: u8 = 4;
const PENDING: u8 = 5;
const STATUS: u8 = 6;

/// Bytes of a message beside its contents, at most.
const FIXED_MAX: usize = 128;

/// Bounds of the contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Text of a request, bytes.
    pub message_max: usize,
    /// Schema of a request, bytes.
    pub schema_max: usize,
    /// Data of an answer, bytes.
    pub data_max: usize,
}

impl Default for Bounds {
    /// 1 MiB of text or data, 64 KiB of schema.
    fn default() -> Self {
        Self { message_max: 1 << 20, schema_max: 64 << 10, data_max: 1 << 20 }
    }
}

impl Bounds {
    /// Longest message, bytes.
    #[must_use]
    pub const fn longest(&self) -> usize {
        let create = self.message_max + self.schema_max;
        FIXED_MAX + if create > self.data_max { create } else { self.data_max }
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It ends too early.
    #[error("{need} more bytes belong at byte {at}")]
    Truncated {
        /// Where.
        at: usize,
        /// How many are missing.
        need: usize,
    },
    /// Something follows its end.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
    /// Another version of the format.
    #[error("version {0} is not known")]
    Version(u8),
    /// No such kind.
    #[error("kind {0} is not known")]
    Kind(u8),
    /// A content or a message is longer than its bound.
    #[error("{len} bytes where {max} are the most")]
    TooLong {
        /// Its length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// A field has a value that is never written.
    #[error("byte {at} holds a value that is never written")]
    Value {
        /// Where.
        at: usize,
    },
}

/// Where bytes go: a message, or a signature over it.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn content(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("contents are bounded far below 4 GiB");
        self.put(&length.to_le_bytes());
        self.put(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Everything of a request that is signed.
pub(super) fn create_body(create: &Create, sink: &mut impl Sink) {
    sink.put(&[VERSION, CREATE]);
    sink.put(&create.from.to_le_bytes());
    sink.put(&create.to.to_le_bytes());
    sink.put(&create.nonce.0);
    sink.put(&create.created_ns.to_le_bytes());
    sink.put(&create.timeout_ns.to_le_bytes());
    sink.content(&create.message);
    sink.content(&create.schema);
}

/// Everything of an answer that is signed.
pub(super) fn respond_body(respond: &Respond, sink: &mut impl Sink) {
    let kind = if matches!(respond.say, Say::Accept(_)) { ACCEPT } else { DECLINE };
    sink.put(&[VERSION, kind]);
    sink.put(&respond.id.to_bytes());
    sink.put(&respond.by.to_le_bytes());
    sink.put(&respond.challenge.0);
    sink.put(&respond.at_ns.to_le_bytes());
    if let Say::Accept(data) = &respond.say {
        sink.content(data);
    }
}

/// Everything of a withdrawal that is signed.
pub(super) fn cancel_body(cancel: &Cancel, sink: &mut impl Sink) {
    sink.put(&[VERSION, CANCEL]);
    sink.put(&cancel.id.to_bytes());
    sink.put(&cancel.by.to_le_bytes());
    sink.put(&cancel.at_ns.to_le_bytes());
}

/// Appends a message.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Create(create) => {
            create_body(create, out);
            out.put(&create.tag.0);
        }
        Message::Respond(respond) => {
            respond_body(respond, out);
            out.put(&respond.tag.0);
        }
        Message::Cancel(cancel) => {
            cancel_body(cancel, out);
            out.put(&cancel.tag.0);
        }
        Message::Pending { by, after } => {
            out.put(&[VERSION, PENDING]);
            out.put(&by.to_le_bytes());
            out.put(&[u8::from(after.is_some())]);
            if let Some(id) = after {
                out.put(&id.to_bytes());
            }
        }
        Message::Status { by, id } => {
            out.put(&[VERSION, STATUS]);
            out.put(&by.to_le_bytes());
            out.put(&id.to_bytes());
        }
    }
}

/// Reads one message; all of `bytes` is it.
///
/// # Errors
/// [`WireError`]; whatever the bytes are, nothing else happens.
pub fn decode(bytes: &[u8], bounds: &Bounds) -> Result<Message, WireError> {
    let max = bounds.longest();
    if bytes.len() > max {
        return Err(WireError::TooLong { len: bytes.len(), max });
    }
    let mut from = Fields { bytes, at: 0 };
    match from.byte()? {
        VERSION => {}
        other => return Err(WireError::Version(other)),
    }
    let message = match from.byte()? {
        CREATE => Message::Create(from.create(bounds)?),
        kind @ (ACCEPT | DECLINE) => Message::Respond(from.respond(kind == ACCEPT, bounds)?),
        CANCEL => Message::Cancel(Cancel {
            id: from.id()?,
            by: from.u32()?,
            at_ns: from.u64()?,
            tag: Tag(from.array()?),
        }),
        PENDING => Message::Pending { by: from.u32()?, after: from.maybe_id()? },
        STATUS => Message::Status { by: from.u32()?, id: from.id()? },
        other => return Err(WireError::Kind(other)),
    };
    from.end()?;
    Ok(message)
}

/// Appends a message behind its length, for a stream.
pub fn frame(message: &Message, out: &mut Vec<u8>) {
    let at = out.len();
    out.put(&[0; 4]);
    encode(message, out);
    let length = u32::try_from(out.len() - at - 4).expect("bounded far below 4 GiB");
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// The first message of a stream's bytes and how many bytes it took; `None` while more must come.
///
/// # Errors
/// [`WireError`]; a stream that says something wrong cannot be read on.
pub fn deframe(bytes: &[u8], bounds: &Bounds) -> Result<Option<(Message, usize)>, WireError> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let (len, max) = (u32::from_le_bytes(*head) as usize, bounds.longest());
    if len > max {
        return Err(WireError::TooLong { len, max });
    }
    match rest.get(..len) {
        None => Ok(None),
        Some(message) => Ok(Some((decode(message, bounds)?, 4 + len))),
    }
}

/// What holds for any bytes, also from a fuzzer: they are no message, or exactly one whose encoding they are.
///
/// # Panics
/// When that does not hold.
pub fn check_wire(bytes: &[u8]) {
    let bounds = Bounds::default();
    if let Ok(message) = decode(bytes, &bounds) {
        let mut again = Vec::new();
        encode(&message, &mut again);
        assert_eq!(again, bytes, "{message:?} has another encoding");
    }
    if let Ok(Some((_, took))) = deframe(bytes, &bounds) {
        assert!(took <= bytes.len());
    }
}

/// Bytes that are read from the front. Also reads the log's records.
pub(super) struct Fields<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let rest = &self.bytes[self.at..];
        let taken = rest
            .get(..len)
            .ok_or(WireError::Truncated { at: self.at, need: len - rest.len().min(len) })?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N).map(|bytes| bytes.try_into().expect("N bytes were taken"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn id(&mut self) -> Result<Id, WireError> {
        self.array().map(Id::from_bytes)
    }

    fn maybe_id(&mut self) -> Result<Option<Id>, WireError> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.id().map(Some),
            _ => Err(WireError::Value { at: self.at - 1 }),
        }
    }

    pub(super) fn content(&mut self, max: usize) -> Result<Arc<[u8]>, WireError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(WireError::TooLong { len, max });
        }
        self.take(len).map(Arc::from)
    }

    fn create(&mut self, bounds: &Bounds) -> Result<Create, WireError> {
        Ok(Create {
            from: self.u32()?,
            to: self.u32()?,
            nonce: Nonce(self.array()?),
            created_ns: self.u64()?,
            timeout_ns: self.u64()?,
            message: self.content(bounds.message_max)?,
            schema: self.content(bounds.schema_max)?,
            tag: Tag(self.array()?),
        })
    }

    fn respond(&mut self, accept: bool, bounds: &Bounds) -> Result<Respond, WireError> {
        Ok(Respond {
            id: self.id()?,
            by: self.u32()?,
            challenge: Nonce(self.array()?),
            at_ns: self.u64()?,
            say: if accept { Say::Accept(self.content(bounds.data_max)?) } else { Say::Decline },
            tag: Tag(self.array()?),
        })
    }

    pub(super) fn end(&self) -> Result<(), WireError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            rest => Err(WireError::Trailing(rest)),
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
