//! What each core's thread did.

use tailbeam_probes::record::latency::{CoreTick, LatencyWindow};

use super::build::Gathered;
use super::{CoreLatency, composition};
use crate::evidence::records::Manifest;
use crate::report::Measured;

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
