//! Error budgets: what a gate allows, how much of it was spent, and how fast at worst.
//!
//! The budget of a gate is the share of requests, or of seconds, that may be on the wrong side of it. A burn rate of 1 spends exactly that;
//! the worst five minutes and the worst hour are what a mean of days hides (Beyer et al., "The Site Reliability Workbook",
//! 2018, chapter 5). Times are of the measured time: gaps between epochs are not in it.

use serde::{Deserialize, Serialize};
use tailbeam_probes::stats::Block;

use super::build::{Material, blocks, delivery_blocks, fraction_blocks};
use super::{Measured, availability};
use crate::verdict::Gate;

/// The windows of burn rates, s.
const SHORT_S: f64 = 300.0;
const LONG_S: f64 = 3_600.0;
/// Slots of which the longest run above the objective is told, s.
const SLOT_S: f64 = 10.0;
/// Seconds are cut by a clock: so much may be missing of a window.
const HALF_S: f64 = 0.5;

/// The budget of a gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetRow {
    /// Name of the gate.
    pub gate: String,
    /// Its requirement in words.
    pub requirement: String,
    /// Share of requests, or of seconds, that it allows.
    pub allowed: f64,
    /// Share of the budget that was spent: 1 is all of it.
    pub spent: Measured<f64>,
    /// The worst five minutes.
    pub worst_5min: Measured<Burn>,
    /// The worst hour.
    pub worst_hour: Measured<Burn>,
    /// Longest time, in slots of ten seconds, each of which had more than is allowed, s.
    pub longest_over_s: Measured<f64>,
}

/// How fast a budget was spent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Burn {
    /// Multiple of what is allowed.
    pub rate: f64,
    /// Begin of these minutes, s of the measured time.
    pub at_s: f64,
}

/// The budgets of the gates that have one.
pub(super) fn rows(gates: &[Gate], m: &Material<'_>) -> Vec<BudgetRow> {
    let row = |gate: &Gate| {
        let (seconds, allowed) = of(gate, m)?;
        Some(budget(gate, &seconds, allowed))
    };
    gates.iter().filter_map(row).collect()
}

/// Requests and bad ones of each second, and what the gate allows.
fn of(gate: &Gate, m: &Material<'_>) -> Option<(Vec<Block>, f64)> {
    match gate {
        Gate::Percentile { q, limit_ns } => {
            let index = m.run.manifest.limits_ns.iter().position(|limit| limit == limit_ns)?;
            Some((blocks(m, |counts| (counts.judged, counts.over[index])), 1.0 - q))
        }
        Gate::Delivery { at_least } => Some((delivery_blocks(m), 1.0 - at_least)),
        Gate::Availability { at_least } => Some((availability::seconds(m), 1.0 - at_least)),
        Gate::Errors { below } => Some((fraction_blocks(m, |o| o.error + o.lost), *below)),
        Gate::Expired { below } => Some((fraction_blocks(m, |o| o.expired), *below)),
        Gate::Refused { below } => {
            Some((blocks(m, |counts| (counts.outcomes.sum(), counts.outcomes.refused)), *below))
        }
        _ => None,
    }
    .filter(|(_, allowed)| *allowed > 0.0)
}

fn budget(gate: &Gate, seconds: &[Block], allowed: f64) -> BudgetRow {
    let all = seconds.iter().fold((0, 0), |sum, of| (sum.0 + of.n, sum.1 + of.k));
    let rate = |(n, k): (u64, u64)| (n > 0).then(|| k as f64 / n as f64 / allowed);
    let worst = |length_s: f64| {
        worst(seconds, length_s).map_or_else(
            || {
                let cause = format!("the run has no {length_s:.0} s with requests");
                Measured::unknown(cause, "record for longer")
            },
            |(share, at_s)| Measured::Known(Burn { rate: share / allowed, at_s }),
        )
    };
    BudgetRow {
        gate: gate.name(),
        requirement: gate.requirement(),
        allowed,
        spent: rate(all).map_or_else(
            || Measured::unknown("no request was judged", "record for longer"),
            Measured::Known,
        ),
        worst_5min: worst(SHORT_S),
        worst_hour: worst(LONG_S),
        longest_over_s: longest_over_s(seconds, allowed).map_or_else(
            || Measured::unknown("the run has no ten seconds", "record for longer"),
            Measured::Known,
        ),
    }
}

/// The largest share of bad requests in any `length_s` of measured time, and when that began, s.
fn worst(seconds: &[Block], length_s: f64) -> Option<(f64, f64)> {
    let (mut first, mut n, mut k, mut held_s, mut begin_s) = (0, 0u64, 0u64, 0.0, 0.0);
    let mut found: Option<(f64, f64)> = None;
    for second in seconds {
        (n, k, held_s) = (n + second.n, k + second.k, held_s + second.len_s);
        while held_s - seconds[first].len_s >= length_s - HALF_S {
            let oldest = seconds[first];
            (n, k, held_s) = (n - oldest.n, k - oldest.k, held_s - oldest.len_s);
            begin_s += oldest.len_s;
            first += 1;
        }
        if held_s >= length_s - HALF_S && n > 0 {
            let share = k as f64 / n as f64;
            if found.is_none_or(|(most, _)| share > most) {
                found = Some((share, begin_s));
            }
        }
    }
    found
}

/// `None` where there is no whole slot.
fn longest_over_s(seconds: &[Block], allowed: f64) -> Option<f64> {
    let (mut slot, mut over_s, mut longest_s) = (Block { n: 0, k: 0, len_s: 0.0 }, 0.0, None);
    for second in seconds {
        slot.n += second.n;
        slot.k += second.k;
        slot.len_s += second.len_s;
        if slot.len_s >= SLOT_S * 0.995 {
            let over = slot.k as f64 > allowed * slot.n as f64;
            over_s = if over { over_s + slot.len_s } else { 0.0 };
            longest_s = Some(longest_s.map_or(over_s, |before: f64| before.max(over_s)));
            slot = Block { n: 0, k: 0, len_s: 0.0 };
        }
    }
    longest_s
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: Gate = Gate::Expired { below: 0.01 };

    fn seconds(of: &[(usize, u64)]) -> Vec<Block> {
        let block = |k| Block { n: 1_000, k, len_s: 1.0 };
        of.iter().flat_map(|&(length, k)| std::iter::repeat_n(block(k), length)).collect()
    }

    #[test]
    fn the_worst_minutes_are_found_where_they_are() {
        // Two hours at half of the budget; in between four minutes at ten times of it.
        let row = budget(&GATE, &seconds(&[(3_600, 5), (240, 100), (3_600, 5)]), 0.01);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let spent = (7_200.0 * 5.0 + 240.0 * 100.0) / 7_440_000.0 / 0.01;
        assert!(near(*row.spent.known().unwrap(), spent), "{row:?}");
        let short = row.worst_5min.known().unwrap();
        assert!(near(short.rate, (240.0 * 100.0 + 60.0 * 5.0) / 300_000.0 / 0.01), "{short:?}");
        assert!(near(short.at_s, 3_540.0), "the first of those that hold all of it: {short:?}");
        let long = row.worst_hour.known().unwrap();
        assert!(near(long.rate, (240.0 * 100.0 + 3_360.0 * 5.0) / 3_600_000.0 / 0.01), "{long:?}");
        assert!(near(*row.longest_over_s.known().unwrap(), 240.0), "{row:?}");
    }

    #[test]
    fn what_a_short_run_cannot_say_is_unknown() {
        let row = budget(&GATE, &seconds(&[(299, 10)]), 0.01);
        assert_eq!(row.spent, Measured::Known(1.0));
        assert!(row.worst_5min.known().is_none() && row.worst_hour.known().is_none());
        assert_eq!(row.longest_over_s, Measured::Known(0.0), "as much as is allowed is not more");
        assert!(budget(&GATE, &seconds(&[(9, 50)]), 0.01).longest_over_s.known().is_none());
        let row = budget(&GATE, &seconds(&[(300, 10)]), 0.01);
        assert_eq!(row.worst_5min, Measured::Known(Burn { rate: 1.0, at_s: 0.0 }));
        assert!(budget(&GATE, &[], 0.01).spent.known().is_none());
    }
}
