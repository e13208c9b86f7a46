//! Sockets and files on the real kernel.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use tailbeam_runtime::fs::File;
use tailbeam_runtime::net::{
    Lease, ListenOptions, TcpListener, TcpStream, UnixListener, UnixStream,
};
use tailbeam_runtime::{Agent, Config, Cores, Cx, Idle, OpError, Runtime, ShardStats, Stop};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Spawns `run` on shard 0; its outcome comes on a channel.
fn spawn<F, R>(runtime: &Runtime, run: F) -> Receiver<R>
where
    F: AsyncFnOnce(&mut Cx<'_>) -> R + Send + 'static,
    R: Send + 'static,
{
    let (done, finished): (Sender<R>, _) = mpsc::channel();
    let start = move |cx: &mut Cx<'_>| {
        let run = async move |cx: &mut Cx<'_>| drop(done.send(run(cx).await));
        cx.spawn_with(run).is_ok()
    };
    assert!(runtime.run_on(0, start).expect("lives"), "room");
    finished
}

fn go<F: AsyncFnOnce(&mut Cx<'_>) + 'static>(cx: &mut Cx<'_>, run: F) {
    assert!(cx.spawn_with(run).is_ok(), "room");
}

/// Runs `run` on shard 0 to its end.
fn run<F, R>(runtime: &Runtime, run: F) -> R
where
    F: AsyncFnOnce(&mut Cx<'_>) -> R + Send + 'static,
    R: Send + 'static,
{
    spawn(runtime, run).recv_timeout(PATIENCE).expect("ends, and does not panic")
}

fn one_core() -> Config {
    let core = match std::thread::available_parallelism() {
        Ok(cores) if cores.get() > 1 => 1,
        _ => 0,
    };
    Config { cores: Cores::List(vec![core]), ..Config::default() }
}

fn stats(runtime: &Runtime) -> ShardStats {
    runtime.stats()[0]
}

/// Waits until shard 0 says so.
fn until(runtime: &Runtime, what: &str, says: impl Fn(&ShardStats) -> bool) {
    common::eventually(what, || {
        // A job makes the shard publish before it sleeps again.
        runtime.run_on(0, |_| ()).expect("lives");
        says(&stats(runtime))
    });
}

fn loopback() -> net::SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// Bytes whose order can be checked.
fn pattern(len: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(len).collect()
}

/// A directory of its own, removed when dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tailbeam-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn errno(error: &OpError) -> Option<i32> {
    error.io().and_then(std::io::Error::raw_os_error)
}

/// Receives exactly `len` bytes.
async fn take(stream: &TcpStream, len: usize) -> Result<Vec<u8>, OpError> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let piece = stream.recv().await?.ok_or(OpError::Io(ErrorKind::UnexpectedEof.into()))?;
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len(), len);
    Ok(bytes)
}

async fn echo(stream: &TcpStream) -> Result<(), OpError> {
    while let Some(lease) = stream.recv().await? {
        stream.send(lease).await.0?;
    }
    stream.shutdown_send()
}

#[test]
fn a_file_keeps_what_was_written() {
    let Some(runtime) = common::start(one_core()) else { return };
    let dir = Dir::new("file");
    let path = dir.file("log");
    let written = run(&runtime, async move |cx: &mut Cx<'_>| -> Result<u64, OpError> {
        let file = File::create(cx, &path).await?;
        file.allocate(0, 1 << 20).await?;
        let large: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let (count, large) = file.write_at(large, 4_096).await;
        assert_eq!(count?, 400_000);
        file.sync_data().await?;
        let (count, buffer) = file.read_at(vec![0; 400_000], 4_096).await;
        assert_eq!((count?, &buffer), (400_000, &large));
        // Past the end nothing is read; up to it, what there is.
        assert_eq!(file.read_at(vec![0; 8], 1 << 21).await.0?, 0);
        assert_eq!(file.read_at(vec![1; 100], (1 << 20) - 10).await.0?, 10);
        file.sync_all().await?;
        file.close().await?;
        let again = File::open(cx, &path).await?;
        let (refused, back) = again.write_at(vec![1, 2], 0).await;
        assert_eq!(
            (errno(&refused.expect_err("open for reading")), back),
            (Some(libc::EBADF), vec![1, 2])
        );
        drop(again);
        let again = File::open_or_create(cx, &path).await?;
        assert_eq!(again.write_at(b"x", 0).await.0?, 1);
        again.close().await?;
        Ok(std::fs::metadata(&path)?.len())
    });
    assert_eq!(written.expect("all of it works"), 1 << 20);
    assert_eq!(std::fs::read(dir.file("log")).expect("there")[0], b'x');
    let report = runtime.shutdown();
    assert!(report.shards[0].drained && report.shards[0].ops_leaked == 0);
}

#[test]
fn a_shard_that_never_sleeps_asks_the_kernel_too() {
    let config = Config { idle: Idle::Poll, ..one_core() };
    let Some(runtime) = common::start(config) else { return };
    let dir = Dir::new("poll");
    let path = dir.file("log");
    let read = run(&runtime, async move |cx: &mut Cx<'_>| -> Result<Vec<u8>, OpError> {
        let file = File::create(cx, &path).await?;
        file.write_at(pattern(5_000), 0).await.0?;
        file.sync_data().await?;
        let (count, buffer) = File::open(cx, &path).await?.read_at(vec![0; 5_000], 0).await;
        assert_eq!(count?, 5_000);
        Ok(buffer)
    });
    assert_eq!(read.expect("no error"), pattern(5_000));
}

#[test]
fn errors_of_files_are_values() {
    let Some(runtime) = common::start(one_core()) else { return };
    let codes = run(&runtime, async move |cx: &mut Cx<'_>| {
        let missing = File::open(cx, Path::new("/nonexistent/file")).await.expect_err("missing");
        let zero = File::open(cx, Path::new("a\0b")).await.expect_err("not a path");
        assert!(zero.io().is_some_and(|error| error.kind() == ErrorKind::InvalidInput));
        let full = File::open_or_create(cx, Path::new("/dev/full")).await.expect("a device");
        let (refused, back) = full.write_at(vec![5; 3], 0).await;
        assert_eq!(back, [5; 3]);
        (errno(&missing), errno(&refused.expect_err("always full")))
    });
    assert_eq!(codes, (Some(libc::ENOENT), Some(libc::ENOSPC)));
}

/// 300 connections at once, each with 20 requests of its own length.
#[test]
fn many_tcp_connections_echo_in_one_process() {
    let Some(runtime) = common::start(Config::default()) else { return };
    let (done, finished) = mpsc::channel();
    let shards = runtime.shards();
    let mut addresses = Vec::new();
    for shard in 0..shards {
        let listen = |cx: &mut Cx<'_>| {
            let listener = TcpListener::bind(cx, loopback()).expect("a free port");
            let address = listener.local_addr().expect("bound");
            let run = async move |cx: &mut Cx<'_>| {
                while let Ok(stream) = listener.accept().await {
                    let run = async move |_: &mut Cx<'_>| echo(&stream).await.expect("echoes");
                    go(cx, run);
                }
            };
            go(cx, run);
            address
        };
        addresses.push(runtime.run_on(shard, listen).expect("lives"));
    }
    for connection in 0..300usize {
        let (done, address) = (done.clone(), addresses[connection % shards]);
        let start = move |cx: &mut Cx<'_>| {
            let run = async move |cx: &mut Cx<'_>| {
                let stream = TcpStream::connect(cx, address).await.expect("listens");
                assert_eq!(stream.peer_addr().expect("connected"), address);
                for round in 0..20usize {
                    let sent = pattern(connection * 20 + round + 1);
                    let (count, sent) = stream.send(sent).await;
                    assert_eq!(count.expect("sent"), sent.len());
                    assert_eq!(take(&stream, sent.len()).await.expect("comes back"), sent);
                }
                stream.shutdown_send().expect("connected");
                assert!(stream.recv().await.expect("an orderly end").is_none());
                done.send(connection).expect("is waited for");
            };
            go(cx, run);
        };
        runtime.run_on((connection / 2) % shards, start).expect("lives");
    }
    drop(done);
    let mut ended: Vec<usize> =
        (0..300).map(|_| finished.recv_timeout(PATIENCE).expect("ends")).collect();
    ended.sort_unstable();
    assert_eq!(ended, (0..300).collect::<Vec<_>>());
    let report = runtime.shutdown();
    assert!(report.shards.iter().all(|shard| shard.ops_leaked == 0));
}

#[test]
fn unix_connections_echo_and_large_buffers_come_whole() {
    let Some(runtime) = common::start(one_core()) else { return };
    let dir = Dir::new("unix");
    let path = dir.file("socket");
    let total = run(&runtime, async move |cx: &mut Cx<'_>| -> Result<usize, OpError> {
        let listener = UnixListener::bind(cx, &path)?;
        assert_eq!(
            errno(&UnixListener::bind(cx, &path).expect_err("exists")),
            Some(libc::EADDRINUSE)
        );
        let client = Rc::new(UnixStream::connect(cx, &path).await?);
        let server = listener.accept().await?;
        let sender = Rc::clone(&client);
        let run = async move |_: &mut Cx<'_>| {
            let (count, _) = sender.send(vec![3; 1 << 20]).await;
            assert_eq!(count.expect("sent"), 1 << 20);
            sender.shutdown_send().expect("connected");
        };
        go(cx, run);
        let mut total = 0;
        while let Some(lease) = server.recv().await? {
            assert!(lease.iter().all(|&byte| byte == 3));
            total += lease.len();
        }
        let (one, two) = UnixStream::pair(cx)?;
        drop(two);
        assert!(one.recv().await?.is_none());
        Ok(total)
    });
    assert_eq!(total.expect("works"), 1 << 20);
}

/// Above 8 KiB a send asks for no copy; both halves of one connection work at the same time.
#[test]
fn large_sends_and_receives_go_on_at_the_same_time() {
    let Some(runtime) = common::start(one_core()) else { return };
    const LEN: usize = 3 << 20;
    run(&runtime, async move |cx: &mut Cx<'_>| {
        let listener = TcpListener::bind(cx, loopback()).expect("a free port");
        let client =
            TcpStream::connect(cx, listener.local_addr().expect("bound")).await.expect("listens");
        let server = listener.accept().await.expect("connects");
        go(cx, async move |_: &mut Cx<'_>| echo(&server).await.expect("echoes"));
        let client = Rc::new(client);
        let sender = Rc::clone(&client);
        let sent = pattern(LEN);
        let copy = sent.clone();
        let run = async move |_: &mut Cx<'_>| {
            let (count, sent) = sender.send(sent).await;
            assert_eq!((count.expect("sent"), sent.len()), (LEN, LEN));
        };
        go(cx, run);
        assert!(take(&client, LEN).await.expect("comes back") == copy);
    });
}

#[test]
fn a_second_future_on_one_side_is_refused() {
    let Some(runtime) = common::start(one_core()) else { return };
    run(&runtime, async move |cx: &mut Cx<'_>| {
        let (one, _two) = UnixStream::pair(cx).expect("descriptors");
        let one = Rc::new(one);
        let (other, waits) = (Rc::clone(&one), Rc::new(std::cell::Cell::new(false)));
        let seen = Rc::clone(&waits);
        let run = async move |_: &mut Cx<'_>| {
            let mut recv = std::pin::pin!(other.recv());
            std::future::poll_fn(|context| {
                seen.set(true);
                recv.as_mut().poll(context)
            })
            .await
            .expect("the peer ends")
        };
        go(cx, async move |cx: &mut Cx<'_>| drop(run(cx).await));
        while !waits.get() {
            pause(cx).await;
        }
        assert!(matches!(one.recv().await, Err(OpError::Busy)));
    });
}

/// Lets the shard do what else there is, and hand to the kernel what was asked for.
async fn pause(cx: &mut Cx<'_>) {
    let soon_ns = cx.fresh_ns() + 1_000_000;
    cx.sleep_until(soon_ns).await.expect("room");
}

/// Polls a future once and drops it.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn a_dropped_receive_loses_no_byte_and_a_dropped_stream_no_buffer() {
    let Some(runtime) = common::start(one_core()) else { return };
    run(&runtime, async move |cx: &mut Cx<'_>| {
        let (one, two) = UnixStream::pair(cx).expect("descriptors");
        assert!(poll_once(one.recv()).await.is_none());
        two.send(b"kept").await.0.expect("sent");
        assert_eq!(&*one.recv().await.expect("comes").expect("no end"), b"kept");
        assert!(poll_once(one.recv()).await.is_none());
        // Unread bytes and a standing receive go with the stream.
        two.send(b"lost").await.0.expect("sent");
    });
    until(&runtime, "slots and buffers come back", |s| (s.ops_live, s.buffers_in_use) == (0, 0));
}

/// A thousand receives, connects, accepts and reads, each dropped while the kernel has it.
#[test]
fn a_thousand_cancels_leave_no_slot_behind() {
    let Some(runtime) = common::start(one_core()) else { return };
    for _ in 0..10 {
        run(&runtime, async move |cx: &mut Cx<'_>| {
            let listener = TcpListener::bind(cx, loopback()).expect("a free port");
            assert!(poll_once(listener.accept()).await.is_none());
            let mut kept = Vec::new();
            for _ in 0..99 {
                let (one, two) = UnixStream::pair(cx).expect("descriptors");
                assert!(poll_once(one.recv()).await.is_none());
                kept.push((one, two));
            }
            // The loop flushes them to the kernel before they are dropped.
            pause(cx).await;
        });
    }
    until(&runtime, "every slot comes back", |s| s.ops_live == 0);
    let stats = stats(&runtime);
    assert!(stats.ops_cancelled >= 990, "{} were cancelled", stats.ops_cancelled);
    assert_eq!(stats.ops_submitted, stats.ops_completed);
}

#[test]
fn a_reset_by_the_peer_is_an_error_on_both_sides() {
    let Some(runtime) = common::start(one_core()) else { return };
    let codes = run(&runtime, async move |cx: &mut Cx<'_>| {
        let listener = TcpListener::bind(cx, loopback()).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let client = net::TcpStream::connect(address).expect("listens");
        let server = listener.accept().await.expect("connects");
        server.send(b"unread by the client").await.0.expect("sent");
        // Closing with unread bytes resets the connection.
        let mut peek = [0; 4];
        client.peek(&mut peek).expect("sent");
        drop(client);
        let received = errno(&server.recv().await.expect_err("was reset"));
        let mut sent = server.send(vec![0; 100]).await;
        if sent.0.is_ok() {
            sent = server.send(vec![0; 100]).await;
        }
        assert_eq!(sent.1.len(), 100, "the buffer comes back");
        let refused = TcpStream::connect(cx, "127.0.0.1:1".parse().expect("an address")).await;
        (
            received,
            errno(&sent.0.expect_err("was reset")),
            errno(&refused.expect_err("nobody listens")),
        )
    });
    assert_eq!(codes.0, Some(libc::ECONNRESET));
    assert!(matches!(codes.1, Some(libc::EPIPE | libc::ECONNRESET)), "{:?}", codes.1);
    assert_eq!(codes.2, Some(libc::ECONNREFUSED));
}

#[test]
fn after_half_a_close_the_other_half_works() {
    let Some(runtime) = common::start(one_core()) else { return };
    run(&runtime, async move |cx: &mut Cx<'_>| {
        let listener = TcpListener::bind(cx, loopback()).expect("a free port");
        let client =
            TcpStream::connect(cx, listener.local_addr().expect("bound")).await.expect("listens");
        let server = listener.accept().await.expect("connects");
        client.shutdown_send().expect("connected");
        assert!(server.recv().await.expect("an orderly end").is_none());
        assert!(server.recv().await.expect("it stays").is_none());
        server.send(b"still here").await.0.expect("sent");
        assert_eq!(take(&client, 10).await.expect("comes"), b"still here");
        assert_eq!(errno(&client.send(b"x").await.0.expect_err("half closed")), Some(libc::EPIPE));
    });
}

#[test]
fn a_full_table_of_operations_gives_the_buffer_back() {
    let Some(runtime) = common::start(Config { ops_max: 2, ..one_core() }) else { return };
    run(&runtime, async move |cx: &mut Cx<'_>| {
        let (one, two) = UnixStream::pair(cx).expect("descriptors");
        assert!(poll_once(one.recv()).await.is_none());
        assert!(poll_once(two.recv()).await.is_none());
        let (refused, buffer) = one.send(vec![9; 5]).await;
        assert!(matches!(refused, Err(OpError::Full)));
        assert_eq!(buffer, [9; 5]);
        let missing = File::open(cx, Path::new("/dev/null")).await;
        assert!(matches!(missing, Err(OpError::Full)));
        drop(two);
        // Its slot comes back with the completion of its cancelled receive.
        assert!(one.recv().await.expect("an orderly end").is_none());
    });
    until(&runtime, "slots come back", |s| s.ops_live == 0);
    assert_eq!(stats(&runtime).ops_full, 2);
}

#[test]
fn a_shard_whose_buffers_are_all_held_receives_again_when_they_come_back() {
    let Some(runtime) = common::start(Config { buffers: 4, buffer_bytes: 16, ..one_core() }) else {
        return;
    };
    run(&runtime, async move |cx: &mut Cx<'_>| {
        let (one, two) = UnixStream::pair(cx).expect("descriptors");
        two.send(vec![1; 16 * 6]).await.0.expect("sent");
        let mut held: Vec<Lease> = Vec::new();
        while held.len() < 4 {
            held.push(one.recv().await.expect("comes").expect("no end"));
        }
        let (three, four) = UnixStream::pair(cx).expect("descriptors");
        four.send(b"late").await.0.expect("sent");
        assert!(poll_once(three.recv()).await.is_none());
        pause(cx).await;
        assert!(poll_once(three.recv()).await.is_none(), "no buffer is free");
        drop(held);
        assert_eq!(&*three.recv().await.expect("comes").expect("no end"), b"late");
        let mut left = 0;
        while left < 32 {
            left += one.recv().await.expect("comes").expect("no end").len();
        }
    });
    until(&runtime, "buffers come back", |s| (s.ops_live, s.buffers_in_use) == (0, 0));
    assert!(stats(&runtime).ops_starved > 0, "it must have happened");
}

/// Sends itself a message for ever.
struct Busy;

impl Agent for Busy {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop)
    }
}

#[test]
fn a_busy_shard_still_completes_operations() {
    let Some(runtime) = common::start(Config { drain_ns: 10_000_000, ..one_core() }) else {
        return;
    };
    let busy = runtime.spawn_on(0, || Busy).expect("room");
    runtime.run_on(0, move |cx| busy.try_send(cx, ()).expect("room")).expect("lives");
    until(&runtime, "it turns", |s| s.turns > 100_000);
    let parks = stats(&runtime).parks;
    run(&runtime, async move |cx: &mut Cx<'_>| {
        let listener = TcpListener::bind(cx, loopback()).expect("a free port");
        let client =
            TcpStream::connect(cx, listener.local_addr().expect("bound")).await.expect("listens");
        let server = listener.accept().await.expect("connects");
        go(cx, async move |_: &mut Cx<'_>| echo(&server).await.expect("echoes"));
        for _ in 0..200 {
            client.send(b"ping").await.0.expect("sent");
            assert_eq!(take(&client, 4).await.expect("comes back"), b"ping");
        }
    });
    assert_eq!(stats(&runtime).parks, parks, "it was busy all the while");
}

#[test]
fn an_idle_shard_without_operations_enters_no_kernel() {
    let Some(runtime) = common::start(Config { drain_ns: 10_000_000, ..one_core() }) else {
        return;
    };
    let busy = runtime.spawn_on(0, || Busy).expect("room");
    runtime.run_on(0, move |cx| busy.try_send(cx, ()).expect("room")).expect("lives");
    until(&runtime, "it turns", |s| s.turns > 100_000);
    let before = stats(&runtime);
    common::eventually("it turns on", || stats(&runtime).turns > before.turns + 1_000_000);
    assert_eq!(stats(&runtime).enters, before.enters);
}

#[test]
fn a_shutdown_takes_outstanding_operations_along() {
    let Some(runtime) = common::start(Config { drain_ns: 10_000_000, ..one_core() }) else {
        return;
    };
    let dropped = std::sync::Arc::new(AtomicU64::new(0));
    struct Counts(std::sync::Arc<AtomicU64>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let mut peers = Vec::new();
    for _ in 0..50 {
        let (near, far) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        peers.push(far);
        let counts = Counts(std::sync::Arc::clone(&dropped));
        let start = move |cx: &mut Cx<'_>| {
            let stream = UnixStream::from_std(cx, near).expect("blocks");
            let run = async move |_: &mut Cx<'_>| {
                let _counts = counts;
                // The peer reads nothing: both the send and the receive stay with the kernel.
                let stream = Rc::new(stream);
                let (sent, _) = stream.send(vec![0; 1 << 22]).await;
                drop(sent);
            };
            go(cx, run);
        };
        runtime.run_on(0, start).expect("lives");
    }
    until(&runtime, "the kernel has them", |s| s.ops_submitted >= 50);
    let report = runtime.shutdown();
    assert_eq!((report.shards[0].ops_leaked, report.shards[0].tasks_dropped), (0, 50));
    assert_eq!(dropped.load(Ordering::Relaxed), 50);
    for mut peer in peers {
        // The kernel has let go of the socket: the stream ends after what was sent.
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).expect("ends");
    }
}

/// Every shard listens at one address; the kernel spreads connections.
#[test]
fn shards_may_share_an_address() {
    let Some(runtime) = common::start(Config::default()) else { return };
    let shards = runtime.shards();
    let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
    let listen = move |cx: &mut Cx<'_>, address| {
        let listener = TcpListener::bind_with(cx, address, options).expect("shares");
        let address = listener.local_addr().expect("bound");
        let run = async move |_: &mut Cx<'_>| {
            while let Ok(stream) = listener.accept().await {
                stream.send(b"hello").await.0.expect("sent");
            }
        };
        go(cx, run);
        address
    };
    let mut address = loopback();
    for shard in 0..shards {
        address = runtime.run_on(shard, move |cx| listen(cx, address)).expect("lives");
    }
    for _ in 0..20 {
        let mut client = net::TcpStream::connect(address).expect("listens");
        client.write_all(b"x").expect("sent");
        let mut hello = [0; 5];
        client.read_exact(&mut hello).expect("comes");
        assert_eq!(&hello, b"hello");
    }
}
