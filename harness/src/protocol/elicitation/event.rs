//! What happened, as values: events that the log keeps and a restart replays, and the audit trail.

use std::collections::VecDeque;
use std::sync::Arc;

use super::auth::{Digest, Tag};
use super::message::{Id, Message};
use super::refusal::{Refusal, Severity};
use super::state::State;

/// A transition, or an attempt that must not be forgotten. A restart that takes the events in order has
/// the owner's state again. No key, nonce or challenge is in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An elicitation began.
    Requested {
        /// When, monotonic ns.
        at_ns: u64,
        /// Which.
        id: Id,
        /// Asker.
        from: u32,
        /// Addressee.
        to: u32,
        /// When it expires, monotonic ns.
        expires_ns: u64,
        /// Of the asker's nonce.
        digest: Digest,
        /// The text.
        message: Arc<[u8]>,
        /// The shape of the answer.
        schema: Arc<[u8]>,
    },
    /// It ended: the one terminal event.
    Closed {
        /// When, monotonic ns.
        at_ns: u64,
        /// Which.
        id: Id,
        /// How.
        state: State,
        /// The signature that ended it; none when it expired.
        tag: Option<Tag>,
        /// The data of an accepted one.
        data: Option<Arc<[u8]>>,
    },
    /// A refusal of [`Severity::High`] or above.
    Violation(Audit),
    /// A nonce was used; only in snapshots, for those whose elicitation is forgotten.
    Used {
        /// When, monotonic ns.
        at_ns: u64,
        /// Of the nonce.
        digest: Digest,
    },
}

/// What an audit line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An elicitation began.
    Created,
    /// It ended.
    Closed(State),
    /// A message was refused; the number is [`Refusal::code`].
    Refused(u8),
}

/// A line of the audit trail. It holds the message's signature, which stands for its content and shows
/// nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// When, monotonic ns.
    pub at_ns: u64,
    /// Whose message; the clock's own lines have none.
    pub agent: Option<u32>,
    /// About which elicitation.
    pub id: Option<Id>,
    /// What.
    pub what: What,
    /// How grave.
    pub severity: Severity,
    /// The message's signature.
    pub tag: Option<Tag>,
}

impl Audit {
    /// A message was taken.
    pub(super) const fn taken(at_ns: u64, agent: u32, id: Id, what: What, tag: Tag) -> Self {
        Self {
            at_ns,
            agent: Some(agent),
            id: Some(id),
            what,
            severity: Severity::Info,
            tag: Some(tag),
        }
    }

    /// A message of `caller` was refused.
    #[must_use]
    pub fn refused(at_ns: u64, caller: u32, message: Option<&Message>, why: &Refusal) -> Self {
        let (id, tag) = match message {
            Some(Message::Create(create)) => (None, Some(create.tag)),
            Some(Message::Respond(respond)) => (Some(respond.id), Some(respond.tag)),
            Some(Message::Cancel(cancel)) => (Some(cancel.id), Some(cancel.tag)),
            Some(Message::Status { id, .. }) => (Some(*id), None),
            Some(Message::Pending { .. }) | None => (None, None),
        };
        let what = What::Refused(why.code());
        Self { at_ns, agent: Some(caller), id, what, severity: why.severity(), tag }
    }
}

/// The last lines of the audit trail. The oldest goes when it is full, and is counted.
#[derive(Debug)]
pub struct AuditRing {
    max: usize,
    lines: VecDeque<Audit>,
    dropped: u64,
}

impl AuditRing {
    /// A ring of `max` lines (at least one); the original kept 10,000.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), lines: VecDeque::new(), dropped: 0 }
    }

    /// Adds a line.
    pub fn push(&mut self, line: Audit) {
        if self.lines.len() == self.max {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &Audit> {
        self.lines.iter()
    }

    /// Lines that went.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_lines_and_counts_the_rest() {
        let mut ring = AuditRing::new(2);
        for at_ns in 1..=5 {
            ring.push(Audit::refused(at_ns, 7, None, &Refusal::Unknown));
        }
        assert_eq!(ring.lines().map(|line| line.at_ns).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(ring.dropped(), 3);
        assert!(ring.lines().all(|line| line.what == What::Refused(9)));
    }
}
