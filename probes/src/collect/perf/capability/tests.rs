//! The matrix of latency.md E4, row by row, from what would be found there.

use super::super::quality::Rules;
use super::super::{KINDS, Source, State, between};
use super::*;

fn load(support: &Support, count: u64, running_ns: u64) -> Delta {
    let reading = |at_ns: u64, enabled_ns: u64, running_ns: u64, values: [u64; KINDS]| Reading {
        at_ns,
        cpu: 0,
        state: State::Counted,
        enabled_ns,
        running_ns,
        values,
    };
    let mut values = [0; KINDS];
    for kind in Kind::HARDWARE {
        values[kind.index()] = count;
    }
    values[Kind::TaskClock.index()] = 20_000_000;
    let rules = Rules { rotation_ns: 4_000_000, cpu: None };
    let before = reading(1, 0, 0, [0; KINDS]);
    between(support, &rules, &before, &reading(20_000_001, 20_000_000, running_ns, values))
}

fn group(errno: Option<i32>, scope: Scope) -> Support {
    Support::new(|kind| match (kind, errno) {
        (Kind::PageFaults | Kind::MajorFaults | Kind::Switches | Kind::Preemptions, _) => {
            Ok(Source { name: "getrusage", scope: Scope::All, grouped: false })
        }
        (Kind::TaskClock, _) | (_, None) => Ok(Source { name: "perf", scope, grouped: true }),
        (_, Some(errno)) => Err(explain(errno, Some(2))),
    })
}

fn found(support: Support, delta: Delta) -> Found {
    let why = || explain(libc::EACCES, Some(2));
    Found {
        paranoid: Some(2),
        counter: Ok(Counter::Processor),
        thread: Ok((support, delta)),
        cpu: Err(why()),
        switches: Ok(()),
        schedstat: Ok(()),
        cpu_times: Ok(()),
        sampling_user: Ok(()),
        sampling_kernel: Err(why()),
    }
}

fn ran(errno: Option<i32>, scope: Scope, count: u64, running_ns: u64) -> Capabilities {
    let support = group(errno, scope);
    let delta = load(&support, count, running_ns);
    judge(found(support, delta))
}

fn missing<'a>(row: &'a Row, name: &str) -> &'a Unavailable {
    &row.missing.iter().find(|(missing, _)| missing == name).expect("it is missing").1
}

#[test]
fn root_on_bare_metal_has_all() {
    let support = group(None, Scope::All);
    let delta = load(&support, LOAD, 20_000_000);
    let all = Found {
        cpu: Ok(group(None, Scope::All)),
        sampling_kernel: Ok(()),
        ..found(support, delta)
    };
    let able = judge(all);
    assert_eq!(able.environment, Environment::Full);
    assert!(able.rows.iter().all(|row| row.missing.is_empty()), "{able:?}");
    assert_eq!(able.row(Area::Sampling).works, "cpu-clock, user space and kernel");
}

#[test]
fn a_user_at_paranoid_two_has_user_space_and_no_kernel_cycles() {
    let able = ran(None, Scope::User, LOAD, 20_000_000);
    assert_eq!(able.environment, Environment::UserOnly);
    let row = able.row(Area::Counters);
    assert!(row.works.contains("cycles (user)"), "{}", row.works);
    assert!(missing(row, "kernel cycles").cause.contains("EACCES: perf_event_paranoid is 2"));
    assert!(missing(able.row(Area::Cpus), "cpus").cause.contains("EACCES"));
    assert_eq!(able.row(Area::Sampling).works, "cpu-clock, user space only");
    assert!(able.row(Area::OffCpu).works.contains("preempted or blocked"));
}

#[test]
fn a_guest_without_pmu_says_enoent_and_counts_the_rest() {
    let able = ran(Some(libc::ENOENT), Scope::All, 0, 20_000_000);
    assert_eq!(able.environment, Environment::NoPmu);
    let row = able.row(Area::Counters);
    assert!(missing(row, "cycles").cause.starts_with("ENOENT: no PMU"));
    assert!(row.works.starts_with("task-clock, page-faults"), "{}", row.works);
    let unknown =
        "; cycles, instructions, cache-misses, branch-misses, cpu-migrations unknown: ENOENT";
    assert!(row.to_string().contains(unknown), "{row}");
}

#[test]
fn a_virtual_pmu_that_does_not_count_the_known_load_is_none() {
    let able = ran(None, Scope::All, 0, 20_000_000);
    assert_eq!(able.environment, Environment::NoPmu);
    assert!(missing(able.row(Area::Counters), "cycles").cause.contains("Standing"));
    let able = ran(None, Scope::All, LOAD - 1, 20_000_000);
    let cause = &missing(able.row(Area::Counters), "instructions").cause;
    assert!(cause.contains("counts 3999999 of 4000000"), "{cause}");
    let able = ran(None, Scope::All, LOAD, 0);
    assert!(missing(able.row(Area::Counters), "cycles").cause.contains("never got its counters"));
}

#[test]
fn where_perf_is_refused_the_rest_remains() {
    let support = group(None, Scope::All);
    let delta = load(&support, LOAD, 20_000_000);
    let why = || explain(libc::EPERM, Some(2));
    let able = judge(Found {
        thread: Err(why()),
        counter: Err(why()),
        cpu: Err(why()),
        switches: Err(why()),
        sampling_user: Err(why()),
        sampling_kernel: Err(why()),
        ..found(support, delta)
    });
    assert_eq!(able.environment, Environment::Refused);
    let row = able.row(Area::Counters);
    assert!(
        row.works.contains("context switches") && missing(row, "cycles").cause.contains("seccomp")
    );
    assert_eq!(
        able.row(Area::OffCpu).works,
        "schedstat only: totals of waiting, no single interval"
    );
    assert_eq!(able.row(Area::Sampling).works, "nothing");
}
