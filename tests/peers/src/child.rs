//! One round in a process of its own, which is killed when it takes too long.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;

use crate::Args;
use crate::bench::Bench;
use crate::peers::Peer;
use crate::verdict::End;

/// Runs a round of `peer`; every outcome of it is a value.
pub(crate) fn run(peer: Peer, bench: Bench, args: &Args) -> End {
    match start(peer, bench, args) {
        Ok(child) => wait(child, args.limit),
        Err(error) => End::Failed(error.to_string()),
    }
}

fn start(peer: Peer, bench: Bench, args: &Args) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    if bench == Bench::Spawn {
        // What was freed stays, for the second time is to find its memory touched.
        command.env("MIMALLOC_PURGE_DELAY", "-1");
    }
    command
        .args(["--child", &name(&peer), "--bench", &name(&bench)])
        .args(["--agents", &args.agents.to_string()])
        .args(["--thinkers", &args.thinkers.to_string()])
        .args(["--crowd", &args.crowd.to_string()])
        .args(["--connections", &args.connections.to_string()])
        .args(args.client.iter().flat_map(|client| ["--client".to_owned(), name(client)]))
        .args(["--seconds", &args.seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
}

/// As it is written on the command line.
pub(crate) fn name<V: ValueEnum>(value: &V) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn wait(mut child: Child, limit_s: f64) -> End {
    let (send, receive) = mpsc::channel();
    let output = child.stdout.take();
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(output) = output {
            // What cannot be read is not a line, and said so below.
            let _ = BufReader::new(output).read_line(&mut text);
        }
        let _ = send.send(text);
    });
    let said = receive.recv_timeout(Duration::from_secs_f64(limit_s));
    // It has said all that it has to say, or nothing in time.
    let _ = child.kill();
    let status = child.wait();
    match said {
        Ok(text) => serde_json::from_str(text.trim()).map_or_else(
            |_| End::Failed(format!("{}, said {text:?}", status_of(status))),
            End::Said,
        ),
        Err(RecvTimeoutError::Timeout) => End::Hung(limit_s),
        Err(RecvTimeoutError::Disconnected) => End::Failed("its output was lost".to_owned()),
    }
}

fn status_of(status: std::io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}
