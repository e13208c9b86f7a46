//! Whether memory and store have room for a plan, before anything is begun.

use super::checkpoint;
use super::error::DriveError;
use crate::plan::{Plan, TOP};

/// Resident bytes of a hosted agent: 966 B were measured at 1,000,000 agents of the soak workload
/// (`soak --agents 1000000 --think 30s..60s`), and 56 B came with the attribution of latency; a half more for
/// agents with a larger state.
const BYTES_PER_AGENT: u64 = 1_550;
/// What an agent that signs has besides: its key ready to sign (about 640 bytes), its limits, its texts.
const KEY_BYTES: u64 = 1_200;
/// Fixed costs: rings, histograms, program text.
const BYTES_FIXED: u64 = 64 << 20;
/// Largest bytes of one window's histograms per core (2 cores wrote 12 to 25 kB) and of its record, in
/// which eight stalls with 16 to 19 frames each wrote 3.9 kB, and may have 48 frames.
const WINDOW_PER_CORE_BYTES: u64 = 32_000;
const WINDOW_BYTES: u64 = 20_000;
/// Of the attribution of a core's window: buckets, intervals, lists (2 cores wrote 26 to 29 kB with the
/// rest), and of each tick and each request written down whole.
const LATENCY_BYTES: u64 = 24_000;
const TICK_BYTES: u64 = 150;
const EXEMPLAR_BYTES: u64 = 260;
/// Two u32 and three u64 per agent when the run is sealed.
const SEAL_PER_AGENT_BYTES: u64 = 32;
/// Two u32 per agent from time to time.
const SO_FAR_PER_AGENT_BYTES: u64 = 8;
/// Plan, manifest, end record, directory blocks.
const RUN_FIXED_BYTES: u64 = 128 << 10;

/// State of the heap sampler, a file that is mapped: 12.4 MB with room for 65,536 samples.
const HEAP_BYTES: u64 = 13 << 20;

/// Bytes of both events of an elicitation in its log, with their frames and without its text: 2 x 32 of frames,
/// 84 and 66 of fields, schema and data (`protocol::elicitation::record`), rounded up.
const EVENTS_BYTES: f64 = 320.0;

/// Disk of the event logs, bytes: what is kept of them on the way.
fn log_needed(plan: &Plan) -> u64 {
    let kept_ns = super::replay::KEEP_NS.saturating_add(plan.timeout_ns);
    let kept_ns = if plan.protocol.keep_log { u64::MAX } else { kept_ns };
    let kept_s = plan.duration_ns.min(kept_ns) as f64 / 1e9;
    let each = EVENTS_BYTES + f64::from(plan.protocol.message_bytes);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let bytes = (plan.rate_per_s() * kept_s * each * 1.2) as u64;
    if matches!(&*plan.workload, "elicitation" | "wait_for_messages") { bytes } else { 0 }
}

/// Disk of the heap's state and of the copies that are kept on the way, bytes.
fn heap_needed(plan: &Plan) -> u64 {
    let copies = super::heap::copies(plan.duration_ns.saturating_add(plan.timeout_ns));
    if plan.heap.sample_bytes == 0 { 0 } else { HEAP_BYTES * (1 + copies) }
}

/// Memory that `plan` needs, bytes.
fn memory_needed(plan: &Plan) -> u64 {
    let heap = if plan.heap.sample_bytes == 0 { 0 } else { HEAP_BYTES };
    let key = if plan.workload == "elicitation" { KEY_BYTES } else { 0 };
    plan.agents.saturating_mul(BYTES_PER_AGENT + key).saturating_add(BYTES_FIXED + heap)
}

/// Bytes of a core's window.
fn window_needed(plan: &Plan) -> u64 {
    if !plan.observe.on {
        return WINDOW_PER_CORE_BYTES;
    }
    let ticks = plan.observe.window_ns() / plan.observe.tick_ns(plan.duration_ns).max(1) + 1;
    let exemplars = 2 * plan.observe.exemplars(plan.duration_ns) + TOP;
    let parts = ticks * TICK_BYTES + exemplars as u64 * EXEMPLAR_BYTES;
    WINDOW_PER_CORE_BYTES + LATENCY_BYTES + parts
}

/// Disk that `plan` needs on `cores` cores, bytes.
fn disk_needed(plan: &Plan, cores: u64) -> u64 {
    let length_ns = plan.duration_ns.saturating_add(plan.timeout_ns);
    let windows = length_ns.div_ceil(plan.observe.window_ns().max(1)) + 1;
    let window = window_needed(plan).saturating_mul(cores).saturating_add(WINDOW_BYTES);
    windows
        .saturating_mul(window)
        .saturating_add(plan.agents.saturating_mul(SEAL_PER_AGENT_BYTES))
        .saturating_add(
            plan.agents.saturating_mul(SO_FAR_PER_AGENT_BYTES * checkpoint::times(length_ns)),
        )
        .saturating_add(RUN_FIXED_BYTES)
        .saturating_add(heap_needed(plan))
        .saturating_add(log_needed(plan))
}

/// What a run holds of the disk from its start: its windows, what its agents did, its end.
pub(super) fn to_hold(plan: &Plan, cores: u64) -> u64 {
    disk_needed(plan, cores).saturating_sub(heap_needed(plan)).saturating_sub(log_needed(plan))
}

/// What is written at most with one window.
pub(super) fn of_a_window(plan: &Plan, cores: u64) -> u64 {
    window_needed(plan).saturating_mul(cores).saturating_add(WINDOW_BYTES)
}

/// Refuses a plan that memory cannot hold. What could not be read does not refuse.
pub(super) fn check_memory(plan: &Plan, available: Option<u64>) -> Result<(), DriveError> {
    let needed = memory_needed(plan);
    match available.filter(|&available| needed > available) {
        Some(available) => Err(DriveError::Memory { agents: plan.agents, needed, available }),
        None => Ok(()),
    }
}

/// Refuses a plan that the store cannot hold.
pub(super) fn check_disk(
    plan: &Plan,
    cores: u64,
    available: Option<u64>,
) -> Result<(), DriveError> {
    let needed = disk_needed(plan, cores);
    match available.filter(|&available| needed > available) {
        Some(available) => Err(DriveError::StoreFull { needed, available }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_enough_to_the_byte() {
        let plan = Plan::soak("elicit");
        let (memory, disk) = (memory_needed(&plan), disk_needed(&plan, 2));
        assert!(check_memory(&plan, Some(memory)).is_ok() && check_memory(&plan, None).is_ok());
        assert!(check_memory(&plan, Some(memory - 1)).is_err());
        assert!(check_disk(&plan, 2, Some(disk)).is_ok());
        let refused = check_disk(&plan, 2, Some(disk - 1)).unwrap_err().to_string();
        assert!(refused.contains("free space") && refused.contains("remedy:"), "{refused}");
        let (held, window) = (to_hold(&plan, 2), of_a_window(&plan, 2));
        assert!(held < disk && window * 3 < held, "{window} of {held}");
        let absurd = Plan { agents: u64::MAX, duration_ns: u64::MAX, ..plan };
        assert!(check_memory(&absurd, Some(u64::MAX - 1)).is_err());
    }
}
