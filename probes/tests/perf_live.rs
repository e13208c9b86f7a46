#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stdout, reason = "what this host refuses is said")]
//! The real kernel: switches told apart, faults and times that agree with other counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use tailbeam_probes::analyse::join::{OffShare, Span, join};
use tailbeam_probes::clock::{monotonic_ns, thread_cpu_ns};
use tailbeam_probes::collect::perf::{
    CounterBackend, CpuGroup, CpuOptions, Kind, OffCpu, Quality, Reading, State, SwitchRing,
    ThreadGroup, ThreadOptions, Unknown, between, open_thread, rules,
};
use tailbeam_probes::collect::schedstat::Schedstat;

const ALL: u64 = u64::MAX;

fn pin_to_first_allowed() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..1_024).find(|cpu| allowed.is_set(*cpu)).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpu);
    rustix::thread::sched_setaffinity(None, &one).unwrap();
}

fn burn(cpu_ns: u64) {
    let until = thread_cpu_ns() + cpu_ns;
    while thread_cpu_ns() < until {
        std::hint::spin_loop();
    }
}

/// A ring, or a word on why not: qemu-user and containers refuse.
fn ring() -> Option<SwitchRing> {
    SwitchRing::open(1 << 16).map_err(|why| println!("SKIPPED: {why}")).ok()
}

fn delta(
    backend: &mut dyn CounterBackend,
    work: impl FnOnce(),
) -> tailbeam_probes::collect::perf::Delta {
    let (mut before, mut after) = (Reading::default(), Reading::default());
    backend.read(monotonic_ns(), &mut before);
    work();
    backend.read(monotonic_ns(), &mut after);
    between(backend.support(), &rules(None), &before, &after)
}

#[test]
fn a_thread_that_waits_is_blocked_and_getrusage_counts_the_same() {
    let Some(mut ring) = ring() else { return };
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        while asked.recv().is_ok() {
            burn(200_000);
            answer.send(()).unwrap();
        }
    });
    let (mut backend, _) = open_thread(ThreadOptions::default());
    ring.drain(ALL, |_| {});
    let mut polls = Vec::new();
    let delta = delta(backend.as_mut(), || {
        for _ in 0..100 {
            let from_ns = monotonic_ns();
            ask.send(()).unwrap();
            answered.recv().unwrap();
            polls.push(Span { from_ns, to_ns: monotonic_ns() });
        }
    });
    let mut intervals: Vec<OffCpu> = Vec::new();
    let drained = ring.drain(ALL, |interval| intervals.push(interval));
    drop(ask);
    other.join().unwrap();
    assert_eq!((drained.lost, drained.unpaired, drained.broken, drained.more), (0, 0, 0, false));
    assert_eq!(drained.intervals, intervals.len() as u64);
    let blocked = intervals.iter().filter(|interval| !interval.preempted).count() as u64;
    let voluntary =
        delta.of(Kind::Switches).known().unwrap() - delta.of(Kind::Preemptions).known().unwrap();
    // Between the two readings and the two drains a switch more may happen.
    assert!(blocked.abs_diff(voluntary) <= 2, "{blocked} {voluntary}");
    assert!(blocked >= 50, "most of a hundred rounds of 200 us wait: {blocked}");
    let mut shares = vec![OffShare::default(); polls.len()];
    let joined = join(&polls, &intervals, &mut shares);
    assert_eq!(joined.disordered, 0);
    let inside: u64 = shares.iter().map(|share| share.blocked_ns).sum();
    let all: u64 = intervals.iter().map(|interval| interval.to_ns - interval.from_ns).sum();
    let outside =
        joined.outside.total_ns() + shares.iter().map(|share| share.preempted_ns).sum::<u64>();
    assert_eq!(inside + outside, all, "every ns is somewhere");
    let waited: u64 = polls.iter().map(|poll| poll.to_ns - poll.from_ns).sum();
    assert!(inside <= waited && inside > waited / 2, "{inside} of {waited} ns");
}

#[test]
fn a_thread_whose_core_is_taken_is_preempted() {
    let Some(mut ring) = ring() else { return };
    pin_to_first_allowed();
    let stop = AtomicBool::new(false);
    let schedstat = Schedstat::own().unwrap();
    thread::scope(|scope| {
        // A new thread has its parent's mask.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop()
            }
        });
        let before = schedstat.read().unwrap();
        ring.drain(ALL, |_| {});
        let from_ns = monotonic_ns();
        burn(60_000_000);
        let wall_ns = monotonic_ns() - from_ns;
        let (mut preempted_ns, mut preempted, mut blocked_ns) = (0, 0, 0);
        let drained = ring.drain(ALL, |interval| {
            let ns = interval.to_ns - interval.from_ns;
            if interval.preempted {
                preempted += 1;
                preempted_ns += ns;
            } else {
                blocked_ns += ns;
            }
        });
        stop.store(true, Ordering::Relaxed);
        let waited = schedstat.read().unwrap().since(&before).unwrap().wait_ns;
        assert_eq!((drained.lost, drained.unpaired), (0, 0));
        assert!(preempted >= 2, "two threads share a core for 60 ms of CPU time: {preempted}");
        assert!(preempted_ns > blocked_ns && preempted_ns < wall_ns, "{preempted_ns} {blocked_ns}");
        // Two sources of the kernel, of the same waits.
        assert!(
            waited.abs_diff(preempted_ns) <= preempted_ns / 10 + 1_000_000,
            "{waited} {preempted_ns}"
        );
    });
}

#[test]
fn a_ring_that_is_too_small_says_what_it_lost() {
    let opened = SwitchRing::open(1);
    let Ok(mut ring) = opened else { return println!("SKIPPED: {}", opened.unwrap_err()) };
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        while asked.recv().is_ok() {
            burn(20_000);
            answer.send(()).unwrap();
        }
    });
    let (mut backend, _) = open_thread(ThreadOptions::default());
    let rounds = |count: usize| {
        for _ in 0..count {
            ask.send(()).unwrap();
            answered.recv().unwrap();
        }
    };
    // A page holds 128 records; a switch is two.
    let delta = delta(backend.as_mut(), || rounds(400));
    let full = ring.drain(ALL, |_| {});
    assert!(full.records <= 128, "{full:?}");
    // LOST is written with the first record that finds room again.
    rounds(20);
    let after = ring.drain(ALL, |_| {});
    let switches = delta.of(Kind::Switches).known().unwrap();
    let seen = full.records + after.lost;
    assert!(switches > 128 && after.lost > 0, "{switches} {after:?}");
    assert!(seen.abs_diff(2 * switches) <= 90, "{switches} switches, {full:?} {after:?}");
    drop(ask);
    other.join().unwrap();
}

#[test]
fn a_drain_stops_where_it_is_told_and_goes_on() {
    let Some(mut ring) = ring() else { return };
    for _ in 0..20 {
        rustix::thread::sched_yield();
        thread::spawn(|| {}).join().unwrap();
    }
    let first = ring.drain(1, |_| {});
    assert_eq!((first.records, first.more), (1, true));
    let rest = ring.drain(ALL, |_| {});
    assert!(rest.records > 0 && !rest.more && rest.unpaired == 0, "{rest:?}");
}

#[test]
fn counts_agree_with_the_clocks_and_faults_are_all_there() {
    let (mut backend, _) = open_thread(ThreadOptions::default());
    let pages = 2_000;
    let mut cpu_ns = 0;
    let delta = delta(backend.as_mut(), || {
        let before = thread_cpu_ns();
        burn(20_000_000);
        let mut memory = memmap2::MmapMut::map_anon(pages * 4_096).unwrap();
        for page in 0..pages {
            memory[page * 4_096] = 1;
        }
        cpu_ns = thread_cpu_ns() - before;
    });
    assert_eq!(delta.suspect, None);
    let clock = delta.of(Kind::TaskClock);
    assert!(clock.known().unwrap() >= cpu_ns, "{clock:?} {cpu_ns}");
    assert!(clock.known().unwrap() <= delta.elapsed_ns + 1_000_000);
    assert_eq!(clock.quality, Quality::Exact, "no other group here");
    let faults = delta.of(Kind::PageFaults).known().unwrap();
    // Where huge pages back the mapping it is one fault in 512.
    assert!(faults >= pages as u64 / 512, "{faults}");
    for (kind, why) in backend.support().missing() {
        assert_eq!(delta.of(kind).quality, Quality::Unknown(Unknown::NoSource), "{kind:?}");
        assert!(!why.cause.is_empty() && !why.remedy.is_empty());
    }
}

#[test]
fn a_group_of_another_cpu_is_not_read() {
    pin_to_first_allowed();
    let here = u32::try_from(rustix::thread::sched_getcpu()).unwrap();
    let mut reading = Reading::default();
    match CpuGroup::open(here, CpuOptions::default()) {
        Err(why) => return println!("SKIPPED: {why}"),
        Ok(mut group) => group.read(monotonic_ns(), &mut reading),
    }
    assert_eq!((reading.state, reading.cpu), (State::Counted, here));
    if let Ok(mut group) = CpuGroup::open(here + 1, CpuOptions::default()) {
        group.read(monotonic_ns(), &mut reading);
        assert_eq!(reading.state, State::Elsewhere);
    }
    let why = CpuGroup::open(4_000, CpuOptions::default()).unwrap_err();
    assert!(why.cause.contains("CPU 4000"), "{why}");
}

/// Members of a CPU's group were opened and stood at 0, exact, while the leader counted.
#[test]
fn a_cpus_group_counts_what_happens_there() {
    pin_to_first_allowed();
    let cpu = u32::try_from(rustix::thread::sched_getcpu()).unwrap();
    let mut group = match CpuGroup::open(cpu, CpuOptions::default()) {
        Err(why) => return println!("SKIPPED: {why}"),
        Ok(group) => group,
    };
    let (mut before, mut after) = (Reading::default(), Reading::default());
    group.read(monotonic_ns(), &mut before);
    let pages = std::hint::black_box(vec![1u8; 16 << 20]);
    for _ in 0..20 {
        // A thread of this CPU that comes and goes: switches, whoever else runs.
        thread::spawn(|| {}).join().unwrap();
    }
    drop(pages);
    group.read_from_afar(monotonic_ns(), &mut after);
    let delta = between(group.support(), &rules(Some(cpu)), &before, &after);
    let of = |kind: Kind| delta.of(kind).known().unwrap();
    assert!(of(Kind::PageFaults) >= 1_000, "{delta:?}");
    assert!(of(Kind::Switches) >= 10, "{delta:?}");
}

#[test]
fn without_the_kernels_work_no_count_is_an_eternal_zero() {
    let Ok(group) = ThreadGroup::open(ThreadOptions { user_only: true }) else { return };
    let why = group.support().of(Kind::Migrations).unwrap_err();
    assert!(why.cause.contains("reads 0 for ever"), "{why}");
    assert_eq!(group.support().of(Kind::Switches).unwrap().name, "getrusage");
}
