//! The durable event log: one append-only log per owner, on the runtime's own files.
//!
//! ```text
//! owner -- Entry --> [Core: bounded queue, batches, acknowledgements] -- Action --> segment files
//!          restart: segment files --> [scan: records in order, damage with its place] --> owner
//! ```
//!
//! - [`mod@format`]: segments and records, every byte under a checksum that only this log's key makes.
//! - [`scan`]: reads segments back; what is damaged is named with its offset and the sequence numbers that
//!   are missing, never skipped in silence.
//! - [`Core`]: decides what to write, when to sync, what is acknowledged. Pure: time is an argument.
//! - [`LogAgent`]: the edge. Writes and syncs with io_uring; a core of the log's own hosts it.
//! - [`snapshot`]: a state in one file, so that old segments can go.
//!
//! A segment is reserved and written with zeros before it is used: a sync then has data to write and no
//! metadata. Measured figures are in ARCHITECTURE.

mod agent;
mod core;
mod disk;
pub mod format;
pub mod scan;
pub mod snapshot;
#[cfg(test)]
mod twin;
mod wall;

pub use self::core::{Ack, Action, Core, CoreCounts, Durability, Entry, LogConfig};
pub use agent::{Health, LogAgent, LogMsg, Progress, Receipt, Watch};
pub use format::LogKey;
pub use scan::{Damage, DamageKind, Found, Recovered, recover_dir, remove_prepared};
pub use wall::Wall;
