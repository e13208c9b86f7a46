//! `second`: the second process of a run, which hosts half of its responders. A run starts it, or a supervisor does.

use std::io::{BufRead as _, Read as _, Write, stdin};

use rustix::process::{Signal, set_parent_process_death_signal};
use tailbeam_harness::remote::{Home, HomeConfig, HomeReport, Launch, Second};
use tailbeam_probes::collect::process;

use super::Outcome;
use crate::Failure;

/// Longest line that it is told, bytes.
const LINE_MAX: u64 = 1 << 20;

/// How a run starts it: this program again.
pub(super) fn launch() -> Result<Second, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(
            1,
            format!(
                "cannot find this program\n  cause: {error}\n  remedy: start it by its whole path"
            ),
        )
    })?;
    Ok(Second::Launch(Launch { program, args: vec!["second".to_owned()] }))
}

fn failed(cause: &dyn std::fmt::Display) -> Failure {
    let text = format!(
        "the second process cannot serve\n  cause: {cause}\n  remedy: this command is for `tailbeam soak --responders tcp` and `tailbeam chaos`, which start it"
    );
    Failure::new(1, text)
}

/// Serves until stdin ends.
pub(super) fn run(out: &mut dyn Write) -> Outcome {
    // Whoever started it may be killed: it must not be left over.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(&error))?;
    let mut line = String::new();
    let mut stdin = stdin().lock();
    stdin.by_ref().take(LINE_MAX).read_line(&mut line).map_err(|error| failed(&error))?;
    let config: HomeConfig =
        serde_json::from_str(&line).map_err(|_| failed(&"its first line is no configuration"))?;
    let home = Home::start(config).map_err(|error| failed(&error))?;
    say(out, home.addresses())?;
    // Nothing more is said to it: what comes is thrown away, and the end is the end.
    std::io::copy(&mut stdin, &mut std::io::sink()).map_err(|error| failed(&error))?;
    let report = home.end();
    say(out, &HomeReport { cpu_ns: process::cpu_time_ns().ok(), ..report })?;
    Ok(0)
}

fn say(out: &mut dyn Write, value: &(impl serde::Serialize + ?Sized)) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(|error| failed(&error))?;
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
