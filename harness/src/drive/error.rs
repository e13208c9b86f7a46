//! Why a run could not be made, each with cause and remedy.

use tailbeam_runtime::StartError;

use crate::evidence::StoreError;
use crate::plan::PlanError;

/// Which exit code fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveErrorKind {
    /// The request itself was wrong (exit 2).
    Usage,
    /// The host cannot run it as it stands (exit 5).
    HostNotReady,
    /// Something failed on the way (exit 1).
    Failed,
    /// Evidence on disk is damaged (exit 6).
    Damaged,
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// The plan asks for what no run can have.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Too many different latency limits.
    #[error(
        "{asked} different latency limits\n  cause: a run counts at most {max} exactly\n  remedy: judge the others later with `tailbeam report RUN --gate ..`"
    )]
    TooManyLimits {
        /// Asked for.
        asked: usize,
        /// Bound.
        max: usize,
    },
    /// A count does not fit the runtime's tables.
    #[error(
        "{asked} {what}\n  cause: a table index has 32 bits\n  remedy: use more cores or fewer agents"
    )]
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        asked: u64,
    },
    /// The agents would not fit into memory.
    #[error(
        "{agents} agents need about {} MB of memory\n  cause: {} MB are available to this process\n  remedy: ask for fewer agents, or give the host or its cgroup more memory",
        .needed / 1_000_000, .available / 1_000_000
    )]
    Memory {
        /// Agents asked for.
        agents: u64,
        /// Bytes needed, an estimate.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// The run would not fit into the store.
    #[error(
        "the run needs about {} kB of free space in its store\n  cause: {} kB are free there\n  remedy: free space, or name another store with --store DIR or TAILBEAM_STORE",
        .needed / 1_000, .available / 1_000
    )]
    StoreFull {
        /// Bytes needed, an estimate.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The runtime did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Agents could not be spawned.
    #[error(
        "{live} of {asked} agents could be spawned\n  cause: {cause}\n  remedy: ask for fewer agents or give the host more memory"
    )]
    Spawn {
        /// Alive.
        live: u64,
        /// Asked for.
        asked: u64,
        /// Why.
        cause: String,
    },
    /// The log could not be written. Windows synced before stay readable.
    #[error(
        "cannot write the run in {path}\n  cause: {cause}\n  remedy: free space or name another store with --store DIR; `tailbeam report` reads the windows that were synced"
    )]
    Record {
        /// Run directory.
        path: String,
        /// Why.
        cause: String,
    },
    /// The event log of an owner could not be begun.
    #[error(
        "cannot begin an event log in {path}\n  cause: {cause}\n  remedy: name a store on a disk with room with --store DIR"
    )]
    EventLog {
        /// Where.
        path: String,
        /// Why.
        cause: String,
    },
    /// The second process cannot be had.
    #[error("there is no second process\n  cause: {cause}\n  remedy: {remedy}")]
    Second {
        /// Why.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A run cannot be continued.
    #[error("run {run} cannot be resumed\n  cause: {cause}\n  remedy: {remedy}")]
    NotResumable {
        /// Its id.
        run: String,
        /// Why.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A run that was to be continued is damaged; with cause and remedy.
    #[error("{0}")]
    Damaged(String),
    /// What ran beside the load panicked.
    #[error(
        "what ran beside the load has panicked\n  cause: a mistake in it, see stderr\n  remedy: report it; the run itself is readable"
    )]
    BesidePanicked,
    /// A shard ended before the run did.
    #[error(
        "core {core} stopped during the run\n  cause: its thread has ended\n  remedy: go on with it with --resume, all agents made anew; `tailbeam report` reads the windows that were synced; stderr says why it ended, report that"
    )]
    ShardGone {
        /// Shard index.
        core: usize,
    },
}

impl DriveError {
    /// Which exit code fits.
    #[must_use]
    pub const fn kind(&self) -> DriveErrorKind {
        match self {
            Self::Plan(_)
            | Self::TooManyLimits { .. }
            | Self::TooMany { .. }
            | Self::NotResumable { .. } => DriveErrorKind::Usage,
            Self::Damaged(_) => DriveErrorKind::Damaged,
            Self::Start(_) | Self::Memory { .. } | Self::StoreFull { .. } => {
                DriveErrorKind::HostNotReady
            }
            _ => DriveErrorKind::Failed,
        }
    }
}
