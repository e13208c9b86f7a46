//! Stand-in until the collector's reader is merged.
use super::heap::HeapSnapshot;
use std::path::Path;
/// Reads.
///
/// # Errors
/// Always.
pub fn read(path: &Path) -> Result<HeapSnapshot, String> {
    Err(format!("cannot read {}", path.display()))
}
