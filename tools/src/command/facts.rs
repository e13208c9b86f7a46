//! What doctor reads of the host, under a root that tests replace.

use std::fs;
use std::path::Path;

/// A reading, or why there is none.
pub(super) type Fact = Result<String, String>;

/// Everything the checks look at.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) kernel: Fact,
    pub(super) io_uring_disabled: Fact,
    pub(super) ring: Result<Vec<(String, bool)>, String>,
    pub(super) perf_paranoid: Fact,
    pub(super) pmu: bool,
    pub(super) allowed: Fact,
    pub(super) limits: Fact,
    pub(super) pids_max: Fact,
    pub(super) thp: Fact,
    pub(super) governor: Fact,
    pub(super) clocksource: Fact,
    pub(super) swaps: Fact,
}

impl Facts {
    /// Reads the facts; `ring` comes from the kernel itself, not from a file.
    pub(super) fn gather(root: &Path, ring: Result<Vec<(String, bool)>, String>) -> Self {
        let read = |path: &str| {
            fs::read_to_string(root.join(path))
                .map(|t| t.trim().to_owned())
                .map_err(|e| format!("/{path}: {e}"))
        };
        let status = read("proc/self/status").and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            line.map(|list| list.trim().to_owned()).ok_or_else(|| "no Cpus_allowed_list".to_owned())
        });
        Self {
            kernel: read("proc/sys/kernel/osrelease"),
            io_uring_disabled: read("proc/sys/kernel/io_uring_disabled"),
            ring,
            perf_paranoid: read("proc/sys/kernel/perf_event_paranoid"),
            pmu: ["cpu", "armv8_pmuv3", "armv8_pmuv3_0", "cpu_core"]
                .iter()
                .any(|name| root.join("sys/bus/event_source/devices").join(name).exists()),
            allowed: status,
            limits: read("proc/self/limits"),
            pids_max: read("sys/fs/cgroup/pids.max").or_else(|_| read("proc/sys/kernel/pid_max")),
            thp: read("sys/kernel/mm/transparent_hugepage/enabled"),
            governor: read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            clocksource: read("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            swaps: read("proc/swaps"),
        }
    }

    /// Soft limit of a line of /proc/self/limits; `None` in `Ok` means unlimited.
    pub(super) fn limit(&self, name: &str) -> Result<Option<u64>, String> {
        let text = self.limits.as_ref().map_err(Clone::clone)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .ok_or_else(|| format!("no line {name:?}"))?;
        let soft = line.split_whitespace().next().unwrap_or_default();
        if soft == "unlimited" {
            return Ok(None);
        }
        soft.parse().map(Some).map_err(|_| format!("{soft:?} is not a limit"))
    }
}
