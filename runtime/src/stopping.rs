//! How a runtime is stopped, in steps that somebody drives: the stopping thread, or a simulation in its place.

use std::sync::Arc;

use crate::channel::ending::{Rest, is_quiet};
use crate::shard::shared::Shared;

/// Time between two looks at the shards while they drain.
const LOOK_NS: u64 = 200_000;

/// What the stopping thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another step.
    Step,
    /// Another step after this time, ns.
    Wait(u64),
    /// Nothing: the shards end by themselves.
    Done,
}

/// Stops every shard, waits until all are drained or the time for it is over, closes every shard.
pub(crate) struct Stopping {
    shards: Vec<Arc<Shared>>,
    drain_ns: u64,
    limit_ns: u64,
    phase: Phase,
    /// The shard whose turn it is.
    at: usize,
    looks: Vec<Option<Rest>>,
    last: Vec<Option<Rest>>,
}

#[derive(Clone, Copy)]
enum Phase {
    Stop,
    /// Looks at every shard, for the first time or to compare.
    Look {
        first: bool,
    },
    Close,
    Done,
}

impl Stopping {
    pub(crate) fn new(shards: &[Arc<Shared>], drain_ns: u64) -> Self {
        Self {
            shards: shards.to_vec(),
            drain_ns,
            limit_ns: 0,
            phase: Phase::Stop,
            at: 0,
            looks: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Tells one shard something, or looks at one.
    pub(crate) fn step(&mut self, now_ns: u64) -> Next {
        let Some(shard) = self.shards.get(self.at) else { return self.turn(now_ns) };
        match self.phase {
            Phase::Stop => {
                shard.ending.stop();
                shard.knock();
            }
            Phase::Look { .. } => self.looks.push(shard.ending.look()),
            Phase::Close => {
                shard.ending.close();
                shard.knock();
            }
            Phase::Done => return Next::Done,
        }
        self.at += 1;
        Next::Step
    }

    /// Every shard had its turn.
    fn turn(&mut self, now_ns: u64) -> Next {
        self.at = 0;
        let looks = std::mem::take(&mut self.looks);
        let next = match self.phase {
            Phase::Stop => {
                self.limit_ns = now_ns.saturating_add(self.drain_ns);
                Phase::Look { first: true }
            }
            Phase::Look { first: false } if is_quiet(&self.last, &looks) => Phase::Close,
            Phase::Look { .. } if now_ns >= self.limit_ns => Phase::Close,
            Phase::Look { .. } => {
                self.last = looks;
                self.phase = Phase::Look { first: false };
                return Next::Wait(LOOK_NS);
            }
            Phase::Close | Phase::Done => {
                self.phase = Phase::Done;
                return Next::Done;
            }
        };
        self.phase = next;
        Next::Step
    }
}
