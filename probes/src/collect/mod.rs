//! Readings of this process and this host.

pub mod build;
pub mod cpu_times;
pub mod gap;
pub mod heap;
pub mod host;
pub mod perf;
pub mod process;
pub mod profile;
pub mod program;
pub mod room;
pub mod schedstat;
mod sys;
pub mod turn;
pub mod words;
