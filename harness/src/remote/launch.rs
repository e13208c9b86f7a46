//! Starts the second process of a run, and ends it.
//!
//! It is told its [`HomeConfig`] in one line of JSON on its stdin, and says in one line of its stdout where it listens
//! (JSON, a list of addresses). It ends when its stdin ends, however the first process does, and says in a last line what
//! it did ([`HomeReport`]).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use tailbeam_probes::clock;

use super::home::{HomeConfig, HomeReport};

/// Longest line that it may say, bytes.
const LINE_MAX: u64 = 1 << 16;
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

/// It runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Launched {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Launch {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(&self, config: &HomeConfig) -> Result<Launched, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("it has no stdout")?;
        let (stdout, addresses) = (BufReader::new(stdout), Vec::new());
        let mut launched = Launched { child, stdin, stdout, addresses };
        launched.begin(config)?;
        Ok(launched)
    }
}

impl Launched {
    fn begin(&mut self, config: &HomeConfig) -> Result<(), String> {
        let mut line = serde_json::to_string(config).map_err(|error| error.to_string())?;
        line.push('\n');
        let stdin = self.stdin.as_mut().ok_or("it has no stdin")?;
        stdin.write_all(line.as_bytes()).map_err(|error| format!("its stdin: {error}"))?;
        let said = self.line()?;
        self.addresses = serde_json::from_str(&said)
            .map_err(|_| format!("it did not say where it listens, but {said:?}"))?;
        match self.addresses.is_empty() {
            true => Err("it listens nowhere".to_owned()),
            false => Ok(()),
        }
    }

    /// What it says next.
    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let mut bounded = self.stdout.by_ref().take(LINE_MAX);
        bounded.read_line(&mut line).map_err(|error| format!("its stdout: {error}"))?;
        match line.trim() {
            "" => Err("it ended and said nothing".to_owned()),
            line => Ok(line.to_owned()),
        }
    }

    /// Ends it; what it says of what it did.
    pub(crate) fn end(mut self) -> Result<HomeReport, String> {
        self.stdin = None;
        let said = self.line()?;
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
