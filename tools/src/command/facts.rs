//! What doctor reads of the host, under a root that tests replace.

use std::fs;
use std::path::Path;

use tailbeam_probes::collect::perf::Capabilities;
use tailbeam_probes::collect::room;

/// A reading, or why there is none.
pub(super) type Fact = Result<String, String>;

/// Everything the checks look at.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) kernel: Fact,
    pub(super) io_uring_disabled: Fact,
    pub(super) ring: Result<Vec<(String, bool)>, String>,
    /// The chosen bells, and (name, figure) of what they were chosen by.
    pub(super) bells: Result<Vec<(String, String)>, String>,
    pub(super) perf_paranoid: Fact,
    pub(super) pmu: bool,
    pub(super) capabilities: Capabilities,
    pub(super) allowed: Fact,
    pub(super) limits: Fact,
    pub(super) pids_max: Fact,
    pub(super) thp: Fact,
    pub(super) governor: Fact,
    pub(super) clocksource: Fact,
    pub(super) swaps: Fact,
    pub(super) quota: Fact,
    /// Bytes.
    pub(super) memory: Result<u64, String>,
    /// Bytes.
    pub(super) store: Result<u64, String>,
}

/// The first of `name` in this process' cgroup and those above it that holds a limit; "max" without one.
fn cgroup(root: &Path, name: &str) -> Fact {
    let own = fs::read_to_string(root.join("proc/self/cgroup"))
        .map_err(|e| format!("/proc/self/cgroup: {e}"))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no cgroup v2")?;
    let mount = root.join("sys/fs/cgroup");
    let path = mount.join(own);
    let mut limits = path
        .ancestors()
        .take_while(|path| path.starts_with(&mount))
        .filter_map(|path| fs::read_to_string(path.join(name)).ok())
        .map(|text| text.trim().to_owned());
    Ok(limits.find(|text| !text.starts_with("max")).unwrap_or_else(|| "max".to_owned()))
}

/// What is free for a store that may not exist yet: its nearest directory that does.
fn store_bytes(store: &Path) -> Result<u64, String> {
    let absolute = std::path::absolute(store).map_err(|error| error.to_string())?;
    let existing = absolute.ancestors().find(|path| path.is_dir()).ok_or("no such directory")?;
    room::disk_bytes(existing).map_err(|gone| gone.cause)
}

impl Facts {
    /// Reads the facts; `ring`, `bells` and `capabilities` come from the kernel itself, not from a file.
    pub(super) fn gather(
        root: &Path,
        store: &Path,
        ring: Result<Vec<(String, bool)>, String>,
        bells: Result<Vec<(String, String)>, String>,
        capabilities: Capabilities,
    ) -> Self {
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
            bells,
            perf_paranoid: read("proc/sys/kernel/perf_event_paranoid"),
            pmu: ["cpu", "armv8_pmuv3", "armv8_pmuv3_0", "cpu_core"]
                .iter()
                .any(|name| root.join("sys/bus/event_source/devices").join(name).exists()),
            capabilities,
            allowed: status,
            limits: read("proc/self/limits"),
            pids_max: match cgroup(root, "pids.max") {
                Ok(limit) if limit != "max" => Ok(limit),
                _ => read("proc/sys/kernel/pid_max"),
            },
            thp: read("sys/kernel/mm/transparent_hugepage/enabled"),
            governor: read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            clocksource: read("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            swaps: read("proc/swaps"),
            quota: cgroup(root, "cpu.max"),
            memory: room::memory_bytes().map_err(|gone| gone.cause),
            store: store_bytes(store),
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
