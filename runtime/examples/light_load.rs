//! 10,000 agents that ask a random one every 100 ms, with each way to idle: latency, CPU, sleeps.
//! `cargo run --release -p tailbeam-runtime --example light_load [park|adaptive|poll]..`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::fs;
use std::sync::mpsc::{self, Sender};

use tailbeam_runtime::{
    Addr, Agent, Config, Cx, Idle, NoObserver, Reply, Runtime, ShardStats, Stop, clock,
};

const AGENTS: usize = 10_000;
const THINK_NS: u64 = 100_000_000;
const ASKS: usize = 40;
const DEADLINE_NS: u64 = 1_000_000_000;

struct Callee;

impl Agent for Callee {
    type Msg = (u64, Reply<u64>);

    async fn on(&mut self, (n, reply): Self::Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        reply.send(cx, n + 1).map_err(|_| Stop)
    }
}

struct Asker {
    draw: u64,
    done: Sender<Vec<u64>>,
}

impl Asker {
    fn below(&mut self, bound: u64) -> u64 {
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 7;
        self.draw ^= self.draw << 17;
        self.draw % bound
    }
}

impl Agent for Asker {
    type Msg = std::sync::Arc<[Addr<Callee>]>;

    async fn on(&mut self, callees: Self::Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let mut took = Vec::with_capacity(ASKS);
        let mut at_ns = cx.fresh_ns() + self.below(THINK_NS);
        for _ in 0..ASKS {
            cx.sleep_until(at_ns).await.map_err(|_| Stop)?;
            let which = usize::try_from(self.below(callees.len() as u64)).map_err(|_| Stop)?;
            let from = cx.fresh_ns();
            let answer = cx.ask(callees[which], from + DEADLINE_NS, |reply| (1, reply)).await;
            if !matches!(answer, Ok(2)) {
                return Err(Stop);
            }
            took.push(cx.fresh_ns() - from);
            at_ns += THINK_NS / 2 + self.below(THINK_NS);
        }
        self.done.send(took).map_err(|_| Stop)
    }
}

/// User and system time of all threads, ms, from fields 14 and 15 of /proc/self/stat.
fn cpu_ms() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some(10 * (fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?))
}

fn run(idle: Idle) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::start(Config { idle, ..Config::default() }, |_| NoObserver)?;
    if let Some(why) = &runtime.choice().no_spin {
        println!("does not spin: {why}");
    }
    let (shards, (done, finished)) = (runtime.shards(), mpsc::channel());
    let mut callees = Vec::new();
    for shard in 0..shards {
        let spawn = move |cx: &mut Cx<'_>| {
            (0..AGENTS / shards).flat_map(|_| cx.spawn(Callee)).collect::<Vec<_>>()
        };
        callees.extend(runtime.run_on(shard, spawn)?);
    }
    let callees: std::sync::Arc<[_]> = callees.into();
    let (before, cpu, from) = (runtime.stats(), cpu_ms(), clock::monotonic_ns());
    for shard in 0..shards {
        let (done, callees) = (done.clone(), callees.clone());
        runtime.run_on(shard, move |cx| {
            for n in 0..AGENTS / shards {
                let draw = (n * shards + shard) as u64 * 0x9e37_79b9_7f4a_7c15 + 1;
                if let Ok(asker) = cx.spawn(Asker { draw, done: done.clone() }) {
                    let _ = asker.try_send(cx, callees.clone());
                }
            }
        })?;
    }
    drop(done);
    let mut took = finished.iter().take(AGENTS).flatten().collect::<Vec<_>>();
    let seconds = (clock::monotonic_ns() - from) as f64 / 1e9;
    let used = cpu_ms().zip(cpu).map_or(f64::NAN, |(now, then)| (now - then) as f64 / 1e3);
    took.sort_unstable();
    let rank =
        |per_mille: usize| took[(took.len() * per_mille / 1_000).min(took.len() - 1)] / 1_000;
    let after = runtime.stats();
    let per_s = |count: fn(&ShardStats) -> u64| {
        let sum = |stats: &[ShardStats]| stats.iter().map(count).sum::<u64>();
        (sum(&after) - sum(&before)) as f64 / seconds
    };
    println!(
        "{idle:?}: {:.0} asks/s, us p50 {} p90 {} p99 {} p99.9 {}; CPU {:.1} % of {shards} cores, spun {:.1} %; {:.0} sleeps/s, {:.0} bells/s, {:.0} publications/s",
        took.len() as f64 / seconds,
        rank(500),
        rank(900),
        rank(990),
        rank(999),
        100.0 * used / seconds / shards as f64,
        100.0 * per_s(|stats| stats.spun_ns) / 1e9 / shards as f64,
        per_s(|stats| stats.parks),
        per_s(|stats| stats.doorbells),
        per_s(|stats| stats.publications),
    );
    let _ = runtime.shutdown();
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut modes: Vec<Idle> = std::env::args()
        .skip(1)
        .filter_map(|name| match name.as_str() {
            "park" => Some(Idle::Park),
            "adaptive" => Some(Idle::Adaptive),
            "poll" => Some(Idle::Poll),
            _ => None,
        })
        .collect();
    if modes.is_empty() {
        modes = [Idle::Park, Idle::Adaptive, Idle::Poll].repeat(3);
    }
    modes.into_iter().try_for_each(run)
}
