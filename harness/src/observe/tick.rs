//! What a core did since its last tick: meters that the runtime's calls move, and what a tick makes of them.

use tailbeam_probes::collect::perf::{Delta, Kind, Quality, Support, Unknown};
use tailbeam_probes::record::latency::{CoreTick, Count, CounterRecord};

/// A busy shard looks at its queues much more often than this, ns.
const LOOKS_NS: u64 = 100_000;

/// Meters of the interval that runs. Times in ns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meters {
    tick_ns: u64,
    next_ns: u64,
    /// End of the last tick; 0 before the first call.
    from_ns: u64,
    /// Up to here it is known what the shard did.
    seen_ns: u64,
    turns: u64,
    turns_ns: u64,
    parked_ns: u64,
    spun_ns: u64,
    /// Of the last tick.
    cost_ns: u64,
}

impl Meters {
    pub(super) const fn new(tick_ns: u64) -> Self {
        Self {
            tick_ns,
            next_ns: 0,
            from_ns: 0,
            seen_ns: 0,
            turns: 0,
            turns_ns: 0,
            parked_ns: 0,
            spun_ns: 0,
            cost_ns: 0,
        }
    }

    /// A pass of so many turns ended. The time since the shard was last seen is the pass'.
    #[inline]
    pub(super) fn turned(&mut self, now_ns: u64, polls: u32) {
        if polls > 0 {
            self.turns += u64::from(polls);
            self.turns_ns += self.since(now_ns);
        }
        self.see(now_ns);
    }

    /// A tick reads the clock itself: what is told after it may have been seen before it.
    #[inline]
    fn see(&mut self, now_ns: u64) {
        self.seen_ns = self.seen_ns.max(now_ns);
    }

    #[inline]
    const fn since(&self, now_ns: u64) -> u64 {
        if self.seen_ns == 0 { 0 } else { now_ns.saturating_sub(self.seen_ns) }
    }

    /// It slept.
    #[inline]
    pub(super) fn parked(&mut self, from_ns: u64, to_ns: u64) {
        self.parked_ns += to_ns.saturating_sub(from_ns.max(self.seen_ns));
        self.see(to_ns);
    }

    /// It looked on for work.
    #[inline]
    pub(super) fn spun(&mut self, from_ns: u64, to_ns: u64) {
        self.spun_ns += to_ns.saturating_sub(from_ns.max(self.seen_ns));
        self.see(to_ns);
    }

    /// A pass goes on: the time since the shard was last seen is its.
    pub(super) fn turning(&mut self, now_ns: u64) {
        self.turns_ns += self.since(now_ns);
        self.see(now_ns);
    }

    /// Whether it is time for a tick.
    #[inline]
    pub(super) const fn due(&self, now_ns: u64) -> bool {
        now_ns >= self.next_ns
    }

    /// When the next tick is due, ns.
    pub(super) const fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Whether it has been time for so long that a busy shard would have had its tick.
    #[inline]
    pub(super) const fn overdue(&self, now_ns: u64) -> bool {
        now_ns >= self.next_ns + LOOKS_NS
    }

    /// What came since the last tick; the meters go on from here.
    pub(super) fn take(&mut self, now_ns: u64) -> Raw {
        let raw = Raw {
            from_ns: self.from_ns,
            to_ns: now_ns,
            turns_ns: self.turns_ns,
            turns: self.turns,
            parked_ns: self.parked_ns,
            spun_ns: self.spun_ns,
            tick_ns: self.cost_ns,
            ..Raw::default()
        };
        *self = Self {
            next_ns: now_ns + self.tick_ns,
            from_ns: now_ns,
            seen_ns: now_ns,
            ..Self::new(self.tick_ns)
        };
        raw
    }

    /// A part of the tick took so long, up to `now_ns`: no time of a turn.
    pub(super) fn cost(&mut self, ns: u64, now_ns: u64) {
        self.cost_ns += ns;
        self.see(now_ns);
    }

    /// Distance of ticks from the next one on.
    pub(super) const fn set_tick_ns(&mut self, tick_ns: u64) {
        self.tick_ns = tick_ns;
    }

    /// No tick before the next interval has passed.
    pub(super) const fn skip(&mut self, now_ns: u64) {
        self.next_ns = now_ns + self.tick_ns;
    }
}

/// Off the CPU, by records of switches. Times in ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Switched {
    pub(super) preempted_ns: u64,
    pub(super) blocked_ns: u64,
    pub(super) lost: u64,
}

/// One tick, as it is kept on the core: plain numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Raw {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) turns_ns: u64,
    pub(super) turns: u64,
    pub(super) parked_ns: u64,
    pub(super) spun_ns: u64,
    pub(super) tick_ns: u64,
    pub(super) counters: Option<Delta>,
    /// On the CPU, and ready without it.
    pub(super) schedule: Option<(u64, u64)>,
    pub(super) switched: Option<Switched>,
    pub(super) queued: u64,
}

impl Raw {
    /// Makes one of this and the next, when there is no room for both. Counters of two intervals with the
    /// qualities of both are none.
    pub(super) fn join(&mut self, next: &Self) {
        self.to_ns = next.to_ns;
        self.turns_ns += next.turns_ns;
        self.turns += next.turns;
        self.parked_ns += next.parked_ns;
        self.spun_ns += next.spun_ns;
        self.tick_ns += next.tick_ns;
        self.counters = None;
        let add = |(a, b): ((u64, u64), (u64, u64))| (a.0 + b.0, a.1 + b.1);
        self.schedule = self.schedule.zip(next.schedule).map(add);
        self.switched = self.switched.zip(next.switched).map(|(a, b)| Switched {
            preempted_ns: a.preempted_ns + b.preempted_ns,
            blocked_ns: a.blocked_ns + b.blocked_ns,
            lost: a.lost + b.lost,
        });
        self.queued = next.queued;
    }

    /// As it is recorded. Counters without a source are left out: the manifest names them.
    pub(super) fn record(&self, support: Option<&Support>) -> CoreTick {
        let counters = self.counters.zip(support).map(|(delta, support)| {
            let counted = support.counted().map(|(kind, _)| counter(kind, &delta));
            counted.collect()
        });
        CoreTick {
            from_ns: self.from_ns,
            to_ns: self.to_ns,
            turns_ns: self.turns_ns,
            turns: self.turns,
            parked_ns: self.parked_ns,
            spun_ns: self.spun_ns,
            tick_ns: self.tick_ns,
            counters: counters.unwrap_or_default(),
            run_ns: self.schedule.map(|(run, _)| run),
            wait_ns: self.schedule.map(|(_, wait)| wait),
            preempted_ns: self.switched.map(|switched| switched.preempted_ns),
            blocked_ns: self.switched.map(|switched| switched.blocked_ns),
            lost: self.switched.map_or(0, |switched| switched.lost),
            queued: self.queued,
        }
    }
}

fn counter(kind: Kind, delta: &Delta) -> CounterRecord {
    let value = delta.of(kind);
    let known = value.known().unwrap_or(0);
    let count = match value.quality {
        Quality::Exact => Count::Exact(known),
        Quality::Scaled(permille) => Count::Scaled(known, permille),
        Quality::Rough(permille) => Count::Rough(known, permille),
        Quality::Unknown(why) => Count::Unknown(words(why)),
    };
    CounterRecord { name: kind.name().to_owned(), count }
}

fn words(why: Unknown) -> String {
    match why {
        Unknown::NoSource => "no source".to_owned(),
        Unknown::Starved => "the group never had its counters".to_owned(),
        Unknown::TooShort => "the interval is shorter than a turn of the counters".to_owned(),
        Unknown::Failed(errno) => format!("the read failed with errno {errno}"),
        Unknown::Malformed => "the read gave other words".to_owned(),
        Unknown::Elsewhere => "it was read from another CPU".to_owned(),
        Unknown::Standing => "it runs and stands still".to_owned(),
        Unknown::Suspect(suspect) => format!("the interval is suspect: {suspect:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instant_is_of_one_meter() {
        let mut meters = Meters::new(100);
        meters.turned(1_000, 0);
        assert!(meters.due(1_000), "the first call is a tick");
        let _ = meters.take(1_000);
        meters.turned(1_040, 3);
        meters.parked(1_045, 1_080);
        meters.spun(1_080, 1_085);
        meters.turned(1_099, 2);
        assert!(!meters.due(1_099) && meters.due(1_100));
        let raw = meters.take(1_100);
        assert_eq!((raw.from_ns, raw.to_ns, raw.turns), (1_000, 1_100, 5));
        assert_eq!((raw.turns_ns, raw.parked_ns, raw.spun_ns), (40 + 14, 35, 5));
        meters.cost(7, 1_107);
        meters.turned(1_117, 1);
        let raw = meters.take(1_200);
        assert_eq!((raw.turns_ns, raw.tick_ns), (10, 7), "the tick is no turn");
        // The core was taken in the tick, and its pass ends by a look at the clock from before.
        meters.cost(20_000, 21_200);
        meters.turned(1_190, 1);
        meters.turned(21_230, 1);
        let raw = meters.take(21_230);
        assert_eq!((raw.turns_ns, raw.tick_ns, raw.to_ns - raw.from_ns), (30, 20_000, 20_030));
    }

    #[test]
    fn two_without_room_are_one_longer_and_what_is_unknown_stays_so() {
        let tick = Raw { from_ns: 1, to_ns: 2, turns: 3, ..Raw::default() };
        let mut first = Raw { schedule: Some((1, 1)), switched: Some(Switched::default()), ..tick };
        first.join(&Raw { from_ns: 2, to_ns: 5, schedule: Some((2, 3)), ..tick });
        let record = first.record(None);
        assert_eq!((record.from_ns, record.to_ns, record.turns), (1, 5, 6));
        assert_eq!((record.run_ns, record.wait_ns), (Some(3), Some(4)));
        assert_eq!((record.preempted_ns, record.blocked_ns), (None, None));
    }
}
