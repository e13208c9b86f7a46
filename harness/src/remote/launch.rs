//! Starts the second process of a run, and ends it.
//!
//! It is told its [`HomeConfig`] in one line of JSON on its stdin, and says in one line of its stdout where it listens
//! (JSON, a list of addresses). It ends when its stdin ends, however the first process does, and says in a last line what
//! it did ([`HomeReport`]).

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use tailbeam_probes::clock;

use super::home::{HomeConfig, HomeReport};

/// Longest line that it may say, bytes.
const LINE_MAX: u64 = 1 << 16;
/// Lines of it that are read.
const LINES_MAX: usize = 16;
/// How long it may take to listen, ns.
const BEGIN_NS: u64 = 60_000_000_000;
/// How long it may take to end, ns.
const END_NS: u64 = 20_000_000_000;

/// How it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// What a process says, line by line, read beside whoever waits for it: it may be stopped in the middle of one.
#[derive(Debug)]
pub struct Lines(Receiver<Result<String, String>>);

impl Lines {
    /// Of a pipe; at most 64 KiB a line, and sixteen lines.
    #[must_use]
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let (told, said) = mpsc::sync_channel(LINES_MAX);
        // It ends with the pipe, which ends with the process.
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            for _ in 0..LINES_MAX {
                let mut line = String::new();
                let read = pipe.by_ref().take(LINE_MAX).read_line(&mut line);
                let over = !matches!(read, Ok(1..));
                let line = read.map(|_| line.trim().to_owned()).map_err(|e| e.to_string());
                if told.send(line).is_err() || over {
                    return;
                }
            }
        });
        Self(said)
    }

    /// What it says next, within so many ns.
    ///
    /// # Errors
    /// It says nothing in that time, or has ended.
    pub fn next(&self, within_ns: u64) -> Result<String, String> {
        match self.0.recv_timeout(Duration::from_nanos(within_ns)) {
            Ok(Ok(line)) if !line.is_empty() => Ok(line),
            Ok(Ok(_)) | Err(RecvTimeoutError::Disconnected) => {
                Err("it ended and said nothing".to_owned())
            }
            Ok(Err(error)) => Err(format!("its stdout: {error}")),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("it said nothing in {} s", within_ns / 1_000_000_000))
            }
        }
    }
}

/// It runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Launched {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Launch {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(&self, config: &HomeConfig) -> Result<Launched, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: Ctrl-C at the terminal is for the first process, which has answers to wait for.
        command.process_group(0);
        let mut child =
            command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let stdin = child.stdin.take();
        let lines = Lines::of(child.stdout.take().ok_or("it has no stdout")?);
        let mut launched = Launched { child, stdin, lines, addresses: Vec::new() };
        let stdin = launched.stdin.as_mut().ok_or("it has no stdin")?;
        launched.addresses = begin(config, stdin, &launched.lines)?;
        Ok(launched)
    }
}

/// Tells a second process what it is, and gives where it listens.
///
/// # Errors
/// It does not listen.
pub fn begin(
    config: &HomeConfig,
    stdin: &mut impl Write,
    lines: &Lines,
) -> Result<Vec<SocketAddr>, String> {
    let mut line = serde_json::to_string(config).map_err(|error| error.to_string())?;
    line.push('\n');
    // One that has ended takes nothing any more; what it has said before tells more than that.
    let told = stdin.write_all(line.as_bytes());
    let said = lines.next(BEGIN_NS).map_err(|why| match &told {
        Ok(()) => why,
        Err(error) => format!("{why} (its stdin: {error})"),
    })?;
    let addresses: Vec<SocketAddr> = serde_json::from_str(&said)
        .map_err(|_| format!("it did not say where it listens, but {said:?}"))?;
    match addresses.is_empty() {
        true => Err("it listens nowhere".to_owned()),
        false => Ok(addresses),
    }
}

impl Launched {
    /// Ends it; what it says of what it did.
    pub(crate) fn end(mut self) -> Result<HomeReport, String> {
        self.stdin = None;
        let said = self.lines.next(END_NS)?;
        let until_ns = clock::monotonic_ns() + END_NS;
        while clock::monotonic_ns() < until_ns {
            if self.child.try_wait().map_err(|error| error.to_string())?.is_some() {
                return serde_json::from_str(&said)
                    .map_err(|_| format!("it did not say what it did, but {said:?}"));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Err("it did not end when its stdin did, and was killed".to_owned())
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.stdin = None;
        // One that has ended cannot be killed, and one that was waited for is not waited for again.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Launch {
        Launch { program: "/bin/sh".into(), args: vec!["-c".to_owned(), script.to_owned()] }
    }

    fn config() -> HomeConfig {
        let plan = crate::plan::Plan::soak("elicitation");
        HomeConfig::of(&plan, [0; 32], (std::net::Ipv4Addr::LOCALHOST.into(), 0))
    }

    #[test]
    fn one_that_says_something_else_or_nothing_is_no_second_process() {
        let said = |script: &str| shell(script).start(&config()).unwrap_err();
        assert!(said("exit 3").contains("said nothing"));
        assert!(said("read x; echo hello; cat").contains("hello"));
        assert!(said("read x; echo '[]'; cat").contains("nowhere"));
        let none = Launch { program: "/does/not/exist".into(), args: Vec::new() };
        assert!(none.start(&config()).unwrap_err().contains("/does/not/exist"));
    }

    #[test]
    fn it_ends_with_its_stdin_and_says_what_it_did() {
        let serves = "read x; echo '[\"127.0.0.1:1\"]'; cat > /dev/null; ";
        let report = serde_json::to_string(&HomeReport { asked: 7, ..HomeReport::default() });
        let script = format!("{serves} echo '{}'", report.unwrap());
        let launched = shell(&script).start(&config()).unwrap();
        assert_eq!(launched.addresses.len(), 1);
        assert_eq!(launched.end().unwrap().asked, 7);
        let silent = shell(&format!("{serves} exit 0")).start(&config()).unwrap();
        assert!(silent.end().unwrap_err().contains("said nothing"));
    }
}
