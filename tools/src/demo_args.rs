//! Flags of `demo`.

use clap::Args;

use crate::args::{Format, ProgressMode, count, duration};

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Agents, all live at once
    #[arg(long, default_value = "2k", value_parser = count)]
    pub(crate) agents: u64,
    /// Time during which requests are due
    #[arg(long, default_value = "40s", value_parser = duration)]
    pub(crate) duration: u64,
    /// Progress on stderr
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: ProgressMode,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}
