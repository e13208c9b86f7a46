#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test reports by panicking, and says rates"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "draws of a small world: below its agents, and times below an hour"
)]
//! The latency model against a world whose every ns is known.

mod book;
mod conserved;
mod drawn;
mod exact;
mod many;
mod world;
