//! Agents and requests that stand out.

use std::collections::{BTreeMap, HashSet};

use super::stages::system_ns;
use crate::record::latency::{Exemplar, LatencyWindow, TopAgent};

/// Merges lists of many windows and cores into one (Agarwal et al., "Mergeable summaries", 2012), heaviest
/// first by what they certainly weigh, and then at most `most` of them.
///
/// Who is not in a full list may have weighed as much in it as its lightest: that is added to `weight` and
/// to `error`. So the true weight still lies from `weight - error` to `weight`. Lists must be whole, as
/// `SpaceSaving::heaviest` gives them: in one whose errors are all 0 nobody ever took another's place.
#[must_use]
pub fn heaviest<'a>(lists: impl IntoIterator<Item = &'a [TopAgent]>, most: usize) -> Vec<TopAgent> {
    let mut floors = 0u64;
    // Weight above the floors of the lists that it is in, those floors, what is certain, and times.
    let mut found: BTreeMap<u32, (u64, u64, u64)> = BTreeMap::new();
    for list in lists {
        let full = list.iter().any(|entry| entry.error > 0);
        let floor = if full { list.iter().map(|entry| entry.weight).min().unwrap_or(0) } else { 0 };
        floors = floors.saturating_add(floor);
        for entry in list {
            let (above, certain, count) = found.entry(entry.agent).or_default();
            *above = above.saturating_add(entry.weight - floor);
            *certain = certain.saturating_add(entry.weight.saturating_sub(entry.error));
            *count = count.saturating_add(entry.count);
        }
    }
    let mut merged: Vec<TopAgent> = found
        .into_iter()
        .map(|(agent, (above, certain, count))| {
            let weight = floors.saturating_add(above);
            TopAgent { agent, weight, error: weight - certain, count }
        })
        .collect();
    merged.sort_by_key(|entry| std::cmp::Reverse((entry.weight - entry.error, entry.weight)));
    merged.truncate(most);
    merged
}

/// A request that was written down whole, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Window that recorded it.
    pub window: u32,
    /// Its system latency, ns.
    pub system_ns: u64,
    /// The request.
    pub exemplar: Exemplar,
}

/// Requests that were written down whole, slowest first, each once whatever it was written down for.
#[must_use]
pub fn outliers<'a>(windows: impl IntoIterator<Item = &'a LatencyWindow>) -> Vec<Outlier> {
    let mut found: Vec<Outlier> = Vec::new();
    let mut seen = HashSet::new();
    for window in windows {
        for exemplar in &window.exemplars {
            let stamps = &exemplar.stamps;
            let key = (exemplar.asker, exemplar.responder, stamps.intended_ns, stamps.closed_ns);
            if seen.insert(key) {
                let system_ns = system_ns(stamps);
                found.push(Outlier { window: window.window, system_ns, exemplar: *exemplar });
            }
        }
    }
    found.sort_by_key(|outlier| std::cmp::Reverse(outlier.system_ns));
    found
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::analyse::latency::SpaceSaving;
    use crate::record::latency::{Stamps, Why};

    fn list(stream: &[(u32, u64)], room: usize) -> Vec<TopAgent> {
        let mut list = SpaceSaving::new(room);
        stream.iter().for_each(|&(agent, weight)| list.add(agent, weight));
        let entry = |heavy: crate::analyse::latency::Heavy<u32>| TopAgent {
            agent: heavy.key,
            weight: heavy.weight,
            error: heavy.error,
            count: heavy.count,
        };
        list.heaviest().into_iter().map(entry).collect()
    }

    proptest! {
        #[test]
        fn merged_weights_are_bounded_on_both_sides_in_any_order(
            room in 1usize..12,
            streams in prop::collection::vec(
                prop::collection::vec((0u32..20, 1u64..1_000), 0..80), 0..8),
        ) {
            let mut exact: HashMap<u32, u64> = HashMap::new();
            for &(agent, weight) in streams.iter().flatten() {
                *exact.entry(agent).or_default() += weight;
            }
            let mut lists: Vec<_> = streams.iter().map(|stream| list(stream, room)).collect();
            let merged = heaviest(lists.iter().map(Vec::as_slice), usize::MAX);
            for entry in &merged {
                let truth = exact[&entry.agent];
                prop_assert!(entry.weight - entry.error <= truth && truth <= entry.weight);
            }
            lists.reverse();
            let mut again = heaviest(lists.iter().map(Vec::as_slice), usize::MAX);
            let mut merged = merged;
            merged.sort_by_key(|entry| entry.agent);
            again.sort_by_key(|entry| entry.agent);
            prop_assert_eq!(merged, again);
        }
    }

    #[test]
    fn outliers_are_told_once_and_slowest_first() {
        let exemplar = |why, asker, closed_ns| Exemplar {
            why,
            asker,
            responder: 9,
            asker_shard: 0,
            responder_shard: 1,
            stamps: Stamps { intended_ns: 10, closed_ns, ..Stamps::default() },
            counts: None,
        };
        let exemplars = vec![
            exemplar(Why::Uniform, 1, 110),
            exemplar(Why::Late, 2, 910),
            exemplar(Why::Top, 2, 910),
            exemplar(Why::Top, 3, 510),
        ];
        let window = LatencyWindow { window: 4, exemplars, ..LatencyWindow::default() };
        let found = outliers(&[window]);
        let told: Vec<_> = found.iter().map(|o| (o.exemplar.asker, o.system_ns)).collect();
        assert_eq!(told, [(2, 900), (3, 500), (1, 100)]);
        assert_eq!(found[0].window, 4);
    }
}
