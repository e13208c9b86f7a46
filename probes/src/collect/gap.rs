//! Holes in time that nothing else shows: interrupts, the host, firmware; pure.
//!
//! A loop that does nothing but look at the counter sees a hole whenever it was not running. What of a
//! hole a record of a switch covers is off-CPU time and known; the rest is `gap (irq/steal/SMI,
//! unattributed)`: in this VM 0.7 % of all time, of which schedstat shows a fraction and steal nothing.
//! Only idle looks are watched: between two looks with work in between, a hole and the work are one.

/// Watches looks of one thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GapMeter {
    threshold_ticks: u64,
    last: Option<u64>,
    /// Ticks between looks that followed each other.
    pub watched_ticks: u64,
    /// How many of these intervals were longer than the threshold.
    pub gaps: u64,
    /// Their ticks together.
    pub gap_ticks: u64,
    /// The longest, ticks.
    pub worst_ticks: u64,
    /// Looks that were before the last one; they count as no time.
    pub backwards: u64,
}

/// A hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last look before it, ticks.
    pub from: u64,
    /// The first look after it, ticks.
    pub to: u64,
}

impl GapMeter {
    /// Counts intervals longer than `threshold_ticks` as holes. 1 us is far more than a look takes, and
    /// less than an interrupt.
    #[must_use]
    pub fn new(threshold_ticks: u64) -> Self {
        Self { threshold_ticks, ..Self::default() }
    }

    /// A look at `ticks`; the hole since the last one, if it is one. Some instructions.
    #[inline]
    pub fn look(&mut self, ticks: u64) -> Option<Gap> {
        let from = self.last.replace(ticks)?;
        let Some(between) = ticks.checked_sub(from) else {
            self.backwards += 1;
            return None;
        };
        self.watched_ticks = self.watched_ticks.saturating_add(between);
        if between <= self.threshold_ticks {
            return None;
        }
        self.gaps += 1;
        self.gap_ticks = self.gap_ticks.saturating_add(between);
        self.worst_ticks = self.worst_ticks.max(between);
        Some(Gap { from, to: ticks })
    }

    /// What comes next is not idle: the interval to the next look counts as nothing.
    #[inline]
    pub const fn pause(&mut self) {
        self.last = None;
    }

    /// Share of the watched time in holes, parts per million; `None` when nothing was watched. An
    /// estimate of what holes take of busy time too, where interrupts do not ask whether one is busy.
    #[must_use]
    pub fn share_ppm(&self) -> Option<u64> {
        let watched = u128::from(self.watched_ticks);
        let ppm = (u128::from(self.gap_ticks) * 1_000_000).checked_div(watched)?;
        u64::try_from(ppm).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_what_is_longer_than_the_threshold() {
        let mut meter = GapMeter::new(100);
        let looks = [1_000, 1_050, 1_150, 1_251, 1_260];
        let found: Vec<_> = looks.into_iter().filter_map(|ticks| meter.look(ticks)).collect();
        assert_eq!(found, [Gap { from: 1_150, to: 1_251 }]);
        assert_eq!((meter.gaps, meter.gap_ticks, meter.worst_ticks), (1, 101, 101));
        assert_eq!(meter.watched_ticks, 260);
        assert_eq!(meter.share_ppm(), Some(101 * 1_000_000 / 260));
    }

    #[test]
    fn work_is_no_hole_and_going_back_is_counted() {
        let mut meter = GapMeter::new(100);
        assert_eq!(meter.share_ppm(), None);
        meter.look(10);
        meter.pause();
        assert_eq!(meter.look(1_000_000), None);
        assert_eq!((meter.gaps, meter.watched_ticks), (0, 0));
        assert_eq!(meter.look(999_000), None);
        assert_eq!((meter.backwards, meter.watched_ticks), (1, 0));
    }
}
