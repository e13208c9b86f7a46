//! Errors. An operation that fails gives back what it took.

use std::io;

/// Why a runtime did not start: cause and remedy in each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// `kernel.io_uring_disabled` forbids rings to this process.
    #[error(
        "io_uring is disabled\n  cause: kernel.io_uring_disabled is {value}\n  remedy: sysctl -w kernel.io_uring_disabled=0"
    )]
    Disabled {
        /// Value of the sysctl.
        value: String,
    },
    /// EPERM although the sysctl allows rings.
    #[error(
        "io_uring_setup was refused (EPERM)\n  cause: a seccomp profile, as containers have by default, forbids it\n  remedy: run outside the container or allow io_uring_setup, io_uring_enter and io_uring_register in its profile"
    )]
    Refused,
    /// ENOSYS.
    #[error(
        "this kernel has no io_uring\n  cause: io_uring_setup answered ENOSYS\n  remedy: use Linux 6.1 or newer with CONFIG_IO_URING"
    )]
    Missing,
    /// The kernel is older than what is needed.
    #[error(
        "this kernel's io_uring lacks {feature}\n  cause: it is older than Linux 6.1\n  remedy: use Linux 6.1 or newer"
    )]
    TooOld {
        /// What is missing.
        feature: &'static str,
    },
    /// ENOMEM: the ring does not fit the locked-memory limit.
    #[error(
        "no memory for a ring of {entries} entries\n  cause: RLIMIT_MEMLOCK is too low\n  remedy: ulimit -l unlimited, or fewer cores"
    )]
    Memlock {
        /// Entries asked for.
        entries: u32,
    },
    /// EMFILE.
    #[error(
        "no file descriptor left\n  cause: RLIMIT_NOFILE is reached\n  remedy: ulimit -n 65536"
    )]
    Files,
    /// Any other answer of the kernel.
    #[error(
        "cannot {action}\n  cause: {source}\n  remedy: `tailbeam doctor` tells what this host lacks"
    )]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A core outside the allowed ones was asked for.
    #[error(
        "core {core} is not allowed\n  cause: the affinity mask of this process holds {allowed:?}\n  remedy: name cores of that list, or widen it with taskset or cpuset"
    )]
    CoreNotAllowed {
        /// Asked for.
        core: usize,
        /// Mask.
        allowed: Vec<usize>,
    },
    /// A core was named twice, none was named, or more than 255 were.
    #[error(
        "the list of cores {cores:?} cannot be used\n  cause: {cause}\n  remedy: name 1 to 255 different cores"
    )]
    CoreList {
        /// Asked for.
        cores: Vec<usize>,
        /// Why not.
        cause: &'static str,
    },
    /// The thread runs on another mask than the one that was set.
    #[error(
        "the shard of core {core} could not be pinned\n  cause: its affinity mask reads back as {found:?}\n  remedy: check cpuset.cpus.effective of this process' cgroup"
    )]
    NotPinned {
        /// Wanted.
        core: usize,
        /// Read back.
        found: Vec<usize>,
    },
    /// A limit of the config cannot work.
    #[error("{name} is {value}\n  cause: it must be {rule}\n  remedy: change the limit")]
    Limit {
        /// Field of the config.
        name: &'static str,
        /// Value.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
}

/// A message that was not taken. It is always handed back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<M> {
    /// The mailbox holds as many messages as its agent allows.
    Full(M),
    /// The ring to the target's core is full, or the queue of the own core.
    RingFull(M),
    /// The agent has ended.
    Gone(M),
}

impl<M> SendError<M> {
    /// The message.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::RingFull(message) | Self::Gone(message) => message,
        }
    }
}

/// The shard's agent table is full; the agent is handed back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard's table of {max} agents is full")]
pub struct SpawnError<A> {
    /// What was to be spawned.
    pub agent: A,
    /// Bound.
    pub max: u32,
}

/// A supervisor has no place for another child, which is handed back.
#[derive(Debug, thiserror::Error)]
#[error("the supervisor has {max} relations, as many as Config::relations_max allows")]
pub struct AddError {
    /// What was to be added.
    pub spec: Box<crate::ChildSpec>,
    /// Bound.
    pub max: u32,
}

/// The shard's timer table is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard's table of timers is full")]
pub struct TimersFull;

/// Why an ask got no answer.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskError<M> {
    /// The message could not be sent.
    Send(SendError<M>),
    /// No answer came before the deadline.
    Expired,
    /// No answer came before the deadline, for the asked agent waits for the asker: a deadlock of that many
    /// agents. Found half way to the deadline.
    Cycle {
        /// Agents of the cycle.
        agents: u32,
    },
    /// The callee has dropped the reply: it failed, ended, or will not answer; or its core has skipped the
    /// question, for the deadline was over.
    Dropped,
    /// The shard has no slot or timer for another ask.
    Full,
}

/// The shard has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard has ended")]
pub struct Stopped;

/// Why an operation on a socket or a file failed. What it was given comes back beside it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The shard has `ops_max` operations: wait for some, or raise the limit.
    #[error("the shard's table of operations is full")]
    Full,
    /// Another future waits for the same side of this stream, listener or file.
    #[error("another future waits for the same thing")]
    Busy,
    /// The shard ends.
    #[error("the shard has ended")]
    Closed,
    /// The kernel's answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OpError {
    /// The kernel's answer, if it is one.
    #[must_use]
    pub const fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }

    /// The error of a negated errno.
    pub(crate) fn errno(result: i32) -> Self {
        Self::Io(io::Error::from_raw_os_error(-result))
    }

    /// A count, or the error of a negated errno.
    pub(crate) fn check(result: i32) -> Result<usize, Self> {
        usize::try_from(result).map_err(|_| Self::errno(result))
    }
}
