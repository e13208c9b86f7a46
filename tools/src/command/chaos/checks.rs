//! What must hold of a subject when its faults are over: every request has one end, the log says so too, and nothing is
//! left in the process.

use serde_json::Value;
use tailbeam_harness::chaos::board::{Cell, Fate};
use tailbeam_harness::chaos::host::Process;
use tailbeam_harness::chaos::record::{Check, FaultRecord, SubjectRecord};
use tailbeam_harness::chaos::recovery::{Baseline, Span, judge};

use super::act::{open_files, threads};
use super::stage::{Stage, said};

/// What a process has open before any fault.
pub(super) struct Opened {
    process: Option<Process>,
    files: Result<u64, String>,
    threads: Result<u64, String>,
}

/// Looks.
pub(super) fn open(stage: &Stage<'_>) -> Opened {
    let process = stage.process();
    let of = |read: fn(Process) -> Result<u64, String>| {
        process.map_or_else(|| Err("no subject is alive".to_owned()), read)
    };
    Opened { process, files: of(open_files), threads: of(threads) }
}

/// Ends the subject, judges its trials again with everything known, and checks what it left.
pub(super) fn close(stage: &mut Stage<'_>, subject: &mut SubjectRecord, done: &mut [FaultRecord]) {
    let after = open(stage);
    match stage.opened.take().filter(|before| before.process == after.process) {
        Some(before) if after.process.is_some() => {
            subject.checks.push(same("no descriptor is left", before.files, after.files));
            subject.checks.push(same("no thread is left", before.threads, after.threads));
        }
        _ => {
            let text = "no process served from before its last fault to the end";
            subject.checks.push(Check::unknown("no descriptor or thread is left", text));
        }
    }
    let kills: Vec<Span> = done
        .iter()
        .filter(|of| of.fault.act.restarts())
        .flat_map(|of| of.trials.iter().map(|trial| trial.span))
        .collect();
    let ended = stage.stop();
    stage.read_all();
    rejudge(stage, subject, done);
    subject.processes = stage.board.begun().1;
    match ended {
        Ok(ended) => match serde_json::from_str::<Value>(&ended.out) {
            Ok(report) => {
                subject.run = report["data"]["run"]["id"].as_str().map(str::to_owned);
                subject.checks.extend(of_report(&report["data"], stage.kept));
            }
            Err(_) => subject.checks.push(Check::unknown("the run has a report", said(&ended))),
        },
        Err(cause) => {
            subject.checks.push(Check::seen("the subject ends when it is told to", false, cause))
        }
    }
    subject.checks.extend(of_cells(stage, &kills));
}

/// With everything known, as whoever judges the series again does.
fn rejudge(stage: &Stage<'_>, subject: &mut SubjectRecord, done: &mut [FaultRecord]) {
    subject.baseline = Baseline::of(&stage.axis, subject.quiet.0..subject.quiet.1);
    for of in done.iter_mut().filter(|of| of.fault.act.is_of_the_service()) {
        for trial in &mut of.trials {
            let judged = |baseline: &Baseline| judge(&stage.axis, baseline, trial.span);
            trial.recovery = subject.baseline.as_ref().map(judged);
        }
    }
}

fn same(name: &str, before: Result<u64, String>, after: Result<u64, String>) -> Check {
    match (before, after) {
        (Ok(before), Ok(after)) => {
            Check::seen(name, after <= before, format!("{before} before, {after} after"))
        }
        (Err(why), _) | (_, Err(why)) => Check::unknown(name, why),
    }
}

fn sum(cells: &[Cell]) -> Cell {
    let mut sum = Cell::default();
    cells.iter().for_each(|cell| sum.merge(cell));
    sum
}

/// A request that its process was killed with was due at most so long before, ns: the timeout of a subject, and more.
const OPEN_NS: u64 = 12_000_000_000;

/// Every request that was due has one end, unless its process was killed while it was open.
fn of_cells(stage: &Stage<'_>, kills: &[Span]) -> Vec<Check> {
    let ended = |cell: &Cell| cell.fates.iter().sum::<u64>();
    let twice = stage.axis.cells.iter().filter(|cell| ended(cell) > cell.due).count();
    let killed = |slot: usize| {
        let at_ns = slot as u64 * stage.axis.slot_ns;
        let dead = |kill: &Span| {
            (kill.injected_ns.saturating_sub(OPEN_NS)..=kill.reverted_ns).contains(&at_ns)
        };
        kills.iter().any(dead)
    };
    let open = stage.axis.cells.iter().enumerate().filter(|(slot, _)| !killed(*slot));
    let open: u64 = open.map(|(_, cell)| cell.open()).sum();
    let all = sum(&stage.axis.cells);
    let outside: u64 = (0..stage.board.shape().cores).map(|core| stage.board.outside(core)).sum();
    let named = [
        ("ok", Fate::Ok),
        ("declined", Fate::Declined),
        ("cancelled", Fate::Cancelled),
        ("expired", Fate::Expired),
        ("refused", Fate::Refused),
        ("error", Fate::Error),
        ("lost", Fate::Lost),
    ];
    let fates = named.map(|(name, fate)| format!("{} {name}", all.fate(fate))).join(", ");
    let text = format!(
        "{} due = {fates}, {} without an end, {open} of them not open when a process was killed",
        all.due,
        all.open()
    );
    vec![
        Check::seen("every request has one end", twice == 0 && open == 0, text),
        Check::seen(
            "no request is off the axis",
            outside == 0,
            format!("{outside} were due outside of it"),
        ),
    ]
}

/// What the run's own report says.
fn of_report(data: &Value, kept: Option<u64>) -> Vec<Check> {
    let gates = data["gates"].as_array().map_or(&[][..], Vec::as_slice);
    let mut checks = Vec::new();
    match gates.iter().find(|gate| gate["gate"] == "outcomes") {
        Some(gate) => checks.push(Check::seen(
            "the run's outcomes add up",
            gate["verdict"] == "PASS",
            gate["measured"].as_str().unwrap_or_default(),
        )),
        None => {
            checks.push(Check::unknown("the run's outcomes add up", "its report has no such gate"))
        }
    }
    let counts = data["protocol"].as_array().map_or(&[][..], Vec::as_slice);
    let count = |name: &str| {
        counts.iter().find(|of| of["name"] == name).and_then(|of| of["count"].as_u64())
    };
    for (name, of) in [
        ("no elicitation ends twice", "read again: ended without having begun"),
        ("every event can be read", "read again: unreadable events"),
        ("every log can be read", "read again: logs that cannot be read"),
    ] {
        checks.push(match count(of) {
            Some(n) => Check::seen(name, n == 0, format!("{of}: {n}")),
            None => Check::unknown(name, format!("the report does not say {of:?}")),
        });
    }
    if let Some(kept) = kept {
        let restored = count("restored: events").unwrap_or(0);
        let refused = count("restored: events that do not follow").unwrap_or(0);
        let text = format!("{restored} of {kept} events of the log, {refused} refused");
        checks.push(Check::seen(
            "a restart restores its log",
            restored == kept && refused == 0,
            text,
        ));
    }
    let damage = data["run"]["damage"].as_array().map_or(0, Vec::len);
    checks.push(Check::seen(
        "the evidence is whole",
        damage == 0,
        format!("{damage} damaged places"),
    ));
    checks
}
