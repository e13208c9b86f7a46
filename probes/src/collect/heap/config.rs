//! What a program asks of the sampler, and why it may be refused.

use std::path::PathBuf;

/// How to sample. `HeapConfig::new(path)` gives the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct HeapConfig {
    /// The state file; it is created, or emptied.
    pub path: PathBuf,
    /// Mean distance between samples, bytes: 1 ..= 2^31. Default 512 KiB.
    pub mean_bytes: u32,
    /// Record every object.
    pub exact: bool,
    /// Most objects in the live table: when it is full, the mean doubles and the table is thinned; in
    /// exact mode further objects are lost, and counted. Default 65,536, exact 1,048,576.
    pub objects_max: u32,
    /// Share of one core that sampling may cost, for example 0.005. The mean then follows the rate of
    /// allocation, between 4 KiB and 16 MiB. Default none: the mean stays.
    pub budget: Option<f64>,
    /// Command line, for titles. Default empty.
    pub command: String,
    /// First length of a birth epoch, ns; doubles when 64 are used. Default 1 s.
    pub epoch_ns: u64,
    /// Seed of the draws; 0 takes one from the kernel. Default 0.
    pub seed: u64,
    /// What a forked child does. Default [`OnFork::Stop`].
    pub on_fork: OnFork,
    /// Walk stacks by unwind tables first, as programs without frame pointers need it; a few ns per
    /// frame instead of one. Default false: by frame pointers, and by tables where they break.
    pub tables: bool,
    /// Time is what the last `tick` said, for tests. Default false: `CLOCK_MONOTONIC`.
    pub manual_clock: bool,
}

/// What a forked child does about sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFork {
    /// It samples no more; blocks sampled before the fork are freed as usual. The parent's file is
    /// never written by the child.
    #[default]
    Stop,
    /// It goes on in a copy of the state, in a file of its own: the path, a dot and its process id.
    Own,
}

impl HeapConfig {
    /// Samples into `path` with a mean of 512 KiB.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> HeapConfig {
        HeapConfig {
            path: path.into(),
            mean_bytes: 512 << 10,
            exact: false,
            objects_max: 1 << 16,
            budget: None,
            command: String::new(),
            epoch_ns: 1_000_000_000,
            seed: 0,
            on_fork: OnFork::Stop,
            tables: false,
            manual_clock: false,
        }
    }

    /// Records every object into `path`, at most 1,048,576 at a time.
    #[must_use]
    pub fn exact(path: impl Into<PathBuf>) -> HeapConfig {
        HeapConfig { exact: true, mean_bytes: 1, objects_max: 1 << 20, ..HeapConfig::new(path) }
    }

    pub(super) fn check(&self) -> Result<(), HeapError> {
        let wrong = |what| Err(HeapError::Config { what });
        if self.mean_bytes == 0 || self.mean_bytes > 1 << 31 {
            return wrong("mean_bytes is not in 1 ..= 2^31");
        }
        if self.exact && self.mean_bytes != 1 {
            return wrong("exact mode has mean_bytes 1");
        }
        if self.objects_max == 0 || self.objects_max > 1 << 24 {
            return wrong("objects_max is not in 1 ..= 2^24");
        }
        if self.epoch_ns == 0 || self.epoch_ns > 1 << 50 {
            return wrong("epoch_ns is not in 1 ..= 2^50");
        }
        if self.budget.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
            return wrong("budget is not between 0 and 1");
        }
        Ok(())
    }
}

/// Why sampling did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeapError {
    /// The configuration contradicts itself.
    #[error("heap sampling cannot start: {what}")]
    Config {
        /// The contradiction.
        what: &'static str,
    },
    /// The state file could not be made, or the disk has no room for all of it. It is reserved at
    /// once, because a store into a mapped file that finds the disk full kills the program.
    #[error(
        "heap sampling cannot start: {path}: {error}; choose a directory with {bytes} bytes free"
    )]
    File {
        /// The state file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// Memory for the tables, or the address range for sampled blocks, was refused.
    #[error(
        "heap sampling cannot start: the kernel refused {bytes} bytes of address space: {error}; raise `ulimit -v`"
    )]
    Memory {
        /// Bytes that were asked for.
        bytes: u64,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// A process has one sampler, and it has started.
    #[error("heap sampling runs in this process already")]
    Running,
    /// The program's allocator is not ours, so nothing would be seen.
    #[error(
        "TailbeamAlloc is not this program's global allocator; add `#[global_allocator] static A: TailbeamAlloc = TailbeamAlloc;`"
    )]
    NoAllocator,
}
