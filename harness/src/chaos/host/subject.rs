//! A process that is inside its groups and namespaces before its first instruction.
//!
//! It begins as a shell that waits for a line on its stdin. Meanwhile its number is written to the journal; then it
//! enters the groups, and becomes the program. If the supervisor dies in between, the line does not come, and the
//! shell ends. The pipe stays open as stdin of the program: who wants to notice the supervisor's death reads it.

use std::fmt;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::cgroups::Groups;
use super::failure::{self, Failure};
use super::journal::Journal;
use super::process::Process;
use super::step::Step;
use super::{Call, Launcher, MARK, network, tool};

/// Reads the line, enters what comes before `--`, becomes what comes after it. `read` of a shell takes no byte
/// beyond the line from a pipe (POSIX).
const SCRIPT: &str = r#"IFS= read -r line || exit 125
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; done
shift
exec "$@""#;

/// Longest wait for the end of a process that was killed, ms.
const KILL_MS: u64 = 60_000;

/// How a process is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Folders of the groups that it is in.
    pub groups: Vec<PathBuf>,
    /// Name of the network namespace that it is in.
    pub namespace: Option<String>,
    /// A time namespace in which `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` are this far ahead, s.
    pub offset_s: Option<i64>,
    /// Priority of `SCHED_FIFO`.
    pub fifo: Option<u8>,
    /// A system call that the kernel refuses it, and how our helper is started that sees to that.
    pub refused: Option<(Call, Launcher)>,
}

impl Run {
    /// A plain start.
    #[must_use]
    pub fn new(program: impl AsRef<Path>, args: &[&str]) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            groups: Vec::new(),
            namespace: None,
            offset_s: None,
            fifo: None,
            refused: None,
        }
    }

    /// In these groups.
    #[must_use]
    pub fn inside(mut self, groups: &Groups) -> Self {
        self.groups = groups.dirs();
        self
    }

    /// The program with the tools before it that put it where it belongs; all become it, so its number is theirs.
    ///
    /// # Errors
    /// A tool is not here.
    fn wrapped(&self) -> Result<Vec<String>, Failure> {
        let mut argv = Vec::new();
        let mut before = |words: &[&str]| {
            let program = tool::find(words[0]).ok_or_else(|| Failure::Tool {
                tool: words.join(" "),
                status: "is not installed".to_owned(),
                text: String::new(),
            })?;
            argv.push(program.display().to_string());
            argv.extend(words[1..].iter().map(|&word| word.to_owned()));
            Ok::<_, Failure>(())
        };
        if let Some(name) = &self.namespace {
            before(&["nsenter", &network::net_of(name), "--"])?;
        }
        if let Some(words) = self.offset_s.map(time_words) {
            before(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        if let Some(priority) = self.fifo {
            before(&["chrt", "-f", &priority.to_string()])?;
        }
        // The last: the others may need what a filter or its price, no new privileges, takes away.
        if let Some((call, launcher)) = &self.refused {
            argv.extend(call.words(launcher));
        }
        argv.push(self.program.display().to_string());
        argv.extend(self.args.iter().cloned());
        Ok(argv)
    }

    /// The command, which waits for a line on its stdin before it does anything.
    pub(super) fn command(&self, mark: &str) -> Result<Command, Failure> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "tailbeam-chaos"]).args(&self.groups);
        command.arg("--").args(self.wrapped()?);
        // A group of its own: Ctrl-C at the terminal is for the supervisor alone.
        command.env(MARK, mark).stdin(Stdio::piped()).process_group(0);
        Ok(command)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))?;
        if !self.groups.is_empty() {
            write!(f, ", in {} groups", self.groups.len())?;
        }
        if let Some(name) = &self.namespace {
            write!(f, ", in network namespace {name}")?;
        }
        if let Some(s) = self.offset_s {
            write!(f, ", with its monotonic clock {s} s ahead")?;
        }
        if let Some((call, _)) = &self.refused {
            write!(f, ", refused {}", call.name())?;
        }
        self.fifo.map_or(Ok(()), |priority| write!(f, ", at real-time priority {priority}"))
    }
}

/// Words before a program that put it into a time namespace, without a process between. Other users than root make
/// one in a user namespace, and need its rights to enter it.
///
/// `unshare` makes it for children only. Newer kernels let a program enter it by exec; on others (seen on 6.1) the
/// program could then start no threads, so it is entered by name.
pub(super) fn time_words(offset_s: i64) -> Vec<String> {
    let s = offset_s.to_string();
    let root = rustix::process::geteuid().is_root();
    let user: &[&str] = if root { &[] } else { &["--map-current-user", "--keep-caps"] };
    let make = ["-T", "--monotonic", &s, "--boottime", &s, "--"];
    let enter = ["nsenter", "--time=/proc/self/ns/time_for_children", "--"];
    let words = [&["unshare"], user, &make, &enter].concat();
    words.into_iter().map(str::to_owned).collect()
}

/// Lets a process that waits at its gate go on.
pub(super) fn open_gate(child: &mut Child) -> Result<(), Failure> {
    let pipe = child.stdin.as_mut().expect("stdin of a command is a pipe");
    pipe.write_all(b"\n").map_err(|error| failure::io(Path::new("the gate"), "open", error))
}

/// The process under test.
#[derive(Debug)]
pub struct Subject {
    child: Child,
    process: Process,
}

impl Subject {
    /// Starts it, recorded in the journal. `prepare` may set stdout, stderr, variables and folder of the command.
    ///
    /// When this returns it is in its groups or about to enter them; a program that must know reads `/proc`.
    ///
    /// # Errors
    /// The shell cannot be started, or the journal not written.
    pub fn start(
        journal: &mut Journal,
        run: &Run,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, Failure> {
        let mut command = run.command(journal.name())?;
        prepare(&mut command);
        let (child, process) = journal.start(&Step::Start { run: run.clone() }, command)?;
        Ok(Self { child, process })
    }

    /// Which process it is.
    #[must_use]
    pub const fn process(&self) -> Process {
        self.process
    }

    /// Its pipes.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end. `None`: the time was over first.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn ends_within(&mut self, ms: u64) -> Result<Option<ExitStatus>, Failure> {
        if !self.process.ends_within(ms)? {
            return Ok(None);
        }
        self.child.wait().map(Some).map_err(|error| failure::io(Path::new("it"), "wait for", error))
    }

    /// Kills it, and waits for its end. It must not be frozen.
    ///
    /// # Errors
    /// It does not end within 60 s: what a process of many agents has mapped is given back page by page, also on a host
    /// that is busy.
    pub fn kill(&mut self) -> Result<ExitStatus, Failure> {
        self.process.signal(Signal::KILL)?;
        let what = || format!("the end of {}", self.process);
        let slow = Failure::Slow { what: what(), ms: KILL_MS };
        self.ends_within(KILL_MS)?.ok_or(slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_that_place_it_come_in_their_order_and_become_it() {
        let mut run = Run::new("/bin/x", &["a b"]);
        assert_eq!(run.wrapped().unwrap(), ["/bin/x", "a b"]);
        run.namespace = Some("n".to_owned());
        run.offset_s = Some(-5);
        run.fifo = Some(7);
        let launcher = Launcher { program: "/bin/t".into(), args: vec!["help".to_owned()] };
        run.refused = Some((Call::IoUringSetup, launcher));
        let argv = run.wrapped().unwrap().join(" ");
        let order = [
            "nsenter --net=/run/n --",
            "unshare -T --monotonic -5",
            "nsenter --time=",
            "chrt -f 7",
            "/bin/t help -- refuse io_uring_setup /bin/x a b",
        ];
        let places: Vec<_> = order.iter().map(|part| argv.find(part)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{argv}");
    }
}
