//! The product through its command line, on the real kernel.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod cli;
mod latency;
mod leaks;
mod store;
