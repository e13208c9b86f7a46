//! Groups in a unified hierarchy: controllers are handed down, a subject is inside, and all is as before.

use std::fs;

use tailbeam_harness::chaos::host::{
    Capability, Controller, Counter, Cut, HogClass, Host, Injector, Step,
};
use tailbeam_qemu::Judge;

use crate::bench::Bench;
use crate::places::{DISK, ROOT, handed_down, launcher, subject, text, within};

pub(crate) fn all(judge: &mut Judge) {
    unified(judge);
    able(judge);
    made_and_removed(judge);
    of_somebody_else(judge);
    inside(judge);
}

/// What this guest is: without this the rest would say nothing of version 2.
fn unified(judge: &mut Judge) {
    let mounts = text("/proc/mounts");
    let kinds: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let only = kinds.contains(&"cgroup2") && !kinds.contains(&"cgroup");
    let has = text(format!("{ROOT}/cgroup.controllers"));
    let all = ["cpu", "io", "memory", "pids"].map(|name| has.split(' ').any(|word| word == name));
    judge.that("one unified hierarchy has all controllers", only && all == [true; 4], &has);
    judge.that("its root hands none down yet", handed_down().is_empty(), &handed_down());
}

/// What the product says that it can do here; what it cannot is said, with the reason.
fn able(judge: &mut Judge) {
    let host = Host::find(launcher(), "/tmp".as_ref()).expect("/proc is mounted");
    let hog = |class| Injector::CpuHog { core: 0, class, life_ms: 1 };
    let pair = host.veth_pair();
    let needed = [
        Injector::CpuQuota { millicores: 1 },
        Injector::Freeze,
        Injector::MemoryLimit { bytes: 1 << 30 },
        Injector::Ballast { bytes: 1, life_ms: 1 },
        Injector::PidsLimit { max: 9 },
        Injector::DiskThrottle { dir: DISK.into(), bytes_per_s: 1 },
        Injector::Stop,
        Injector::Kill,
        hog(HogClass::Fair),
    ];
    for fault in needed {
        let found = fault.probe(&host);
        let claim = format!("{fault:?} can be injected here");
        judge.that(&claim, found == Capability::Available, &format!("{found:?}"));
    }
    let hold = Injector::ThreadHold { tid: 1 }.probe(&host);
    let replaced = matches!(&hold, Capability::Replaced { with, .. } if **with == Injector::Stop);
    judge.that("a single thread cannot be held, and that is said", replaced, &format!("{hold:?}"));
    let rest = [
        hog(HogClass::Fifo),
        Injector::LoopDisk { disk: host.disk("", 32 << 20) },
        Injector::NetPartition { pair, cut: Cut::Down },
        Injector::TimeNamespace { offset_s: 9 },
    ];
    for fault in rest {
        if let Capability::Impossible { cause, .. } = fault.probe(&host) {
            println!("absent {fault:?}: {}", cause.lines().next().unwrap_or_default());
        }
    }
}

fn made_and_removed(judge: &mut Judge) {
    let bench = Bench::new("made");
    let places = Controller::ALL.map(|controller| {
        bench.groups.place(controller).map(|(dir, version)| (dir.to_owned(), version))
    });
    let one = bench.groups.dirs();
    let two = places.iter().all(|place| *place == Ok((one[0].clone(), 2)));
    judge.that(
        "all controllers are in one group of version 2",
        two && one.len() == 1,
        &format!("{one:?}"),
    );
    let down = handed_down();
    let as_asked = down == "cpu io memory pids";
    judge.that("the root hands down what faults use", as_asked, &down);
    let wanted = ["cpu.max", "memory.max", "memory.swap.max", "pids.max", "io.max", "cgroup.kill"];
    let missing: Vec<&str> =
        wanted.into_iter().filter(|file| !one[0].join(file).exists()).collect();
    judge.that("so the group has their knobs", missing.is_empty(), &format!("missing {missing:?}"));
    let counters = Counter::ALL.map(|counter| bench.groups.counter(counter));
    let zeros = counters.iter().all(|counter| *counter == Ok(0));
    judge.that("and each counter reads 0, as nothing is inside", zeros, &format!("{counters:?}"));
    bench.end(judge, "groups");
    let down = handed_down();
    judge.that("the root hands down nothing again", down.is_empty(), &down);
}

/// A controller that was handed down before is somebody else's.
fn of_somebody_else(judge: &mut Judge) {
    let file = format!("{ROOT}/cgroup.subtree_control");
    fs::write(&file, "+pids").expect("root may hand it down");
    let bench = Bench::new("other");
    let asked =
        |step: &Step| matches!(step, Step::HandDown { controller, .. } if controller == "pids");
    let steps = bench.groups.steps();
    judge.that(
        "what is handed down is not asked for",
        !steps.iter().any(asked),
        &format!("{} steps", steps.len()),
    );
    bench.end(judge, "groups below a controller of others");
    judge.that("theirs is handed down still", handed_down() == "pids", &handed_down());
    fs::write(&file, "-pids").expect("root may take it back");
}

fn inside(judge: &mut Judge) {
    let mut bench = Bench::new("inside");
    let file = "/tmp/inside/group";
    let inner = bench.subject(&["where", file]);
    within(20_000, || fs::exists(file).is_ok_and(|there| there));
    let wanted = format!("0::/{}", bench.host.name);
    let said = text(file);
    judge.that("a subject finds itself in its group before anything else", said == wanted, &said);
    let members = bench.groups.members();
    judge.that("and is alone there", members == [inner.process().pid], &format!("{members:?}"));
    let mut run = subject(&["idle"]);
    run.groups = vec![bench.host.dir.join("none")];
    let mut outside = bench.start(&run);
    let end = outside.ends_within(20_000).ok().flatten().and_then(|end| end.code());
    judge.that(
        "one that cannot enter its group does not start",
        end == Some(125),
        &format!("{end:?}"),
    );
    bench.end(judge, "a subject");
}
