//! TCP.

use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::address::Address;
use super::socket;
use super::stream::Stream;
use crate::agent::Cx;
use crate::error::OpError;
use crate::op::accept::Acceptor;
use crate::op::connect::connect;
use crate::op::recv::Recv;
use crate::op::{Ops, SendBuf};

/// How a listener listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// SO_REUSEPORT: several listeners, one per shard, share an address, and the kernel spreads
    /// connections over them.
    pub reuse_port: bool,
    /// Connections that may wait in the kernel; net.core.somaxconn bounds it.
    pub backlog: u32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { reuse_port: false, backlog: 4_096 }
    }
}

/// Takes TCP connections, on one shard.
#[derive(Debug)]
pub struct TcpListener(Acceptor);

impl TcpListener {
    /// Listens at an address; port 0 is a free one. Four system calls.
    ///
    /// # Errors
    /// [`OpError::Io`]: the address is in use or not ours, or no descriptor is left.
    pub fn bind(cx: &mut Cx<'_>, address: SocketAddr) -> Result<Self, OpError> {
        Self::bind_with(cx, address, ListenOptions::default())
    }

    /// [`TcpListener::bind`] with options.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn bind_with(
        cx: &mut Cx<'_>,
        address: SocketAddr,
        options: ListenOptions,
    ) -> Result<Self, OpError> {
        let socket = socket::stream(family(address))?;
        socket::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, true)?;
        if options.reuse_port {
            socket::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, true)?;
        }
        socket::bind(&socket, &Address::ip(address))?;
        socket::listen(&socket, options.backlog)?;
        Ok(Self(Acceptor::new(Rc::clone(cx.ops()), Rc::new(socket))))
    }

    /// Waits for the next connection. One future at a time; dropping it loses no connection.
    ///
    /// # Errors
    /// [`OpError::Io`] with what accept(2) says: EMFILE when no descriptor is left, the next call tries
    /// again. [`OpError::Busy`] when another future waits, [`OpError::Full`] without room for the operation.
    pub async fn accept(&self) -> Result<TcpStream, OpError> {
        let file = self.0.accept().await?;
        Ok(TcpStream::of(Rc::clone(self.0.ops()), Rc::new(file)))
    }

    /// The address that it listens at. Three system calls.
    ///
    /// # Errors
    /// [`OpError::Io`] when no descriptor is left.
    pub fn local_addr(&self) -> Result<SocketAddr, OpError> {
        Ok(net::TcpListener::from(self.0.file().try_clone()?).local_addr()?)
    }
}

/// A TCP connection of one shard. Dropping it closes the connection once the kernel has let go of it.
#[derive(Debug)]
pub struct TcpStream(Stream);

impl TcpStream {
    fn of(ops: Rc<Ops>, file: Rc<OwnedFd>) -> Self {
        Self(Stream::new(ops, file, true))
    }

    /// Connects. One system call at once, the rest on the ring.
    ///
    /// # Errors
    /// [`OpError::Io`] with what connect(2) says; [`OpError::Full`] without room for the operation.
    pub fn connect(
        cx: &mut Cx<'_>,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self, OpError>> + use<> {
        let ops = Rc::clone(cx.ops());
        async move {
            let socket = Rc::new(socket::stream(family(address))?);
            connect(&ops, &socket, Address::ip(address)).await?;
            Ok(Self::of(ops, socket))
        }
    }

    /// Takes a connection that was made elsewhere, to move one to another shard for example.
    ///
    /// # Errors
    /// [`OpError::Io`] when it cannot be made blocking, as the ring needs it.
    pub fn from_std(cx: &mut Cx<'_>, stream: net::TcpStream) -> Result<Self, OpError> {
        stream.set_nonblocking(false)?;
        Ok(Self::of(Rc::clone(cx.ops()), Rc::new(stream.into())))
    }

    /// Waits for the next bytes, at most [`Config::buffer_bytes`](crate::Config) of them, or `None` at the
    /// end of the stream. One future at a time; dropping it loses no byte. No system call of its own: one
    /// standing operation receives until the stream is dropped, or pauses while 16 buffers lie unread.
    ///
    /// # Errors
    /// [`OpError::Io`], [`OpError::Busy`] when another future waits, [`OpError::Full`] without room for the
    /// standing operation. When every buffer of the shard is held it waits for one.
    pub fn recv(&self) -> Recv<'_> {
        self.0.recv()
    }

    /// Sends all of a buffer and hands it back with the number of bytes sent. Above 8 KiB the kernel is asked
    /// not to copy, and the buffer comes back when it no longer reads it. Dropping the future cancels: how much
    /// was sent is then unknown.
    ///
    /// # Errors
    /// [`OpError::Io`]: some bytes may have been sent. [`OpError::Busy`] when another future sends,
    /// [`OpError::Full`] without room for the operation.
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

    /// Sends small pieces at once (TCP_NODELAY) or lets the kernel gather them. One system call.
    ///
    /// # Errors
    /// [`OpError::Io`].
    pub fn set_nodelay(&self, nodelay: bool) -> Result<(), OpError> {
        Ok(socket::set(self.0.file(), libc::IPPROTO_TCP, libc::TCP_NODELAY, nodelay)?)
    }

    /// The own address. Three system calls.
    ///
    /// # Errors
    /// [`OpError::Io`] when no descriptor is left.
    pub fn local_addr(&self) -> Result<SocketAddr, OpError> {
        Ok(self.duplicate()?.local_addr()?)
    }

    /// The peer's address. Three system calls.
    ///
    /// # Errors
    /// [`OpError::Io`]: it is not connected any more, or no descriptor is left.
    pub fn peer_addr(&self) -> Result<SocketAddr, OpError> {
        Ok(self.duplicate()?.peer_addr()?)
    }

    fn duplicate(&self) -> io::Result<net::TcpStream> {
        Ok(self.0.file().try_clone()?.into())
    }
}

const fn family(address: SocketAddr) -> i32 {
    match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    }
}
