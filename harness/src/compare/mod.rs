//! Compares two sides, A and B, by pairs of independent runs, and finds where one side's curve bends.
//!
//! Everything here is pure: figures of runs in, effects and verdicts out. Who starts the runs keeps a
//! [`Recipe`], and [`compare`] computes the comparison from it and from the runs' own reports, so that it can be
//! computed again at any time.
//!
//! - [`mod@design`]: the blocks, their order and seeds, fixed before the first run.
//! - [`figures`]: what is compared of a run, and the rules by which a run is left out, also fixed before.
//! - [`effect`]: ratios with intervals, smallest effects that can be found, verdicts.
//! - [`law`]: whether a sleep-poll waits as its interval says.
//! - [`sweep`]: which setting of a side is the one to compare.
//! - [`scale`]: cost over the number of agents, the knee, and what limits.

pub mod design;
mod differ;
pub mod effect;
pub mod figures;
pub mod law;
mod outcome;
mod percentiles;
pub mod scale;
pub mod sweep;

pub use design::{Block, Design, Role, Side, design};
pub use differ::differences;
pub use effect::{Effect, Judged, Metric, MetricResult};
pub use figures::{Exclusion, Rules, RunFigures};
pub use outcome::{
    Comparison, Difference, Excluded, Pair, Recipe, SideSum, Sources, Trial, TrialRun, compare,
};
pub use percentiles::Percentile;

/// Name of the JSON document of a comparison.
pub const SCHEMA: &str = "tailbeam.compare";
/// Name of the JSON document of a scale series.
pub const SCALE_SCHEMA: &str = "tailbeam.scale";
/// Version of both, and of the recipes in a store.
pub const VERSION: u32 = 1;
