//! What a refusal of perf_event_open(2) means, in words and with a remedy; pure.

use rustix::io::Errno;

use crate::Unavailable;

/// The words for `errno`, at that `perf_event_paranoid` if it could be read.
#[must_use]
pub fn explain(errno: i32, paranoid: Option<i32>) -> Unavailable {
    let level = paranoid.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    let (cause, remedy) = match Errno::from_raw_os_error(errno) {
        Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP => (
            format!("{}: no PMU here counts it", name(errno)),
            "run on bare metal, or expose the vPMU to the guest",
        ),
        Errno::ACCESS if paranoid.is_some_and(|level| level >= 3) => (
            format!("EACCES: perf_event_paranoid is {level}, which refuses all events"),
            "sysctl -w kernel.perf_event_paranoid=2 (1 or less for kernel work), or grant CAP_PERFMON",
        ),
        Errno::ACCESS => (
            format!("EACCES: perf_event_paranoid is {level}"),
            "sysctl -w kernel.perf_event_paranoid=1 (0 for whole CPUs), or grant CAP_PERFMON",
        ),
        Errno::PERM => (
            "EPERM: a seccomp profile or a missing capability refuses perf_event_open".to_owned(),
            "allow perf_event_open in the container's seccomp profile, or grant CAP_PERFMON",
        ),
        Errno::MFILE | Errno::NFILE => {
            (format!("{}: no descriptor is left", name(errno)), "raise ulimit -n")
        }
        Errno::NOSPC | Errno::INVAL => (
            format!("{}: the group has no counter left for it", name(errno)),
            "count fewer kinds at once; sysctl -w kernel.nmi_watchdog=0 gives one counter back",
        ),
        Errno::BUSY => (
            "EBUSY: another program holds the PMU exclusively".to_owned(),
            "end the other profiler",
        ),
        Errno::NOSYS => (
            "ENOSYS: this kernel has no perf events".to_owned(),
            "boot a kernel with CONFIG_PERF_EVENTS",
        ),
        other => (other.to_string(), "see perf_event_open(2)"),
    };
    Unavailable { source: "perf_event_open", cause, remedy: remedy.to_owned() }
}

/// The words for a group that is open and never gets its counters; `watchdog`: whether the kernel's
/// NMI watchdog holds one of them.
#[must_use]
pub fn starved(watchdog: bool) -> Unavailable {
    let cause = if watchdog {
        "the group never got its counters: others hold them, one of them the NMI watchdog"
    } else {
        "the group never got its counters: others hold them"
    };
    Unavailable {
        source: "perf_event_open",
        cause: cause.to_owned(),
        remedy: "end other profilers; sysctl -w kernel.nmi_watchdog=0; count fewer kinds at once"
            .to_owned(),
    }
}

const fn name(errno: i32) -> &'static str {
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT => "ENOENT",
        Errno::NODEV => "ENODEV",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::MFILE => "EMFILE",
        Errno::NFILE => "ENFILE",
        Errno::NOSPC => "ENOSPC",
        Errno::INVAL => "EINVAL",
        _ => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_words() {
        let cases = [
            (Errno::NOENT, Some(2), "ENOENT: no PMU here counts it", "vPMU"),
            (Errno::ACCESS, Some(2), "EACCES: perf_event_paranoid is 2", "CAP_PERFMON"),
            (Errno::ACCESS, Some(3), "which refuses all events", "paranoid=2"),
            (Errno::ACCESS, None, "paranoid is unknown", "CAP_PERFMON"),
            (Errno::PERM, Some(2), "seccomp", "seccomp"),
            (Errno::MFILE, None, "no descriptor", "ulimit -n"),
            (Errno::INVAL, None, "no counter left", "nmi_watchdog"),
            (Errno::NOSPC, None, "ENOSPC", "fewer kinds"),
            (Errno::BUSY, None, "exclusively", "other profiler"),
            (Errno::NOSYS, None, "ENOSYS", "CONFIG_PERF_EVENTS"),
            (Errno::IO, None, "", "perf_event_open(2)"),
        ];
        for (errno, paranoid, cause, remedy) in cases {
            let words = explain(errno.raw_os_error(), paranoid);
            assert!(words.cause.contains(cause), "{words}");
            assert!(words.remedy.contains(remedy), "{words}");
        }
        assert!(starved(true).cause.contains("watchdog"));
        assert!(!starved(false).cause.contains("watchdog"));
    }
}
