//! Each fault of a group: it bites by the kernel's own counter, holds the subject, and is taken back.

use std::fs;
use std::path::Path;

use tailbeam_harness::chaos::host::{Counter, Injector, undo};
use tailbeam_probes::clock::monotonic_ns;
use tailbeam_qemu::Judge;

use crate::bench::Bench;
use crate::places::{DISK, handed_down, pause_ms, text, within};

pub(crate) fn all(judge: &mut Judge) {
    quota(judge);
    freeze(judge);
    memory(judge);
    tasks(judge);
    throttle(judge);
    killed_whole(judge);
    groups_of_its_own(judge);
}

fn counted(bench: &Bench, counter: Counter) -> u64 {
    bench.groups.counter(counter).expect("the group is there")
}

/// CPU time that the group uses in half a second or so, us; and the share of a core that this is, percent, of the time
/// that it was: the guest itself may wait for a CPU.
fn used(bench: &Bench) -> (u64, u64) {
    let (from_ns, before) = (monotonic_ns(), counted(bench, Counter::CpuUs));
    pause_ms(500);
    let used_us = counted(bench, Counter::CpuUs) - before;
    (used_us, used_us * 100_000 / (monotonic_ns() - from_ns).max(1))
}

fn quota(judge: &mut Judge) {
    let mut bench = Bench::new("quota");
    let subject = bench.subject(&["spin"]);
    within(20_000, || counted(&bench, Counter::CpuUs) > 300_000);
    let free = counted(&bench, Counter::ThrottledPeriods);
    judge.that("without a quota no period is throttled", free == 0, &free.to_string());
    let fault = Injector::CpuQuota { millicores: 200 };
    let since = bench.inject(judge, &fault, Some(subject.process()));
    judge.that(
        "its knob reads so",
        bench.reads("cpu.max") == "20000 100000",
        &bench.reads("cpu.max"),
    );
    let (_, percent) = used(&bench);
    judge.that(
        "a fifth of a core is all it gets",
        percent > 4 && percent < 40,
        &format!("{percent} % of a core"),
    );
    let stood = counted(&bench, Counter::ThrottledUs);
    judge.that("and the kernel says how long it stood", stood > 0, &format!("{stood} us"));
    bench.undo(judge, "the quota", since, &["max 100000"]);
    let before = counted(&bench, Counter::ThrottledPeriods);
    let (_, percent) = used(&bench);
    let after = counted(&bench, Counter::ThrottledPeriods);
    let free = after == before && percent > 50;
    judge.that(
        "then it runs as before",
        free,
        &format!("{percent} % of a core, {before} -> {after} periods"),
    );
    bench.end(judge, "quota");
}

fn freeze(judge: &mut Judge) {
    let mut bench = Bench::new("freeze");
    let mut subject = bench.subject(&["spin"]);
    let process = Some(subject.process());
    within(20_000, || counted(&bench, Counter::CpuUs) > 100_000);
    let since = bench.inject(judge, &Injector::Freeze, process);
    let (us, _) = used(&bench);
    judge.that("what is frozen uses no CPU time", us == 0, &format!("{us} us in 500 ms"));
    bench.undo(judge, "the freeze", since, &["0"]);
    let (_, percent) = used(&bench);
    judge.that("thawed it runs", percent > 20, &format!("{percent} % of a core"));
    bench.inject(judge, &Injector::Freeze, process);
    let end = subject.kill();
    judge.that("what is frozen in version 2 can be killed", end.is_ok(), &format!("{end:?}"));
    bench.end(judge, "freeze");
    // Frozen while it is undone by somebody who knows the journal alone.
    let mut bench = Bench::new("frozen");
    let subject = bench.subject(&["spin"]);
    bench.inject(judge, &Injector::Freeze, Some(subject.process()));
    let undone = undo(bench.journal.path());
    let clean = undone.as_ref().is_ok_and(|undone| undone.clean());
    let gone = !subject.process().is_alive() && bench.groups.dirs().iter().all(|dir| !dir.exists());
    judge.that("a frozen group is undone from its journal", clean && gone, &format!("{undone:?}"));
    judge.that("and nothing is handed down", handed_down().is_empty(), &handed_down());
    bench.end(judge, "frozen");
}

fn memory(judge: &mut Judge) {
    let mut bench = Bench::new("memory");
    let subject = bench.subject(&["cache", DISK]);
    let process = Some(subject.process());
    within(30_000, || counted(&bench, Counter::MemoryBytes) > 32 << 20);
    let fault = Injector::MemoryLimit { bytes: 20 << 20 };
    let since = bench.inject(judge, &fault, process);
    let bytes = counted(&bench, Counter::MemoryBytes);
    judge.that("no more is charged than the limit", bytes <= 20 << 20, &format!("{bytes} bytes"));
    let alive = subject.process().is_alive() && counted(&bench, Counter::OomKills) == 0;
    judge.that(
        "cache is taken back, nobody is killed",
        alive,
        &bench.reads("memory.events").replace('\n', ", "),
    );
    let ballast = Injector::Ballast { bytes: 4 << 20, life_ms: 60_000 };
    let inner = bench.inject(judge, &ballast, process);
    bench.undo(judge, "the ballast", inner, &[]);
    let heavy = Injector::Ballast { bytes: 64 << 20, life_ms: 60_000 };
    let steps = heavy.steps(&bench.on(process)).expect("its controller is there");
    let applied = bench.journal.perform_all(&steps).expect("it can be started");
    let ended = applied.started[0].ends_within(30_000).is_ok_and(|ended| ended);
    let kills = counted(&bench, Counter::OomKills);
    judge.that(
        "what grows beyond the limit is killed",
        ended && kills > 0,
        &format!("{kills} kills"),
    );
    bench.undo(judge, "the limit", since, &["max", "max"]);
    drop(subject);
    bench.journal.undo_since(0);
    fs::remove_file(Path::new(DISK).join("cached")).expect("the subject made it");
    bench.end(judge, "memory");
}

fn tasks(judge: &mut Judge) {
    let mut bench = Bench::new("tasks");
    let subject = bench.subject(&["threads"]);
    let since = bench.inject(judge, &Injector::PidsLimit { max: 1 }, Some(subject.process()));
    bench.undo(judge, "the limit of tasks", since, &["max"]);
    bench.end(judge, "tasks");
}

/// By what its disk moves; the clean twin is the same load without a limit.
fn throttle(judge: &mut Judge) {
    let mut bench = Bench::new("throttle");
    let fault = Injector::DiskThrottle { dir: DISK.into(), bytes_per_s: 1 << 20 };
    let subject = bench.subject(&["write", DISK]);
    let process = Some(subject.process());
    within(30_000, || counted(&bench, Counter::IoBytes) > 4 << 20);
    let read = |bench: &Bench| fault.proof(&bench.on(process)).expect("its counter is there");
    let before = read(&bench);
    pause_ms(1_000);
    let free = read(&bench);
    let moved = format!("{} -> {} bytes in 1 s", before.value, free.value);
    judge.that("without a limit the disk moves more", !fault.bitten(&before, &free), &moved);
    let steps = fault.steps(&bench.on(process)).expect("its controller is there");
    let before = read(&bench);
    let applied = bench.journal.perform_all(&steps).expect("io.max takes it");
    pause_ms(3_000);
    let after = read(&bench);
    let moved = format!("{} -> {} bytes in 3 s", before.value, after.value);
    judge.that(&format!("{fault:?} bites"), fault.bitten(&before, &after), &moved);
    bench.undo(judge, "the throttle", applied.mark, &[""]);
    let before = read(&bench);
    let again = within(20_000, || read(&bench).value > before.value + (4 << 20));
    let faster = !fault.bitten(&before, &read(&bench));
    judge.that(
        "then it moves as before",
        again && faster,
        &format!("{} -> {}", before.value, read(&bench).value),
    );
    drop(subject);
    bench.journal.undo_since(0);
    fs::remove_file(Path::new(DISK).join("written")).expect("the subject made it");
    bench.end(judge, "throttle");
}

/// Processes that start others without end, held by a limit of tasks alone.
fn killed_whole(judge: &mut Judge) {
    let mut bench = Bench::new("forks");
    let subject = bench.subject(&["forks"]);
    bench.inject(judge, &Injector::PidsLimit { max: 12 }, Some(subject.process()));
    let many = bench.groups.members().len();
    let heard = Signals::listen();
    let undone = undo(bench.journal.path());
    let clean = undone.as_ref().is_ok_and(|undone| undone.clean());
    let left = bench.groups.members();
    let whole = heard.to_one_task();
    judge.that(
        "processes that fork without end are killed whole",
        clean && many > 1 && left.is_empty(),
        &format!("{many}, then {left:?}"),
    );
    if !clean {
        println!("       {undone:?}");
    }
    // What is sent to processes by number is sent to all their threads together.
    let seen = format!("{whole} of {many} by the group's own kill");
    judge.that("and by the kernel, not one by one", whole >= many, &seen);
    bench.end(judge, "forks");
}

/// The kernel's own record of each signal that is sent.
struct Signals;

impl Signals {
    const EVENT: &str = "/sys/kernel/tracing/events/signal/signal_generate/enable";
    const TRACE: &str = "/sys/kernel/tracing/trace";

    fn listen() -> Self {
        fs::write(Self::TRACE, "")
            .and_then(|()| fs::write(Self::EVENT, "1"))
            .expect("it has this event");
        Self
    }

    /// How many SIGKILLs were for one task: `cgroup.kill` sends such (kernel/cgroup/cgroup.c, `__cgroup_kill`).
    fn to_one_task(self) -> usize {
        fs::write(Self::EVENT, "0").expect("it was 1");
        let trace = text(Self::TRACE);
        trace.lines().filter(|line| line.contains(" sig=9 ") && line.contains(" grp=0 ")).count()
    }
}

/// A subject that made a group below its own, with a process that nothing else tells of.
fn groups_of_its_own(judge: &mut Judge) {
    let mut bench = Bench::new("nested");
    bench.subject(&["nests"]);
    let below = bench.groups.dirs()[0].join("below");
    let inside = || !text(below.join("cgroup.procs")).is_empty();
    let there = within(20_000, || below.exists() && inside());
    let pid = text(below.join("cgroup.procs"));
    bench.inject(judge, &Injector::Freeze, None);
    let undone = undo(bench.journal.path());
    let clean = undone.as_ref().is_ok_and(|undone| undone.clean());
    // Who has ended and is not waited for has no words; who was waited for has no file.
    let ended = fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |words| words.is_empty());
    let gone = !below.exists() && ended;
    judge.that(
        "a subject's own groups go with it",
        there && clean && gone,
        &format!("process {pid} in {}", below.display()),
    );
    if !clean {
        println!("       {undone:?}");
    }
    bench.end(judge, "nested");
}
