//! The heap: exact totals at all times, and a sample of its objects once [`start`] is called.
//!
//! [`TailbeamAlloc`] is mimalloc with two changed words per pair of operations (`hook`, `cells`). Sampling
//! draws objects by a Poisson process over bytes (`sample`), puts their blocks into one reserved range
//! (`range`) and records site, owner, birth and death in a state file of fixed size (`collector`),
//! which `record::heap_file` reads, after a kill too.
//!
//! ```no_run
//! use tailbeam_probes::clock::monotonic_ns;
//! use tailbeam_probes::collect::heap::{HeapConfig, TailbeamAlloc, owner, start};
//! #[global_allocator]
//! static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;
//!
//! let session = start(&HeapConfig::new("/tmp/heap.tbh")).expect("a writable directory");
//! let agent = owner::scope(17);
//! let kept = vec![0u8; 100_000];
//! drop(agent);
//! session.tick(monotonic_ns()); // about once a second
//! # drop(kept);
//! ```
//! Limits: a signal handler that allocates may make totals wrong by what it allocated; a thread other
//! than the one that calls `start` notices it after at most 128 KiB; blocks that live at the start are not
//! known, only counted.

mod addresses;
mod alone;
mod cells;
mod cfi;
pub mod collector;
mod config;
mod eh_frame;
mod file;
mod global;
mod history;
mod hook;
mod live_table;
mod modules;
pub mod owner;
mod plain;
mod range;
mod realloc;
pub mod sample;
mod sampler;
mod session;
pub mod shortage;
mod site;
mod stack;
mod threads;
mod totals;
#[cfg(test)]
mod unbiased;
mod unwind;

pub use alone::Totals;
pub use config::{HeapConfig, HeapError, OnFork};
pub use global::TailbeamAlloc;
pub use session::{HeapSession, name_owner, owner_ended, start};
pub use totals::{Live, ThreadTotals, live, this_thread};
pub use unwind::Registers;
