//! Real traffic on rings that delay, reorder, shorten, fail, cancel and refuse operations, and on one that
//! can do no more than an old kernel: what arrives is what was sent, or an error says so, and nothing is
//! left behind.

use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::error::{OpError, StartError};
use crate::fs::File;
use crate::net::{TcpListener, TcpStream};
use crate::observe::NoObserver;
use crate::ring::Ring;
use crate::ring::faults::{RingFault, RingFaultCounts, RingFaults};
use crate::ring::twin::{self, Fault};
use crate::runtime::{MakeRing, Runtime};
use crate::{Config, Cores, Cx};

const CONNECTIONS: usize = 12;
const LEN: usize = 2_000;

/// What became of the connections.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    whole: usize,
    failed: usize,
}

async fn echo(stream: TcpStream) -> Result<(), OpError> {
    while let Some(lease) = stream.recv().await? {
        stream.send(lease).await.0?;
    }
    Ok(())
}

/// Sends and takes back `LEN` bytes, twice.
async fn exchange(cx: &mut Cx<'_>, address: std::net::SocketAddr) -> Result<(), OpError> {
    let stream = TcpStream::connect(cx, address).await?;
    for _ in 0..2 {
        let bytes: Vec<u8> = (0..=250).cycle().take(LEN).collect();
        let (count, bytes) = stream.send(bytes).await;
        assert_eq!(bytes.len(), LEN, "the buffer comes back whatever happened");
        assert_eq!(count?, LEN);
        let mut back = Vec::new();
        while back.len() < LEN {
            let eof = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            back.extend_from_slice(&stream.recv().await?.ok_or_else(eof)?);
        }
        assert!(back == bytes, "no byte is lost, doubled or out of place");
    }
    Ok(())
}

async fn write_and_read(cx: &mut Cx<'_>, path: &std::path::Path) -> Result<(), OpError> {
    let file = File::create(cx, path).await?;
    let bytes: Vec<u8> = (0..=250).cycle().take(LEN).collect();
    let (written, bytes) = file.write_at(bytes, 7).await;
    assert_eq!(written?, LEN);
    file.sync_data().await?;
    let (read, back) = file.read_at(vec![0; LEN], 7).await;
    assert_eq!(read?, LEN);
    assert!(back == bytes);
    file.close().await
}

fn traffic(make: MakeRing) -> Option<Outcome> {
    traffic_under(make, None)
}

/// Connections and a file on a faulty ring; `None` where there are no rings.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn traffic_under(make: MakeRing, ring_faults: Option<Arc<RingFaults>>) -> Option<Outcome> {
    let core = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
    let cores = Cores::List(vec![core]);
    let config = Config { cores, buffers: 16, ring_faults, ..Config::default() };
    let runtime = match Runtime::start_on(config, |_| NoObserver, make) {
        Err(StartError::Missing) => {
            let required = std::env::var_os("TAILBEAM_TEST_RINGS").is_some();
            assert!(!required, "TAILBEAM_TEST_RINGS is set and this kernel has no io_uring");
            eprintln!("SKIPPED: this kernel has no io_uring");
            return None;
        }
        runtime => runtime.expect("has io_uring"),
    };
    let (done, finished) = mpsc::channel::<bool>();
    let path = std::env::temp_dir().join(format!(
        "tailbeam-faults-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let written = path.clone();
    let start = move |cx: &mut Cx<'_>| {
        let listener = TcpListener::bind(cx, "127.0.0.1:0".parse().expect("an address"));
        let listener = Rc::new(listener.expect("a free port"));
        let address = listener.local_addr().expect("bound");
        let serve = async move |cx: &mut Cx<'_>| {
            loop {
                // A failed accept is tried again: the fault is in the ring and not in the listener.
                if let Ok(stream) = listener.accept().await {
                    let run = async move |_: &mut Cx<'_>| drop(echo(stream).await);
                    assert!(cx.spawn_with(run).is_ok(), "room");
                }
            }
        };
        assert!(cx.spawn_with(serve).is_ok(), "room");
        for _ in 0..CONNECTIONS {
            let done = done.clone();
            let run = async move |cx: &mut Cx<'_>| {
                let _ = done.send(exchange(cx, address).await.is_ok());
            };
            assert!(cx.spawn_with(run).is_ok(), "room");
        }
        let run = async move |cx: &mut Cx<'_>| {
            let _ = done.send(write_and_read(cx, &written).await.is_ok());
        };
        assert!(cx.spawn_with(run).is_ok(), "room");
    };
    runtime.run_on(0, start).expect("lives");
    let mut outcome = Outcome::default();
    for _ in 0..=CONNECTIONS {
        match finished.recv_timeout(Duration::from_secs(20)).expect("ends, and does not panic") {
            true => outcome.whole += 1,
            false => outcome.failed += 1,
        }
    }
    let _ = std::fs::remove_file(path);
    let report = runtime.shutdown();
    assert_eq!((report.shards[0].ops_leaked, report.shards[0].agents_panicked), (0, 0));
    Some(outcome)
}

const ALL: Outcome = Outcome { whole: CONNECTIONS + 1, failed: 0 };

#[test]
fn no_byte_is_lost_when_completions_are_late_or_out_of_order() {
    for make in [
        (|entries, event| twin::make(entries, event, Fault::None)) as MakeRing,
        |entries, event| twin::make(entries, event, Fault::OpsDelayed),
        |entries, event| twin::make(entries, event, Fault::OpsReordered),
        |entries, event| twin::make(entries, event, Fault::EarlyWakes),
    ] {
        assert!(traffic(make).is_none_or(|outcome| outcome == ALL));
    }
}

#[test]
fn no_byte_is_lost_when_operations_are_short_or_refused() {
    for make in [
        (|entries, event| twin::make(entries, event, Fault::OpsShort)) as MakeRing,
        |entries, event| twin::make(entries, event, Fault::OpsUnqueued),
        |entries, event| twin::make(entries, event, Fault::EnterFails),
        |_, event| twin::make(2, event, Fault::None),
    ] {
        assert!(traffic(make).is_none_or(|outcome| outcome == ALL));
    }
}

#[test]
fn a_kernel_without_multishot_carries_the_same_traffic() {
    let make: MakeRing = |entries, event| twin::make(entries, event, Fault::OpsPlain);
    assert!(traffic(make).is_none_or(|outcome| outcome == ALL));
}

#[test]
fn failed_operations_are_errors_and_leave_nothing_behind() {
    let make: MakeRing = |entries, event| twin::make(entries, event, Fault::OpsFail);
    let Some(outcome) = traffic(make) else { return };
    assert!(outcome.failed > 0, "the fault must have happened: {outcome:?}");
}

/// A cancellation of the ring's own may come too late, or find a receive or an accept, which are asked
/// again: how many connections fail is not known, and that all end without a trace is.
#[test]
fn cancelled_operations_leave_nothing_behind() {
    let make: MakeRing = |entries, event| twin::make(entries, event, Fault::OpsCancelled);
    let all = ALL.whole;
    assert!(traffic(make).is_none_or(|outcome| outcome.whole + outcome.failed == all));
}

/// Traffic while this is wrong with the ring; what became of it, and what the faults have done.
fn suffers(fault: RingFault) -> Option<(Outcome, RingFaultCounts)> {
    let faults = Arc::new(RingFaults::new(11));
    faults.set(fault);
    let make: MakeRing = |entries, event| Ok(Box::new(Ring::new(entries, event)?));
    let outcome = traffic_under(make, Some(Arc::clone(&faults)))?;
    Some((outcome, faults.counts()))
}

const BOTH: RingFault = RingFault {
    files: true,
    sockets: true,
    fail_ppm: 0,
    errno: 0,
    short_ppm: 0,
    late_ppm: 0,
    late_ns: 0,
    reorder: false,
};

#[test]
fn no_byte_is_lost_where_half_is_short_and_late_and_each_is_counted() {
    let half = 500_000;
    let fault = RingFault { short_ppm: half, late_ppm: half, late_ns: 3_000_000, ..BOTH };
    let Some((outcome, counts)) = suffers(fault) else { return };
    assert_eq!((outcome, counts.failed), (ALL, 0));
    assert!(counts.shortened > 20 && counts.late > 20 && counts.overtook > 5, "{counts:?}");
    // One file: opened, written in a few pieces, synced, read in a few.
    let Some((outcome, counts)) = suffers(RingFault { sockets: false, ..fault }) else { return };
    assert_eq!(outcome, ALL);
    assert!((1..=40).contains(&(counts.shortened + counts.late)), "a file suffers: {counts:?}");
    let only_late = RingFault { short_ppm: 0, late_ppm: 1_000_000, files: false, ..fault };
    let Some((outcome, counts)) = suffers(only_late) else { return };
    assert_eq!((outcome, counts.shortened), (ALL, 0));
    assert!(counts.late > 40 && counts.reversed == 0, "{counts:?}");
    let Some((outcome, counts)) = suffers(RingFault { reorder: true, ..BOTH }) else { return };
    assert_eq!((outcome, counts.late, counts.overtook), (ALL, 0, 0));
    assert!(counts.reversed > 5, "{counts:?}");
    let Some((outcome, counts)) = suffers(BOTH) else { return };
    assert_eq!((outcome, counts), (ALL, RingFaultCounts::default()), "nothing is wrong");
}

#[test]
fn what_fails_is_an_error_of_the_kind_that_was_set_and_the_rest_is_whole() {
    let fault = RingFault { fail_ppm: 100_000, errno: 28, ..BOTH };
    let Some((outcome, counts)) = suffers(fault) else { return };
    assert!(outcome.failed > 0 && counts.failed >= outcome.failed as u64, "{outcome:?} {counts:?}");
    assert_eq!((counts.shortened, counts.late), (0, 0));
    let all = RingFault { sockets: false, fail_ppm: 1_000_000, ..fault };
    let Some((outcome, counts)) = suffers(all) else { return };
    let connections = Outcome { whole: CONNECTIONS, failed: 1 };
    assert_eq!((outcome, counts.failed), (connections, 1), "the file cannot be opened");
}

#[test]
fn an_error_that_is_none_is_never_a_success() {
    for errno in [0, 4_096, u32::MAX] {
        let fault = RingFault { sockets: false, fail_ppm: 1_000_000, errno, ..BOTH };
        let Some((outcome, _)) = suffers(fault) else { return };
        assert_eq!(outcome, Outcome { whole: CONNECTIONS, failed: 1 }, "{errno}");
    }
}

#[test]
fn a_shard_that_ends_does_not_wait_for_what_is_late_and_leaves_nothing() {
    // The listener's accept lives when the shard ends, and what is told of its end would be late, too.
    let fault = RingFault { late_ppm: 1_000_000, late_ns: 300_000_000, ..BOTH };
    let Some((outcome, counts)) = suffers(fault) else { return };
    assert_eq!(outcome, ALL);
    assert!(counts.late > 0, "{counts:?}");
}
