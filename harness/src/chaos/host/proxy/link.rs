//! One connection through the proxy: two sockets, and what waits between them, each way.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::queue::{Moment, Queue};

/// A connection onwards that is not there after this time will not be: who asked for it is reset, ns. The kernel tries
/// for two minutes, and a place would be taken for as long.
const CONNECT_NS: u64 = 3_000_000_000;

/// The socket onwards.
#[derive(Debug)]
enum Far {
    /// It was not asked for.
    Absent,
    Opening {
        socket: TcpStream,
        until_ns: u64,
    },
    Open(TcpStream),
}

/// What goes one way.
#[derive(Debug, Default)]
struct Way {
    queue: Queue,
    /// That nothing follows is passed on.
    over: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    near: TcpStream,
    far: Far,
    there: Way,
    back: Way,
    /// That it is held was counted.
    pub(super) held: bool,
}

/// What became of a connection in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turned {
    /// Pieces that came in.
    pub(super) came: u64,
    /// Both ways have ended.
    pub(super) over: bool,
}

/// A socket that is not to wait for anything.
fn prompt(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)
}

impl Link {
    /// Of a connection that was accepted; where it leads is not asked for yet.
    pub(super) fn new(near: TcpStream) -> io::Result<Self> {
        prompt(&near)?;
        let (there, back) = (Way::default(), Way::default());
        Ok(Self { near, far: Far::Absent, there, back, held: false })
    }

    /// What to wait for at each of its sockets. One that nothing is expected of is not waited for at all, or its end would
    /// wake us again and again.
    pub(super) fn wants(&self, at: Moment) -> [Option<(&TcpStream, PollFlags)>; 2] {
        let wants = |into: &Way, out: &Way| {
            let mut wants = PollFlags::empty();
            wants.set(PollFlags::IN, into.queue.room() > 0);
            wants.set(PollFlags::OUT, !out.queue.due(at).is_empty());
            (!wants.is_empty()).then_some(wants)
        };
        let open = |far| {
            let near = wants(&self.there, &self.back).map(|wants| (&self.near, wants));
            [near, wants(&self.back, &self.there).map(|wants| (far, wants))]
        };
        match &self.far {
            Far::Absent => [None, None],
            Far::Opening { socket, .. } => [None, Some((socket, PollFlags::OUT))],
            Far::Open(far) => open(far),
        }
    }

    /// Time until something that waits is due, ns.
    pub(super) fn due_in_ns(&self, at: Moment) -> Option<u64> {
        [&self.there, &self.back].into_iter().filter_map(|way| way.queue.due_in_ns(at)).min()
    }

    /// Something came that is not passed on.
    pub(super) fn withholds(&self) -> bool {
        let far = match &self.far {
            Far::Absent => None,
            Far::Opening { socket, .. } | Far::Open(socket) => Some(socket),
        };
        let came = |socket: &TcpStream| ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0);
        let waits = |way: &Way| !way.queue.is_empty();
        came(&self.near) || far.is_some_and(came) || waits(&self.there) || waits(&self.back)
    }

    /// Reads, writes and connects, as far as that goes at once. `ready`: what was found at each socket.
    ///
    /// # Errors
    /// One end was reset, or cannot be reached: the other is to know.
    pub(super) fn turn(
        &mut self,
        to: SocketAddr,
        ready: [PollFlags; 2],
        at: Moment,
        buffer: &mut [u8],
    ) -> io::Result<Turned> {
        self.open(to, ready[1], at.now_ns)?;
        let Far::Open(far) = &self.far else { return Ok(Turned { came: 0, over: false }) };
        let came = self.there.turn((&self.near, far), ready[0], at, buffer)?
            + self.back.turn((far, &self.near), ready[1], at, buffer)?;
        Ok(Turned { came, over: self.there.over && self.back.over })
    }

    fn open(&mut self, to: SocketAddr, ready: PollFlags, now_ns: u64) -> io::Result<()> {
        self.far = match std::mem::replace(&mut self.far, Far::Absent) {
            Far::Absent => begin(to, now_ns)?,
            Far::Opening { socket, .. } if !ready.is_empty() => {
                sockopt::socket_error(&socket)??;
                Far::Open(socket)
            }
            Far::Opening { until_ns, .. } if now_ns >= until_ns => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            other => other,
        };
        Ok(())
    }

    /// Ends it by RST, both ways.
    pub(super) fn reset(self) {
        abort(self.near);
        if let Far::Opening { socket, .. } | Far::Open(socket) = self.far {
            abort(socket);
        }
    }
}

/// Ends a connection by RST, and nothing that waits in it is sent.
pub(super) fn abort(socket: TcpStream) {
    // Refused of what is no socket only (socket(7)).
    let _: Result<(), Errno> = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    drop(socket);
}

fn begin(to: SocketAddr, now_ns: u64) -> io::Result<Far> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = TcpStream::from(socket_with(family, SocketType::STREAM, flags, None)?);
    prompt(&socket)?;
    match connect(&socket, &to) {
        Ok(()) => Ok(Far::Open(socket)),
        Err(Errno::INPROGRESS) => Ok(Far::Opening { socket, until_ns: now_ns + CONNECT_NS }),
        Err(error) => Err(error.into()),
    }
}

/// None: not now.
fn at_once(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Way {
    /// Reads one piece if there is one, and passes on what is due. Gives the pieces that came.
    fn turn(
        &mut self,
        (mut from, mut to): (&TcpStream, &TcpStream),
        ready: PollFlags,
        at: Moment,
        buffer: &mut [u8],
    ) -> io::Result<u64> {
        let mut came = 0;
        let room = self.queue.room().min(buffer.len());
        if room > 0 && ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match at_once(from.read(&mut buffer[..room]))? {
                None => {}
                Some(0) => self.queue.end(at.now_ns),
                Some(bytes) => {
                    self.queue.push(&buffer[..bytes], at.now_ns);
                    came = 1;
                }
            }
        }
        while !self.queue.due(at).is_empty() {
            match at_once(to.write(self.queue.due(at)))? {
                None | Some(0) => break,
                Some(bytes) => self.queue.passed(bytes),
            }
        }
        if !self.over && self.queue.is_over(at) {
            to.shutdown(Shutdown::Write)?;
            self.over = true;
        }
        Ok(came)
    }
}
