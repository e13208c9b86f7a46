//! Virtual soaks of the leak verdict: power, false alarms, coverage. The short form; the long one, with
//! tables, is `cargo run --release -p tailbeam-probes --example leak_power`.
#![allow(dead_code, reason = "the example uses the rest")]
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "simulated instants")]

mod clean;
mod planted;
mod power;
mod soak;
mod world;
