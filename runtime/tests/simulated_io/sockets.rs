//! Programs over sockets: clients that send a pattern and want it back, servers that send back what they get, both of
//! which give up futures, hold buffers, stop early and panic.

use std::cell::Cell;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::panic::resume_unwind;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;

use tailbeam_runtime::net::{Lease, TcpStream, UnixListener, UnixStream};
use tailbeam_runtime::{Cx, OpError};

use crate::world::{Shared, Works, below, index, one_in, pattern, world};

/// A connected socket.
pub(crate) enum Socket {
    Unix(UnixStream),
    /// One that asks for sends without a copy.
    Tcp(TcpStream),
}

impl Socket {
    /// An end of a pair that was made elsewhere.
    pub(crate) fn of_pair(cx: &mut Cx<'_>, end: net::UnixStream) -> Result<Self, OpError> {
        // A stream of ours does not ask what kind of socket it has.
        TcpStream::from_std(cx, std::net::TcpStream::from(OwnedFd::from(end))).map(Self::Tcp)
    }

    async fn recv(&self) -> Result<Option<Lease>, OpError> {
        match self {
            Self::Unix(stream) => stream.recv().await,
            Self::Tcp(stream) => stream.recv().await,
        }
    }

    /// Sends a buffer of any kind; whether it came back as it was.
    async fn send(&self, bytes: Vec<u8>) -> (Result<usize, OpError>, bool) {
        let before = bytes.clone();
        macro_rules! send {
            ($buffer:expr) => {{
                let (sent, buffer) = match self {
                    Self::Unix(stream) => stream.send($buffer).await,
                    Self::Tcp(stream) => stream.send($buffer).await,
                };
                (sent, buffer[..] == before[..])
            }};
        }
        if one_in(2) { send!(bytes) } else { send!(Rc::<[u8]>::from(bytes)) }
    }

    /// Sends what was received out of its own buffer.
    async fn send_lease(&self, lease: Lease) -> (Result<usize, OpError>, bool) {
        let before = lease.to_vec();
        let (sent, lease) = match self {
            Self::Unix(stream) => stream.send(lease).await,
            Self::Tcp(stream) => stream.send(lease).await,
        };
        (sent, lease[..] == before[..])
    }

    fn shutdown_send(&self) {
        // It may fail where the peer is gone, who does not care any more.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown_send(),
            Self::Tcp(stream) => stream.shutdown_send(),
        };
    }
}

/// One end of a connection, which the model holds too.
pub(crate) struct End {
    id: usize,
    /// The way that it sends on; it receives on the other.
    way: usize,
    socket: Socket,
}

impl End {
    pub(crate) fn new(id: usize, way: usize, socket: Socket) -> Self {
        world(|w| {
            let connection = &mut w.connections[id];
            connection.ends += 1;
            connection.served |= way == 1;
            let out = &mut connection.ways[way];
            (out.closed, out.gone) = (false, false);
        });
        Self { id, way, socket }
    }

    /// Sends a piece of the pattern, or gives up in the middle; whether all of it was sent.
    async fn send(&self, cx: &Shared<'_, '_>, bytes: Vec<u8>) -> bool {
        let len = bytes.len();
        let from = world(|w| {
            let way = &mut w.connections[self.id].ways[self.way];
            way.attempted += len;
            way.attempted - len
        });
        let send = self.socket.send(bytes);
        let sent = if one_in(24) { cx.briefly(send).await } else { Some(send.await) };
        self.sent(from + len, len, sent)
    }

    fn sent(&self, end: usize, len: usize, sent: Option<(Result<usize, OpError>, bool)>) -> bool {
        let (id, out) = (self.id, self.way);
        world(|w| match sent {
            Some((Ok(count), same)) => {
                w.connections[id].ways[out].acked = end;
                w.check(count == len && same, || format!("{count} of {len} sent, same: {same}"));
                true
            }
            Some((Err(error), same)) => {
                w.check(same, || "a buffer came back changed".to_owned());
                w.see_error(id, 1 - out, &error);
                false
            }
            None => {
                w.tally.sends_dropped += 1;
                false
            }
        })
    }

    fn close(&self) {
        world(|w| w.connections[self.id].ways[self.way].closed = true);
        self.socket.shutdown_send();
    }

    /// Waits for the next bytes; `Err` at the end and where there is nothing more to be had.
    async fn recv(&self, cx: &Shared<'_, '_>) -> Result<Lease, ()> {
        loop {
            let recv = self.socket.recv();
            let received = if one_in(12) { cx.briefly(recv).await } else { Some(recv.await) };
            let way = 1 - self.way;
            return match received {
                None => {
                    world(|w| w.tally.recvs_dropped += 1);
                    continue;
                }
                Some(Ok(Some(lease))) => Ok(lease),
                Some(Ok(None)) => {
                    world(|w| w.see_end(self.id, way));
                    Err(())
                }
                Some(Err(error)) => {
                    world(|w| w.see_error(self.id, way, &error));
                    Err(())
                }
            };
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        world(|w| {
            let connection = &mut w.connections[self.id];
            connection.ends -= 1;
            let way = &mut connection.ways[self.way];
            (way.closed, way.gone) = (true, true);
        });
    }
}

fn maybe_panic() {
    if one_in(1_000) {
        world(|w| w.tally.panics += 1);
        resume_unwind(Box::new("planned"));
    }
}

/// Sends all that it has, then the end.
async fn send_all(end: &End, cx: &Shared<'_, '_>, total: usize) {
    let mut at = 0;
    while at < total {
        let len = 1 + index((total - at).min(1 + index(20_000)));
        let bytes = (at..at + len).map(|at| pattern(end.id, at)).collect();
        if !end.send(cx, bytes).await {
            break;
        }
        at += len;
        if one_in(6) {
            cx.nap().await;
        }
        maybe_panic();
    }
    end.close();
}

/// Receives until the end; whether it came to it.
async fn recv_all(end: &End, cx: &Shared<'_, '_>) -> bool {
    let (mut held, tight) = (Vec::new(), world(|w| w.tight));
    while let Ok(lease) = end.recv(cx).await {
        world(|w| w.receive(end.id, 1 - end.way, &lease));
        held.push(lease);
        if one_in(10) {
            cx.nap().await;
        }
        // Where there are few buffers, whoever waits for one must not hold one.
        if tight || held.len() > 2 || one_in(2) {
            held.clear();
        }
        maybe_panic();
        if one_in(if tight { 60 } else { 300 }) {
            return false;
        }
    }
    true
}

/// A client: sends and receives together, until both have ended, or it wants no more.
pub(crate) async fn exchange(end: End, cx: &Shared<'_, '_>) {
    let _works = Works::begin();
    let total = 4 + index(world(|w| w.bytes_max));
    let done = Cell::new(false);
    {
        let send = async {
            send_all(&end, cx, total).await;
            done.set(true);
        };
        let (mut send, mut recv) = (pin!(send), pin!(recv_all(&end, cx)));
        poll_fn(|context| {
            if !done.get() {
                let _ = send.as_mut().poll(context);
            }
            recv.as_mut().poll(context).map(drop)
        })
        .await;
    }
    let [there, back] = world(|w| w.connections[end.id].ways);
    if back.received == total && there.acked == total {
        world(|w| w.tally.whole += 1);
    }
}

pub(crate) async fn client(id: usize, path: &Path, cx: &mut Cx<'_>) {
    let cx = Shared::new(cx);
    let connect = cx.with(|cx| UnixStream::connect(cx, path));
    let connected = if one_in(20) { cx.briefly(connect).await } else { Some(connect.await) };
    match connected {
        Some(Ok(stream)) => exchange(End::new(id, 0, Socket::Unix(stream)), &cx).await,
        // Its listener may have been killed.
        Some(Err(_)) => world(|w| w.tally.errors += 1),
        None => {}
    }
}

/// Sends back what comes, and the end after it.
pub(crate) async fn serve(end: End, cx: &Shared<'_, '_>, first: Vec<u8>) {
    let _works = Works::begin();
    let mut next = Some(first).filter(|first| !first.is_empty());
    loop {
        let sent = if let Some(bytes) = next.take() {
            world(|w| w.receive(end.id, 0, &bytes));
            end.send(cx, bytes).await
        } else {
            let Ok(lease) = end.recv(cx).await else { break };
            world(|w| w.receive(end.id, 0, &lease));
            send_back(&end, cx, lease).await
        };
        if !sent || one_in(400) {
            return;
        }
        if one_in(20) {
            cx.nap().await;
        }
        maybe_panic();
    }
    if one_in(2) {
        end.close();
    }
}

async fn send_back(end: &End, cx: &Shared<'_, '_>, lease: Lease) -> bool {
    if world(|w| w.tight) || one_in(3) {
        let bytes = lease.to_vec();
        drop(lease);
        return end.send(cx, bytes).await;
    }
    let len = lease.len();
    let at = world(|w| {
        let way = &mut w.connections[end.id].ways[1];
        way.attempted += len;
        way.attempted
    });
    let sent = end.socket.send_lease(lease).await;
    end.sent(at, len, Some(sent))
}

/// Notes a connection that is dropped before it is known which.
struct Unknown;

impl Drop for Unknown {
    fn drop(&mut self) {
        world(|w| w.unknown += 1);
    }
}

/// Learns whom it serves, and serves.
async fn welcome(stream: UnixStream, cx: &mut Cx<'_>) {
    let _works = Works::begin();
    // Dropped before the stream.
    let unknown = Unknown;
    let cx = Shared::new(cx);
    let mut first = Vec::new();
    while first.len() < 4 {
        match stream.recv().await {
            Ok(Some(lease)) => first.extend_from_slice(&lease),
            // Who it was is not known.
            Ok(None) | Err(_) => return,
        }
    }
    let number = [first[0], first[1], first[2], first[3]];
    let id = u32::from_le_bytes(number) as usize;
    let known = world(|w| id < w.connections.len() && w.connections[id].ways[0].received == 0);
    if !known {
        world(|w| w.wrong(|| format!("a connection begins with {number:?}")));
        return;
    }
    std::mem::forget(unknown);
    serve(End::new(id, 1, Socket::Unix(stream)), &cx, first).await;
}

/// Notes a listener that ends.
struct Hears(usize);

impl Drop for Hears {
    fn drop(&mut self) {
        world(|w| w.deaf.push(self.0));
    }
}

/// Accepts until it is killed.
pub(crate) async fn listen(number: usize, path: &Path, cx: &mut Cx<'_>) {
    let Ok(listener) = UnixListener::bind(cx, path) else { return };
    // Dropped before the listener.
    let _hears = Hears(number);
    let cx = Shared::new(cx);
    for _ in 0..1_000 {
        let accept = listener.accept();
        let accepted = if one_in(8) { cx.briefly(accept).await } else { Some(accept.await) };
        match accepted {
            None => world(|w| w.tally.accepts_dropped += 1),
            Some(Ok(stream)) => {
                let serve = async move |cx: &mut Cx<'_>| welcome(stream, cx).await;
                // Without room the connection is dropped.
                if cx.with(|cx| cx.spawn_with(serve).is_err()) {
                    world(|w| w.unknown += 1);
                }
            }
            Some(Err(error)) => {
                world(|w| {
                    w.tally.errors += 1;
                    w.check_errno(&error);
                });
                cx.nap().await;
            }
        }
        if below(2_000) == 0 {
            return;
        }
    }
}
