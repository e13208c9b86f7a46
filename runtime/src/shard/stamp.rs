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
/// The same between two turns, where a look is no delay to anybody: some 50 us. In between it is the counter that is
/// looked at, which is half as dear.
const LOOK_TICKS: u64 = 1 << 17;
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

/// Whether this build has them at all.
pub(crate) const BUILT: bool = !cfg!(feature = "bare");

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
        match (on && BUILT).then(clock::trust) {
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
    on: Cell<bool>,
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
        let on = on && BUILT;
        let counted = on && matches!(clock, Clock::Monotonic) && clock::trust().is_ok();
        let Some(rate) = counted.then(calibrated).flatten() else {
            return Self { on: Cell::new(on), ..Self::default() };
        };
        let look = Pair::read_well();
        let (rate, look) = (Cell::new(rate), Cell::new(look));
        Self { on: Cell::new(on), rate, base: look.clone(), look, ..Self::default() }
    }

    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        BUILT && self.on.get()
    }

    /// Whether they are on and the counter's.
    #[inline]
    pub(crate) const fn is_counted(&self) -> bool {
        self.is_on() && self.rate.get() != 0
    }

    /// Switches them off or on again. Where they were off from the start there is no calibrated counter, and they
    /// are the clock's.
    pub(crate) fn set_on(&self, on: bool, clock: &Clock) {
        // What the counter did meanwhile is behind the look that comes now.
        if on && !self.on.replace(on) {
            self.see_ns(clock);
        }
        self.on.set(on);
    }

    /// No later stamp is before this instant of the clock.
    #[inline]
    pub(crate) fn follow(&self, now_ns: u64) {
        self.last_ns.set(now_ns.max(self.last_ns.get()));
    }

    /// The time now, ns: not before the last look, any stamp so far and what was followed.
    #[inline]
    pub(crate) fn now_ns(&self, clock: &Clock) -> u64 {
        self.within(STALE_TICKS).unwrap_or_else(|| self.next_ns(|| clock.peek_ns()))
    }

    /// Looks at the clock, or at the counter if that was a moment ago. Stamps go on from there.
    pub(crate) fn see_ns(&self, clock: &Clock) -> u64 {
        self.within(LOOK_TICKS).unwrap_or_else(|| self.next_ns(|| clock.now_ns()))
    }

    /// The time by the counter, if it is used and the last look was less than so many ticks ago.
    #[inline]
    fn within(&self, most: u64) -> Option<u64> {
        let (rate, look) = (self.rate.get(), self.look.get());
        if rate == 0 {
            return None;
        }
        let ticks = clock::ticks().wrapping_sub(look.ticks);
        (ticks < most).then(|| self.followed(look.ns + ((ticks * rate) >> RATE_BITS)))
    }

    /// The time by the clock.
    #[cold]
    #[inline(never)]
    fn next_ns(&self, clock: impl FnOnce() -> u64) -> u64 {
        self.followed(if self.rate.get() == 0 { clock() } else { self.look() })
    }

    #[inline]
    fn followed(&self, now_ns: u64) -> u64 {
        self.follow(now_ns);
        self.last_ns.get()
    }

    fn look(&self) -> u64 {
        let mut pair = Pair::read();
        for _ in 0..2 {
            if self.agrees(pair) {
                break;
            }
            pair = Pair::read();
        }
        self.settle(pair)
    }

    /// Stamps go on from here.
    fn settle(&self, pair: Pair) -> u64 {
        let agree = self.agrees(pair);
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::agent::{Agent, Cx, Stop};
    use crate::clock::ManualClock;
    use crate::config::Config;
    use crate::error::StartError;
    use crate::observe::NoObserver;
    use crate::runtime::Runtime;

    /// Stamps whose counter makes 3 ticks a ns.
    fn counted() -> Stamps {
        let pair = Pair { ns: 1_000, ticks: 90_000 };
        let rate = pair.rate(Pair { ns: 2_000, ticks: 93_000 }).expect("it goes on");
        let (rate, look, base) = (Cell::new(rate), Cell::new(pair), Cell::new(pair));
        Stamps { on: Cell::new(true), rate, look, base, ..Stamps::default() }
    }

    #[test]
    fn a_rate_is_of_a_counter_that_goes_on_at_a_credible_pace() {
        let pair = Pair { ns: 1_000, ticks: 90_000 };
        assert_eq!(pair.rate(Pair { ns: 2_000, ticks: 91_000 }), Some(1 << RATE_BITS));
        assert_eq!(pair.rate(Pair { ns: 2_000, ticks: 90_000 }), None, "it stands");
        assert_eq!(pair.rate(Pair { ns: 2_000, ticks: 80_000 }), None, "it was set back");
        assert_eq!(pair.rate(Pair { ns: 1_000_000, ticks: 90_001 }), None, "1,000 Hz");
        assert_eq!(pair.rate(pair), None);
    }

    #[test]
    fn a_counter_that_leaves_the_clock_is_given_up_and_one_slip_is_forgiven() {
        let stamps = counted();
        let mut pair = stamps.look.get();
        let mut go_on = |ns: u64, ticks: u64| {
            pair = Pair { ns: pair.ns + ns, ticks: pair.ticks.wrapping_add(ticks) };
            assert_eq!(stamps.settle(pair), pair.ns);
            (stamps.rate.get() != 0, stamps.strikes.get())
        };
        assert_eq!(go_on(10_000, 30_000), (true, 0));
        assert_eq!(go_on(10_000, 30_000 + 3 * 140), (true, 0), "as near as two readings are");
        assert_eq!(go_on(10_000, 30_000 + 3 * 170), (true, 1));
        assert_eq!(go_on(10_000, 30_000), (true, 0));
        assert_eq!(go_on(1_000_000_000, 3_000_300_000), (true, 0), "a rate that is refined");
        assert_eq!(go_on(1_000_000_000, 3_000_300_000), (true, 0));
        for strikes in 1..STRIKES_MAX {
            assert_eq!(go_on(10_000, 0u64.wrapping_sub(5)), (true, strikes), "it was set back");
        }
        assert!(!go_on(10_000, 0).0);
    }

    #[test]
    fn stamps_follow_the_clock_and_never_go_back() {
        let stamps = Stamps::new(true, &Clock::Monotonic);
        let (mut last_ns, mut early_ns, mut late_ns) = (0, 0, 0);
        for turn in 0..100_000u64 {
            let before_ns = clock::monotonic_ns();
            let now_ns = if turn.is_multiple_of(64) {
                stamps.see_ns(&Clock::Monotonic)
            } else {
                stamps.now_ns(&Clock::Monotonic)
            };
            let after_ns = clock::monotonic_ns();
            assert!(now_ns >= last_ns, "{now_ns} after {last_ns}");
            early_ns = early_ns.max(before_ns.saturating_sub(now_ns));
            late_ns = late_ns.max(now_ns.saturating_sub(after_ns));
            last_ns = now_ns;
        }
        // Between two looks lie some us; more when this thread was taken away between them.
        assert!(early_ns < 100_000 && late_ns < 100_000, "{early_ns} early, {late_ns} late");
        stamps.follow(u64::MAX);
        assert_eq!(stamps.now_ns(&Clock::Monotonic), u64::MAX, "not before what was read");
    }

    #[test]
    fn a_manual_clock_is_the_stamp_and_stays_where_it_is() {
        let manual = Rc::new(ManualClock::new(5));
        manual.set(5, 3);
        let clock = Clock::Manual(Rc::clone(&manual));
        let stamps = Stamps::new(true, &clock);
        assert_eq!((stamps.now_ns(&clock), stamps.now_ns(&clock)), (5, 5));
        assert_eq!((stamps.see_ns(&clock), stamps.now_ns(&clock), clock.peek_ns()), (8, 8, 8));
    }

    struct Counted;

    impl Agent for Counted {
        type Msg = u32;

        async fn on(&mut self, left: u32, cx: &mut Cx<'_>) -> Result<(), Stop> {
            std::hint::black_box(cx.path());
            let left = left.checked_sub(1).ok_or(Stop)?;
            cx.me::<Self>().try_send(cx, left).map_err(|_| Stop)
        }
    }

    /// How often a shard has read the counter, and the source of its stamps, in 10,000 turns and a timer.
    fn reads(turn_stamps: bool) -> Option<(u64, StampSource)> {
        let config = Config { turn_stamps, ..Config::default() };
        let runtime = match Runtime::start(config, |_| NoObserver) {
            Err(StartError::Missing) => return None,
            runtime => runtime.expect("has io_uring"),
        };
        let agent = runtime.spawn_on(0, || Counted).expect("room");
        assert_eq!(runtime.run_on(0, move |cx| agent.try_send(cx, 10_000)), Ok(Ok(())));
        while runtime.run_on(0, move |cx| cx.account(agent.id()).is_some()) == Ok(true) {}
        let reads = runtime.run_on(0, |_| clock::READS.get()).expect("lives");
        Some((reads, runtime.choice().stamps.clone()))
    }

    #[test]
    fn without_stamps_the_counter_is_not_read_and_with_them_once_per_turn_and_look() {
        let (Some(off), Some((on, source))) = (reads(false), reads(true)) else { return };
        assert_eq!(off, (0, StampSource::Off));
        if source == StampSource::Processor {
            // Looks, ends of rounds and jobs besides.
            assert!((10_000..20_000).contains(&on), "{on}");
        } else {
            assert_eq!(on, 0, "{source:?}");
        }
    }
}
