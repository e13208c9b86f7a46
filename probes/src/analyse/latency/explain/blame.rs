//! The same for a band, from the requests of it that were written down whole.

use std::collections::BTreeMap;

use super::super::bands::{Band, Bands, CUTS};
use super::super::sample::{Drawn, Estimate, drawn, estimate_at};
use super::{Behind, Explained, Index, Service, explain};
use crate::record::latency::{LatencyWindow, Stage, Why};

/// A cause of a band's waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blame {
    /// Waits in this stage.
    pub stage: Stage,
    /// For this core.
    pub shard: u16,
    /// Were behind this; `None`: behind nothing that was recorded.
    pub behind: Option<Behind>,
    /// So long, ns per request of the band.
    pub ns: Estimate,
    /// Requests of the sample that waited behind it.
    pub requests: u64,
}

/// How the sample of a band was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draws {
    /// From all requests of their window and core.
    pub uniform: u64,
    /// From all above what their window called late.
    pub late: u64,
}

/// What the requests of a band waited behind and what their service was made of, estimated from a sample.
///
/// Means are per request of the band, each exemplar weighted by the requests that it stands for. The sample
/// of the counts within the service (`off`, `allocator`, faults) is smaller: requests that were drawn before
/// they were served, and those that were late already then. Requests that their own service made late are in
/// it only by the first way, so in high bands `n` is what to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct BandCauses {
    /// Index of the band.
    pub band: usize,
    /// How the sample was drawn.
    pub draws: Draws,
    /// Requests of the band.
    pub requests: u64,
    /// Causes of its waits, longest first.
    pub waits: Vec<Blame>,
    /// Held by the CPU quota of the process, in waits on whatever core and in the service, ns.
    pub throttled: Option<Estimate>,
    /// Its service, ns.
    pub service: Option<Estimate>,
    /// Of it preempted, by records of switches, ns.
    pub preempted: Option<Estimate>,
    /// Of it blocked, by records of switches, ns.
    pub blocked: Option<Estimate>,
    /// Of it off the CPU, by the thread's CPU time, ns.
    pub off: Option<Estimate>,
    /// Of it in the allocator, ns.
    pub allocator: Option<Estimate>,
    /// Page faults without I/O in it.
    pub minor_faults: Option<Estimate>,
    /// Page faults with I/O in it.
    pub major_faults: Option<Estimate>,
}

/// Causes of each band that has a sample.
#[must_use]
pub fn causes(
    windows: &[LatencyWindow],
    found: &Bands,
    index: &Index,
    clock_ns: u64,
) -> [Option<BandCauses>; CUTS.len()] {
    let of = |band: usize| of_band(windows, (band, &found.bands[band]), index, clock_ns);
    std::array::from_fn(of)
}

fn of_band(
    windows: &[LatencyWindow],
    (band, cut): (usize, &Band),
    index: &Index,
    clock_ns: u64,
) -> Option<BandCauses> {
    if cut.sums.count == 0 {
        return None;
    }
    let sample = drawn(windows, cut);
    if sample.is_empty() {
        return None;
    }
    let explained: Vec<Explained> =
        sample.iter().map(|drawn| explain(drawn.exemplar, index, clock_ns)).collect();
    let late = sample.iter().filter(|drawn| drawn.exemplar.why == Why::Late).count() as u64;
    let part = |of: fn(&Service) -> Option<u64>| {
        estimate_at(&sample, |place| of(&explained[place].service).map(|value| value as f64))
    };
    Some(BandCauses {
        band,
        draws: Draws { uniform: sample.len() as u64 - late, late },
        requests: cut.sums.count,
        waits: waits(&sample, &explained),
        throttled: estimate_at(&sample, |place| Some(throttled(&explained[place]) as f64)),
        service: part(|service| Some(service.ns)),
        preempted: part(|service| service.preempted_ns),
        blocked: part(|service| service.blocked_ns),
        off: part(|service| service.off_ns),
        allocator: part(|service| service.allocator_ns),
        minor_faults: part(|service| service.minor_faults),
        major_faults: part(|service| service.major_faults),
    })
}

fn throttled(of: &Explained) -> u64 {
    let causes = of.waits.iter().flat_map(|wait| &wait.causes);
    let waited = causes.filter(|cause| cause.behind == Behind::Throttled).map(|cause| cause.ns);
    waited.sum::<u64>() + of.service.throttled_ns.unwrap_or(0)
}

/// Stage, core and cause.
type Key = (Stage, u16, Option<Behind>);

fn waits(sample: &[Drawn<'_>], explained: &[Explained]) -> Vec<Blame> {
    let mut found: BTreeMap<Key, Vec<(usize, u64)>> = BTreeMap::new();
    for (place, one) in explained.iter().enumerate() {
        for wait in &one.waits {
            let causes = wait.causes.iter().map(|cause| (Some(cause.behind), cause.ns));
            for (behind, ns) in causes.chain([(None, wait.rest_ns)]).filter(|(_, ns)| *ns > 0) {
                found.entry((wait.stage, wait.shard, behind)).or_default().push((place, ns));
            }
        }
    }
    let mut blames: Vec<Blame> = found
        .into_iter()
        .filter_map(|((stage, shard, behind), parts)| {
            let mut values = vec![0u64; sample.len()];
            parts.iter().for_each(|&(place, ns)| values[place] += ns);
            let ns = estimate_at(sample, |place| Some(values[place] as f64))?;
            Some(Blame { stage, shard, behind, ns, requests: parts.len() as u64 })
        })
        .collect();
    blames.sort_by(|a, b| b.ns.mean.total_cmp(&a.ns.mean));
    blames
}
