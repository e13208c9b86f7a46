//! What the kernel says this process or thread has used.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// CPU time and page faults so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) cpu_us: f64,
    pub(crate) faults: u64,
}

/// Of the whole process.
pub(crate) fn process() -> Used {
    used(UsageWho::RUSAGE_SELF)
}

/// Of the calling thread.
pub(crate) fn thread() -> Used {
    used(UsageWho::RUSAGE_THREAD)
}

fn used(who: UsageWho) -> Used {
    let of = |usage: Usage| Used {
        cpu_us: (usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
            as f64,
        faults: (usage.minor_page_faults() + usage.major_page_faults()).unsigned_abs(),
    };
    // It fails for a bad `who` only.
    getrusage(who).map(of).unwrap_or_default()
}

/// Resident bytes of this process; pages are 4 KiB here.
pub(crate) fn resident() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096.0)
}
