//! What a recorder of any program writes: who its threads are, what they used in each window, where they
//! were when they were sampled. The contract between [`crate::collect::program`], which fills these in,
//! and the analysis, which reads nothing else.
//!
//! Rows refer to others by number: threads, reasons, modules, stacks and names are numbered from 0 in the
//! order in which they are announced, over all frames of a run; threads from 1, as 0 is [`OTHERS`]. What is announced comes before what
//! refers to it, so a run that is cut anywhere is whole up to there. Instants are ns of
//! `CLOCK_MONOTONIC`.

use serde::{Deserialize, Serialize};

/// Number of [`What`]s.
pub const WHATS: usize = 14;
/// Number of a module that is the kernel; its addresses are absolute.
pub const KERNEL: u32 = u32::MAX - 1;
/// The row of threads for which the table had no room; it is never announced.
pub const OTHERS: u32 = 0;
/// Number of a module where an address lies in no file; the address is absolute.
pub const NOWHERE: u32 = u32::MAX;
/// The stack of samples for which the table had no room.
pub const STACK_NO_ROOM: u32 = u32::MAX;

/// What is counted of a thread or of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// On a CPU, ns.
    Cpu,
    /// Of that in user space, ns, in ticks.
    User,
    /// Of that in the kernel, ns, in ticks.
    System,
    /// Ready to run, but not running, ns.
    Wait,
    /// Switches away because it waited for something.
    Voluntary,
    /// Switches away while it could run.
    Involuntary,
    /// All switches away.
    Switches,
    /// Page faults without a disk.
    MinorFaults,
    /// Page faults that waited for a disk.
    MajorFaults,
    /// Moves to another CPU.
    Migrations,
    /// Core cycles.
    Cycles,
    /// Instructions retired.
    Instructions,
    /// Misses of the last cache.
    CacheMisses,
    /// Branches predicted wrong.
    BranchMisses,
}

impl What {
    /// All, in order.
    pub const ALL: [Self; WHATS] = [
        Self::Cpu,
        Self::User,
        Self::System,
        Self::Wait,
        Self::Voluntary,
        Self::Involuntary,
        Self::Switches,
        Self::MinorFaults,
        Self::MajorFaults,
        Self::Migrations,
        Self::Cycles,
        Self::Instructions,
        Self::CacheMisses,
        Self::BranchMisses,
    ];

    /// Its place in [`What::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As reports write it; times have the unit last.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu_ns",
            Self::User => "user_ns",
            Self::System => "system_ns",
            Self::Wait => "wait_ns",
            Self::Voluntary => "voluntary_switches",
            Self::Involuntary => "involuntary_switches",
            Self::Switches => "switches",
            Self::MinorFaults => "minor_faults",
            Self::MajorFaults => "major_faults",
            Self::Migrations => "migrations",
            Self::Cycles => "cycles",
            Self::Instructions => "instructions",
            Self::CacheMisses => "cache_misses",
            Self::BranchMisses => "branch_misses",
        }
    }
}

/// A count of a window, and how far to believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Count {
    /// As counted.
    Exact(u64),
    /// Counted by the kernel in whole ticks, or up to its last tick.
    Ticks(u64),
    /// Scaled from this many thousandths of the window, 900 to 998.
    Scaled(u64, u16),
    /// Scaled from less; for the eye, not for verdicts.
    Rough(u64, u16),
    /// Unknown, for the reason of this number.
    Unknown(u16),
}

impl Count {
    /// The count, where there is one.
    #[must_use]
    pub const fn known(self) -> Option<u64> {
        match self {
            Self::Exact(n) | Self::Ticks(n) | Self::Scaled(n, _) | Self::Rough(n, _) => Some(n),
            Self::Unknown(_) => None,
        }
    }
}

/// Why something is not known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Why {
    /// Where the figure would come from.
    pub source: String,
    /// What prevented it.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl From<&crate::Unavailable> for Why {
    fn from(why: &crate::Unavailable) -> Self {
        Self { source: why.source.to_owned(), cause: why.cause.clone(), remedy: why.remedy.clone() }
    }
}

/// How one part of the recording works here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// Which part: `profile`, `counters`, `cores`, `off-cpu`.
    pub part: String,
    /// What is measured, and by what.
    pub works: String,
    /// What is not, and why.
    pub missing: Vec<(String, Why)>,
}

/// The first frame of a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStart {
    /// Start, ns since 1970.
    pub started_unix_ns: u64,
    /// Start.
    pub start_ns: u64,
    /// First process.
    pub process: u32,
    /// It ran already.
    pub attached: bool,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Samples per second of CPU time of a thread; 0 without a profile.
    pub hz: u64,
    /// CPUs of the host.
    pub cpus: Vec<u32>,
    /// How each part works here.
    pub modes: Vec<Mode>,
}

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRow {
    /// Its process.
    pub process: u32,
    /// Its id.
    pub thread: u32,
    /// Its name when it was announced.
    pub name: String,
    /// When it was first seen; its birth where a record told it.
    pub since_ns: u64,
}

/// What a thread used in a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadWindow {
    /// Number of the thread.
    pub thread: u32,
    /// By [`What::index`].
    pub counts: [Count; WHATS],
}

/// Times off the CPU of a thread in a window, from switch records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffWindow {
    /// Number of the thread.
    pub thread: u32,
    /// Intervals in which it waited for something, and their sum and longest, ns.
    pub blocked: (u64, u64, u64),
    /// Intervals in which it could have run, and their sum and longest, ns.
    pub preempted: (u64, u64, u64),
}

/// What a core did in a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreWindow {
    /// CPU number.
    pub cpu: u32,
    /// Not idle and not stolen, ns: of all programs.
    pub busy_ns: Count,
    /// Idle, ns.
    pub idle_ns: Count,
    /// In interrupts of both kinds, ns; part of busy.
    pub irq_ns: Count,
    /// Taken by the host, ns.
    pub steal_ns: Count,
    /// Counters of the whole CPU by [`What::index`].
    pub counts: [Count; WHATS],
}

/// What the ring's records said about themselves in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingCounts {
    /// Samples.
    pub samples: u64,
    /// Records for which a ring had no room.
    pub lost: u64,
    /// Times that the kernel stopped sampling for a tick.
    pub throttled: u64,
    /// Records that are not as documented.
    pub broken: u64,
    /// Chains that were cut.
    pub cut: u64,
}

/// One window of counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramTick {
    /// Start of the window.
    pub from_ns: u64,
    /// End of the window.
    pub to_ns: u64,
    /// Reasons that are new.
    pub reasons: Vec<Why>,
    /// Threads that are new.
    pub born: Vec<ThreadRow>,
    /// Threads that have another name now.
    pub renamed: Vec<(u32, String)>,
    /// Threads that ended, and when that was seen.
    pub ended: Vec<(u32, u64)>,
    /// Threads that used anything.
    pub threads: Vec<ThreadWindow>,
    /// Times off the CPU, where they are recorded.
    pub off_cpu: Vec<OffWindow>,
    /// Cores.
    pub cores: Vec<CoreWindow>,
    /// Threads that live and are not in the table.
    pub left_out: u64,
    /// The rings.
    pub ring: RingCounts,
    /// CPU time of the recorder itself, ns.
    pub self_ns: u64,
}

/// A file whose code ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModuleRow {
    /// Path as mapped.
    pub path: String,
    /// GNU build-id, empty when it is not known.
    pub build_id: Vec<u8>,
}

/// A call chain: number of the module and offset in its file, innermost first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StackRow {
    /// Frames.
    pub frames: Vec<(u32, u64)>,
    /// There were more.
    pub cut: bool,
}

/// What samples refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStacks {
    /// Modules that are new.
    pub modules: Vec<ModuleRow>,
    /// Stacks that are new.
    pub stacks: Vec<StackRow>,
    /// Functions of the kernel at addresses that are new.
    pub kernel: Vec<(u64, String)>,
}

impl ProgramStacks {
    /// Nothing is new.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.modules.is_empty() && self.stacks.is_empty() && self.kernel.is_empty()
    }
}

/// A sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    /// Since the start of its frame, ns.
    pub after_ns: u64,
    /// Number of the thread.
    pub thread: u32,
    /// On which CPU.
    pub cpu: u32,
    /// Number of the stack.
    pub stack: u32,
}

/// Samples since the last such frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramSamples {
    /// Instant that the samples count from.
    pub from_ns: u64,
    /// Samples in order of time.
    pub samples: Vec<SampleRow>,
}

/// What the kernel counted of the whole program, threads and processes that no look has seen included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramTotal {
    /// In user space, ns.
    pub user_ns: u64,
    /// In the kernel, ns.
    pub system_ns: u64,
    /// Page faults without a disk.
    pub minor_faults: u64,
    /// Page faults with one.
    pub major_faults: u64,
    /// Switches because it waited; unknown of an attached program.
    pub voluntary: Option<u64>,
    /// Switches while it could run; unknown of an attached program.
    pub involuntary: Option<u64>,
    /// Largest resident set, bytes; unknown of an attached program.
    pub rss_max_bytes: Option<u64>,
}

/// The last frame of a recording that was ended orderly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramEnd {
    /// `program ended`, `duration`, `interrupted` or `disk budget`.
    pub reason: String,
    /// End, ns since 1970.
    pub ended_unix_ns: u64,
    /// End.
    pub end_ns: u64,
    /// The kernel's totals: by wait4(2) of a program that we started, by /proc of another.
    pub total: Option<ProgramTotal>,
    /// Samples that were not written: the table of stacks or the disk budget was full.
    pub samples_left_out: u64,
    /// CPU time of the recorder, ns.
    pub self_ns: u64,
}

/// The bytes of a frame of this module.
///
/// # Panics
/// Never: these types are plain numbers, texts and lists.
#[must_use]
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain values have bytes")
}

/// The value of a frame's bytes; `None` when they are damaged or of another version.
#[must_use]
pub fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_survives_its_bytes_and_is_small() {
        let window = ThreadWindow { thread: 3, counts: [Count::Exact(7); WHATS] };
        let tick = ProgramTick { threads: vec![window], ..ProgramTick::default() };
        let bytes = postcard::to_allocvec(&tick).unwrap();
        assert!(bytes.len() < 60, "{}", bytes.len());
        assert_eq!(postcard::from_bytes::<ProgramTick>(&bytes), Ok(tick));
        for (place, what) in What::ALL.into_iter().enumerate() {
            assert_eq!(what.index(), place);
        }
    }
}
