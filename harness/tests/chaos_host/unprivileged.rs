//! A user other than root: what needs root says so, the rest works.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tailbeam_harness::chaos::host::{
    Capability, Cut, Guard, HogClass, Host, Injector, Journal, On, Subject, tool,
};

use crate::support::{child, host, launcher, within};

/// Every fault, and whether it can be injected without root.
fn faults(host: &Host) -> Vec<(Injector, bool)> {
    let (disk, pair) = (host.disk("", 32 << 20), host.veth_pair());
    let cut = Injector::NetPartition { pair: pair.clone(), cut: Cut::Down };
    let hog = |class| Injector::CpuHog { core: 0, class, life_ms: 1 };
    vec![
        (Injector::Stop, true),
        (Injector::Kill, true),
        (Injector::FdLimit { max: 9 }, true),
        (Injector::Nice { nice: 9 }, true),
        (hog(HogClass::Fair), true),
        (Injector::Nice { nice: -9 }, false),
        (hog(HogClass::Fifo), false),
        (Injector::CpuQuota { millicores: 1 }, false),
        (Injector::Freeze, false),
        (Injector::MemoryLimit { bytes: 1 << 30 }, false),
        (Injector::Ballast { bytes: 1, life_ms: 1 }, false),
        (Injector::PidsLimit { max: 9 }, false),
        (Injector::DiskThrottle { dir: host.dir.clone(), bytes_per_s: 1 }, false),
        (Injector::LoopDisk { disk: disk.clone() }, false),
        (Injector::FillDisk { disk: disk.clone() }, false),
        (Injector::PowerCut { disk }, false),
        (Injector::NetPair { pair }, false),
        (cut, false),
        (Injector::TimeNamespace { offset_s: 9 }, true),
    ]
}

#[test]
#[ignore = "a process of another test"]
fn nobody_child() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), "nobody");
    for (fault, can) in faults(&host) {
        match fault.probe(&host) {
            Capability::Available => assert!(can, "{fault:?}"),
            Capability::Impossible { cause, remedy } => {
                assert!(!can && !cause.is_empty() && !remedy.is_empty(), "{fault:?}: {cause}");
            }
            Capability::Replaced { by, why, .. } => panic!("{fault:?}: {by} {why}"),
        }
    }
    let hold = Injector::ThreadHold { tid: 1 }.probe(&host);
    assert!(matches!(&hold, Capability::Replaced { with, .. } if **with == Injector::Stop));
    let path = dir.path().join("journal");
    let mut journal = Journal::create(&path, &host.name).unwrap();
    let launcher = launcher("children::guard_child");
    let args: Vec<String> = launcher.args.into_iter().chain([path.display().to_string()]).collect();
    let guard = Guard::start(&launcher.program, &args, &path).unwrap();
    for refused in ["no real-time priority", "it may be killed for memory"] {
        assert!(guard.limits().contains(refused), "{}", guard.limits());
    }
    let groups = host.groups("");
    let mut run = child(&["spin"]);
    run.offset_s = Some(1_000);
    let subject = Subject::start(&mut journal, &run, |_| ()).unwrap();
    let on = On { host: &host, groups: &groups, process: Some(subject.process()), helper: None };
    for fault in [Injector::Stop, Injector::FdLimit { max: 64 }] {
        let before = fault.proof(&on).unwrap();
        let applied = journal.perform_all(&fault.steps(&on).unwrap()).unwrap();
        assert!(within(5_000, || fault.bitten(&before, &fault.proof(&on).unwrap())), "{fault:?}");
        let undone = journal.undo_since(applied.mark);
        assert!(undone.clean(), "{undone}");
        assert_eq!(fault.proof(&on).unwrap().value, before.value);
    }
    let ahead = Injector::TimeNamespace { offset_s: 1_000 };
    assert!(within(5_000, || ahead.proof(&on).unwrap().value == 1_000));
    // Without groups it is the guard's record and the mark by which it is found.
    assert!(guard.finish().unwrap());
    assert!(subject.process().ends_within(0).unwrap());
    println!("nobody did it");
}

#[test]
fn without_root_the_rest_works_and_what_needs_root_says_so() {
    if !rustix::process::geteuid().is_root() || tool::find("setpriv").is_none() {
        eprintln!("SKIPPED nobody: not root, or no setpriv");
        return;
    }
    // Where this binary lies nobody may look.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("chaos_host");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(&program).args(["--ignored", "--exact", "--nocapture"]);
    let out = command.arg("unprivileged::nobody_child").current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("nobody did it"), "{said} {}", String::from_utf8_lossy(&out.stderr));
}
