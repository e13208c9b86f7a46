//! Open-loop load, evidence and verdicts for agent systems.
//!
//! A [`plan::Plan`] is driven by [`drive::run`] with agents of a [`load::Workload`]; everything measured
//! goes to a run directory ([`evidence`]); a [`report::Report`] is computed from that directory alone
//! and judged by [`verdict`].
// Unsafe code is denied by the lints of the workspace; `chaos::host::cut` is the one exception, for an ioctl.

pub mod certify;
pub mod chaos;
pub mod compare;
pub mod drive;
pub mod evidence;
pub mod host;
pub mod load;
pub mod log;
mod observe;
pub mod plan;
pub mod protocol;
pub mod remote;
pub mod report;
#[cfg(test)]
#[path = "../../runtime/tests/common/rings.rs"]
mod rings;
pub mod verdict;
