//! Rendering: plain values in, text out, over any `Write`.

pub mod attack;
mod budget;
pub mod certify;
mod degradation;
pub mod demo;
mod epochs;
pub mod export;
pub mod json;
pub mod latency;
pub mod leaks;
pub mod page;
pub mod pages;
pub mod program;
pub mod runs;
mod stalls;
pub mod text;
pub mod units;
