//! What the kernel says this process or thread has used.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// CPU time, page faults and, of a process, the time its threads were ready and did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) cpu_us: f64,
    pub(crate) faults: u64,
    /// None where the kernel does not tell.
    pub(crate) waited_us: Option<f64>,
}

impl Used {
    /// What was used after `start`.
    pub(crate) fn since(self, start: Self) -> Self {
        Self {
            cpu_us: self.cpu_us - start.cpu_us,
            faults: self.faults - start.faults,
            waited_us: self.waited_us.zip(start.waited_us).map(|(now, then)| now - then),
        }
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us + other.cpu_us,
            faults: self.faults + other.faults,
            waited_us: self.waited_us.zip(other.waited_us).map(|(one, two)| one + two),
        }
    }
}

/// Of the whole process.
pub(crate) fn process() -> Used {
    let waited_us = schedstat("self").map(|[_, waited_us]| waited_us);
    Used { waited_us, ..used(UsageWho::RUSAGE_SELF) }
}

/// Of another process; `None` when it has gone, or the kernel does not tell.
pub(crate) fn of(process: u32) -> Option<Used> {
    let [cpu_us, waited_us] = schedstat(&process.to_string())?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything: its 8th and 10th words are minor and major faults.
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let faults = |at: usize| words.get(at)?.parse::<u64>().ok();
    Some(Used { cpu_us, waited_us: Some(waited_us), faults: faults(7)? + faults(9)? })
}

/// The first two numbers of every thread's `schedstat`, us: on a CPU and in the run queue.
fn schedstat(process: &str) -> Option<[f64; 2]> {
    let mut sums_us = [0.0, 0.0];
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).ok()? {
        // A thread may end meanwhile.
        let Ok(text) = std::fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        for (sum_us, word) in sums_us.iter_mut().zip(text.split_whitespace()) {
            *sum_us += word.parse::<f64>().ok()? / 1e3;
        }
    }
    Some(sums_us)
}

/// Of the calling thread.
pub(crate) fn thread() -> Used {
    used(UsageWho::RUSAGE_THREAD)
}

fn used(who: UsageWho) -> Used {
    let of = |usage: Usage| Used {
        cpu_us: (usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
            as f64,
        waited_us: None,
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
