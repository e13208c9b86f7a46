//! What was done to the whole process, by the second: a CPU quota that held it, links between its cores that held or
//! lost messages.
//!
//! The kernel counts how long CPUs were throttled and not whom that kept waiting, so it is given to the cores' time
//! ready without a CPU in the same second: all of that if it was throttled for as long, or the same share of each piece
//! of it. The rest stays what it was, somebody else who had the CPU.

use super::Behind;
use crate::record::latency::{FleetSecond, LatencyWindow, Stage};

/// A message that was on its way for no longer was not held: a core that looks at its queues all the time sees one in
/// less, ns.
const HELD_NS: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
struct Second {
    from_ns: u64,
    to_ns: u64,
    /// Throttled, and ready without a CPU, ns: the first is at most the second.
    throttled: (u64, u64),
    /// Links held messages back.
    held: bool,
}

/// The seconds in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Fleet {
    seconds: Vec<Second>,
}

impl Fleet {
    /// Of the windows of all cores.
    pub(super) fn new(windows: &[LatencyWindow]) -> Self {
        let recorded = windows.iter().flat_map(|window| &window.more.seconds);
        let told = |of: &&FleetSecond| {
            of.links_delayed > 0 || of.throttle.is_some_and(|throttle| throttle.ns > 0)
        };
        let second = |of: &FleetSecond| {
            let ns = of.throttle.map_or(0, |throttle| throttle.ns);
            let waited = if ns > 0 { waited_ns(windows, (of.from_ns, of.to_ns)) } else { 0 };
            Second {
                from_ns: of.from_ns,
                to_ns: of.to_ns,
                throttled: (ns.min(waited), waited),
                held: of.links_delayed > 0,
            }
        };
        let mut seconds: Vec<Second> = recorded.filter(told).map(second).collect();
        seconds.sort_by_key(|second| second.from_ns);
        Self { seconds }
    }

    /// The seconds that a span touches, with the part of it in each.
    fn inside(&self, (from_ns, to_ns): (u64, u64)) -> impl Iterator<Item = (&Second, u64)> {
        let first = self.seconds.partition_point(|second| second.to_ns <= from_ns);
        self.seconds[first..]
            .iter()
            .take_while(move |second| second.from_ns < to_ns)
            .map(move |second| (second, to_ns.min(second.to_ns) - from_ns.max(second.from_ns)))
    }

    /// Of so many ns ready without a CPU somewhere in the span: held by the quota.
    pub(super) fn throttled(&self, span: (u64, u64), ns: u64) -> u64 {
        let part = |(second, both): (&Second, u64)| {
            let (held, waited) = second.throttled;
            u128::from(both) * u128::from(held) / u128::from(waited.max(1))
        };
        let held: u128 = self.inside(span).map(part).sum();
        let of = held * u128::from(ns) / u128::from((span.1 - span.0).max(1));
        u64::try_from(of).unwrap_or(u64::MAX).min(ns)
    }

    /// What a part of a wait is to be called that nothing of its core is known of.
    pub(super) fn instead(&self, stage: Stage, span: (u64, u64), rest_ns: u64) -> Option<Behind> {
        match stage {
            Stage::Unanswered => Some(Behind::NeverAnswered),
            // The one wait of this stage that is explained.
            Stage::Suspended => Some(Behind::Carried),
            Stage::Hop | Stage::ReplyHop => {
                let held = rest_ns > HELD_NS && self.inside(span).any(|(second, _)| second.held);
                held.then_some(Behind::Link)
            }
            _ => None,
        }
    }
}

/// How long the cores were ready without a CPU in a span, together: by the scheduler's count, and at least what is
/// recorded one by one.
fn waited_ns(windows: &[LatencyWindow], (from_ns, to_ns): (u64, u64)) -> u64 {
    let both = |from: u64, to: u64| to.min(to_ns).saturating_sub(from.max(from_ns));
    let ticks = windows.iter().flat_map(|window| &window.ticks);
    let counted = ticks.map(|tick| {
        let waited = tick.wait_ns.or(tick.preempted_ns).unwrap_or(0);
        let length = tick.to_ns.saturating_sub(tick.from_ns).max(1);
        let part =
            u128::from(waited) * u128::from(both(tick.from_ns, tick.to_ns)) / u128::from(length);
        u64::try_from(part).unwrap_or(u64::MAX)
    });
    let off = windows.iter().flat_map(|window| &window.off).filter(|off| off.preempted);
    let listed = off.map(|off| both(off.from_ns, off.to_ns));
    counted.sum::<u64>().max(listed.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::latency::{CoreTick, Off, ThrottleRecord};

    const S: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    /// A core that was ready without a CPU for so long in each of two seconds, of which the second one was throttled.
    fn fleet(waited_ns: u64, throttled_ns: u64) -> Fleet {
        let tick = |k: u64| CoreTick {
            from_ns: k * S,
            to_ns: (k + 1) * S,
            wait_ns: Some(waited_ns),
            ..CoreTick::default()
        };
        let second = |k: u64, ns: u64| FleetSecond {
            from_ns: k * S,
            to_ns: (k + 1) * S,
            throttle: Some(ThrottleRecord { periods: 10, times: 5, ns }),
            ..FleetSecond::default()
        };
        let mut window =
            LatencyWindow { ticks: vec![tick(0), tick(1)], ..LatencyWindow::default() };
        window.more.seconds = vec![second(0, 0), second(1, throttled_ns)];
        Fleet::new(&[window])
    }

    #[test]
    fn the_quota_has_its_share_of_the_waiting_and_none_in_a_second_without() {
        let half = fleet(800 * MS, 400 * MS);
        assert_eq!(half.throttled((S, S + 100 * MS), 100 * MS), 50 * MS);
        assert_eq!(half.throttled((0, S), 700 * MS), 0, "the second before");
        let across = half.throttled((S - 50 * MS, S + 50 * MS), 100 * MS);
        assert_eq!(across, 25 * MS, "half of its second half");
        let all = fleet(300 * MS, 900 * MS);
        assert_eq!(all.throttled((S, S + 100 * MS), 60 * MS), 60 * MS, "never more than there is");
        assert_eq!(fleet(0, 900 * MS).throttled((S, 2 * S), MS), 0, "no core waited");
        assert_eq!(half.throttled((S, S), 0), 0);
    }

    #[test]
    fn what_is_recorded_one_by_one_is_waiting_where_nothing_is_counted() {
        let throttle = Some(ThrottleRecord { periods: 10, times: 5, ns: 100 * MS });
        let second = FleetSecond { from_ns: 0, to_ns: S, throttle, ..FleetSecond::default() };
        let off = |from_ns, preempted| Off { from_ns, to_ns: from_ns + 200 * MS, preempted };
        let mut window = LatencyWindow {
            off: vec![off(0, true), off(S / 2, false)],
            ..LatencyWindow::default()
        };
        window.more.seconds = vec![second];
        assert_eq!(Fleet::new(&[window]).throttled((0, 200 * MS), 200 * MS), 100 * MS);
    }

    #[test]
    fn a_long_hop_is_the_links_where_these_held_something_and_no_answer_is_no_stage() {
        let second = FleetSecond { from_ns: S, to_ns: 2 * S, ..FleetSecond::default() };
        let fleet = |links_delayed| {
            let mut window = LatencyWindow::default();
            window.more.seconds = vec![FleetSecond { links_delayed, ..second }];
            Fleet::new(&[window])
        };
        let span = (S + MS, S + 51 * MS);
        assert_eq!(fleet(3).instead(Stage::Hop, span, 50 * MS), Some(Behind::Link));
        assert_eq!(fleet(3).instead(Stage::ReplyHop, span, 50 * MS), Some(Behind::Link));
        assert_eq!(fleet(3).instead(Stage::Hop, span, 20_000), None, "as any message takes");
        assert_eq!(fleet(3).instead(Stage::RunQueue, span, 50 * MS), None);
        assert_eq!(fleet(3).instead(Stage::Hop, (0, S), 50 * MS), None, "before");
        assert_eq!(fleet(0).instead(Stage::Hop, span, 50 * MS), None, "nothing was held");
        assert_eq!(fleet(0).instead(Stage::Unanswered, span, MS), Some(Behind::NeverAnswered));
    }
}
