//! The tailbeam command line, for the built-in workload and for your own agents.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use tailbeam::{AgentInfo, Cx, ReplyTo, Workload};
//!
//! struct Echo;
//! impl Workload for Echo {
//!     const NAME: &'static str = "echo";
//!     const ABOUT: &'static str = "says it again";
//!     type Request = String;
//!     type Reply = String;
//!     fn new(_: AgentInfo) -> Self { Echo }
//!     fn request(&mut self, k: u64) -> String { format!("hello {k}") }
//!     async fn serve(&mut self, text: String, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
//!         reply.send(cx, text);
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     tailbeam::run_with(tailbeam::workloads![Echo])
//! }
//! ```
#![forbid(unsafe_code)]

mod args;
mod certify_args;
mod chaos_args;
mod command;
mod compare_args;
mod config;
mod demo_args;
mod presets;
mod progress;
mod protocol_args;
mod record_args;
pub mod render;
mod scenario;
mod serve;
mod soak_args;
mod top;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

pub use tailbeam_harness::load::{
    AgentInfo, AnyWorkload, Ask, Cx, Draw, Elicit, Entry, Poll, ReplyTo, Secure, Settled, Stream,
    Workload,
};
pub use tailbeam_harness::plan::Span;
pub use tailbeam_probes::collect::heap::TailbeamAlloc;

/// The list of workloads that a command line offers; the first is the default.
#[macro_export]
macro_rules! workloads {
    ($($workload:ty),+ $(,)?) => {
        &[$(&$crate::Entry::<$workload>::NEW as &'static dyn $crate::AnyWorkload),+]
    };
}

/// How a command ended without a result.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl ToString) -> Self {
        Self { code, text: text.to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // A reader that has seen enough (`| head`) is no failure.
        let code = u8::from(error.kind() != io::ErrorKind::BrokenPipe);
        Self::new(
            code,
            format!("cannot write the result\n  cause: {error}\n  remedy: check where stdout goes"),
        )
    }
}

/// The process's command line with these workloads: `fn main() -> ExitCode { run_with(workloads![Mine]) }`.
#[must_use]
pub fn run_with(workloads: &'static [&'static dyn AnyWorkload]) -> ExitCode {
    ExitCode::from(run(std::env::args_os(), workloads, &mut io::stdout(), &mut io::stderr()))
}

/// Reads a scenario file as `soak --scenario` does and returns the flags that it stands for; nothing is run. `name` is the
/// file's, for errors.
///
/// # Errors
/// One text with the line and column, a cause and a remedy.
pub fn scenario_flags(name: &str, text: &str) -> Result<Vec<OsString>, String> {
    let cli = <args::Cli as clap::CommandFactory>::command();
    let soak = cli.find_subcommand("soak").ok_or("this program has no soak")?;
    scenario::flags(name, text, soak)
}

/// Runs a command line; results go to `out`, everything else to `err`. Returns the exit code.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    workloads: &'static [&'static dyn AnyWorkload],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let outcome = match args::parse(args, workloads) {
        Ok(parsed) => command::run(parsed, workloads, out, err),
        Err(args::Unparsed::Config(text)) => {
            let written = writeln!(err, "error: {text}");
            return if written.is_ok() { 2 } else { 1 };
        }
        Err(args::Unparsed::Flags(error)) => {
            // clap's own text: help and version are results, the rest are usage errors.
            let usage = error.use_stderr();
            let written = match usage {
                true => err.write_all(args::usage(&error).as_bytes()),
                false => write!(out, "{error}"),
            };
            return if usage { 2 } else { u8::from(written.is_err()) };
        }
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            if failure.code != 0 {
                // Nothing is left to tell an unwritable stderr to.
                let _ = writeln!(err, "error: {}", failure.text);
            }
            failure.code
        }
    }
}
