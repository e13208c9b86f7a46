//! A million requests of ten thousand agents.

use std::collections::HashMap;

use tailbeam_probes::analyse::latency::{Bands, StageTable, bands, by_core, heaviest};
use tailbeam_probes::record::latency::{LatencyWindow, Stage, Sums};

use crate::world::{BOUND, MS, Plan, US, World};

#[test]
fn a_million_requests_are_all_in_one_band_each_with_all_their_time() {
    let plan = Plan {
        agents: 10_000,
        requests: 1_000_000,
        every_ns: 8 * US,
        window_ns: 500 * MS,
        silent: 1,
        sample_ns: MS,
        ..Plan::default()
    };
    let book = World::book(&plan);
    let windows = &book.windows;
    let found = bands(windows);
    assert_eq!(found.total.count + found.disordered, 1_000_000);
    assert_eq!(found.disordered, 0);
    let mut sum = Sums::default();
    found.bands.iter().for_each(|band| sum.merge(&band.sums));
    assert_eq!(sum, found.total, "bands are all requests, stage by stage");
    sums_agree(&found);
    for (band, nominal) in found.bands.iter().zip([0.5, 0.4, 0.09, 0.009, 0.001]) {
        let share = band.sums.count as f64 / 1e6;
        assert!((share / nominal - 1.0).abs() < 0.5, "{share} for {nominal}");
        let staged: f64 = Stage::ALL.into_iter().map(|stage| band.mean_ns(stage)).sum();
        assert!((staged / band.sums.mean_staged_ns() - 1.0).abs() < 1e-9);
    }
    let (askers, responders) = by_core(windows);
    assert_eq!(askers.iter().map(|(_, sums)| sums.count).sum::<u64>(), 1_000_000);
    assert_eq!(responders.iter().map(|r| r.all.count).sum::<u64>(), 1_000_000);
    assert_eq!(book.counted.iter().map(|counted| counted.requests).sum::<u64>(), 1_000_000);
    orders(windows);
    agents(windows);
}

/// To the ns, but for what the clocks differ in requests that were clamped.
pub(crate) fn sums_agree(found: &Bands) {
    let apart = found.total.staged_ns().abs_diff(u128::from(found.total.system_ns));
    assert!(apart <= u128::from(found.clamped * BOUND), "{apart} of {} clamps", found.clamped);
}

/// Merged forward, backward and by halves: the same.
fn orders(windows: &[LatencyWindow]) {
    let forward = bands(windows);
    assert_eq!(forward, bands(windows.iter().rev()));
    let (mut even, mut odd) = (StageTable::new(), StageTable::new());
    for (k, window) in windows.iter().enumerate() {
        let table = if k % 2 == 0 { &mut even } else { &mut odd };
        table.merge_sums(&window.buckets);
    }
    let mut other = odd.clone();
    other.merge(&even);
    even.merge(&odd);
    assert_eq!(even, other);
    assert_eq!(other.total(), forward.total);
}

/// Every agent's service lies where its list says.
fn agents(windows: &[LatencyWindow]) {
    let lists = || windows.iter().map(|window| window.top_service.as_slice());
    let merged = heaviest(lists(), usize::MAX);
    let total: u64 = lists().flatten().map(|entry| entry.weight).sum();
    let service: u64 = bands(windows).total.stages[Stage::Service.index()];
    assert_eq!(total, service, "the lists weigh all service, whoever has it");
    let certain: HashMap<u32, u64> =
        merged.iter().map(|entry| (entry.agent, entry.weight - entry.error)).collect();
    assert_eq!(certain.len(), merged.len(), "each agent once");
    assert!(certain.values().sum::<u64>() <= service);
}
