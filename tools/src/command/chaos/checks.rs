//! What must hold of a subject when its faults are over: every request has one end, the log says so too, and no descriptor
//! or thread is left in the process.

use serde_json::Value;
use tailbeam_harness::chaos::board::Mail;
use tailbeam_harness::chaos::checks;
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
            subject.checks.push(same(checks::NO_DESCRIPTOR, before.files, after.files));
            subject.checks.push(same(checks::NO_THREAD, before.threads, after.threads));
        }
        _ => {
            let text = "no process served from before its last fault to the end";
            subject.checks.push(Check::unknown(checks::NEITHER, text));
        }
    }
    let kills: Vec<Span> = done.iter().flat_map(FaultRecord::kills).collect();
    let ended = stage.stop();
    stage.read_all();
    rejudge(stage, subject, done);
    subject.processes = stage.board.begun().1;
    match ended {
        Ok(ended) => match serde_json::from_str::<Value>(&ended.out) {
            Ok(report) => {
                subject.run = report["data"]["run"]["id"].as_str().map(str::to_owned);
                subject.checks.extend(checks::of_report(&report["data"]));
                subject.checks.extend(stage.kept.map(|kept| restored(kept, &report["data"])));
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
    subject.checks.push(checks::one_end(&stage.axis, &kills, stage.setting.plan.open_ns()));
    subject.checks.push(outside(stage));
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

/// Nobody can look for these in the slots.
fn outside(stage: &Stage<'_>) -> Check {
    let outside: u64 = (0..stage.board.shape().cores).map(|core| stage.board.outside(core)).sum();
    Check::seen(
        "no request is off the axis",
        outside == 0,
        format!("{outside} were due outside of it"),
    )
}

/// Whether the last restart has restored what its log held.
fn restored(kept: u64, report: &Value) -> Check {
    let name = "a restart restores its log";
    let events = checks::count(report, "restored: events");
    let refused = checks::count(report, "restored: events that do not follow");
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
