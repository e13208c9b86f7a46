//! Rendering: plain values in, text out, over any `Write`.

pub mod certify;
pub mod demo;
pub mod export;
pub mod json;
pub mod latency;
pub mod leaks;
pub mod page;
pub mod program;
pub mod runs;
pub mod text;
pub mod units;
