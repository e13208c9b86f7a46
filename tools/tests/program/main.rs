//! `record` of programs that know nothing of us, and what `report`, `export` and `top` say of them. What
//! is asserted are counts and shares, never absolute times.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod attach;
mod bench;
mod export;
mod launch;
mod top;
mod unprivileged;
