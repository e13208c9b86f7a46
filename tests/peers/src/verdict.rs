//! Which rounds count. Pure: from what was seen beside a round to what becomes of it.

use crate::figure::{Line, Round};
use crate::hiccup::Seen;
use crate::place::Regime;

/// How a child ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Said(Line),
    /// It was killed after so many seconds.
    Hung(f64),
    Failed(String),
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Clean(Regime, Round),
    /// A core stood still for more than a millisecond in it.
    Disturbed,
    /// The CPUs lay otherwise after it than before.
    Moved,
    Hung(f64),
    Failed(String),
    NotRun(String),
}

/// Judges an attempt by the cache-line round trips before and after it and the stalls beside it. Figures that
/// are not `timed` depend on neither.
pub(crate) fn judge(end: End, round_trips_ns: [f64; 2], seen: &Seen, timed: bool) -> Verdict {
    let [before, after] = round_trips_ns.map(Regime::of);
    match end {
        End::Hung(limit_s) => Verdict::Hung(limit_s),
        End::Failed(why) => Verdict::Failed(why),
        End::Said(Line::Failed(why)) => Verdict::Failed(why),
        End::Said(Line::NotRun(why)) => Verdict::NotRun(why),
        End::Said(Line::Measured(round)) if !timed => Verdict::Clean(before, round),
        End::Said(Line::Measured(_)) if before != after => Verdict::Moved,
        End::Said(Line::Measured(round)) => {
            if seen.stalls.iter().any(|stall| stall.hits(round.window_ns)) {
                Verdict::Disturbed
            } else {
                Verdict::Clean(before, round)
            }
        }
    }
}

/// What has come of a peer so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// Clean rounds by their number.
    pub(crate) clean: Vec<(usize, Regime, Round)>,
    pub(crate) attempts: u32,
    pub(crate) disturbed: u32,
    pub(crate) moved: u32,
    pub(crate) hung: u32,
    pub(crate) failed: u32,
    /// Why there is nothing, or less than wanted.
    pub(crate) why: Option<String>,
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The same peer again, in the same round.
    Again,
    /// The next peer.
    Go,
}

/// Attempts per peer that hang or fail before it is left out.
const GIVE_UP: u32 = 2;
/// Attempts per wanted round.
const ATTEMPTS: u32 = 3;

impl Record {
    /// Whether a peer still takes part when `wanted` rounds are wanted.
    pub(crate) const fn takes_part(&self, wanted: u32) -> bool {
        !self.was_not_run()
            && self.hung + self.failed < GIVE_UP
            && self.attempts < ATTEMPTS * wanted
    }

    const fn was_not_run(&self) -> bool {
        self.why.is_some() && self.hung + self.failed == 0
    }

    /// Notes what became of an attempt in that round.
    pub(crate) fn note(&mut self, number: usize, verdict: Verdict, wanted: u32) -> Next {
        self.attempts += 1;
        let repeats = matches!(verdict, Verdict::Disturbed | Verdict::Moved);
        match verdict {
            Verdict::Clean(regime, round) => self.clean.push((number, regime, round)),
            Verdict::Disturbed => self.disturbed += 1,
            Verdict::Moved => self.moved += 1,
            Verdict::NotRun(why) => self.why = Some(format!("not run: {why}")),
            Verdict::Hung(limit_s) => {
                self.hung += 1;
                self.why = Some(format!("hung: killed after {limit_s} s"));
            }
            Verdict::Failed(why) => {
                self.failed += 1;
                self.why = Some(format!("failed: {why}"));
            }
        }
        if repeats && self.takes_part(wanted) { Next::Again } else { Next::Go }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hiccup::{Schedule, Stall};
    use crate::usage::Used;

    fn round() -> Round {
        Round { window_ns: [100, 200], used: Used::default(), figures: Vec::new() }
    }

    fn seen(stalls: &[(u64, u64)]) -> Seen {
        let stalls =
            stalls.iter().map(|&(from_ns, to_ns)| Stall { from_ns, to_ns }).collect::<Vec<_>>();
        Seen { stalls, schedule: Schedule::Fifo, cpu_s: 0.0, ran_s: 1.0 }
    }

    fn said() -> End {
        End::Said(Line::Measured(round()))
    }

    #[test]
    fn a_round_without_stall_on_cpus_that_stayed_counts() {
        let outside = seen(&[(10, 99), (201, 300)]);
        assert_eq!(
            judge(said(), [90.0, 110.0], &outside, true),
            Verdict::Clean(Regime::Near, round())
        );
        assert_eq!(
            judge(said(), [400.0, 500.0], &seen(&[]), true),
            Verdict::Clean(Regime::Far, round())
        );
    }

    #[test]
    fn a_stall_or_another_place_discards_a_round() {
        assert_eq!(judge(said(), [90.0, 110.0], &seen(&[(150, 160)]), true), Verdict::Disturbed);
        assert_eq!(judge(said(), [90.0, 400.0], &seen(&[]), true), Verdict::Moved);
        assert_eq!(judge(said(), [400.0, 90.0], &seen(&[(150, 160)]), true), Verdict::Moved);
    }

    #[test]
    fn bytes_count_whatever_the_time_did() {
        let verdict = judge(said(), [90.0, 400.0], &seen(&[(150, 160)]), false);
        assert_eq!(verdict, Verdict::Clean(Regime::Near, round()));
    }

    #[test]
    fn what_was_not_measured_is_not_judged_by_its_surroundings() {
        let not_run = End::Said(Line::NotRun("why".to_owned()));
        assert_eq!(
            judge(not_run, [90.0, 400.0], &seen(&[]), true),
            Verdict::NotRun("why".to_owned())
        );
        assert_eq!(
            judge(End::Hung(9.0), [90.0, 90.0], &seen(&[(1, 999)]), true),
            Verdict::Hung(9.0)
        );
    }

    #[test]
    fn a_discarded_round_is_repeated_within_the_bound() {
        let mut record = Record::default();
        assert_eq!(record.note(0, Verdict::Disturbed, 1), Next::Again);
        assert_eq!(record.note(0, Verdict::Moved, 1), Next::Again);
        assert_eq!(record.note(0, Verdict::Disturbed, 1), Next::Go, "three attempts are the bound");
        assert_eq!((record.disturbed, record.moved, record.clean.len()), (2, 1, 0));
        assert!(!record.takes_part(1) && record.takes_part(2));
    }

    #[test]
    fn a_clean_round_ends_its_number() {
        let mut record = Record::default();
        assert_eq!(record.note(0, Verdict::Clean(Regime::Near, round()), 5), Next::Go);
        assert_eq!(record.note(1, Verdict::Disturbed, 5), Next::Again);
        assert_eq!(record.note(1, Verdict::Clean(Regime::Near, round()), 5), Next::Go);
        assert_eq!((record.clean.len(), record.attempts), (2, 3));
    }

    #[test]
    fn a_peer_that_hangs_twice_is_left_out_and_one_that_cannot_at_once() {
        let mut record = Record::default();
        assert_eq!(record.note(0, Verdict::Hung(60.0), 5), Next::Go);
        assert!(record.takes_part(5));
        assert_eq!(record.note(1, Verdict::Failed("x".to_owned()), 5), Next::Go);
        assert!(!record.takes_part(5));
        let mut record = Record::default();
        assert_eq!(record.note(0, Verdict::NotRun("x".to_owned()), 5), Next::Go);
        assert!(!record.takes_part(5));
    }
}
