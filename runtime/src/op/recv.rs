//! Receiving: one standing operation per stream that fills buffers of the shard's pool.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::{Body, Key, Lease, Op, Ops, Payload};
use crate::error::OpError;

/// The receiving side of a stream; cancels its standing operation when dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    ops: Rc<Ops>,
    key: Cell<Option<Key>>,
    /// A future waits.
    taken: Cell<bool>,
}

impl Receiver {
    pub(crate) const fn new(ops: Rc<Ops>) -> Self {
        Self { ops, key: Cell::new(None), taken: Cell::new(false) }
    }

    /// Waits for the next bytes of `file`.
    pub(crate) const fn recv<'a>(&'a self, file: &'a Rc<OwnedFd>) -> Recv<'a> {
        Recv { receiver: self, file, waits: false }
    }

    fn key(&self, file: &Rc<OwnedFd>) -> Result<Key, OpError> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let (op, file) = (Op::Recv { multi: false }, Some(Rc::clone(file)));
        let key = self.ops.open_recv(Body { op, file, payload: Payload::None })?;
        self.key.set(Some(key));
        Ok(key)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(key) = self.key.get() {
            self.ops.orphan(key);
        }
    }
}

/// Future of a `recv`: the next bytes, `None` at the end of the stream. Dropping it loses nothing.
#[must_use = "a receive does nothing until awaited"]
#[derive(Debug)]
pub struct Recv<'a> {
    receiver: &'a Receiver,
    file: &'a Rc<OwnedFd>,
    waits: bool,
}

impl Future for Recv<'_> {
    type Output = Result<Option<Lease>, OpError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let receiver = self.receiver;
        if receiver.ops.is_closed() {
            return Poll::Ready(Err(OpError::Closed));
        }
        if receiver.taken.get() && !self.waits {
            return Poll::Ready(Err(OpError::Busy));
        }
        let key = receiver.key(self.file)?;
        // Now, for the waker's clone may come here, or panic.
        receiver.taken.set(true);
        self.waits = true;
        let polled = receiver.ops.poll_recv(key, cx);
        self.waits = polled.is_pending();
        receiver.taken.set(self.waits);
        polled.map(|received| match received {
            Ok(lease) => Ok(Some(lease)),
            Err(0) => Ok(None),
            Err(errno) => Err(OpError::errno(errno)),
        })
    }
}

impl Drop for Recv<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.receiver.taken.set(false);
        }
    }
}
