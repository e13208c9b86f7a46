//! Availability: the share of seconds in which the service was there. The share of requests hides when they failed: a
//! minute without an answer in three days is 0.02 % of them.

use tailbeam_probes::stats::{Block, judge_fraction};

use super::build::{Material, from_blocks, percent};
use crate::chaos::recovery::AVAILABLE;
use crate::verdict::{Gate, GateResult, GateVerdict, Outcomes};

/// Requests of a second of which the share that a second needs can be missed by one, and not by half of one.
const PER_SECOND_MIN: f64 = 100.0;

/// The seconds in which requests came due: 1 of 1 where the service was not there. A record is closed when every core has
/// said what it counted: one that a busy core made late is as many seconds as it lasted.
pub(super) fn seconds(m: &Material<'_>) -> Vec<Block> {
    let due = m.seconds.iter().filter(|second| second.issuing);
    due.flat_map(|second| {
        let away = !is_there(&second.counts.outcomes);
        parts(second.len_ns as f64 / 1e9, u64::from(away))
    })
    .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, and a record is of a run of at most 31 days"
)]
pub(super) fn parts(len_s: f64, k: u64) -> impl Iterator<Item = Block> {
    let n = len_s.round().max(1.0);
    (0..n as usize).map(move |_| Block { n: 1, k, len_s: len_s / n })
}

fn answered(o: &Outcomes) -> u64 {
    o.ok + o.declined
}

/// What ended in it, but for what was refused: a limit that was agreed on is no absence.
fn ended(o: &Outcomes) -> u64 {
    answered(o) + o.expired + o.error + o.cancelled + o.lost
}

/// Whether 99 % or more of what ended in a second was answered in time. Where nothing ended nobody was answered.
fn is_there(o: &Outcomes) -> bool {
    let (answered, ended) = (answered(o), ended(o));
    ended > 0 && answered as f64 >= AVAILABLE * ended as f64
}

/// By the interval of the share, from blocks that allow for seconds that resemble their neighbours.
pub(super) fn judge(gate: &Gate, at_least: f64, m: &Material<'_>) -> GateResult {
    let seconds = seconds(m);
    let due: u64 = m.seconds.iter().map(|second| second.counts.outcomes.attempts).sum();
    judged(gate, at_least, &seconds, due as f64 / seconds.len().max(1) as f64)
}

fn judged(gate: &Gate, at_least: f64, seconds: &[Block], per_second: f64) -> GateResult {
    let (judgement, estimate) = judge_fraction(seconds, 1.0 - at_least);
    let away = seconds.iter().filter(|second| second.k > 0).count();
    let measured = if seconds.is_empty() {
        "unknown".to_owned()
    } else {
        format!("{}, {away} of {} seconds not", percent(1.0 - estimate.p), seconds.len())
    };
    let result = from_blocks(gate, judgement, &estimate, measured);
    if per_second >= PER_SECOND_MIN || result.verdict != GateVerdict::Pass {
        return result;
    }
    let reason = format!(
        "{per_second:.0} requests were due in a second: 99 % is a share of {PER_SECOND_MIN} or more"
    );
    GateResult { verdict: GateVerdict::Inconclusive, reason, needs_more_s: None, ..result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_there_when_it_answers() {
        let second = |ok, declined, expired, refused| {
            is_there(&Outcomes { ok, declined, expired, refused, ..Outcomes::default() })
        };
        assert!(second(98, 1, 1, 0) && second(99, 0, 1, 500));
        assert!(!second(98, 0, 2, 0) && !second(0, 0, 1, 0));
        assert!(!second(0, 0, 0, 0), "a service that stands still answers nobody");
        let lost = Outcomes { ok: 90, error: 5, lost: 5, ..Outcomes::default() };
        assert!(!is_there(&lost));
    }

    #[test]
    fn the_share_of_seconds_passes_fails_and_stays_open() {
        use GateVerdict::{Fail, Inconclusive, Pass};
        let gate = Gate::Availability { at_least: 0.999 };
        // Every how-many-th of them.
        let of = |n: u64, away: u64, per_second: f64| {
            let every = n.checked_div(away).unwrap_or(u64::MAX);
            let second = |i: u64| Block { n: 1, k: u64::from(i % every == every - 1), len_s: 1.0 };
            judged(&gate, 0.999, &(0..n).map(second).collect::<Vec<_>>(), per_second)
        };
        let verdict = |n, away, per_second| of(n, away, per_second).verdict;
        assert_eq!(verdict(20_000, 0, 3_000.0), Pass);
        assert_eq!(verdict(20_000, 400, 3_000.0), Fail);
        assert_eq!(verdict(600, 0, 3_000.0), Inconclusive, "too short to say so little");
        assert_eq!(verdict(20_000, 0, 99.0), Inconclusive);
        assert_eq!(verdict(20_000, 400, 99.0), Fail, "a doubt takes a PASS away and no FAIL");
        assert_eq!(verdict(0, 0, 0.0), Inconclusive);
        let long: Vec<Block> = parts(60.2, 1).collect();
        assert_eq!((long.len(), parts(0.3, 0).count()), (60, 1));
        assert!((long.iter().map(|of| of.len_s).sum::<f64>() - 60.2).abs() < 1e-9);
        assert_eq!(of(20_000, 5, 3_000.0).measured, "99.9750 %, 5 of 20000 seconds not");
    }
}
