//! Flags of `runs`.

use clap::{Args, Subcommand};

use super::{Format, age, bytes};

#[derive(Debug, Args)]
pub(crate) struct Runs {
    #[command(subcommand)]
    pub(crate) command: RunsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List the runs, oldest first
    List {
        /// Format
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// One run: where it is, how it ended, its marks and files
    Show {
        /// Id, unique prefix, @last, @last~N or @TAG
        run: String,
        /// Format
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// The directory of a run
    Path {
        /// Id, unique prefix, @last, @last~N or @TAG
        run: String,
    },
    /// Give a run a name, to be used as @NAME; a name moves from the run that had it
    #[command(
        after_help = "Examples:\n  tailbeam runs tag @last base\n  tailbeam report @base\n  tailbeam runs tag --remove base"
    )]
    Tag(TagArgs),
    /// Keep a run: gc and rm leave it
    Pin {
        /// Id, unique prefix, @last, @last~N or @TAG
        run: String,
        /// Take the pin away
        #[arg(long)]
        remove: bool,
    },
    /// Remove runs; shows what would go, and does it with --yes
    Rm {
        /// Ids, unique prefixes, @last, @last~N or @TAG
        #[arg(required = true)]
        run: Vec<String>,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Remove old runs; shows what would go, and does it with --yes
    #[command(
        after_help = "Examples:\n  tailbeam runs gc --older-than 30d\n  tailbeam runs gc --max 20GiB --keep 5 --yes\n\nThe oldest go first. Pinned and certified runs never go, nor one that may still be recorded."
    )]
    Gc(GcArgs),
    /// Look for torn and damaged runs: file and offset of each place; changes nothing
    #[command(
        after_help = "Examples:\n  tailbeam runs fsck\n  tailbeam runs fsck @last --format json\n\nExit code: 0 when nothing is damaged (a run that was cut by a crash is not: all that was synced is there), 6 otherwise;\nwith --strict also for a run that is cut."
    )]
    Fsck(FsckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Run: id, unique prefix, @last, @last~N or @TAG
    #[arg(required_unless_present = "remove")]
    pub(crate) run: Option<String>,
    /// Name
    #[arg(required_unless_present = "remove")]
    pub(crate) name: Option<String>,
    /// Take this name away
    #[arg(long, value_name = "NAME", conflicts_with_all = ["run", "name"])]
    pub(crate) remove: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Runs that are older (30d, 12h)
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<u64>,
    /// The oldest, until the store is no larger than this
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) max: Option<u64>,
    /// Keep the newest runs, whatever their age and size
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) keep: usize,
    /// Do it
    #[arg(long)]
    pub(crate) yes: bool,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Runs; all when none is given
    pub(crate) run: Vec<String>,
    /// A run that is cut is an error, too
    #[arg(long)]
    pub(crate) strict: bool,
    /// Format
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}
