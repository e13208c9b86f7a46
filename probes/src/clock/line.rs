//! Ticks to ns by a line, pure; durations that cannot be negative; a line that threads share.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Fraction bits of a slope: a slope of 0.4 ns per tick is then exact to 1.5e-13.
pub const SHIFT: u32 = 44;

/// `ns = base_ns + (ticks - base_ticks) * slope / 2^SHIFT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Where the line is anchored, ticks.
    pub base_ticks: u64,
    /// Its value there, ns.
    pub base_ns: u64,
    /// ns per tick in units of 2^-[`SHIFT`].
    pub slope: u64,
}

impl Line {
    /// The line of a counter whose ticks are ns.
    pub const IDENTITY: Self = Self { base_ticks: 0, base_ns: 0, slope: 1 << SHIFT };

    /// ns at `ticks`, also before the anchor. Ends at 0 (boot) and at the largest number (584 years),
    /// which no stamp of this boot reaches. About 2 ns.
    #[inline]
    #[must_use]
    pub const fn ns(&self, ticks: u64) -> u64 {
        if ticks >= self.base_ticks {
            self.base_ns.saturating_add(self.duration_ns(ticks - self.base_ticks))
        } else {
            self.base_ns.saturating_sub(self.duration_ns(self.base_ticks - ticks))
        }
    }

    /// ns of a number of ticks. Exact to 1 ns plus the error of the slope.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "checked against the largest u64 before")]
    pub const fn duration_ns(&self, ticks: u64) -> u64 {
        let ns = (ticks as u128 * self.slope as u128) >> SHIFT;
        if ns > u64::MAX as u128 { u64::MAX } else { ns as u64 }
    }

    /// Ticks in about `ns`; 0 for a line without slope.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "checked against the largest u64 before")]
    pub const fn ticks_in(&self, ns: u64) -> u64 {
        if self.slope == 0 {
            return 0;
        }
        let ticks = ((ns as u128) << SHIFT) / self.slope as u128;
        if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 }
    }
}

/// Intervals that would have been negative. Each core keeps its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clamps {
    /// How many were made zero.
    pub count: u64,
    /// The worst of them, ticks.
    pub worst_ticks: u64,
}

impl Clamps {
    /// Ticks from `start` to `end`; zero, and counted, when `end` is before `start`.
    #[inline]
    pub const fn between(&mut self, start: u64, end: u64) -> u64 {
        if end >= start {
            return end - start;
        }
        self.count += 1;
        if start - end > self.worst_ticks {
            self.worst_ticks = start - end;
        }
        0
    }
}

/// A line that one thread replaces and others copy (a sequence lock of plain atomic words).
#[derive(Debug)]
pub struct SharedLine {
    /// Odd while the words are being written.
    sequence: AtomicU64,
    base_ticks: AtomicU64,
    base_ns: AtomicU64,
    slope: AtomicU64,
}

impl SharedLine {
    /// Holds `line`.
    #[must_use]
    pub const fn new(line: Line) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            base_ticks: AtomicU64::new(line.base_ticks),
            base_ns: AtomicU64::new(line.base_ns),
            slope: AtomicU64::new(line.slope),
        }
    }

    /// Replaces the line. One thread at a time: whoever calibrates.
    pub fn store(&self, line: Line) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the Acquire fence of `load`: who reads a new word also reads the odd sequence.
        fence(Ordering::Release);
        self.base_ticks.store(line.base_ticks, Ordering::Relaxed);
        self.base_ns.store(line.base_ns, Ordering::Relaxed);
        self.slope.store(line.slope, Ordering::Relaxed);
        // Pairs with the first Acquire load of `load`: who reads it reads all words of this line.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The line in force. Tries again while it is being replaced, which takes some ns every 10 s.
    #[must_use]
    pub fn load(&self) -> Line {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let line = Line {
                base_ticks: self.base_ticks.load(Ordering::Relaxed),
                base_ns: self.base_ns.load(Ordering::Relaxed),
                slope: self.slope.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return line;
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { base_ticks: 1_000, base_ns: 500, slope: 1 << (SHIFT - 1) };

    #[test]
    fn a_line_goes_both_ways_from_its_anchor_and_ends_at_its_ends() {
        assert_eq!(LINE.ns(1_000), 500);
        assert_eq!(LINE.ns(1_400), 700);
        assert_eq!(LINE.ns(600), 300);
        assert_eq!(LINE.ns(0), 0);
        assert_eq!(Line { slope: u64::MAX, ..LINE }.ns(u64::MAX), u64::MAX);
        assert_eq!(Line::IDENTITY.ns(7), 7);
        assert_eq!(LINE.ticks_in(700), 1_400);
        assert_eq!(Line { slope: 0, ..LINE }.ticks_in(700), 0);
    }

    #[test]
    fn three_hundred_years_of_ticks_are_exact_to_a_nanosecond() {
        let ticks = 1u64 << 63;
        assert_eq!(LINE.duration_ns(ticks), 1 << 62);
    }

    #[test]
    fn negative_intervals_are_zero_and_counted() {
        let mut clamps = Clamps::default();
        assert_eq!(clamps.between(5, 9), 4);
        assert_eq!(clamps.between(9, 5), 0);
        assert_eq!(clamps.between(9, 8), 0);
        assert_eq!(clamps, Clamps { count: 2, worst_ticks: 4 });
    }

    #[test]
    fn readers_never_see_half_a_line() {
        let shared = SharedLine::new(Line { base_ticks: 0, base_ns: 0, slope: 0 });
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut last = 0;
                        while last < 20_000 {
                            let line = shared.load();
                            assert_eq!(
                                (line.base_ns, line.slope),
                                (line.base_ticks, line.base_ticks)
                            );
                            assert!(line.base_ticks >= last, "lines do not go back");
                            last = line.base_ticks;
                        }
                    })
                })
                .collect();
            for n in 1..=20_000 {
                shared.store(Line { base_ticks: n, base_ns: n, slope: n });
            }
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    }
}
