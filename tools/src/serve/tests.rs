//! The server against scrapers and against strangers, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::*;

fn start() -> (Server, SocketAddr) {
    let address = parse("127.0.0.1:0").expect("an address");
    let server = Server::start(&address, SharedTotals::default()).expect("a free port");
    let at = server.url.trim_start_matches("http://").trim_end_matches("/metrics");
    let at = at.parse().expect("its address");
    (server, at)
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("it listens");
    // Only so that a broken server ends the test.
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream
}

/// All that comes back; a reset counts as the end.
fn ask(mut stream: TcpStream, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

fn scraped(at: SocketAddr) -> bool {
    ask(connect(at), GET).starts_with("HTTP/1.1 200 OK\r\n")
}

#[test]
fn a_scraper_gets_the_dialect_that_it_accepts_and_its_length() {
    let (_server, at) = start();
    let text = ask(connect(at), GET);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert!(body.contains("# TYPE tailbeam_requests_total counter") && !body.contains("# EOF"));
    let open = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text\r\n\r\n";
    let text = ask(connect(at), open);
    assert!(text.contains("application/openmetrics-text; version=1.0.0"), "{text}");
    assert!(
        text.contains("# TYPE tailbeam_requests counter") && text.ends_with("# EOF\n"),
        "{text}"
    );
    let head = ask(connect(at), b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n") && !head.contains("Content-Length: 0"), "{head}");
}

#[test]
fn what_is_no_request_is_refused_and_the_next_one_is_served() {
    let (_server, at) = start();
    let long = [b"GET /metrics HTTP/1.1\r\nA: ", vec![b'x'; 3 * HEAD_MAX].as_slice()].concat();
    for (bytes, status) in [
        (&b"\x16\x03\x01garbage"[..], "400"),
        (b"GET /other HTTP/1.1\r\n\r\n", "404"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (&long, "431"),
    ] {
        let answer = ask(connect(at), bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    }
    // Who leaves in the middle, and who leaves at once.
    drop(connect(at));
    let mut half = connect(at);
    half.write_all(b"GET /met").expect("written");
    drop(half);
    assert!(scraped(at));
}

#[test]
fn clients_that_hold_their_connection_keep_nobody_out() {
    let (_server, at) = start();
    let mut slow: Vec<TcpStream> = (0..3 * CONNECTIONS_MAX).map(|_| connect(at)).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET /metr");
    }
    assert!((0..5).all(|_| scraped(at)), "beside {} that wait", slow.len());
    // The first ones gave way: the other end is closed.
    let mut rest = Vec::new();
    let ended = slow[0].read_to_end(&mut rest);
    assert!(ended.is_err() || rest.is_empty(), "{rest:?}");
}

#[test]
fn a_request_that_takes_for_ever_ends_by_its_deadline() {
    let connection = || {
        let (one, other) = UnixStream::pair().expect("a pair");
        other.set_nonblocking(true).expect("non-blocking");
        (
            one,
            Connection {
                stream: Stream::Unix(other),
                phase: Phase::Reading(Vec::new()),
                until_ns: 7,
            },
        )
    };
    let (mut client, mut served) = connection();
    let totals = SharedTotals::default();
    // A byte at a time it is never whole, and never more than its bound is kept.
    for byte in b"GET /metrics HTTP/1.1\r\n".iter().chain([b'A'; 64].iter()) {
        client.write_all(&[*byte]).expect("written");
        assert!(served.go_on(&totals));
    }
    assert!(matches!(&served.phase, Phase::Reading(bytes) if bytes.len() < HEAD_MAX));
    assert!(served.go_on(&totals), "nothing came, which is no end");
    assert!(served.until_ns == 7, "no byte moves the deadline");
    drop(client);
    assert!(!served.go_on(&totals), "the client left");
}

#[test]
fn a_unix_socket_serves_and_is_gone_afterwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metrics.sock");
    let address = parse(path.to_str().expect("text")).expect("a path");
    for _ in 0..2 {
        let server = Server::start(&address, SharedTotals::default()).expect("bound");
        assert!(Server::start(&address, SharedTotals::default()).is_err(), "somebody serves it");
        let mut stream = UnixStream::connect(&path).expect("it listens");
        stream.write_all(GET).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        drop(server);
        assert!(!path.exists());
    }
    // What a killed run leaves is taken over.
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists() && Server::start(&address, SharedTotals::default()).is_ok());
}
