//! Asks that are awaited.

use tailbeam_runtime::{Addr, Agent, Cx, Reply, Runtime, Stop};

use super::{Busy, begin_on, run_on};
use crate::peers::Job;
use crate::sheet::Tally;

/// Far enough that no ask expires within a round.
const DEADLINE_NS: u64 = 60_000_000_000;

struct Callee;

impl Agent for Callee {
    type Msg = (u64, Reply<u64>);

    async fn on(&mut self, (n, reply): Self::Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        reply.send(cx, n + 1).map_err(|_| Stop)
    }
}

struct Client(Addr<Callee>, Tally);

impl Agent for Client {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let mut n = 0;
        loop {
            self.1.ask();
            let deadline_ns = cx.recent_ns() + DEADLINE_NS;
            n = cx.ask(self.0, deadline_ns, |reply| (n, reply)).await.map_err(|_| {
                self.1.sheet().refused();
                Stop
            })?;
            if !self.1.answered() {
                return Err(Stop);
            }
        }
    }
}

/// A client on the first core asks a callee on the second; both cores are never idle.
pub(super) fn across(runtime: &Runtime, job: Job) -> Result<(), String> {
    for shard in 0..2 {
        begin_on(runtime, shard, Busy(job.sheet), ())?;
    }
    ask(runtime, 1, Tally::new(job.sheet, 0, 1))
}

/// A client asks a callee on its own core.
pub(super) fn on_one(runtime: &Runtime, job: Job) -> Result<(), String> {
    ask(runtime, 0, Tally::new(job.sheet, 0, 16))
}

fn ask(runtime: &Runtime, callee: usize, tally: Tally) -> Result<(), String> {
    let callee = run_on(runtime, callee, |cx| cx.spawn(Callee).ok())?;
    let callee = callee.ok_or("the callee could not be spawned")?;
    begin_on(runtime, 0, Client(callee, tally), ()).map(|_| ())
}
