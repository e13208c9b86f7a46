#![expect(unsafe_code, reason = "socket, bind, listen, setsockopt and shutdown of libc")]
//! Making sockets: ordinary system calls, none of which waits.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::address::Address;

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A stream socket of a family, closed on exec; it blocks, for the ring never waits in a call.
pub(super) fn stream(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointer.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was just created and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a socket its address.
pub(super) fn bind(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    // SAFETY: bind(2) reads `len` bytes behind the pointer, which the address has.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len()) }).map(drop)
}

/// Lets a socket take connections.
pub(super) fn listen(socket: &OwnedFd, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: listen(2) takes no pointer.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// Sets a boolean option.
pub(super) fn set(socket: &OwnedFd, level: i32, name: i32, on: bool) -> io::Result<()> {
    let value = i32::from(on);
    let len = libc::socklen_t::try_from(size_of::<i32>()).expect("4");
    let place = (&raw const value).cast();
    // SAFETY: setsockopt(2) reads `len` bytes behind the pointer: a live i32.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, place, len) }).map(drop)
}

/// Ends the sending side: the peer sees the end of the stream.
pub(super) fn shutdown_send(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: shutdown(2) takes no pointer.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) }).map(drop)
}
