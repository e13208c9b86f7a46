//! `soak --listen`: the sums of a run for a scraper, over HTTP on a loopback address or a Unix socket.
//!
//! One thread of its own serves all connections by `poll`; it reads what the controller has written down and asks no
//! shard anything. What a stranger may do is bounded: so many connections, of which the oldest gives way, so many
//! bytes, and so much time for a whole request and its answer.

mod address;
mod http;
mod metrics;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tailbeam_harness::drive::SharedTotals;
use tailbeam_probes::clock;

pub(crate) use address::{Address, parse};
use address::{Listener, Stream};
use http::{Asked, HEAD_MAX};

use crate::Failure;
use crate::args::{ProgressMode, Soak};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// From its accept to its end a connection has so long, ns.
const DEADLINE_NS: u64 = 5_000_000_000;
/// The longest sleep before a stop is seen, ns.
const NAP_NS: u64 = 100_000_000;
/// What a client may go on sending after its answer, bytes: it is read, so that the answer is not lost to a reset.
const DRAINED_MAX: usize = 64 * 1024;

/// The running server; ends with the value.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Where it can be reached.
    pub(crate) url: String,
    /// What it shows.
    pub(crate) totals: SharedTotals,
}

impl Server {
    /// Binds `address` and serves `totals` from a thread of its own.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn start(address: &Address, totals: SharedTotals) -> io::Result<Self> {
        let listener = address.bind()?;
        let url = listener.url()?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let shown = totals.clone();
        let serve = move || Serving { listener, open: Vec::new(), totals: shown }.run(&seen);
        let thread = Some(thread::Builder::new().name("metrics".to_owned()).spawn(serve)?);
        Ok(Self { stop, thread, url, totals })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It answers or drops whoever is connected, and cannot panic.
            let _ = thread.join();
        }
    }
}

/// Serves the sums of a run until the value is dropped, if that is asked for.
///
/// # Errors
/// An address that others can reach and nobody said that they may, or one that cannot be had.
pub(crate) fn serve(args: &Soak, err: &mut dyn Write) -> Result<Option<Server>, Failure> {
    let Some(address) = &args.listen else { return Ok(None) };
    if address.is_public() && !args.listen_public {
        return Err(Failure::new(
            2,
            "--listen takes an address that other hosts can reach\n  cause: whoever reaches it can read the run's metrics, and there is no password\n  remedy: take 127.0.0.1, [::1] or unix:PATH, or say --listen-public as well",
        ));
    }
    let server = Server::start(address, SharedTotals::default()).map_err(|error| {
        Failure::new(
            1,
            format!("cannot serve metrics\n  cause: {error}\n  remedy: take another address, or port 0 for a free one"),
        )
    })?;
    if args.progress != ProgressMode::None {
        let _ = writeln!(err, "metrics: {}", server.url);
    }
    Ok(Some(server))
}

/// What a connection waits for.
#[derive(Debug)]
enum Phase {
    /// The rest of a request.
    Reading(Vec<u8>),
    /// Room for the rest of its answer.
    Writing(Vec<u8>, usize),
    /// The client's end; so many bytes may still come.
    Draining(usize),
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    phase: Phase,
    until_ns: u64,
}

struct Serving {
    listener: Listener,
    /// Oldest first.
    open: Vec<Connection>,
    totals: SharedTotals,
}

impl Serving {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Ok(ready) = self.wait() else { break };
            let now_ns = clock::monotonic_ns();
            let totals = &self.totals;
            let mut ready = ready.into_iter();
            let waiting = ready.next().unwrap_or(false);
            self.open.retain_mut(|connection| {
                let goes_on = !ready.next().unwrap_or(false) || connection.go_on(totals);
                goes_on && now_ns < connection.until_ns
            });
            if waiting {
                self.accept(now_ns);
            }
        }
    }

    /// Waits for any of them; whether the listener and each connection are ready.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let mut wanted = vec![PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN)];
        wanted.extend(self.open.iter().map(Connection::wanted));
        let nap = Timespec { tv_sec: 0, tv_nsec: NAP_NS.cast_signed() };
        match poll(&mut wanted, Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {
                Ok(wanted.iter().map(|of| !of.revents().is_empty()).collect())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the connections that wait. Without room the oldest one gives way: a client that holds its connection
    /// keeps nobody out.
    fn accept(&mut self, now_ns: u64) {
        for _ in 0..CONNECTIONS_MAX {
            let Ok(stream) = self.listener.accept() else { break };
            if self.open.len() >= CONNECTIONS_MAX {
                self.open.remove(0);
            }
            let phase = Phase::Reading(Vec::new());
            self.open.push(Connection { stream, phase, until_ns: now_ns + DEADLINE_NS });
        }
    }
}

impl Connection {
    fn wanted(&self) -> PollFd<'_> {
        let flags = match self.phase {
            Phase::Writing(..) => PollFlags::OUT,
            Phase::Reading(_) | Phase::Draining(_) => PollFlags::IN,
        };
        PollFd::from_borrowed_fd(self.stream.as_fd(), flags)
    }

    /// Does what can be done now; whether there is more to come.
    fn go_on(&mut self, totals: &SharedTotals) -> bool {
        match self.step(totals) {
            Ok(goes_on) => goes_on,
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        }
    }

    fn step(&mut self, totals: &SharedTotals) -> io::Result<bool> {
        let mut chunk = [0; 4_096];
        match &mut self.phase {
            Phase::Reading(bytes) => {
                let room = (HEAD_MAX - bytes.len()).min(chunk.len());
                let read = self.stream.read(&mut chunk[..room])?;
                if read == 0 {
                    return Ok(false);
                }
                bytes.extend_from_slice(&chunk[..read]);
                if let Some(answer) = answer(bytes, totals) {
                    self.phase = Phase::Writing(answer, 0);
                }
            }
            Phase::Writing(answer, sent) => {
                *sent += self.stream.write(&answer[*sent..])?;
                if *sent == answer.len() {
                    self.stream.end_writing()?;
                    self.phase = Phase::Draining(DRAINED_MAX);
                }
            }
            Phase::Draining(left) => {
                let read = self.stream.read(&mut chunk)?;
                *left = left.saturating_sub(read);
                return Ok(read > 0 && *left > 0);
            }
        }
        Ok(true)
    }
}

/// The answer to the bytes so far, if they are a request.
fn answer(bytes: &[u8], totals: &SharedTotals) -> Option<Vec<u8>> {
    let (status, kind, text, head) = match http::read(bytes) {
        Asked::More => return None,
        Asked::Refused { status } => {
            let text = format!("{status}\nthe metrics are at /metrics\n");
            (status, "text/plain; charset=utf-8", text, false)
        }
        Asked::Metrics { dialect, head } => {
            ("200 OK", dialect.content_type(), metrics::text(&totals.get(), dialect), head)
        }
    };
    let mut answer = http::head(status, kind, text.len()).into_bytes();
    if !head {
        answer.extend_from_slice(text.as_bytes());
    }
    Some(answer)
}

#[cfg(test)]
mod tests;
