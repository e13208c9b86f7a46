//! Where `--listen` listens: a loopback address, a Unix socket, or with a word more any address.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

/// An address that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// Whether programs on other hosts could reach it.
    pub(crate) const fn is_public(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().is_loopback(),
            Self::Unix(_) => false,
        }
    }

    pub(super) fn bind(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Listener::Tcp(listener))
            }
            Self::Unix(path) => {
                // What a run that was killed has left; a socket that somebody serves refuses nobody.
                let left = std::fs::metadata(path).is_ok_and(|of| of.file_type().is_socket());
                if left && UnixStream::connect(path).is_err() {
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(Listener::Unix(listener, path.clone()))
            }
        }
    }
}

/// Parses `127.0.0.1:9464`, `[::1]:9464`, `localhost:9464`, `unix:PATH` or a path that begins with `/`.
pub(crate) fn parse(text: &str) -> Result<Address, String> {
    let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text));
    if let Some(path) = path {
        // sun_path of unix(7).
        return match path.len() {
            1..=107 => Ok(Address::Unix(PathBuf::from(path))),
            _ => Err("the path of a socket has 1 to 107 bytes".to_owned()),
        };
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(Address::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
    }
    text.parse().map(Address::Tcp).map_err(|_| {
        "write an address such as 127.0.0.1:9464 or [::1]:9464, or unix:/run/tailbeam.sock"
            .to_owned()
    })
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(super) fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
            Self::Unix(listener, _) => Stream::Unix(listener.accept()?.0),
        };
        match &stream {
            Stream::Tcp(stream) => stream.set_nonblocking(true)?,
            Stream::Unix(stream) => stream.set_nonblocking(true)?,
        }
        Ok(stream)
    }

    /// Where it is, the port chosen by the kernel included.
    pub(super) fn url(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(listener) => format!("http://{}/metrics", listener.local_addr()?),
            Self::Unix(_, path) => format!("unix:{} /metrics", path.display()),
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    pub(super) fn end_writing(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_people_type() {
        let public = |text| parse(text).map(|address| address.is_public());
        for text in
            ["127.0.0.1:9464", "127.8.0.1:1", "[::1]:9464", "localhost:0", "unix:x", "/run/x"]
        {
            assert_eq!(public(text), Ok(false), "{text}");
        }
        for text in ["0.0.0.0:9464", "[::]:9464", "192.168.1.1:80"] {
            assert_eq!(public(text), Ok(true), "{text}");
        }
        let long = format!("/{}", "x".repeat(107));
        for text in ["9464", ":9464", "localhost", "localhost:http", "unix:", "host:1", &long] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
