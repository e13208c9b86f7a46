//! Latency.md E4, row by row and cell by cell.

use super::*;
use crate::collect::perf::{Row, explain};

fn row(area: Area, works: &str, missing: &[(&str, Unavailable)]) -> Row {
    let missing = missing.iter().map(|(name, why)| ((*name).to_owned(), why.clone())).collect();
    Row { area, works: works.to_owned(), missing }
}

fn host(environment: Environment, rows: Vec<Row>) -> Capabilities {
    Capabilities { environment, paranoid: Some(2), rows }
}

const SWITCHES: &str = "own thread's switches, preempted or blocked; schedstat";
const STEAL: &str = "/proc/stat in ticks of 10 ms; holes in idle time, unattributed";

fn whole(run: &Recorded) -> Recorded {
    Recorded { task_clock: run.ticks, switches: run.ticks, schedstat: run.ticks, ..*run }
}

fn full() -> Recorded {
    whole(&Recorded { ticks: 600, ..Recorded::default() })
}

fn text(found: &Matrix, column: Column) -> &str {
    &found.cell(column).unwrap().text
}

fn unknown(found: &Matrix, column: Column) -> Vec<&str> {
    found.cell(column).unwrap().unknown.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn bare_metal_with_all_privileges() {
    let rows = vec![
        row(Area::Counters, "task-clock, cycles, instructions", &[]),
        row(Area::OffCpu, SWITCHES, &[]),
        row(Area::Steal, STEAL, &[]),
        row(Area::Sampling, "cpu-clock, user space and kernel", &[]),
    ];
    let found = matrix(&host(Environment::Full, rows), Some(&full()));
    assert_eq!(text(&found, Column::Environment), "PMU, user space and kernel");
    assert_eq!(text(&found, Column::Counters), "task-clock, cycles, instructions");
    assert_eq!(text(&found, Column::OffCpu), SWITCHES);
    assert_eq!(text(&found, Column::Steal), STEAL);
    assert_eq!(text(&found, Column::Sampling), "cpu-clock, user space and kernel");
    assert_eq!(text(&found, Column::Says), "full");
    assert!(found.cells.iter().all(|cell| cell.unknown.is_empty()), "{found:?}");
}

#[test]
fn bare_metal_at_paranoid_2() {
    let refused = explain(libc::EACCES, Some(2));
    let rows = vec![
        row(Area::Counters, "task-clock, cycles (user)", &[("kernel cycles", refused.clone())]),
        row(Area::OffCpu, SWITCHES, &[]),
        row(Area::Steal, STEAL, &[]),
        row(Area::Sampling, "cpu-clock, user space only", &[("kernel samples", refused)]),
    ];
    let found = matrix(&host(Environment::UserOnly, rows), Some(&full()));
    assert_eq!(text(&found, Column::Environment), "PMU, user space only: kernel cycles unknown");
    assert_eq!(text(&found, Column::Counters), "task-clock, cycles (user)");
    assert_eq!(unknown(&found, Column::Counters), ["kernel cycles"]);
    assert_eq!(
        (text(&found, Column::OffCpu), unknown(&found, Column::OffCpu).len()),
        (SWITCHES, 0)
    );
    assert_eq!(text(&found, Column::Steal), STEAL);
    assert_eq!(text(&found, Column::Sampling), "cpu-clock, user space only");
    assert_eq!(unknown(&found, Column::Sampling), ["kernel samples"]);
    assert_eq!(text(&found, Column::Says), "kernel cycles unknown");
}

fn without_pmu(cause: Unavailable) -> Capabilities {
    let missing = [("cycles", cause.clone()), ("instructions", cause)];
    let rows = vec![
        row(Area::Counters, "task-clock, page-faults", &missing),
        row(Area::OffCpu, SWITCHES, &[]),
        row(Area::Steal, STEAL, &[]),
        row(Area::Sampling, "cpu-clock, user space and kernel", &[]),
    ];
    host(Environment::NoPmu, rows)
}

#[test]
fn a_virtual_machine_without_a_pmu() {
    let cause = explain(libc::ENOENT, Some(2));
    let found = matrix(&without_pmu(cause.clone()), Some(&full()));
    assert_eq!(
        text(&found, Column::Environment),
        "no PMU that counts both cycles and instructions"
    );
    assert_eq!(text(&found, Column::Counters), "task-clock, page-faults");
    assert_eq!(unknown(&found, Column::Counters), ["cycles", "instructions"]);
    assert_eq!(text(&found, Column::OffCpu), SWITCHES);
    assert_eq!(text(&found, Column::Steal), STEAL);
    assert_eq!(text(&found, Column::Sampling), "cpu-clock, user space and kernel");
    assert_eq!(text(&found, Column::Says), format!("cycles unknown: {}", cause.cause));
}

#[test]
fn a_virtual_pmu_that_does_not_count_the_known_load() {
    let cause = Unavailable {
        source: "known load",
        cause: "it opens and stands at 0".to_owned(),
        remedy: "run on bare metal".to_owned(),
    };
    let found = matrix(&without_pmu(cause), Some(&full()));
    assert_eq!(text(&found, Column::Says), "cycles unknown: it opens and stands at 0");
    assert_eq!(unknown(&found, Column::Counters), ["cycles", "instructions"]);
}

#[test]
fn a_container_whose_seccomp_refuses_perf() {
    let refused = || explain(libc::EPERM, Some(3));
    let rows = vec![
        row(
            Area::Counters,
            "CPU time, page faults, context switches (no perf)",
            &[("cycles", refused())],
        ),
        row(
            Area::OffCpu,
            "schedstat only: totals of waiting, no single interval",
            &[("switch records", refused())],
        ),
        row(Area::Steal, "holes in idle time, unattributed", &[("steal", refused())]),
        row(Area::Sampling, "nothing", &[("samples", refused())]),
    ];
    let run = Recorded { task_clock: 0, switches: 0, ..full() };
    let found = matrix(&host(Environment::Refused, rows), Some(&run));
    assert_eq!(
        text(&found, Column::Environment),
        "perf refused: times, faults and switches by getrusage and schedstat"
    );
    assert_eq!(unknown(&found, Column::Counters), ["cycles"]);
    assert_eq!(
        text(&found, Column::OffCpu),
        "schedstat only: totals of waiting, no single interval"
    );
    assert_eq!(unknown(&found, Column::OffCpu), ["switch records"], "and nothing about the run");
    assert_eq!(text(&found, Column::Steal), "holes in idle time, unattributed");
    assert_eq!(
        (text(&found, Column::Sampling), unknown(&found, Column::Sampling)),
        ("nothing", vec!["samples"])
    );
    assert_eq!(
        text(&found, Column::Says),
        "stages, bands and conservation of requests and legs hold; that of cores is unknown"
    );
}

#[test]
fn what_a_run_did_not_record_is_unknown_though_the_host_allows_it() {
    let cause = explain(libc::ENOENT, Some(2));
    let before = matrix(&without_pmu(cause.clone()), None);
    assert!(unknown(&before, Column::OffCpu).is_empty(), "there is no run yet");
    let run = Recorded { task_clock: 599, switches: 0, lost: 12, ..full() };
    let found = matrix(&without_pmu(cause.clone()), Some(&run));
    assert_eq!(unknown(&found, Column::Counters)[2], "task-clock in this run");
    assert_eq!(
        unknown(&found, Column::OffCpu),
        ["switch records in this run", "time off the CPU beyond a lower bound"]
    );
    let says = text(&found, Column::Says);
    assert!(says.ends_with("; conservation FAILs: records of switches were lost"), "{says}");
    let none = matrix(&without_pmu(cause), Some(&Recorded::default()));
    assert_eq!(unknown(&none, Column::OffCpu).len(), 2);
    let untried = matrix(&host(Environment::Full, vec![]), None);
    assert_eq!(unknown(&untried, Column::Steal), ["irq/steal"], "no row is no permission");
}

#[test]
fn what_was_recorded_is_counted_by_ticks() {
    use crate::record::latency::{CoreTick, CounterRecord};
    let counter = |count| CounterRecord { name: "task-clock".to_owned(), count };
    let tick = |count| CoreTick { counters: vec![counter(count)], lost: 2, ..CoreTick::default() };
    let whole = CoreTick { preempted_ns: Some(0), wait_ns: Some(0), ..tick(Count::Scaled(5, 950)) };
    let ticks = vec![whole, tick(Count::Rough(5, 400)), tick(Count::Unknown("starved".to_owned()))];
    let window = LatencyWindow { ticks, ..LatencyWindow::default() };
    let expected = Recorded { ticks: 3, task_clock: 1, switches: 1, schedstat: 1, lost: 6 };
    assert_eq!(Recorded::of(&[window]), expected);
}
