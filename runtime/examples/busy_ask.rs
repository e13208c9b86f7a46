//! How long an ask takes between two cores, and on one, while an agent that is always ready runs on both:
//! `cargo run --release -p tailbeam-runtime --example busy_ask`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::mpsc;

use tailbeam_runtime::{Addr, Agent, Config, Cx, NoObserver, Reply, Runtime, Stop};

const ASKS: usize = 100_000;
const DEADLINE_NS: u64 = 1_000_000_000;

/// Sends itself a message for ever; its core is never idle.
struct Busy;

impl Agent for Busy {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop)
    }
}

struct Callee;

impl Agent for Callee {
    type Msg = (u64, Reply<u64>);

    async fn on(&mut self, (n, reply): Self::Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        reply.send(cx, n + 1).map_err(|_| Stop)
    }
}

struct Asker(Addr<Callee>, mpsc::Sender<Vec<u64>>);

impl Agent for Asker {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let mut took = Vec::with_capacity(ASKS);
        for _ in 0..ASKS {
            let from = cx.fresh_ns();
            let answer = cx.ask(self.0, from + DEADLINE_NS, |reply| (1, reply)).await;
            if !matches!(answer, Ok(2)) {
                return Err(Stop);
            }
            took.push(cx.fresh_ns() - from);
        }
        self.1.send(took).map_err(|_| Stop)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::start(Config::default(), |_| NoObserver)?;
    let last = runtime.shards() - 1;
    if last == 0 {
        return Err("two allowed cores are needed".into());
    }
    for shard in 0..=last {
        let busy = runtime.spawn_on(shard, || Busy)?;
        runtime.run_on(shard, move |cx| drop(busy.try_send(cx, ())))?;
    }
    for (place, shard) in [("across cores", last), ("on one core", 0)] {
        let (done, finished) = mpsc::channel();
        let callee = runtime.spawn_on(shard, || Callee)?;
        let asker = runtime.spawn_on(0, move || Asker(callee, done))?;
        runtime.run_on(0, move |cx| drop(asker.try_send(cx, ())))?;
        let mut took = finished.recv()?;
        took.sort_unstable();
        let rank = |per_mille: usize| took[(ASKS * per_mille / 1_000).min(ASKS - 1)];
        let (p50, p99, p999, max) = (rank(500), rank(990), rank(999), took[ASKS - 1]);
        println!(
            "{ASKS} asks {place}, ns: min {} p50 {p50} p99 {p99} p99.9 {p999} max {max}",
            took[0]
        );
    }
    Ok(())
}
