#![expect(unsafe_code, reason = "ptrace, a real-time policy and an alarm have no safe wrapper")]
//! What takes a core, or a thread's time, from outside: other processes, which say when they did.
//!
//! Each is this program again, so that nothing needs to be installed. Each ends by itself after its time, by an
//! alarm when it hangs, and by its parent; one of real-time priority also by a supervisor of a higher priority
//! on another core.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use tailbeam_probes::clock::{monotonic_ns, thread_cpu_ns};

const MS: u64 = 1_000_000;
/// Longest life of any of them, s: the alarm ends what is left.
const LIFE_S: u32 = 30;
/// Name of the test that is the child, and the variable that says what it is to do.
const CHILD: &str = "child";
const ROLE: &str = "TAILBEAM_TEST_OUTSIDE";
/// Priorities of `SCHED_FIFO`.
const HOG_PRIORITY: i32 = 10;
const SUPERVISOR_PRIORITY: i32 = 20;

/// Something outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Computes on one core without end, at the usual priority.
    Hog,
    /// Computes 20 ms of each 100 ms on one core at real-time priority.
    Fifo,
    /// Holds one thread for 20 ms of each 100 ms, as a debugger does.
    Tracer,
}

impl Outside {
    const fn name(self) -> &'static str {
        match self {
            Self::Hog => "hog",
            Self::Fifo => "fifo",
            Self::Tracer => "tracer",
        }
    }
}

/// It runs.
pub(crate) struct Running {
    child: Child,
    supervisor: Option<Child>,
    out: BufReader<std::process::ChildStdout>,
}

/// Starts it against the thread `tid` on `cpu` for `ms`; `other` is another CPU. `Err`: why it cannot be done here.
pub(crate) fn start(
    what: Outside,
    (tid, cpu, other): (u32, usize, usize),
    ms: u64,
) -> Result<Running, String> {
    let mut child = role(&format!("{} {tid} {cpu} {ms}", what.name()));
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "ready" {
        line.clear();
        if out.read_line(&mut line).unwrap() == 0 {
            child.wait().unwrap();
            return Err(format!("a {} ended at once", what.name()));
        }
        if let Some(why) = line.trim().strip_prefix("refused: ") {
            child.wait().unwrap();
            return Err(why.to_owned());
        }
    }
    let watch = || role(&format!("supervisor {} {other} {}", child.id(), ms + 500));
    let supervisor = (what == Outside::Fifo).then(watch);
    Ok(Running { child, supervisor, out })
}

impl Running {
    /// Ends it; when it took the core or the thread, ns.
    pub(crate) fn end(mut self) -> Vec<(u64, u64)> {
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        // The supervisor first: while the child is not waited for, its number is nobody else's.
        if let Some(mut supervisor) = self.supervisor.take() {
            supervisor.kill().unwrap();
            supervisor.wait().unwrap();
        }
        self.child.wait().unwrap();
        let took = |line: &str| {
            let (from, to) = line.strip_prefix("took ")?.split_once(' ')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        text.lines().filter_map(took).collect()
    }
}

fn role(role: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", CHILD, "--nocapture"]).env(ROLE, role);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The child: what the variable says.
pub(crate) fn child() {
    let role = std::env::var(ROLE).unwrap_or_default();
    let words: Vec<&str> = role.split(' ').collect();
    let [what, whom, cpu, ms] = words[..] else { return };
    let number = |word: &str| word.parse::<u64>().unwrap();
    dead_man();
    let until_ns = monotonic_ns() + number(ms) * MS;
    let (whom, cpu) = (i32::try_from(number(whom)).unwrap(), number(cpu));
    let done = match what {
        "hog" => hog(usize::try_from(cpu).unwrap(), until_ns),
        "fifo" => fifo(usize::try_from(cpu).unwrap(), until_ns),
        "tracer" => tracer(whom, until_ns),
        _ => supervisor(whom, usize::try_from(cpu).unwrap(), until_ns),
    };
    if let Err(error) = done {
        println!("refused: {what}: {error}");
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu);
    Ok(sched_setaffinity(None, &one)?)
}

fn sleep_ms(ms: u64) {
    std::thread::park_timeout(Duration::from_millis(ms));
}

fn hog(cpu: usize, until_ns: u64) -> io::Result<()> {
    pin(cpu)?;
    println!("ready");
    while monotonic_ns() < until_ns {
        // What it got is what others did not: one piece after the other of its own CPU time.
        let (from, until) = (monotonic_ns(), thread_cpu_ns() + MS);
        while thread_cpu_ns() < until {
            std::hint::spin_loop();
        }
        println!("took {from} {}", monotonic_ns());
    }
    Ok(())
}

fn fifo(cpu: usize, until_ns: u64) -> io::Result<()> {
    pin(cpu)?;
    real_time(HOG_PRIORITY)?;
    println!("ready");
    while monotonic_ns() < until_ns {
        let from = monotonic_ns();
        while monotonic_ns() < from + 20 * MS {
            std::hint::spin_loop();
        }
        println!("took {from} {}", monotonic_ns());
        sleep_ms(80);
    }
    Ok(())
}

/// Kills the hog when its time is over, whatever it does.
fn supervisor(hog: i32, cpu: usize, until_ns: u64) -> io::Result<()> {
    pin(cpu)?;
    real_time(SUPERVISOR_PRIORITY)?;
    while monotonic_ns() < until_ns {
        sleep_ms(until_ns.saturating_sub(monotonic_ns()) / MS + 1);
    }
    let hog = Pid::from_raw(hog).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(hog, Signal::KILL)?)
}

fn tracer(tid: i32, until_ns: u64) -> io::Result<()> {
    ptrace(libc::PTRACE_SEIZE, tid)?;
    println!("ready");
    while monotonic_ns() < until_ns {
        ptrace(libc::PTRACE_INTERRUPT, tid)?;
        wait_for_stop(tid)?;
        let from = monotonic_ns();
        while monotonic_ns() < from + 20 * MS {
            sleep_ms(1);
        }
        println!("took {from} {}", monotonic_ns());
        ptrace(libc::PTRACE_CONT, tid)?;
        sleep_ms(80);
    }
    // A tracer that ends lets go of what it traces.
    Ok(())
}

fn checked(answer: i64) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn ptrace(request: libc::c_uint, tid: i32) -> io::Result<()> {
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: ptrace(2): of these requests none reads or writes memory by its last two arguments.
    checked(unsafe { libc::ptrace(request, tid, null, null) })
}

fn wait_for_stop(tid: i32) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes the one int that it is given.
    checked(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }.into())
}

fn real_time(priority: i32) -> io::Result<()> {
    let wanted = libc::sched_param { sched_priority: priority };
    // SAFETY: sched_setscheduler(2) reads the struct that it is given; 0 is the calling thread.
    checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const wanted) }.into())
}

/// Ends this process when all else fails.
fn dead_man() {
    // SAFETY: alarm(2) takes a plain number; its signal ends the process.
    unsafe { libc::alarm(LIFE_S) };
}
