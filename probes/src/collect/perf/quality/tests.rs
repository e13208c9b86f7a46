//! Each judgement by a pair of scripted readings, and twins that must not be judged.

use super::super::fake::Scripted;
use super::super::{CounterBackend, Source, explain};
use super::*;

const RULES: Rules = Rules { rotation_ns: 4_000_000, cpu: None };

fn support(scope: Scope) -> Support {
    Support::new(|kind| match kind {
        Kind::Switches => Ok(Source { name: "getrusage", scope: Scope::All, grouped: false }),
        Kind::BranchMisses => Err(explain(libc::ENOENT, Some(2))),
        _ => Ok(Source { name: "perf", scope, grouped: true }),
    })
}

/// After `ms` of which the group ran `running_ms`, with a million of each event per ms that it ran.
fn reading(ms: u64, running_ms: u64) -> Reading {
    let mut values = [running_ms * 1_000_000; KINDS];
    values[Kind::Switches.index()] = ms;
    Reading {
        at_ns: 1_000_000_000 + ms * 1_000_000,
        cpu: 1,
        state: State::Counted,
        enabled_ns: 500 + ms * 1_000_000,
        running_ns: 400 + running_ms * 1_000_000,
        values,
    }
}

fn judged(before: Reading, after: Reading) -> Delta {
    between(&support(Scope::All), &RULES, &before, &after)
}

fn cycles(delta: &Delta) -> (Option<u64>, Quality) {
    (delta.of(Kind::Cycles).known(), delta.of(Kind::Cycles).quality)
}

#[test]
fn a_group_that_always_ran_is_exact() {
    let delta = judged(reading(0, 0), reading(100, 100));
    assert_eq!(cycles(&delta), (Some(100_000_000), Quality::Exact));
    assert_eq!(delta.of(Kind::Switches).known(), Some(100));
    assert_eq!((delta.elapsed_ns, delta.enabled_ns), (100_000_000, 100_000_000));
    assert_eq!(delta.ipc_permille(), Some(1_000));
    let missing = delta.of(Kind::BranchMisses);
    assert_eq!(missing.quality, Quality::Unknown(Unknown::NoSource));
    assert_eq!((missing.known(), missing.certain()), (None, None));
}

#[test]
fn a_group_that_shared_is_scaled_and_below_nine_tenths_rough() {
    let delta = judged(reading(0, 0), reading(100, 95));
    assert_eq!(cycles(&delta), (Some(100_000_000), Quality::Scaled(950)));
    assert_eq!(delta.of(Kind::Cycles).certain(), Some(100_000_000));
    let delta = judged(reading(0, 0), reading(100, 50));
    assert_eq!(cycles(&delta), (Some(100_000_000), Quality::Rough(500)));
    assert_eq!(delta.of(Kind::Cycles).certain(), None, "not for verdicts");
    assert_eq!(delta.ipc_permille(), None);
    assert_eq!(delta.of(Kind::Switches).quality, Quality::Exact, "it is not of the group");
    let mut after = reading(10_000, 10_000);
    after.running_ns -= 9_000_000;
    assert_eq!(cycles(&judged(reading(0, 0), after)).1, Quality::Exact, "0.999");
}

#[test]
fn a_window_shorter_than_a_rotation_is_never_scaled() {
    let delta = judged(reading(0, 0), reading(3, 1));
    assert_eq!(cycles(&delta), (None, Quality::Unknown(Unknown::TooShort)));
    let delta = judged(reading(0, 0), reading(3, 0));
    assert_eq!(cycles(&delta).1, Quality::Unknown(Unknown::TooShort), "not 0");
    let delta = judged(reading(0, 0), reading(3, 3));
    assert_eq!(cycles(&delta).1, Quality::Exact, "it ran all the time, so nothing is scaled");
}

#[test]
fn a_group_that_never_ran_is_unknown_and_not_zero() {
    let delta = judged(reading(0, 0), reading(100, 0));
    assert_eq!(cycles(&delta), (None, Quality::Unknown(Unknown::Starved)));
    for (state, why) in [
        (State::Starved, Unknown::Starved),
        (State::Failed(5), Unknown::Failed(5)),
        (State::Malformed, Unknown::Malformed),
        (State::Elsewhere, Unknown::Elsewhere),
    ] {
        let after = Reading { state, enabled_ns: 0, running_ns: 0, ..reading(100, 100) };
        let delta = judged(reading(0, 0), after);
        assert_eq!(cycles(&delta), (None, Quality::Unknown(why)));
        assert_eq!(delta.of(Kind::Switches).known(), Some(100), "getrusage was read all the same");
    }
}

#[test]
fn what_runs_and_stands_still_does_not_count() {
    let mut after = reading(100, 100);
    after.values[Kind::Cycles.index()] = 0;
    after.values[Kind::CacheMisses.index()] = 0;
    let delta = judged(reading(0, 0), after);
    assert_eq!(cycles(&delta), (None, Quality::Unknown(Unknown::Standing)));
    assert_eq!(delta.of(Kind::CacheMisses).known(), Some(0), "a thread may miss nothing");
    let user = support(Scope::User);
    let mut short = reading(50, 50);
    short.values[Kind::Cycles.index()] = 0;
    let delta = between(&user, &RULES, &reading(0, 0), &short);
    assert_eq!(delta.of(Kind::Cycles).known(), Some(0), "it may be in one system call");
    let delta = between(&user, &RULES, &reading(0, 0), &after);
    assert_eq!(delta.of(Kind::Cycles).quality, Quality::Unknown(Unknown::Standing));
}

fn suspected(before: Reading, after: Reading) -> Suspect {
    let delta = judged(before, after);
    for kind in Kind::ALL {
        assert_eq!(delta.of(kind).known(), None, "no number of a suspect window");
    }
    assert_eq!((delta.enabled_ns, delta.running_ns), (0, 0));
    delta.suspect.expect("it is suspect")
}

#[test]
fn what_falls_wraps_or_cannot_be_is_suspect_and_never_a_huge_number() {
    let mut wrapped = reading(100, 100);
    wrapped.values[Kind::Cycles.index()] = u64::MAX - 5;
    assert_eq!(suspected(wrapped, reading(200, 200)), Suspect::Fell(Kind::Cycles));
    assert_eq!(suspected(reading(0, 0), wrapped), Suspect::TooMany(Kind::Cycles));
    let mut clock = reading(100, 100);
    clock.values[Kind::TaskClock.index()] = 102_000_000;
    assert_eq!(suspected(reading(0, 0), clock), Suspect::TooMany(Kind::TaskClock));
    let mut fell = reading(200, 200);
    fell.values[Kind::Switches.index()] = 99;
    assert_eq!(suspected(reading(100, 100), fell), Suspect::Fell(Kind::Switches));
}

#[test]
fn times_that_do_not_fit_are_suspect() {
    assert_eq!(suspected(reading(100, 100), reading(100, 100)), Suspect::Time);
    assert_eq!(suspected(reading(100, 100), reading(50, 50)), Suspect::Time);
    let step = Reading { at_ns: reading(10, 0).at_ns, ..reading(100, 100) };
    assert_eq!(suspected(reading(0, 0), step), Suspect::GroupTime, "the clock lost 90 ms");
    let fell = Reading { enabled_ns: 0, ..reading(100, 100) };
    assert_eq!(suspected(reading(0, 0), fell), Suspect::GroupTime);
    let more = Reading { running_ns: 200_000_000, ..reading(100, 100) };
    assert_eq!(suspected(reading(0, 0), more), Suspect::GroupTime);
}

#[test]
fn a_thread_that_left_its_core_is_suspect() {
    let at_home = Rules { cpu: Some(1), ..RULES };
    let moved = Reading { cpu: 0, ..reading(100, 100) };
    let of = |rules, after| between(&support(Scope::All), &rules, &reading(0, 0), &after).suspect;
    assert_eq!(of(at_home, moved), Some(Suspect::Moved));
    assert_eq!(of(at_home, reading(100, 100)), None);
    assert_eq!(of(RULES, moved), None, "a thread that is not pinned may move");
}

#[test]
fn a_fake_backend_gives_what_was_written() {
    let mut fake = Scripted::new(support(Scope::All), vec![reading(0, 0), reading(100, 100)]);
    let (mut a, mut b) = (Reading::default(), Reading::default());
    fake.read(1_000, &mut a);
    fake.read(100_001_000, &mut b);
    let delta = between(fake.support(), &RULES, &a, &b);
    assert_eq!(cycles(&delta), (Some(100_000_000), Quality::Exact));
    fake.read(200_001_000, &mut a);
    assert_eq!(between(fake.support(), &RULES, &b, &a).of(Kind::Switches).known(), Some(0));
}

#[test]
fn huge_counts_scale_without_overflow() {
    assert_eq!(scale(u64::MAX, 2, 1), u64::MAX);
    assert_eq!(scale(u64::MAX / 2, 4, 4), u64::MAX / 2);
    assert_eq!(scale(7, 4, 0), 28);
}
