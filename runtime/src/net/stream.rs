//! What TCP and Unix streams share.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::socket;
use crate::error::OpError;
use crate::op::recv::{Receiver, Recv};
use crate::op::send::send_all;
use crate::op::{Ops, SendBuf};

/// A connected socket.
#[derive(Debug)]
pub(super) struct Stream {
    /// Before the descriptor: it asks for cancellation, then the last completion closes the file.
    receiver: Receiver,
    file: Rc<OwnedFd>,
    ops: Rc<Ops>,
    /// A future sends.
    sending: Cell<bool>,
    zero_copy: bool,
}

/// Ends a send however its future ends.
struct Sending<'a>(&'a Cell<bool>);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Stream {
    pub(super) fn new(ops: Rc<Ops>, file: Rc<OwnedFd>, zero_copy: bool) -> Self {
        let receiver = Receiver::new(Rc::clone(&ops));
        Self { receiver, file, ops, sending: Cell::new(false), zero_copy }
    }

    pub(super) const fn file(&self) -> &Rc<OwnedFd> {
        &self.file
    }

    pub(super) const fn recv(&self) -> Recv<'_> {
        self.receiver.recv(&self.file)
    }

    pub(super) async fn send<B: SendBuf>(&self, buffer: B) -> (Result<usize, OpError>, B) {
        if self.sending.replace(true) {
            return (Err(OpError::Busy), buffer);
        }
        let _sending = Sending(&self.sending);
        send_all(&self.ops, &self.file, buffer, self.zero_copy).await
    }

    pub(super) fn shutdown_send(&self) -> Result<(), OpError> {
        Ok(socket::shutdown_send(&self.file)?)
    }
}
