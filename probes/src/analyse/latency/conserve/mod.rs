//! Does it add up? What was recorded, against totals that are not its own sum.
//!
//! * Requests: each band's stages against the latency that the askers' clocks measured; requests counted by
//!   the recorder, by who asked and by who answered; stages of the tables against the requests that were
//!   written down whole.
//! * Cores, tick by tick: what the runtime says it did, against wall time; the task clock and the records of
//!   switches, against wall time; schedstat, which is another part of the kernel, against both.
//! * Legs: how many requests were on their way at instants that do not depend on them, against their rate
//!   times their mean time there. It needs no stamp of a request that is missing.
//!
//! A comparison has three outcomes. What is not known makes it unknown, with the cause, and never passed; so
//! does too little data for it to be able to fail. What was lost and is counted as lost makes it fail: lost
//! records of switches, disordered stamps, windows that are missing.

mod check;
mod cores;
mod little;
mod misfit;
mod requests;

pub use check::{Check, Conservation, Figures, Misfit, Outcome, Verdict, What};

use super::bands::{Bands, bands};
use crate::record::latency::LatencyWindow;

/// What the recorder counted of a window besides the buckets: its histogram of system latency, of all cores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Number of the window.
    pub window: u32,
    /// Requests in the histogram.
    pub requests: u64,
    /// Their system latency together, ns.
    pub system_ns: u128,
}

/// What the comparisons are allowed and told.
#[derive(Debug, Clone, PartialEq)]
pub struct Given<'a> {
    /// Windows of all cores, in any order.
    pub windows: &'a [LatencyWindow],
    /// The recorder's own counts; `None` where they are not known.
    pub counted: Option<&'a [Counted]>,
    /// By how much two clocks of the run may differ, ns.
    pub clock_ns: u64,
}

/// Share of a figure that the two may be apart.
pub(super) const SHARE: f64 = 0.01;

/// Makes all comparisons. Cold: sorts, allocates, and is linear in what was recorded.
#[must_use]
pub fn conservation(given: &Given<'_>) -> Conservation {
    let found = bands(given.windows);
    let mut checks = requests::all(given, &found);
    checks.extend(cores::all(given));
    checks.extend(little::all(given));
    Conservation::of(checks)
}

/// Windows of one core in order.
pub(super) fn of_shard(windows: &[LatencyWindow], shard: u16) -> Vec<&LatencyWindow> {
    let mut found: Vec<_> = windows.iter().filter(|window| window.shard == shard).collect();
    found.sort_by_key(|window| window.window);
    found
}

/// Cores that recorded, ascending.
pub(super) fn shards(windows: &[LatencyWindow]) -> Vec<u16> {
    let set: std::collections::BTreeSet<u16> = windows.iter().map(|window| window.shard).collect();
    set.into_iter().collect()
}

/// Requests that are in no bucket, as a share of all.
pub(super) fn disordered(found: &Bands) -> f64 {
    let all = found.total.count.saturating_add(found.disordered);
    found.disordered as f64 / all.max(1) as f64
}
