//! What a simulation did: a hash of all of it, and the last of it.

use std::fmt;

use super::calls::Kind;
use super::rng::mix;

/// Decisions that are kept.
const KEPT: usize = 64;

/// What was done to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A round; the turns of agents in it.
    Round(u64),
    /// It looked once more before it slept; it did sleep.
    Slept,
    /// It must not sleep.
    Stayed,
    Woke,
    WokeEarly,
    Waited,
    Ended,
    /// A bell arrived.
    Bell,
    /// The stopping thread took a step; no shard.
    Stop,
    /// Time went on with nothing to do; no shard.
    Jump,
    /// A job from outside.
    Job,
    /// The core was taken away.
    Stall,
    /// The kernel has got an operation, and tries it after so many ns.
    Begun(Kind, u64),
    /// The descriptor of an operation has become ready; it is tried after so many ns.
    Ready(Kind, u64),
    /// An operation is to be cancelled after so many ns.
    Cancels(Kind, u64),
    /// It was tried, and waits for its descriptor.
    Blocks(Kind),
    /// It was tried, and says a count or a negated errno.
    Done(Kind, i32),
    /// It says that its buffer is not read any more.
    Freed(Kind),
}

/// What was decided about an operation.
const fn of_op(what: u64, kind: Kind, detail: u64) -> u64 {
    mix(detail).wrapping_add((what << 8 | kind as u64) << 32 | 1 << 63)
}

impl What {
    const fn code(self) -> u64 {
        match self {
            Self::Round(turns) => 16 + turns,
            Self::Slept => 0,
            Self::Stayed => 1,
            Self::Woke => 2,
            Self::WokeEarly => 3,
            Self::Waited => 4,
            Self::Ended => 5,
            Self::Bell => 6,
            Self::Stop => 7,
            Self::Jump => 8,
            Self::Job => 9,
            Self::Stall => 10,
            Self::Begun(kind, ns) => of_op(1, kind, ns),
            Self::Ready(kind, ns) => of_op(2, kind, ns),
            Self::Cancels(kind, ns) => of_op(3, kind, ns),
            Self::Blocks(kind) => of_op(4, kind, 0),
            Self::Done(kind, result) => of_op(5, kind, result.cast_unsigned() as u64),
            Self::Freed(kind) => of_op(6, kind, 0),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Decision {
    step: u64,
    now_ns: u64,
    shard: usize,
    what: What,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, now_ns, shard, what } = self;
        write!(f, "step {step} at {now_ns} ns, shard {shard}: {what:?}")
    }
}

/// The record.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    steps: u64,
    last: [Option<Decision>; KEPT],
}

impl Trace {
    pub(super) fn new(seed: u64) -> Self {
        Self { hash: mix(seed), steps: 0, last: [None; KEPT] }
    }

    pub(super) fn note(&mut self, now_ns: u64, shard: usize, what: What) {
        let word = self.hash ^ now_ns.rotate_left(24) ^ (shard as u64) << 56;
        self.hash = mix(word.wrapping_add(mix(what.code())));
        let slot = usize::try_from(self.steps % KEPT as u64).expect("below KEPT");
        self.last[slot] = Some(Decision { step: self.steps, now_ns, shard, what });
        self.steps += 1;
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    /// How many of the last decisions are of a kind.
    #[cfg(test)]
    pub(super) fn count(&self, of_kind: impl Fn(What) -> bool) -> u64 {
        self.last.iter().flatten().filter(|decision| of_kind(decision.what)).count() as u64
    }

    /// The last decisions, oldest first, a line each.
    pub(super) fn last(&self) -> Vec<String> {
        let mut kept: Vec<_> = self.last.iter().flatten().collect();
        kept.sort_unstable_by_key(|decision| decision.step);
        kept.iter().map(ToString::to_string).collect()
    }
}
