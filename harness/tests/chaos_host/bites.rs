//! Each fault on a subject of its own: bite, revert, residue.

use std::path::Path;

use tailbeam_harness::chaos::host::{
    Capability, Cgroups, Counter, Cut, End, HogClass, Injector, Journal, Outcome, Process, Step,
    Undone,
};

use crate::support::{Bench, child, pause_ms, within};

fn reads(undone: &Undone) -> Vec<&str> {
    let text = |outcome: &'_ Outcome| matches!(outcome, Outcome::Reverted { reads: Some(_) });
    let steps = undone.steps.iter().filter(|step| text(&step.outcome));
    steps
        .map(|step| match &step.outcome {
            Outcome::Reverted { reads: Some(text) } => text.as_str(),
            _ => unreachable!("filtered above"),
        })
        .collect()
}

#[test]
fn a_quota_throttles_and_is_taken_back() {
    let Some(mut bench) = Bench::new("quota") else { return };
    let fault = Injector::CpuQuota { millicores: 200 };
    if bench.can(&fault) {
        let subject = bench.subject(&["spin"]);
        let undone = bench.bites(&fault, Some(subject.process()), |bench| {
            let counter = |counter| bench.groups.counter(counter).unwrap();
            let before = (counter(Counter::CpuUs), counter(Counter::ThrottledUs));
            pause_ms(500);
            let cpu_us = counter(Counter::CpuUs) - before.0;
            // Two threads that spin would use up to 1 s in that time; the quota is 100 ms.
            assert!(cpu_us > 0 && cpu_us < 300_000, "{cpu_us}");
            assert!(counter(Counter::ThrottledUs) > before.1);
        });
        // In version 1 and 2.
        assert!(matches!(reads(&undone)[..], ["-1"] | ["max 100000"]), "{undone}");
        let counter = |counter| bench.groups.counter(counter).unwrap();
        let before = (counter(Counter::ThrottledPeriods), counter(Counter::CpuUs));
        // Nothing to wait for: it is to be shown that nothing comes.
        pause_ms(300);
        assert_eq!(counter(Counter::ThrottledPeriods), before.0);
        assert!(counter(Counter::CpuUs) > before.1, "it runs again");
    }
    bench.end();
}

#[test]
fn a_hog_takes_the_core_in_either_class_and_ends_by_itself_too() {
    let Some(mut bench) = Bench::new("hog") else { return };
    for class in [HogClass::Fair, HogClass::Fifo] {
        let fault = Injector::CpuHog { core: 0, class, life_ms: 3_000 };
        if bench.can(&fault) {
            bench.bites(&fault, None, |_| ());
        }
    }
    // One that nobody ends.
    let fault = Injector::CpuHog { core: 0, class: HogClass::Fair, life_ms: 100 };
    let steps = fault.steps(&bench.on(None)).unwrap();
    let applied = bench.journal.perform_all(&steps).unwrap();
    assert!(applied.started[0].ends_within(10_000).unwrap());
    bench.end();
}

fn thread_cpu_ticks(process: Process, tid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", process.pid)).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Threads of the subject that compute, once there are two.
fn busy_threads(process: Process) -> Vec<u32> {
    let mut busy = Vec::new();
    let two = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid)).unwrap();
        let tids = tasks.map(|task| task.unwrap().file_name().to_string_lossy().parse().unwrap());
        // More than the harness of tests spends in its own thread, on a slow machine too.
        busy = tids.filter(|tid| thread_cpu_ticks(process, *tid) > 30).collect();
        busy.len() == 2
    };
    assert!(within(10_000, two));
    busy
}

#[test]
fn one_thread_is_held_while_the_other_runs() {
    let Some(mut bench) = Bench::new("hold") else { return };
    let subject = bench.subject(&["spin"]);
    let process = subject.process();
    let threads = busy_threads(process);
    let fault = Injector::ThreadHold { tid: threads[0] };
    if bench.can(&fault) {
        bench.bites(&fault, Some(process), |_| {
            let before: Vec<u64> =
                threads.iter().map(|tid| thread_cpu_ticks(process, *tid)).collect();
            assert!(within(10_000, || thread_cpu_ticks(process, threads[1]) > before[1] + 10));
            assert_eq!(thread_cpu_ticks(process, threads[0]), before[0]);
        });
        let before = thread_cpu_ticks(process, threads[0]);
        assert!(within(10_000, || thread_cpu_ticks(process, threads[0]) > before), "it runs again");
    }
    bench.end();
}

#[test]
fn a_subject_is_frozen_stopped_made_nicer_and_killed() {
    let Some(mut bench) = Bench::new("freeze") else { return };
    let mut subject = bench.subject(&["spin"]);
    let process = subject.process();
    busy_threads(process);
    // The last of its threads may stop a tick after the first.
    let still = |_: &Bench| {
        let stands = || {
            let before = process.cpu_ms();
            pause_ms(100);
            process.cpu_ms() == before
        };
        assert!(within(5_000, stands));
    };
    for fault in [Injector::Freeze, Injector::Stop] {
        if bench.can(&fault) {
            bench.bites(&fault, Some(process), still);
            let before = process.cpu_ms().unwrap();
            assert!(within(10_000, || process.cpu_ms().unwrap() > before), "it runs again");
        }
    }
    let own = rustix::process::getpriority_process(None).unwrap();
    let nicer = Injector::Nice { nice: if own < 10 { own + 2 } else { own - 2 } };
    let undone = bench.bites(&nicer, Some(process), |_| ());
    assert_eq!(reads(&undone), [own.to_string()]);
    let undone = bench.bites(&Injector::Kill, Some(process), |_| ());
    assert_eq!(undone.steps[0].outcome, Outcome::Final);
    subject.kill().unwrap();
    bench.end();
}

#[test]
fn memory_is_limited_and_what_grows_beyond_it_is_killed() {
    let Some(mut bench) = Bench::new("memory") else { return };
    let fault = Injector::MemoryLimit { bytes: 48 << 20 };
    if bench.can(&fault) {
        let dir = bench.host.dir.display().to_string();
        let subject = bench.subject(&["cache", &dir]);
        let process = subject.process();
        let ballast = |bytes| Injector::Ballast { bytes, life_ms: 20_000 };
        let undone = bench.bites(&fault, Some(process), |bench| {
            assert_eq!(bench.groups.counter(Counter::OomKills), Ok(0), "cache is taken back");
        });
        assert!(!reads(&undone).is_empty(), "{undone}");
        assert!(process.is_alive());
        bench.bites(&ballast(16 << 20), Some(process), |_| ());
        let on = bench.on(Some(process));
        let steps = [fault.steps(&on), ballast(200 << 20).steps(&on)].map(Result::unwrap).concat();
        let applied = bench.journal.perform_all(&steps).unwrap();
        assert!(applied.started[0].ends_within(20_000).unwrap());
        assert!(bench.groups.counter(Counter::OomKills).unwrap() > 0);
        assert!(bench.journal.undo_since(applied.mark).clean());
        drop(subject);
        bench.journal.undo_since(0);
        std::fs::remove_file(bench.host.dir.join("cached")).unwrap();
    }
    bench.end();
}

#[test]
fn a_disk_is_throttled_to_its_limit_and_not_before() {
    let Some(mut bench) = Bench::new("throttle") else { return };
    let dir = bench.host.dir.clone();
    let fault = Injector::DiskThrottle { dir: dir.clone(), bytes_per_s: 1 << 20 };
    if bench.can(&fault) {
        let subject = bench.subject(&["write", &dir.display().to_string()]);
        let process = Some(subject.process());
        let rounds = || std::fs::metadata(dir.join("written")).map_or(0, |data| data.len());
        // The load itself: 4 MiB, synced, again and again.
        assert!(within(20_000, || rounds() == 4 << 20));
        let before = fault.proof(&bench.on(process)).unwrap();
        let applied = bench.journal.perform_all(&fault.steps(&bench.on(process)).unwrap()).unwrap();
        pause_ms(3_000);
        let after = fault.proof(&bench.on(process)).unwrap();
        assert!(fault.bitten(&before, &after), "{before:?} {after:?}");
        eprintln!("DiskThrottle: {} -> {} in 3 s", before.value, after.value);
        let undone = bench.journal.undo_since(applied.mark);
        assert!(undone.clean() && reads(&undone).iter().all(|text| text.is_empty()), "{undone}");
        // The clean twin: the same load without the limit is no bite of it.
        let before = fault.proof(&bench.on(process)).unwrap();
        let mut free = before.clone();
        let more = || {
            free = fault.proof(&bench.on(process)).unwrap();
            free.value > before.value + (16 << 20)
        };
        assert!(within(20_000, more), "{before:?}");
        assert!(!fault.bitten(&before, &free), "{before:?} {free:?}");
        bench.journal.undo_since(0);
        std::fs::remove_file(dir.join("written")).unwrap();
    }
    bench.end();
}

#[test]
fn a_file_system_without_a_disk_cannot_be_throttled() {
    let Some(bench) = Bench::new("tmpfs") else { return };
    let fault = Injector::DiskThrottle { dir: "/dev/shm".into(), bytes_per_s: 1 };
    let found = fault.probe(&bench.host);
    assert!(matches!(&found, Capability::Impossible { cause, .. } if cause.contains("no disk")));
    bench.end();
}

#[test]
fn a_disk_of_our_own_is_filled_and_loses_its_power() {
    let Some(mut bench) = Bench::new("disk") else { return };
    let disk = bench.host.disk("", 32 << 20);
    let made = Injector::LoopDisk { disk: disk.clone() };
    if bench.can(&made) {
        bench.bites(&made, None, |bench| {
            // Not ours to fill: another folder with the same image.
            let wrong = Step::Fill { image: disk.image.clone(), dir: bench.host.dir.clone() };
            let path = bench.journal.path().with_extension("wrong");
            Journal::create(&path, "wrong").unwrap().perform(&wrong).unwrap_err();
        });
        let steps = made.steps(&bench.on(None)).unwrap();
        bench.journal.perform_all(&steps).unwrap();
        bench.bites(&Injector::FillDisk { disk: disk.clone() }, None, |_| ());
        let synced = disk.dir.join("synced");
        let lost = disk.dir.join("lost");
        std::fs::write(&synced, "kept").unwrap();
        std::fs::File::open(&synced).unwrap().sync_all().unwrap();
        std::fs::File::open(&disk.dir).unwrap().sync_all().unwrap();
        std::fs::write(&lost, "gone").unwrap();
        bench.bites(&Injector::PowerCut { disk: disk.clone() }, None, |_| ());
        assert_eq!(std::fs::read_to_string(&synced).unwrap(), "kept");
        // The name may have reached the journal by itself; what was not synced is not in it.
        assert!(!std::fs::read_to_string(&lost).is_ok_and(|text| text == "gone"));
        let again = Injector::PowerCut { disk }.proof(&bench.on(None)).unwrap();
        assert_eq!(again.value, 0, "it is written to again");
    }
    bench.end();
}

#[test]
fn a_link_is_cut_both_ways_one_way_and_in_part() {
    let Some(mut bench) = Bench::new("net") else { return };
    let pair = bench.host.veth_pair();
    let made = Injector::NetPair { pair: pair.clone() };
    if bench.can(&made) {
        bench.journal.perform_all(&made.steps(&bench.on(None)).unwrap()).unwrap();
        let mut run = child(&["send", "198.18.0.2:9"]).inside(&bench.groups);
        run.namespace = Some(pair.namespaces[0].clone());
        let subject = bench.start(&run);
        for cut in [Cut::Down, Cut::Into(End::Second), Cut::Loss(End::Second, 33)] {
            let fault = Injector::NetPartition { pair: pair.clone(), cut };
            if bench.can(&fault) {
                bench.bites(&fault, Some(subject.process()), |_| ());
            }
        }
    }
    bench.end();
}

#[test]
fn a_monotonic_clock_is_ahead_for_the_subject_alone() {
    let Some(mut bench) = Bench::new("clock") else { return };
    let fault = Injector::TimeNamespace { offset_s: 1_000 };
    if bench.can(&fault) {
        let said = bench.host.dir.join("clock");
        let before = fault.proof(&bench.on(None)).unwrap();
        let mut run = child(&["clock", &said.display().to_string()]).inside(&bench.groups);
        run.offset_s = Some(1_000);
        let subject = bench.start(&run);
        let text = || std::fs::read_to_string(&said).unwrap_or_default();
        assert!(within(10_000, || text().parse::<u64>().is_ok()));
        let theirs: u64 = text().parse().unwrap();
        let ours = tailbeam_probes::clock::monotonic_ns();
        assert!(theirs > ours + 900_000_000_000, "{theirs} {ours}");
        let after = fault.proof(&bench.on(Some(subject.process()))).unwrap();
        assert!(fault.bitten(&before, &after), "{before:?} {after:?}");
        std::fs::remove_file(&said).unwrap();
    }
    bench.end();
}

#[test]
fn open_files_and_threads_are_limited() {
    let Some(mut bench) = Bench::new("limits") else { return };
    let files = bench.subject(&["files"]);
    let fault = Injector::FdLimit { max: 64 };
    let old = fault.proof(&bench.on(Some(files.process()))).unwrap().value;
    bench.bites(&fault, Some(files.process()), |_| {
        let dir = format!("/proc/{}/fd", files.process().pid);
        // Beyond the limit only what this process inherited: it had hundreds open and closes them.
        let beyond = || {
            let fds = std::fs::read_dir(Path::new(&dir)).unwrap();
            let number = |fd: std::io::Result<std::fs::DirEntry>| fd.unwrap().file_name();
            let numbers = fds.map(number).map(|fd| fd.to_string_lossy().parse::<u32>().unwrap());
            numbers.filter(|fd| *fd >= 64).count()
        };
        assert!(within(10_000, || beyond() < 8), "{}", beyond());
        assert!((0..100).all(|_| beyond() < 8));
    });
    assert_eq!(fault.proof(&bench.on(Some(files.process()))).unwrap().value, old);
    let threads = bench.subject(&["threads"]);
    let fault = Injector::PidsLimit { max: 1 };
    if bench.can(&fault) {
        let undone = bench.bites(&fault, Some(threads.process()), |_| ());
        assert_eq!(reads(&undone), ["max"]);
    }
    bench.end();
}

#[test]
fn a_subject_is_in_its_groups_before_its_first_instruction() {
    let Some(mut bench) = Bench::new("inside") else { return };
    let subject = bench.subject(&["idle"]);
    assert!(within(10_000, || bench.groups.members() == [subject.process().pid]));
    // A group that it cannot enter: it does not become the program outside of it.
    let mut run = child(&["idle"]);
    run.groups = vec![bench.host.dir.join("none")];
    let mut outside = bench.start(&run);
    assert_eq!(outside.ends_within(10_000).unwrap().and_then(|end| end.code()), Some(125));
    bench.end();
}

/// The unified hierarchy of a hybrid host has no controllers, but its own freezer and its own kill.
#[test]
fn a_group_of_version_two_freezes_and_is_killed_whole() {
    let Some(mut bench) = Bench::new("v2") else { return };
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let root = root.into_iter().find(|root| root.join("cgroup.controllers").exists());
    let Some(root) = root else {
        eprintln!("SKIPPED v2: no unified hierarchy is mounted");
        return bench.end();
    };
    bench.journal.undo_since(0);
    bench.host.cgroups = Cgroups::find(root, "0::/\n");
    bench.groups = bench.host.groups("-v2");
    bench.journal.perform_all(&bench.groups.steps()).unwrap();
    let subject = bench.subject(&["spin"]);
    let undone = bench.bites(&Injector::Freeze, Some(subject.process()), |_| ());
    assert_eq!(reads(&undone), ["0"]);
    let hold = Injector::ThreadHold { tid: 1 }.probe(&bench.host);
    assert!(matches!(&hold, Capability::Replaced { with, .. } if **with == Injector::Stop));
    // Frozen while it is undone.
    bench.journal.perform_all(&Injector::Freeze.steps(&bench.on(None)).unwrap()).unwrap();
    bench.end();
}

/// A subject may make groups below its own, and put processes there of which nothing else tells.
#[test]
fn groups_that_a_subject_made_below_its_own_go_with_it() {
    let Some(bench) = Bench::new("nested") else { return };
    let run = child(&["idle"]);
    let mut inner = std::process::Command::new(&run.program);
    let mut inner = inner.args(&run.args).stdout(std::process::Stdio::null()).spawn().unwrap();
    for dir in bench.groups.dirs() {
        let below = dir.join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("cgroup.procs"), inner.id().to_string()).unwrap();
        for (file, held) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
            if below.join(file).exists() {
                std::fs::write(below.join(file), held).unwrap();
            }
        }
    }
    let undone = tailbeam_harness::chaos::host::undo(bench.journal.path()).unwrap();
    assert!(undone.clean(), "{undone}");
    assert!(bench.groups.dirs().is_empty() || !inner.wait().unwrap().success());
    bench.end();
}
