//! When a service left what is usual for it.

use super::baseline::OVER;
use super::seek::Brief;
use super::{Axis, Baseline, RETURN_WINDOWS};

/// First slot of what is worse than anything of its length in the baseline: a slot, a second, or five. One noisy slot of
/// the baseline hides a fault that is short, and none that lasts. Requests that were open at the injection were due
/// before it, at most a second, which a slot alone can show. `end`: what is bad after the return is no work of the fault.
pub(super) fn onset(axis: &Axis, baseline: &Baseline, from: usize, end: usize) -> Option<usize> {
    let first = from.saturating_sub(axis.second());
    let known: Vec<Brief> =
        axis.cells[first.min(end)..end].iter().map(|cell| baseline.brief(cell)).collect();
    let second = axis.second();
    let lengths = [1, second, RETURN_WINDOWS * second];
    let found = lengths.into_iter().zip(baseline.worst).filter_map(|(slots, usual)| {
        let skipped = if slots == 1 { 0 } else { from - first };
        let worse = |few: &[Brief]| is_worse(axis, &Brief::sum(few), slots, usual);
        let at = skipped + known.get(skipped..)?.windows(slots).position(worse)?;
        let is_bad = |of: &Brief| of.bad(least(axis, 1)) > OVER;
        let within = known[at..at + slots].iter().position(is_bad).unwrap_or(0);
        Some(first + at + within)
    });
    found.min()
}

/// Fewer requests than this are due in so many slots by chance once in 30,000 (four standard deviations of a Poisson
/// count): below it who asks was not there.
pub(super) fn least(axis: &Axis, slots: usize) -> f64 {
    let expected = axis.expected * slots as f64;
    (expected - 4.0 * expected.sqrt()).max(0.0)
}

fn is_worse(axis: &Axis, few: &Brief, slots: usize, usual: f64) -> bool {
    let least = least(axis, slots);
    let bad = few.bad(least);
    let outside = slots == 1 || bad > OVER;
    // Three requests or more: one slow one of few is no onset.
    bad > usual && outside && (bad * few.due() as f64 >= 3.0 || (few.due() as f64) < least)
}
