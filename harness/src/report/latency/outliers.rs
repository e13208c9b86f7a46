//! The slowest requests of all windows, each explained while the windows around it are at hand.

use tailbeam_probes::analyse::latency::{stages, system_ns};
use tailbeam_probes::record::latency::{Exemplar, LatencyWindow, Stage, Why};

use super::cores::cpu;
use super::{Behind, Outlier, ServiceCounts, stage_name};
use crate::evidence::records::Manifest;

/// What a request waited behind, shards not yet turned into CPUs.
#[derive(Debug, Clone)]
struct Found {
    exemplar: Exemplar,
    behind: Vec<(u16, Behind)>,
}

/// Keeps the slowest, bounded.
#[derive(Debug)]
pub(super) struct Slow {
    max: usize,
    agent: Option<u32>,
    kept: Vec<Found>,
    before: Vec<LatencyWindow>,
}

impl Slow {
    pub(super) const fn new(max: usize, agent: Option<u32>) -> Self {
        Self { max, agent, kept: Vec::new(), before: Vec::new() }
    }

    fn wanted(&self, of: &Exemplar) -> bool {
        match self.agent {
            // Of one agent the drawn ones too: they show what is usual.
            Some(agent) => of.asker == agent || of.responder == agent,
            None => of.why != Why::Uniform,
        }
    }

    /// Takes the windows of all cores of one interval; what a request waited behind may have begun in the
    /// one before.
    pub(super) fn interval(&mut self, windows: &[LatencyWindow]) {
        let around: Vec<&LatencyWindow> = self.before.iter().chain(windows).collect();
        let mut found = Vec::new();
        for of in windows.iter().flat_map(|window| &window.exemplars) {
            // The same request may be late and among the slowest.
            let twice = found.iter().any(|known: &Found| known.exemplar.stamps == of.stamps);
            if self.wanted(of) && !twice {
                found.push(Found { exemplar: *of, behind: behind(of, &around) });
            }
        }
        self.kept.extend(found);
        self.kept.sort_by_key(|of| std::cmp::Reverse(system_ns(&of.exemplar.stamps)));
        self.kept.truncate(self.max);
        self.before = windows.to_vec();
    }

    pub(super) fn rows(&self, manifest: &Manifest) -> Vec<Outlier> {
        self.kept.iter().map(|of| row(of, manifest)).collect()
    }
}

fn row(of: &Found, manifest: &Manifest) -> Outlier {
    let (of, behind) = (&of.exemplar, &of.behind);
    let stages = stages(&of.stamps, 0).stages;
    let shown = Stage::ALL.iter().map(|&stage| (stage_name(stage), stages[stage.index()]));
    let behind =
        behind.iter().map(|(shard, of)| Behind { core: cpu(manifest, *shard), ..of.clone() });
    Outlier {
        at_s: of.stamps.intended_ns.saturating_sub(manifest.start_ns) as f64 / 1e9,
        system_ns: system_ns(&of.stamps),
        asker: of.asker,
        asker_core: cpu(manifest, of.asker_shard),
        responder: of.responder,
        responder_core: cpu(manifest, of.responder_shard),
        why: match of.why {
            Why::Uniform => "uniform",
            Why::Late => "late",
            Why::Top => "top",
        }
        .to_owned(),
        answered: of.stamps.answered_ns != 0,
        stages: shown.filter(|(_, ns)| *ns > 0).collect(),
        behind: behind.collect(),
        counts: of.counts.map(|counts| ServiceCounts {
            cpu_ns: counts.cpu_ns,
            minor_faults: counts.minor_faults,
            major_faults: counts.major_faults,
            preemptions: counts.preemptions,
            blocks: counts.blocks,
            allocations: counts.allocations,
            allocated_bytes: counts.allocated_bytes,
            allocator_ns: counts.allocator_ns,
        }),
    }
}

/// Long turns and times off the CPU that lie in the request's waiting, on the core where it waited.
fn behind(of: &Exemplar, windows: &[&LatencyWindow]) -> Vec<(u16, Behind)> {
    let at = &of.stamps;
    let waits = [
        (
            of.responder_shard,
            at.sent_ns,
            if at.answered_ns == 0 { at.closed_ns } else { at.answered_ns },
        ),
        (of.asker_shard, at.answered_ns, at.closed_ns),
        (of.asker_shard, at.intended_ns, at.sent_ns),
    ];
    let mut found: Vec<(u16, Behind)> = Vec::new();
    for (shard, from_ns, to_ns) in waits.into_iter().filter(|(_, from, to)| *from != 0 && from < to)
    {
        let overlap = |from: u64, to: u64| to.min(to_ns).saturating_sub(from.max(from_ns));
        for window in windows.iter().filter(|window| window.shard == shard) {
            for turn in &window.long_turns {
                let overlap_ns = overlap(turn.from_ns, turn.from_ns.saturating_add(turn.len_ns));
                let agent = (turn.agent != u32::MAX).then_some(turn.agent);
                let own = agent == Some(of.responder) && turn.from_ns >= at.out.turn_ns;
                let what = if own { "own_turn" } else { "turn" }.to_owned();
                found.push((
                    shard,
                    Behind { what, agent, core: 0, len_ns: turn.len_ns, overlap_ns },
                ));
            }
            for off in &window.off {
                let overlap_ns = overlap(off.from_ns, off.to_ns);
                let what = if off.preempted { "preempted" } else { "blocked" }.to_owned();
                let len_ns = off.to_ns.saturating_sub(off.from_ns);
                found.push((shard, Behind { what, agent: None, core: 0, len_ns, overlap_ns }));
            }
        }
    }
    found.retain(|(_, of)| of.overlap_ns > 0);
    found.sort_by_key(|(_, of)| std::cmp::Reverse(of.overlap_ns));
    found
}
