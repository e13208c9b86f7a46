//! Groups in a unified hierarchy: controllers are handed down, a subject is inside, and all is as before.

use std::fs;
use std::path::Path;

use tailbeam_harness::chaos::host::{
    Capability, Cgroups, Controller, Counter, Cut, HogClass, Host, Injector, Journal, Step, Subject,
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
    in_a_container(judge);
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

/// What a container sees as the root: a group that may hold processes, and then hands no controller down.
fn in_a_container(judge: &mut Judge) {
    let root = Path::new(ROOT).join("box");
    let write = |file: &str, value: &str| fs::write(Path::new(ROOT).join(file), value);
    fs::create_dir(&root).expect("root may make it");
    for name in ["+cpu", "+io", "+memory", "+pids"] {
        write("cgroup.subtree_control", name).expect("the root may hand it down");
    }
    write("box/cgroup.procs", "1").expect("process 1 may move");
    let refused = write("box/cgroup.subtree_control", "+memory").map_err(|error| error.kind());
    judge.that(
        "a container that holds processes hands nothing down",
        refused.is_err(),
        &format!("{refused:?}"),
    );
    let mut host = Host::find(launcher(), Path::new("/tmp")).expect("/proc is mounted");
    host.cgroups = Cgroups::find(&root, "0::/\n");
    host.name = format!("{}-box", host.name);
    let able = Injector::MemoryLimit { bytes: 1 << 30 }.probe(&host);
    let said = matches!(&able, Capability::Impossible { cause, .. } if cause.contains("holds processes itself"));
    judge.that("and the product says so", said, &format!("{able:?}"));
    let groups = host.groups("");
    let mut journal =
        Journal::create("/tmp/box.journal".as_ref(), &host.name).expect("there is none");
    let made = journal.perform_all(&groups.steps()).map(|_| ());
    let run = subject(&["idle"]).inside(&groups);
    let started = Subject::start(&mut journal, &run, |_| ()).map(|subject| subject.process().pid);
    let inside = started.is_ok_and(|pid| within(20_000, || groups.members() == [pid]));
    judge.that(
        "but a subject has its group, which can be frozen",
        made.is_ok() && inside && Injector::Freeze.probe(&host) == Capability::Available,
        &format!("{made:?}"),
    );
    let undone = journal.undo_since(0);
    judge.that(
        "which is undone",
        undone.clean() && groups.dirs().iter().all(|dir| !dir.exists()),
        &format!("{} steps", undone.steps.len()),
    );
    write("cgroup.procs", "1").expect("process 1 may move back");
    let emptied = Cgroups::find(&root, "0::/\n").groups(&host.name);
    let made = journal.perform_all(&emptied.steps()).map(|_| ());
    let limit =
        emptied.place(Controller::Memory).is_ok_and(|(dir, _)| dir.join("memory.max").exists());
    judge.that(
        "one that holds none is as good as a root",
        made.is_ok() && limit,
        &format!("{made:?}"),
    );
    judge.that(
        "and undone as one",
        journal.undo_since(0).clean() && text(root.join("cgroup.subtree_control")).is_empty(),
        "clean",
    );
    fs::remove_dir(&root).expect("nothing is in it");
    write("cgroup.subtree_control", "-cpu -io -memory -pids").expect("the root may take it back");
}
