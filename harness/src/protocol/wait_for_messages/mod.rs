//! wait_for_messages: a receiver asks for what is new, again and again.
//!
//! The shipped call scans the whole log of all agents once a second, the oldest ten first, and was never
//! seen to deliver anything. This is what it meant to be, so that a comparison with elicitation is no
//! straw man: an [`Index`] per receiver over the same log, a cursor that the receiver holds, batches, a
//! timeout, and two ways to wait:
//!
//! - sleep-poll: look, sleep for the interval, look again. With interval `T` a message waits U(0, T)
//!   ([`law`]).
//! - long-poll: look, then be woken by the next append.
//!
//! Delivery is at least once: a receiver that does not advance its cursor gets the same messages again.
//! All of it is pure: [`Waiter`] says what to do next, the index what there is, the caller has the clock.

mod index;
pub mod law;
mod waiter;

pub use index::{Index, IndexConfig, IndexCounts, Item, Page};
pub use waiter::{Mode, Next, Reply, Status, TIMEOUT_MAX_NS, Wait, WaitError, Waiter};
