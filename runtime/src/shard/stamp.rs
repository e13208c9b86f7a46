//! The time stamps of turns. A look at the clock costs as much as two messages, the processor's counter as one:
//! between two looks a stamp is the last look and the counter's way since then, so that no error of the
//! counter's rate adds up.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::clock::{self, Clock};

/// Fraction bits of a rate.
const RATE_BITS: u32 = 24;
/// Ticks since the last look beyond which a stamp looks anew: about 10 ms, in which an error of the first
/// rate makes half a us. A counter that was set back counts as beyond.
const STALE_TICKS: u64 = 1 << 25;
/// What clock and counter may differ by between two looks: this, ns, and one part in 4,096. More, and
/// something came between the two readings of the look, which is then repeated.
const APART_NS: u64 = 150;
const APART_PART: u32 = 12;
/// Looks in a row at which they differ before the counter is given up.
const STRIKES_MAX: u32 = 8;
/// Time over which the rate is measured anew, ns.
const REFINE_NS: u64 = 100_000_000;
/// Time over which it is measured first, ns: once per process.
const CALIBRATE_NS: u64 = 2_000_000;

/// Where the stamps of turns come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StampSource {
    /// Nowhere: turns are not stamped.
    Off,
    /// From the processor's counter, corrected at each look at the clock.
    Processor,
    /// From `CLOCK_MONOTONIC`.
    Kernel {
        /// Why the counter is not used.
        why: String,
    },
}

impl StampSource {
    pub(crate) fn choose(on: bool) -> Self {
        match on.then(clock::trust) {
            None => Self::Off,
            Some(Ok(())) => Self::Processor,
            Some(Err(why)) => Self::Kernel { why },
        }
    }
}

/// An instant by both, close together.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    ns: u64,
    ticks: u64,
}

impl Pair {
    /// The counter last: a stamp is never later than the clock.
    fn read() -> Self {
        let ns = clock::monotonic_ns();
        Self { ns, ticks: clock::ticks() }
    }

    /// The one of several whose readings are closest together.
    fn read_well() -> Self {
        let one = |_| {
            let before = clock::ticks();
            let pair = Self::read();
            (pair.ticks.wrapping_sub(before), pair)
        };
        (0..16).map(one).min_by_key(|(width, _)| *width).map_or_else(Self::read, |(_, pair)| pair)
    }

    /// ns per tick from here to `later`; none when the counter has not gone on.
    fn rate(self, later: Self) -> Option<u64> {
        let ticks = later.ticks.checked_sub(self.ticks).filter(|&ticks| ticks > 0)?;
        let rate = (u128::from(later.ns - self.ns) << RATE_BITS) / u128::from(ticks);
        // From 64 MHz up the product with `STALE_TICKS` has 64 bits.
        u64::try_from(rate).ok().filter(|&rate| rate > 0 && rate >> (RATE_BITS + 4) == 0)
    }
}

/// The rate of the counter, measured once per process.
fn calibrated() -> Option<u64> {
    static RATE: OnceLock<Option<u64>> = OnceLock::new();
    *RATE.get_or_init(|| {
        let first = Pair::read_well();
        while clock::monotonic_ns() - first.ns < CALIBRATE_NS {
            std::hint::spin_loop();
        }
        first.rate(Pair::read_well())
    })
}

/// The stamps of one shard.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    on: bool,
    /// ns per tick; 0 when stamps are the clock's.
    rate: Cell<u64>,
    /// The last look, and the one from which the rate is measured.
    look: Cell<Pair>,
    base: Cell<Pair>,
    strikes: Cell<u32>,
    /// No later stamp is before this.
    last_ns: Cell<u64>,
}

impl Stamps {
    pub(crate) fn new(on: bool, clock: &Clock) -> Self {
        let counted = on && matches!(clock, Clock::Monotonic) && clock::trust().is_ok();
        let Some(rate) = counted.then(calibrated).flatten() else {
            return Self { on, ..Self::default() };
        };
        let look = Pair::read_well();
        let (rate, look) = (Cell::new(rate), Cell::new(look));
        Self { on, rate, base: look.clone(), look, ..Self::default() }
    }

    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        self.on
    }

    /// The time now, ns: not before the last look, nor before `floor_ns` and any stamp so far.
    #[inline]
    pub(crate) fn now_ns(&self, clock: &Clock, floor_ns: u64) -> u64 {
        let (rate, look) = (self.rate.get(), self.look.get());
        let now_ns = if rate == 0 {
            clock.peek_ns()
        } else {
            let ticks = clock::ticks().wrapping_sub(look.ticks);
            if ticks < STALE_TICKS { look.ns + ((ticks * rate) >> RATE_BITS) } else { self.look() }
        };
        let now_ns = now_ns.max(floor_ns).max(self.last_ns.get());
        self.last_ns.set(now_ns);
        now_ns
    }

    /// Looks at the clock; stamps go on from there.
    pub(crate) fn see_ns(&self, clock: &Clock) -> u64 {
        let now_ns = if self.rate.get() == 0 { clock.now_ns() } else { self.look() };
        self.last_ns.set(now_ns.max(self.last_ns.get()));
        now_ns
    }

    #[inline(never)]
    fn look(&self) -> u64 {
        let mut pair = Pair::read();
        let mut agree = self.agrees(pair);
        for _ in 0..2 {
            if agree {
                break;
            }
            pair = Pair::read();
            agree = self.agrees(pair);
        }
        self.look.set(pair);
        if !agree {
            return self.strike(pair);
        }
        self.strikes.set(0);
        if pair.ns - self.base.get().ns > REFINE_NS {
            self.rate.set(self.base.get().rate(pair).unwrap_or(0));
            self.base.set(pair);
        }
        pair.ns
    }

    /// Whether clock and counter have gone the same way since the last look.
    fn agrees(&self, pair: Pair) -> bool {
        let look = self.look.get();
        let by_clock = pair.ns - look.ns;
        let ticks = u128::from(pair.ticks.wrapping_sub(look.ticks));
        let by_counter = (ticks * u128::from(self.rate.get())) >> RATE_BITS;
        by_counter.abs_diff(by_clock.into()) <= (APART_NS + (by_clock >> APART_PART)).into()
    }

    /// They have not: of this look nothing is learnt of the rate, and of many in a row that the counter is not to be
    /// trusted.
    #[cold]
    fn strike(&self, pair: Pair) -> u64 {
        self.base.set(pair);
        self.strikes.set(self.strikes.get() + 1);
        if self.strikes.get() >= STRIKES_MAX {
            self.rate.set(0);
        }
        pair.ns
    }
}
