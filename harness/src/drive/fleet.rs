//! What is counted of all cores together once a second, by the controller's thread: what a CPU quota did to the process,
//! what faulty links did to messages, and how far requests came.

use tailbeam_probes::Unavailable;
use tailbeam_probes::collect::quota::{CpuQuota, Level, between};
use tailbeam_probes::record::latency::{FleetSecond, ThrottleRecord};
use tailbeam_runtime::Runtime;

use crate::load::legs::{Legs, steps};

/// Seconds kept until their window is written; in a longer one the last gets longer.
const SECONDS_MAX: usize = 1_024;

/// Counts since the runtime began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    steps: [u64; 4],
    dropped: u64,
    delayed: u64,
}

impl Counts {
    /// As they are now: two looks at what each core has published.
    pub(super) fn read(runtime: &Runtime, legs: &[Legs]) -> Self {
        let (mut dropped, mut delayed) = (0, 0);
        for shard in runtime.stats() {
            dropped += shard.link_dropped + shard.link_overflowed;
            delayed += shard.link_delayed;
        }
        Self { steps: steps(legs), dropped, delayed }
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
        (self.before, self.seconds) = (now, Vec::new());
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
        self.before = now;
        keep(&mut self.seconds, made);
    }

    /// Hands over the seconds of a window.
    pub(super) fn take(&mut self) -> Vec<FleetSecond> {
        std::mem::take(&mut self.seconds)
    }
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
        let counts = |n: u64| Counts { steps: [n, n, n / 2, n / 2], dropped: 2 * n, delayed: n };
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
}
