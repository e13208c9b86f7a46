//! Unix stream sockets.

use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::path::Path;
use std::rc::Rc;

use super::address::Address;
use super::socket;
use super::stream::Stream;
use super::tcp::ListenOptions;
use crate::agent::Cx;
use crate::error::OpError;
use crate::op::accept::Acceptor;
use crate::op::connect::connect;
use crate::op::recv::Recv;
use crate::op::{Ops, SendBuf};

/// Takes Unix connections, on one shard. Dropping it leaves its path behind.
#[derive(Debug)]
pub struct UnixListener(Acceptor);

impl UnixListener {
    /// Listens at a path that does not exist yet. Three system calls.
    ///
    /// # Errors
    /// [`OpError::Io`]: the path exists, is longer than 107 bytes, or may not be made.
    pub fn bind(cx: &mut Cx<'_>, path: &Path) -> Result<Self, OpError> {
        let socket = socket::stream(libc::AF_UNIX)?;
        socket::bind(&socket, &Address::unix(path)?)?;
        socket::listen(&socket, ListenOptions::default().backlog)?;
        Ok(Self(Acceptor::new(Rc::clone(cx.ops()), Rc::new(socket))))
    }

    /// Waits for the next connection; as [`TcpListener::accept`](super::TcpListener::accept).
    ///
    /// # Errors
    /// As there.
    pub async fn accept(&self) -> Result<UnixStream, OpError> {
        let file = self.0.accept().await?;
        Ok(UnixStream::of(Rc::clone(self.0.ops()), Rc::new(file)))
    }
}

/// A Unix connection of one shard.
#[derive(Debug)]
pub struct UnixStream(Stream);

impl UnixStream {
    fn of(ops: Rc<Ops>, file: Rc<OwnedFd>) -> Self {
        // The kernel copies for Unix sockets whatever it is asked.
        Self(Stream::new(ops, file, false))
    }

    /// Connects. One system call at once, the rest on the ring.
    ///
    /// # Errors
    /// [`OpError::Io`] with what connect(2) says, or the path has more than 107 bytes.
    pub fn connect(
        cx: &mut Cx<'_>,
        path: &Path,
    ) -> impl Future<Output = Result<Self, OpError>> + use<> {
        let ops = Rc::clone(cx.ops());
        let address = Address::unix(path);
        async move {
            let socket = Rc::new(socket::stream(libc::AF_UNIX)?);
            connect(&ops, &socket, address?).await?;
            Ok(Self::of(ops, socket))
        }
    }

    /// Takes a connection that was made elsewhere.
    ///
    /// # Errors
    /// [`OpError::Io`] when it cannot be made blocking, as the ring needs it.
    pub fn from_std(cx: &mut Cx<'_>, stream: net::UnixStream) -> Result<Self, OpError> {
        stream.set_nonblocking(false)?;
        Ok(Self::of(Rc::clone(cx.ops()), Rc::new(stream.into())))
    }

    /// Two ends of one connection. A handful of system calls.
    ///
    /// # Errors
    /// [`OpError::Io`] when no descriptor is left.
    pub fn pair(cx: &mut Cx<'_>) -> Result<(Self, Self), OpError> {
        let (one, two) = net::UnixStream::pair()?;
        Ok((Self::from_std(cx, one)?, Self::from_std(cx, two)?))
    }

    /// Waits for the next bytes; as [`TcpStream::recv`](super::TcpStream::recv).
    ///
    /// # Errors
    /// As there.
    pub fn recv(&self) -> Recv<'_> {
        self.0.recv()
    }

    /// Sends all of a buffer and hands it back; as [`TcpStream::send`](super::TcpStream::send), with a copy
    /// whatever the length.
    ///
    /// # Errors
    /// As there.
    pub async fn send<B: SendBuf>(&self, buffer: B) -> (Result<usize, OpError>, B) {
        self.0.send(buffer).await
    }

    /// Ends the sending side: the peer sees the end of the stream. One system call.
    ///
    /// # Errors
    /// [`OpError::Io`]: it is not connected any more.
    pub fn shutdown_send(&self) -> Result<(), OpError> {
        self.0.shutdown_send()
    }
}
