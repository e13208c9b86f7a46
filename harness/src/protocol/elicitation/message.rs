//! What agents say to the owner of an elicitation, and what it tells them.

use std::sync::Arc;

use super::auth::Tag;
use super::refusal::Refusal;
use super::state::State;

/// An elicitation: owner core in the top 16 bits, a sequence number in 48, 64 bits that nobody can guess.
/// Ids of one owner are ordered by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u128);

impl Id {
    /// Sequence numbers are below this.
    pub const SEQ_END: u64 = 1 << 48;

    /// From its parts; `seq` is below [`Id::SEQ_END`].
    #[must_use]
    pub fn new(core: u16, seq: u64, random: u64) -> Self {
        assert!(seq < Self::SEQ_END, "one owner makes fewer than 2^48 elicitations");
        Self(u128::from(core) << 112 | u128::from(seq) << 64 | u128::from(random))
    }

    /// The owner's core.
    #[must_use]
    pub const fn core(self) -> u16 {
        (self.0 >> 112) as u16
    }

    /// Sequence number at its owner.
    #[must_use]
    pub const fn seq(self) -> u64 {
        (self.0 >> 64) as u64 & (Self::SEQ_END - 1)
    }

    /// Its bytes, as signed and sent: little endian.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "elicit_{:032x}", self.0)
    }
}

/// 256 bits that are used once: an asker's nonce, or the owner's challenge to the addressee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 32]);

/// Asks an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Asker.
    pub from: u32,
    /// Addressee.
    pub to: u32,
    /// Used once by this asker.
    pub nonce: Nonce,
    /// When the asker made it, monotonic ns.
    pub created_ns: u64,
    /// How long it may stay pending once the owner has it, ns.
    pub timeout_ns: u64,
    /// UTF-8 text for the addressee.
    pub message: Arc<[u8]>,
    /// JSON Schema of the answer, as text.
    pub schema: Arc<[u8]>,
    /// The asker's signature.
    pub tag: Tag,
}

/// What an addressee says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// The data, as JSON text.
    Accept(Arc<[u8]>),
    /// No.
    Decline,
}

/// The addressee's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Which elicitation.
    pub id: Id,
    /// Who answers.
    pub by: u32,
    /// The challenge that came with the request.
    pub challenge: Nonce,
    /// When it was signed, monotonic ns; evidence only, nothing is decided by it.
    pub at_ns: u64,
    /// The answer.
    pub say: Say,
    /// The addressee's signature.
    pub tag: Tag,
}

/// The asker's withdrawal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// Which elicitation.
    pub id: Id,
    /// Who withdraws.
    pub by: u32,
    /// When it was signed, monotonic ns; evidence only.
    pub at_ns: u64,
    /// The asker's signature.
    pub tag: Tag,
}

/// A message to an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks an agent.
    Create(Create),
    /// Answers.
    Respond(Respond),
    /// Withdraws.
    Cancel(Cancel),
    /// What is pending for `by` at this owner, after `after`, oldest first.
    Pending {
        /// Who asks; nobody else's are shown.
        by: u32,
        /// Continue behind this one.
        after: Option<Id>,
    },
    /// How one stands.
    Status {
        /// Who asks: a party to it.
        by: u32,
        /// Which one.
        id: Id,
    },
}

impl Message {
    /// Who says that it is from them.
    #[must_use]
    pub const fn by(&self) -> u32 {
        match self {
            Self::Create(create) => create.from,
            Self::Respond(respond) => respond.by,
            Self::Cancel(cancel) => cancel.by,
            Self::Pending { by, .. } | Self::Status { by, .. } => *by,
        }
    }
}

/// Most lines of one [`Outcome::Pending`].
pub const PAGE_MAX: usize = 64;

/// One line of what is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingLine {
    /// Which one.
    pub id: Id,
    /// Asker.
    pub from: u32,
    /// When it expires, monotonic ns.
    pub expires_ns: u64,
}

/// What the sender of a message is told at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is pending.
    Created {
        /// Its id.
        id: Id,
        /// When it expires, monotonic ns.
        expires_ns: u64,
    },
    /// This message ended it.
    Closed {
        /// Which one.
        id: Id,
        /// How.
        state: State,
    },
    /// A page of at most [`PAGE_MAX`] lines.
    Pending {
        /// The lines.
        lines: Vec<PendingLine>,
        /// Whether more follow the last line.
        more: bool,
    },
    /// How it stands.
    Status {
        /// Which one.
        id: Id,
        /// How.
        state: State,
    },
    /// It was not taken.
    Refused(Refusal),
}

/// What another agent is told because of a message or of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// To the addressee: you are asked.
    Asked {
        /// Addressee.
        to: u32,
        /// Asker.
        from: u32,
        /// Which one.
        id: Id,
        /// Sign the answer over this.
        challenge: Nonce,
        /// When it expires, monotonic ns.
        expires_ns: u64,
        /// The text.
        message: Arc<[u8]>,
        /// The shape of the answer.
        schema: Arc<[u8]>,
    },
    /// To the other party: it ended.
    Settled {
        /// Who is told.
        to: u32,
        /// Which one.
        id: Id,
        /// How.
        state: State,
        /// The data of an accepted one, as JSON text.
        data: Option<Arc<[u8]>>,
    },
}

impl Notice {
    /// Who is told.
    #[must_use]
    pub const fn to(&self) -> u32 {
        match self {
            Self::Asked { to, .. } | Self::Settled { to, .. } => *to,
        }
    }
}
