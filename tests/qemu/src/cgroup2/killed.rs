//! A supervisor is killed in the middle of each fault: its guard undoes all. A guard that does nothing is noticed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tailbeam_harness::chaos::host::{Guard, Host, Injector, Journal, On, Process, Subject, undo};
use tailbeam_qemu::Judge;

use crate::places::{DISK, PROGRAM, Seen, handed_down, launcher, pause_ms, subject, within};

const LIFE_MS: u64 = 60_000;

/// What the guard of a check does when its supervisor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    Undoes,
    DoesNothing,
}

impl Watch {
    const fn word(self) -> &'static str {
        match self {
            Self::Undoes => "guard",
            Self::DoesNothing => "lazy-guard",
        }
    }
}

/// Each fault, with its subject.
fn faults() -> Vec<(&'static str, &'static [&'static str], Injector)> {
    let throttle = Injector::DiskThrottle { dir: DISK.into(), bytes_per_s: 1 << 20 };
    vec![
        ("quota", &["spin"], Injector::CpuQuota { millicores: 100 }),
        ("freeze", &["spin"], Injector::Freeze),
        ("memory", &["idle"], Injector::MemoryLimit { bytes: 64 << 20 }),
        ("pids", &["threads"], Injector::PidsLimit { max: 9 }),
        ("throttle", &["idle"], throttle),
    ]
}

/// A guard that says that it watches, and undoes nothing.
pub(crate) fn lazy_guard() {
    println!("ready");
    drop(std::io::stdin().read_to_end(&mut Vec::new()));
}

/// The supervisor: injects a fault, says so, and waits to be killed.
pub(crate) fn supervisor(fault: &str, dir: &str, path: &str, guard: &str) {
    let say = |text: &str| {
        let mut out = std::io::stdout();
        writeln!(out, "{text}").and_then(|()| out.flush()).expect("the pipe is read");
    };
    let host = Host::find(launcher(), Path::new(dir)).expect("/proc is mounted");
    let mut journal = Journal::create(Path::new(path), &host.name).expect("there is none yet");
    let guard =
        Guard::start(Path::new(PROGRAM), &[guard.to_owned(), path.to_owned()], Path::new(path));
    let guard = guard.expect("it says that it watches");
    journal.hold(guard.lifeline().expect("its pipe can be copied"));
    let Process { pid, start_ticks } = guard.process();
    say(&format!("guard {pid} {start_ticks} {}", guard.limits()));
    let groups = host.groups("");
    journal.perform_all(&groups.steps()).expect("groups can be made");
    let known = faults().into_iter().find(|(name, ..)| *name == fault);
    let (_, words, fault) = known.expect("a fault of the list");
    let run = subject(words).inside(&groups);
    let subject = Subject::start(&mut journal, &run, |command| {
        command.stdout(Stdio::null());
    });
    let process = Some(subject.expect("it can be started").process());
    let on = On { host: &host, groups: &groups, process, helper: None };
    journal.perform_all(&fault.steps(&on).expect("it can be injected")).expect("it can be done");
    say("injected");
    pause_ms(LIFE_MS);
}

/// A supervisor that runs.
struct Supervisor {
    child: Child,
    out: BufReader<ChildStdout>,
    guard: Option<Process>,
    limits: String,
    dir: PathBuf,
    journal: PathBuf,
    before: Seen,
}

impl Supervisor {
    fn start(fault: &str, watch: Watch, round: &str) -> Self {
        let dir = PathBuf::from(format!("/tmp/{fault}-{}{round}", watch.word()));
        fs::create_dir_all(&dir).expect("a tmpfs is mounted there");
        let journal = dir.with_extension("journal");
        let before = Seen::now(&dir);
        let mut command = Command::new(PROGRAM);
        command.args(["supervisor", fault]).arg(&dir).arg(&journal).arg(watch.word());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("this program again");
        let out = BufReader::new(child.stdout.take().expect("piped above"));
        Self { child, out, guard: None, limits: String::new(), dir, journal, before }
    }

    /// Reads on until a line that begins so. `false`: it ended.
    fn says(&mut self, wanted: &str) -> bool {
        for line in self.out.by_ref().lines().map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("guard ") {
                let mut words = rest.splitn(3, ' ');
                let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
                let (pid, start_ticks) = number().zip(number()).expect("two numbers");
                let pid = u32::try_from(pid).expect("a process");
                self.guard = Some(Process { pid, start_ticks });
                words.next().unwrap_or_default().clone_into(&mut self.limits);
            }
            if line.starts_with(wanted) {
                return true;
            }
        }
        false
    }

    /// Kills it, and waits for its guard. `false`: that did not end.
    fn dies(&mut self) -> bool {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), Signal::KILL).expect("not waited for yet");
        self.child.wait().expect("it was killed");
        // What it had said before.
        self.says("never");
        self.guard.is_none_or(|guard| guard.ends_within(60_000).is_ok_and(|ended| ended))
    }

    /// Of each kind of thing that it makes there is one. A process in the middle of its exec shows no variables.
    fn is_seen(&self) -> bool {
        let kinds = ["group ", "process ", "hands down", "runs "];
        within(20_000, || {
            let left = self.left();
            kinds.iter().all(|kind| left.iter().any(|line| line.starts_with(kind)))
        })
    }

    fn left(&self) -> Vec<String> {
        Seen::now(&self.dir).since(&self.before)
    }
}

/// Each fault, and moments before it. With a guard that does nothing the same looks must find what is left.
pub(crate) fn all(judge: &mut Judge, watch: Watch) {
    match watch {
        Watch::Undoes => {
            for (name, ..) in faults() {
                judged(judge, name, Watch::Undoes);
            }
            moments(judge);
        }
        Watch::DoesNothing => noticed(judge),
    }
}

/// The claims of a guard that undoes, whatever the guard does: with one that does nothing they are broken.
pub(crate) fn as_if_it_undid(judge: &mut Judge) {
    judged(judge, "quota", Watch::DoesNothing);
}

fn judged(judge: &mut Judge, name: &str, watch: Watch) {
    let mut supervisor = Supervisor::start(name, watch, "");
    let injected = supervisor.says("injected");
    let seen = supervisor.is_seen();
    let during = supervisor.left();
    judge.that(
        &format!("{name}: what is looked for is found while it is there"),
        injected && seen,
        &format!("{} things", during.len()),
    );
    if !supervisor.limits.is_empty() {
        println!("absent its guard: {}", supervisor.limits);
    }
    let ended = supervisor.dies();
    let left = supervisor.left();
    judge.that(
        &format!("{name}: the guard of a killed supervisor leaves nothing"),
        ended && left.is_empty(),
        &format!("{left:?}"),
    );
    let down = handed_down();
    let before = supervisor.before.handed_down.clone();
    judge.that(
        &format!("{name}: what is handed down is as before"),
        down == before,
        &format!("{down:?}"),
    );
    let again = undo(&supervisor.journal);
    let nothing = again
        .as_ref()
        .is_ok_and(|again| again.clean() && again.steps.is_empty() && again.killed == 0);
    judge.that(&format!("{name}: its journal has nothing to undo"), nothing, &format!("{again:?}"));
}

/// Between two steps too.
fn moments(judge: &mut Judge) {
    let mut left = Vec::new();
    for ms in [0, 20, 60, 120] {
        let mut supervisor = Supervisor::start("quota", Watch::Undoes, &format!("-{ms}"));
        supervisor.says("guard");
        pause_ms(ms);
        if !supervisor.dies() {
            left.push(format!("the guard, after {ms} ms"));
        }
        left.extend(supervisor.left());
    }
    judge.that("killed at any moment it leaves nothing", left.is_empty(), &format!("{left:?}"));
}

/// The twin: nothing is undone, and it is seen; whoever comes later undoes it from the journal.
fn noticed(judge: &mut Judge) {
    let mut supervisor = Supervisor::start("quota", Watch::DoesNothing, "");
    let injected = supervisor.says("injected");
    supervisor.dies();
    let seen = supervisor.is_seen();
    let left = supervisor.left();
    judge.that("a guard that does nothing is noticed", injected && seen, &format!("{left:?}"));
    let undone = undo(&supervisor.journal);
    let clean = undone.as_ref().is_ok_and(|undone| undone.clean());
    let left = supervisor.left();
    judge.that(
        "its journal is undone by who comes later",
        clean && left.is_empty(),
        &format!("{left:?}"),
    );
}
