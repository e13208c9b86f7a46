//! Flags of `compare` and `scale`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::{ProgressMode, count, duration};
use crate::protocol_args::share;

/// How a comparison or a series is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PageFormat {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// Markdown
    Md,
    /// One HTML file that needs no network
    Html,
}

/// What both commands take.
#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// Time during which requests of a run are due
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: u64,
    /// Seed of orders and schedules
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// A named shape of load for every run, as `soak --preset`
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Rest between two runs
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) cool_down: u64,
    /// Progress on stderr
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: ProgressMode,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: PageFormat,
    /// Print the JSON Schema of `--format json` and stop
    #[arg(long)]
    pub(crate) schema: bool,
    /// Further flags of `soak` for every run, after --
    #[arg(last = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Side A: a workload, a preset, a scenario file (.toml), or stored runs (@last, an id, several with commas)
    pub(crate) a: Option<String>,
    /// Side B
    pub(crate) b: Option<String>,
    /// Compute a stored comparison anew from its runs: id, unique prefix, @last or @last~N
    #[arg(long, value_name = "COMPARISON", conflicts_with_all = ["a", "b", "a_bin", "b_bin"])]
    pub(crate) from: Option<String>,
    /// Agents, all live at once (10_000, 10k, 1m) [default: the preset's, else 10k]
    #[arg(long, value_parser = count)]
    pub(crate) agents: Option<u64>,
    /// Pairs; a claim needs 6
    #[arg(long, default_value_t = 6)]
    pub(crate) pairs: usize,
    /// Blocks in which A runs against itself, for the noise floor [default: as many as pairs]
    #[arg(long, value_name = "BLOCKS")]
    pub(crate) aa: Option<usize>,
    /// Flags of `soak` for A only
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true, default_value = "")]
    pub(crate) a_args: String,
    /// Flags of `soak` for B only
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true, default_value = "")]
    pub(crate) b_args: String,
    /// Program of A, instead of this one
    #[arg(long, value_name = "PATH")]
    pub(crate) a_bin: Option<PathBuf>,
    /// Program of B, instead of this one
    #[arg(long, value_name = "PATH")]
    pub(crate) b_bin: Option<PathBuf>,
    /// A run during which the host took more of the CPUs than this is left out
    #[arg(long, value_name = "SHARE", default_value = "1%", value_parser = share)]
    pub(crate) steal_max: f64,
    /// A run during which other programs had a core for more than this is left out
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    pub(crate) others_max: f64,
    /// Polling intervals to choose from where a side is wait_for_messages, beside the long-poll; off: none
    #[arg(long, value_name = "TIMES", default_value = "1s,300ms,100ms,30ms,10ms")]
    pub(crate) sweep: String,
    #[command(flatten)]
    pub(crate) shared: Shared,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Largest fleet
    #[arg(long, default_value = "1m", value_parser = count)]
    pub(crate) to: u64,
    /// Fleets at equal ratios from 10 on, or the smallest that the plan allows [default: that one and the powers of ten]
    #[arg(long, value_name = "K")]
    pub(crate) points: Option<usize>,
    /// Runs that narrow down where it stops to keep up
    #[arg(long, default_value_t = 2)]
    pub(crate) refine: usize,
    /// Workload [default: the first]
    #[arg(long)]
    pub(crate) workload: Option<String>,
    /// P99 up to which a fleet keeps up
    #[arg(long, default_value = "300ms", value_parser = duration)]
    pub(crate) limit: u64,
    /// Compute a stored series anew from its runs: id, unique prefix, @last or @last~N
    #[arg(long, value_name = "SERIES")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) shared: Shared,
}
