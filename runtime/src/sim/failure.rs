//! Why a simulation stopped.

use std::fmt;

/// Where a simulation was; the same seed and the same program come to the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Seed.
    pub seed: u64,
    /// Decisions so far.
    pub step: u64,
    /// Instant, ns.
    pub now_ns: u64,
    /// Hash of all decisions so far.
    pub trace_hash: u64,
    /// Whether the same seed comes here again: a TCP socket goes by the time of day.
    pub exact: bool,
    /// The last decisions, oldest first.
    pub last: Vec<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, now_ns, trace_hash, exact, last } = self;
        let repeats = if *exact { "" } else { ", which may not repeat, for TCP was used" };
        write!(
            f,
            "seed {seed}, step {step}, {now_ns} ns, trace {trace_hash:016x}{repeats}; the last decisions:"
        )?;
        last.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// What a simulation found, or why it cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A shard sleeps although it has work, and nothing on its way will wake it: a lost wake.
    #[error("shard {shard} sleeps on its work and nothing will wake it\n{place}")]
    LostWake {
        /// Which.
        shard: usize,
        /// Where.
        place: Place,
    },
    /// A shard sleeps on its work, and the one that is to wake it goes on without doing so: the messages
    /// wait for the end of that shard's work.
    #[error(
        "shard {shard} sleeps on its work; {holder} keeps back its bell for {moves} moves\n{place}"
    )]
    LateWake {
        /// Which.
        shard: usize,
        /// Who has its bell.
        holder: usize,
        /// For how many moves.
        moves: u64,
        /// Where.
        place: Place,
    },
    /// A shard has taken from the ring what it had given to it.
    #[error("shard {shard}: {what}\n{place}")]
    Broken {
        /// Which.
        shard: usize,
        /// What it has done.
        what: &'static str,
        /// Where.
        place: Place,
    },
    /// Nothing is left to happen, and the shards have not ended.
    #[error("the shutdown does not end: nothing is left to happen\n{place}")]
    NoEnd {
        /// Where.
        place: Place,
    },
    /// More steps than were allowed.
    #[error("still not idle after {steps} steps\n{place}")]
    Endless {
        /// The bound.
        steps: u64,
        /// Where.
        place: Place,
    },
    /// The shard has ended, there is none of that number, or the closure panicked.
    #[error("shard {shard} has ended, or what it was given to run has panicked\n{place}")]
    Stopped {
        /// Which.
        shard: usize,
        /// Where.
        place: Place,
    },
}
