//! Which sites leak, whose objects, how fast, and how sure that is.

mod config;
mod model;

pub use config::LeakConfig;
pub use model::{
    AgeCount, Blind, CoreCount, Evidence, Finding, Gate, Growth, Interval, LeakReport, OWNERS_MAX,
    Onset, Orphans, OwnerReport, Reason, Retention, SIZES_MAX, SiteReport, SizeCount, Spread,
    Survivors, Totals, Verdict,
};
