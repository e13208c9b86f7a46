//! Keeps connections to an echo server busy, one request at a time on each, and says how fast it answers:
//! `cargo run --release -p tailbeam-runtime --example echo_client -- --connections 1000 --seconds 5`.
//! A request is counted when it begins after the first second (warm-up) and ends; its latency is from just
//! before its send until its last byte is back, the time in this process' queues included.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use tailbeam_runtime::net::TcpStream;
use tailbeam_runtime::{Config, Cx, NoObserver, OpError, Runtime};

/// Connections that are being made at once, so that no listen queue overflows.
const CONNECTORS: usize = 64;
const WARM_UP_NS: u64 = 1_000_000_000;
/// Sub-buckets of each power of two: 1.6 % is the largest error of a latency.
const SUB: usize = 64;

/// Latencies in ns, log-linear.
struct Latencies {
    counts: Vec<u64>,
    max_ns: u64,
}

impl Latencies {
    fn new() -> Self {
        Self { counts: vec![0; SUB * 64], max_ns: 0 }
    }

    fn record(&mut self, ns: u64) {
        self.max_ns = self.max_ns.max(ns);
        let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(SUB.ilog2() + 1);
        let bucket = shift as usize * SUB + usize::try_from(ns >> shift).unwrap_or(0);
        self.counts[bucket] += 1;
    }

    fn add(&mut self, other: &Self) {
        self.max_ns = self.max_ns.max(other.max_ns);
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, count)| *own += count);
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper end of the bucket that holds the quantile, ns.
    fn quantile(&self, share: f64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank within the count"
        )]
        let rank = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                let shift = (bucket / SUB).saturating_sub(1);
                let top = bucket - shift * SUB;
                return (((top as u64 + 1) << shift) - 1).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

/// What the connections of one shard share.
struct Load {
    latencies: RefCell<Latencies>,
    errors: Cell<u64>,
    running: Cell<usize>,
    waiting: RefCell<Vec<TcpStream>>,
    size: usize,
    seconds: u64,
}

/// One request after the other until the end.
async fn requests(cx: &mut Cx<'_>, stream: &TcpStream, load: &Load) -> Result<(), OpError> {
    let mut buffer = vec![7; load.size];
    let first_ns = cx.fresh_ns();
    let (from_ns, until_ns) =
        (first_ns + WARM_UP_NS, first_ns + WARM_UP_NS + load.seconds * 1_000_000_000);
    let mut sent_ns = first_ns;
    while sent_ns < until_ns {
        let (sent, back) = stream.send(buffer).await;
        (buffer, _) = (back, sent?);
        let mut left = load.size;
        while left > 0 {
            let eof = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            left -= stream.recv().await?.ok_or_else(eof)?.len();
        }
        let now_ns = cx.fresh_ns();
        if sent_ns >= from_ns {
            load.latencies.borrow_mut().record(now_ns - sent_ns);
        }
        sent_ns = now_ns;
    }
    Ok(())
}

/// Makes `count` connections one after the other; the last connector lets all begin.
async fn connect(
    cx: &mut Cx<'_>,
    address: SocketAddr,
    count: usize,
    load: Rc<Load>,
    done: mpsc::Sender<(Latencies, u64)>,
) {
    for _ in 0..count {
        match TcpStream::connect(cx, address).await {
            Ok(stream) => load.waiting.borrow_mut().push(stream),
            Err(_) => load.errors.set(load.errors.get() + 1),
        }
    }
    load.running.set(load.running.get() - 1);
    if load.running.get() > 0 {
        return;
    }
    let streams = load.waiting.take();
    load.running.set(streams.len());
    for stream in streams {
        let (load, done) = (Rc::clone(&load), done.clone());
        let run = async move |cx: &mut Cx<'_>| {
            if requests(cx, &stream, &load).await.is_err() {
                load.errors.set(load.errors.get() + 1);
            }
            load.running.set(load.running.get() - 1);
            if load.running.get() == 0 {
                let latencies = load.latencies.replace(Latencies::new());
                let _ = done.send((latencies, load.errors.get()));
            }
        };
        drop(cx.spawn_with(run));
    }
}

struct Flags {
    address: SocketAddr,
    connections: usize,
    seconds: u64,
    size: usize,
}

fn flags() -> Result<Flags, Box<dyn Error>> {
    let address = "127.0.0.1:7878".parse()?;
    let mut flags = Flags { address, connections: 100, seconds: 5, size: 64 };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--address" => flags.address = value.parse()?,
            "--connections" => flags.connections = value.parse()?,
            "--seconds" => flags.seconds = value.parse()?,
            "--size" => flags.size = value.parse()?,
            _ => return Err(format!("{name}: --address --connections --seconds --size").into()),
        }
    }
    Ok(flags)
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = flags()?;
    let runtime = Runtime::start(Config::default(), |_| NoObserver)?;
    let shards = runtime.shards();
    let (done, finished) = mpsc::channel();
    for shard in 0..shards {
        let mine = (flags.connections + shards - 1 - shard) / shards;
        let (address, size, seconds, done) =
            (flags.address, flags.size, flags.seconds, done.clone());
        let spawn = move |cx: &mut Cx<'_>| {
            let load = Rc::new(Load {
                latencies: RefCell::new(Latencies::new()),
                errors: Cell::new(0),
                running: Cell::new(CONNECTORS),
                waiting: RefCell::default(),
                size,
                seconds,
            });
            for connector in 0..CONNECTORS {
                let count = (mine + CONNECTORS - 1 - connector) / CONNECTORS;
                let (load, done) = (Rc::clone(&load), done.clone());
                let run =
                    async move |cx: &mut Cx<'_>| connect(cx, address, count, load, done).await;
                drop(cx.spawn_with(run));
            }
        };
        runtime.run_on(shard, spawn)?;
    }
    drop(done);
    let (mut all, mut errors) = (Latencies::new(), 0);
    // Connecting and the last answers have 30 s beside the measured time.
    let limit = Duration::from_secs(flags.seconds + 30);
    for _ in 0..shards.min(flags.connections) {
        let (latencies, failed) = finished.recv_timeout(limit).map_err(|_| "no answer in time")?;
        all.add(&latencies);
        errors += failed;
    }
    let per_s = all.count() / flags.seconds.max(1);
    println!(
        "{} connections, {} bytes: {per_s} requests/s, p50 {} us, p99 {} us, max {} us, {} answers, {errors} errors",
        flags.connections,
        flags.size,
        all.quantile(0.5) / 1_000,
        all.quantile(0.99) / 1_000,
        all.max_ns / 1_000,
        all.count(),
    );
    for shard in runtime.stats() {
        println!(
            "core {}: {} operations, {} enters, {} parks, {} starved, busy {} ms",
            shard.core,
            shard.ops_submitted,
            shard.enters,
            shard.parks,
            shard.ops_starved,
            shard.busy_ns / 1_000_000
        );
    }
    if errors > 0 {
        return Err(format!("{errors} connections failed").into());
    }
    Ok(())
}
