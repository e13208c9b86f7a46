//! The degradation matrix as other users see it, word for word.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use tailbeam_probes::collect::perf::{Area, capabilities};

use tailbeam_qemu::Judge;

const NOBODY: u32 = 65_534;

/// What the calling user may measure; a line for each area.
pub(crate) fn here() -> String {
    let able = capabilities();
    let mut text = format!("environment: {}\n", able.environment.words());
    for area in Area::ALL {
        let row = able.row(area);
        text += &format!("{}: {}\n", area.name(), row.works);
        for (what, why) in &row.missing {
            text += &format!("  no {what}: {}\n", why.cause);
        }
    }
    text
}

/// The matrix as uid 65534 at a level of perf_event_paranoid.
fn nobody(level: i32) -> String {
    let path = "/proc/sys/kernel/perf_event_paranoid";
    fs::write(path, level.to_string()).expect("root may set it");
    // There is no /dev/null here that a child could be given.
    let mut child = Command::new("/init");
    child.arg("matrix").uid(NOBODY).gid(NOBODY).stdin(Stdio::inherit());
    let output = child.output();
    let output = output.expect("the program is there");
    let failed = if output.status.success() { "" } else { "it did not exit with 0\n" };
    String::from_utf8_lossy(&output.stdout).into_owned() + failed
}

fn same(judge: &mut Judge, claim: &str, seen: &str, expected: &str) {
    judge.that(claim, seen == expected, if seen == expected { "word for word" } else { seen });
}

const REST: &str = "steal: /proc/stat in ticks of 10 ms; holes in idle time, unattributed\n";
const MISSES: &str = "  no cache-misses: ENOENT: no PMU here counts it
  no branch-misses: ENOENT: no PMU here counts it
";

/// Levels 3 to 0 with a PMU that has cycles and instructions, and no caches and branches.
pub(crate) fn levels(judge: &mut Judge) {
    let all = "EACCES: perf_event_paranoid is 3, which refuses all events";
    let kinds = ["cycles", "instructions", "cache-misses", "branch-misses", "cpu-migrations"];
    let none: String = kinds.iter().map(|kind| format!("  no {kind}: {all}\n")).collect();
    let expected = format!(
        "environment: perf refused: times, faults and switches by getrusage and schedstat
stamps: CNTVCT
counters: CPU time, page faults, context switches (no perf)
{none}cpus: nothing
  no cpus: {all}
off-cpu: schedstat only: totals of waiting, no single interval
  no switch records: {all}
{REST}sampling: nothing
  no samples: {all}
"
    );
    same(judge, "paranoid 3 of Debian", &nobody(3), &expected);
    let two = "EACCES: perf_event_paranoid is 2";
    let counts = "page-faults, major-faults, context-switches, preemptions";
    let expected = format!(
        "environment: PMU, user space only: kernel cycles unknown
stamps: CNTVCT
counters: task-clock, cycles (user), instructions (user), {counts}
{MISSES}  no cpu-migrations: without the kernel's work (paranoid 2) this counter opens and reads 0 for ever
  no kernel cycles: {two}
cpus: nothing
  no cpus: {two}
off-cpu: own thread's switches, preempted or blocked; schedstat
{REST}sampling: cpu-clock, user space only
  no kernel samples: {two}
"
    );
    same(judge, "paranoid 2", &nobody(2), &expected);
    let full = |cpus: &str| {
        format!(
            "environment: PMU, user space and kernel
stamps: CNTVCT
counters: task-clock, cycles, instructions, {counts}, cpu-migrations
{MISSES}cpus: {cpus}
off-cpu: own thread's switches, preempted or blocked; schedstat
{REST}sampling: cpu-clock, user space and kernel
"
        )
    };
    let one = full("nothing\n  no cpus: EACCES: perf_event_paranoid is 1");
    same(judge, "paranoid 1", &nobody(1), &one);
    let cpus = "task-clock, cycles, instructions, page-faults, major-faults, context-switches, cpu-migrations";
    let zero = full(&format!("{cpus}\n{}", MISSES.trim_end()));
    same(judge, "paranoid 0", &nobody(0), &zero);
}

/// A guest without a PMU.
pub(crate) fn without_pmu(judge: &mut Judge) {
    let kinds = ["cycles", "instructions", "cache-misses", "branch-misses"];
    let none: String =
        kinds.iter().map(|kind| format!("  no {kind}: ENOENT: no PMU here counts it\n")).collect();
    let counters = format!(
        "environment: no PMU that counts both cycles and instructions
stamps: CNTVCT
counters: task-clock, page-faults, major-faults, context-switches, preemptions, cpu-migrations
{none}"
    );
    let seen = nobody(1);
    let there = seen.starts_with(&counters);
    judge.that("no PMU", there, if there { "word for word" } else { &seen });
    let root = here();
    let there = root.starts_with(&counters);
    judge.that("no PMU, root", there, if there { "word for word" } else { &root });
}

/// A guest whose PMU has cycles and no instructions.
pub(crate) fn without_instructions(judge: &mut Judge) {
    let seen = here();
    let there = seen.contains("counters: task-clock, cycles, page-faults")
        && seen.contains("no instructions: ENOENT");
    judge.that("cycles without instructions", there, &seen);
}
