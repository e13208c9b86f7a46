//! Measures any Rust program: histograms and verdict statistics, checksummed recording, process and
//! host readings, an allocator that counts.
//!
//! Nothing here names the runtime, starts a thread or prints. A plain program uses it like this:
//!
//! ```
//! use tailbeam_probes::stats::Histogram;
//! let mut latencies = Histogram::new();
//! latencies.record(1_250);
//! assert_eq!(latencies.max(), Some(1_250));
//! ```
pub mod analyse;
pub mod clock;
pub mod collect;
mod error;
pub mod record;
pub mod stats;

pub use error::Unavailable;
