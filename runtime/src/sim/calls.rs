//! The system calls of a simulated kernel. None of them waits: what would is told so, and tried again.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, Result, pread, pwrite, retry_on_intr};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags};
use rustix::{fs, net};

use crate::net::address::Address;
use crate::op::{Body, Op};

/// What an operation is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Accept,
    Connect,
    Recv,
    Send,
    Read,
    Write,
    Fsync,
    Fallocate,
    Open,
    Close,
}

impl Kind {
    pub(super) const fn of(op: &Op) -> Self {
        match op {
            Op::Accept { .. } => Self::Accept,
            Op::Connect { .. } => Self::Connect,
            Op::Recv { .. } => Self::Recv,
            Op::Send { .. } => Self::Send,
            Op::Read { .. } => Self::Read,
            Op::Write { .. } => Self::Write,
            Op::Fsync { .. } => Self::Fsync,
            Op::Fallocate { .. } => Self::Fallocate,
            Op::OpenAt { .. } => Self::Open,
            Op::Close { .. } => Self::Close,
        }
    }

    /// Whether it moves bytes, and so may move fewer than it was asked to.
    pub(super) const fn moves_bytes(self) -> bool {
        matches!(self, Self::Recv | Self::Send | Self::Read | Self::Write)
    }

    /// Whether others see what it has done before it failed.
    pub(super) const fn leaves_marks(self) -> bool {
        matches!(self, Self::Send | Self::Write)
    }

    /// What a descriptor says when it would not wait any more.
    const fn readiness(self) -> PollFlags {
        match self {
            Self::Accept | Self::Recv => PollFlags::IN,
            _ => PollFlags::OUT,
        }
    }
}

/// What a call came to: a count, and the descriptor that it has made.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) count: usize,
    pub(super) made: Option<OwnedFd>,
}

impl Done {
    const fn count(count: usize) -> Self {
        Self { count, made: None }
    }
}

/// Whether what an operation comes to does not depend on the time of day: that of a socket does, unless both its ends
/// are here and nothing lies between them.
pub(super) fn repeats(file: &OwnedFd, kind: Kind) -> bool {
    let socket = matches!(kind, Kind::Accept | Kind::Connect | Kind::Recv | Kind::Send);
    !socket || net::sockopt::socket_domain(file).is_ok_and(|family| family == AddressFamily::UNIX)
}

/// Which of these descriptors would not wait.
pub(super) fn ready<'a>(
    wanted: impl Iterator<Item = (BorrowedFd<'a>, Kind)>,
) -> impl Iterator<Item = bool> {
    let poll_of =
        |(file, kind): (BorrowedFd<'a>, Kind)| PollFd::from_borrowed_fd(file, kind.readiness());
    let mut polls: Vec<_> = wanted.map(poll_of).collect();
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let looked = polls.is_empty() || retry_on_intr(|| poll(&mut polls, Some(&at_once))).is_ok();
    // Without an answer each is tried, and says itself whether it waits.
    polls.into_iter().map(move |poll| !looked || !poll.revents().is_empty())
}

fn is_ready(file: &OwnedFd, kind: Kind) -> bool {
    ready([(file.as_fd(), kind)].into_iter()).all(|ready| ready)
}

/// Does what the body asks for, with `most` bytes at most; `moved` of a send have been moved before.
pub(super) fn perform(body: &mut Body, moved: usize, most: usize) -> Result<Done> {
    let Body { op, file, payload } = body;
    if let Op::OpenAt { path, flags, mode } = op {
        let mode = Mode::from_raw_mode(*mode);
        let made = open(path, OFlags::from_bits_retain(flags.cast_unsigned()), mode)?;
        return Ok(Done { count: 0, made: Some(made) });
    }
    if matches!(op, Op::Close { .. }) {
        // Its drop closes it, and is silent about errors.
        drop(std::mem::replace(op, Op::Recv { multi: false }));
        return Ok(Done::default());
    }
    let file = file.as_deref().ok_or(Errno::BADF)?;
    match op {
        Op::Accept { .. } => accept(file),
        Op::Connect { address } => connect(file, address).map(|()| Done::default()),
        Op::Recv { .. } => recv(file, payload.bytes_mut(), most),
        Op::Send { from, len, .. } => {
            let bytes = &payload.bytes()[*from..][..*len as usize][moved..];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let bytes = &bytes[..bytes.len().min(most)];
            retry_on_intr(|| net::send(file, bytes, flags)).map(Done::count)
        }
        Op::Read { at, from, len } => {
            let bytes = &mut payload.bytes_mut()[*from..][..(*len as usize).min(most)];
            retry_on_intr(|| pread(file, &mut *bytes, *at)).map(Done::count)
        }
        Op::Write { at, from, len } => {
            let bytes = &payload.bytes()[*from..][..(*len as usize).min(most)];
            retry_on_intr(|| pwrite(file, bytes, *at)).map(Done::count)
        }
        Op::Fsync { data_only } => {
            let sync = || if *data_only { fs::fdatasync(file) } else { fs::fsync(file) };
            retry_on_intr(sync).map(|()| Done::default())
        }
        Op::Fallocate { at, len } => {
            let reserve = || fs::fallocate(file, FallocateFlags::empty(), *at, *len);
            retry_on_intr(reserve).map(|()| Done::default())
        }
        Op::OpenAt { .. } | Op::Close { .. } => unreachable!("done above"),
    }
}

/// Receives into a buffer.
pub(super) fn recv(file: &OwnedFd, bytes: &mut [u8], most: usize) -> Result<Done> {
    let most = bytes.len().min(most);
    let bytes = &mut bytes[..most];
    let received = retry_on_intr(|| net::recv(file, &mut *bytes, RecvFlags::DONTWAIT));
    received.map(|(count, _)| Done::count(count))
}

/// There is no flag for an accept that does not wait; nobody else takes what the descriptor says is there.
fn accept(listener: &OwnedFd) -> Result<Done> {
    if !is_ready(listener, Kind::Accept) {
        return Err(Errno::AGAIN);
    }
    let made = retry_on_intr(|| net::accept_with(listener, SocketFlags::CLOEXEC))?;
    Ok(Done { count: 0, made: Some(made) })
}

/// Nor is there one for a connect: the socket itself does not wait meanwhile.
fn connect(socket: &OwnedFd, address: &Address) -> Result<()> {
    let flags = fs::fcntl_getfl(socket)?;
    fs::fcntl_setfl(socket, flags | OFlags::NONBLOCK)?;
    let call = || match address.to_ip() {
        Some(ip) => net::connect(socket, &ip),
        None => {
            net::SocketAddrUnix::new(address.to_path()).and_then(|to| net::connect(socket, &to))
        }
    };
    let mut connected = retry_on_intr(call);
    // Over loopback the handshake has most often ended when the call returns, which says all the same that it goes on.
    if connected == Err(Errno::INPROGRESS) && is_ready(socket, Kind::Connect) {
        connected = retry_on_intr(call);
    }
    fs::fcntl_setfl(socket, flags)?;
    match connected {
        // It was begun before, and has come to its end.
        Err(Errno::ISCONN) => Ok(()),
        Err(Errno::INPROGRESS | Errno::ALREADY) => Err(Errno::AGAIN),
        other => other,
    }
}

/// A pipe without a peer would wait, here and nowhere else.
fn open(path: &std::ffi::CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let file = retry_on_intr(|| fs::open(path, flags | OFlags::NONBLOCK, mode))?;
    if !flags.contains(OFlags::NONBLOCK) {
        fs::fcntl_setfl(&file, fs::fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    }
    Ok(file)
}
