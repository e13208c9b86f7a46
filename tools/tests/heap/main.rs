//! `record --heap` on programs of every kind: what they leave behind, what they print, how they end.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

mod cases;
mod identical;
mod planted;
mod record;
