//! Programs that are started under record.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, known, named, sampled, samples, text};

#[test]
fn two_functions_that_share_the_time_three_to_one_are_seen_so() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.record(&["--hz", "997"], &["burn", "1500"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = bench.report("@last");
    if !sampled(&report) {
        return;
    }
    let (three, one) = (samples(&report, "three"), samples(&report, "one"));
    assert!(three + one > 700, "1500 ms at 997 Hz: {three} {one}");
    // Binomial: 0.75 of 1,495 samples within 5 standard deviations of 0.0112.
    let share = three as f64 / (three + one) as f64;
    assert!((0.69..0.81).contains(&share), "{share}");
    // A leaf without a frame hides its caller, but not those above.
    assert!(samples(&report, "main") * 100 >= (three + one) * 97, "chains reach main");
    // Two sources of the same time: samples, and the scheduler's count.
    let burn = named(&report, "burn");
    let cpu = known(burn[0], "cpu_ns").unwrap() as f64;
    let sampled = burn[0]["samples"].as_u64().unwrap() as f64 * 1e9 / 997.0;
    assert!((0.9..1.1).contains(&(sampled / cpu)), "{sampled} {cpu}");
    assert_eq!(report["lost_records"], 0);
}

#[test]
fn a_thread_that_sleeps_has_no_cpu_time_and_no_samples() {
    let Some(bench) = Bench::new() else { return };
    bench.record(&[], &["idle", "400"]);
    let report = bench.report("@last");
    let (idle, burn) = (named(&report, "idle"), named(&report, "burn"));
    assert_eq!((idle.len(), burn.len()), (1, 1), "{}", report["threads"]);
    let cpu = known(idle[0], "cpu_ns").unwrap();
    assert!(cpu < known(burn[0], "cpu_ns").unwrap() / 20, "{cpu}");
    assert_eq!(idle[0]["samples"], 0);
    assert_eq!(
        known(burn[0], "cycles").is_none(),
        burn[0]["counts"]["cycles"]["unknown"].is_string()
    );
}

#[test]
fn threads_that_come_and_go_and_children_are_all_there() {
    let Some(bench) = Bench::new() else { return };
    bench.record(&["--interval", "50ms"], &["threads", "1000"]);
    let report = bench.report("@last");
    if !sampled(&report) {
        return;
    }
    let brief = named(&report, "brief");
    assert_eq!(brief.len(), 20, "each of them, by the kernel's records");
    assert!(brief.iter().all(|thread| thread["ended"] == true), "{brief:?}");
    // All of the time is the kernel's total, and most of it is by thread.
    let total = &report["total"];
    let total = total["user_ns"].as_u64().unwrap() + total["system_ns"].as_u64().unwrap();
    let seen: u64 =
        report["threads"].as_array().unwrap().iter().filter_map(|t| known(t, "cpu_ns")).sum();
    assert!(seen <= total + total / 20, "{seen} of {total}");
    let sampled: u64 = brief.iter().map(|thread| thread["samples"].as_u64().unwrap()).sum();
    assert!(sampled >= 50, "{sampled} of about 80");

    bench.record(&[], &["fork", "300"]);
    let report = bench.report("@last");
    let burn = named(&report, "burn");
    let processes: Vec<u64> = burn.iter().map(|t| t["process"].as_u64().unwrap()).collect();
    assert!(burn.len() == 2 && processes[0] != processes[1], "{processes:?}");
    assert!(burn[0]["samples"].as_u64().unwrap() > 10, "the child's: {burn:?}");
    assert!(samples(&report, "three") > samples(&report, "one"), "with names");
}

#[test]
fn output_and_exit_are_the_programs_own() {
    let Some(bench) = Bench::new() else { return };
    for (words, code) in [(["burn", "1", "7"], 7), (["kill", "1", "0"], 137)] {
        let output = bench.record(&["--quiet"], &words);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }
    let mut echo = bench.tailbeam(&["record", "-q", "--", "sh", "-c", "cat; echo err >&2; exit 3"]);
    let mut child =
        echo.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.stdout, output.stderr, output.status.code()),
        (b"through".to_vec(), b"err\n".to_vec(), Some(3))
    );
    // What it inherits is what it would have without us: limits, and no descriptor of ours.
    let own = bench
        .tailbeam(&[
            "record",
            "-q",
            "--",
            "sh",
            "-c",
            "ls /proc/self/fd | wc -l; ulimit -n; ulimit -Hn",
        ])
        .output()
        .unwrap();
    let bare = std::process::Command::new("sh")
        .args(["-c", "ls /proc/self/fd | wc -l; ulimit -n; ulimit -Hn"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(text(&own.stdout), text(&bare.stdout));
}

#[test]
fn a_recorder_that_is_killed_leaves_a_run_that_is_read_and_the_program_runs_on() {
    let Some(bench) = Bench::new() else { return };
    let script = "echo $$; i=0; while [ $i -lt 40 ]; do i=$((i+1)); sleep 0.1; done";
    let mut command = bench.tailbeam(&["record", "--interval", "50ms", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let program = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    // Some windows are on disk when the file has grown past its first frames.
    let log = bench.run().join("seg/0000.log");
    while fs::metadata(&log).map_or(0, |meta| meta.len()) < 4_000 {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(fs::read_to_string(format!("/proc/{}/stat", program.as_raw_nonzero())).is_ok());
    kill_process(program, Signal::KILL).unwrap();
    let report = bench.report("@last");
    assert!(report["reason"].is_null(), "cut: {report}");
    assert_eq!(named(&report, "sh").len(), 1);
    let listed = bench.tailbeam(&["runs", "list"]).output().unwrap();
    assert!(text(&listed.stdout).contains("unsealed"), "{}", text(&listed.stdout));
}

#[test]
fn the_time_of_a_recording_ends_and_the_program_goes_on() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.record(&["--duration", "100ms"], &["burn", "400", "5"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    let report = bench.report("@last");
    assert_eq!((&report["reason"], &report["end"]), (&"duration".into(), &"exit 5".into()));
    let burn = known(named(&report, "burn")[0], "cpu_ns").unwrap();
    assert!(burn < 350_000_000, "not all of it: {burn}");
}

#[test]
fn switch_records_tell_how_long_a_thread_was_blocked() {
    let Some(bench) = Bench::new() else { return };
    bench.record(&["--switches"], &["sleep", "300"]);
    let report = bench.report("@last");
    if !sampled(&report) {
        return;
    }
    let burn = named(&report, "burn");
    let blocked = &burn[0]["off_cpu"]["blocked"];
    assert!(blocked["count"].as_u64().unwrap() >= 28, "30 sleeps of 10 ms: {blocked}");
    assert!(blocked["sum_ns"].as_u64().unwrap() >= 280_000_000, "{blocked}");
    let voluntary = known(burn[0], "voluntary_switches").unwrap();
    assert!(voluntary >= blocked["count"].as_u64().unwrap(), "{voluntary} {blocked}");
}

#[test]
fn counts_without_a_profile() {
    let Some(bench) = Bench::new() else { return };
    bench.record(&["--no-profile"], &["burn", "100"]);
    let report = bench.report("@last");
    assert_eq!((&report["samples"], &report["hz"]), (&0.into(), &0.into()));
    assert!(known(named(&report, "burn")[0], "cpu_ns").unwrap() > 50_000_000);
    let export = bench.tailbeam(&["export", "@last", "--to", "folded"]).output().unwrap();
    assert_eq!(export.status.code(), Some(1));
    assert!(text(&export.stderr).contains("--no-profile"), "{}", text(&export.stderr));
}
