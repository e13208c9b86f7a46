//! Flags of `chaos`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tailbeam_harness::chaos::board::Defence;

use crate::args::{ProgressMode, count, duration, span};
use crate::compare_args::PageFormat;
use tailbeam_harness::plan::Span;

/// A defence that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Broken {
    /// Requests do not end at their deadline: network_partition fails
    Expiry,
    /// A restart does not restore its log: process_crash fails
    Replay,
    /// Damaged copies are read without checksums: event_store_corruption fails
    Checksum,
    /// Mailboxes have no bound: slow_consumer fails
    Mailbox,
    /// A request that there is no memory for keeps what it has taken: memory_exhaustion fails
    Cleanup,
    /// Who asks is told before the log has it: disk_io_stress fails
    Ack,
}

impl From<Broken> for Defence {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Expiry => Self::Expiry,
            Broken::Replay => Self::Replay,
            Broken::Checksum => Self::Checksum,
            Broken::Mailbox => Self::Mailbox,
            Broken::Cleanup => Self::Cleanup,
            Broken::Ack => Self::Ack,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// Scenarios, or faults of them as in cpu_throttling/quota
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["all", "list", "from", "schema", "swarm", "file", "resume"])]
    pub(crate) scenarios: Vec<String>,
    /// Every scenario
    #[arg(long, conflicts_with = "scenarios")]
    pub(crate) all: bool,
    /// So many sets of two or three faults at once, drawn by --seed
    #[arg(long, value_name = "ROUNDS", conflicts_with_all = ["scenarios", "all"])]
    pub(crate) swarm: Option<u32>,
    /// Scenarios of a TOML file instead of the program's
    #[arg(long, value_name = "FILE", conflicts_with = "swarm")]
    pub(crate) file: Option<PathBuf>,
    /// Show the scenarios, their faults and what this host can do of them, and stop
    #[arg(long)]
    pub(crate) list: bool,
    /// Show what would be done and undone, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Judge a recorded series again: id, unique prefix, @last or @last~N
    #[arg(long, value_name = "SERIES", conflicts_with_all = ["scenarios", "all", "swarm"])]
    pub(crate) from: Option<String>,
    /// Go on with a series that was cut off, as it was asked for; what it has whole is not run again
    #[arg(long, value_name = "SERIES", conflicts_with_all = ["scenarios", "all", "swarm", "file", "list", "dry_run", "from", "agents", "think", "injections", "hold", "baseline", "patience", "seed", "broken", "flags"])]
    pub(crate) resume: Option<String>,
    /// Agents, all live at once (10_000, 10k, 1m)
    #[arg(long, default_value = "10k", value_parser = count)]
    pub(crate) agents: u64,
    /// Think time, a range
    #[arg(long, default_value = "1s..5s", value_parser = span)]
    pub(crate) think: Span,
    /// Injections of each fault; a PASS needs 5
    #[arg(long, default_value_t = 5)]
    pub(crate) injections: u32,
    /// How long a fault lasts
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) hold: u64,
    /// Time without faults that says what is usual; in less than a minute the noise of a host is not seen
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) baseline: u64,
    /// How long a recovery is waited for
    #[arg(long, default_value = "65s", value_parser = duration)]
    pub(crate) patience: u64,
    /// Seed of the load and of the instants of injection
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Switch a defence of the subject off, to see that the scenario which guards it fails; such a series never passes
    #[arg(long = "break", value_enum, value_name = "DEFENCE")]
    pub(crate) broken: Option<Broken>,
    /// Progress on stderr
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: ProgressMode,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: PageFormat,
    /// Print the JSON Schema of `--format json` and stop
    #[arg(long)]
    pub(crate) schema: bool,
    /// Further flags of `soak` for every subject, after --
    #[arg(last = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// What was done
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct HelperArgs {
    /// What to take
    #[arg(value_name = "WORDS", allow_hyphen_values = true, num_args = 1..)]
    pub(crate) words: Vec<String>,
}
