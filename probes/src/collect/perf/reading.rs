//! One reading of all counters, as the kernel gave them; no meaning yet.

use super::kind::{KINDS, Kind};

/// Members that a group may have.
pub(super) const GROUP_MAX: usize = KINDS;

/// Words of the longest group: number, enabled, running, and value with id for the leader and each member.
pub(super) const WORDS_MAX: usize = 3 + 2 * (GROUP_MAX + 1);

/// How the reading of the group went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// There is no group, so what is known is exact.
    #[default]
    Ungrouped,
    /// The group was read.
    Counted,
    /// End of file: a pinned group lost its counters and is in error until it is enabled anew.
    Starved,
    /// read(2) failed with this errno.
    Failed(i32),
    /// The kernel answered with another number of words than the group has.
    Malformed,
    /// The group is another CPU's than the caller's; it was not read (5 to 13 us and an interrupt there).
    Elsewhere,
}

/// All counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// When, ns of `CLOCK_MONOTONIC`, as the caller says.
    pub at_ns: u64,
    /// The CPU that read.
    pub cpu: u32,
    /// How the group's reading went.
    pub state: State,
    /// How long the group was enabled, ns.
    pub enabled_ns: u64,
    /// How long it had its counters, ns.
    pub running_ns: u64,
    /// Raw values by [`Kind::index`]; of a kind without a source always 0, which means nothing.
    pub values: [u64; KINDS],
}

/// Which kind each member of a group counts, in the order in which members were added.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Members {
    kinds: [Option<Kind>; GROUP_MAX],
    count: usize,
    /// Whether the leader counts the first kind itself.
    leads: bool,
}

impl Members {
    /// Of a group whose leader counts nothing.
    pub(super) fn behind_dummy() -> Self {
        Self::default()
    }

    /// Of a group whose leader counts the first kind that is added.
    pub(super) fn led_by_first() -> Self {
        Self { leads: true, ..Self::default() }
    }

    pub(super) const fn add(&mut self, kind: Kind) {
        assert!(self.count < GROUP_MAX, "there are no more kinds than places");
        self.kinds[self.count] = Some(kind);
        self.count += 1;
    }

    /// Fills `into` from the words of a group: `nr, enabled, running, (value, id)...`, leader first,
    /// then the members as they were added (perf_read_group in kernel/events/core.c).
    pub(super) fn unpack(&self, words: &[u64], into: &mut Reading) -> State {
        let expected = self.count + usize::from(!self.leads);
        if words.is_empty() {
            return State::Starved;
        }
        if words.len() != 3 + 2 * expected || usize::try_from(words[0]) != Ok(expected) {
            return State::Malformed;
        }
        into.enabled_ns = words[1];
        into.running_ns = words[2];
        let values = words[3..].chunks_exact(2).skip(usize::from(!self.leads));
        for (kind, pair) in self.kinds.iter().flatten().zip(values) {
            into.values[kind.index()] = pair[0];
        }
        State::Counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_to_the_kinds_that_were_added() {
        let mut members = Members::behind_dummy();
        members.add(Kind::TaskClock);
        members.add(Kind::Instructions);
        let mut reading = Reading::default();
        let words = [3, 100, 60, 0, 1, 55, 2, 77, 3];
        assert_eq!(members.unpack(&words, &mut reading), State::Counted);
        assert_eq!((reading.enabled_ns, reading.running_ns), (100, 60));
        assert_eq!(reading.values[Kind::TaskClock.index()], 55);
        assert_eq!(reading.values[Kind::Instructions.index()], 77);
        assert_eq!(members.unpack(&words[..7], &mut reading), State::Malformed);
        assert_eq!(members.unpack(&[2, 1, 1, 0, 1, 5, 2], &mut reading), State::Malformed);
        assert_eq!(members.unpack(&[], &mut reading), State::Starved);
    }

    #[test]
    fn a_leader_that_counts_comes_first() {
        let mut members = Members::led_by_first();
        members.add(Kind::TaskClock);
        members.add(Kind::Switches);
        let mut reading = Reading::default();
        assert_eq!(members.unpack(&[2, 9, 9, 5, 1, 6, 2], &mut reading), State::Counted);
        assert_eq!(reading.values[Kind::TaskClock.index()], 5);
        assert_eq!(reading.values[Kind::Switches.index()], 6);
    }
}
