//! Gates on percentiles: judged by the requests above the limit, with those that nobody saw the end of.

use tailbeam_probes::stats::{Block, Judgement, judge_percentile, so_far};

use super::build::{Material, ReportError, blocks, from_blocks, percent};
use crate::evidence::records::{EndRecord, SecondRecord};
use crate::load::Series;
use crate::plan::Arrivals;
use crate::verdict::{Gate, GateResult, GateVerdict};

/// An hour, s.
const HOUR_S: f64 = 3_600.0;

/// Judges a percentile.
///
/// # Errors
/// The run did not count requests above this limit.
pub(super) fn percentile(
    gate: &Gate,
    m: &Material<'_>,
    q: f64,
    limit_ns: u64,
) -> Result<GateResult, ReportError> {
    let limits = &m.run.manifest.limits_ns;
    let Some(index) = limits.iter().position(|limit| *limit == limit_ns) else {
        let ms = |ns: &u64| format!("{} ms", *ns as f64 / 1e6);
        let counted = limits.iter().map(ms).collect::<Vec<_>>().join(", ");
        return Err(ReportError::NotCounted {
            limit_ms: limit_ns as f64 / 1e6,
            counted: if counted.is_empty() { "none".to_owned() } else { counted },
        });
    };
    let blocks = blocks(m, |counts| (counts.judged, counts.over[index]));
    let (judgement, estimate) = judge_percentile(&blocks, 1.0 - q);
    let open = endless(&m.seconds, m.run.end.as_ref());
    let closed = m.run.plan.shape.arrivals == Arrivals::Closed;
    let judgement = doubted(judgement, (&blocks, &open), 1.0 - q, closed);
    let value = m.run.histograms[Series::System as usize].quantile(q);
    let measured =
        value.map_or_else(|| "unknown".to_owned(), |ns| format!("{:.3} ms", ns as f64 / 1e6));
    let above = || format!("{measured}, {} above", percent(estimate.p));
    let measured = if estimate.n == 0 { "unknown".to_owned() } else { above() };
    let mut result = from_blocks(gate, judgement, &estimate, measured);
    if let (GateVerdict::Inconclusive, Some(found)) = (result.verdict, so_far(&blocks))
        && let (Some(lower), Some(upper)) = (found.lower95, found.upper95)
    {
        let bounds = format!(
            "; so far, by blocks of {:.0} s, 95 % bounds {} and {}",
            found.block_s,
            percent(lower),
            percent(upper)
        );
        result.reason.push_str(&bounds);
    }
    let fails = result.verdict == GateVerdict::Fail;
    if let Some((hour, above)) = bad_hour(&blocks, 1.0 - q).filter(|_| !fails) {
        result.verdict = GateVerdict::Fail;
        result.needs_more_s = None;
        result.reason = format!(
            "in hour {hour} of the measured time {} were above, and surely more than twice the {} that are allowed: many good hours do not hide one",
            percent(above),
            percent(1.0 - q)
        );
    }
    Ok(result)
}

/// The first hour of measured time, from 1, that surely has more than twice the budget above the limit, and what it has.
/// A budget over all of a run of days would let an hour be lost (statistics of error budgets: Beyer et al., "The Site
/// Reliability Workbook", 2018, chapter 5).
fn bad_hour(blocks: &[Block], allowed: f64) -> Option<(usize, f64)> {
    let mut hours: Vec<Vec<Block>> = Vec::new();
    let mut length_s = HOUR_S;
    // What is left of the last hour belongs to the one before: some seconds are none.
    let mut left_s: f64 = blocks.iter().map(|block| block.len_s).sum();
    for block in blocks {
        if length_s >= HOUR_S && (left_s >= HOUR_S || hours.is_empty()) {
            length_s -= HOUR_S;
            hours.push(Vec::new());
        }
        hours.last_mut().into_iter().for_each(|hour| hour.push(*block));
        length_s += block.len_s;
        left_s -= block.len_s;
    }
    hours.iter().enumerate().find_map(|(at, hour)| {
        let (judgement, estimate) = judge_percentile(hour, 2.0 * allowed);
        (judgement == Judgement::Fail).then_some((at + 1, estimate.p))
    })
}

/// Requests of each second whose latency nobody will know: open when its epoch was cut, or when the run was stopped.
fn endless(seconds: &[&SecondRecord], end: Option<&EndRecord>) -> Vec<u64> {
    let mut open: Vec<u64> =
        seconds.iter().map(|second| if second.cut { second.open_end } else { 0 }).collect();
    if let (Some(at), Some(second)) = (open.last_mut(), seconds.last()) {
        let unsealed = if second.cut { 0 } else { second.open_end };
        *at += end.map_or(unsealed, |end| end.open_at_stop);
    }
    open
}

/// A PASS that those would take away whose end nobody saw, if all were above the limit, is none. Nor is one of a closed
/// loop: it asks a slow system less, so that the slow requests that it spared are in no figure.
fn doubted(
    judgement: Judgement,
    (blocks, open): (&[Block], &[u64]),
    allowed: f64,
    closed: bool,
) -> Judgement {
    if judgement != Judgement::Pass {
        return judgement;
    }
    if closed {
        let reason = "it would pass, but the loop was closed: a slow system is asked less, and what it was not asked is \
                      in no figure; record one with a schedule (--arrivals cycle)";
        return Judgement::Undecided { reason: reason.to_owned(), needed_s: None };
    }
    let all: u64 = open.iter().sum();
    let worst = |(block, &open): (&Block, &u64)| Block {
        n: block.n + open,
        k: block.k + open,
        len_s: block.len_s,
    };
    let worst: Vec<Block> = blocks.iter().zip(open).map(worst).collect();
    if all == 0 || judge_percentile(&worst, allowed).0 == Judgement::Pass {
        return judgement;
    }
    let reason = format!(
        "it would pass, but not if the {all} requests that were open when the run was cut or stopped were above the limit"
    );
    Judgement::Undecided { reason, needed_s: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::SecondCounts;

    /// An hour in which 0.5 % of 100 requests a second are above the limit.
    fn hour() -> Vec<Block> {
        (0..3_600).map(|at| Block { n: 100, k: at % 2, len_s: 1.0 }).collect()
    }

    #[test]
    fn requests_without_an_end_take_a_pass_away_that_they_could_turn() {
        let blocks = hour();
        let judged = judge_percentile(&blocks, 0.01).0;
        assert_eq!(judged, Judgement::Pass);
        let doubt = |cut: u64, closed| {
            let mut open = vec![0; blocks.len()];
            (open[1_000], open[3_599]) = (cut, cut);
            doubted(judged.clone(), (&blocks, &open), 0.01, closed)
        };
        assert_eq!(doubt(0, false), Judgement::Pass);
        assert_eq!(doubt(20, false), Judgement::Pass, "all late, and it would still hold");
        // Twice 1,200 of 360,000 beside 1,800.
        let Judgement::Undecided { reason, .. } = doubt(1_200, false) else { panic!("a PASS") };
        assert!(reason.contains("2400 requests that were open"), "{reason}");
        assert!(matches!(doubt(0, true), Judgement::Undecided { .. }), "a closed loop");
        let bad: Vec<Block> = blocks.iter().map(|block| Block { k: 2, ..*block }).collect();
        let judged = judge_percentile(&bad, 0.01).0;
        assert_eq!(doubted(judged, (&bad, &[]), 0.01, true), Judgement::Fail, "a FAIL is one");
    }

    #[test]
    fn an_hour_that_is_lost_is_not_hidden_by_good_ones() {
        let hours = |of: &[u64]| -> Vec<Block> {
            of.iter()
                .flat_map(|&k| {
                    (0..3_600).map(move |at| Block { n: 100, k: k + at % 2, len_s: 1.0 })
                })
                .collect()
        };
        let good = [0; 71];
        let one_bad = hours(&[&good[..36], &[20], &good[36..]].concat());
        let whole = judge_percentile(&one_bad, 0.01).1;
        assert!(whole.p < 0.01, "{whole:?}");
        assert_eq!(bad_hour(&one_bad, 0.01).map(|(hour, p)| (hour, p > 0.2)), Some((37, true)));
        assert_eq!(bad_hour(&hours(&good), 0.01), None);
        // 1.5 % is above the budget and not above twice of it.
        assert_eq!(bad_hour(&hours(&[1, 1, 1]), 0.01), None);
        assert_eq!(bad_hour(&[], 0.01), None);
        let end = (0..45).map(|_| Block { n: 100, k: 5, len_s: 1.0 });
        let long: Vec<Block> = hours(&[0, 0]).into_iter().chain(end).collect();
        assert_eq!(bad_hour(&long, 0.01), None, "45 s are no hour");
    }

    #[test]
    fn what_was_open_at_a_cut_and_at_the_stop_has_no_end() {
        let second = |cut, open_end| SecondRecord {
            from_ns: 0,
            len_ns: 1_000_000_000,
            counts: SecondCounts::default(),
            live_agents: 2,
            open_sum: 0,
            open_samples: 0,
            oldest_open_ns: 0,
            open_end,
            open_age_ns: 0,
            issuing: true,
            cut,
        };
        let seconds = [second(false, 9), second(true, 7), second(false, 5)];
        let seconds: Vec<&SecondRecord> = seconds.iter().collect();
        assert_eq!(endless(&seconds, None), [0, 7, 5], "never sealed");
        let end = EndRecord { open_at_stop: 3, ..EndRecord::finished(3_000_000_000) };
        assert_eq!(endless(&seconds, Some(&end)), [0, 7, 3]);
        assert_eq!(endless(&seconds[..2], None), [0, 7]);
    }
}
