//! `record` as a launcher: the program's output, code and signals are its own, and what cannot be recorded
//! is refused before it starts.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::planted::{Bench, PROGRAM, has, object, skip, snapshot, source};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A bench with the program that ends as it is told.
fn ends() -> Option<(Bench, PathBuf)> {
    let bench = Bench::new()?;
    let program = bench.compile(&source("ends.c"), &["-O1"]);
    Some((bench, program))
}

fn tailbeam(bench: &Bench, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg("--store")
        .arg(bench.dir.path().join("store"))
        .args(["record", "--heap"])
        .args(args);
    command.stdin(Stdio::null());
    command
}

fn recorded(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("record.json")).unwrap()).unwrap()
}

#[test]
fn the_exit_code_is_the_programs_own() {
    let Some((bench, program)) = ends() else { return };
    for (args, code) in [
        (["exit", "0"], 0),
        (["exit", "3"], 3),
        (["exit", "255"], 255),
        (["kill", "11"], 139),
        (["kill", "9"], 137),
    ] {
        let (output, run) = bench.record(&[], &program, &args);
        assert_eq!(output.status.code(), Some(code), "{args:?} {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        let end = &recorded(&run)["end"];
        let signal = i64::from(code - 128);
        let told = if args[0] == "kill" { end["signal"] == signal } else { end["code"] == code };
        assert!(told, "{end}");
    }
}

#[test]
fn arguments_and_file_descriptors_are_as_without_us() {
    let Some((bench, program)) = ends() else { return };
    let (output, _) = bench.record(&[], &program, &["args", "--heap", "", "a b", "-q"]);
    let shown = format!("[{}]\n[args]\n[--heap]\n[]\n[a b]\n[-q]\n", program.display());
    assert_eq!(text(&output.stdout), shown);
    let plain = Command::new(&program).arg("fds").stdin(Stdio::null()).output().unwrap();
    assert_eq!(bench.record(&[], &program, &["fds"]).0.stdout, plain.stdout);
}

#[test]
fn signals_reach_the_program_and_its_answer_is_the_exit_code() {
    let Some((bench, program)) = ends() else { return };
    for (signal, number) in [(Signal::TERM, 15), (Signal::USR1, 10)] {
        let mut command = tailbeam(&bench, &["-q", "--"]);
        let mut child = command.arg(&program).arg("wait").stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill_process(Pid::from_child(&child), signal).unwrap();
        line.clear();
        out.read_to_string(&mut line).unwrap();
        assert_eq!(line, format!("got {number}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
}

#[test]
fn an_ignored_signal_stays_ignored_in_the_program() {
    let Some((bench, program)) = ends() else { return };
    let line = tailbeam(&bench, &["-q", "--"]);
    let words: Vec<String> = std::iter::once(line.get_program())
        .chain(line.get_args())
        .chain([program.as_os_str(), std::ffi::OsStr::new("hup")])
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    for (trap, expected) in [("trap '' HUP; ", "ignored\n"), ("", "default\n")] {
        // Whoever runs the tests may ignore signals, and a shell cannot take that back.
        let output = Command::new("env")
            .args(["--default-signal", "sh", "-c"])
            .arg(format!("{trap}{}", words.join(" ")))
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    }
}

/// The recorder and the program die by SIGKILL; what is left can be read.
#[test]
fn what_a_kill_leaves_can_be_read() {
    let Some((bench, program)) = ends() else { return };
    let mut command = tailbeam(&bench, &["--sample", "64KiB", "--"]);
    let mut child = command.arg(&program).arg("leak").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let run = fs::read_dir(bench.dir.path().join("store")).unwrap().next().unwrap().unwrap().path();
    let process = snapshot(&run.join("heap.tbh")).pid;
    let process = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    kill_process(process, Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(recorded(&run)["end"].is_null());
    let left = snapshot(&run.join("heap.tbh"));
    // 200 blocks of 100 kB at a mean of 64 KiB: 157 expected, sigma 6.
    let blocks = left.samples.iter().filter(|sample| sample.size == 100_000);
    let estimate: f64 = blocks.map(|sample| sample.weight).sum();
    assert!((17e6..23e6).contains(&estimate), "{estimate}");
    let list = Command::new(PROGRAM)
        .arg("--store")
        .arg(bench.dir.path().join("store"))
        .args(["runs", "list"])
        .output()
        .unwrap();
    assert!(
        text(&list.stdout).contains("unsealed") && text(&list.stdout).contains("record "),
        "{}",
        text(&list.stdout)
    );
}

#[test]
fn a_program_that_becomes_another_keeps_its_file_and_its_children_have_theirs() {
    let Some((bench, program)) = ends() else { return };
    let script = format!("{} exit 0; exec {} exit 5", program.display(), program.display());
    let (output, run) = bench.record(&[], Path::new("/bin/sh"), &["-c", &script]);
    assert_eq!(output.status.code(), Some(5));
    let names: Vec<String> = fs::read_dir(&run)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".tbh"))
        .collect();
    let main = snapshot(&run.join("heap.tbh"));
    assert!(main.command.ends_with("exit 5"), "{}", main.command);
    assert!(names.contains(&format!("heap-{}.before-0.tbh", main.pid)), "{names:?}");
    let child = names.iter().find(|name| name.starts_with("heap-") && !name.contains("before"));
    assert!(snapshot(&run.join(child.unwrap())).command.ends_with("exit 0"), "{names:?}");
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let told = text(&output.stderr);
    assert!(told.contains("\n  cause: ") && told.contains("\n  remedy: "), "{told}");
    told
}

#[test]
fn what_cannot_be_recorded_is_refused_and_not_started() {
    let Some((bench, program)) = ends() else { return };
    let try_it = |program: &Path| {
        let output = tailbeam(&bench, &["--"]).arg(program).args(["exit", "0"]).output().unwrap();
        refusal(&output)
    };
    let own = bench.compile(&source("own_malloc.c"), &[]);
    assert!(try_it(&own).contains("defines malloc itself"));
    let plain = bench.dir.path().join("text");
    fs::write(&plain, "hello").unwrap();
    assert!(try_it(&plain).contains("not executable"));
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(try_it(&plain).contains("neither an ELF"));
    assert!(try_it(Path::new("/nowhere/at/all")).contains("No such file"));
    assert!(try_it(Path::new("no-such-program-anywhere")).contains("not in PATH"));
    let output = Command::new("cc")
        .args(["-static", "-o"])
        .arg(bench.dir.path().join("static"))
        .arg(source("ends.c"))
        .output()
        .unwrap();
    if output.status.success() {
        assert!(try_it(&bench.dir.path().join("static")).contains("statically"));
    } else {
        skip("cc cannot link statically");
    }
    if has("musl-gcc", "--version") {
        let musl = bench.dir.path().join("musl");
        let output = Command::new("musl-gcc")
            .arg("-o")
            .arg(&musl)
            .arg(source("own_malloc.c"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(try_it(&musl).contains("musl"));
    }
    let set = bench.dir.path().join("set");
    fs::copy(&program, &set).unwrap();
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&set, Some(65_534), Some(65_534)).unwrap();
        fs::set_permissions(&set, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(try_it(&set).contains("privileges"));
    } else {
        skip("only root can make a setuid file of somebody else");
    }
    let mut foreign = fs::read(&program).unwrap();
    // e_machine: RISC-V.
    foreign[18] = 243;
    fs::write(&set, foreign).unwrap();
    fs::set_permissions(&set, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(try_it(&set).contains("another architecture"));
    let preloaded = tailbeam(&bench, &["--"])
        .arg(&program)
        .env("LD_PRELOAD", "libjemalloc.so.2")
        .output()
        .unwrap();
    assert!(refusal(&preloaded).contains("another allocator"));
    let missing =
        tailbeam(&bench, &["--preload", "/nowhere.so", "--"]).arg(&program).output().unwrap();
    assert!(refusal(&missing).contains("-p tailbeam-preload"));
    assert!(!bench.dir.path().join("store").exists(), "nothing was started");
}

#[test]
fn other_objects_in_ld_preload_are_kept() {
    let Some((bench, program)) = ends() else { return };
    let plugin = bench.dir.path().join("plugin.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&plugin)
        .arg(source("plugin.c"))
        .status();
    assert!(built.unwrap().success());
    let output = tailbeam(&bench, &["-q", "--", "/bin/sh", "-c", "echo $LD_PRELOAD"])
        .env("LD_PRELOAD", &plugin)
        .output()
        .unwrap();
    assert_eq!(
        text(&output.stdout),
        format!("{}:{}\n", fs::canonicalize(object()).unwrap().display(), plugin.display())
    );
    let output = tailbeam(&bench, &["-q", "--"])
        .arg(&program)
        .args(["exit", "4"])
        .env("LD_PRELOAD", &plugin)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
}

/// Limits under which we cannot work: the program runs as ever, and the reason is said after its end.
#[test]
fn without_room_the_program_runs_unrecorded_and_the_reason_is_told() {
    let Some((bench, program)) = ends() else { return };
    for (limit, word) in [("ulimit -f 1000", "ulimit -f"), ("ulimit -v 60000", "address space")] {
        let line = format!("{limit}; exec {} exit 6", program.display());
        let output = tailbeam(&bench, &["--exact", "--", "/bin/sh", "-c", &line]).output().unwrap();
        assert_eq!(output.status.code(), Some(6), "{limit}: {}", text(&output.stderr));
        let told = text(&output.stderr);
        assert!(told.contains("not recorded: process ") && told.contains(word), "{limit}: {told}");
    }
}

/// Contents, alignment, errno, usable sizes, frees by other threads and a fork in between.
#[test]
fn blocks_are_what_they_are_without_us() {
    let Some(bench) = Bench::new() else { return };
    let program = bench.compile(&source("selfcheck.c"), &["-O2", "-pthread"]);
    for flags in [&["--exact"][..], &["--sample", "1"], &["--sample", "100"], &["--sample", "4KiB"]]
    {
        let (output, run) = bench.record(flags, &program, &[]);
        assert_eq!(text(&output.stdout), "ok 80000\n", "{flags:?}: {}", text(&output.stderr));
        let left = snapshot(&run.join("heap.tbh"));
        assert!(left.sampler.taken > 1_000, "{:?}", left.sampler);
        // All was freed, but what libc and the threads keep.
        assert!(left.samples.len() < 40, "{flags:?}: {} live", left.samples.len());
    }
}

#[test]
fn a_site_in_an_object_that_came_late_is_named() {
    let Some(bench) = Bench::new() else { return };
    let plugin = bench.dir.path().join("plugin.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-g", "-o"])
        .arg(&plugin)
        .arg(source("plugin.c"))
        .status();
    assert!(built.unwrap().success());
    let loads = bench.compile(&source("loads.c"), &["-g"]);
    for how in ["leak", "unload", "clean"] {
        let (output, run) = bench.record(&["--exact"], &loads, &[plugin.to_str().unwrap(), how]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let listed = crate::planted::listed(&snapshot(&run.join("heap.tbh")), &plugin);
        let found = listed
            .iter()
            .filter(|(bytes, site)| *bytes == 2311 && site.contains(&"plugin_site".to_owned()));
        assert_eq!(found.count(), usize::from(how != "clean"), "{how}");
    }
}
