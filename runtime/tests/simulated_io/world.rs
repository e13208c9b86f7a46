//! The model: what was given to sockets and files, what has come of it, and what must therefore be seen. One per thread,
//! because a simulation is one thread. A violation is kept and not raised: a panic in a handler would be caught as the
//! agent's.

use std::cell::RefCell;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;

use tailbeam_runtime::sim::Rng;
use tailbeam_runtime::{Cx, OpError};

use crate::files::FileRecord;

/// What the programs have done, and what was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) connections: u64,
    /// Connections over which all came back.
    pub(crate) whole: u64,
    pub(crate) bytes_received: u64,
    pub(crate) sends_dropped: u64,
    pub(crate) recvs_dropped: u64,
    pub(crate) accepts_dropped: u64,
    pub(crate) files: u64,
    pub(crate) bytes_written: u64,
    pub(crate) bytes_read: u64,
    pub(crate) file_ops_dropped: u64,
    pub(crate) errors: u64,
    pub(crate) panics: u64,
    pub(crate) kills: u64,
    pub(crate) ops: u64,
    pub(crate) cancelled: u64,
    pub(crate) starved: u64,
    pub(crate) full: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        macro_rules! sum {
            ($($field:ident),*) => { $(self.$field += other.$field;)* };
        }
        sum!(connections, whole, bytes_received, sends_dropped, recvs_dropped, accepts_dropped);
        sum!(files, bytes_written, bytes_read, file_ops_dropped, errors, panics, kills);
        sum!(ops, cancelled, starved, full);
    }
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// Bytes that were given to a send.
    pub(crate) attempted: usize,
    /// Of those, which a send has said to be sent.
    pub(crate) acked: usize,
    pub(crate) received: usize,
    /// Nothing follows: its sender has said so, or is gone, or was never there.
    pub(crate) closed: bool,
    /// Its sender is gone, or was never there.
    pub(crate) gone: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self { attempted: 0, acked: 0, received: 0, closed: true, gone: true }
    }
}

/// A connection: the ways to the server and back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Connection {
    pub(crate) ways: [Way; 2],
    /// Ends that are held.
    pub(crate) ends: u32,
    /// Whether its server has ever known it, or is one of those who did not; and the listener that should have given it one.
    pub(crate) served: bool,
    pub(crate) listener: Option<usize>,
}

#[derive(Default)]
pub(crate) struct World {
    rng: Option<Rng>,
    pub(crate) dir: PathBuf,
    /// Whether the kernel may fail operations, and whether tables may be full.
    pub(crate) fails: bool,
    pub(crate) tight: bool,
    /// Most bytes of one connection.
    pub(crate) bytes_max: usize,
    pub(crate) connections: Vec<Connection>,
    /// Listeners that have ended, and connections that they had taken and that were dropped before it was known which.
    pub(crate) deaf: Vec<usize>,
    pub(crate) unknown: u32,
    /// Whether the runtime is stopped.
    pub(crate) stopping: bool,
    pub(crate) files: Vec<FileRecord>,
    /// Handlers that work.
    pub(crate) working: u32,
    pub(crate) wrong: Option<String>,
    pub(crate) tally: Tally,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

pub(crate) fn world<R>(work: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(work)
}

impl World {
    pub(crate) fn begin(rng: Rng, dir: &Path) {
        world(|w| *w = Self { rng: Some(rng), dir: dir.to_owned(), ..Self::default() });
    }

    pub(crate) fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong.get_or_insert_with(what);
    }

    pub(crate) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what);
        }
    }

    fn rng(&mut self) -> &mut Rng {
        self.rng.as_mut().expect("begun")
    }

    /// Makes a connection; its number.
    pub(crate) fn connect(&mut self, listener: Option<usize>) -> usize {
        self.tally.connections += 1;
        self.connections.push(Connection { listener, ..Connection::default() });
        self.connections.len() - 1
    }

    /// Takes bytes that have come.
    pub(crate) fn receive(&mut self, id: usize, way: usize, bytes: &[u8]) {
        let at = self.connections[id].ways[way].received;
        let strange = bytes.iter().zip(at..).find(|&(&byte, at)| byte != pattern(id, at));
        if let Some((byte, at)) = strange {
            self.wrong(|| format!("connection {id}, way {way}: byte {at} is {byte}"));
        }
        self.tally.bytes_received += bytes.len() as u64;
        let record = &mut self.connections[id].ways[way];
        record.received += bytes.len();
        let record = *record;
        let fits = record.received <= record.attempted && !bytes.is_empty();
        self.check(fits, || format!("connection {id}, way {way}: more than was sent: {record:?}"));
    }

    /// Sees that a peer is not there; that it never was has its reason.
    fn see_absence(&mut self, id: usize, way: usize) {
        let Connection { served, listener, .. } = self.connections[id];
        let deaf = listener.is_none_or(|listener| self.deaf.contains(&listener));
        if way == 0 || served || deaf || self.stopping {
            return;
        }
        // It may have been one of these.
        self.check(self.unknown > 0, || format!("connection {id} was accepted and is lost"));
        self.unknown = self.unknown.saturating_sub(1);
        self.connections[id].served = true;
    }

    /// Sees the end of a way.
    pub(crate) fn see_end(&mut self, id: usize, way: usize) {
        self.see_absence(id, way);
        let record = self.connections[id].ways[way];
        let holds = record.closed && record.received >= record.acked;
        self.check(holds, || format!("connection {id}, way {way} has ended early: {record:?}"));
    }

    /// What says nothing about a socket or a file is never told: the operation is asked for anew.
    pub(crate) fn check_errno(&mut self, error: &OpError) {
        let errno = error.io().and_then(std::io::Error::raw_os_error);
        let passing = errno.filter(|errno| libc_errno::PASSING.contains(errno));
        self.check(passing.is_none(), || format!("{error}, which is no reason to fail"));
    }

    /// Sees an error of the end that receives `way`.
    pub(crate) fn see_error(&mut self, id: usize, way: usize, error: &OpError) {
        self.tally.errors += 1;
        self.check_errno(error);
        let errno = error.io().and_then(std::io::Error::raw_os_error);
        if !self.fails && errno.is_some() {
            self.see_absence(id, way);
        }
        let peer_gone = self.connections[id].ways[way].gone;
        let reset = [Some(libc_errno::ECONNRESET), Some(libc_errno::EPIPE)];
        let expected = match error {
            OpError::Io(error) => self.fails || peer_gone && reset.contains(&error.raw_os_error()),
            OpError::Full => self.tight,
            _ => false,
        };
        self.check(expected, || {
            format!("connection {id}, way {way}: {error}, which nothing explains")
        });
    }
}

/// Numbers of the system: tests have no libc.
pub(crate) mod libc_errno {
    /// EINTR, EAGAIN, ENOMEM, ENOBUFS, ECANCELED.
    pub(crate) const PASSING: [i32; 5] = [4, 11, 12, 105, 125];
    pub(crate) const EPIPE: i32 = 32;
    pub(crate) const ECONNRESET: i32 = 104;
}

/// Byte `at` of each way of a connection; the first ones are its number.
pub(crate) fn pattern(id: usize, at: usize) -> u8 {
    let word = (id as u64) << 32 | (at / 4) as u64;
    let number = u32::try_from(id).expect("few").to_le_bytes();
    let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    if at < 4 { number[at] } else { mixed[at % 4] ^ mixed[4] }
}

pub(crate) fn below(bound: u64) -> u64 {
    world(|w| w.rng().below(bound))
}

pub(crate) fn index(bound: usize) -> usize {
    world(|w| w.rng().index(bound))
}

pub(crate) fn one_in(count: u64) -> bool {
    below(count) == 0
}

/// Notes that a handler works, as long as it lives.
pub(crate) struct Works;

impl Works {
    pub(crate) fn begin() -> Self {
        world(|w| w.working += 1);
        Self
    }
}

impl Drop for Works {
    fn drop(&mut self) {
        world(|w| w.working -= 1);
    }
}

/// The context of a handler, for the futures that it waits for together.
pub(crate) struct Shared<'a, 'b>(RefCell<&'a mut Cx<'b>>);

impl<'a, 'b> Shared<'a, 'b> {
    pub(crate) const fn new(cx: &'a mut Cx<'b>) -> Self {
        Self(RefCell::new(cx))
    }

    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Cx<'b>) -> R) -> R {
        work(&mut self.0.borrow_mut())
    }

    /// Sleeps for up to 2 ms; not at all without a timer.
    pub(crate) async fn nap(&self) {
        let ns = below(2_000_000);
        let sleep = self.with(|cx| {
            let at_ns = cx.fresh_ns() + ns;
            cx.sleep_until(at_ns)
        });
        let _ = sleep.await;
    }

    /// Waits for a future and gives it up after a nap.
    pub(crate) async fn briefly<F: Future>(&self, future: F) -> Option<F::Output> {
        let (mut future, mut nap) = (pin!(future), pin!(self.nap()));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => nap.as_mut().poll(cx).map(|()| None),
        })
        .await
    }
}

/// Waits for two futures together.
pub(crate) async fn both<A: Future, B: Future>(one: A, two: B) -> (A::Output, B::Output) {
    let (mut one, mut two) = (pin!(one), pin!(two));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = two.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, two) => {
                (first, second) = (one, two);
                Poll::Pending
            }
        }
    })
    .await
}
