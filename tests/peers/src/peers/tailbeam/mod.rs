//! Agents on our runtime: the shards are pinned by the runtime, agent `i` lives on shard `i % 2`.

mod crowd;
mod flow;
mod query;
mod timers;
mod workers;

use tailbeam_runtime::{Addr, Agent, Config, Cores, Cx, NoObserver, Runtime, StartError, Stop};

use super::{Begun, Job, Work};
use crate::sheet::Sheet;

/// Starts `work`, with stamped turns or without. The runtime lives as long as the process.
pub(crate) fn begin(work: Work, job: Job, stamped: bool) -> Result<Begun, String> {
    let runtime = match start(work, job, stamped) {
        Ok(runtime) => runtime,
        // This kernel has no rings, or this process may have none: anything else is ours, and a failure.
        Err(why @ (StartError::Disabled { .. } | StartError::Refused | StartError::Missing)) => {
            return Ok(Begun::NotRun(why.to_string()));
        }
        Err(why) => return Err(why.to_string()),
    };
    let begun = match work {
        Work::Ask => workers::closed(&runtime, job).map(|()| Begun::Works),
        Work::Light => workers::thinking(&runtime, job).map(|()| Begun::Works),
        Work::SamePair => workers::pair(&runtime, job).map(|()| Begun::Works),
        Work::SameAsk => query::on_one(&runtime, job).map(|()| Begun::Works),
        Work::Cross => query::across(&runtime, job).map(|()| Begun::Works),
        Work::Oneway => flow::begin(&runtime, job).map(|()| Begun::Works),
        Work::Timers => timers::measure(&runtime, job).map(Begun::Measured),
        Work::Spawn => crowd::spawned_twice(&runtime, job).map(Begun::Measured),
        Work::Idle => crowd::idle(&runtime, job).map(Begun::Measured),
    };
    std::mem::forget(runtime);
    begun
}

/// With room for what `work` needs, as the peers have it.
fn start(work: Work, job: Job, stamped: bool) -> Result<Runtime, StartError> {
    let agents = match work {
        Work::Spawn | Work::Idle => job.crowd,
        _ => job.agents,
    };
    let config = Config {
        cores: Cores::List(job.cores.to_vec()),
        agents_max: agents.saturating_add(1_024),
        timers_max: job.crowd.saturating_mul(2).max(1 << 18),
        messages_max: 1 << 24,
        turn_stamps: stamped,
        peer_ring_slots: match work {
            Work::Ask => (2 * agents).next_power_of_two().clamp(4_096, 1 << 20),
            _ => 4_096,
        },
        ..Config::default()
    };
    Runtime::start(config, |_| NoObserver)
}

/// Runs `f` on a shard.
fn run_on<R: Send + 'static>(
    runtime: &Runtime,
    shard: usize,
    f: impl FnOnce(&mut Cx<'_>) -> R + Send + 'static,
) -> Result<R, String> {
    runtime.run_on(shard, f).map_err(|error| error.to_string())
}

/// Spawns an agent and sends it its first message.
fn begin_on<A: Agent + Send>(
    runtime: &Runtime,
    shard: usize,
    agent: A,
    msg: A::Msg,
) -> Result<Addr<A>, String> {
    run_on(runtime, shard, move |cx| {
        let address = cx.spawn(agent).ok()?;
        address.try_send(cx, msg).ok().map(|()| address)
    })?
    .ok_or_else(|| "an agent could not start".to_owned())
}

/// Sends itself a message until the sheet closes; its core is never idle.
struct Busy(&'static Sheet);

impl Agent for Busy {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        if !self.0.is_open() {
            return Err(Stop);
        }
        cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop)
    }
}
