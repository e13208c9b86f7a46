//! What is counted of all cores together once a second, by the controller's thread: what a CPU quota did to the process,
//! what faulty links did to messages, and how far requests came.

use std::sync::atomic::Ordering::Relaxed;

use tailbeam_probes::Unavailable;
use tailbeam_probes::collect::quota::{CpuQuota, Level, between};
use tailbeam_probes::record::latency::{CarriedSecond, FleetSecond, ThrottleRecord};
use tailbeam_runtime::Runtime;

use crate::load::legs::{Legs, steps};
use crate::load::secure::far::FarCounts;

/// Seconds kept until their window is written; in a longer one the last gets longer.
const SECONDS_MAX: usize = 1_024;

/// Counts since the runtime began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    steps: [u64; 4],
    dropped: u64,
    delayed: u64,
    /// Carried to a second process, answered, given up, not carried, connections lost; none without one.
    carried: Option<[u64; 5]>,
}

/// Sums over the cores.
fn carried(far: &[FarCounts]) -> [u64; 5] {
    far.iter().fold([0; 5], |sum, core| {
        let counts = [&core.carried, &core.answered, &core.given_up, &core.not_carried, &core.lost];
        std::array::from_fn(|at| sum[at] + counts[at].load(Relaxed))
    })
}

impl Counts {
    /// As they are now: two looks at what each core has published.
    pub(super) fn read(runtime: &Runtime, legs: &[Legs], far: Option<&[FarCounts]>) -> Self {
        let (mut dropped, mut delayed) = (0, 0);
        for shard in runtime.stats() {
            dropped += shard.link_dropped + shard.link_overflowed;
            delayed += shard.link_delayed;
        }
        Self { steps: steps(legs), dropped, delayed, carried: far.map(carried) }
    }
}

/// The seconds of the window that runs.
#[derive(Debug, Default)]
pub(super) struct FleetSeconds {
    quota: Option<CpuQuota>,
    /// The last reading of it; none after one that failed.
    levels: Option<Vec<Level>>,
    before: Counts,
    seconds: Vec<FleetSecond>,
    carried: Vec<CarriedSecond>,
}

impl FleetSeconds {
    /// Looks where the quota of this process is counted.
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) fn open(&mut self) -> Result<(), Unavailable> {
        self.quota = Some(CpuQuota::own()?);
        Ok(())
    }

    /// The first second begins with these counts.
    pub(super) fn restart(&mut self, now: Counts) {
        self.levels = self.levels();
        (self.before, self.seconds, self.carried) = (now, Vec::new(), Vec::new());
    }

    fn levels(&self) -> Option<Vec<Level>> {
        self.quota.as_ref()?.read().ok()
    }

    /// A second ends with these counts.
    pub(super) fn second(&mut self, span: (u64, u64), now: Counts) {
        let levels = self.levels();
        let before = std::mem::replace(&mut self.levels, levels);
        let throttle =
            before.zip(self.levels.as_deref()).and_then(|(then, now)| between(&then, now));
        let made = made(
            span,
            (&self.before, &now),
            throttle.map(|of| ThrottleRecord { periods: of.periods, times: of.times, ns: of.ns }),
        );
        if let Some((before, now)) = self.before.carried.zip(now.carried) {
            keep_carried(&mut self.carried, made_carried(span, before, now));
        }
        self.before = now;
        keep(&mut self.seconds, made);
    }

    /// Hands over the seconds of a window.
    pub(super) fn take(&mut self) -> (Vec<FleetSecond>, Vec<CarriedSecond>) {
        (std::mem::take(&mut self.seconds), std::mem::take(&mut self.carried))
    }
}

fn made_carried((from_ns, to_ns): (u64, u64), before: [u64; 5], now: [u64; 5]) -> CarriedSecond {
    let [carried, answered, given_up, not_carried, lost] =
        std::array::from_fn(|at| now[at].saturating_sub(before[at]));
    CarriedSecond { from_ns, to_ns, carried, answered, given_up, not_carried, lost }
}

fn keep_carried(seconds: &mut Vec<CarriedSecond>, second: CarriedSecond) {
    if seconds.len() < SECONDS_MAX {
        return seconds.push(second);
    }
    let Some(last) = seconds.last_mut() else { return };
    last.to_ns = second.to_ns;
    last.carried += second.carried;
    last.answered += second.answered;
    last.given_up += second.given_up;
    last.not_carried += second.not_carried;
    last.lost += second.lost;
}

fn made(
    (from_ns, to_ns): (u64, u64),
    (before, now): (&Counts, &Counts),
    throttle: Option<ThrottleRecord>,
) -> FleetSecond {
    FleetSecond {
        from_ns,
        to_ns,
        throttle,
        links_dropped: now.dropped.saturating_sub(before.dropped),
        links_delayed: now.delayed.saturating_sub(before.delayed),
        steps: std::array::from_fn(|step| now.steps[step].saturating_sub(before.steps[step])),
    }
}

fn keep(seconds: &mut Vec<FleetSecond>, second: FleetSecond) {
    if seconds.len() < SECONDS_MAX {
        return seconds.push(second);
    }
    let Some(last) = seconds.last_mut() else { return };
    last.to_ns = second.to_ns;
    last.throttle = last.throttle.zip(second.throttle).map(|(a, b)| ThrottleRecord {
        periods: a.periods + b.periods,
        times: a.times + b.times,
        ns: a.ns + b.ns,
    });
    last.links_dropped += second.links_dropped;
    last.links_delayed += second.links_delayed;
    last.steps.iter_mut().zip(second.steps).for_each(|(sum, more)| *sum += more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_what_came_in_it_and_nothing_is_lost_where_there_is_no_room() {
        let counts = |n: u64| Counts {
            steps: [n, n, n / 2, n / 2],
            dropped: 2 * n,
            delayed: n,
            carried: None,
        };
        let throttle = |ns| Some(ThrottleRecord { periods: 10, times: 4, ns });
        let one = made((5, 9), (&counts(10), &counts(14)), throttle(7));
        assert_eq!((one.steps, one.links_dropped, one.links_delayed), ([4, 4, 2, 2], 8, 4));
        let mut seconds = vec![FleetSecond::default(); SECONDS_MAX - 1];
        keep(&mut seconds, one);
        keep(&mut seconds, FleetSecond { from_ns: 9, to_ns: 12, ..one });
        assert_eq!(seconds.len(), SECONDS_MAX);
        let last = seconds.last().expect("some");
        assert_eq!((last.from_ns, last.to_ns, last.steps), (5, 12, [8, 8, 4, 4]));
        assert_eq!(last.throttle.map(|of| (of.times, of.ns)), Some((8, 14)));
        keep(&mut seconds, FleetSecond { throttle: None, ..one });
        assert_eq!(seconds.last().expect("some").throttle, None, "unknown in part is unknown");
    }

    #[test]
    fn what_was_carried_is_a_difference_and_adds_up_where_there_is_no_room() {
        let one = made_carried((5, 9), [10, 9, 1, 0, 0], [30, 20, 4, 7, 1]);
        let CarriedSecond { carried, answered, given_up, not_carried, lost, .. } = one;
        assert_eq!([carried, answered, given_up, not_carried, lost], [20, 11, 3, 7, 1]);
        let mut seconds = vec![CarriedSecond::default(); SECONDS_MAX - 1];
        (0..2).for_each(|_| keep_carried(&mut seconds, one));
        let last = seconds.last().expect("some");
        assert_eq!((seconds.len(), last.carried, last.given_up), (SECONDS_MAX, 40, 6));
    }
}
