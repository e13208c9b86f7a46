//! Whether what was closed is closed.
//!
//! A ring whose descriptor is closed while it is mapped leaves its event running: three such rings made
//! a context switch cost 7.7 us instead of 1.9 (latency.md, finding 9). So an "off" window of an A/B
//! comparison looks here before it calls itself off.

use std::fs;

use crate::Unavailable;

/// What of perf this process still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Open descriptors of events.
    pub descriptors: usize,
    /// Mapped rings.
    pub mappings: usize,
}

impl Left {
    /// Whether nothing is left.
    #[must_use]
    pub const fn nothing(&self) -> bool {
        self.descriptors == 0 && self.mappings == 0
    }
}

const NAME: &str = "anon_inode:[perf_event]";

/// Looks at all descriptors and mappings of this process. Allocates; some 10 us.
///
/// # Errors
/// [`Unavailable`] when /proc is not mounted.
pub fn left_open() -> Result<Left, Unavailable> {
    let unread = |source: &'static str, error: &std::io::Error| Unavailable {
        source,
        cause: error.to_string(),
        remedy: "mount /proc".to_owned(),
    };
    let maps = fs::read_to_string("/proc/self/maps").map_err(|e| unread("/proc/self/maps", &e))?;
    let list = fs::read_dir("/proc/self/fd").map_err(|e| unread("/proc/self/fd", &e))?;
    let descriptors = list
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == NAME))
        .count();
    Ok(Left { descriptors, mappings: maps.lines().filter(|line| line.ends_with(NAME)).count() })
}
