//! Whether faults have left anything in the process that suffered them: slots, timers, operations, suspended handlers,
//! live objects. By what the process itself says to hold, with its load on it, before the faults and when the service was
//! back after each.
//!
//! Levels go up and down with the requests that are open, so what is compared are ranges: something is left when the
//! least of what was held afterwards is more than the most of before. What is smaller than that range is not seen, so the
//! ranges are told. Slots, timers, operations and handlers are compared with the time before any fault. Objects are
//! compared between the first injection of a fault and its last: tables that a fault makes for the first time stay, and
//! what each injection leaves anew is a leak through the failure's path. Their bytes may grow by 32 MiB between these: a
//! table of the harness that is made with the first full window is one object of 16 MB. One object that grows more slowly
//! than that is not seen here, and the leak gate of a run of minutes decides nothing.
//!
//! Whoever verifies a series makes these checks again by the levels in its record, which nobody but the supervisor has seen.

use super::board::{LevelRange, LevelSpan};
use super::record::{Check, FaultRecord, Trial};

/// Slots of agents and of spawned futures.
const NO_SLOT: &str = "no slot is left";
/// Pending timers.
const NO_TIMER: &str = "no timer is left";
/// Operations on sockets and files.
const NO_OPERATION: &str = "no operation is left";
/// Memory of handlers that wait.
const NO_HANDLER: &str = "no suspended handler is left";
/// Of objects, behind the name of the fault.
const NO_OBJECT: &str = "leaves no live object";
/// Looks that tell a range; what was looked at more rarely is not known.
pub const LOOKS: u64 = 20;

/// Growth of the live bytes between the first injection of a fault and its last that tables of the process may have, which
/// are made once and grow by doubling: the largest that was seen is one of 16 MB.
const GROWTH_MAX: u64 = 32 << 20;

/// One of the levels of a span.
type Level = fn(&LevelSpan) -> LevelRange;

/// The levels that are compared with the time before any fault.
const LEVELS: [(&str, &str, Level); 4] = [
    (NO_SLOT, "slots", |of| of.slots),
    (NO_TIMER, "timers", |of| of.timers),
    (NO_OPERATION, "operations", |of| of.ops),
    (NO_HANDLER, "bytes of suspended handlers", |of| of.futures_bytes),
];

/// Whether this is one of these checks.
#[must_use]
pub fn is_one(name: &str) -> bool {
    LEVELS.iter().any(|(of, ..)| *of == name) || name.ends_with(NO_OBJECT)
}

/// What a subject's faults have left in it. `before`: what it held while nothing was wrong.
#[must_use]
pub fn checks(before: Option<&LevelSpan>, faults: &[&FaultRecord]) -> Vec<Check> {
    let trials: Vec<&Trial> = faults.iter().flat_map(|fault| &fault.trials).collect();
    if trials.is_empty() {
        return Vec::new();
    }
    let levels = LEVELS.map(|(name, unit, level)| of_level((name, unit), level, before, &trials));
    levels.into_iter().chain(faults.iter().filter_map(|fault| of_objects(fault))).collect()
}

/// What was held after an injection, if it was looked at often enough.
fn seen(trial: &Trial) -> Option<&LevelSpan> {
    trial.levels.as_ref().filter(|of| of.looks >= LOOKS)
}

fn of_level(
    (name, unit): (&str, &str),
    level: Level,
    before: Option<&LevelSpan>,
    trials: &[&Trial],
) -> Check {
    let Some(before) = before.filter(|of| of.looks >= LOOKS).map(level) else {
        return Check::unknown(
            name,
            "what the subject held before any fault was said fewer than 20 times",
        );
    };
    let after: Option<Vec<u64>> =
        trials.iter().map(|trial| Some(level(seen(trial)?).min)).collect();
    let Some(most) = after.and_then(|after| after.into_iter().max()) else {
        return Check::unknown(
            name,
            "what the subject held after an injection was said fewer than 20 times",
        );
    };
    let text = format!(
        "{} to {} {unit} before, at least {most} after the worst of {} injections",
        before.min,
        before.max,
        trials.len()
    );
    Check::seen(name, most <= before.max, text)
}

/// Of a fault whose process goes on, when it was injected twice or more.
fn of_objects(fault: &FaultRecord) -> Option<Check> {
    let (first, last) = (fault.trials.first()?, fault.trials.last()?);
    if fault.trials.len() < 2 || fault.fault.act.restarts() || fault.fault.act.is_of_the_start() {
        return None;
    }
    let name = format!("{} {NO_OBJECT}", fault.fault.name);
    let heap = |trial: &Trial| {
        let levels = seen(trial)?;
        Some((levels.objects?, levels.bytes?))
    };
    let (Some(first), Some(last)) = (heap(first), heap(last)) else {
        return Some(Check::unknown(
            &name,
            "what lives was said fewer than 20 times, or is not counted in this program",
        ));
    };
    let text = format!(
        "{} to {} objects ({} to {} bytes) after the first injection, at least {} ({} bytes) after the last of {}",
        first.0.min,
        first.0.max,
        first.1.min,
        first.1.max,
        last.0.min,
        last.1.min,
        fault.trials.len()
    );
    let bytes = last.1.min <= first.1.max.saturating_add(GROWTH_MAX);
    Some(Check::seen(&name, last.0.min <= first.0.max && bytes, text))
}

/// Whether nothing that is compared is above what it was: in `base` before any fault, in `first` after the first injection
/// of the same fault. Who looks may end then.
#[must_use]
pub fn is_level(now: &LevelSpan, base: Option<&LevelSpan>, first: Option<&LevelSpan>) -> bool {
    let objects = first.and_then(|of| of.objects).zip(now.objects);
    base.is_none_or(|base| now.is_back_in(base))
        && objects.is_none_or(|(first, now)| now.min <= first.max)
}

#[cfg(test)]
mod tests {
    use super::super::board::Levels;
    use super::super::record::tests::{record, trial};
    use super::super::recovery::Took;
    use super::super::scenario::Act;
    use super::*;

    fn span(slots: [u64; 2], objects: [u64; 2]) -> LevelSpan {
        let of = |at: usize| Levels {
            look: 1,
            slots: slots[at],
            timers: 5,
            ops: 0,
            futures_bytes: 0,
            heap: Some((objects[at], objects[at] * 100)),
        };
        let span = LevelSpan::with(Some(LevelSpan::with(None, &of(0))), &of(1));
        LevelSpan { looks: LOOKS, ..span }
    }

    fn done(levels: &[Option<LevelSpan>], act: Act) -> FaultRecord {
        let trials = levels.iter().map(|&levels| Trial { levels, ..trial(Took::Ns(0)) });
        let mut record = record(trials.collect());
        record.fault.act = act;
        record
    }

    fn holds(before: Option<LevelSpan>, fault: &FaultRecord) -> Vec<(String, Option<bool>)> {
        let checks = checks(before.as_ref(), &[fault]);
        checks.into_iter().map(|check| (check.name, check.holds)).collect()
    }

    #[test]
    fn one_slot_above_the_range_is_one_that_is_left() {
        let before = span([100, 120], [500, 600]);
        for (after, held) in [([110, 130], true), ([120, 125], true), ([121, 125], false)] {
            let found = holds(
                Some(before),
                &done(&[Some(before), Some(span(after, [500, 600]))], Act::Freeze),
            );
            assert_eq!(found[0], (NO_SLOT.to_owned(), Some(held)), "{after:?}");
            assert!(found[1..].iter().all(|(_, holds)| *holds == Some(true)), "{found:?}");
        }
        let found = holds(Some(before), &done(&[Some(before), None], Act::Freeze));
        assert_eq!(found[0].1, None, "nobody looked after one of them");
        assert_eq!(holds(None, &done(&[Some(before)], Act::Freeze))[0].1, None);
        let few = LevelSpan { looks: LOOKS - 1, ..before };
        assert_eq!(holds(Some(before), &done(&[Some(few)], Act::Freeze))[0].1, None, "too few");
        assert_eq!(holds(Some(few), &done(&[Some(before)], Act::Freeze))[0].1, None);
        assert_eq!(holds(Some(before), &done(&[], Act::Freeze)), []);
    }

    #[test]
    fn objects_are_compared_between_injections_of_one_process() {
        let base = span([1, 1], [500, 600]);
        let with = |objects| Some(span([1, 1], objects));
        let last = |after, act| holds(Some(base), &done(&[with([700, 900]), after], act)).pop();
        let name = format!("quota {NO_OBJECT}");
        let grown = last(with([901, 950]), Act::Freeze);
        assert_eq!(grown, Some((name.clone(), Some(false))), "more than after the first");
        assert_eq!(last(with([900, 950]), Act::Freeze), Some((name.clone(), Some(true))));
        assert_eq!(last(None, Act::Freeze), Some((name, None)));
        for (trials, act) in [(2, Act::Kill), (1, Act::Freeze)] {
            let found = holds(Some(base), &done(&vec![with([700, 900]); trials], act));
            assert_eq!(found.len(), 4, "there is nothing to compare: {found:?}");
        }
    }

    #[test]
    fn whoever_looks_may_end_when_nothing_is_above() {
        let base = span([100, 120], [500, 600]);
        let first = span([100, 120], [700, 900]);
        assert!(is_level(&span([120, 130], [900, 950]), Some(&base), Some(&first)));
        assert!(!is_level(&span([121, 130], [900, 950]), Some(&base), Some(&first)));
        assert!(!is_level(&span([120, 130], [901, 950]), Some(&base), Some(&first)));
        assert!(is_level(&span([121, 130], [901, 950]), None, None));
    }
}
