//! Flags of `soak`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tailbeam_harness::plan::{CostPlan, Plant, SlowPlant, Span};

use crate::args::{
    CoreList, Format, Kinds, ProgressMode, cores, count, decoy, duration, kinds, plant,
    sample_bytes, slow, span,
};
use crate::protocol_args::ProtocolArgs;
use crate::serve::Address;

/// How a run measures what its own measuring costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OwnCost {
    /// In each window of 10 s one second without measuring, beside one with it
    Pairs,
    /// Four seconds of each window without measuring: the cost is known after 30 s, and half of the requests have
    /// no stages
    Often,
    /// The seconds of `often` compared with nothing switched: this must find no difference
    Same,
    /// Not at all
    Off,
}

impl From<OwnCost> for CostPlan {
    fn from(how: OwnCost) -> Self {
        match how {
            OwnCost::Pairs => Self::Pairs,
            OwnCost::Often => Self::Often,
            OwnCost::Same => Self::Same,
            OwnCost::Off => Self::Off,
        }
    }
}

/// A soak, or the rest of one.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// Go on with a run whose process died, by its own plan: id, unique prefix, @last, @last~N or @TAG
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<String>,
    /// Print the systemd-run line that runs this as a unit of its own, which outlives the terminal, and stop
    #[arg(long)]
    pub(crate) print_systemd_run: bool,
    /// Print the JSON Schema of files for --scenario, by which editors complete and check them, and stop
    #[arg(long)]
    pub(crate) scenario_schema: bool,
    #[command(flatten)]
    pub(crate) soak: Soak,
}

/// Flags that a run which is continued takes; every other is in its plan.
pub(crate) const RESUMABLE: [&str; 11] = [
    "resume",
    "print_systemd_run",
    "listen",
    "listen_public",
    "board",
    "log_home",
    "second",
    "progress",
    "format",
    "store",
    "config",
];

#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// Workload; the first one listed by an error is the default
    #[arg(long)]
    pub(crate) workload: Option<String>,
    /// Agents, all live at once (10_000, 10k, 1m)
    #[arg(long, default_value = "10k", value_parser = count)]
    pub(crate) agents: u64,
    /// Time during which requests are due
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) duration: u64,
    /// Think time, a range
    #[arg(long, default_value = "1s..5s", value_parser = span)]
    pub(crate) think: Span,
    /// Responder's planned delay, a range; the workload's own when not given
    #[arg(long, value_parser = span)]
    pub(crate) delay: Option<Span>,
    /// Kinds of requests with a delay each, such as 70%:30ms,20%:80ms,10%:100ms..300ms
    #[arg(long, value_name = "KINDS", value_parser = kinds, overrides_with = "delay")]
    pub(crate) kinds: Option<Kinds>,
    /// Deadline of a request
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) timeout: u64,
    /// Cores: auto, or a list such as 0,2-5
    #[arg(long, default_value = "auto", value_parser = cores)]
    pub(crate) cores: CoreList,
    /// Seed of every draw
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Gates instead of the default ones, such as 'p99<300ms,delivery>=99.9%'
    #[arg(long, value_name = "GATES")]
    pub(crate) gate: Vec<String>,
    /// Open requests an agent may have
    #[arg(long, default_value_t = 16)]
    pub(crate) open_max: u32,
    /// Requests a responder may hold
    #[arg(long, default_value_t = 64)]
    pub(crate) pending_max: u32,
    /// Mean distance between heap samples (64KiB, 512KiB), or off
    #[arg(long, default_value = "64KiB", value_name = "BYTES", value_parser = sample_bytes)]
    pub(crate) heap_sample: u32,
    /// The program may fill its structures this long before leaks are judged [default: 30m]
    #[arg(long, value_parser = duration)]
    pub(crate) warm_up: Option<u64>,
    /// A backlog may last this long and is no leak [default: 30m]
    #[arg(long, value_parser = duration)]
    pub(crate) horizon: Option<u64>,
    /// Plant a leak, to test the detector: kind=forgotten-insert,rate=2MB/h,agent=17 (kinds: forgotten-insert,
    /// rc-cycle, growing-vec, forgotten-task, orphan, kept-waker, c-library; agent=all)
    #[arg(long, value_name = "PLANT", value_parser = plant)]
    pub(crate) plant_leak: Vec<Plant>,
    /// Plant what must not be called a leak: bounded-cache, warm-up, plateau, backlog, fragmentation
    #[arg(long, value_name = "DECOY", value_parser = decoy)]
    pub(crate) plant_decoy: Vec<Plant>,
    /// Plant slowness, to test the attribution: kind=compute,ms=5,agent=17,every=10 (kinds: compute, alloc,
    /// faults, timer, flood)
    #[arg(long, value_name = "SLOW", value_parser = slow)]
    pub(crate) plant_slow: Vec<SlowPlant>,
    /// How the run measures what its own measuring costs
    #[arg(long, value_enum, default_value = "pairs", value_name = "HOW")]
    pub(crate) own_cost: OwnCost,
    /// After the load run a closed loop for this long, to measure what measuring costs where the cores have nothing to
    /// spare; its requests are in no figure of the run
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) saturate: Option<u64>,
    /// Serve the sums of the run to a scraper at /metrics: 127.0.0.1:9464, or unix:PATH. OpenMetrics or text, as
    /// it accepts
    #[arg(long, value_parser = crate::serve::parse, value_name = "ADDRESS")]
    pub(crate) listen: Option<Address>,
    /// Let --listen take an address that other hosts can reach: whoever reaches it can read
    #[arg(long, requires = "listen")]
    pub(crate) listen_public: bool,
    /// What a supervisor shares with this process; it ends with its supervisor
    #[arg(long, hide = true, value_name = "PATH")]
    pub(crate) board: Option<PathBuf>,
    /// Where the second process listens that a supervisor has started, a core each
    #[arg(long, hide = true, requires = "board", value_name = "ADDRESSES", value_delimiter = ',')]
    pub(crate) second: Vec<std::net::SocketAddr>,
    /// Where the event logs lie that are to outlive this process
    #[arg(long, hide = true, requires = "board", value_name = "DIR")]
    pub(crate) log_home: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) protocol: ProtocolArgs,
    /// Progress on stderr
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: ProgressMode,
    /// Format of the report
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}
