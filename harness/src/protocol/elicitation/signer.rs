//! An agent's side: its number, its key, and its messages signed.

use std::sync::Arc;

use super::auth::{AgentKey, KeyRing, Tag};
use super::message::{Cancel, Create, Id, Message, Nonce, Notice, Respond, Say};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Addressee.
    pub to: u32,
    /// Now, monotonic ns.
    pub now_ns: u64,
    /// How long it may stay pending, ns.
    pub timeout_ns: u64,
    /// UTF-8 text.
    pub message: Arc<[u8]>,
    /// JSON Schema, as text.
    pub schema: Arc<[u8]>,
}

/// An agent that can sign.
#[derive(Debug, Clone)]
pub struct Signer {
    agent: u32,
    key: AgentKey,
}

impl Signer {
    /// Agent `agent` of the run that `keys` are of.
    #[must_use]
    pub fn new(agent: u32, keys: &KeyRing) -> Self {
        Self { agent, key: keys.agent(agent) }
    }

    /// Its number.
    #[must_use]
    pub const fn agent(&self) -> u32 {
        self.agent
    }

    /// Its `k`-th request; the same `k` makes the same nonce, which is refused the second time.
    #[must_use]
    pub fn create(&self, k: u64, ask: Ask) -> Message {
        let Ask { to, now_ns, timeout_ns, message, schema } = ask;
        let (from, nonce, created_ns) = (self.agent, self.key.nonce(k), now_ns);
        let mut create =
            Create { from, to, nonce, created_ns, timeout_ns, message, schema, tag: Tag::NONE };
        create.tag = self.key.of_create(&create);
        Message::Create(create)
    }

    /// Answers a notice that it is asked; none for another notice, or another agent's.
    #[must_use]
    pub fn answer(&self, asked: &Notice, now_ns: u64, say: Say) -> Option<Message> {
        match asked {
            Notice::Asked { to, id, challenge, .. } if *to == self.agent => {
                Some(self.respond(*id, *challenge, now_ns, say))
            }
            _ => None,
        }
    }

    /// Answers with data (JSON text).
    #[must_use]
    pub fn accept(&self, id: Id, challenge: Nonce, now_ns: u64, data: Arc<[u8]>) -> Message {
        self.respond(id, challenge, now_ns, Say::Accept(data))
    }

    /// Says no.
    #[must_use]
    pub fn decline(&self, id: Id, challenge: Nonce, now_ns: u64) -> Message {
        self.respond(id, challenge, now_ns, Say::Decline)
    }

    /// Answers.
    #[must_use]
    pub fn respond(&self, id: Id, challenge: Nonce, at_ns: u64, say: Say) -> Message {
        let mut respond = Respond { id, by: self.agent, challenge, at_ns, say, tag: Tag::NONE };
        respond.tag = self.key.of_respond(&respond);
        Message::Respond(respond)
    }

    /// Withdraws.
    #[must_use]
    pub fn cancel(&self, id: Id, now_ns: u64) -> Message {
        let mut cancel = Cancel { id, by: self.agent, at_ns: now_ns, tag: Tag::NONE };
        cancel.tag = self.key.of_cancel(&cancel);
        Message::Cancel(cancel)
    }

    /// What is pending for it.
    #[must_use]
    pub const fn pending(&self, after: Option<Id>) -> Message {
        Message::Pending { by: self.agent, after }
    }

    /// How one stands.
    #[must_use]
    pub const fn status(&self, id: Id) -> Message {
        Message::Status { by: self.agent, id }
    }
}
