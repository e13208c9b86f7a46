//! The program as a process: signals, limits, a full disk, and every command of the README.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");

fn command(store: &Path, line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--store").arg(store).args(line.split(' ')).stdin(Stdio::null());
    command
}

fn run(store: &Path, line: &str) -> Output {
    command(store, line).output().unwrap()
}

fn start(store: &Path, line: &str) -> Child {
    command(store, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_ms(ms: u64) {
    thread::park_timeout(Duration::from_millis(ms));
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn exit_code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn data(output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    value["data"].clone()
}

fn report(store: &Path) -> Output {
    run(store, "report @last --format json")
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no figure: {value}")) / 1e9
}

/// Whether this machine's kernel gives us rings at all; an emulator's does not. The test then says that
/// it skips; where `TAILBEAM_TEST_RINGS` is set, as in `.ci/run`, a skip is a failure.
fn has_rings() -> bool {
    let store = tempfile::tempdir().unwrap();
    let output = run(store.path(), "soak --agents 2 --duration 1s --progress none");
    let missing = exit_code(&output) == 5 && text(&output.stderr).contains("no io_uring");
    if missing {
        skip("this kernel has no io_uring");
    }
    !missing
}

/// Says that a test, or a part of it, does not run here; a failure where `TAILBEAM_TEST_RINGS` is set.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn skip(why: &str) {
    let required = std::env::var_os("TAILBEAM_TEST_RINGS").is_some();
    assert!(!required, "TAILBEAM_TEST_RINGS is set and {why}");
    eprintln!("SKIPPED: {why}");
}

/// Whether a program that changes this process' view of the machine can be used here.
fn can(program: &str, args: &[&str]) -> bool {
    let tried = Command::new(program).args(args).stderr(Stdio::null()).status();
    let usable = tried.is_ok_and(|status| status.success());
    if !usable {
        skip(&format!("`{program} {}` cannot be used", args.join(" ")));
    }
    usable
}

#[test]
fn a_stopped_process_is_in_the_tail_and_makes_the_run_inconclusive() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let line = "soak --agents 2000 --duration 30s --progress none --format json";
    let child = start(store.path(), line);
    wait_ms(8_000);
    signal(&child, Signal::STOP);
    wait_ms(5_000);
    signal(&child, Signal::CONT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(&output), 4, "{}", text(&output.stderr));
    let data = data(&output);
    assert_eq!(data["verdict"], "INCONCLUSIVE");
    let stops: Vec<&str> = data["caveats"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .filter(|caveat| caveat.starts_with("process stopped"))
        .collect();
    assert!(matches!(stops[..], [stop] if stop.starts_with("process stopped 5.")), "{stops:?}");
    let system = &data["latency"][0];
    let max = seconds(&system["max_ns"]);
    assert!((4.9..7.0).contains(&max), "the stop was 5 s, the maximum {max}");
    // A sixth of the schedule fell into the stop, evenly: the 99th of 100 waited nearly all of it.
    assert!(seconds(&system["p99_ns"]) > 4.0, "{system}");
    let outcomes = &data["load"]["outcomes"];
    assert_eq!(outcomes["attempts"], outcomes["ok"], "{outcomes}");
    // The schedule went on meanwhile: the requests of the stop were sent, late.
    let (offered, planned) = (&data["load"]["offered_per_s"], &data["load"]["planned_per_s"]);
    let ratio = offered.as_f64().unwrap() / planned.as_f64().unwrap();
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
}

/// A sixth of a long run is in the tail; in a short one the hole also disturbs Little's law and fairness.
/// None of it may be called the subject's failure.
#[test]
fn a_stop_in_a_short_run_fails_nothing() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let line = "soak --agents 2000 --duration 16s --progress none --format json";
    let child = start(store.path(), line);
    wait_ms(6_000);
    signal(&child, Signal::STOP);
    wait_ms(5_000);
    signal(&child, Signal::CONT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(&output), 4, "{}{}", text(&output.stdout), text(&output.stderr));
    let data = data(&output);
    assert!(data["caveats"].to_string().contains("process stopped 5."), "{}", data["caveats"]);
    let little =
        data["gates"].as_array().unwrap().iter().find(|gate| gate["gate"] == "littles_law");
    assert!(little.unwrap()["reason"].as_str().unwrap().contains("process stopped"), "{little:?}");
}

#[test]
fn a_stop_before_the_start_measures_nothing_and_says_so() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    // The start lies 300 ms after the line that names the run.
    let mut child = start(store.path(), "soak --agents 200000 --duration 60s --format json");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().starts_with("run ") {}
    signal(&child, Signal::INT);
    thread::spawn(move || lines.for_each(drop));
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(&output), 130);
    let data = data(&output);
    assert_eq!(
        (&data["run"]["end"], &data["run"]["measured_s"]),
        (&"interrupted".into(), &0.0.into())
    );
    for figure in [
        &data["load"]["outcomes"],
        &data["load"]["offered_per_s"],
        &data["agents"]["completions"],
        &data["cores"][0]["turns_per_s"],
        &data["memory"]["cpu_share"],
        &data["latency"][0]["p50_ns"],
        &data["littles_law"],
    ] {
        assert!(figure["unknown"].is_string() && figure["remedy"].is_string(), "{figure}");
    }
    assert_eq!(data["verdict"], "INCONCLUSIVE");
}

#[test]
fn a_run_killed_before_its_first_window_has_no_figures() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let mut child = start(store.path(), "soak --agents 500 --duration 60s --progress none");
    wait_ms(4_000);
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let output = report(store.path());
    assert_eq!(exit_code(&output), 4, "{}", text(&output.stderr));
    let data = data(&output);
    assert!(data["load"]["outcomes"]["unknown"].is_string(), "{}", data["load"]);
    assert!(data["caveats"].to_string().contains("0 windows are on disk"), "{}", data["caveats"]);
    let table = text(&run(store.path(), "report @last").stdout);
    assert!(!table.contains("-0.00") && !table.contains("0.0000 %"), "{table}");
}

#[test]
fn a_killed_run_is_read_and_loses_at_most_one_window() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let mut child = start(store.path(), "soak --agents 500 --duration 60s --progress none");
    wait_ms(15_000);
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let output = report(store.path());
    assert_eq!(exit_code(&output), 4, "{}", text(&output.stderr));
    let data = data(&output);
    assert_eq!(data["run"]["end"], "unsealed");
    assert_eq!(data["run"]["windows"], 1, "15 s hold one window of 10 s");
    assert!(data["run"]["measured_s"].as_f64().unwrap() >= 9.9);
    let caveats = data["caveats"].to_string();
    assert!(caveats.contains("1 window is on disk, 10."), "{caveats}");
    assert!(caveats.contains("at most one window is missing"), "{caveats}");
    assert!(data["load"]["outcomes"]["ok"].as_u64().unwrap() > 100);
}

#[test]
fn sigint_seals_the_run() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let child =
        start(store.path(), "soak --agents 500 --duration 60s --progress none --format json");
    wait_ms(4_000);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(&output), 130);
    let data = data(&output);
    assert_eq!(data["run"]["end"], "interrupted");
    assert!(data["run"]["measured_s"].as_f64().unwrap() < 6.0);
    let outcomes = &data["load"]["outcomes"];
    assert_eq!(outcomes["attempts"], outcomes["ok"], "the drain closed every open request");
}

#[test]
fn a_second_sigint_ends_the_drain_and_counts_what_was_open() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let line = "soak --agents 10000 --duration 60s --progress none --format json --gate outcomes";
    let child = start(store.path(), line);
    wait_ms(3_000);
    signal(&child, Signal::INT);
    wait_ms(100);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(&output), 130);
    let outcomes = &data(&output)["load"]["outcomes"];
    let open = outcomes["open_at_stop"].as_u64().unwrap();
    assert!(open > 0, "no answer was due yet: {outcomes}");
    assert_eq!(outcomes["attempts"].as_u64().unwrap(), open + outcomes["ok"].as_u64().unwrap());
}

/// Lines of the README's shell blocks.
/// The README's blocks of commands.
fn readme_blocks() -> Vec<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let mut inside = false;
    let mut blocks = Vec::new();
    for line in readme.lines() {
        match (line.trim(), inside) {
            ("```sh", _) => {
                inside = true;
                blocks.push(Vec::new());
            }
            ("```", true) => inside = false,
            (command, true) if !command.is_empty() => {
                blocks.last_mut().unwrap().push(command.to_owned());
            }
            _ => {}
        }
    }
    blocks
}

/// Runs every command: those of a block in their order with a store of their own, as a reader does who begins there,
/// the blocks beside each other, but for faults: what is usual for a service is not what it has beside ten others. A comment `# exits N` names the exit code. The release build is the only part left
/// out: the program of this test build stands for it.
#[test]
fn every_command_of_the_readme_does_what_it_says() {
    if !has_rings() {
        return;
    }
    let blocks = readme_blocks();
    assert!(blocks.iter().map(Vec::len).sum::<usize>() >= 20, "{blocks:?}");
    let runs = |block: &[String], dir: &Path| {
        let store = tempfile::tempdir_in(dir).or_else(|_| tempfile::tempdir()).unwrap();
        block.iter().for_each(|line| does_what_it_says(line, store.path()));
    };
    let (alone, beside): (Vec<_>, Vec<_>) =
        blocks.iter().partition(|block| block.iter().any(|line| line.contains("-- chaos ")));
    assert!(!alone.is_empty(), "{blocks:?}");
    thread::scope(|scope| {
        for block in beside {
            scope.spawn(|| runs(block, &std::env::temp_dir()));
        }
    });
    // In memory: syncs of a disk that others write to take seconds, and what waits for them is not well.
    alone.into_iter().for_each(|block| runs(block, Path::new("/dev/shm")));
}

fn does_what_it_says(line: &str, store: &Path) {
    let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
    let expected: i32 =
        comment.trim().strip_prefix("exits ").map_or(0, |code| code.parse().unwrap());
    let Some(arguments) = command.trim().strip_prefix("cargo run --release -- ") else {
        // What is running now, and what CI runs: it cannot run itself.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let ci = fs::read_to_string(root.join(".ci/run")).unwrap();
        assert!(ci.contains(command.trim()), "nothing runs {command}");
        return;
    };
    let mut program = Command::new("sh");
    let script = format!("exec \"$PROGRAM\" {arguments}");
    program.args(["-c", &script]).env("PROGRAM", PROGRAM).env("TAILBEAM_STORE", store);
    let output = program.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(exit_code(&output), expected, "{command}\n{out}{err}");
    assert!(!out.is_empty(), "{command} printed nothing");
    // The others are not the run that the README speaks of.
    if arguments.starts_with("soak") && !arguments.contains("--agents") {
        ran_as_the_readme_says(&report(store), &out, expected);
    }
}

/// What the README says of a run of 60 s.
fn ran_as_the_readme_says(report: &Output, printed: &str, code: i32) {
    let data = data(report);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no figure: {value}"));
    let agents = &data["agents"];
    assert_eq!((&agents["live_min"], &agents["live_max"]), (&10_000.into(), &10_000.into()));
    let load = &data["load"];
    for rate in ["planned_per_s", "offered_per_s", "served_per_s"] {
        let rate = number(&load[rate]);
        assert!((2_940.0..3_120.0).contains(&rate), "{rate} is not about 3,030");
    }
    assert!((number(&data["littles_law"]["ratio"]) - 1.0).abs() < 0.05, "{}", data["littles_law"]);
    for row in &data["latency"].as_array().unwrap()[..3] {
        for figure in ["count", "p50_ns", "p99_ns", "p999_ns", "max_ns"] {
            assert!(number(&row[figure]) > 0.0, "{row}");
        }
    }
    assert!(number(&load["delivery"]) >= 0.999, "{load}");
    assert!(
        number(&agents["completions"]["max"]) > 0.0
            && number(&data["memory"]["rss_max_bytes"]) > 0.0
    );
    let needs_more = printed
        .lines()
        .any(|line| line.trim_start().starts_with("p99:") && line.contains("needs 29 min more"));
    assert_eq!(needs_more, code == 4, "{printed}");
}

/// A store of 256 KiB in a mount namespace of its own, which ends with the shell in it.
#[test]
fn a_full_store_is_refused_at_the_start_and_named_when_it_fills_up() {
    if !can("unshare", &["-m", "true"]) || !has_rings() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let within = |size: &str, commands: &str| {
        let script =
            format!("mount -t tmpfs -o size={size} tmpfs \"$PLACE\" || exit 99; {commands}");
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-c", &script]).env("PROGRAM", PROGRAM).env("PLACE", place.path());
        shell.stdin(Stdio::null()).output().unwrap()
    };
    let soak = "\"$PROGRAM\" --store \"$PLACE\" soak --agents 2000 --progress none";
    let output = within("64k", &format!("{soak} --duration 10s"));
    let err = text(&output.stderr);
    assert_eq!(exit_code(&output), 5, "{err}");
    assert!(err.contains("free space") && err.contains("remedy:"), "{err}");
    // Another program takes the space while the run goes on; the window before that stays readable.
    let commands = format!(
        "(sleep 15; head -c 100m /dev/zero > \"$PLACE/other\") 2> /dev/null & {soak} --duration 40s; \
         code=$?; \"$PROGRAM\" --store \"$PLACE\" report @last --format json; exit $code"
    );
    let output = within("20m", &commands);
    let err = text(&output.stderr);
    assert_eq!(exit_code(&output), 1, "{err}{}", text(&output.stdout));
    assert!(err.contains("No space left") && err.contains("remedy:"), "{err}");
    let data = data(&output);
    assert_eq!((&data["run"]["end"], &data["run"]["windows"]), (&"unsealed".into(), &1.into()));
}

/// On a disk, whose room can be held, others that fill it do a run no harm, as long as they do not write at the very
/// moment in which a window takes its room back.
#[test]
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn a_disk_that_others_fill_does_a_run_no_harm() {
    if !can("unshare", &["-m", "true"]) || !has_rings() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let script = "truncate -s 128M \"$PLACE/image\" && mkfs.ext4 -q -m 0 \"$PLACE/image\" && \
        mkdir \"$PLACE/disk\" && mount -o loop \"$PLACE/image\" \"$PLACE/disk\" || exit 99; \
        (sleep 12; fallocate -l $(df --output=avail -B1 \"$PLACE/disk\" | tail -n 1) \"$PLACE/disk/other\"; \
         df --output=avail -B1 \"$PLACE/disk\" | tail -n 1 > \"$PLACE/left\") & \
        \"$PROGRAM\" --store \"$PLACE/disk\" soak --agents 2000 --progress none --duration 33s > /dev/null; \
        code=$?; \
        \"$PROGRAM\" --store \"$PLACE/disk\" report @last --format json; exit $code";
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", script]).env("PROGRAM", PROGRAM).env("PLACE", place.path());
    let output = shell.stdin(Stdio::null()).output().unwrap();
    let err = text(&output.stderr);
    if exit_code(&output) == 99 {
        // Where loop files are refused, power cuts are not tested either.
        return eprintln!("SKIPPED: no loop file can be mounted here: {err}");
    }
    let left = fs::read_to_string(place.path().join("left")).unwrap();
    let left: u64 = left.trim().parse().unwrap();
    // Less than a window takes: without what was held the next one would find no room.
    assert!(left < 64 << 10, "the disk was full but for {left} bytes");
    let data = data(&output);
    assert_eq!(
        (&data["run"]["end"], &data["run"]["windows"]),
        (&"finished".into(), &4.into()),
        "{err}"
    );
    assert!(
        data["memory"]["disk_held"].as_u64().is_some_and(|held| held > 0),
        "{}",
        data["memory"]
    );
}

#[test]
fn too_few_descriptors_and_too_little_memory_get_one_clear_error() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let limited = |limit: &str, shell: &[&str]| {
        let soak = "--store \"$STORE\" soak --agents 2000000 --duration 1s --progress none";
        let script = format!("{limit} && exec \"$PROGRAM\" {soak}");
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).args(["-c", &script]).env("STORE", store.path());
        command.env("PROGRAM", PROGRAM).stdin(Stdio::null()).output().unwrap()
    };
    let output = limited("ulimit -n 8", &["sh"]);
    let err = text(&output.stderr);
    assert_eq!(exit_code(&output), 5, "{err}");
    assert!(err.contains("ulimit -n") && output.stdout.is_empty(), "{err}");
    // A meminfo of a small host, seen by this process only.
    let small = tempfile::NamedTempFile::new().unwrap();
    fs::write(small.path(), "MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\n").unwrap();
    let limit = format!("mount --bind {} /proc/meminfo", small.path().display());
    if can("unshare", &["-m", "true"]) {
        let output = limited(&limit, &["unshare", "-m", "sh"]);
        let err = text(&output.stderr);
        assert_eq!(exit_code(&output), 5, "{err}");
        assert!(err.contains("MB of memory") && err.contains("remedy:"), "{err}");
    }
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0, "nothing was begun");
}

/// Rings are charged to RLIMIT_MEMLOCK for users without CAP_IPC_LOCK, so this needs root to become one.
#[test]
fn a_memlock_limit_too_low_for_the_rings_is_named() {
    if !can("setpriv", &["--reuid", "65534", "--clear-groups", "true"]) || !has_rings() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("tailbeam");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = "ulimit -l 0 && exec \"$PROGRAM\" --store \"$STORE\" soak --agents 10";
    let mut shell = Command::new("setpriv");
    shell.args(["--reuid", "65534", "--clear-groups", "sh", "-c", script]).env("PROGRAM", program);
    let output = shell.env("STORE", place.path().join("runs")).output().unwrap();
    let err = text(&output.stderr);
    assert_eq!(exit_code(&output), 5, "{err}");
    assert!(err.contains("RLIMIT_MEMLOCK") && err.contains("ulimit -l"), "{err}");
}

/// Nobody reads its report, which no pipe can hold.
#[test]
fn a_signal_ends_a_program_whose_report_nobody_reads() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let line = "soak --agents 50 --duration 1s --format json --progress none";
    let child = start(store.path(), line);
    let at = format!("/proc/{}/wchan", child.id());
    let writes = || fs::read_to_string(&at).is_ok_and(|what| what.contains("pipe_write"));
    let tries = (0..600).take_while(|_| !writes()).inspect(|_| wait_ms(50)).count();
    assert!(tries < 600, "it never wrote, or the report fits into a pipe");
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(&output), 143, "{}", text(&output.stderr));
}

#[test]
fn progress_goes_to_stderr_and_results_to_stdout() {
    if !has_rings() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let child = start(store.path(), "soak --agents 50 --duration 2s --gate outcomes --format json");
    let output = child.wait_with_output().unwrap();
    assert_eq!(data(&output)["verdict"], "GO");
    let err = text(&output.stderr);
    assert!(err.contains("50 agents live"), "{err}");
}
