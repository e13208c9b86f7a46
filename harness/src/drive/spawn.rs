//! Puts the agents of a run on their cores and gives them its start.

use std::sync::Arc;

use tailbeam_probes::clock;
use tailbeam_runtime::{Addr, Backoff, ChildSpec, Intensity, Strategy, Supervision};

use super::controller::Controller;
use super::{DriveError, Progress};
use crate::chaos::board::Lane;
use crate::load::{HostMsg, Hosted, Place, Recorder, Workload, recorder};

/// Agents spawned or begun per visit to a core, so that no visit is long.
const CHUNK: usize = 16_384;
/// Agents of one supervisor, where they are made anew: below `Config::relations_max`.
pub(super) const CHILDREN: usize = 1_000;
/// How long all of them may take to be there, ns.
const PATIENCE_NS: u64 = 60_000_000_000;
/// One that fails is made anew at once, however often: what it costs the load is what a fault is to show. The
/// supervisor itself never gives up.
const ANEW: Supervision = Supervision {
    strategy: Strategy::OneForOne,
    intensity: Intensity { restarts: 1 << 30, within_ns: 1_000_000 },
    backoff: Backoff::NONE,
};

impl<W: Workload> Controller<'_, W> {
    /// Spawns every agent: agent `i` lives on shard `i % shards`.
    pub(super) fn spawn_agents(
        &mut self,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), DriveError> {
        let agents = self.fleet.agents as usize;
        let mut per_shard: Vec<Vec<Addr<Hosted<W>>>> = vec![Vec::new(); self.shards];
        for (shard, addresses) in per_shard.iter_mut().enumerate() {
            let total = (agents + self.shards - 1 - shard) / self.shards;
            let (limits, legs) = (self.limits.clone(), Arc::clone(&self.latency.legs));
            let lane = self.control.board.as_ref().and_then(|board| Lane::new(board, shard));
            let anew = !self.fleet.born.is_empty();
            let place = Place { shard, agents: total, limits, legs, lane, anew };
            let plan = self.plan.clone();
            self.on(shard, move |_| recorder::install(Box::new(Recorder::new(&plan, place))))?;
            if anew {
                addresses.extend(self.spawn_supervised(shard, total)?);
            }
            while addresses.len() < total {
                let chunk = self.spawn_chunk(shard, addresses.len(), total)?;
                addresses.extend(chunk);
            }
        }
        let spawned = (0..agents).map(|i| per_shard[i % self.shards][i / self.shards]).collect();
        self.fleet.addresses.set(spawned).expect("set once, before any agent begins");
        progress(&Progress {
            phase: "spawn",
            live_agents: self.live_agents(),
            planned_s: self.plan.duration_ns as f64 / 1e9,
            event: Some(format!("{agents} agents live on {} cores", self.shards)),
            ..Progress::default()
        });
        Ok(())
    }

    fn spawn_chunk(
        &self,
        shard: usize,
        from: usize,
        total: usize,
    ) -> Result<Vec<Addr<Hosted<W>>>, DriveError> {
        let fleet = Arc::clone(&self.fleet);
        let shards = self.shards;
        let to = total.min(from + CHUNK);
        let made = self.on(shard, move |cx| {
            let mut made = Vec::with_capacity(to - from);
            for local in from..to {
                let index =
                    u32::try_from(local * shards + shard).expect("below the agent count, a u32");
                let local = u32::try_from(local).expect("below the agent count, a u32");
                match cx.spawn(Hosted::<W>::new(Arc::clone(&fleet), index, local)) {
                    Ok(address) => made.push(address),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(made)
        })?;
        made.map_err(|cause| DriveError::Spawn {
            live: self.live_agents(),
            asked: self.plan.agents,
            cause,
        })
    }

    /// Spawns the agents of a shard as children of supervisors.
    fn spawn_supervised(
        &mut self,
        shard: usize,
        total: usize,
    ) -> Result<Vec<Addr<Hosted<W>>>, DriveError> {
        let shards = self.shards;
        let index = move |local: usize| local * shards + shard;
        for from in (0..total).step_by(CHILDREN) {
            let (fleet, to) = (Arc::clone(&self.fleet), total.min(from + CHILDREN));
            let made = self.on(shard, move |cx| {
                let child = |local: usize| {
                    let fleet = Arc::clone(&fleet);
                    let narrow = |n: usize| u32::try_from(n).expect("below the agent count, a u32");
                    let (index, local) = (narrow(index(local)), narrow(local));
                    ChildSpec::new(move || Hosted::<W>::new(Arc::clone(&fleet), index, local))
                };
                cx.supervise(ANEW, (from..to).map(child).collect()).is_ok()
            })?;
            if !made {
                return Err(self.not_spawned("there was no room for a supervisor"));
            }
            self.supervisors += 1;
        }
        let end_ns = clock::monotonic_ns() + PATIENCE_NS;
        loop {
            let born = (0..total).filter_map(|local| self.fleet.born[index(local)].get().copied());
            let born: Vec<_> = born.collect();
            if born.len() == total {
                return Ok(born);
            }
            if clock::monotonic_ns() > end_ns {
                return Err(self.not_spawned("not all agents of a supervisor came up in a minute"));
            }
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
    }

    fn not_spawned(&self, cause: &str) -> DriveError {
        let (live, asked) = (self.live_agents(), self.plan.agents);
        DriveError::Spawn { live, asked, cause: cause.to_owned() }
    }

    /// All agents ask at once; returns how many were told to.
    pub(super) fn stampede(&self) -> Result<u64, DriveError> {
        let mut told = 0;
        for shard in 0..self.shards {
            let (fleet, shards) = (Arc::clone(&self.fleet), self.shards);
            told += self.on(shard, move |cx| {
                let addresses = fleet.addresses.get().expect("set after the spawn");
                let mine = addresses.iter().skip(shard).step_by(shards);
                mine.filter(|address| address.try_send(cx, HostMsg::Herd).is_ok()).count() as u64
            })?;
        }
        Ok(told)
    }

    pub(super) fn begin(&self, start_ns: u64) -> Result<(), DriveError> {
        // The first begin is the run's: a saturated phase begins its agents once more, behind all that is measured.
        self.fleet.start_ns.get_or_init(|| start_ns);
        let agents = self.fleet.agents as usize;
        for shard in 0..self.shards {
            let total = (agents + self.shards - 1 - shard) / self.shards;
            for from in (0..total).step_by(CHUNK) {
                let fleet = Arc::clone(&self.fleet);
                let shards = self.shards;
                let refused = self.on(shard, move |cx| {
                    let addresses = fleet.addresses.get().expect("set after the spawn");
                    let mine = (from..total.min(from + CHUNK))
                        .map(|local| addresses[local * shards + shard]);
                    mine.filter(|address| address.try_send(cx, HostMsg::Begin(start_ns)).is_err())
                        .count()
                })?;
                if refused > 0 {
                    let cause = format!("{refused} agents could not take their start message");
                    return Err(DriveError::Spawn {
                        live: self.live_agents(),
                        asked: self.plan.agents,
                        cause,
                    });
                }
            }
        }
        Ok(())
    }
}
