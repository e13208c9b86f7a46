//! Elicitation: an agent asks another for an answer of an agreed shape.
//!
//! pending -> accepted | declined | cancelled | expired. Exactly one terminal transition, ever; whatever
//! comes after it is refused with the state it met. Expiry is monotonic.
//!
//! ```text
//! asker -- create, signed --> [desk: reads, sender, limits] --> [owner: checks, state] -- asked --> addressee
//! asker <-- settled, with the data -- [owner] <-- [desk] <-- answer, signed over the owner's challenge --'
//! ```
//!
//! - [`Desk`] stands on the agent's core, [`Owner`] on the core that the asker's nonce chose
//!   ([`Digest::owner`]). Both are plain values without locks, clocks or I/O: time is an argument, and what
//!   has to be sent, logged and audited comes back as [`Effects`].
//! - [`wire`] is the one encoding of a message; it is also what is signed. [`carry`] is that of a notice,
//!   [`record`] that of an event.
//! - A refusal is an outcome with a counter, not an error.
//! - [`Elicitation`] is one of them without signatures.
//!
//! ```
//! use std::sync::Arc;
//! use tailbeam_harness::protocol::elicitation::*;
//!
//! let keys = KeyRing::new(&RunSecret::new([7; 32]), 1);
//! let mut owner = Owner::new(OwnerConfig::default(), keys.clone());
//! let asker = Signer::new(1, &keys);
//! let addressee = Signer::new(2, &keys);
//! let (text, schema) = (Arc::from(&b"well?"[..]), Arc::from(&br#"{"type":"object"}"#[..]));
//! let asked = asker.create(0, Ask { to: 2, now_ns: 100, timeout_ns: 1_000, message: text, schema });
//! let output = owner.handle(100, &asked, 1);
//! let notice = output.effects.notice.expect("the addressee is told");
//! let answer = addressee.answer(&notice, 150, Say::Accept(b"{}"[..].into())).expect("it is asked");
//! let output = owner.handle(150, &answer, 1);
//! assert!(matches!(output.outcome, Outcome::Closed { state: State::Accepted, .. }));
//! assert!(matches!(output.effects.notice, Some(Notice::Settled { to: 1, .. })));
//! ```

mod auth;
pub mod carry;
mod desk;
mod event;
mod holes;
mod limit;
mod message;
mod nonces;
mod owner;
pub mod record;
mod refusal;
mod schema;
mod signer;
mod state;
mod unsigned;
pub mod wire;

pub use auth::{AgentKey, Digest, KeyRing, RunSecret, Tag};
pub use desk::{Desk, Turned};
pub use event::{Audit, AuditRing, Event, What};
#[cfg(test)]
pub(crate) use holes::{Hole, Holes};
pub use limit::{Limiter, Profile, Rate};
pub use message::{
    Cancel, Create, Id, Message, Nonce, Notice, Outcome, PAGE_MAX, PendingLine, Respond, Say,
};
pub use nonces::Nonces;
pub use owner::{Counts, Effects, Output, Owner, OwnerConfig, RestoreError};
pub use refusal::{Refusal, Severity};
pub use schema::{Schema, SchemaCache};
pub use signer::{Ask, Signer};
pub use state::{State, Step, next};
pub use unsigned::{Answer, Elicitation, Reply};
