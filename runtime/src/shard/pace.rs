//! How long a pass over a queue takes, and whose time that was.

/// A pass over a queue ends after this, so that the others are looked at again, ns.
pub(super) const PASS_NS: u64 = 20_000;
/// It ends after as many turns, so that messages to other cores are not kept back.
const PASS_TURNS: u32 = 256;
/// Time between two looks at the clock that a pass aims at, ns, and most turns between them.
const LOOK_NS: u64 = 2_000;
const TURNS_PER_LOOK: u32 = 64;

/// The time that a pass may take. Turns share looks at the clock, which costs as much as a message.
pub(super) struct Pace {
    from_ns: u64,
    pub(super) now_ns: u64,
    length_ns: u64,
    pub(super) turns: u32,
    look_at: u32,
    /// Turns that fit between two looks, as the last look has shown.
    pub(super) fit: u32,
    /// Turns of others that were given in its middle.
    pub(super) others: u32,
}

impl Pace {
    /// `fit` is what the last pass has shown.
    pub(super) const fn new((from_ns, length_ns): (u64, u64), fit: u32) -> Self {
        Self { from_ns, now_ns: from_ns, length_ns, turns: 0, look_at: fit, fit, others: 0 }
    }

    /// Notes a turn; whether another may follow.
    #[inline]
    pub(super) fn goes_on(&mut self, clock: impl FnOnce() -> u64) -> bool {
        self.turns += 1;
        if self.turns < self.look_at {
            return true;
        }
        self.now_ns = clock();
        let spent_ns = self.now_ns - self.from_ns;
        let all = u64::from(self.turns) + u64::from(self.others);
        let fit = LOOK_NS * all / spent_ns.max(1);
        self.fit = u32::try_from(fit).unwrap_or(u32::MAX).clamp(1, TURNS_PER_LOOK);
        self.look_at = self.turns + self.fit;
        let goes_on = self.own_ns() < self.length_ns && spent_ns < self.length_ns + PASS_NS;
        goes_on && self.turns < PASS_TURNS
    }

    /// The time of its own turns, by their share of all: a look at the clock for each change costs as much as a turn.
    pub(super) fn own_ns(&self) -> u64 {
        let (own, all) = (u64::from(self.turns), u64::from(self.turns) + u64::from(self.others));
        (self.now_ns - self.from_ns) * own / all.max(1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_charged_for_its_own_turns_and_ends_all_the_same() {
        let mut pace = Pace::new((1_000, 20_000), 1);
        assert!(pace.goes_on(|| 11_000));
        assert_eq!(pace.own_ns(), 10_000, "all of it, alone");
        pace.others = 3;
        assert_eq!(pace.own_ns(), 2_500);
        pace.look_at = 0;
        assert!(pace.goes_on(|| 31_000), "twelve of its twenty us are over");
        assert_eq!(pace.own_ns(), 12_000);
        pace.look_at = 0;
        assert!(!pace.goes_on(|| 41_000), "others may make it longer by a pass, and no more");
    }
}
