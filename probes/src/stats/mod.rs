//! Histograms and the judgements made from them. Pure: no clock, no I/O.

mod exceedance;
mod histogram;
mod trend;

pub use exceedance::{
    Block, Exceedance, Judgement, exceedance, judge_fraction, judge_percentile, so_far,
};
pub use histogram::{DecodeError, Histogram};
pub use trend::{Trend, trend};
