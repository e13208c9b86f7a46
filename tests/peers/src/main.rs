//! The same work on Tailbeam's runtime and on its peers, on the same cores, in one interleaved run.
//!
//! The parent starts one child process per round and peer, in the order A B .. B A, so that a drift of the
//! machine falls on all alike. A child pins its threads, touches its memory first, works for some seconds
//! and prints one line.

mod order;
mod peers;
mod place;
mod sheet;
mod table;

use std::process::{Command, ExitCode, Stdio};

use clap::Parser;

use crate::sheet::Outcome;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compare agent runtimes at closed-loop asks to random agents
#[derive(Debug, Clone, Parser)]
pub(crate) struct Args {
    /// Agents, each with one ask outstanding
    #[arg(long, default_value_t = 10_000)]
    agents: u32,
    /// Seconds per round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds per peer
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Peers, the first is the baseline of the ratios
    #[arg(long, value_delimiter = ',', default_value = "tokio-ct,tokio-mt,tailbeam")]
    peers: Vec<String>,
    /// Run one peer in this process and print its line
    #[arg(long, hide = true)]
    child: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.child {
        Some(peer) => child(peer, &args),
        None => parent(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn child(peer: &str, args: &Args) -> Result<(), String> {
    let outcome = peers::run(peer, args)?;
    println!("{}", serde_json::to_string(&outcome).map_err(|error| error.to_string())?);
    Ok(())
}

fn parent(args: &Args) -> Result<(), String> {
    let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); args.peers.len()];
    for (round, turn) in order::interleaved(args.peers.len(), args.rounds as usize).enumerate() {
        for index in turn {
            let peer = &args.peers[index];
            let outcome = start(peer, args)?;
            eprintln!(
                "round {} {peer}: {:.2} M asks/s, {}",
                round + 1,
                outcome.per_s / 1e6,
                outcome.regime
            );
            outcomes[index].push(outcome);
        }
    }
    print!("{}", table::render(args, &outcomes));
    Ok(())
}

fn start(peer: &str, args: &Args) -> Result<Outcome, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["--child", peer, "--agents", &args.agents.to_string()])
        .args(["--seconds", &args.seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).map_err(|error| format!("{peer}: {error}: {text}"))
}
