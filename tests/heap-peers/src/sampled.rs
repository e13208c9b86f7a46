//! Starts our sampler as the fourth argument asks.

use tailbeam_probes::collect::heap::{HeapConfig, HeapSession, start};

/// Nothing for 0, exact mode for 1, else the mean in bytes.
pub(crate) fn session() -> Option<HeapSession> {
    let mean = std::env::args().nth(4).and_then(|mean| mean.parse::<u32>().ok()).unwrap_or(0);
    let path = std::env::temp_dir().join(format!("heap-peers-{}.tbh", std::process::id()));
    let config = match mean {
        0 => return None,
        1 => HeapConfig::exact(&path),
        mean_bytes => HeapConfig { mean_bytes, ..HeapConfig::new(&path) },
    };
    let session = start(&config).expect("starts");
    std::fs::remove_file(&path).expect("the mapping stays");
    Some(session)
}
