//! How long an awaited ask takes on one core, one at a time, in a program small enough to be profiled:
//! `cargo run --release -p tailbeam-runtime --example same_ask`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::mpsc;

use tailbeam_runtime::{Addr, Agent, Config, Cores, Cx, NoObserver, Reply, Runtime, Stop};

const ASKS: u32 = 2_000_000;
const ROUNDS: usize = 5;
const DEADLINE_NS: u64 = 60_000_000_000;

struct Callee;

impl Agent for Callee {
    type Msg = (u64, Reply<u64>);

    async fn on(&mut self, (n, reply): Self::Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        reply.send(cx, n + 1).map_err(|_| Stop)
    }
}

struct Asker(Addr<Callee>, mpsc::Sender<u64>);

impl Agent for Asker {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        for _ in 0..ROUNDS {
            let from_ns = cx.fresh_ns();
            let mut n = 0;
            for _ in 0..ASKS {
                let deadline_ns = cx.recent_ns() + DEADLINE_NS;
                n = cx.ask(self.0, deadline_ns, |reply| (n, reply)).await.map_err(|_| Stop)?;
            }
            if n != u64::from(ASKS) {
                return Err(Stop);
            }
            self.1.send(cx.fresh_ns() - from_ns).map_err(|_| Stop)?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config { cores: Cores::List(vec![0]), ..Config::default() };
    let runtime = Runtime::start(config, |_| NoObserver)?;
    let (say, said) = mpsc::channel();
    let callee = runtime.spawn_on(0, || Callee)?;
    let asker = runtime.spawn_on(0, move || Asker(callee, say))?;
    runtime.run_on(0, move |cx| drop(asker.try_send(cx, ())))?;
    for _ in 0..ROUNDS {
        println!("{:.1} ns per ask", said.recv()? as f64 / f64::from(ASKS));
    }
    Ok(())
}
