//! How long a message to a busy core waits: one core runs an agent that is always ready, the other sends
//! it a message every 200 us. Prints the time from send to handler.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::mpsc;

use tailbeam_runtime::{Addr, Agent, Config, Cx, NoObserver, Runtime, Stop, clock};

const MESSAGES: usize = 20_000;
const EVERY_NS: u64 = 200_000;

/// Sends itself a message for ever; its core is never idle.
struct Busy;

impl Agent for Busy {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop)
    }
}

struct Target(Vec<u64>, mpsc::Sender<Vec<u64>>);

impl Agent for Target {
    type Msg = u64;

    async fn on(&mut self, sent_ns: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.0.push(cx.fresh_ns() - sent_ns);
        if self.0.len() == MESSAGES {
            self.1.send(std::mem::take(&mut self.0)).map_err(|_| Stop)?;
        }
        Ok(())
    }
}

struct Sender(Addr<Target>, usize);

impl Agent for Sender {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.on_timer(0, cx)
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let now = cx.fresh_ns();
        self.0.try_send(cx, now).map_err(|_| Stop)?;
        self.1 += 1;
        if self.1 < MESSAGES {
            cx.notify_at(now + EVERY_NS, 0).map_err(|_| Stop)?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::start(Config::default(), |_| NoObserver)?;
    let busy_core = runtime.shards() - 1;
    if busy_core == 0 {
        return Err("two allowed cores are needed".into());
    }
    let (done, finished) = mpsc::channel();
    let started_ns = clock::monotonic_ns();
    let target = runtime.spawn_on(busy_core, move || Target(Vec::with_capacity(MESSAGES), done))?;
    runtime.run_on(busy_core, |cx| match cx.spawn(Busy) {
        Ok(busy) => drop(busy.try_send(cx, ())),
        Err(_) => unreachable!("the table is empty"),
    })?;
    let sender = runtime.spawn_on(0, move || Sender(target, 0))?;
    runtime.run_on(0, move |cx| drop(sender.try_send(cx, ())))?;
    let mut delays = finished.recv()?;
    delays.sort_unstable();
    let rank = |per_mille: usize| delays[(MESSAGES * per_mille / 1_000).min(MESSAGES - 1)];
    let turns = runtime.stats()[busy_core].turns;
    let length_s = (clock::monotonic_ns() - started_ns) as f64 / 1e9;
    println!(
        "{MESSAGES} messages to a core that made {:.0} turns/s, from send to handler, ns: min {} p50 {} p99 {} p99.9 {} max {}",
        turns as f64 / length_s,
        delays[0],
        rank(500),
        rank(990),
        rank(999),
        delays[MESSAGES - 1]
    );
    Ok(())
}
