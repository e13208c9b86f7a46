#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stdout, reason = "what this host refuses, and how near it came, is said")]
//! The real kernel's sources of one thread agree as the checks demand, undisturbed and beside a hog.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tailbeam_probes::analyse::latency::conservation;
use tailbeam_probes::analyse::latency::conserve::{Check, Given, Outcome, What};
use tailbeam_probes::clock::{monotonic_ns, thread_cpu_ns};
use tailbeam_probes::collect::perf::{
    CounterBackend as _, Kind, Reading, SwitchRing, ThreadGroup, ThreadOptions, between, rules,
};
use tailbeam_probes::collect::schedstat::{Schedstat, Schedule};
use tailbeam_probes::record::latency::{CoreTick, Count, CounterRecord, LatencyWindow};

const TICKS: u64 = 12;
const TICK_NS: u64 = 50_000_000;

struct Sources {
    ring: SwitchRing,
    group: ThreadGroup,
    schedstat: Schedstat,
}

impl Sources {
    /// A word on why not: qemu-user and containers refuse.
    fn open() -> Option<Self> {
        let ring = SwitchRing::open(1 << 16).map_err(|why| println!("SKIPPED: {why}")).ok()?;
        let group = ThreadGroup::open(ThreadOptions::default());
        let group = group.map_err(|why| println!("SKIPPED: {why}")).ok()?;
        Some(Self { ring, group, schedstat: Schedstat::own().ok()? })
    }
}

fn burn(cpu_ns: u64) {
    let until = thread_cpu_ns() + cpu_ns;
    while thread_cpu_ns() < until {
        std::hint::spin_loop();
    }
}

fn park(ns: i64) {
    let wait = rustix::thread::Timespec { tv_sec: 0, tv_nsec: ns };
    // A signal may end it early; that is parked, too.
    let _ = rustix::thread::nanosleep(&wait);
}

/// What was read at the begin of a tick.
struct Begin {
    at_ns: u64,
    reading: Reading,
    schedule: Schedule,
}

fn begin(sources: &mut Sources) -> Begin {
    let mut reading = Reading::default();
    let at_ns = monotonic_ns();
    sources.ring.drain(u64::MAX, |_| {});
    sources.group.read(at_ns, &mut reading);
    Begin { at_ns, reading, schedule: sources.schedstat.read().unwrap() }
}

/// Turns of `turn_ns` and parks of `park_ns`.
fn tick(sources: &mut Sources, before: &mut Begin, (turn_ns, park_ns): (u64, i64)) -> CoreTick {
    let mut tick = CoreTick { from_ns: before.at_ns, ..CoreTick::default() };
    while monotonic_ns() < before.at_ns + TICK_NS {
        let from = monotonic_ns();
        burn(turn_ns);
        let turned = monotonic_ns();
        if park_ns > 0 {
            park(park_ns);
        }
        tick.turns_ns += turned - from;
        tick.turns += 1;
        tick.parked_ns += monotonic_ns() - turned;
    }
    let (mut preempted, mut blocked) = (0, 0);
    let drained = sources.ring.drain(u64::MAX, |off| {
        let sum = if off.preempted { &mut preempted } else { &mut blocked };
        *sum += off.to_ns - off.from_ns;
    });
    let mut after = Begin { at_ns: monotonic_ns(), ..begin_of(before) };
    sources.group.read(after.at_ns, &mut after.reading);
    after.schedule = sources.schedstat.read().unwrap();
    let delta = between(sources.group.support(), &rules(None), &before.reading, &after.reading);
    let since = after.schedule.since(&before.schedule).unwrap();
    let count = Count::Exact(delta.of(Kind::TaskClock).certain().unwrap());
    tick.counters = vec![CounterRecord { name: Kind::TaskClock.name().to_owned(), count }];
    (tick.preempted_ns, tick.blocked_ns) = (Some(preempted), Some(blocked));
    (tick.run_ns, tick.wait_ns) = (Some(since.run_ns), Some(since.wait_ns));
    (tick.to_ns, tick.lost) = (after.at_ns, drained.lost);
    *before = after;
    tick
}

fn begin_of(before: &Begin) -> Begin {
    Begin { at_ns: before.at_ns, reading: Reading::default(), schedule: before.schedule }
}

fn window(sources: &mut Sources, work: (u64, i64)) -> LatencyWindow {
    let mut before = begin(sources);
    let from_ns = before.at_ns;
    let ticks = (0..TICKS).map(|_| tick(sources, &mut before, work)).collect();
    LatencyWindow { from_ns, to_ns: before.at_ns, ticks, ..LatencyWindow::default() }
}

/// The checks of the core; the figures of those about its CPU are said.
fn cores(window: &LatencyWindow) -> Vec<Check> {
    let windows = std::slice::from_ref(window);
    let found = conservation(&Given { windows, counted: None, clock_ns: 100 });
    let wanted = |check: &Check| {
        matches!(
            check.what,
            What::Parts { .. }
                | What::Ticks { .. }
                | What::OnOff { .. }
                | What::Blocked { .. }
                | What::RunTime { .. }
                | What::Waiting { .. }
        )
    };
    let checks: Vec<Check> = found.checks.into_iter().filter(wanted).collect();
    for check in &checks {
        println!("{:?}: {:?} {:?}", check.what, check.outcome, check.figures);
    }
    assert_eq!(checks.len(), 6);
    checks
}

#[test]
fn a_threads_sources_agree_alone_and_beside_a_hog() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set((0..1_024).find(|cpu| allowed.is_set(*cpu)).unwrap());
    rustix::thread::sched_setaffinity(None, &one).unwrap();
    let Some(mut sources) = Sources::open() else { return };
    let stop = AtomicBool::new(false);
    let alone = window(&mut sources, (400_000, 700_000));
    let beside = thread::scope(|scope| {
        // A new thread has its parent's mask.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let window = window(&mut sources, (5_000_000, 0));
        stop.store(true, Ordering::Relaxed);
        window
    });
    for window in [&alone, &beside] {
        let checks = cores(window);
        let wrong: Vec<_> = checks.iter().filter(|c| c.outcome != Outcome::Pass).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
    let preempted = |window: &LatencyWindow| -> u64 {
        window.ticks.iter().filter_map(|tick| tick.preempted_ns).sum()
    };
    assert!(preempted(&beside) > 20_000_000, "two share a core: {}", preempted(&beside));
    // The same windows without what the ring said.
    for mut window in [alone, beside] {
        for tick in &mut window.ticks {
            (tick.preempted_ns, tick.blocked_ns) = (Some(0), Some(0));
        }
        let failed = cores(&window).into_iter().filter(|c| matches!(c.outcome, Outcome::Fail(_)));
        assert!(failed.map(|check| check.what).any(|what| matches!(what, What::OnOff { .. })));
    }
}
