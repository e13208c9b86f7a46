//! monoio on io_uring, default settings.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use ::monoio::buf::IoBufMut as _;
use ::monoio::io::{AsyncReadRent as _, AsyncWriteRentExt as _};
use ::monoio::net::{ListenerOpts, TcpListener, TcpStream};
use ::monoio::{IoUringDriver, RuntimeBuilder};

use super::BACKLOG;
use super::sockets::Sockets;

pub(super) struct Monoio;

impl Sockets for Monoio {
    type Listener = TcpListener;
    type Stream = TcpStream;

    fn run<F: Future<Output = ()> + 'static>(make: impl FnOnce() -> F) -> Result<(), String> {
        let runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build();
        runtime.map_err(|error| error.to_string())?.block_on(async move { make().await });
        Ok(())
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(::monoio::spawn(future));
    }

    fn listen() -> io::Result<(TcpListener, SocketAddr)> {
        let options = ListenerOpts::new().backlog(BACKLOG.cast_signed());
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = TcpListener::bind_with_config(any, &options)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_addr(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn send(stream: &mut TcpStream, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let (sent, buffer) = stream.write_all(buffer).await;
        (sent.map(|_| ()), buffer)
    }

    async fn recv(stream: &mut TcpStream, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        // A Vec is filled from its start, a slice of it from where it begins.
        let held = buffer.len();
        if held == 0 {
            return stream.read(buffer).await;
        }
        let end = buffer.capacity();
        let (received, slice) = stream.read(buffer.slice_mut(held..end)).await;
        (received, slice.into_inner())
    }
}
