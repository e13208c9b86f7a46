//! Where a new agent shall live.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::AgentId;
use crate::stats::ShardStats;

/// Which shard a new agent is put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// That shard.
    Shard(usize),
    /// The shards in turn.
    RoundRobin,
    /// The shard with the fewest live agents, as last published: up to 10 ms old.
    LeastAgents,
    /// The shard that was busy for the smallest part of its life, as last published.
    LeastBusy,
    /// Where that agent lives: agents that talk much belong together.
    With(AgentId),
}

/// The counter of [`Placement::RoundRobin`].
#[derive(Debug, Default)]
pub(crate) struct Rotor(AtomicUsize);

impl Placement {
    /// The shard; `None` when there is no such shard.
    pub(crate) fn shard(
        self,
        rotor: &Rotor,
        stats: &dyn Fn() -> Vec<ShardStats>,
        shards: usize,
    ) -> Option<usize> {
        let least = |of: &dyn Fn(&ShardStats) -> u64| {
            stats().iter().enumerate().min_by_key(|(_, stats)| of(stats)).map(|(shard, _)| shard)
        };
        let shard = match self {
            Self::Shard(shard) => Some(shard),
            Self::RoundRobin => Some(rotor.0.fetch_add(1, Ordering::Relaxed) % shards),
            Self::LeastAgents => least(&|stats| stats.live_agents),
            Self::LeastBusy => least(&|stats| {
                let lived_ns = (stats.busy_ns + stats.spun_ns + stats.parked_ns).max(1);
                u64::try_from(u128::from(stats.busy_ns) * 1_000_000 / u128::from(lived_ns))
                    .unwrap_or(u64::MAX)
            }),
            Self::With(agent) => Some(agent.shard()),
        };
        shard.filter(|&shard| shard < shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_names_its_shard() {
        let stats = || {
            let shard = |live_agents, busy_ns| ShardStats {
                live_agents,
                busy_ns,
                parked_ns: 100,
                ..ShardStats::default()
            };
            vec![shard(5, 10), shard(2, 300), shard(9, 20)]
        };
        let polls = |busy_ns| ShardStats { busy_ns, spun_ns: 900, ..ShardStats::default() };
        let of = || vec![polls(100), polls(10)];
        let place = Placement::LeastBusy.shard(&Rotor::default(), &of, 2);
        assert_eq!(place, Some(1), "a shard that polls is idle while it looks on");
        let rotor = Rotor::default();
        let place = |placement: Placement| placement.shard(&rotor, &stats, 3);
        assert_eq!((place(Placement::Shard(2)), place(Placement::Shard(3))), (Some(2), None));
        assert_eq!(place(Placement::LeastAgents), Some(1));
        assert_eq!(place(Placement::LeastBusy), Some(0));
        assert_eq!(place(Placement::With(AgentId(2 << 56 | 7))), Some(2));
        let turns: Vec<_> = (0..4).filter_map(|_| place(Placement::RoundRobin)).collect();
        assert_eq!(turns, [0, 1, 2, 0]);
    }
}
