//! A run as a process of its own: `soak` of this program or of another build, into the same store.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tailbeam_harness::drive::Control;
use tailbeam_harness::report::Measured;
use tailbeam_probes::clock;
use tailbeam_probes::collect::cpu_times::CpuTimesReader;

/// Time between two looks at a running child.
const LOOK: Duration = Duration::from_millis(50);
/// What a child may take beyond its load: spawning a million agents, drain, seal, report.
const GRACE_NS: u64 = 180_000_000_000;
/// Bytes kept of what a child prints: a report has about 100 kB.
const OUTPUT_MAX: u64 = 64 << 20;

/// How runs are started.
pub(super) struct Launcher<'a> {
    pub(super) store: &'a Path,
    pub(super) control: &'a Control,
    /// This program, unless a side names another.
    pub(super) program: PathBuf,
    /// Longest time a run may take, ns.
    pub(super) length_ns: u64,
}

/// What became of a run.
pub(super) struct Ran {
    /// Its id, or why there is none.
    pub(super) run: Measured<String>,
    /// Share of the CPUs' time that the host took meanwhile.
    pub(super) steal: Measured<f64>,
    /// Its command line was refused: no other run of this side will do better.
    pub(super) usage: bool,
}

impl<'a> Launcher<'a> {
    pub(super) fn new(
        store: &'a Path,
        control: &'a Control,
        length_ns: u64,
    ) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let length_ns = length_ns.saturating_mul(2).saturating_add(GRACE_NS);
        Ok(Self { store, control, program, length_ns })
    }

    /// Runs `soak` with `flags` and waits for its end.
    pub(super) fn run(&self, program: Option<&str>, flags: &[String]) -> Ran {
        let before = stolen_ns();
        let from_ns = clock::monotonic_ns();
        let (run, usage) = match self.finish(program, flags) {
            Ok(id) => (Measured::Known(id), false),
            Err((cause, code)) => {
                let remedy = "run the same `soak` alone to see more";
                (Measured::unknown(cause, remedy), code == Some(2))
            }
        };
        let length_ns = clock::monotonic_ns().saturating_sub(from_ns).max(1);
        let steal = match (before, stolen_ns()) {
            (Ok((cpus, before)), Ok((_, after))) => Measured::Known(
                after.saturating_sub(before) as f64 / length_ns as f64 / f64::from(cpus.max(1)),
            ),
            (Err(gone), _) | (_, Err(gone)) => Measured::unknown(gone.cause, gone.remedy),
        };
        Ran { run, steal, usage }
    }

    /// The id of the run, or the cause and the exit code.
    fn finish(
        &self,
        program: Option<&str>,
        flags: &[String],
    ) -> Result<String, (String, Option<i32>)> {
        let program = program.map_or_else(|| self.program.clone(), PathBuf::from);
        let mut command = Command::new(&program);
        command.arg("--store").arg(self.store).arg("soak").args(flags);
        command.args(["--progress", "none", "--format", "json"].map(OsString::from));
        // In a group of its own: a ^C is for us to pass on, once.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |cause: String| (format!("{}: {cause}", program.display()), None);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
        let code = self.wait(&mut child).map_err(failed)?;
        let text = |from: thread::JoinHandle<String>| from.join().unwrap_or_default();
        let (out, err) = (text(out), text(err));
        match run_id(&out) {
            Some(id) => Ok(id),
            None => Err((cause(&err, code), code)),
        }
    }

    /// Waits for the end; passes a stop on; ends what takes far longer than it should.
    fn wait(&self, child: &mut Child) -> Result<Option<i32>, String> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let send = |signal| pid.is_some_and(|pid| kill_process(pid, signal).is_ok());
        let until_ns = clock::monotonic_ns().saturating_add(self.length_ns);
        let (mut told, mut hurried) = (false, false);
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status.code()),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            if self.control.stop.load(Ordering::Relaxed) && !told {
                told = send(Signal::INT);
            } else if self.control.hurry.load(Ordering::Relaxed) && !hurried {
                hurried = send(Signal::INT);
            }
            if clock::monotonic_ns() > until_ns {
                // It is ours and gone after the next line.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} s", self.length_ns / 1_000_000_000));
            }
            thread::park_timeout(LOOK);
        }
    }
}

/// Reads a pipe to its end beside the child, so that neither waits for the other.
fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What could be read is what there is; a broken pipe ends it.
            let _ = pipe.take(OUTPUT_MAX).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn run_id(out: &str) -> Option<String> {
    let report: serde_json::Value = serde_json::from_str(out).ok()?;
    Some(report["data"]["run"]["id"].as_str()?.to_owned())
}

/// The first lines of what a run said, in one.
fn cause(err: &str, code: Option<i32>) -> String {
    let lines: Vec<&str> = err.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines.iter().position(|line| line.starts_with("error: ")).map_or_else(
        || lines.last().copied().unwrap_or("it said nothing").to_owned(),
        |at| {
            let cause = lines[at..].iter().find_map(|line| line.strip_prefix("cause: "));
            let what = lines[at].trim_start_matches("error: ");
            cause.map_or_else(|| what.to_owned(), |cause| format!("{what} ({cause})"))
        },
    );
    match code {
        Some(code) => format!("{said}; exit {code}"),
        None => format!("{said}; ended by a signal"),
    }
}

/// Number of CPUs, and what the host took of all of them since boot, ns.
fn stolen_ns() -> Result<(u32, u64), tailbeam_probes::Unavailable> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut reader = CpuTimesReader::open(cpus)?;
    let count = u32::try_from(cpus).unwrap_or(u32::MAX);
    let stolen = (0..count).map(|cpu| reader.read(cpu).map(|times| times.steal_ns));
    Ok((count, stolen.sum::<Result<u64, _>>()?))
}

/// `defaults` (flag and value) that `given` does not set itself, then `given`.
pub(super) fn merged(defaults: &[(&str, String)], given: &[String]) -> Vec<String> {
    let set = |flag: &str| {
        let is = |word: &String| {
            word == flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
        };
        given.iter().any(is)
    };
    let kept = defaults.iter().filter(|(flag, _)| !set(flag));
    let kept = kept.flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
    kept.chain(given.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_side_sets_goes_before_the_defaults() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let defaults = [("--agents", "10".to_owned()), ("--own-cost", "off".to_owned())];
        let line = merged(&defaults, &words("--own-cost pairs --think 1s")).join(" ");
        assert_eq!(line, "--agents 10 --own-cost pairs --think 1s");
        assert_eq!(merged(&defaults, &words("--agents=5")).join(" "), "--own-cost off --agents=5");
    }

    #[test]
    fn a_cause_is_what_the_run_said() {
        let err = "preset x\nerror: 5 agents need about 9 MB of memory\n  cause: 3 MB are there\n  remedy: fewer\n";
        assert_eq!(
            cause(err, Some(5)),
            "5 agents need about 9 MB of memory (3 MB are there); exit 5"
        );
        assert_eq!(cause("", None), "it said nothing; ended by a signal");
        assert_eq!(run_id(r#"{"data":{"run":{"id":"x"}}}"#), Some("x".to_owned()));
        assert_eq!(run_id("no"), None);
    }
}
