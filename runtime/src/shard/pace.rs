//! How long a pass over a queue takes, and whose time that was.

/// A pass over a queue ends after this, so that the others are looked at again, ns.
pub(super) const PASS_NS: u64 = 20_000;
/// It ends after as many turns, so that messages to other cores are not kept back.
const PASS_TURNS: u32 = 256;
/// Time between two looks at the clock that a pass aims at, ns, and most turns between them: so many long ones may
/// follow short ones before it is noticed.
const LOOK_NS: u64 = 2_000;
pub(super) const TURNS_PER_LOOK: u32 = 32;

/// The time that a pass may take. Turns share looks at the clock, which costs as much as a message.
pub(super) struct Pace {
    from_ns: u64,
    pub(super) now_ns: u64,
    length_ns: u64,
    pub(super) turns: u32,
    look_at: u32,
    /// Turns of others that were given in its middle.
    pub(super) others: u32,
}

impl Pace {
    /// The first turn is followed by a look: what turns took in the last pass says nothing of this one's.
    pub(super) const fn new((from_ns, length_ns): (u64, u64)) -> Self {
        Self { from_ns, now_ns: from_ns, length_ns, turns: 0, look_at: 1, others: 0 }
    }

    /// Notes a turn; whether another may follow. One that is `urged` looks at the clock now.
    #[inline]
    pub(super) fn goes_on(&mut self, urged: bool, clock: impl FnOnce() -> u64) -> bool {
        self.turns += 1;
        if self.turns < self.look_at && !urged {
            return true;
        }
        self.now_ns = clock();
        let spent_ns = self.now_ns - self.from_ns;
        let all = u64::from(self.turns) + u64::from(self.others);
        self.look_at = (self.turns + fit(LOOK_NS, all, spent_ns)).min(PASS_TURNS);
        let goes_on = self.own_ns() < self.length_ns && spent_ns < self.length_ns + PASS_NS;
        goes_on && self.turns < PASS_TURNS
    }

    /// The time of its own turns, by their share of all: a look at the clock for each change costs as much as a turn.
    pub(super) fn own_ns(&self) -> u64 {
        let (own, all) = (u64::from(self.turns), u64::from(self.turns) + u64::from(self.others));
        (self.now_ns - self.from_ns) * own / all.max(1)
    }
}

/// How many turns may follow until the next look, if they are as long as so many were in `spent_ns`.
pub(super) fn fit(look_ns: u64, turns: u64, spent_ns: u64) -> u32 {
    let fit = look_ns * turns / spent_ns.max(1);
    u32::try_from(fit).unwrap_or(u32::MAX).clamp(1, TURNS_PER_LOOK)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Turns of a pass that have these lengths, and how long it was.
    fn pass(lengths_ns: impl Iterator<Item = u64>, urged: bool) -> (u32, u64) {
        let (mut pace, mut now_ns) = (Pace::new((0, PASS_NS)), 0);
        for length_ns in lengths_ns {
            now_ns += length_ns;
            if !pace.goes_on(urged && length_ns > PASS_NS, || now_ns) {
                break;
            }
        }
        (pace.turns, now_ns)
    }

    #[test]
    fn long_turns_end_a_pass_at_once_and_after_short_ones_soon() {
        const MS: u64 = 1_000_000;
        assert_eq!(pass(std::iter::repeat(MS), false), (1, MS), "whatever the pass before had");
        let long = |short: u64| (0..short).map(|_| 50).chain(std::iter::repeat(MS));
        for short in 0..100 {
            let (turns, took_ns) = pass(long(short), false);
            assert!(u64::from(turns) <= short + u64::from(TURNS_PER_LOOK), "{turns} of {short}");
            assert!(took_ns <= 50 * short + u64::from(TURNS_PER_LOOK) * MS);
            assert_eq!(
                u64::from(pass(long(short), true).0),
                short + 1,
                "the detector has urged it"
            );
        }
        assert_eq!(pass(std::iter::repeat(50), false).0, PASS_TURNS);
    }

    #[test]
    fn a_pass_is_charged_for_its_own_turns_and_ends_all_the_same() {
        let mut pace = Pace::new((1_000, 20_000));
        assert!(pace.goes_on(false, || 11_000));
        assert_eq!(pace.own_ns(), 10_000, "all of it, alone");
        pace.others = 3;
        assert_eq!(pace.own_ns(), 2_500);
        pace.look_at = 0;
        assert!(pace.goes_on(false, || 31_000), "twelve of its twenty us are over");
        assert_eq!(pace.own_ns(), 12_000);
        pace.look_at = 0;
        assert!(
            !pace.goes_on(false, || 41_000),
            "others may make it longer by a pass, and no more"
        );
    }
}
