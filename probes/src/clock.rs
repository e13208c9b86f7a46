//! The one file of this crate that asks the OS for the time.
//!
//! Two clocks for two uses. [`monotonic_ns`] costs about 20 ns and needs nothing. [`CycleClock`] reads
//! the processor's own counter (9 ns, 15 ns fenced) and turns ticks into ns of `CLOCK_MONOTONIC` by a
//! line that it measures anew every [`PERIOD_NS`], with the error bound of each measurement; where the
//! counter is not to be trusted it says why, and counts ns of `CLOCK_MONOTONIC` instead. What is
//! decided is pure and lies in [`calibration`] and [`mod@line`]; only the reading of clocks is here.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

pub mod calibration;
pub mod cycles;
pub mod line;

use crate::Unavailable;
use calibration::{Calibrator, Point, Record, Sample};
use cycles::Counter;
use line::Line;

/// Between two calibrations, ns.
pub const PERIOD_NS: u64 = 10_000_000_000;

/// Between the two samples that the first line is drawn through, ns. Two readings that are each 20 ns
/// wide then leave 2 ppm.
const FIRST_NS: u64 = 20_000_000;

/// Tries of a sample; the narrowest counts, so that an interrupt between two readings does not.
const TRIES: usize = 5;

const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

fn ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // These clocks count from boot or from 1970 and cannot be negative before the year 2262.
    let seconds = u64::try_from(now.tv_sec).expect("clocks do not run before their epoch");
    let nanos = u64::try_from(now.tv_nsec).expect("the kernel keeps nanoseconds below 1e9");
    seconds * 1_000_000_000 + nanos
}

/// `CLOCK_MONOTONIC`, ns since boot without suspend. About 20 ns, no system call.
#[must_use]
pub fn monotonic_ns() -> u64 {
    ns(ClockId::Monotonic)
}

/// `CLOCK_BOOTTIME`, ns since boot with suspend.
#[must_use]
pub fn boottime_ns() -> u64 {
    ns(ClockId::Boottime)
}

/// `CLOCK_REALTIME`, ns since 1970. For names and logs, never for durations.
#[must_use]
pub fn realtime_ns() -> u64 {
    ns(ClockId::Realtime)
}

/// CPU time of this process, ns.
#[must_use]
pub(crate) fn process_cpu_ns() -> u64 {
    ns(ClockId::ProcessCPUTime)
}

/// CPU time of the calling thread, ns. A system call, about 370 ns.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    ns(ClockId::ThreadCPUTime)
}

/// The processor's counter with the line that makes ns of `CLOCK_MONOTONIC` of its ticks.
///
/// One thread owns it and calls [`calibrate`](Self::calibrate) when it is [`due`](Self::due); others
/// take [`counter`](Self::counter) and a [`Line`], by value or through [`line::SharedLine`].
#[derive(Debug)]
pub struct CycleClock {
    counter: Counter,
    refused: Option<Unavailable>,
    source: Option<String>,
    calibrator: Calibrator,
}

/// The processor's counter where it may be trusted. Reads one file of sysfs.
///
/// # Errors
/// [`Unavailable`]: why [`Counter::Monotonic`] is to be used.
pub fn processor_counter() -> Result<Counter, Unavailable> {
    cycles::choose(cycles::host(), clocksource().as_deref())
}

impl CycleClock {
    /// Chooses the counter and draws the first line. Keeps the thread busy for 20 ms, or for no time
    /// where the ticks are ns already.
    #[must_use]
    pub fn start() -> Self {
        let source = clocksource();
        let (counter, refused) = match cycles::choose(cycles::host(), source.as_deref()) {
            Ok(counter) => (counter, None),
            Err(refused) => (Counter::Monotonic, Some(refused)),
        };
        let first = sample(counter);
        while counter != Counter::Monotonic && monotonic_ns() < first.mono.ns + FIRST_NS {
            std::hint::spin_loop();
        }
        let calibrator = match counter {
            Counter::Monotonic => Calibrator::identity(first),
            _ => Calibrator::start(first, sample(counter)),
        };
        Self { counter, refused, source, calibrator }
    }

    /// What [`Line`]s of this clock turn into ns; `Copy`, so each core keeps one.
    #[must_use]
    pub const fn counter(&self) -> Counter {
        self.counter
    }

    /// Why the processor's counter is not used, when it is not.
    #[must_use]
    pub const fn refused(&self) -> Option<&Unavailable> {
        self.refused.as_ref()
    }

    /// The line in force.
    #[must_use]
    pub const fn line(&self) -> Line {
        self.calibrator.line()
    }

    /// Now, ns of `CLOCK_MONOTONIC` by the line in force.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.line().ns(self.counter.ticks())
    }

    /// Whether the line is [`PERIOD_NS`] old at `ticks`.
    #[must_use]
    pub const fn due(&self, ticks: u64) -> bool {
        self.calibrator.due(ticks)
    }

    /// Measures the line anew. Keep the record: it bounds the error of all stamps since the one before,
    /// and says when they are suspect. Costs one read of sysfs and about 1 us.
    pub fn calibrate(&mut self) -> Record {
        let source = clocksource();
        let changed = source != self.source;
        self.source = source;
        self.calibrator.observe(sample(self.counter), changed)
    }
}

/// The kernel's current clock source; `None` when sysfs does not say.
fn clocksource() -> Option<String> {
    fs::read_to_string(CLOCKSOURCE).ok().map(|text| text.trim().to_owned())
}

/// The narrowest of some readings of both clocks between readings of the counter.
fn sample(counter: Counter) -> Sample {
    let take = || {
        let a = counter.ticks();
        let raw = ns(ClockId::MonotonicRaw);
        let b = counter.ticks();
        let mono = monotonic_ns();
        let c = counter.ticks();
        Sample { raw: Point::between(a, raw, b), mono: Point::between(b, mono, c) }
    };
    let mut best = take();
    for _ in 1..TRIES {
        let next = take();
        if next.width() < best.width() {
            best = next;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use line::Clamps;

    #[test]
    fn the_clock_of_this_host_agrees_with_its_kernel() {
        let mut clock = CycleClock::start();
        assert_eq!(clock.refused().is_some(), clock.counter() == Counter::Monotonic);
        let before = monotonic_ns();
        let ours = clock.now_ns();
        let after = monotonic_ns();
        // 2 ppm of the little time since the start, and the width of the readings.
        let slack = 100_000;
        assert!((before - slack..=after + slack).contains(&ours), "{before} {ours} {after}");
        let record = clock.calibrate();
        assert!(record.suspect.is_none() || record.bound_ns > 0, "{record:?}");
        assert!(!clock.due(clock.counter().ticks()));
    }

    #[test]
    fn fenced_ticks_never_go_back_on_one_thread() {
        let counter = CycleClock::start().counter();
        let mut clamps = Clamps::default();
        let mut last = counter.ticks();
        for _ in 0..100_000 {
            let next = counter.ticks();
            clamps.between(last, next);
            last = next;
        }
        assert_eq!(clamps.count, 0);
    }

    #[test]
    fn this_thread_has_used_cpu_time() {
        let before = thread_cpu_ns();
        let mut x = 1u64;
        for i in 0..300_000u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        assert!(thread_cpu_ns() > before);
    }
}
