//! What a request's service was made of.

use super::fleet::Fleet;
use super::index::{Core, Index};
use crate::record::latency::{Exemplar, Stamps};

/// Service may differ from the span of its one poll by this much: two more looks at the clock, ns.
const LOOKS_NS: u64 = 1_000;

/// Parts of a request's service. `None`: not known; its time is then in [`Service::rest_ns`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Service {
    /// All of it, ns.
    pub ns: u64,
    /// The spans of time that it lies in are known for so much of it, ns: all of a service in one poll, and
    /// of one in several polls the long ones. Only in these are switches joined to it.
    pub placed_ns: u64,
    /// Off the CPU although it could run, in intervals of 20 us and more, ns.
    pub preempted_ns: Option<u64>,
    /// Of `preempted_ns`, held by the CPU quota of the process, ns: by what the kernel counted in those seconds.
    pub throttled_ns: Option<u64>,
    /// Off the CPU and not ready, in intervals of 20 us and more, ns: in blocking calls, or held from outside.
    pub blocked_ns: Option<u64>,
    /// Off the CPU by the thread's own CPU time, of whatever length, ns.
    pub off_ns: Option<u64>,
    /// In the allocator, ns: counted calls times the measured mean of sampled ones.
    pub allocator_ns: Option<u64>,
    /// Page faults without I/O.
    pub minor_faults: Option<u64>,
    /// Page faults with I/O.
    pub major_faults: Option<u64>,
    /// The agent's own code, and whatever of the parts is not known, ns. The faults' time is in it: it is
    /// not measured, and a count times a price from elsewhere would be no measurement of this request.
    pub rest_ns: u64,
}

/// Splits the service of a request.
#[must_use]
pub fn service(exemplar: &Exemplar, index: &Index) -> Service {
    let stamps = &exemplar.stamps;
    let ns = stamps.service_ns;
    let mut split = Service { ns, rest_ns: ns, ..Service::default() };
    if stamps.answered_ns == 0 {
        return split;
    }
    let placed = match index.core(exemplar.responder_shard) {
        Some(core) => {
            let spans = spans(stamps, exemplar.responder, core);
            split.placed_ns = spans.iter().map(|(from, to)| to - from).sum::<u64>().min(ns);
            match core.switches {
                true => Some(joined(core, &index.fleet, &spans)),
                false => core.turns_read.then(|| lacking(core, &index.fleet, &spans)),
            }
        }
        None => None,
    };
    // Where a part of the service cannot be placed, what was joined is not all, and is no figure of it.
    let whole = split.placed_ns.saturating_add(LOOKS_NS) >= ns;
    let known = placed.filter(|off| whole || off.preempted_ns + off.blocked_ns > 0);
    split.preempted_ns = known.map(|off| off.preempted_ns);
    split.throttled_ns = known.map(|off| off.throttled_ns);
    split.blocked_ns = known.map(|off| off.blocked_ns);
    if let Some(counts) = &exemplar.counts {
        split.off_ns = counts.cpu_ns.map(|cpu| ns.saturating_sub(cpu));
        split.allocator_ns = counts.allocator_ns;
        split.minor_faults = counts.minor_faults;
        split.major_faults = counts.major_faults;
    }
    let joined = known.map_or(0, |off| off.preempted_ns + off.blocked_ns);
    let off = split.off_ns.unwrap_or(0).max(joined);
    split.rest_ns = ns.saturating_sub(off).saturating_sub(split.allocator_ns.unwrap_or(0));
    split
}

/// Where the service lies: the one poll, or of several the long ones of this agent.
fn spans(stamps: &Stamps, responder: u32, core: &Core) -> Vec<(u64, u64)> {
    let from = if stamps.due_ns == 0 { stamps.out.turn_ns } else { stamps.timer_turn_ns };
    let to = stamps.answered_ns;
    if to.saturating_sub(from) <= stamps.service_ns.saturating_add(LOOKS_NS) {
        return if from < to { vec![(from, to)] } else { Vec::new() };
    }
    core.turns(from, to)
        .filter(|(turn, _, _)| turn.agent == responder)
        .map(|(_, from, to)| (from, to))
        .collect()
}

/// Time off the CPU, ns.
#[derive(Debug, Clone, Copy, Default)]
struct OffCpu {
    preempted_ns: u64,
    /// Of these.
    throttled_ns: u64,
    blocked_ns: u64,
}

/// The same by the CPU time of the long turns that the spans lie in: what must lie in the spans.
fn lacking(core: &Core, fleet: &Fleet, spans: &[(u64, u64)]) -> OffCpu {
    let mut sums = OffCpu::default();
    for &(from, to) in spans {
        for (turn, from, to) in core.turns(from, to) {
            let Some(off) = core.turn_off(&turn) else { continue };
            let on_ns = turn.len_ns.saturating_sub(off.off_ns);
            let certain = (to - from).saturating_sub(on_ns);
            let ready = off.ready_ns.unwrap_or(0).min(certain);
            sums.preempted_ns += ready;
            sums.throttled_ns += fleet.throttled((from, to), ready);
            sums.blocked_ns += certain - ready;
        }
    }
    sums
}

/// Preempted and blocked in the spans.
fn joined(core: &Core, fleet: &Fleet, spans: &[(u64, u64)]) -> OffCpu {
    let mut sums = OffCpu::default();
    for &(from, to) in spans {
        for (off, from, to) in core.off(from, to) {
            if off.preempted {
                sums.preempted_ns += to - from;
                sums.throttled_ns += fleet.throttled((from, to), to - from);
            } else {
                sums.blocked_ns += to - from;
            }
        }
    }
    sums
}
