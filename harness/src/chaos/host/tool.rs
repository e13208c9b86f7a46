//! External tools of the system, found at fixed places and run to their end.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fd::OwnedFd;

use super::failure::Failure;
use super::process::Process;

/// Where tools are looked for, in this order. The variable `PATH` is not ours to read.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Longest life of a tool, ms. The slowest is mkfs.ext4 of some GiB.
pub(super) const TOOL_MS: u64 = 20_000;

/// Where the tool is, if it is here.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| PathBuf::from(place).join(name)).find(|path| path.is_file())
}

/// Runs `argv` to its end and gives what it wrote to stdout.
///
/// `lifeline`, the end of a guard's pipe, becomes its stdin: the guard, which waits until the pipe has no writer,
/// so does not undo beside a tool that outlives its supervisor.
///
/// # Errors
/// It is not here, it fails, or it lives longer than 20 s and is killed.
pub(super) fn run(argv: &[&str], lifeline: Option<&OwnedFd>) -> Result<String, Failure> {
    let tool = argv.join(" ");
    let failed = |status: String, text: String| Failure::Tool { tool: tool.clone(), status, text };
    let (name, args) = argv.split_first().expect("a command has a name");
    let program = find(name).ok_or_else(|| failed("is not installed".into(), String::new()))?;
    let stdin = match lifeline {
        Some(line) => line.try_clone().map(Stdio::from),
        None => Ok(Stdio::null()),
    };
    let stdin = stdin.map_err(|error| failed("not started".into(), error.to_string()))?;
    // Error texts in English, whatever the user speaks: they go into reports.
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").stdin(stdin);
    let mut child = (command.stdout(Stdio::piped()).stderr(Stdio::piped()))
        .spawn()
        .map_err(|error| failed("not started".into(), error.to_string()))?;
    let process = Process::of(child.id())?;
    let over = process.ends_within(TOOL_MS)?;
    if !over {
        process.signal(rustix::process::Signal::KILL)?;
    }
    let mut said = (String::new(), String::new());
    let status =
        child.wait().map_err(|error| failed("not waited for".into(), error.to_string()))?;
    // These tools say little: a pipe's 64 KiB hold it until they have ended.
    let read = |text: &mut String, from: Option<&mut dyn std::io::Read>| {
        from.map_or(Ok(0), |from| from.take(65_536).read_to_string(text))
    };
    let out = child.stdout.as_mut().map(|out| out as &mut dyn std::io::Read);
    let error = child.stderr.as_mut().map(|error| error as &mut dyn std::io::Read);
    let both = read(&mut said.0, out).and_then(|_| read(&mut said.1, error));
    match (over, status.success(), both) {
        (false, ..) => Err(Failure::Slow { what: tool, ms: TOOL_MS }),
        (_, false, _) => Err(failed(format!("ended with {status}"), said.1.trim().to_owned())),
        (.., Err(error)) => Err(failed("said".into(), error.to_string())),
        _ => Ok(said.0),
    }
}
