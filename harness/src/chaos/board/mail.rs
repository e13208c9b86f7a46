//! What a subject says of its mailboxes: the bound that it has them under, the deepest that it has seen, and how often one
//! was full. Words of each core, one writer each: looks are its controller's, refusals its own.

use std::sync::atomic::Ordering::Relaxed;

use super::{Board, Lane, one_more_wide};

/// Where the bound lies in the header.
pub(super) const BOUND: usize = 12;
/// Where a core says what was seen: the deepest mailbox, looks, refusals.
const DEEPEST: usize = 2;
const LOOKS: usize = 3;
pub(super) const REFUSED: usize = 4;

/// What was seen of the mailboxes of a subject so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mail {
    /// Messages that may wait at one agent, as the subject says; `None`: it has not said.
    pub bound: Option<u64>,
    /// Most messages that were seen waiting at one agent.
    pub deepest: u64,
    /// Agents that were looked at, each time that they were.
    pub looks: u64,
    /// Messages that were refused, because the mailbox that they were for was full.
    pub refused: u64,
}

impl Board {
    /// Says how many messages may wait at one agent.
    pub fn set_mailbox_bound(&self, messages: u64) {
        self.shared[BOUND].store(messages, Relaxed);
    }

    /// So many messages waited at one of `agents` agents of a core that were looked at. From one thread only.
    pub fn saw_mail(&self, core: u32, agents: u64, deepest: u64) {
        let says = self.says(core);
        says[DEEPEST].store(says[DEEPEST].load(Relaxed).max(deepest), Relaxed);
        says[LOOKS].store(says[LOOKS].load(Relaxed) + agents, Relaxed);
    }

    /// What was seen of mailboxes so far.
    #[must_use]
    pub fn mail(&self) -> Mail {
        let cores = || (0..self.shape.cores).map(|core| self.says(core));
        let sum = |at: usize| cores().map(|says| says[at].load(Relaxed)).sum::<u64>();
        Mail {
            bound: Some(self.shared[BOUND].load(Relaxed)).filter(|bound| *bound > 0),
            deepest: cores().map(|says| says[DEEPEST].load(Relaxed)).max().unwrap_or(0),
            looks: sum(LOOKS),
            refused: sum(REFUSED),
        }
    }
}

impl Lane {
    /// A message of this core found the mailbox that it was for full.
    pub fn mailbox_full(&self) {
        one_more_wide(&self.board.says(self.core)[REFUSED]);
    }
}
