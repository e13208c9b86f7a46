//! What each core's thread did, and which agents weigh most on it.

use std::collections::BTreeMap;

use tailbeam_probes::record::latency::{CoreTick, LatencyWindow, TopAgent};

use super::build::Gathered;
use super::{CoreLatency, FullMailbox, WorstAgent, composition};
use crate::evidence::records::Manifest;
use crate::report::Measured;

/// Agents shown of each list.
const SHOWN_MAX: usize = 16;

/// A sum of readings, some of which may be missing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Partial {
    sum: u64,
    read: u64,
    missing: u64,
}

impl Partial {
    fn add(&mut self, value: Option<u64>) {
        match value {
            Some(value) => {
                self.sum = self.sum.saturating_add(value);
                self.read += 1;
            }
            None => self.missing += 1,
        }
    }

    /// The sum, if nothing is missing from it. `thing`: what the manifest may call unknown.
    fn measured(&self, thing: &str, manifest: &Manifest) -> Measured<u64> {
        if self.missing == 0 && self.read > 0 {
            return Measured::Known(self.sum);
        }
        if self.missing == 0 {
            return Measured::unknown("no tick was recorded", "record for longer");
        }
        if let Some(of) = manifest.unknowns.iter().find(|of| of.thing.contains(thing)) {
            return Measured::unknown(&of.unknown, &of.remedy);
        }
        Measured::unknown(
            format!("not read in {} of {} ticks", self.missing, self.missing + self.read),
            "see the table of what was measured",
        )
    }
}

/// One core over all windows asked about.
#[derive(Debug, Clone, Default)]
pub(super) struct Core {
    wall: Partial,
    turns: Partial,
    spun: Partial,
    parked: Partial,
    tick: Partial,
    run: Partial,
    wait: Partial,
    preempted: Partial,
    blocked: Partial,
    pub(super) lost: u64,
    long_turns: (u64, u64),
    /// Numbers of those that found no room.
    pub(super) long_turns_left_out: u64,
    pub(super) off_left_out: u64,
    self_ns: u64,
}

impl Core {
    pub(super) fn add(&mut self, window: &LatencyWindow) {
        window.ticks.iter().for_each(|tick| self.tick(tick));
        let (ns, number) = window.long_turns_left_out;
        let listed: u64 = window.long_turns.iter().map(|turn| turn.len_ns).sum();
        self.long_turns.0 += window.long_turns.len() as u64 + number;
        self.long_turns.1 += listed + ns;
        self.long_turns_left_out += number;
        self.off_left_out += window.off_left_out.1;
        self.self_ns += window.self_ns;
    }

    fn tick(&mut self, tick: &CoreTick) {
        self.wall.add(Some(tick.to_ns.saturating_sub(tick.from_ns)));
        self.turns.add(Some(tick.turns_ns));
        self.spun.add(Some(tick.spun_ns));
        self.parked.add(Some(tick.parked_ns));
        self.tick.add(Some(tick.tick_ns));
        self.run.add(tick.run_ns);
        self.wait.add(tick.wait_ns);
        self.preempted.add(tick.preempted_ns);
        self.blocked.add(tick.blocked_ns);
        self.lost += tick.lost;
    }
}

/// CPU of a shard; its own number where the manifest does not say.
pub(crate) fn cpu(manifest: &Manifest, shard: u16) -> u64 {
    manifest.cores.get(usize::from(shard)).copied().unwrap_or_else(|| u64::from(shard))
}

/// One row for each core that recorded or answered anything.
pub(super) fn rows(gathered: &Gathered, manifest: &Manifest) -> Vec<CoreLatency> {
    let mut shards: Vec<u16> =
        gathered.cores.keys().chain(gathered.responders.keys()).copied().collect();
    shards.sort_unstable();
    shards.dedup();
    let row = |shard: u16| {
        let core = gathered.cores.get(&shard).cloned().unwrap_or_default();
        let (all, late) = gathered.responders.get(&shard).copied().unwrap_or_default();
        let of = |part: &Partial, thing: &str| part.measured(thing, manifest);
        CoreLatency {
            core: cpu(manifest, shard),
            all: composition(&all),
            late: composition(&late),
            wall_ns: of(&core.wall, "tick"),
            turns_ns: of(&core.turns, "tick"),
            spun_ns: of(&core.spun, "tick"),
            parked_ns: of(&core.parked, "tick"),
            tick_ns: of(&core.tick, "tick"),
            run_ns: of(&core.run, "schedstat"),
            wait_ns: of(&core.wait, "schedstat"),
            preempted_ns: of(&core.preempted, "switch"),
            blocked_ns: of(&core.blocked, "switch"),
            lost: core.lost,
            long_turns: core.long_turns,
            self_ns: core.self_ns,
        }
    };
    shards.into_iter().map(row).collect()
}

/// The top lists of all windows, joined. A window's list bounds what an agent that is not in it may have
/// weighed: its lightest entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Joined {
    /// By agent: shard, and its sums where it was in a list.
    agents: BTreeMap<u32, Entry>,
    /// By shard: sum of the lightest entries of all lists.
    lightest: BTreeMap<u16, u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    shard: u16,
    weight: u64,
    error: u64,
    count: u64,
    /// Sum of the lightest entries of the lists that it was in.
    lightest: u64,
}

impl Joined {
    fn add(&mut self, shard: u16, list: &[TopAgent]) {
        // A list that never was full leaves nobody out: no entry took another's place.
        let full = list.iter().any(|of| of.error > 0);
        let lightest = list.iter().map(|of| of.weight).min().filter(|_| full).unwrap_or(0);
        *self.lightest.entry(shard).or_default() += lightest;
        for of in list {
            let entry = self.agents.entry(of.agent).or_insert(Entry { shard, ..Entry::default() });
            entry.weight = entry.weight.saturating_add(of.weight);
            entry.error = entry.error.saturating_add(of.error);
            entry.count += of.count;
            entry.lightest += lightest;
        }
    }

    fn rows(&self, manifest: &Manifest) -> Vec<WorstAgent> {
        let row = |(&agent, of): (&u32, &Entry)| {
            let all = self.lightest.get(&of.shard).copied().unwrap_or(0);
            WorstAgent {
                agent,
                core: cpu(manifest, of.shard),
                at_most_ns: of.weight.saturating_add(all.saturating_sub(of.lightest)),
                at_least_ns: of.weight.saturating_sub(of.error),
                count: of.count,
            }
        };
        let mut rows: Vec<WorstAgent> = self.agents.iter().map(row).collect();
        rows.sort_by_key(|of| (std::cmp::Reverse(of.at_least_ns), of.agent));
        rows.truncate(SHOWN_MAX);
        rows
    }
}

/// All top lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Agents {
    service: Joined,
    late: Joined,
    full: Joined,
}

impl Agents {
    pub(super) fn add(&mut self, window: &LatencyWindow) {
        self.service.add(window.shard, &window.top_service);
        self.late.add(window.shard, &window.top_late);
        // Any core's askers may find it full: every list bounds it.
        self.full.add(0, &window.more.top_full);
    }

    pub(super) fn service(&self, manifest: &Manifest) -> Vec<WorstAgent> {
        self.service.rows(manifest)
    }

    pub(super) fn late(&self, manifest: &Manifest) -> Vec<WorstAgent> {
        self.late.rows(manifest)
    }

    pub(super) fn full(&self, manifest: &Manifest) -> Vec<FullMailbox> {
        let shards = u32::try_from(manifest.cores.len()).unwrap_or(u32::MAX).max(1);
        let row = |of: WorstAgent| FullMailbox {
            agent: of.agent,
            core: cpu(manifest, u16::try_from(of.agent % shards).unwrap_or(u16::MAX)),
            at_least: of.at_least_ns,
            at_most: of.at_most_ns,
        };
        self.full.rows(manifest).into_iter().map(row).collect()
    }
}
