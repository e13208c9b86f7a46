//! The proxy over loopback before an echo of this test: what it passes on, and what it does when its board says so. Needs no
//! privilege.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tailbeam_harness::chaos::board::{Board, Knob, Shape};
use tailbeam_harness::chaos::host::helper::Helper;
use tailbeam_harness::chaos::host::proxy::CONNECTIONS_MAX;
use tailbeam_harness::chaos::host::{Journal, Subject};
use tailbeam_probes::clock::monotonic_ns;

use crate::support::{host, launcher, within};

const MS: u64 = 1_000_000;
/// How long is looked for what must not come, ms.
const NEVER_MS: u64 = 200;

/// A proxy, and who it leads to.
struct Bench {
    board: Board,
    journal: Journal,
    proxy: Subject,
    at: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Not asserted: a test that fails ends here too.
        drop(self.journal.undo_since(0));
    }
}

impl Bench {
    fn new(test: &str, to: SocketAddr, life_ms: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), test);
        let mut journal = Journal::create(&dir.path().join("journal"), &host.name).unwrap();
        let shape = Shape { cores: 1, slots: 1, slot_ns: 1_000 * MS, from_ns: 0 };
        let board = Board::create(shape, &[7; 32]).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let helper = Helper::Proxy { listen, to, board: board.path(), life_ms };
        let run = helper.started_by(&launcher("children::helper_child"));
        let quiet = |command: &mut std::process::Command| {
            command.stdout(Stdio::null());
        };
        let proxy = Subject::start(&mut journal, &run, quiet).unwrap();
        assert!(within(30_000, || board.proxy_port().is_some()), "it listens");
        let at = SocketAddr::new(listen.ip(), board.proxy_port().unwrap());
        Self { board, journal, proxy, at, _dir: dir }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.at).unwrap();
        // A test that waits for what does not come fails; no time is asserted.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    }

    /// A connection over which a byte has come back.
    fn open(&self) -> TcpStream {
        let mut socket = self.connect();
        ping(&mut socket);
        socket
    }
}

/// Gives back what comes on every connection. Says how each ended: `None` in order.
fn echo() -> (SocketAddr, Receiver<Option<ErrorKind>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, (ended, ends)) = (listener.local_addr().unwrap(), channel());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut from, ended) = (socket.unwrap(), ended.clone());
            let mut to = from.try_clone().unwrap();
            std::thread::spawn(move || {
                let end = std::io::copy(&mut from, &mut to).err().map(|error| error.kind());
                drop((to.shutdown(Shutdown::Write), ended.send(end)));
            });
        }
    });
    (at, ends)
}

fn ping(socket: &mut TcpStream) {
    let mut back = [0];
    socket.write_all(&[42]).unwrap();
    socket.read_exact(&mut back).unwrap();
    assert_eq!(back, [42]);
}

fn is_reset(socket: &mut TcpStream) {
    let end = socket.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

/// Nothing comes for a while.
fn is_silent(socket: &mut TcpStream) {
    socket.set_read_timeout(Some(Duration::from_millis(NEVER_MS))).unwrap();
    let came = socket.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(came, Err(ErrorKind::WouldBlock));
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
}

fn random(bytes: u64) -> Vec<u8> {
    let mut random = Vec::new();
    let source = std::fs::File::open("/dev/urandom").unwrap();
    source.take(bytes).read_to_end(&mut random).unwrap();
    random
}

#[test]
fn a_proxy_that_is_told_nothing_changes_nothing_and_ends_with_its_supervisor() {
    let (to, ends) = echo();
    let mut bench = Bench::new("pass", to, 60_000);
    let sent = random(1 << 20);
    let mut socket = bench.connect();
    let mut way = socket.try_clone().unwrap();
    let (mut back, data) = (Vec::new(), sent.clone());
    let writer = std::thread::spawn(move || {
        way.write_all(&data).unwrap();
        way.shutdown(Shutdown::Write).unwrap();
    });
    // To the end: that nothing follows is passed on both ways too.
    socket.read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    assert!(back == sent, "{} bytes came back", back.len());
    assert_eq!(ends.recv().unwrap(), None);
    for knob in Knob::ALL {
        assert_eq!(bench.board.bites(knob), 0, "{knob:?}");
    }
    let mut open = bench.open();
    assert!(bench.proxy.process().is_alive());
    drop(bench.proxy.child().stdin.take());
    let end = bench.proxy.ends_within(60_000).unwrap().expect("its pipe has ended");
    assert!(end.success(), "{end}");
    assert_eq!(open.read(&mut [0]).unwrap(), 0, "its connections end with it");
}

#[test]
fn a_proxy_ends_when_its_time_is_over() {
    let mut bench = Bench::new("life", echo().0, 300);
    let end = bench.proxy.ends_within(60_000).unwrap().expect("its time is over");
    assert!(end.success(), "{end}");
}

#[test]
fn a_reset_is_seen_at_both_ends_and_is_over_when_it_is_over() {
    let (to, ends) = echo();
    let bench = Bench::new("reset", to, 60_000);
    let (mut one, mut two) = (bench.open(), bench.open());
    bench.board.set(Knob::ProxyReset, 1);
    is_reset(&mut one);
    is_reset(&mut two);
    assert_eq!([ends.recv().unwrap(), ends.recv().unwrap()], [Some(ErrorKind::ConnectionReset); 2]);
    is_reset(&mut bench.connect());
    assert_eq!(bench.board.bites(Knob::ProxyReset), 3);
    bench.board.set(Knob::ProxyReset, 0);
    // Nobody says when the proxy looks: one that comes before is reset.
    let opens = || {
        let mut socket = bench.connect();
        socket.write_all(&[1]).and_then(|()| socket.read_exact(&mut [0])).is_ok()
    };
    assert!(within(60_000, opens));
}

#[test]
fn a_reset_of_one_end_is_passed_on_and_so_is_a_peer_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::new("passed-on", listener.local_addr().unwrap(), 60_000);
    let mut near = bench.connect();
    let (far, _) = listener.accept().unwrap();
    near.write_all(&[1]).unwrap();
    let came = || far.peek(&mut [0]).is_ok_and(|bytes| bytes == 1);
    assert!(within(60_000, came));
    // Closed with a byte unread: Linux says RST.
    drop(far);
    is_reset(&mut near);
    drop(listener);
    is_reset(&mut bench.connect());
    assert_eq!(bench.board.bites(Knob::ProxyReset), 0, "it was nobody's fault");
}

#[test]
fn half_open_connections_stay_carry_nothing_and_lose_nothing() {
    let bench = Bench::new("half-open", echo().0, 60_000);
    let mut old = bench.open();
    let idle = bench.open();
    bench.board.set(Knob::ProxyHalfOpen, 1);
    let mut new = bench.connect();
    let sent = [random(100_000), random(100_000)];
    for (socket, data) in [&mut old, &mut new].into_iter().zip(&sent) {
        socket.write_all(data).unwrap();
        is_silent(socket);
    }
    // The idle one had nothing that could be held.
    assert!(within(60_000, || bench.board.bites(Knob::ProxyHalfOpen) == 2));
    bench.board.set(Knob::ProxyHalfOpen, 0);
    for (socket, data) in [&mut old, &mut new].into_iter().zip(&sent) {
        let mut back = vec![0; data.len()];
        socket.read_exact(&mut back).unwrap();
        assert!(back == *data);
    }
    [old, new, idle].iter_mut().for_each(ping);
    assert_eq!(bench.board.bites(Knob::ProxyHalfOpen), 2);
}

#[test]
fn latency_is_added_each_way_and_keeps_the_order() {
    let bench = Bench::new("latency", echo().0, 60_000);
    let mut socket = bench.open();
    let latency_ns = 60 * MS;
    bench.board.set(Knob::ProxyLatencyNs, latency_ns);
    let from_ns = monotonic_ns();
    ping(&mut socket);
    let took_ns = monotonic_ns() - from_ns;
    assert!(took_ns >= 2 * latency_ns, "{took_ns}");
    assert!(bench.board.bites(Knob::ProxyLatencyNs) >= 2);
    // Many pieces at once, with a latency that changes under way.
    let (sent, mut back) = (random(300_000), vec![0; 300_000]);
    let (mut way, data) = (socket.try_clone().unwrap(), sent.clone());
    let writer = std::thread::spawn(move || {
        data.chunks(1_000).for_each(|piece| way.write_all(piece).unwrap());
    });
    for (part, ms) in back.chunks_mut(100_000).zip([60, 20, 90]) {
        bench.board.set(Knob::ProxyLatencyNs, ms * MS);
        socket.read_exact(part).unwrap();
    }
    writer.join().unwrap();
    assert!(back == sent);
    // Without it what waits is let go.
    bench.board.set(Knob::ProxyLatencyNs, 3_600_000 * MS);
    socket.write_all(b"in order").unwrap();
    is_silent(&mut socket);
    bench.board.set(Knob::ProxyLatencyNs, 0);
    let mut back = [0; 8];
    socket.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"in order");
}

#[test]
fn one_connection_too_many_is_reset_and_counted() {
    let bench = Bench::new("bound", echo().0, 60_000);
    let mut open: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| bench.open()).collect();
    assert_eq!(bench.board.proxy_refused(), 0);
    is_reset(&mut bench.connect());
    assert_eq!(bench.board.proxy_refused(), 1);
    open.iter_mut().for_each(ping);
    drop(open.pop());
    // Its place is free when both of its ends are.
    let opens = || {
        let mut socket = bench.connect();
        socket.write_all(&[1]).and_then(|()| socket.read_exact(&mut [0])).is_ok()
    };
    assert!(within(60_000, opens));
}

/// A receiver that does not read stops its sender, and not the proxy's memory.
#[test]
fn what_waits_in_a_proxy_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::new("pressure", listener.local_addr().unwrap(), 60_000);
    let mut near = bench.connect();
    let (mut far, _) = listener.accept().unwrap();
    near.set_write_timeout(Some(Duration::from_millis(NEVER_MS))).unwrap();
    // Of buffers in the kernel there are a few MB at most each way (tcp_rmem, tcp_wmem).
    let (piece, most) = ([7; 65_536], 256 << 20);
    let mut sent = 0;
    while sent < most {
        match near.write(&piece) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < most, "nobody reads, and all of it was taken");
    near.shutdown(Shutdown::Write).unwrap();
    let mut came = 0;
    let mut piece = vec![0; 65_536];
    loop {
        match far.read(&mut piece).unwrap() {
            0 => break,
            bytes => came += bytes,
        }
    }
    assert_eq!(came, sent);
}
