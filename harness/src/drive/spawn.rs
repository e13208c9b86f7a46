//! Puts the agents of a run on their cores and gives them its start.

use std::sync::Arc;

use tailbeam_runtime::Addr;

use super::controller::Controller;
use super::{DriveError, Progress};
use crate::chaos::board::Lane;
use crate::load::{HostMsg, Hosted, Place, Recorder, Workload, recorder};

/// Agents spawned or begun per visit to a core, so that no visit is long.
const CHUNK: usize = 16_384;

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
            let place = Place { shard, agents: total, limits, legs, lane };
            let plan = self.plan.clone();
            self.on(shard, move |_| recorder::install(Box::new(Recorder::new(&plan, place))))?;
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

    pub(super) fn begin(&self, start_ns: u64) -> Result<(), DriveError> {
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
