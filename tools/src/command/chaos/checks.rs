//! What must hold of a subject when its faults are over: every request has one end, the log says so too, and no descriptor
//! or thread is left in the process.

use serde_json::Value;
use tailbeam_harness::chaos::board::{Cell, Fate, Mail};
use tailbeam_harness::chaos::host::{Call, Process};
use tailbeam_harness::chaos::record::{Check, FaultRecord, SubjectRecord};
use tailbeam_harness::chaos::recovery::{Baseline, Span, judge};

use super::act::{open_files, threads};
use super::refused;
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
                if stage.refused == Some(Call::PerfEventOpen) {
                    subject.checks.push(refused::no_figure(stage));
                }
            }
            Err(_) => subject.checks.push(Check::unknown("the run has a report", said(&ended))),
        },
        Err(cause) => {
            subject.checks.push(Check::seen("the subject ends when it is told to", false, cause))
        }
    }
    if let Some(peer) = stage.peer.take() {
        subject.checks.extend(peer.end());
        if stage.board.proxy_port().is_some() {
            let refused = stage.board.proxy_refused();
            let text = format!("{refused} connections were more than it may have, and were reset");
            subject.checks.push(Check::seen("the proxy had room", refused == 0, text));
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

pub(super) fn same(name: &str, before: Result<u64, String>, after: Result<u64, String>) -> Check {
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

/// The mail of one that does not read has a bound, and who writes more is refused. Seen before and after a fault that
/// fills mailboxes.
pub(super) fn bounded(before: Mail, after: Mail) -> Check {
    let name = "mailboxes keep their bound";
    let (looks, refused) = (after.looks - before.looks, after.refused - before.refused);
    let Some(bound) = after.bound.filter(|_| looks > 0) else {
        return Check::unknown(
            name,
            "nobody looked at a mailbox, or the subject has said no bound",
        );
    };
    let text = format!(
        "at most {} messages waited at one agent, {bound} may; {refused} were refused; seen in {looks} looks",
        after.deepest
    );
    // A bound that is not reached has bounded nothing.
    if refused == 0 && after.deepest <= bound {
        return Check::unknown(name, format!("no mailbox was full: {text}"));
    }
    Check::seen(name, after.deepest <= bound, text)
}

/// Every request that was due has one end, unless its process was killed while it was open.
fn of_cells(stage: &Stage<'_>, kills: &[Span]) -> Vec<Check> {
    let ended = |cell: &Cell| cell.fates.iter().sum::<u64>();
    let twice = stage.axis.cells.iter().filter(|cell| ended(cell) > cell.due).count();
    let open_ns = stage.setting.plan.open_ns();
    let killed = |slot: usize| {
        let at_ns = slot as u64 * stage.axis.slot_ns;
        let dead = |kill: &Span| {
            (kill.injected_ns.saturating_sub(open_ns)..=kill.reverted_ns).contains(&at_ns)
        };
        kills.iter().any(dead)
    };
    let open = stage.axis.cells.iter().enumerate().filter(|(slot, _)| !killed(*slot));
    let open: u64 = open.map(|(_, cell)| cell.open()).sum();
    let all = sum(&stage.axis.cells);
    let outside: u64 = (0..stage.board.shape().cores).map(|core| stage.board.outside(core)).sum();
    let fates = Fate::ALL.map(|fate| format!("{} {}", all.fate(fate), fate.name())).join(", ");
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
    checks.extend(kept.map(|kept| restored(kept, &count)));
    let whole = "the evidence is whole";
    checks.push(match data["run"]["damage"].as_array() {
        Some(damage) => {
            Check::seen(whole, damage.is_empty(), format!("{} damaged places", damage.len()))
        }
        None => Check::unknown(whole, "the report does not say what is damaged"),
    });
    checks
}

/// Whether the last restart has restored what its log held.
fn restored(kept: u64, count: &impl Fn(&str) -> Option<u64>) -> Check {
    let name = "a restart restores its log";
    let events = count("restored: events");
    let refused = count("restored: events that do not follow");
    match (kept, events, refused) {
        (0, ..) => Check::unknown(name, "the log held no event"),
        (_, Some(events), Some(refused)) => {
            let text = format!("{events} of {kept} events of the log, {refused} refused");
            Check::seen(name, events == kept && refused == 0, text)
        }
        // A run that restores nothing says nothing of it.
        _ => Check::seen(name, false, format!("none of {kept} events of the log")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_was_not_reached_or_not_looked_at_is_unknown() {
        let full = Mail { bound: Some(500), deepest: 500, looks: 40, refused: 9 };
        let holds = |after: Mail| bounded(Mail { refused: 2, ..Mail::default() }, after).holds;
        assert_eq!(holds(full), Some(true));
        assert_eq!(holds(Mail { deepest: 501, ..full }), Some(false));
        assert_eq!(holds(Mail { deepest: 501, refused: 2, ..full }), Some(false));
        for unknown in
            [Mail { refused: 2, ..full }, Mail { looks: 0, ..full }, Mail { bound: None, ..full }]
        {
            assert_eq!(holds(unknown), None, "{unknown:?}");
        }
    }
}
