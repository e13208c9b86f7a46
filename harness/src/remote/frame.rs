//! What the two processes say to each other, as bytes on a stream, little endian: a length (u32) of what follows, a kind
//! (u8), and the fields.
//!
//! | kind | fields |
//! |---|---|
//! | 1 hello | magic u64, version u32, agents u32, first u32 |
//! | 2 asked | key u64, delay u64, notice |
//! | 3 answer | key u64, held u64, message |
//! | 4 ended | notice |
//! | 5 ping | number u64 |
//! | 6 pong | number u64 |
//!
//! Notice and message are those of [`carry`] and [`wire`], which refuse what they would not write; so is this: every
//! frame has one encoding. Its length is looked at against a bound before anything is reserved.

use crate::protocol::elicitation::wire::{self, Bounds, WireError};
use crate::protocol::elicitation::{Message, Notice, carry};

/// "tailbeam", read as a little-endian word.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"tailbeam");
/// Of this format.
pub(super) const VERSION: u32 = 1;

const HELLO: u8 = 1;
const ASKED: u8 = 2;
const ANSWER: u8 = 3;
const ENDED: u8 = 4;
const PING: u8 = 5;
const PONG: u8 = 6;
/// Bytes of a frame beside its notice or message, at most.
const HEAD_MAX: usize = 32;
/// Bytes of a notice beside its contents, at most.
const NOTICE_MAX: usize = 128;

/// What one side tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Who lives there: each side says it first.
    Hello(Hello),
    /// An agent is asked. `key` is the asker's; the answer is due `delay_ns` after it was taken.
    Asked { key: u64, delay_ns: u64, notice: Notice },
    /// It answers. `held_ns`: from the instant at which it had the notice until it gave the answer to the stream.
    Answer { key: u64, held_ns: u64, message: Message },
    /// An elicitation has ended: nobody waits for the answer.
    Ended(Notice),
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
}

/// What both sides must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Agents of the run.
    pub agents: u32,
    /// From this one on they answer in the second process.
    pub first: u32,
}

/// Why bytes are no frame. A stream that says something wrong cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Its notice or message is none.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No such kind.
    #[error("kind {0} is not known")]
    Kind(u8),
    /// The other side is no Tailbeam, or another version of it.
    #[error("the other side speaks something else")]
    Hello,
    /// Longer than any frame, or shorter than its fields.
    #[error("a frame of {0} bytes")]
    Length(usize),
}

/// Longest frame behind its length, bytes.
fn longest(bounds: &Bounds) -> usize {
    let notice = NOTICE_MAX + bounds.message_max + bounds.schema_max;
    HEAD_MAX + notice.max(bounds.longest())
}

/// Appends a frame.
pub(crate) fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    match frame {
        Frame::Hello(hello) => {
            out.push(HELLO);
            out.extend_from_slice(&MAGIC.to_le_bytes());
            for word in [VERSION, hello.agents, hello.first] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        Frame::Asked { key, delay_ns, notice } => {
            words(out, ASKED, &[*key, *delay_ns]);
            carry::encode(notice, out);
        }
        Frame::Answer { key, held_ns, message } => {
            words(out, ANSWER, &[*key, *held_ns]);
            wire::encode(message, out);
        }
        Frame::Ended(notice) => {
            words(out, ENDED, &[]);
            carry::encode(notice, out);
        }
        Frame::Ping(number) => words(out, PING, &[*number]),
        Frame::Pong(number) => words(out, PONG, &[*number]),
    }
    let length = u32::try_from(out.len() - at - 4).expect("contents are bounded far below 4 GiB");
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn words(out: &mut Vec<u8>, kind: u8, words: &[u64]) {
    out.push(kind);
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

/// The front of a frame's fields.
fn word(bytes: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let (word, rest) = bytes.split_first_chunk().ok_or(FrameError::Length(bytes.len()))?;
    Ok((u64::from_le_bytes(*word), rest))
}

fn half(bytes: &[u8]) -> Result<(u32, &[u8]), FrameError> {
    let (word, rest) = bytes.split_first_chunk().ok_or(FrameError::Length(bytes.len()))?;
    Ok((u32::from_le_bytes(*word), rest))
}

fn last(bytes: &[u8]) -> Result<u64, FrameError> {
    let (number, rest) = word(bytes)?;
    if rest.is_empty() { Ok(number) } else { Err(FrameError::Length(bytes.len())) }
}

fn hello(bytes: &[u8]) -> Result<Frame, FrameError> {
    let (magic, rest) = word(bytes)?;
    let (version, rest) = half(rest)?;
    let (agents, rest) = half(rest)?;
    let (first, rest) = half(rest)?;
    match (magic, version, rest.is_empty()) {
        (MAGIC, VERSION, true) => Ok(Frame::Hello(Hello { agents, first })),
        _ => Err(FrameError::Hello),
    }
}

/// Reads one frame; all of `bytes`, which follow its length, is it.
fn decode(bytes: &[u8], bounds: &Bounds) -> Result<Frame, FrameError> {
    let (&kind, fields) = bytes.split_first().ok_or(FrameError::Length(0))?;
    Ok(match kind {
        HELLO => hello(fields)?,
        ASKED => {
            let (key, rest) = word(fields)?;
            let (delay_ns, rest) = word(rest)?;
            Frame::Asked { key, delay_ns, notice: carry::decode(rest, bounds)? }
        }
        ANSWER => {
            let (key, rest) = word(fields)?;
            let (held_ns, rest) = word(rest)?;
            Frame::Answer { key, held_ns, message: wire::decode(rest, bounds)? }
        }
        ENDED => Frame::Ended(carry::decode(fields, bounds)?),
        PING => Frame::Ping(last(fields)?),
        PONG => Frame::Pong(last(fields)?),
        other => return Err(FrameError::Kind(other)),
    })
}

/// Bytes of a stream that are not whole frames yet; never more than the longest frame and one receive.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    at: usize,
    bounds: Bounds,
}

impl Reader {
    /// What came.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        // What was read goes before more comes, so that each byte is moved once per receive at most.
        self.bytes.drain(..std::mem::take(&mut self.at));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` while more must come.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.bytes[self.at..];
        let Some((head, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > longest(&self.bounds) {
            return Err(FrameError::Length(length));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let frame = decode(bytes, &self.bounds)?;
        self.at += 4 + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::elicitation::{Id, KeyRing, Nonce, RunSecret, Say, Signer, State};

    fn frames() -> Vec<Frame> {
        let id = Id::new(1, 7, 99);
        let signer = Signer::new(3, &KeyRing::new(&RunSecret::new([1; 32]), 1));
        let data: Arc<[u8]> = Arc::from(&b"{}"[..]);
        let notice = Notice::Asked {
            to: 3,
            from: 1,
            id,
            challenge: Nonce([9; 32]),
            expires_ns: 5,
            message: Arc::from(vec![b'x'; 20_000]),
            schema: Arc::clone(&data),
        };
        let ended = Notice::Settled { to: 3, id, state: State::Cancelled, data: None };
        let message = signer.respond(id, Nonce([9; 32]), 4, Say::Accept(data));
        vec![
            Frame::Hello(Hello { agents: 10, first: 5 }),
            Frame::Asked { key: 1, delay_ns: 2, notice },
            Frame::Answer { key: 1, held_ns: 3, message },
            Frame::Ended(ended),
            Frame::Ping(8),
            Frame::Pong(u64::MAX),
        ]
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let frames = frames();
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| encode(frame, &mut bytes));
        for piece in [1, 3, 100, bytes.len()] {
            let mut reader = Reader::default();
            let mut read = Vec::new();
            for part in bytes.chunks(piece) {
                reader.add(part);
                while let Some(frame) = reader.next().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames, "in pieces of {piece}");
        }
    }

    #[test]
    fn every_cut_and_every_wrong_byte_of_a_head_is_refused_or_waits() {
        for frame in frames() {
            let mut bytes = Vec::new();
            encode(&frame, &mut bytes);
            let body = bytes.len() - 4;
            for cut in 0..body.min(80) {
                assert!(decode(&bytes[4..4 + cut], &Bounds::default()).is_err(), "{frame:?} {cut}");
            }
            let mut more = bytes[4..].to_vec();
            more.push(0);
            assert!(decode(&more, &Bounds::default()).is_err(), "{frame:?} and a byte more");
            let mut other = bytes[4..].to_vec();
            other[0] = 77;
            assert_eq!(decode(&other, &Bounds::default()), Err(FrameError::Kind(77)));
        }
        let mut reader = Reader::default();
        reader.add(&u32::MAX.to_le_bytes());
        assert_eq!(reader.next(), Err(FrameError::Length(u32::MAX as usize)));
    }

    #[test]
    fn another_version_is_no_hello() {
        let mut bytes = Vec::new();
        encode(&Frame::Hello(Hello { agents: 1, first: 0 }), &mut bytes);
        bytes[4 + 1 + 8] ^= 2;
        assert_eq!(decode(&bytes[4..], &Bounds::default()), Err(FrameError::Hello));
    }
}
