//! Kernel operations as values. A future puts one into the outbox of its shard's table; the shard's loop
//! hands the outbox to the ring once per pass and completions back to the table, which wakes who waits.
//!
//! - What the kernel may touch (buffer, path, address, descriptor) lies in the operation's slot, never in a
//!   future, and stays there until the last completion. A future that is dropped leaves an orphan behind:
//!   its slot asks for cancellation and is freed when the kernel has said its last word.
//! - An [`Op`] says nothing about how a kernel is asked: only `ring/` makes a submission entry of it.
//! - Every table is bounded by [`Config`](crate::Config). Full is an outcome that gives the buffer back.
//!
//! One file per operation or family: the future that waits for it and what its results mean.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod file;
pub(crate) mod once;
pub(crate) mod open;
mod ops;
mod payload;
mod pool;
pub(crate) mod recv;
pub(crate) mod send;
mod slots;
pub(crate) mod sync;
mod table;

pub(crate) use ops::{Ops, REAP_WAIT_NS};
pub(crate) use payload::Payload;
pub use payload::SendBuf;
pub use pool::Lease;
pub(crate) use pool::Pool;
pub(crate) use table::Table;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::net::address::Address;

/// What the kernel is asked to do.
#[derive(Debug)]
pub(crate) enum Op {
    /// Takes connections from a listener: one, or all that come until cancelled.
    Accept { multi: bool },
    /// Connects a socket.
    Connect { address: Box<Address> },
    /// Receives: once into the payload, or into lent buffers until cancelled.
    Recv { multi: bool },
    /// Sends `len` bytes of the payload from byte `from`.
    Send { from: usize, len: u32, zero_copy: bool },
    /// Reads from byte `at` of a file into the payload from byte `from`.
    Read { at: u64, from: usize, len: u32 },
    /// Writes `len` bytes of the payload from byte `from` to byte `at` of a file.
    Write { at: u64, from: usize, len: u32 },
    /// Makes a file's data durable, and its metadata unless `data_only`.
    Fsync { data_only: bool },
    /// Reserves room in a file.
    Fallocate { at: u64, len: u64 },
    /// Opens a file; `flags` and `mode` as open(2) has them.
    OpenAt { path: CString, flags: i32, mode: u32 },
    /// Closes a descriptor that nobody else uses.
    Close { file: OwnedFd },
}

impl Op {
    /// Whether a success is a new descriptor.
    pub(crate) const fn makes_file(&self) -> bool {
        matches!(self, Self::Accept { .. } | Self::OpenAt { .. })
    }
}

/// An operation and all that it uses.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) op: Op,
    /// Kept open until the last completion.
    pub(crate) file: Option<Rc<OwnedFd>>,
    pub(crate) payload: Payload,
}

/// Names a slot's present use; its bits travel with the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

/// Uses of a slot that its keys tell apart.
const GENERATION_MASK: u32 = (1 << 29) - 1;

impl Key {
    /// Of its slot, below [`Config::ops_max`](crate::Config::ops_max).
    pub(crate) const fn index(self) -> usize {
        self.index as usize
    }

    /// 61 bits.
    pub(crate) const fn bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the fields are cut out of the word")]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 & GENERATION_MASK }
    }
}

/// What the kernel says about an operation.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) key: Key,
    /// As the kernel has it: a count, or a negated errno.
    pub(crate) result: i32,
    /// Another completion of the same operation follows.
    pub(crate) more: bool,
    /// Only says that the kernel no longer reads the buffer.
    pub(crate) notification: bool,
    /// The lent buffer that was filled.
    pub(crate) buffer: Option<u16>,
    /// The descriptor that was made.
    pub(crate) made: Option<OwnedFd>,
}

/// An operation about to be given to a ring. Only [`Table`] makes one, and it keeps the body where it is,
/// and everything that the body owns, until the completion without `more`.
pub(crate) struct Flight<'a> {
    key: Key,
    body: &'a mut Body,
}

impl Flight<'_> {
    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    pub(crate) const fn body(&mut self) -> &mut Body {
        self.body
    }
}

/// What a ring can do beyond the plain operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// One accept for many connections (5.19).
    pub(crate) multishot_accept: bool,
    /// One receive for all data, into buffers that the kernel takes from a ring (5.19, 6.0).
    pub(crate) multishot_recv: bool,
    /// Sends without a copy (6.0).
    pub(crate) send_zc: bool,
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
