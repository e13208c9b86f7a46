//! `doctor`: each check has a value, an expectation, a reason and a remedy. It changes nothing.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use tailbeam_harness::host;
use tailbeam_probes::collect::perf::{self, Area};

use super::Outcome;
use super::facts::{Fact, Facts};
use crate::args::{Doctor, Format};
use crate::render::json;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Info,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    id: &'static str,
    status: Status,
    value: String,
    expected: &'static str,
    why: &'static str,
    remedy: Cow<'static, str>,
}

pub(super) fn run(args: &Doctor, store: &Path, out: &mut dyn Write) -> Outcome {
    let (rings, bells) = (host::ring_features(), host::bells());
    let facts = Facts::gather(Path::new("/"), store, rings, bells, perf::capabilities());
    let checks = checks(&facts);
    match args.format {
        Format::Json => json::document("tailbeam.doctor", &checks, out)?,
        Format::Table => text(&checks, out)?,
    }
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(if args.strict && failed { 5 } else { 0 })
}

fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        kernel(facts),
        ring(facts),
        bells(facts),
        perf(facts),
        row(
            facts,
            Area::Stamps,
            "a stamp costs as much as a message: 9 ns by the processor, 20 by the kernel",
        ),
        row(facts, Area::Counters, "what each core and each band of latency is told by"),
        row(facts, Area::Cpus, "what other programs do on the same cores"),
        row(facts, Area::OffCpu, "time that a core was not ours, preempted or blocked"),
        row(facts, Area::Steal, "time that neither we nor our kernel had"),
        row(facts, Area::Sampling, "which code the time went to"),
        plain(
            "cores",
            &facts.allowed,
            Status::Ok,
            (
                "any list",
                "each allowed core gets a shard",
                "taskset -c or cpuset.cpus widen or narrow it",
            ),
        ),
        memlock(facts),
        files(facts),
        pids(facts),
        quota(facts),
        memory(facts),
        store(facts),
        thp(facts),
        governor(facts),
        clocksource(facts),
        swap(facts),
    ]
}

/// (expected, why, remedy).
type Words = (&'static str, &'static str, &'static str);

fn check(id: &'static str, status: Status, value: String, words: Words) -> Check {
    Check { id, status, value, expected: words.0, why: words.1, remedy: words.2.into() }
}

fn plain(id: &'static str, fact: &Fact, status: Status, words: Words) -> Check {
    match fact {
        Ok(value) => check(id, status, value.clone(), words),
        Err(cause) => check(id, Status::Warn, format!("unknown: {cause}"), words),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Check {
    let new = facts
        .kernel
        .as_ref()
        .ok()
        .and_then(|release| version(release))
        .is_some_and(|v| v >= (6, 1));
    let status = if new { Status::Ok } else { Status::Fail };
    plain(
        "kernel",
        &facts.kernel,
        status,
        (
            "6.1 or newer",
            "DEFER_TASKRUN and MSG_RING wake a shard cheaply",
            "boot Linux 6.1 or newer",
        ),
    )
}

fn ring(facts: &Facts) -> Check {
    let words = (
        "a ring can be made; all features present",
        "every shard sleeps in and is woken by its own ring",
        "see the cause; sysctl -w kernel.io_uring_disabled=0, or allow io_uring in the container's seccomp profile",
    );
    match &facts.ring {
        Err(cause) => {
            let sysctl = facts.io_uring_disabled.as_deref().unwrap_or("unknown");
            check(
                "io_uring",
                Status::Fail,
                format!("{} (io_uring_disabled = {sysctl})", cause.replace('\n', ";")),
                words,
            )
        }
        Ok(features) => {
            let missing: Vec<&str> =
                features.iter().filter(|f| !f.1).map(|f| f.0.as_str()).collect();
            if missing.is_empty() {
                check(
                    "io_uring",
                    Status::Ok,
                    format!("{} of {} features", features.len(), features.len()),
                    words,
                )
            } else {
                check("io_uring", Status::Warn, format!("without {}", missing.join(", ")), words)
            }
        }
    }
}

/// How shards are woken here, with the figures that decided it.
fn bells(facts: &Facts) -> Check {
    let words = (
        "any bell",
        "each message that finds a core asleep waits for it; the figures are of this minute",
        "see the cause of io_uring above",
    );
    match &facts.bells {
        Ok(figures) => {
            let lines = figures.iter().skip(1).map(|(name, figure)| format!("{name} {figure}"));
            let chosen = figures.first().map_or("", |(_, chosen)| chosen.as_str());
            let lines = lines.collect::<Vec<_>>().join("; ");
            check("bells", Status::Info, format!("{chosen}: {lines}"), words)
        }
        Err(cause) => check("bells", Status::Warn, cause.replace('\n', ";"), words),
    }
}

fn perf(facts: &Facts) -> Check {
    let pmu = if facts.pmu { "hardware PMU present" } else { "no hardware PMU" };
    let paranoid = facts.perf_paranoid.clone().unwrap_or_else(|cause| format!("unknown: {cause}"));
    let status = if facts.pmu { Status::Ok } else { Status::Warn };
    check(
        "perf",
        status,
        format!("{pmu}, perf_event_paranoid {paranoid}"),
        (
            "a hardware PMU, perf_event_paranoid 1 or lower",
            "cycles and cache misses are unknown without it; latency is not affected",
            "run on bare metal or expose the vPMU; sysctl -w kernel.perf_event_paranoid=1",
        ),
    )
}

/// A row of the degradation matrix: what was tried and works, what is unknown and why.
fn row(facts: &Facts, area: Area, why: &'static str) -> Check {
    let row = facts.capabilities.row(area);
    let mut remedies: Vec<&str> = Vec::new();
    for (_, reason) in row.missing_by_reason() {
        if !remedies.contains(&reason.remedy.as_str()) {
            remedies.push(&reason.remedy);
        }
    }
    let status = if row.missing.is_empty() { Status::Ok } else { Status::Warn };
    let expected = "all of it; what is unknown is said in every report and never printed as 0";
    let remedy = Cow::Owned(remedies.join("; "));
    Check { id: area.name(), status, value: row.to_string(), expected, why, remedy }
}

fn limit(
    id: &'static str,
    limit: Result<Option<u64>, String>,
    at_least: u64,
    words: Words,
) -> Check {
    match limit {
        Ok(None) => check(id, Status::Ok, "unlimited".to_owned(), words),
        Ok(Some(value)) => {
            let status = if value >= at_least { Status::Ok } else { Status::Warn };
            check(id, status, value.to_string(), words)
        }
        Err(cause) => check(id, Status::Warn, format!("unknown: {cause}"), words),
    }
}

fn memlock(facts: &Facts) -> Check {
    let words = (
        "1 MiB or more",
        "rings are charged to it for users without CAP_IPC_LOCK, about 8 KiB each",
        "ulimit -l unlimited",
    );
    limit("memlock", facts.limit("Max locked memory"), 1 << 20, words)
}

fn files(facts: &Facts) -> Check {
    let words =
        ("1024 or more", "a ring and an eventfd per core, the run's segments", "ulimit -n 65536");
    limit("nofile", facts.limit("Max open files"), 1_024, words)
}

/// Threads: one per core, one for housekeeping, one for signals; and the rest of the user's programs.
const PIDS_MIN: u64 = 256;

fn pids(facts: &Facts) -> Check {
    let words = (
        "256 or more",
        "a thread per core, one for housekeeping, one for signals, beside all other programs",
        "raise pids.max of the cgroup",
    );
    let parsed = facts
        .pids_max
        .clone()
        .and_then(|text| text.parse().map(Some).map_err(|_| format!("{text:?} is not a number")));
    limit("pids", parsed, PIDS_MIN, words)
}

fn quota(facts: &Facts) -> Check {
    let words = (
        "no quota",
        "a quota stops every thread of the run for the rest of a period, 100 ms as a rule",
        "run outside of the limited cgroup, or set its cpu.max to max",
    );
    match &facts.quota {
        Ok(text) if text == "max" => check("quota", Status::Ok, "none".to_owned(), words),
        Ok(text) => check("quota", Status::Warn, format!("cpu.max {text}"), words),
        Err(cause) => check("quota", Status::Warn, format!("unknown: {cause}"), words),
    }
}

fn bytes_at_least(
    id: &'static str,
    bytes: &Result<u64, String>,
    at_least: u64,
    words: Words,
) -> Check {
    match bytes {
        Ok(bytes) => {
            let status = if *bytes >= at_least { Status::Ok } else { Status::Warn };
            check(id, status, crate::render::units::bytes(*bytes as f64), words)
        }
        Err(cause) => check(id, Status::Warn, format!("unknown: {cause}"), words),
    }
}

fn memory(facts: &Facts) -> Check {
    let words = (
        "2 GB available or more",
        "an agent of the soak workload takes about 1 kB, a million of them 1.1 GB",
        "ask for fewer agents, or give the host or the cgroup more memory",
    );
    bytes_at_least("memory", &facts.memory, 2_000_000_000, words)
}

fn store(facts: &Facts) -> Check {
    let words = (
        "2 GB free or more",
        "a core writes up to 32 kB every 10 s, so 72 hours on two cores take up to 2 GB",
        "free space, or name another store with --store DIR or TAILBEAM_STORE",
    );
    bytes_at_least("store", &facts.store, 2_000_000_000, words)
}

fn thp(facts: &Facts) -> Check {
    let never = facts.thp.as_ref().is_ok_and(|text| text.contains("[never]"));
    let status = if never { Status::Warn } else { Status::Ok };
    plain(
        "thp",
        &facts.thp,
        status,
        (
            "madvise or always",
            "tables of a million agents miss the TLB on 4 KiB pages",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    )
}

fn governor(facts: &Facts) -> Check {
    let words = (
        "performance",
        "a core that changes its clock changes every latency",
        "cpupower frequency-set -g performance",
    );
    match &facts.governor {
        Ok(value) if value == "performance" => check("governor", Status::Ok, value.clone(), words),
        Ok(value) => check("governor", Status::Warn, value.clone(), words),
        Err(_) => check(
            "governor",
            Status::Info,
            "no cpufreq: virtual machine or firmware control".to_owned(),
            words,
        ),
    }
}

fn clocksource(facts: &Facts) -> Check {
    let fast = facts
        .clocksource
        .as_ref()
        .is_ok_and(|name| ["tsc", "kvm-clock", "arch_sys_counter"].contains(&name.as_str()));
    let status = if fast { Status::Ok } else { Status::Warn };
    plain(
        "clock",
        &facts.clocksource,
        status,
        (
            "tsc, kvm-clock or arch_sys_counter",
            "others read the time by a system call",
            "boot with clocksource=tsc where it is stable",
        ),
    )
}

fn swap(facts: &Facts) -> Check {
    let words =
        ("none", "a page that comes back from disk is a latency of milliseconds", "swapoff -a");
    match &facts.swaps {
        Ok(text) if text.lines().count() <= 1 => {
            check("swap", Status::Ok, "none".to_owned(), words)
        }
        Ok(text) => {
            check("swap", Status::Warn, format!("{} areas", text.lines().count() - 1), words)
        }
        Err(cause) => check("swap", Status::Warn, format!("unknown: {cause}"), words),
    }
}

fn text(checks: &[Check], out: &mut dyn Write) -> io::Result<()> {
    let number = |status| checks.iter().filter(|check| check.status == status).count();
    for check in checks {
        let mark = match check.status {
            Status::Ok => "ok  ",
            Status::Info => "info",
            Status::Warn => "WARN",
            Status::Fail => "FAIL",
        };
        writeln!(out, "{mark} {:<9} {}", check.id, check.value)?;
        if matches!(check.status, Status::Warn | Status::Fail) {
            writeln!(
                out,
                "     expected  {}\n     why       {}\n     remedy    {}",
                check.expected, check.why, check.remedy
            )?;
        }
    }
    writeln!(
        out,
        "{} ok, {} warnings, {} failures; --strict exits 5 on a failure",
        number(Status::Ok),
        number(Status::Warn),
        number(Status::Fail)
    )
}

#[cfg(test)]
mod tests {
    use tailbeam_probes::collect::perf::{Capabilities, Environment, Row};

    use super::*;

    fn facts(kernel: &str) -> Facts {
        let tree = tempfile::tempdir().expect("a temporary directory");
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("proc/sys/kernel/osrelease", kernel);
        write(
            "proc/self/limits",
            "Max open files            64      64      files\nMax locked memory         unlimited unlimited bytes\n",
        );
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        write("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
        write("sys/fs/cgroup/a/b/pids.max", "20\n");
        write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]");
        Facts::gather(
            tree.path(),
            tree.path(),
            Err("io_uring is disabled\n  cause: seccomp".to_owned()),
            Ok(vec![("bells".to_owned(), "eventfd".to_owned())]),
            refused(),
        )
    }

    /// A container whose seccomp profile refuses perf.
    fn refused() -> Capabilities {
        let row = |area| {
            let works = "nothing".to_owned();
            let missing = vec![("all".to_owned(), perf::explain(1, Some(2)))];
            Row { area, works, missing }
        };
        let environment = Environment::Refused;
        Capabilities { environment, paranoid: Some(2), rows: Area::ALL.map(row).to_vec() }
    }

    fn status(checks: &[Check], id: &str) -> Status {
        checks.iter().find(|check| check.id == id).expect("the check exists").status
    }

    #[test]
    fn each_lack_is_named_with_a_remedy() {
        let checks = checks(&facts("5.10.0-8-amd64"));
        assert_eq!(status(&checks, "kernel"), Status::Fail);
        assert_eq!(status(&checks, "io_uring"), Status::Fail);
        assert_eq!(status(&checks, "quota"), Status::Warn);
        assert_eq!(status(&checks, "pids"), Status::Warn);
        for id in ["perf", "nofile", "thp", "clock", "swap", "cores", "counters", "sampling"] {
            assert_eq!(status(&checks, id), Status::Warn, "{id}");
        }
        assert_eq!(status(&checks, "memlock"), Status::Ok);
        assert_eq!(status(&checks, "governor"), Status::Info);
        let mut page = Vec::new();
        text(&checks, &mut page).expect("a Vec takes all");
        let page = String::from_utf8(page).expect("text");
        assert!(page.contains("ulimit -n 65536") && page.contains("seccomp"), "{page}");
        assert!(page.contains("perf_event_open in the container's seccomp profile"), "{page}");
    }

    #[test]
    fn kernel_versions() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(status(&checks(&facts("6.1.0")), "kernel"), Status::Ok);
    }
}
