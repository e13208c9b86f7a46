//! Memory and CPU time of this process, from /proc and the CPU clock.

use std::fs;

use crate::{Unavailable, clock};

/// Memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident set, bytes.
    pub rss_bytes: u64,
    /// Proportional set, bytes; `None` when the kernel gives no smaps_rollup.
    pub pss_bytes: Option<u64>,
}

/// Reads RSS and PSS. Costs about 0.1 ms and allocates; call it from a housekeeping thread.
///
/// # Errors
/// [`Unavailable`] when /proc is not mounted.
pub fn memory() -> Result<Memory, Unavailable> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(|e| unreadable("/proc/self/status", &e))?;
    let rss_bytes = kib(&status, "VmRSS:").ok_or_else(|| Unavailable {
        source: "/proc/self/status",
        cause: "it has no VmRSS line".to_owned(),
        remedy: "use a kernel with CONFIG_MMU and an unrestricted /proc".to_owned(),
    })?;
    let pss_bytes =
        fs::read_to_string("/proc/self/smaps_rollup").ok().and_then(|text| kib(&text, "Pss:"));
    Ok(Memory { rss_bytes, pss_bytes })
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

fn unreadable(source: &'static str, error: &std::io::Error) -> Unavailable {
    Unavailable { source, cause: error.to_string(), remedy: "mount /proc".to_owned() }
}

/// CPU time of the process, user and system, ns.
///
/// # Errors
/// None today; the clock exists on every supported kernel. Kept fallible as all readings are.
pub fn cpu_time_ns() -> Result<u64, Unavailable> {
    Ok(clock::process_cpu_ns())
}

/// How a thread of this process has spent its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadTimes {
    /// On a CPU, in user space and in the kernel, ns.
    pub cpu_ns: u64,
    /// Ready to run and waiting for its CPU, ns.
    pub run_delay_ns: u64,
}

/// Reads a thread's times: the first two fields of schedstat
/// (Documentation/scheduler/sched-stats.rst). Costs one file read.
///
/// # Errors
/// [`Unavailable`] when the thread has ended or the kernel keeps no such count.
pub fn thread_times(thread: u64) -> Result<ThreadTimes, Unavailable> {
    let unavailable = |cause: String| Unavailable {
        source: "/proc/self/task/TID/schedstat",
        cause,
        remedy: "use a kernel with CONFIG_SCHED_INFO".to_owned(),
    };
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))
        .map_err(|error| unavailable(error.to_string()))?;
    let mut fields = text.split_whitespace().map(|field| field.parse().ok());
    let (cpu_ns, run_delay_ns) = (fields.next().flatten(), fields.next().flatten());
    let times = cpu_ns.zip(run_delay_ns);
    times
        .map(|(cpu_ns, run_delay_ns)| ThreadTimes { cpu_ns, run_delay_ns })
        .ok_or_else(|| unavailable(format!("it reads {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_burns_cpu() {
        assert!(memory().unwrap().rss_bytes > 100_000);
        let before = cpu_time_ns().unwrap();
        let mut x = 1u64;
        for i in 0..3_000_000u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        assert!(cpu_time_ns().unwrap() > before);
    }

    #[test]
    fn a_thread_has_times_and_one_that_is_gone_has_a_cause() {
        let own = u64::from(std::process::id());
        assert!(thread_times(own).unwrap().cpu_ns > 0);
        assert!(thread_times(u64::MAX).unwrap_err().cause.contains("No such file"));
    }

    #[test]
    fn kib_lines() {
        assert_eq!(kib("A: 1 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12_288));
        assert_eq!(kib("VmRSS: much", "VmRSS:"), None);
    }
}
