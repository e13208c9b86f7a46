//! What a simulation did: a hash of all of it, and the last of it.

use std::fmt;

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

    /// The last decisions, oldest first, a line each.
    pub(super) fn last(&self) -> Vec<String> {
        let mut kept: Vec<_> = self.last.iter().flatten().collect();
        kept.sort_unstable_by_key(|decision| decision.step);
        kept.iter().map(ToString::to_string).collect()
    }
}
