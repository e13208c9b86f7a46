//! Flags of `latency` and `counters`.

use clap::{Args, ValueEnum};

use super::{Format, duration};
use crate::render::latency;

/// What requests are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LatencyBy {
    /// Bands of the distribution, each with its stages
    Band,
    /// Stages, beside each other for all bands
    Stage,
    /// Cores that answered, and what each core did
    Core,
    /// Agents that weigh most
    Agent,
    /// Kinds of agent
    Type,
}

impl From<LatencyBy> for latency::By {
    fn from(by: LatencyBy) -> Self {
        match by {
            LatencyBy::Band => Self::Band,
            LatencyBy::Stage => Self::Stage,
            LatencyBy::Core => Self::Core,
            LatencyBy::Agent => Self::Agent,
            LatencyBy::Type => Self::Type,
        }
    }
}

/// What makes the exit code 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LatencyFailOn {
    /// Stages do not add up to the latency, or a core's parts not to its time
    Conservation,
}

#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    /// Id, unique prefix, @last, @last~N, or the directory of a run
    #[arg(required_unless_present = "schema")]
    pub(crate) run: Option<String>,
    /// What requests are sorted by [default: band]
    #[arg(long, value_enum)]
    pub(crate) by: Option<LatencyBy>,
    /// List the slowest requests, each with its stages and what it waited behind [default: 20 of them]
    #[arg(long, value_name = "N", num_args = 0..=1)]
    pub(crate) outliers: Option<Option<usize>>,
    /// Only requests that this agent asked or answered, drawn ones too
    #[arg(long, value_name = "N")]
    pub(crate) agent: Option<u32>,
    /// From this time after the start on (10s, 2h); whole windows
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) from: Option<u64>,
    /// Up to this time after the start
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) to: Option<u64>,
    /// Exit with 3 when it is so, with 4 when that cannot be said
    #[arg(long, value_enum, value_name = "VERDICT")]
    pub(crate) fail_on: Option<LatencyFailOn>,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Print the JSON Schema of `--format json` and stop
    #[arg(long)]
    pub(crate) schema: bool,
}

/// What counts are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CountersPer {
    /// Seconds in which they were counted
    Second,
    /// Requests that the core answered
    Request,
}

impl From<CountersPer> for latency::counters::Per {
    fn from(per: CountersPer) -> Self {
        match per {
            CountersPer::Second => Self::Second,
            CountersPer::Request => Self::Request,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CountersArgs {
    /// Id, unique prefix, @last, @last~N, or the directory of a run
    #[arg(required_unless_present = "schema")]
    pub(crate) run: Option<String>,
    /// Only this CPU
    #[arg(long, value_name = "CPU")]
    pub(crate) core: Option<u64>,
    /// What counts are divided by
    #[arg(long, value_enum, default_value = "second")]
    pub(crate) per: CountersPer,
    /// Length of a row; doubled until there are no more than --rows [default: 100ms]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) every: Option<u64>,
    /// Rows of a core at most
    #[arg(long, default_value = "30", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rows: u32,
    /// From this time after the start on (10s, 2h); whole windows
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) from: Option<u64>,
    /// Up to this time after the start
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) to: Option<u64>,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Print the JSON Schema of `--format json` and stop
    #[arg(long)]
    pub(crate) schema: bool,
}
