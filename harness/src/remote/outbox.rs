//! What waits to be sent on one connection, and the task that sends it. On one shard.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tailbeam_runtime::net::TcpStream;

use super::frame::{self, Frame};

/// Bytes that wait, at most: what comes then is dropped, and counted by whoever sends.
const BYTES_MAX: usize = 16 << 20;
/// What a buffer that was sent may hold to be used again, bytes.
const SPARE_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    waker: Option<Waker>,
    closed: bool,
    /// Answers among the bytes that wait.
    answers: u64,
}

/// The bytes; clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(Rc<RefCell<Inner>>);

impl Outbox {
    /// Appends a frame; `false`: there was no room, or the connection is over.
    pub(crate) fn push(&self, frame: &Frame) -> bool {
        let mut inner = self.0.borrow_mut();
        if inner.closed || inner.bytes.len() >= BYTES_MAX {
            return false;
        }
        frame::encode(frame, &mut inner.bytes);
        inner.answers += u64::from(matches!(frame, Frame::Answer { .. }));
        let waker = inner.waker.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// No more is sent; the task of the connection ends. Gives how many answers waited.
    pub(crate) fn close(&self) -> u64 {
        let mut inner = self.0.borrow_mut();
        inner.closed = true;
        inner.bytes.clear();
        let answers = std::mem::take(&mut inner.answers);
        let waker = inner.waker.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
        answers
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }

    /// Sends what comes until it is closed or the connection fails; all that waits goes as one.
    pub(crate) async fn drain(&self, stream: &TcpStream) {
        loop {
            let next = poll_fn(|context| {
                let mut inner = self.0.borrow_mut();
                if inner.closed {
                    return Poll::Ready(None);
                }
                if inner.bytes.is_empty() {
                    inner.waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                let spare = std::mem::take(&mut inner.spare);
                inner.answers = 0;
                Poll::Ready(Some(std::mem::replace(&mut inner.bytes, spare)))
            });
            let Some(bytes) = next.await else { return };
            let (sent, mut back) = stream.send(bytes).await;
            if sent.is_err() {
                // What waits is counted by whoever closes it: the reader, which sees the end too.
                self.0.borrow_mut().closed = true;
                return;
            }
            if back.capacity() <= SPARE_MAX {
                back.clear();
                self.0.borrow_mut().spare = back;
            }
        }
    }
}
