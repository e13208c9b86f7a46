//! Cold and pure: what recorded values mean. Takes values, opens no file, knows no collector.

#[cfg(feature = "symbols")]
pub mod chains;
pub mod join;
pub mod latency;
pub mod leak;
pub mod overhead;
#[cfg(feature = "symbols")]
pub mod profile;
#[cfg(feature = "symbols")]
pub mod program;
pub mod role;
#[cfg(feature = "symbols")]
pub mod symbols;
