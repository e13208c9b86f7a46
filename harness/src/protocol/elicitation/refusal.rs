//! Why a message was not taken. A refusal is an outcome with a counter, not an error: the state is
//! unchanged and the caller is told.

use super::state::State;
use super::wire::WireError;

/// How much a refusal says about whoever sent the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Severity {
    /// Happens in honest traffic.
    Info = 0,
    /// A bound was met, or a message makes no sense.
    Medium = 1,
    /// Somebody tried what is not theirs.
    High = 2,
    /// Somebody tried to pass as another, or to use a message twice.
    Critical = 3,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A terminal event came before.
    #[error("the elicitation is {0:?} already")]
    AlreadyTerminal(State),
    /// The deadline has passed.
    #[error("the elicitation has expired")]
    Expired,
    /// Only the addressee responds.
    #[error("agent {0} is not the addressee")]
    NotAddressee(u32),
    /// Only the asker cancels.
    #[error("agent {0} is not the asker")]
    NotAsker(u32),
    /// The data do not fit; the responder may try again.
    #[error("the answer does not fit the schema: {0}")]
    Schema(String),
    /// No such agent in this run.
    #[error("there is no agent {0}")]
    UnknownAgent(u32),
    /// The message names another agent than the one whose session it came by.
    #[error("agent {caller} speaks as agent {claimed}")]
    Impersonation {
        /// Whose session.
        caller: u32,
        /// Who the message says it is from.
        claimed: u32,
    },
    /// The caller's token bucket is empty.
    #[error("over the rate limit; a token comes in {retry_ns} ns")]
    RateLimited {
        /// When the next one would pass, ns from now.
        retry_ns: u64,
    },
    /// The limiter has no room for another agent that is over its rate.
    #[error("the limiter's table is full")]
    LimiterFull,
    /// No such elicitation here: it never was, or its record was dropped after its time.
    #[error("no such elicitation")]
    Unknown,
    /// The signature is not that agent's over these bytes.
    #[error("the signature does not verify")]
    Signature,
    /// The nonce was used before.
    #[error("the nonce was used before")]
    Replay,
    /// Made too long ago, or in the future, for the table of nonces to know it.
    #[error("made {off_ns} ns away from now")]
    Stale {
        /// Distance from now, ns.
        off_ns: u64,
    },
    /// As many elicitations are pending here as may be.
    #[error("the table of elicitations is full")]
    Full,
    /// The table of nonces is full.
    #[error("the table of nonces is full")]
    NoncesFull,
    /// The event log takes no more; nothing that is not logged happens.
    #[error("the event log is full")]
    LogFull,
    /// The schema does not compile.
    #[error("the schema: {0}")]
    BadSchema(String),
    /// The message is not UTF-8 text, or the data are not JSON.
    #[error("the content: {0}")]
    Content(String),
    /// The timeout is zero or above the owner's bound.
    #[error("a timeout of {0} ns is out of bounds")]
    Timeout(u64),
    /// An agent asks itself.
    #[error("an agent does not ask itself")]
    Itself,
    /// Only the two parties may ask how it stands.
    #[error("agent {0} is no party to it")]
    NotParty(u32),
    /// The bytes are no message.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Refusal {
    /// Number of codes; [`Refusal::code`] is below.
    pub const CODES: usize = 22;

    /// A number for counters, the log and the wire; never reused.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::AlreadyTerminal(_) => 0,
            Self::Expired => 1,
            Self::NotAddressee(_) => 2,
            Self::NotAsker(_) => 3,
            Self::Schema(_) => 4,
            Self::UnknownAgent(_) => 5,
            Self::Impersonation { .. } => 6,
            Self::RateLimited { .. } => 7,
            Self::LimiterFull => 8,
            Self::Unknown => 9,
            Self::Signature => 10,
            Self::Replay => 11,
            Self::Stale { .. } => 12,
            Self::Full => 13,
            Self::NoncesFull => 14,
            Self::LogFull => 15,
            Self::BadSchema(_) => 16,
            Self::Content(_) => 17,
            Self::Timeout(_) => 18,
            Self::Itself => 19,
            Self::NotParty(_) => 20,
            Self::Wire(_) => 21,
        }
    }

    /// How much it says about the sender.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::AlreadyTerminal(_) | Self::Expired | Self::Schema(_) => Severity::Info,
            Self::NotAddressee(_) | Self::Impersonation { .. } | Self::Signature | Self::Replay => {
                Severity::Critical
            }
            Self::NotAsker(_) | Self::UnknownAgent(_) | Self::NotParty(_) => Severity::High,
            _ => Severity::Medium,
        }
    }
}
