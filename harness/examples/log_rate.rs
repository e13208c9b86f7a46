//! Events per second of the event log for each durability, side by side, on this machine's disk:
//! `cargo run --release -p tailbeam-harness --example log_rate -- DIR SECONDS LANES BYTES`.
//!
//! A closed loop: LANES askers (default 1000) each send an event of BYTES (default 750, the original's size)
//! and wait for its receipt. So it says what the log sustains, not what a request waits under a given rate.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tailbeam_harness::log::{
    Ack, CoreCounts, Durability, Entry, LogAgent, LogConfig, LogKey, LogMsg, Receipt, recover_dir,
};
use tailbeam_runtime::{Addr, Config, Cores, Cx, NoObserver, Runtime, clock};

type Failure = Box<dyn std::error::Error>;

struct Run {
    seconds: u64,
    lanes: u64,
    bytes: usize,
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mut number = |default: u64| args.next().map_or(Ok(default), |text| text.parse());
    let (seconds, lanes, bytes) = (number(5)?, number(1_000)?, usize::try_from(number(750)?)?);
    let run = Run { seconds, lanes, bytes };
    println!("{lanes} askers, events of {bytes} bytes, {seconds} s each, in {}", dir.display());
    println!(
        "{:<22} {:>10} {:>9} {:>9} {:>11} {:>9} {:>12} {:>12}",
        "durability",
        "events/s",
        "writes/s",
        "syncs/s",
        "events/sync",
        "refused/s",
        "P50 wait us",
        "P99 wait us"
    );
    let wait_ns = 0;
    let modes = [
        ("none", Durability::None, Ack::After),
        ("batch, ack before", Durability::Batch { wait_ns }, Ack::Before),
        ("batch, ack after", Durability::Batch { wait_ns }, Ack::After),
        ("per-event", Durability::PerEvent, Ack::After),
    ];
    for (name, durability, ack) in modes {
        let place = dir.join(format!("tailbeam-log-rate-{}", std::process::id()));
        std::fs::create_dir_all(&place)?;
        let config = LogConfig { durability, ack, key: LogKey([1; 16]), ..LogConfig::default() };
        let measured = measure(&run, config, place.clone());
        let found = recover_dir(&place, config.key, None, |_| {})?;
        std::fs::remove_dir_all(&place)?;
        let Measured { acked, refused, counts, mut waits } = measured?;
        if found.records < acked || !found.damage.is_empty() {
            return Err(format!("{name}: {acked} acknowledged, {found:?}").into());
        }
        waits.sort_unstable();
        let at = |q: usize| {
            waits.get((waits.len() * q / 100).min(waits.len().saturating_sub(1))).copied()
        };
        let us = |q| at(q).map_or("unknown".to_owned(), |ns| (ns / 1_000).to_string());
        let per_s = |n: u64| n / run.seconds;
        let shared = match counts.syncs {
            0 => "no sync".to_owned(),
            syncs => format!("{:.1}", acked as f64 / syncs as f64),
        };
        println!(
            "{name:<22} {:>10} {:>9} {:>9} {shared:>11} {:>9} {:>12} {:>12}",
            per_s(acked),
            per_s(counts.writes),
            per_s(counts.syncs),
            per_s(refused),
            us(50),
            us(99)
        );
    }
    Ok(())
}

struct Measured {
    /// Events acknowledged within the time.
    acked: u64,
    /// Events given back because the queue was full.
    refused: u64,
    counts: CoreCounts,
    /// How long each acknowledged event of one lane in 16 waited, ns.
    waits: Vec<u64>,
}

fn measure(run: &Run, config: LogConfig, dir: PathBuf) -> Result<Measured, Failure> {
    let runtime =
        Runtime::start(Config { cores: Cores::Auto, ..Config::default() }, |_| NoObserver)?;
    let last = runtime.shards() - 1;
    let log = runtime.spawn_on(last, move || LogAgent::new(config, dir, (0, 0), 0))?;
    let (acked, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (done, finished) = mpsc::channel();
    // The first segment is made before the clock starts.
    let (lanes, bytes) = (run.lanes, run.bytes);
    ask_one(&runtime, log)?;
    let end_ns = clock::monotonic_ns() + run.seconds * 1_000_000_000;
    for lane in 0..lanes {
        let (acked, refused, done) = (Arc::clone(&acked), Arc::clone(&refused), done.clone());
        let start = move |cx: &mut Cx<'_>| {
            let run = async move |cx: &mut Cx<'_>| {
                let mut waits = Vec::new();
                loop {
                    let began_ns = cx.fresh_ns();
                    if began_ns >= end_ns {
                        break;
                    }
                    let kept = append(cx, log, bytes).await;
                    let now_ns = cx.fresh_ns();
                    if now_ns >= end_ns {
                        break;
                    }
                    if !kept {
                        // Acknowledged before it is durable, nothing slows an asker but a full queue.
                        refused.fetch_add(1, Ordering::Relaxed);
                        if cx.sleep_until(now_ns + 1_000_000).await.is_err() {
                            break;
                        }
                        continue;
                    }
                    acked.fetch_add(1, Ordering::Relaxed);
                    if lane % 16 == 0 {
                        waits.push(now_ns - began_ns);
                    }
                }
                drop(done.send(waits));
            };
            cx.spawn_with(run).is_ok()
        };
        if !runtime.run_on(0, start)? {
            return Err("no room for another asker".into());
        }
    }
    let mut waits = Vec::new();
    for _ in 0..lanes {
        waits.extend(finished.recv_timeout(Duration::from_secs(run.seconds + 60))?);
    }
    let counts = settled(&runtime, log)?;
    drop(runtime.shutdown());
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok(Measured { acked: load(&acked), refused: load(&refused), counts, waits })
}

/// What the log counted once it holds nothing any more.
fn settled(runtime: &Runtime, log: Addr<LogAgent>) -> Result<CoreCounts, Failure> {
    let (told, health) = mpsc::channel();
    runtime.run_on(0, move |cx| {
        let run = async move |cx: &mut Cx<'_>| {
            loop {
                let deadline = cx.fresh_ns() + 10_000_000_000;
                let health = cx.ask(log, deadline, LogMsg::Health).await.ok();
                if health.as_ref().is_none_or(|health| health.held == 0) {
                    // The receiver waits below; if it has given up, nobody is told.
                    let _ = told.send(health);
                    return;
                }
                let at_ns = cx.fresh_ns() + 10_000_000;
                if cx.sleep_until(at_ns).await.is_err() {
                    return;
                }
            }
        };
        cx.spawn_with(run).is_ok()
    })?;
    let health = health.recv_timeout(Duration::from_secs(60))?.ok_or("the log did not answer")?;
    match health.dead {
        true => Err(format!("the log gave up: {:?}", health.last_error).into()),
        false => Ok(health.counts),
    }
}

async fn append(cx: &mut Cx<'_>, log: Addr<LogAgent>, bytes: usize) -> bool {
    let entry = Box::new(Entry { kind: 1, version: 1, payload: vec![0xA5; bytes].into() });
    let deadline = cx.fresh_ns() + 60_000_000_000;
    let receipt = cx.ask(log, deadline, |reply| LogMsg::Append(entry, Some(reply))).await;
    matches!(receipt, Ok(Receipt::Kept(_)))
}

fn ask_one(runtime: &Runtime, log: Addr<LogAgent>) -> Result<(), Failure> {
    let (told, kept) = mpsc::channel();
    runtime.run_on(0, move |cx| {
        let run = async move |cx: &mut Cx<'_>| {
            // The receiver waits below; if it has given up, nobody is told.
            let _ = told.send(append(cx, log, 8).await);
        };
        cx.spawn_with(run).is_ok()
    })?;
    match kept.recv_timeout(Duration::from_secs(60))? {
        true => settled(runtime, log).map(drop),
        false => Err("the log takes nothing".into()),
    }
}
