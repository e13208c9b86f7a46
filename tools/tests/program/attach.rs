//! Processes that run already, and what cannot be recorded.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, known, named, sampled, samples, text};

/// A program that is killed when the test ends.
struct Running(Child);

impl Running {
    fn start(bench: &Bench, words: &[&str]) -> Self {
        Self(Command::new(&bench.burn).args(words).stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_is_recorded_for_a_time_and_runs_on() {
    let Some(bench) = Bench::new() else { return };
    let mut running = Running::start(&bench, &["idle", "60000"]);
    let pid = running.pid();
    let output = bench
        .tailbeam(&["record", "--pid", &pid, "--duration", "1s", "--hz", "499"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(running.0.try_wait().unwrap().is_none(), "it runs on");
    let report = bench.report("@last");
    assert_eq!((&report["attached"], &report["reason"]), (&true.into(), &"duration".into()));
    let (idle, burn) = (named(&report, "idle"), named(&report, "burn"));
    assert_eq!((idle.len(), burn.len()), (1, 1));
    // What the threads did before us is not in the counts.
    let elapsed = report["elapsed_ns"].as_u64().unwrap();
    assert!(known(burn[0], "cpu_ns").unwrap() <= elapsed + elapsed / 10);
    assert_eq!(known(idle[0], "cpu_ns"), Some(0));
    if sampled(&report) {
        assert!(samples(&report, "three") > samples(&report, "one"), "{}", report["functions"]);
    }
}

#[test]
fn a_process_that_ends_ends_the_recording_and_signals_seal_it() {
    let Some(bench) = Bench::new() else { return };
    let running = Running::start(&bench, &["burn", "300"]);
    let output = bench.tailbeam(&["record", "--pid", &running.pid()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(bench.report("@last")["reason"], "program ended");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let running = Running::start(&bench, &["burn", "60000"]);
        let mut command = bench.tailbeam(&["record", "--pid", &running.pid()]);
        let before = bench.run();
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        bench.until_it_records(&mut child, &before);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert_eq!(bench.report("@last")["reason"], "interrupted");
    }
}

#[test]
fn what_cannot_be_recorded_is_one_error_with_its_cause_and_remedy() {
    let Some(bench) = Bench::new() else { return };
    let ended = {
        let mut running = Running::start(&bench, &["burn", "1"]);
        running.0.wait().unwrap();
        running.pid()
    };
    // A zombie: ended, and nobody waited for it.
    let zombie = Running::start(&bench, &["burn", "1"]);
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", zombie.pid())).unwrap();
    while !state().contains(") Z ") {
        std::thread::yield_now();
    }
    let zombie = zombie.pid();
    let mut cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["--pid", &ended], 1, "there is no process"),
        (vec!["--pid", &zombie], 1, "has ended"),
        (vec!["--pid", "0"], 2, "--pid"),
        (vec!["--pid", &ended, "--", "true"], 2, "cannot be used with"),
        (vec!["--duration", "0s", "--", "true"], 2, "10ms or more"),
        (vec!["--hz", "0", "--", "true"], 2, "--hz"),
        (vec!["--", "/no/such/program"], 1, "No such file"),
        (vec!["--", "no-such-program-at-all"], 1, "not in PATH"),
        (vec!["--", "/etc/passwd"], 1, "not executable"),
        (vec![], 2, "required"),
    ];
    let kernel = std::fs::read_to_string("/proc/2/stat").unwrap_or_default();
    if kernel.contains("(kthreadd)") {
        cases.push((vec!["--pid", "2"], 1, "thread of the kernel"));
    }
    for (args, code, cause) in cases {
        let output = bench.tailbeam(&["record"]).args(&args).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?} {said}");
        assert!(said.contains(cause), "{args:?} {said}");
        assert!(code == 2 || said.matches("remedy:").count() == 1, "{args:?} {said}");
        assert!(output.stdout.is_empty());
    }
    assert!(!bench.store().exists(), "nothing was begun");
}
