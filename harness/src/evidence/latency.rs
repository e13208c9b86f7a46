//! Where the time went, as a run directory holds it.

use std::path::Path;

use tailbeam_probes::record::latency::LatencyWindow;

use super::{Intervals, ReadRunError};

/// The attribution of each core and complete window of the run in `dir`, in their order; a window cut by a
/// crash counts nowhere. Second: damage in words. About 25 KB per core and window: an hour of two cores is
/// 18 MB, and for longer runs a reader goes window by window ([`Intervals`]).
///
/// # Errors
/// [`ReadRunError`], as [`read_run`](super::read_run).
pub fn read_latency(dir: &Path) -> Result<(Vec<LatencyWindow>, Vec<String>), ReadRunError> {
    let mut intervals = Intervals::open(dir)?;
    let windows = intervals.by_ref().flat_map(|interval| interval.latency).collect();
    Ok((windows, intervals.damage))
}
