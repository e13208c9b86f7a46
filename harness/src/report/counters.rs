//! What each core's thread counted over time: plain values, recomputed from the run directory.
//!
//! A count of a slot is the sum of its ticks in which the counter was known, with the time that these
//! cover; rates are over that time. What was not counted is not filled in.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tailbeam_probes::record::latency::{CoreTick, Count, LatencyWindow};

use super::latency::{
    LatencyError, LatencyRun, Question, Range, Recorded, cpu, identity, recorded,
};
use crate::evidence::Intervals;
use crate::evidence::records::Manifest;

/// Name of the JSON document that `counters --format json` prints.
pub const SCHEMA: &str = "tailbeam.counters";
/// Version of that document; additive changes keep it.
pub const SCHEMA_VERSION: u32 = 1;

/// A slot begins with this length, ns, unless another is asked for: about one tick.
const SLOT_NS: u64 = 100_000_000;

/// How time is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// Length of a slot, ns, to begin with.
    pub every_ns: Option<u64>,
    /// Rows of a core at most: the length is doubled until it holds.
    pub rows_max: usize,
    /// Only this CPU.
    pub core: Option<u64>,
}

/// Everything that `tailbeam counters` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountersReport {
    /// Which run, and which part of it.
    pub run: LatencyRun,
    /// What could be measured when it was recorded, and why the rest is unknown.
    pub host: Recorded,
    /// Things to know before believing a figure; empty is good.
    pub caveats: Vec<String>,
    /// Length of a slot, s.
    pub every_s: f64,
    /// Cores.
    pub cores: Vec<CoreCounters>,
}

/// One core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreCounters {
    /// CPU.
    pub core: u64,
    /// Requests that its agents answered.
    pub answered: u64,
    /// The whole range.
    pub total: Slot,
    /// Slot by slot.
    pub slots: Vec<Slot>,
}

/// Ticks that end in one slot of time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Slot {
    /// Begin of the first tick, s after the start.
    pub from_s: f64,
    /// End of the last.
    pub to_s: f64,
    /// Ticks.
    pub ticks: u64,
    /// Time that they cover, ns.
    pub wall_ns: u64,
    /// In turns of agents, ns.
    pub turns_ns: u64,
    /// Turns.
    pub turns: u64,
    /// Looked on for work, ns.
    pub spun_ns: u64,
    /// Parked, ns.
    pub parked_ns: u64,
    /// Messages that waited, mean over the ticks.
    pub queued: f64,
    /// Counters, in the order in which the run names them.
    pub counters: Vec<Counted>,
}

/// How far to believe a count; the worst of its ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// As counted.
    Exact,
    /// Scaled from at least nine tenths of the time.
    Scaled,
    /// Scaled from less: no verdict uses it.
    Rough,
    /// Not counted in any tick.
    Unknown,
}

/// One counter over a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Name.
    pub name: String,
    /// Sum over the ticks in which it is known; none when there is no such tick.
    pub count: Option<u64>,
    /// Time that those ticks cover, ns.
    pub covered_ns: u64,
    /// Count / that time.
    pub per_s: Option<f64>,
    /// `per_s` / answered requests per second of the same core over the whole range; for totals.
    pub per_request: Option<f64>,
    /// Of the worst tick in which it is known.
    pub quality: Quality,
    /// Why it is unknown in some ticks or all.
    pub unknown: Option<String>,
    /// What would change that.
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Sum {
    count: u64,
    covered_ns: u64,
    quality: Option<Quality>,
    unknown: Option<String>,
}

impl Sum {
    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.covered_ns += other.covered_ns;
        self.quality = self.quality.max(other.quality);
        if self.unknown.is_none() {
            self.unknown.clone_from(&other.unknown);
        }
    }

    fn add(&mut self, count: &Count, len_ns: u64) {
        let (count, quality) = match count {
            Count::Exact(count) => (*count, Quality::Exact),
            Count::Scaled(count, _) => (*count, Quality::Scaled),
            Count::Rough(count, _) => (*count, Quality::Rough),
            Count::Unknown(why) => {
                self.unknown.get_or_insert_with(|| why.clone());
                return;
            }
        };
        self.count = self.count.saturating_add(count);
        self.covered_ns += len_ns;
        self.quality = self.quality.max(Some(quality));
    }
}

#[derive(Debug, Clone, Default)]
struct Summed {
    slot: Slot,
    queued: u64,
    /// By place in the list of names.
    sums: Vec<Sum>,
}

impl Summed {
    fn add(&mut self, tick: &CoreTick, names: &mut Vec<String>, start_ns: u64) {
        let after_s = |ns: u64| ns.saturating_sub(start_ns) as f64 / 1e9;
        if self.slot.ticks == 0 {
            self.slot.from_s = after_s(tick.from_ns);
        }
        let len_ns = tick.to_ns.saturating_sub(tick.from_ns);
        self.slot.to_s = after_s(tick.to_ns);
        self.slot.ticks += 1;
        self.slot.wall_ns += len_ns;
        self.slot.turns_ns += tick.turns_ns;
        self.slot.turns += tick.turns;
        self.slot.spun_ns += tick.spun_ns;
        self.slot.parked_ns += tick.parked_ns;
        self.queued += tick.queued;
        for of in &tick.counters {
            let place = names.iter().position(|name| *name == of.name).unwrap_or_else(|| {
                names.push(of.name.clone());
                names.len() - 1
            });
            if self.sums.len() <= place {
                self.sums.resize(place + 1, Sum::default());
            }
            self.sums[place].add(&of.count, len_ns);
        }
    }

    /// Adds the slot that follows.
    fn append(&mut self, next: &Self) {
        let (slot, more) = (&mut self.slot, &next.slot);
        slot.to_s = more.to_s;
        slot.ticks += more.ticks;
        slot.wall_ns += more.wall_ns;
        slot.turns_ns += more.turns_ns;
        slot.turns += more.turns;
        slot.spun_ns += more.spun_ns;
        slot.parked_ns += more.parked_ns;
        self.queued += next.queued;
        self.sums.resize(self.sums.len().max(next.sums.len()), Sum::default());
        self.sums.iter_mut().zip(&next.sums).for_each(|(sum, more)| sum.merge(more));
    }

    /// `answered`: requests of the same time, for totals.
    fn done(mut self, names: &[String], manifest: &Manifest, answered: Option<u64>) -> Slot {
        self.slot.queued = self.queued as f64 / self.slot.ticks.max(1) as f64;
        self.sums.resize(names.len(), Sum::default());
        let wall_ns = self.slot.wall_ns;
        let row = |(name, sum): (&String, &Sum)| {
            let known = sum.quality.filter(|_| sum.covered_ns > 0);
            let per_s = known.map(|_| sum.count as f64 / (sum.covered_ns as f64 / 1e9));
            let requests_per_s = answered
                .filter(|&n| n > 0 && wall_ns > 0)
                .map(|n| n as f64 / (wall_ns as f64 / 1e9));
            let of = manifest.unknowns.iter().find(|of| of.thing.split(", ").any(|t| t == name));
            Counted {
                name: name.clone(),
                count: known.map(|_| sum.count),
                covered_ns: sum.covered_ns,
                per_s,
                per_request: per_s.zip(requests_per_s).map(|(count, requests)| count / requests),
                quality: known.unwrap_or(Quality::Unknown),
                unknown: sum.unknown.clone(),
                remedy: sum.unknown.as_ref().map(|_| {
                    of.map_or("see the table of what was measured", |of| of.remedy.as_str())
                        .to_owned()
                }),
            }
        };
        self.slot.counters = names.iter().zip(&self.sums).map(row).collect();
        self.slot
    }
}

#[derive(Debug, Default)]
struct Core {
    names: Vec<String>,
    total: Summed,
    /// By number of the slot.
    slots: BTreeMap<u64, Summed>,
    answered: u64,
}

/// All cores, their time cut into slots of one length.
#[derive(Debug)]
struct Cut {
    cores: BTreeMap<u16, Core>,
    start_ns: u64,
    every_ns: u64,
    rows_max: usize,
}

impl Cut {
    fn window(&mut self, window: &LatencyWindow, only: &dyn Fn(u16) -> bool) {
        for of in window.responders.iter().filter(|of| only(of.shard)) {
            self.cores.entry(of.shard).or_default().answered +=
                of.all.count.saturating_mul(window.stands_for());
        }
        if !only(window.shard) {
            return;
        }
        for tick in &window.ticks {
            let core = self.cores.entry(window.shard).or_default();
            // A tick belongs to the slot that holds its last ns.
            let slot = tick.to_ns.saturating_sub(self.start_ns + 1) / self.every_ns;
            core.total.add(tick, &mut core.names, self.start_ns);
            core.slots.entry(slot).or_default().add(tick, &mut core.names, self.start_ns);
            while self.cores[&window.shard].slots.len() > self.rows_max {
                self.double();
            }
        }
    }

    fn double(&mut self) {
        self.every_ns = self.every_ns.saturating_mul(2);
        for core in self.cores.values_mut() {
            for (number, slot) in std::mem::take(&mut core.slots) {
                core.slots.entry(number / 2).and_modify(|kept| kept.append(&slot)).or_insert(slot);
            }
        }
    }
}

/// Builds the answer from the run in `dir`; what it keeps is bounded by the rows asked for.
///
/// # Errors
/// [`LatencyError`], as of the stages: both are in the same frames.
pub fn build(
    dir: &Path,
    question: &Question,
    slots: Slots,
) -> Result<CountersReport, LatencyError> {
    let mut intervals = Intervals::open(dir)?;
    let start_ns = intervals.manifest.start_ns;
    let mut range = Range::of(question, start_ns);
    let mut cut = Cut {
        cores: BTreeMap::new(),
        start_ns,
        every_ns: slots.every_ns.unwrap_or(SLOT_NS).max(1),
        rows_max: slots.rows_max.max(1),
    };
    while let Some(interval) = intervals.next() {
        if range.takes(&interval) {
            let manifest = &intervals.manifest;
            let only = |shard: u16| slots.core.is_none_or(|core| core == cpu(manifest, shard));
            interval.latency.iter().for_each(|window| cut.window(window, &only));
        }
    }
    range.check(&intervals)?;
    let manifest = &intervals.manifest;
    let every_s = cut.every_ns as f64 / 1e9;
    let rows = cut.cores.into_iter().map(|(shard, core)| row(cpu(manifest, shard), core, manifest));
    Ok(CountersReport {
        run: identity(&intervals, &range),
        host: recorded(manifest),
        caveats: intervals.damage.clone(),
        every_s,
        cores: rows.collect(),
    })
}

fn row(cpu: u64, core: Core, manifest: &Manifest) -> CoreCounters {
    let Core { names, total, slots, answered } = core;
    CoreCounters {
        core: cpu,
        answered,
        total: total.done(&names, manifest, Some(answered)),
        slots: slots.into_values().map(|slot| slot.done(&names, manifest, None)).collect(),
    }
}
