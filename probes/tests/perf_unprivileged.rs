#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stdout, reason = "the child's answer, and what cannot be tried here")]
//! As an unprivileged user: what is not refused works, each refusal is a stated mode, and nothing fails.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::perf::{
    Area, Kind, Reading, SwitchRing, ThreadOptions, between, capabilities, open_thread, paranoid,
    rules,
};

const NOBODY: u32 = 65_534;

/// This program again, as nobody, running `test` alone.
fn as_nobody(test: &str) -> Output {
    // A copy: the directories of a build may be closed to others.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = place.path().join("perf_unprivileged");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut child = Command::new(program);
    child.args(["--ignored", "--exact", test, "--nocapture"]).current_dir("/");
    child.uid(NOBODY).gid(NOBODY).output().unwrap()
}

/// What nobody sees; run by the test below.
#[test]
#[ignore = "a part of nobody_is_refused_in_words_and_the_rest_works"]
fn child() {
    let able = capabilities();
    println!("environment {:?}", able.environment);
    for row in &able.rows {
        println!("{}: {row}", row.area.name());
        assert!(row.missing.iter().all(|(_, why)| !why.cause.is_empty() && !why.remedy.is_empty()));
    }
    let (mut backend, _) = open_thread(ThreadOptions::default());
    let (mut before, mut after) = (Reading::default(), Reading::default());
    backend.read(monotonic_ns(), &mut before);
    for _ in 0..20 {
        std::thread::spawn(|| {}).join().unwrap();
    }
    backend.read(monotonic_ns(), &mut after);
    let delta = between(backend.support(), &rules(None), &before, &after);
    // The count that perf would give here, 0 for ever, is not the one that is used.
    let (switches, clock) = (delta.of(Kind::Switches), delta.of(Kind::TaskClock));
    println!("switches {:?} task-clock {:?}", switches.known(), clock.known());
    assert!(switches.known() > Some(0) && clock.known() > Some(0));
    assert!(able.row(Area::OffCpu).works.contains("schedstat"));
}

#[test]
fn nobody_is_refused_in_words_and_the_rest_works() {
    if !rustix::process::getuid().is_root() {
        println!("not root: the child's checks are made as this user");
        return child();
    }
    let output = as_nobody("child");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    println!("{text}");
    // What the level of this host says; .ci/qemu goes through all levels.
    let level = paranoid();
    if level == Some(2) && SwitchRing::open(4_096).is_ok() {
        assert!(
            text.contains("cpus: nothing; cpus unknown: EACCES: perf_event_paranoid is 2"),
            "{text}"
        );
        assert!(text.contains("off-cpu: own thread's switches, preempted or blocked; schedstat\n"));
        assert!(
            text.contains("sampling: cpu-clock, user space only; kernel samples unknown: EACCES")
        );
        assert!(text.contains("reads 0 for ever"), "{text}");
    }
}
