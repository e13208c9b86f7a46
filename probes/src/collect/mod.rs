//! Readings of this process and this host.

pub mod heap;
pub mod host;
pub mod process;
pub mod room;
