//! Which polls the thread was off its CPU in, by overlap of time; pure.
//!
//! Both lists are of one thread, in order of time, and do not overlap themselves. Every ns of every
//! interval goes to exactly one poll or to the time outside of all: the sum is kept.

use crate::collect::perf::OffCpu;

/// From a poll's begin to its end, ns of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub from_ns: u64,
    /// When it ended.
    pub to_ns: u64,
}

/// Time off the CPU, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OffShare {
    /// While the thread could have run.
    pub preempted_ns: u64,
    /// While it waited for something: inside a poll, a blocking call that should not be there.
    pub blocked_ns: u64,
    /// Intervals, or parts of some, in it.
    pub parts: u64,
}

impl OffShare {
    fn add(&mut self, ns: u64, preempted: bool) {
        let to = if preempted { &mut self.preempted_ns } else { &mut self.blocked_ns };
        *to = to.saturating_add(ns);
        self.parts += u64::from(ns > 0);
    }

    /// Both together.
    #[must_use]
    pub const fn total_ns(&self) -> u64 {
        self.preempted_ns.saturating_add(self.blocked_ns)
    }
}

/// What a join found besides the polls' shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Joined {
    /// Off the CPU outside of all polls: idle, or in the scheduler.
    pub outside: OffShare,
    /// Polls and intervals that begin before the one before them ended, or end before they begin. They
    /// are left out.
    pub disordered: u64,
}

/// Adds to `shares[i]` what of `intervals` lies in `polls[i]`. One pass over both.
///
/// # Panics
/// When `shares` is shorter than `polls`.
pub fn join(polls: &[Span], intervals: &[OffCpu], shares: &mut [OffShare]) -> Joined {
    assert!(shares.len() >= polls.len(), "a share for each poll");
    let mut joined = Joined::default();
    let (mut poll, mut polled_ns, mut done_ns) = (0, 0, 0);
    for interval in intervals {
        if interval.from_ns < done_ns || interval.to_ns < interval.from_ns {
            joined.disordered += 1;
            continue;
        }
        done_ns = interval.to_ns;
        let mut at_ns = interval.from_ns;
        while let Some(span) = polls.get(poll) {
            if span.from_ns < polled_ns || span.to_ns < span.from_ns {
                joined.disordered += 1;
                poll += 1;
                continue;
            }
            if span.from_ns >= interval.to_ns {
                break;
            }
            let (from, to) = (at_ns.max(span.from_ns), interval.to_ns.min(span.to_ns));
            if to > from {
                joined.outside.add(from - at_ns, interval.preempted);
                shares[poll].add(to - from, interval.preempted);
                at_ns = to;
            }
            if span.to_ns > interval.to_ns {
                break;
            }
            polled_ns = span.to_ns;
            poll += 1;
        }
        joined.outside.add(interval.to_ns - at_ns, interval.preempted);
    }
    joined.disordered += disordered(&polls[poll..], polled_ns);
    joined
}

/// Polls out of order among those that no interval reached.
fn disordered(rest: &[Span], mut polled_ns: u64) -> u64 {
    let mut count = 0;
    for span in rest {
        if span.from_ns < polled_ns || span.to_ns < span.from_ns {
            count += 1;
        } else {
            polled_ns = span.to_ns;
        }
    }
    count
}

/// What of `span` no interval covers, ns: of a hole in time, the part that is no switch.
#[must_use]
pub fn uncovered_ns(span: Span, intervals: &[OffCpu]) -> u64 {
    let mut shares = [OffShare::default()];
    join(&[span], intervals, &mut shares);
    span.to_ns.saturating_sub(span.from_ns).saturating_sub(shares[0].total_ns())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn off(from_ns: u64, to_ns: u64, preempted: bool) -> OffCpu {
        OffCpu { from_ns, to_ns, preempted, moved: false }
    }

    fn span(from_ns: u64, to_ns: u64) -> Span {
        Span { from_ns, to_ns }
    }

    #[test]
    fn an_interval_is_divided_among_what_it_touches() {
        let polls = [span(10, 20), span(20, 30), span(50, 60)];
        let intervals = [off(5, 12, true), off(15, 55, false), off(58, 70, true)];
        let mut shares = [OffShare::default(); 3];
        let joined = join(&polls, &intervals, &mut shares);
        assert_eq!(shares[0], OffShare { preempted_ns: 2, blocked_ns: 5, parts: 2 });
        assert_eq!(shares[1], OffShare { preempted_ns: 0, blocked_ns: 10, parts: 1 });
        assert_eq!(shares[2], OffShare { preempted_ns: 2, blocked_ns: 5, parts: 2 });
        assert_eq!(joined.outside, OffShare { preempted_ns: 15, blocked_ns: 20, parts: 3 });
        assert_eq!(joined.disordered, 0);
    }

    #[test]
    fn disorder_is_counted_and_left_out() {
        let polls = [span(10, 20), span(15, 30), span(40, 35), span(50, 60), span(1, 2)];
        let intervals = [off(52, 54, true), off(53, 58, true), off(59, 58, true)];
        let mut shares = [OffShare::default(); 5];
        let joined = join(&polls, &intervals, &mut shares);
        assert_eq!(joined.disordered, 5, "two intervals and three polls");
        assert_eq!(shares[3], OffShare { preempted_ns: 2, blocked_ns: 0, parts: 1 });
        assert_eq!(shares.iter().map(OffShare::total_ns).sum::<u64>(), 2);
    }

    #[test]
    fn what_of_a_hole_is_no_switch() {
        assert_eq!(uncovered_ns(span(100, 200), &[]), 100);
        assert_eq!(uncovered_ns(span(100, 200), &[off(90, 110, true), off(150, 160, false)]), 80);
        assert_eq!(uncovered_ns(span(100, 200), &[off(0, 500, true)]), 0);
    }

    /// Lengths of alternating gaps and pieces, from which ordered lists are made.
    fn lists() -> impl Strategy<Value = (Vec<Span>, Vec<OffCpu>)> {
        let pieces = || prop::collection::vec((0u64..20, 0u64..20, any::<bool>()), 0..40);
        (pieces(), pieces()).prop_map(|(polls, intervals)| {
            let place = |list: Vec<(u64, u64, bool)>| {
                let mut at = 0;
                list.into_iter()
                    .map(move |(gap, length, flag)| {
                        let from = at + gap;
                        at = from + length;
                        (from, at, flag)
                    })
                    .collect::<Vec<_>>()
            };
            let polls = place(polls).into_iter().map(|(from, to, _)| span(from, to)).collect();
            let intervals = place(intervals).into_iter().map(|(a, b, p)| off(a, b, p)).collect();
            (polls, intervals)
        })
    }

    proptest! {
        /// Against counting ns by ns.
        #[test]
        fn every_nanosecond_goes_to_one_place((polls, intervals) in lists()) {
            let mut shares = vec![OffShare::default(); polls.len()];
            let joined = join(&polls, &intervals, &mut shares);
            prop_assert_eq!(joined.disordered, 0);
            let mut slow = vec![(0, 0); polls.len() + 1];
            for interval in &intervals {
                for ns in interval.from_ns..interval.to_ns {
                    let place = polls.iter().position(|p| p.from_ns <= ns && ns < p.to_ns);
                    let cell = &mut slow[place.unwrap_or(polls.len())];
                    if interval.preempted { cell.0 += 1 } else { cell.1 += 1 }
                }
            }
            let outside = (joined.outside.preempted_ns, joined.outside.blocked_ns);
            prop_assert_eq!(outside, slow.pop().unwrap());
            let fast: Vec<_> = shares.iter().map(|s| (s.preempted_ns, s.blocked_ns)).collect();
            prop_assert_eq!(fast, slow);
        }
    }
}
