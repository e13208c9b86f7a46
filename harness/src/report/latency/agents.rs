//! Which agents weigh most: space-saving lists of the windows, joined with their bounds, and the exact sums of the
//! whole run.

use std::collections::BTreeMap;

use tailbeam_probes::record::latency::{LatencyWindow, TopAgent};

use super::cores::cpu;
use super::{ExactAgent, ExactAgents, FullMailbox, WorstAgent, WorstAgents};
use crate::evidence::AgentNumbers;
use crate::evidence::records::Manifest;
use crate::load::LIST;
use crate::report::Measured;

/// Agents shown of each list.
const SHOWN_MAX: usize = 16;

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
        // A list with room leaves nobody out.
        let full = list.len() >= LIST || list.iter().any(|of| of.error > 0);
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
            let at_most_ns = of.weight.saturating_add(all.saturating_sub(of.lightest));
            let at_least_ns = of.weight.saturating_sub(of.error);
            WorstAgent {
                agent,
                core: cpu(manifest, of.shard),
                at_most_ns,
                at_least_ns,
                error_ns: at_most_ns - at_least_ns,
                count: of.count,
            }
        };
        let mut rows: Vec<WorstAgent> = self.agents.iter().map(row).collect();
        rows.sort_by_key(|of| (std::cmp::Reverse(of.at_least_ns), of.agent));
        rows.truncate(SHOWN_MAX);
        rows
    }

    /// What an agent that is in no list may weigh at most: it is on one shard.
    fn left_out_ns(&self) -> u64 {
        self.lightest.values().copied().max().unwrap_or(0)
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

    pub(super) fn worst(&self, manifest: &Manifest, numbers: &AgentNumbers) -> WorstAgents {
        WorstAgents {
            service: self.service.rows(manifest),
            service_left_out_ns: self.service.left_out_ns(),
            late: self.late.rows(manifest),
            late_left_out_ns: self.late.left_out_ns(),
            exact: exact(manifest, numbers),
            full: self.full(manifest),
        }
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

/// The largest of each kind of sum.
fn exact(manifest: &Manifest, numbers: &AgentNumbers) -> Measured<ExactAgents> {
    let (Some(system), Some(worst), Some(service), Some(completions)) =
        (&numbers.system_ns, &numbers.worst_ns, &numbers.service_ns, &numbers.completions)
    else {
        return Measured::unknown(
            "sums of single agents are written when a run is sealed, and this run has none",
            "end a run by its duration or by SIGINT, and record it with this version",
        );
    };
    let shards = manifest.cores.len().max(1);
    let row = |index: usize| {
        let at = |sums: &[u64]| sums.get(index).copied().unwrap_or(0);
        ExactAgent {
            // An index of a run: a u32.
            agent: u32::try_from(index).unwrap_or(u32::MAX),
            core: cpu(manifest, u16::try_from(index % shards).unwrap_or(u16::MAX)),
            answered: completions.get(index).map_or(0, |&count| u64::from(count)),
            system_ns: at(system),
            worst_ns: at(worst),
            service_ns: at(service),
        }
    };
    let largest = |of: &[u64]| heaviest(of).into_iter().map(row).collect();
    Measured::Known(ExactAgents {
        agents: system.len() as u64,
        system: largest(system),
        worst: largest(worst),
        service: largest(service),
    })
}

/// Places of the largest, the largest first; what is 0 is none of them.
fn heaviest(of: &[u64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..of.len()).filter(|&place| of[place] > 0).collect();
    places.sort_unstable_by_key(|&place| (std::cmp::Reverse(of[place]), place));
    places.truncate(SHOWN_MAX);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_nothing_is_no_weight() {
        assert_eq!(heaviest(&[0, 5, 9, 5, 0]), [2, 1, 3]);
        assert_eq!(heaviest(&vec![1; 40]).len(), SHOWN_MAX);
    }

    /// Two windows with full lists: the bounds hold the truth, and say what may be missing.
    #[test]
    fn bounds_of_joined_lists_hold_the_truth() {
        let of = |agent, weight, error| TopAgent { agent, weight, error, count: 1 };
        let mut joined = Joined::default();
        joined.add(0, &[of(1, 100, 0), of(2, 10, 6)]);
        joined.add(0, &[of(1, 50, 0), of(3, 8, 5)]);
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "id": "", "recorded_by": "", "workload": "", "started_unix_ns": 0, "start_ns": 0,
            "plan_sha256": "", "cores": [4], "limits_ns": [], "host": "",
        }))
        .expect("a manifest");
        let rows = joined.rows(&manifest);
        let bounds: Vec<_> = rows.iter().map(|r| (r.agent, r.at_least_ns, r.at_most_ns)).collect();
        assert_eq!(bounds, [(1, 150, 150), (2, 4, 10 + 8), (3, 3, 8 + 10)]);
        assert!(rows.iter().all(|row| row.error_ns == row.at_most_ns - row.at_least_ns));
        assert_eq!(joined.left_out_ns(), 18, "as much as the lightest of both lists");
    }
}
