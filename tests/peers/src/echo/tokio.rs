//! tokio: a current_thread runtime with all drivers on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use ::tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ::tokio::net::{TcpListener, TcpSocket, TcpStream};
use ::tokio::runtime::{Builder, LocalOptions};
use ::tokio::task::spawn_local;

use super::BACKLOG;
use super::sockets::Sockets;

pub(super) struct Tokio;

impl Sockets for Tokio {
    type Listener = TcpListener;
    type Stream = TcpStream;

    fn run<F: Future<Output = ()> + 'static>(make: impl FnOnce() -> F) -> Result<(), String> {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        runtime.map_err(|error| error.to_string())?.block_on(async move { make().await });
        Ok(())
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(spawn_local(future));
    }

    fn listen() -> io::Result<(TcpListener, SocketAddr)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn send(stream: &mut TcpStream, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        (stream.write_all(&buffer).await, buffer)
    }

    async fn recv(stream: &mut TcpStream, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        // A Vec grows when it is full, which it never is here.
        (stream.read_buf(&mut buffer).await, buffer)
    }
}
