//! The same work on Tailbeam's runtime and on its peers, on the same cores, in one interleaved run.
//!
//! The parent starts one child process per round and peer, in the order A B .. B A, so that a drift of the
//! machine falls on all alike. A child pins its threads, touches its memory first, works for some seconds
//! and prints one line. Beside each child a probe looks for stalls; before and after it a cache line goes
//! there and back. Rounds with a stall, or on CPUs that lay otherwise afterwards, are repeated and counted.
//!
//! Reading order: [`bench`] what is measured; [`peers`] by whom; [`rounds`], [`verdict`] which rounds count;
//! [`measure`] what a child does; [`table`] what is printed.

mod bench;
mod child;
mod clock;
mod crowd;
mod echo;
mod figure;
mod hiccup;
mod histogram;
mod measure;
mod order;
mod peers;
mod place;
mod rounds;
mod sheet;
mod stats;
mod table;
mod usage;
mod verdict;
mod worker;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::bench::Bench;
use crate::figure::Line;
use crate::peers::Peer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compare agent runtimes, side by side on two cores
#[derive(Debug, Clone, Parser)]
pub(crate) struct Args {
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ask")]
    bench: Vec<Bench>,
    /// Peers, the first is the baseline of the ratios; all of them when none is named
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::value_variants().to_vec())]
    peers: Vec<Peer>,
    /// Agents of `ask`, each with one ask outstanding
    #[arg(long, default_value_t = 10_000)]
    agents: u32,
    /// Agents of `light`, each asking every 100 ms
    #[arg(long, default_value_t = 10_000)]
    thinkers: u32,
    /// Agents of `spawn` and `idle`, pending timers of `timers`
    #[arg(long, default_value_t = 1_000_000)]
    crowd: u32,
    /// Connections of `echo`, each with one request outstanding
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// Whose client asks the servers of `echo`; each peer's own when none is named
    #[arg(long, value_enum)]
    client: Option<Peer>,
    /// Seconds per round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Clean rounds per peer
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// A round that takes longer is killed and counted as hung, s
    #[arg(long, default_value_t = 60.0)]
    limit: f64,
    /// Time between two looks for stalls, us; with 0 no round is thrown away for one
    #[arg(long, default_value_t = 500)]
    probe_us: u32,
    /// Run one peer in this process and print its line
    #[arg(long, value_enum, hide = true)]
    child: Option<Peer>,
    /// Serve `echo` in this process
    #[arg(long, value_enum, hide = true)]
    serve: Option<Peer>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(peer) = args.child {
        child(peer, &args);
    }
    let done = match args.serve {
        Some(peer) => echo::serve(peer),
        None => parent(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints and leaves at once: some peers' threads never end.
fn child(peer: Peer, args: &Args) -> ! {
    // A worker's panic must not leave a round that measures the rest.
    std::panic::set_hook(Box::new(|info| leave(&Line::Failed(info.to_string()))));
    let line = measure::run(peer, args.bench[0], args);
    leave(&line.unwrap_or_else(Line::Failed))
}

fn leave(line: &Line) -> ! {
    // A line of strings and numbers always has a text.
    println!("{}", serde_json::to_string(line).unwrap_or_default());
    std::process::exit(0)
}

fn parent(args: &Args) -> Result<(), String> {
    let cores = place::cores()?;
    if args.agents < 2
        || args.thinkers < 2
        || args.crowd == 0
        || args.connections == 0
        || args.peers.is_empty()
    {
        return Err("two agents, two thinkers, a crowd of one, a connection and a peer are needed"
            .to_owned());
    }
    let mut broken = Vec::new();
    for bench in Bench::expand(&args.bench) {
        let (records, cost) = rounds::run(bench, args, cores, &mut |line| eprintln!("{line}"));
        println!("{}", table::render(bench, args, &records, &cost));
        let bad = args.peers.iter().zip(&records).filter(|(_, it)| it.hung + it.failed > 0);
        broken
            .extend(bad.map(|(peer, _)| format!("{} {}", child::name(&bench), child::name(peer))));
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("hung or failed: {}", broken.join(", "))) }
}

#[cfg(test)]
impl Args {
    /// Small ones.
    pub(crate) fn for_tests() -> Self {
        Self {
            bench: vec![Bench::Ask],
            peers: Peer::value_variants().to_vec(),
            agents: 10,
            thinkers: 10,
            crowd: 100,
            seconds: 0.01,
            rounds: 1,
            limit: 10.0,
            probe_us: 500,
            child: None,
            connections: 10,
            client: None,
            serve: None,
        }
    }
}
