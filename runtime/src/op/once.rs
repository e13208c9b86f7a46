//! The future of an operation with one result.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::table::Finished;
use super::{Body, Key, Op, Ops, Payload};
use crate::error::OpError;

/// Waits for an operation; cancels it when dropped.
pub(crate) struct Once<'a> {
    ops: &'a Ops,
    key: Option<Key>,
}

impl<'a> Once<'a> {
    /// Puts the operation into the outbox; gives the payload back when the table is full.
    pub(super) fn start(ops: &'a Ops, body: Body) -> Result<Self, (OpError, Payload)> {
        match ops.start(body) {
            Ok(key) => Ok(Self { ops, key: Some(key) }),
            Err((error, body)) => Err((error, body.payload)),
        }
    }
}

impl Future for Once<'_> {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let key = self.key.expect("not polled after it was ready");
        match self.ops.poll_once(key, cx) {
            Poll::Ready(Some(finished)) => {
                self.key = None;
                Poll::Ready(finished)
            }
            // Without a slot its shard has ended, and nobody polls what lived there.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Once<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.ops.orphan(key);
        }
    }
}

/// Runs an operation without a buffer; its count.
pub(crate) async fn run(ops: &Ops, op: Op, file: Option<Rc<OwnedFd>>) -> Result<usize, OpError> {
    let finished = finish(ops, op, file).await?;
    OpError::check(finished.result)
}

/// Runs an operation that makes a descriptor.
pub(crate) async fn make(ops: &Ops, op: Op, file: Option<Rc<OwnedFd>>) -> Result<OwnedFd, OpError> {
    let finished = finish(ops, op, file).await?;
    OpError::check(finished.result)?;
    finished.made.ok_or(OpError::Closed)
}

async fn finish(ops: &Ops, op: Op, file: Option<Rc<OwnedFd>>) -> Result<Finished, OpError> {
    let body = Body { op, file, payload: Payload::None };
    let once = Once::start(ops, body).map_err(|(error, _)| error)?;
    Ok(once.await)
}
