//! What host this is. Every field is a value or the reason why there is none.

use std::fs;
use std::path::Path;

/// A field: its value, or the cause.
pub type Field = Result<String, String>;

/// The host at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Kernel release.
    pub kernel: Field,
    /// CPU model.
    pub cpu: Field,
    /// Current clock source.
    pub clocksource: Field,
    /// Boot id.
    pub boot_id: Field,
    /// Own cgroups, one line.
    pub cgroup: Field,
    /// Transparent huge pages setting.
    pub thp: Field,
    /// Frequency governor of CPU 0.
    pub governor: Field,
    /// perf_event_paranoid.
    pub perf_paranoid: Field,
    /// Whether the CPU says that a hypervisor runs it.
    pub virtual_machine: Field,
}

impl Host {
    /// Every field with its name.
    pub fn fields(&self) -> [(&'static str, &Field); 9] {
        [
            ("kernel", &self.kernel),
            ("cpu", &self.cpu),
            ("clocksource", &self.clocksource),
            ("boot_id", &self.boot_id),
            ("cgroup", &self.cgroup),
            ("thp", &self.thp),
            ("governor", &self.governor),
            ("perf_paranoid", &self.perf_paranoid),
            ("virtual_machine", &self.virtual_machine),
        ]
    }
}

/// Describes this host.
#[must_use]
pub fn describe() -> Host {
    describe_under(Path::new("/"))
}

/// Describes the host whose /proc and /sys lie under `root`; tests give a tree of their own.
#[must_use]
pub fn describe_under(root: &Path) -> Host {
    let read = |path: &str| {
        fs::read_to_string(root.join(path))
            .map(|text| text.trim().replace('\n', " "))
            .map_err(|error| format!("/{path}: {error}"))
    };
    let cpu =
        fs::read_to_string(root.join("proc/cpuinfo")).map_err(|e| format!("/proc/cpuinfo: {e}"));
    let virtual_machine = cpu.clone().and_then(|text| {
        let flags = text.lines().find(|line| line.starts_with("flags"));
        let flags = flags.ok_or_else(|| "/proc/cpuinfo names no flags".to_owned())?;
        let told = flags.split_whitespace().any(|flag| flag == "hypervisor");
        Ok(if told { "yes" } else { "no" }.to_owned())
    });
    Host {
        kernel: read("proc/sys/kernel/osrelease"),
        cpu: cpu.and_then(|text| {
            let line = text
                .lines()
                .find(|line| line.starts_with("model name") || line.starts_with("CPU part"));
            let value = line
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned());
            value.ok_or_else(|| "/proc/cpuinfo names no model".to_owned())
        }),
        clocksource: read("sys/devices/system/clocksource/clocksource0/current_clocksource"),
        boot_id: read("proc/sys/kernel/random/boot_id"),
        cgroup: read("proc/self/cgroup"),
        thp: read("sys/kernel/mm/transparent_hugepage/enabled"),
        governor: read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        perf_paranoid: read("proc/sys/kernel/perf_event_paranoid"),
        virtual_machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_kernel_and_an_empty_tree_has_causes() {
        assert!(describe().kernel.is_ok());
        let empty = tempfile::tempdir().unwrap();
        let host = describe_under(empty.path());
        assert!(host.fields().iter().all(|(_, field)| field.is_err()));
        fs::create_dir(empty.path().join("proc")).unwrap();
        for (flags, told) in [("fpu hypervisor sse", "yes"), ("fpu sse", "no")] {
            let text = format!("model name : a CPU\nflags : {flags}\n");
            fs::write(empty.path().join("proc/cpuinfo"), text).unwrap();
            assert_eq!(describe_under(empty.path()).virtual_machine, Ok(told.to_owned()));
        }
    }
}
