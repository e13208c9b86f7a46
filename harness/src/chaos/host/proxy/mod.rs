//! A TCP proxy on the way from the subject to another process, and what goes wrong in it when the board says so.
//!
//! It passes on what comes in, both ways and in order, and the end of each way too; an end by RST is passed on as one.
//! Every 10 ms or sooner it looks at the knobs. [`Knob::ProxyReset`]: every connection is ended by RST, also each that
//! comes. [`Knob::ProxyHalfOpen`]: nothing is read or written, connections stay, those that come are accepted and lead
//! nowhere; afterwards all goes on with nothing lost. [`Knob::ProxyLatencyNs`]: what comes in is passed on that much later.
//!
//! What it keeps is bounded: 64 connections, beyond which one that comes is reset and counted, and 1 MiB or 4,096 pieces
//! each way of each; then it reads no more, and the sender's own window is its bound. One thread serves all of them.

mod link;
mod queue;

use std::io::{self, Stdin};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tailbeam_probes::clock::monotonic_ns;

use self::link::{Link, abort};
use self::queue::Moment;
use super::failure::{self, Failure};
use crate::chaos::board::{Board, Knob};

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 64;
/// Longest time between two looks at the knobs, ns.
const LOOK_NS: u64 = 10_000_000;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Serves until its time is over or its stdin ends.
///
/// # Errors
/// The board is none, or the address is not ours.
pub(super) fn serve(
    listen: SocketAddr,
    to: SocketAddr,
    board: &Path,
    life_ns: u64,
) -> Result<(), Failure> {
    let until_ns = monotonic_ns().saturating_add(life_ns);
    let board = Board::attach(board, 0).map_err(|error| failure::io(board, "attach to", error))?;
    let bound = TcpListener::bind(listen)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let at = listen.to_string();
    let failed = |error| failure::io(Path::new(&at), "listen at", error);
    let listener = bound.map_err(failed)?;
    board.set_proxy_port(listener.local_addr().map_err(failed)?.port());
    let buffer = vec![0; PIECE];
    let mut proxy = Proxy { listener, to, board, links: Vec::new(), buffer, accept_from_ns: 0 };
    let supervisor = io::stdin();
    while monotonic_ns() < until_ns {
        let ready = proxy.wait(&supervisor);
        if ready.alone {
            break;
        }
        proxy.turn(&ready);
    }
    Ok(())
}

struct Proxy {
    listener: TcpListener,
    to: SocketAddr,
    board: Board,
    links: Vec<Link>,
    buffer: Vec<u8>,
    /// The listener is not asked before: it refused, and would refuse at once again.
    accept_from_ns: u64,
}

/// What was found to do.
struct Ready {
    /// The supervisor is gone.
    alone: bool,
    /// Somebody wants to connect.
    new: bool,
    /// By connection, at each of its two sockets.
    links: Vec<[PollFlags; 2]>,
}

impl Proxy {
    fn is_set(&self, knob: Knob) -> bool {
        self.board.level(knob) != 0
    }

    fn moment(&self) -> Moment {
        Moment { now_ns: monotonic_ns(), latency_ns: self.board.level(Knob::ProxyLatencyNs) }
    }

    /// Waits until something can be done, or it is time to look at the knobs.
    fn wait(&self, supervisor: &Stdin) -> Ready {
        let at = self.moment();
        let new = if at.now_ns < self.accept_from_ns { PollFlags::empty() } else { PollFlags::IN };
        // Nothing is ever said through the pipe: it ends.
        let mut watched =
            vec![PollFd::new(supervisor, PollFlags::empty()), PollFd::new(&self.listener, new)];
        let (mut places, mut wait_ns) = (Vec::new(), LOOK_NS);
        if !self.is_set(Knob::ProxyHalfOpen) {
            for (number, link) in self.links.iter().enumerate() {
                wait_ns = wait_ns.min(link.due_in_ns(at).unwrap_or(LOOK_NS));
                for (side, wanted) in link.wants(at).into_iter().enumerate() {
                    let Some((socket, flags)) = wanted else { continue };
                    watched.push(PollFd::new(socket, flags));
                    places.push((number, side));
                }
            }
        }
        // Cut short by a signal nothing was found, and whoever calls this asks again.
        let found = poll(&mut watched, Some(&short(wait_ns))).is_ok_and(|found| found > 0);
        let flags = |at: usize| if found { watched[at].revents() } else { PollFlags::empty() };
        let mut links = vec![[PollFlags::empty(); 2]; self.links.len()];
        for (at, (number, side)) in places.into_iter().enumerate() {
            links[number][side] = flags(at + 2);
        }
        Ready { alone: !flags(0).is_empty(), new: !flags(1).is_empty(), links }
    }

    /// Does what the knobs say with every connection.
    fn turn(&mut self, ready: &Ready) {
        if self.is_set(Knob::ProxyReset) {
            self.board.bite_n(Knob::ProxyReset, self.links.len() as u64);
            self.links.drain(..).for_each(Link::reset);
        } else if self.is_set(Knob::ProxyHalfOpen) {
            self.hold();
        } else {
            self.pass(&ready.links);
        }
        if ready.new {
            self.accept();
        }
    }

    /// A connection that withholds something is counted once in a hold.
    fn hold(&mut self) {
        for link in self.links.iter_mut().filter(|link| !link.held) {
            if link.withholds() {
                link.held = true;
                self.board.bite(Knob::ProxyHalfOpen);
            }
        }
    }

    fn pass(&mut self, ready: &[[PollFlags; 2]]) {
        let at = self.moment();
        let mut left = Vec::with_capacity(self.links.len());
        for (mut link, ready) in self.links.drain(..).zip(ready) {
            link.held = false;
            match link.turn(self.to, *ready, at, &mut self.buffer) {
                Ok(turned) => {
                    if at.latency_ns > 0 {
                        self.board.bite_n(Knob::ProxyLatencyNs, turned.came);
                    }
                    if !turned.over {
                        left.push(link);
                    }
                }
                Err(_) => link.reset(),
            }
        }
        self.links = left;
    }

    /// Accepts who waits.
    fn accept(&mut self) {
        for _ in 0..CONNECTIONS_MAX {
            match self.listener.accept() {
                Ok((socket, _)) => self.accepted(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Of the network, or no descriptor is free: it passes, and says so at once as long as it does not.
                Err(_) => {
                    self.accept_from_ns = monotonic_ns() + LOOK_NS;
                    return;
                }
            }
        }
    }

    fn accepted(&mut self, socket: TcpStream) {
        // Counted before it is done: who sees a reset finds it on the board.
        if self.is_set(Knob::ProxyReset) {
            self.board.bite(Knob::ProxyReset);
            return abort(socket);
        }
        if self.links.len() >= CONNECTIONS_MAX {
            self.board.proxy_refuses();
            return abort(socket);
        }
        // A socket that cannot be set up was reset meanwhile.
        let Ok(mut link) = Link::new(socket) else { return };
        if self.is_set(Knob::ProxyHalfOpen) {
            link.held = true;
            self.board.bite(Knob::ProxyHalfOpen);
            return self.links.push(link);
        }
        let nothing = [PollFlags::empty(); 2];
        match link.turn(self.to, nothing, self.moment(), &mut self.buffer) {
            Ok(_) => self.links.push(link),
            Err(_) => link.reset(),
        }
    }
}

/// A time below a second.
fn short(ns: u64) -> Timespec {
    let tv_nsec = i64::try_from(ns).expect("below a second");
    Timespec { tv_sec: 0, tv_nsec }
}
