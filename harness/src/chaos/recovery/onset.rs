//! When a service left what is usual for it.

use super::baseline::OVER;
use super::seek::Brief;
use super::{Axis, Baseline, RETURN_WINDOWS};

/// First slot of what is worse than anything of its length in the baseline: a slot, a second, or five. One noisy slot of
/// the baseline hides a fault that is short, and none that lasts. A longer stretch counts where it ends before a shorter one
/// begins: what a slot alone shows is known to the slot, what a second or five show to where their excess begins (the last
/// minimum of its cumulative sum: Page 1954), which noise may shift. Requests that were open at the injection were due before
/// it, at most a second, which a slot alone can show. `end`: what is bad after the return is no work of the fault.
pub(super) fn onset(axis: &Axis, baseline: &Baseline, from: usize, end: usize) -> Option<usize> {
    let first = from.saturating_sub(axis.second()).min(end);
    let known: Vec<Brief> =
        axis.cells[first..end].iter().map(|cell| baseline.brief(cell)).collect();
    let second = axis.second();
    let mut found: Option<usize> = None;
    for (slots, usual) in [1, second, RETURN_WINDOWS * second].into_iter().zip(baseline.worst) {
        let skipped = if slots == 1 { 0 } else { from.saturating_sub(first) };
        let worse = |few: &[Brief]| is_worse(axis, &Brief::sum(few), slots, usual);
        let looked = known.get(skipped..).unwrap_or_default();
        let Some(at) = looked.windows(slots).position(worse).map(|at| at + skipped) else {
            continue;
        };
        if found.is_none_or(|shorter| at + slots <= shorter) {
            found = Some(at + excess_from(axis, &known[at..at + slots]));
        }
    }
    found.map(|at| first + at)
}

/// Where in a stretch that is worse than usual its excess over what a window in the band may have begins.
fn excess_from(axis: &Axis, few: &[Brief]) -> usize {
    let (mut sum, mut least_sum, mut from) = (0.0, 0.0, 0);
    for (n, slot) in few.iter().enumerate() {
        let due = (slot.due() as f64).max(axis.expected);
        sum += (slot.bad(least(axis, 1)) - OVER) * due;
        if sum <= least_sum {
            (least_sum, from) = (sum, n + 1);
        }
    }
    from.min(few.len().saturating_sub(1))
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
    // By chance one in so many stretches is the worst: a little more is asked of the longer ones, of which there are few.
    let usual = if slots == 1 { usual } else { (usual * 1.2).max(OVER) };
    // Three requests or more: one slow one of few is no onset.
    bad > usual && (bad * few.due() as f64 >= 3.0 || (few.due() as f64) < least)
}
