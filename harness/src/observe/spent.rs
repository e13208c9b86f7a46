//! Where no switches are recorded: how long the thread was off its CPU in a long turn, by readings of its CPU time.
//!
//! A reading takes about 1 us (CPU time of the thread 0.4, schedstat 0.6), so there is one in each millisecond of a
//! shard that is busy, one after a sleep if the last is older than that, and one at the end of each long turn. The
//! CPU time since the last reading before a turn is at least the turn's own. What the turn is longer than that, it
//! was off its CPU for certain; up to a millisecond more is possible. When in the turn is not known.

use tailbeam_probes::clock;
use tailbeam_probes::collect::schedstat::Schedstat;
use tailbeam_probes::record::latency::TurnOff;

/// Between two readings while the shard is busy, ns.
pub(super) const READING_NS: u64 = 1_000_000;
/// What is shorter is not kept, as of recorded switches, ns.
const LEAST_NS: u64 = 20_000;

/// A reading of the calling thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    at_ns: u64,
    cpu_ns: u64,
    /// Ready without a CPU.
    wait_ns: Option<u64>,
}

impl Spent {
    pub(super) fn read(now_ns: u64, schedstat: Option<&Schedstat>) -> Self {
        let wait_ns = schedstat.and_then(|of| of.read().ok()).map(|read| read.wait_ns);
        Self { at_ns: now_ns, cpu_ns: clock::thread_cpu_ns(), wait_ns }
    }

    /// Whether it is time for the next.
    pub(super) const fn is_old(&self, now_ns: u64) -> bool {
        now_ns >= self.at_ns.saturating_add(READING_NS)
    }

    /// How long the thread was off its CPU in a turn that ended with `after` and began after `self`; none when it
    /// was not for long.
    pub(super) fn turn(&self, after: &Self, from_ns: u64, len_ns: u64) -> Option<TurnOff> {
        let off_ns = len_ns.saturating_sub(after.cpu_ns.saturating_sub(self.cpu_ns));
        let waited = after.wait_ns.zip(self.wait_ns).map(|(now, then)| now.saturating_sub(then));
        let ready_ns = waited.map(|ns| ns.min(off_ns));
        (off_ns >= LEAST_NS).then_some(TurnOff { from_ns, off_ns, ready_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_turn_is_longer_than_its_cpu_time_it_was_off() {
        let before = Spent { at_ns: 1_000, cpu_ns: 50_000, wait_ns: Some(7_000) };
        let after = |cpu_ns, wait_ns| Spent { at_ns: 30_000_000, cpu_ns, wait_ns };
        let turn = |after: Spent| before.turn(&after, 2_000, 25_000_000);
        let off = TurnOff { from_ns: 2_000, off_ns: 20_000_000, ready_ns: Some(19_000_000) };
        assert_eq!(turn(after(5_050_000, Some(19_007_000))), Some(off));
        let most = turn(after(5_050_000, Some(99_000_000))).expect("it was off");
        assert_eq!(most.ready_ns, Some(20_000_000), "it may have waited before the turn, too");
        assert_eq!(turn(after(5_050_000, None)).map(|off| off.ready_ns), Some(None));
        assert_eq!(turn(after(25_040_000, Some(7_000))), None, "10 us are the clocks'");
        assert_eq!(turn(after(90_000_000, Some(7_000))), None);
        assert!(before.is_old(1_001_000) && !before.is_old(1_000_999));
    }
}
