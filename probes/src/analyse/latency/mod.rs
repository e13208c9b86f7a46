//! Where the time of requests went: stages of one request, sums by latency, and who weighs most; pure.
//!
//! A request is cut into stages by its stamps ([`stages`]) and added to the bucket of its latency
//! ([`StageTable`]), on the core that asked, while it runs. This half allocates nothing after its `new`,
//! takes no lock and asks no clock: `cargo run --release -p tailbeam-probes --example stage_cost` says
//! what it costs per request.

mod agents;
mod bands;
mod bucket;
pub mod conserve;
pub mod explain;
mod matrix;
mod pick;
mod sample;
mod saving;
mod stages;
mod table;

pub use agents::{Outlier, heaviest, outliers};
pub use bands::{Band, Bands, CUTS, bands, by_core};
pub use bucket::{BUCKETS, bucket_of, bucket_range};
pub use conserve::{Conservation, conservation};
pub use explain::{Explained, explain};
pub use matrix::{Cell, Column, Matrix, Recorded, matrix};
pub use pick::{Reservoir, TopSlow};
pub use sample::Estimate;
pub use saving::{Heavy, SpaceSaving};
pub use stages::{Staged, stages, sum_ns, system_ns};
pub use table::StageTable;
