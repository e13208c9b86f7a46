//! Faults by name: what this host can do of each, its steps, and the counter that proves it.

mod probe;
mod proof;
mod steps;

use std::path::PathBuf;

use super::Host;
use super::cgroups::Groups;
use super::process::Process;
use super::step::{Rule, VethPair};

pub use proof::{Bite, Proof};

/// What an injector can do on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// As it is described.
    Available,
    /// Another fault is to be injected for it.
    Replaced {
        /// Which, in words.
        by: String,
        /// Which.
        with: Box<Injector>,
        /// Why.
        why: String,
    },
    /// Not at all: a scenario that needs it is inconclusive.
    Impossible {
        /// What prevents it.
        cause: String,
        /// What the reader can do.
        remedy: String,
    },
}

/// Scheduling class of a hog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HogClass {
    /// As every process: it shares the core.
    Fair,
    /// `SCHED_FIFO`: it has the core, up to `sched_rt_runtime_us` of each second.
    Fifo,
}

/// A file system of our own, on an image in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopDisk {
    /// The image.
    pub image: PathBuf,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Its size, bytes: 16 MiB or more.
    pub bytes: u64,
}

/// How a link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The link is down: nothing passes, either way.
    Down,
    /// What comes in to one end is dropped; the other way is open.
    Into(End),
    /// This share of what comes in to one end is dropped at random, percent.
    Loss(End, u8),
}

/// An end of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// That of the first namespace.
    First,
    /// That of the second.
    Second,
}

/// A fault from outside the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injector {
    /// The subject gets this much CPU time, in thousandths of one core.
    CpuQuota {
        /// 500: half of one core, for all its threads together.
        millicores: u32,
    },
    /// Another process computes on a core.
    CpuHog {
        /// The core.
        core: usize,
        /// How it is scheduled.
        class: HogClass,
        /// Its life at most, ms; undoing ends it before.
        life_ms: u64,
    },
    /// One thread of the subject is held.
    ThreadHold {
        /// The thread, as `/proc/PID/task` names it.
        tid: u32,
    },
    /// All threads of the subject are held.
    Freeze,
    /// SIGSTOP of the whole process; needs no right beyond its owner's.
    Stop,
    /// SIGKILL; to start it again is the supervisor's part.
    Kill,
    /// A nice value; a user other than root may only raise it, and not set it back.
    Nice {
        /// -20 to 19.
        nice: i32,
    },
    /// The subject's group gets this much memory, and no swap.
    MemoryLimit {
        /// Bytes, in whole pages.
        bytes: u64,
    },
    /// A process inside the subject's group holds memory.
    Ballast {
        /// How much.
        bytes: u64,
        /// Its life at most, ms; undoing ends it before.
        life_ms: u64,
    },
    /// Reads and writes of the subject on the device below a folder.
    DiskThrottle {
        /// The folder.
        dir: PathBuf,
        /// Bytes per second, reads and writes each.
        bytes_per_s: u64,
    },
    /// Not a fault: makes the disk that the next two are done to.
    LoopDisk {
        /// The disk.
        disk: LoopDisk,
    },
    /// The disk is full.
    FillDisk {
        /// The disk.
        disk: LoopDisk,
    },
    /// The power of the disk is cut. Undone by unmounting and mounting again: end who has files open there first.
    PowerCut {
        /// The disk.
        disk: LoopDisk,
    },
    /// Not a fault: makes two namespaces with a cable between them.
    NetPair {
        /// The ends.
        pair: VethPair,
    },
    /// The cable is cut.
    NetPartition {
        /// The ends.
        pair: VethPair,
        /// How.
        cut: Cut,
    },
    /// The subject's monotonic clock is ahead; a way of starting it, [`Run::offset_s`](super::Run::offset_s).
    TimeNamespace {
        /// By how much, s.
        offset_s: i64,
    },
    /// The running subject may open only so many files.
    FdLimit {
        /// Files.
        max: u64,
    },
    /// The subject may have only so many threads and processes.
    PidsLimit {
        /// Tasks.
        max: u64,
    },
}

/// What a fault is injected into.
#[derive(Debug, Clone, Copy)]
pub struct On<'a> {
    /// The host.
    pub host: &'a Host,
    /// Groups of the subject.
    pub groups: &'a Groups,
    /// The subject.
    pub process: Option<Process>,
    /// The helper that the steps started: for the proof of a hog.
    pub helper: Option<Process>,
}

impl Host {
    /// A disk of our own, not made yet.
    #[must_use]
    pub fn disk(&self, suffix: &str, bytes: u64) -> LoopDisk {
        let name = format!("{}{suffix}", self.name);
        let image = self.dir.join(format!("{name}.img"));
        LoopDisk { image, dir: self.dir.join(format!("{name}.mnt")), bytes }
    }

    /// Two namespaces, not made yet. The addresses are of a block for tests of networks (RFC 2544).
    #[must_use]
    pub fn veth_pair(&self) -> VethPair {
        VethPair {
            namespaces: ["a", "b"].map(|end| format!("{}-{end}", self.name)),
            device: "chaos0".to_owned(),
            addresses: ["198.18.0.1", "198.18.0.2"].map(str::to_owned),
        }
    }
}

impl Cut {
    /// Namespace and rule of a filter; None: no filter is used.
    fn filter(self, pair: &VethPair) -> Option<(&str, Rule)> {
        let [first, second] = &pair.namespaces;
        let of = |end| if end == End::First { first.as_str() } else { second.as_str() };
        match self {
            Self::Down => None,
            Self::Into(end) => Some((of(end), Rule::Drop)),
            Self::Loss(end, percent) => Some((of(end), Rule::Loss(percent))),
        }
    }
}
