//! The slowest requests of all windows, each explained while the windows around it are at hand.

use tailbeam_probes::analyse::latency::explain::{self, Explained, Index, explain};
use tailbeam_probes::analyse::latency::outliers;
use tailbeam_probes::record::latency::{Exemplar, LatencyWindow, Stage, Why};

use super::cores::cpu;
use super::{Behind, Outlier, ServiceCounts, ServiceParts, stage_name};
use crate::evidence::records::Manifest;

/// Causes kept of one request.
const CAUSES_MAX: usize = 8;

/// Keeps the slowest, bounded.
#[derive(Debug)]
pub(super) struct Slow {
    max: usize,
    agent: Option<u32>,
    kept: Vec<(Exemplar, Explained)>,
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
    pub(super) fn interval(&mut self, windows: &[LatencyWindow], clock_ns: u64) {
        if self.max == 0 {
            return;
        }
        let least = self.kept.get(self.max - 1).map(|(_, explained)| explained.system_ns);
        let found: Vec<Exemplar> = outliers(windows)
            .into_iter()
            .filter(|of| {
                self.wanted(&of.exemplar) && least.is_none_or(|least| of.system_ns > least)
            })
            .take(self.max)
            .map(|of| of.exemplar)
            .collect();
        let mut around = std::mem::take(&mut self.before);
        around.extend_from_slice(windows);
        let index = Index::new(&around);
        self.kept.extend(found.into_iter().map(|of| (of, explain(&of, &index, clock_ns))));
        self.kept.sort_by_key(|(_, explained)| std::cmp::Reverse(explained.system_ns));
        self.kept.truncate(self.max);
        self.before = windows.to_vec();
    }

    pub(super) fn rows(&self, manifest: &Manifest) -> Vec<Outlier> {
        self.kept.iter().map(|(of, explained)| row(of, explained, manifest)).collect()
    }
}

fn row(of: &Exemplar, explained: &Explained, manifest: &Manifest) -> Outlier {
    let stages = &explained.staged.stages;
    let shown = Stage::ALL.iter().map(|&stage| (stage_name(stage), stages[stage.index()]));
    let service = &explained.service;
    Outlier {
        at_s: of.stamps.intended_ns.saturating_sub(manifest.start_ns) as f64 / 1e9,
        system_ns: explained.system_ns,
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
        behind: behind(explained, manifest),
        behind_unrecorded_ns: explained.waits.iter().map(|wait| wait.rest_ns).sum(),
        service: ServiceParts {
            preempted_ns: service.preempted_ns,
            throttled_ns: service.throttled_ns.filter(|ns| *ns > 0),
            blocked_ns: service.blocked_ns,
            off_ns: service.off_ns,
            allocator_ns: service.allocator_ns,
            rest_ns: service.rest_ns,
        },
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

fn behind(explained: &Explained, manifest: &Manifest) -> Vec<Behind> {
    let mut found: Vec<Behind> = Vec::new();
    for wait in &explained.waits {
        for cause in &wait.causes {
            let (what, agent) = words(cause.behind);
            found.push(Behind {
                stage: stage_name(wait.stage),
                what: what.to_owned(),
                agent,
                core: cpu(manifest, cause.shard),
                ns: cause.ns,
                pieces: cause.pieces,
            });
        }
    }
    found.sort_by_key(|of| std::cmp::Reverse(of.ns));
    found.truncate(CAUSES_MAX);
    found
}

/// What it is, and whose.
pub(super) fn words(behind: explain::Behind) -> (&'static str, Option<u32>) {
    let named = |agent: u32| Some(agent).filter(|agent| *agent != u32::MAX);
    match behind {
        explain::Behind::Turn { agent } => ("turn", named(agent)),
        explain::Behind::Preempted { during } => ("preempted", during.and_then(named)),
        explain::Behind::Blocked { during } => ("blocked", named(during)),
        explain::Behind::Asleep => ("asleep", None),
        explain::Behind::Throttled => ("throttled", None),
        explain::Behind::Link => ("link", None),
        explain::Behind::Carried => ("carried", None),
        explain::Behind::NeverAnswered => ("never_answered", None),
    }
}
