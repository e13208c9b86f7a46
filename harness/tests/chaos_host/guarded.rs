//! The supervisor is killed in the middle of each fault: its guard leaves nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tailbeam_harness::chaos::host::{
    Cut, End, Guard, HogClass, Host, Injector, Journal, On, Process, Residue, Subject, residue,
};

use crate::support::{Bench, child, host, launcher, left, pause_ms, within};

/// Faults that a supervisor is killed in, with what is to be made before them.
fn faults(host: &Host) -> Vec<(&'static str, Option<Injector>, Injector)> {
    let (disk, pair) = (host.disk("", 32 << 20), host.veth_pair());
    let with_disk = Some(Injector::LoopDisk { disk: disk.clone() });
    let with_pair = Some(Injector::NetPair { pair: pair.clone() });
    let hog = |class| Injector::CpuHog { core: 0, class, life_ms: 20_000 };
    let throttle = Injector::DiskThrottle { dir: host.dir.clone(), bytes_per_s: 1 << 20 };
    let cut = |cut| Injector::NetPartition { pair: pair.clone(), cut };
    vec![
        ("quota", None, Injector::CpuQuota { millicores: 100 }),
        ("hog", None, hog(HogClass::Fair)),
        ("fifo", None, hog(HogClass::Fifo)),
        ("hold", None, Injector::ThreadHold { tid: 0 }),
        ("freeze", None, Injector::Freeze),
        ("stop", None, Injector::Stop),
        ("nice", None, Injector::Nice { nice: 9 }),
        ("memory", None, Injector::MemoryLimit { bytes: 64 << 20 }),
        ("ballast", None, Injector::Ballast { bytes: 8 << 20, life_ms: 20_000 }),
        ("throttle", None, throttle),
        ("fill", with_disk.clone(), Injector::FillDisk { disk: disk.clone() }),
        ("power", with_disk, Injector::PowerCut { disk }),
        ("down", with_pair.clone(), cut(Cut::Down)),
        ("loss", with_pair, cut(Cut::Loss(End::Second, 50))),
        ("files", None, Injector::FdLimit { max: 32 }),
        ("pids", None, Injector::PidsLimit { max: 9 }),
    ]
}

/// The supervisor: words are the fault, the folder and the journal. Says its guard, then each step that is reached.
#[test]
#[ignore = "a process of other tests"]
fn supervisor_child() {
    let words: Vec<String> =
        std::env::args().skip_while(|arg| !arg.ends_with("supervisor_child")).skip(1).collect();
    let [name, dir, path] = &words[..] else { return };
    let host = host(Path::new(dir), name);
    let say = |text: String| {
        let mut out = std::io::stdout();
        writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
    };
    let mut journal = Journal::create(Path::new(path), &host.name).unwrap();
    let launcher = launcher("children::guard_child");
    let args: Vec<String> = launcher.args.into_iter().chain([path.clone()]).collect();
    let guard = Guard::start(&launcher.program, &args, Path::new(path)).unwrap();
    journal.hold(guard.lifeline().unwrap());
    let Process { pid, start_ticks } = guard.process();
    say(format!("\nguard {pid} {start_ticks} {} limits: {}", host.name, guard.limits()));
    let groups = host.groups("");
    journal.perform_all(&groups.steps()).unwrap();
    let (_, made, mut fault) = faults(&host).into_iter().find(|(of, ..)| of == name).unwrap();
    let on = |process| On { host: &host, groups: &groups, process, helper: None };
    if let Some(made) = made {
        journal.perform_all(&made.steps(&on(None)).unwrap()).unwrap();
    }
    // What it says itself would come between our lines.
    let quiet = |command: &mut Command| {
        command.stdout(Stdio::null());
    };
    let subject = Subject::start(&mut journal, &child(&["spin"]).inside(&groups), quiet).unwrap();
    let process = subject.process();
    if let Injector::ThreadHold { tid } = &mut fault {
        *tid = process.pid;
    }
    journal.perform_all(&fault.steps(&on(Some(process))).unwrap()).unwrap();
    say("injected".to_owned());
    pause_ms(30_000);
}

struct Supervisor {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    guard: Option<Process>,
    name: String,
}

impl Supervisor {
    fn start(fault: &str, dir: &Path, journal: &Path) -> Self {
        let launcher = launcher("guarded::supervisor_child");
        let mut command = Command::new(&launcher.program);
        command.args(&launcher.args).arg(fault).arg(dir).arg(journal);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, guard: None, name: String::new() }
    }

    /// Reads on until a line that begins so. `false`: it ended.
    fn says(&mut self, wanted: &str) -> bool {
        for line in self.out.by_ref().lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            if let ["guard", pid, ticks, name, ..] = words[..] {
                name.clone_into(&mut self.name);
                let (pid, start_ticks) = (pid.parse().unwrap(), ticks.parse().unwrap());
                self.guard = Some(Process { pid, start_ticks });
                // Root may all of it, but that one needs CAP_SYS_RESOURCE too.
                let limits = line.split_once("limits: ").unwrap().1;
                let few = limits.is_empty() || limits.starts_with("it may be killed for memory: ");
                assert!(few && !limits.contains(';'), "{line}");
            }
            if line.starts_with(wanted) {
                return true;
            }
        }
        false
    }

    /// Kills it and waits for its guard.
    fn dies(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // What it had said before it died.
        self.says("never");
        if let Some(guard) = self.guard {
            assert!(guard.ends_within(300_000).unwrap(), "the guard of {}", self.name);
        }
        self.name
    }
}

struct Place {
    dir: tempfile::TempDir,
    journals: tempfile::TempDir,
    before: Residue,
}

impl Place {
    fn new() -> Self {
        let (dir, journals) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = residue(&[dir.path()]).unwrap();
        Self { dir, journals, before }
    }

    fn journal(&self) -> PathBuf {
        self.journals.path().join("journal")
    }

    fn start(&self, fault: &str) -> Supervisor {
        Supervisor::start(fault, self.dir.path(), &self.journal())
    }

    /// Nothing is left, and one more undo finds nothing to do.
    fn is_clean(&self, name: &str, how: &str) {
        let left = left(&self.before, self.dir.path(), name);
        assert_eq!(left, Vec::<String>::new(), "{how}");
        if self.journal().exists() {
            let again = tailbeam_harness::chaos::host::undo(&self.journal()).unwrap();
            assert!(again.clean() && again.steps.is_empty() && again.killed == 0, "{how}: {again}");
        }
    }
}

#[test]
fn a_supervisor_that_is_killed_in_any_fault_leaves_nothing() {
    let Some(bench) = Bench::new("killed") else { return };
    for (fault, made, injected) in faults(&bench.host) {
        if !made.iter().chain([&injected]).all(|fault| bench.can(fault)) {
            continue;
        }
        let place = Place::new();
        let mut supervisor = place.start(fault);
        assert!(supervisor.says("injected"), "{fault}: {:?}", supervisor.child.wait());
        let during = left(&place.before, place.dir.path(), &supervisor.name);
        // What is looked for is found while it is there.
        let disk = ["mount /", "loop device", "file"];
        let wanted: &[&str] = match fault {
            "fill" | "power" => &disk,
            "down" | "loss" => &["network namespace", "mount /run/tailbeam"],
            _ => &[],
        };
        for kind in wanted.iter().chain(&["group", "process"]) {
            // A process in the middle of its exec shows no variables.
            let seen = || {
                let now = left(&place.before, place.dir.path(), &supervisor.name);
                now.iter().any(|line| line.starts_with(kind))
            };
            assert!(within(10_000, seen), "{fault}: {kind} {during:?}");
        }
        let name = supervisor.dies();
        place.is_clean(&name, fault);
        eprintln!("{fault}: {} things there during it, none after", during.len());
    }
    bench.end();
}

/// At any time: also between two steps, and while a tool of a step runs.
#[test]
fn a_supervisor_that_is_killed_at_any_moment_leaves_nothing() {
    let Some(bench) = Bench::new("moments") else { return };
    for fault in ["power", "loss"] {
        let all = faults(&bench.host);
        let (_, made, injected) = all.into_iter().find(|(of, ..)| *of == fault).unwrap();
        if !made.iter().chain([&injected]).all(|fault| bench.can(fault)) {
            continue;
        }
        for round in 0..12 {
            let place = Place::new();
            let mut supervisor = place.start(fault);
            assert!(supervisor.says("guard"));
            pause_ms(round * 13);
            let name = supervisor.dies();
            place.is_clean(&name, &format!("{fault} after {} ms", round * 13));
        }
    }
    bench.end();
}

#[test]
fn a_guard_is_not_ended_by_a_terminal_and_ends_with_its_supervisor() {
    let Some(mut bench) = Bench::new("terminal") else { return };
    let path = bench.journal.path().display().to_string();
    let launcher = launcher("children::guard_child");
    let args: Vec<String> = launcher.args.into_iter().chain([path]).collect();
    let guard = Guard::start(&launcher.program, &args, bench.journal.path()).unwrap();
    // Whoever would go on waits for it.
    let held = std::fs::File::open(bench.journal.path()).unwrap();
    let hold = || rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(hold(), Err(rustix::io::Errno::WOULDBLOCK));
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        assert!(guard.process().signal(signal).unwrap());
    }
    assert!(!guard.process().ends_within(200).unwrap());
    let subject = bench.subject(&["spin"]);
    // The supervisor lets go without undoing anything, as one that fails would.
    let said = bench.journal.path().with_extension("undone");
    assert!(guard.finish().unwrap(), "{}", std::fs::read_to_string(said).unwrap());
    assert_eq!(hold(), Ok(()), "it is over");
    assert!(subject.process().ends_within(0).unwrap());
    drop(subject);
    assert!(bench.groups.dirs().iter().all(|dir| !dir.exists()));
    bench.end();
}

#[test]
fn a_guard_that_does_not_watch_is_no_guard() {
    let args = ["-c".to_owned(), "echo something else".to_owned()];
    let journal = tempfile::NamedTempFile::new().unwrap();
    let failure = Guard::start(Path::new("/bin/sh"), &args, journal.path()).unwrap_err();
    assert!(failure.to_string().contains("something else"), "{failure}");
    let failure = Guard::start(Path::new("/bin/sh"), &args, Path::new("/none")).unwrap_err();
    assert!(failure.to_string().contains("/none"), "{failure}");
}
