//! The runtime alone: two agents, two cores, one answer.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use tailbeam_runtime::{Agent, Config, Cx, NoObserver, Reply, Runtime, Stop, clock};

struct Doubler;

impl Agent for Doubler {
    type Msg = (u64, Reply<u64>);

    async fn on(&mut self, (n, reply): Self::Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        reply.send(cx, n * 2).map_err(|_| Stop)
    }
}

struct Asker(tailbeam_runtime::Addr<Doubler>);

impl Agent for Asker {
    type Msg = u64;

    async fn on(&mut self, n: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let deadline = clock::monotonic_ns() + 1_000_000_000;
        let answer = cx.ask(self.0, deadline, |reply| (n, reply)).await;
        println!("twice {n} is {answer:?}");
        Err(Stop)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::start(Config::default(), |_| NoObserver)?;
    let doubler = runtime.spawn_on(runtime.shards() - 1, || Doubler)?;
    let asker = runtime.spawn_on(0, move || Asker(doubler))?;
    runtime.run_on(0, move |cx| asker.try_send(cx, 21).is_ok())?;
    println!("{:?}", runtime.shutdown());
    Ok(())
}
