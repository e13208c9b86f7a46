//! What is counted, and where each count comes from.

use crate::Unavailable;

/// Number of [`Kind`]s.
pub const KINDS: usize = 10;

/// What a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Time on a CPU, ns; of a CPU's group: time of that CPU.
    TaskClock,
    /// Core cycles.
    Cycles,
    /// Instructions retired.
    Instructions,
    /// Accesses that the last level of cache did not have (the kernel's generic cache-misses).
    CacheMisses,
    /// Branches predicted wrong.
    BranchMisses,
    /// Page faults of both kinds.
    PageFaults,
    /// Page faults that waited for a disk.
    MajorFaults,
    /// Context switches away from the thread.
    Switches,
    /// Those of them at which the thread could have run on.
    Preemptions,
    /// Moves to another CPU.
    Migrations,
}

impl Kind {
    /// All, in order.
    pub const ALL: [Self; KINDS] = [
        Self::TaskClock,
        Self::Cycles,
        Self::Instructions,
        Self::CacheMisses,
        Self::BranchMisses,
        Self::PageFaults,
        Self::MajorFaults,
        Self::Switches,
        Self::Preemptions,
        Self::Migrations,
    ];

    /// Those that need a PMU.
    pub const HARDWARE: [Self; 4] =
        [Self::Cycles, Self::Instructions, Self::CacheMisses, Self::BranchMisses];

    /// Its place in [`Kind::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As perf(1) and reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TaskClock => "task-clock",
            Self::Cycles => "cycles",
            Self::Instructions => "instructions",
            Self::CacheMisses => "cache-misses",
            Self::BranchMisses => "branch-misses",
            Self::PageFaults => "page-faults",
            Self::MajorFaults => "major-faults",
            Self::Switches => "context-switches",
            Self::Preemptions => "preemptions",
            Self::Migrations => "cpu-migrations",
        }
    }
}

/// Which work a count covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// User space and kernel.
    All,
    /// User space only: what the kernel did for the thread is unknown.
    User,
}

/// Where a count comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The door of the kernel: "perf", "getrusage", "CLOCK_THREAD_CPUTIME_ID".
    pub name: &'static str,
    /// What it covers.
    pub scope: Scope,
    /// Whether it is a member of the group, so that the group's times tell its quality. What is not,
    /// counts always.
    pub grouped: bool,
}

/// For each [`Kind`] its source, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Support {
    sources: [Result<Source, Unavailable>; KINDS],
}

impl Support {
    /// Asks `of` for each kind.
    #[must_use]
    pub fn new(of: impl FnMut(Kind) -> Result<Source, Unavailable>) -> Self {
        Self { sources: Kind::ALL.map(of) }
    }

    /// Where `kind` comes from.
    ///
    /// # Errors
    /// Why it is not counted.
    pub const fn of(&self, kind: Kind) -> Result<&Source, &Unavailable> {
        self.sources[kind.index()].as_ref()
    }

    pub(super) fn set(&mut self, kind: Kind, source: Result<Source, Unavailable>) {
        self.sources[kind.index()] = source;
    }

    /// Kinds with a source.
    pub fn counted(&self) -> impl Iterator<Item = (Kind, &Source)> {
        Kind::ALL.into_iter().filter_map(|kind| self.of(kind).ok().map(|source| (kind, source)))
    }

    /// Kinds without one, and why.
    pub fn missing(&self) -> impl Iterator<Item = (Kind, &Unavailable)> {
        Kind::ALL.into_iter().filter_map(|kind| self.of(kind).err().map(|why| (kind, why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_lie_where_they_say() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), place);
        }
        let mut names = Kind::ALL.map(Kind::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
