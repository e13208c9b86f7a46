//! What a core hands over at the end of the run, and what all cores together say.

use super::writer::PerAgent;
use crate::evidence::records::{PlantedRecord, SlowedRecord};
use crate::load::plant::Planted;
use crate::load::slow::Slowed;
use crate::load::{AgentNs, Recorder};
use crate::plan::{Plan, Plant, SlowPlant};

/// Of one core.
#[derive(Default)]
pub(super) struct Last {
    /// Requests open past their deadline (part of the open ones).
    pub(super) lost: u64,
    attempts: Vec<u32>,
    completions: Vec<u32>,
    times: Vec<AgentNs>,
    planted: Vec<Planted>,
    slowed: Vec<Slowed>,
}

impl Last {
    /// Copies it, on the core.
    pub(super) fn of(r: &Recorder, now_ns: u64) -> Self {
        Self {
            lost: r.open.iter().filter(|open| open.deadline_ns <= now_ns).count() as u64,
            attempts: r.attempts.clone(),
            completions: r.completions.clone(),
            times: r.times.clone(),
            planted: r.planted.clone(),
            slowed: r.slowed.clone(),
        }
    }
}

/// What every agent did, in the order of their indices: agent `i` lives on shard `i % shards`.
pub(super) fn per_agent(lasts: Vec<Last>, agents: usize) -> PerAgent {
    let shards = lasts.len().max(1);
    let mut all = PerAgent {
        attempts: vec![0; agents],
        completions: vec![0; agents],
        times: vec![AgentNs::default(); agents],
    };
    for (shard, last) in lasts.into_iter().enumerate() {
        let counts = last.attempts.into_iter().zip(last.completions).zip(last.times);
        for (local, ((attempts, completions), times)) in counts.enumerate() {
            let agent = local * shards + shard;
            all.attempts[agent] = attempts;
            all.completions[agent] = completions;
            all.times[agent] = times;
        }
    }
    all
}

/// What all cores have planted.
pub(super) fn planted(plan: &Plan, lasts: &[Last]) -> Vec<PlantedRecord> {
    let sum = |number: usize, part: fn(&Planted) -> u64| {
        lasts.iter().filter_map(|last| last.planted.get(number)).map(part).sum()
    };
    let record = |(number, plant): (usize, &Plant)| PlantedRecord {
        plant: *plant,
        objects: sum(number, |planted| planted.objects),
        bytes: sum(number, |planted| planted.bytes),
        refused: sum(number, |planted| planted.refused),
    };
    plan.plants.iter().enumerate().map(record).collect()
}

/// How often planted slowness struck on all cores.
pub(super) fn slowed(plan: &Plan, lasts: &[Last]) -> Vec<SlowedRecord> {
    let sum = |number: usize, part: fn(&Slowed) -> u64| {
        lasts.iter().filter_map(|last| last.slowed.get(number)).map(part).sum()
    };
    let record = |(number, slow): (usize, &SlowPlant)| SlowedRecord {
        slow: *slow,
        times: sum(number, |slowed| slowed.times),
        ns: sum(number, |slowed| slowed.ns),
    };
    plan.slow.iter().enumerate().map(record).collect()
}
