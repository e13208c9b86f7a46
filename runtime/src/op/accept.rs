//! Accepting: one standing operation per listener.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::{Body, Key, Op, Ops, Payload};
use crate::error::OpError;

/// The accepting side of a listener; cancels its standing operation when dropped.
#[derive(Debug)]
pub(crate) struct Acceptor {
    ops: Rc<Ops>,
    file: Rc<OwnedFd>,
    key: Cell<Option<Key>>,
    /// A future waits.
    taken: Cell<bool>,
}

impl Acceptor {
    pub(crate) const fn new(ops: Rc<Ops>, file: Rc<OwnedFd>) -> Self {
        Self { ops, file, key: Cell::new(None), taken: Cell::new(false) }
    }

    pub(crate) const fn ops(&self) -> &Rc<Ops> {
        &self.ops
    }

    pub(crate) const fn file(&self) -> &Rc<OwnedFd> {
        &self.file
    }

    /// Waits for the next connection.
    pub(crate) const fn accept(&self) -> Accept<'_> {
        Accept { acceptor: self, waits: false }
    }

    fn key(&self) -> Result<Key, OpError> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let (op, file) = (Op::Accept { multi: false }, Some(Rc::clone(&self.file)));
        let key = self.ops.open_accept(Body { op, file, payload: Payload::None })?;
        self.key.set(Some(key));
        Ok(key)
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if let Some(key) = self.key.get() {
            self.ops.orphan(key);
        }
    }
}

/// Waits for one connection. Dropping it loses none.
pub(crate) struct Accept<'a> {
    acceptor: &'a Acceptor,
    waits: bool,
}

impl Future for Accept<'_> {
    type Output = Result<OwnedFd, OpError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let acceptor = self.acceptor;
        if acceptor.ops.is_closed() {
            return Poll::Ready(Err(OpError::Closed));
        }
        if acceptor.taken.get() && !self.waits {
            return Poll::Ready(Err(OpError::Busy));
        }
        let key = acceptor.key()?;
        // Now, for the waker's clone may come here, or panic.
        acceptor.taken.set(true);
        self.waits = true;
        let polled = acceptor.ops.poll_accept(key, cx);
        self.waits = polled.is_pending();
        acceptor.taken.set(self.waits);
        polled.map(|accepted| accepted.map_err(OpError::errno))
    }
}

impl Drop for Accept<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.acceptor.taken.set(false);
        }
    }
}
