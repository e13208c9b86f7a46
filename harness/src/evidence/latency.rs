//! Where the time went, as a run directory holds it.

use std::path::Path;

use tailbeam_probes::record::latency::LatencyWindow;
use tailbeam_probes::record::{ReadError, read_dir};

use super::records::{WindowRecord, kind};

/// The attribution of each core and complete window of the run in `dir`, in their order; a window cut by a
/// crash counts nowhere. Second: damage in words. About 25 KB per core and window: an hour of two cores is
/// 18 MB, and for longer runs a reader goes window by window.
///
/// # Errors
/// [`ReadError`] when there are no segments.
pub fn read_latency(dir: &Path) -> Result<(Vec<LatencyWindow>, Vec<String>), ReadError> {
    let (frames, damage) = read_dir(&dir.join("seg"))?;
    let mut damage: Vec<String> = damage.iter().map(ToString::to_string).collect();
    let (mut all, mut waiting) = (Vec::new(), Vec::<LatencyWindow>::new());
    for frame in frames {
        match frame.kind {
            kind::LATENCY => match postcard::from_bytes(&frame.payload) {
                Ok(window) => waiting.push(window),
                Err(error) => {
                    damage.push(format!("frame {}: unreadable attribution: {error}", frame.seq));
                }
            },
            kind::WINDOW => {
                let closed = serde_json::from_slice::<WindowRecord>(&frame.payload);
                let number = closed.ok().map(|record| record.window);
                all.extend(waiting.drain(..).filter(|window| Some(window.window) == number));
            }
            _ => {}
        }
    }
    Ok((all, damage))
}
