//! What must hold of a subject when its faults are over: every request has one end, the log says so too, and no descriptor
//! or thread is left in the process.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;
use tailbeam_harness::chaos::attribution;
use tailbeam_harness::chaos::board::{FoundDamage, LevelSpan, Mail, PLACES_MAX, Place};
use tailbeam_harness::chaos::checks::{self, Kill, LOST, NAMES_DAMAGE};
use tailbeam_harness::chaos::corrupt::{self, Planted, copied, promised};
use tailbeam_harness::chaos::held;
use tailbeam_harness::chaos::host::{Call, Process};
use tailbeam_harness::chaos::record::{ChaosPlan, Check, FaultRecord, SubjectRecord};
use tailbeam_harness::chaos::recovery::{Baseline, judge};

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

/// Times that it is looked for what is left, 100 ms apart: a log opens its next segment, and a connection is made anew.
const LOOKS: u32 = 20;

/// Looks what its faults have left in a process that is to end.
pub(super) fn leave(stage: &mut Stage<'_>) {
    let Some(before) = stage.opened.take() else { return };
    for look in 1..=LOOKS {
        // A corpse has nothing open.
        if !stage.lives() {
            return;
        }
        let after = open(stage);
        if after.process.is_none() || before.process != after.process {
            return;
        }
        let checks = [
            same(checks::NO_DESCRIPTOR, before.files.clone(), after.files),
            same(checks::NO_THREAD, before.threads.clone(), after.threads),
        ];
        let hold = checks.iter().all(|check| check.holds == Some(true));
        if hold || look == LOOKS || !stage.setting.wait(100_000_000) {
            return stage.left.extend(checks);
        }
    }
}

/// Time between two looks at what a subject holds, ns; it says so every 20 ms.
const HELD_NS: u64 = 50_000_000;

/// Looks for so long at what a subject says to hold; until `enough` says so, too.
pub(super) fn held_for(
    stage: &Stage<'_>,
    ns: u64,
    enough: impl Fn(&LevelSpan) -> bool,
) -> Option<LevelSpan> {
    let (mut span, mut seen) = (None, stage.board.levels().look);
    let until_ns = stage.now_ns() + ns;
    while stage.now_ns() < until_ns && stage.setting.wait(HELD_NS) {
        let levels = stage.board.levels();
        if std::mem::replace(&mut seen, levels.look) != levels.look {
            span = Some(LevelSpan::with(span, &levels));
        }
        if span.as_ref().is_some_and(|span| span.looks >= held::LOOKS && enough(span)) {
            break;
        }
    }
    span
}

/// The longest time for that, ns.
pub(super) const fn held_after_ns(plan: &ChaosPlan) -> u64 {
    plan.open_ns() + 6 * held::LOOKS * HELD_NS
}

/// What a subject holds when it is back from an injection. What was lost on a link is open until its deadline: it is looked
/// at for that long before anything is said to be left, and what it held until then is no part of it.
pub(super) fn held_after(stage: &Stage<'_>, first: Option<&LevelSpan>) -> Option<LevelSpan> {
    let base = stage.held.as_ref();
    let level = |now: &LevelSpan| held::is_level(now, base, first);
    held_for(stage, stage.setting.plan.open_ns() + 2 * held::LOOKS * HELD_NS, level);
    held_for(stage, 4 * held::LOOKS * HELD_NS, |_| true)
}

/// The worst of what was found in the processes of a subject; none if nobody looked.
fn worst(all: &[Check], name: &str) -> Option<Check> {
    let rank = |check: &&Check| match check.holds {
        Some(false) => 2,
        None => 1,
        Some(true) => 0,
    };
    let of = || all.iter().filter(|check| check.name == name);
    let worst = of().max_by_key(rank)?;
    let text = match of().count() {
        1 => worst.text.clone(),
        n => format!("{}; the worst of {n} processes", worst.text),
    };
    Some(Check { text, ..worst.clone() })
}

/// Whether a subject has said of anything that it is durable.
pub(super) fn promises(stage: &Stage<'_>) -> bool {
    (0..stage.board.shape().cores).any(|core| stage.board.durable(core) > 0)
}

/// Whether the logs of a subject that runs no more hold what it had promised, and how many events they have.
pub(super) fn durable(stage: &Stage<'_>) -> (Vec<Check>, u64) {
    let logs = stage.logs();
    if logs.is_empty() {
        return (vec![Check::unknown(LOST, "the subject keeps no log")], 0);
    }
    let key = stage.log_key();
    let (mut lost, mut all, mut records, mut events) = (0, 0, 0, 0);
    let mut ends = Ends::default();
    let (mut damage, mut unread) = (Vec::new(), None);
    for (core, dir) in logs {
        let (durable, told) = (stage.board.durable(core), stage.board.told(core));
        all += durable;
        ends.told += told;
        let log = match copied(&dir) {
            Ok(log) => log,
            // What is not there any more has lost all of it.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                lost += durable;
                ends.lost_told += told;
                continue;
            }
            Err(error) => {
                unread = Some(format!("{}: {error}", dir.display()));
                continue;
            }
        };
        let kept = promised(&log, key, durable, told);
        // What was damaged on purpose is looked for apart.
        let ours: Vec<&Planted> = ours(stage, core).collect();
        let missed = |below| ours.iter().filter(|of| of.seqs.start < below).count() as u64;
        lost += kept.lost.saturating_sub(missed(durable));
        ends.lost_told += kept.lost_told.saturating_sub(missed(told));
        (records, events) = (records + kept.records, events + kept.events);
        ends.answers += kept.answers;
        let others = kept.scanned.damage.iter().filter(|of| {
            let planted = |ours: &&Planted| (ours.segment, ours.offset) == (of.segment, of.offset);
            !of.is_cut_off() && !ours.iter().any(planted)
        });
        damage.extend(others.map(ToString::to_string));
    }
    let text = format!(
        "{lost} of {all} events that were said to be durable are not in the log; it has {records}"
    );
    let acknowledged = match &unread {
        Some(why) => Check::unknown(checks::ACKNOWLEDGED, why.clone()),
        None => acknowledged(stage, &ends),
    };
    // Of nothing that was promised nothing can be lost: that would be a check that cannot fail.
    let durable = match (unread, all) {
        (Some(why), _) if lost == 0 => Check::unknown(LOST, why),
        (_, 0) => Check::unknown(LOST, "nothing was said to be durable yet"),
        _ => Check::seen(LOST, lost == 0, text),
    };
    let whole = Check::seen(
        "the log is whole but for writes that were cut off",
        damage.is_empty(),
        damage.first().cloned().unwrap_or_else(|| "no record is damaged or missing".to_owned()),
    );
    (vec![durable, whole, acknowledged], events)
}

/// What was told, and what the logs have of it.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    /// Events of which what they say was told, by those who told it.
    told: u64,
    /// Of these, not in the logs; what was damaged on purpose is none of it.
    lost_told: u64,
    /// Ends by an answer that the logs have.
    answers: u64,
}

/// Whether the logs have every event of which what it says was told, and an answer for each that an asker had. The log's
/// own word of how far it is durable says nothing of that: who is told too early is told of what is behind it. Events are
/// known by their numbers; the askers' answers are counted beside them, by those who know nothing of any log.
fn acknowledged(stage: &Stage<'_>, ends: &Ends) -> Check {
    let name = checks::ACKNOWLEDGED;
    if !stage.setting.acknowledges {
        return Check::unknown(name, "the plan of the subjects promises no such thing");
    }
    let had: u64 =
        (0..stage.board.shape().slots).map(|slot| stage.board.read(slot).answered()).sum();
    // Ends that were damaged on purpose are not read again.
    ends_hold(ends, had, stage.answers_flipped)
}

/// Of so many answers that askers `had`.
fn ends_hold(ends: &Ends, had: u64, damaged: u64) -> Check {
    let Ends { told, lost_told, answers } = *ends;
    let text = format!(
        "{lost_told} of {told} events of which was told are not in the logs; {had} requests were answered in their time, the logs have {answers} answers, {damaged} were damaged on purpose"
    );
    if told == 0 || had == 0 {
        return Check::unknown(checks::ACKNOWLEDGED, text);
    }
    Check::seen(checks::ACKNOWLEDGED, lost_told == 0 && answers + damaged >= had, text)
}

/// Ends the subject, judges its trials again with everything known, and checks what it left.
pub(super) fn close(stage: &mut Stage<'_>, subject: &mut SubjectRecord, done: &mut [FaultRecord]) {
    leave(stage);
    let left = [checks::NO_DESCRIPTOR, checks::NO_THREAD].map(|name| worst(&stage.left, name));
    subject.checks.extend(left.into_iter().flatten());
    if stage.left.is_empty() {
        let text = "no process served from before a fault until after it";
        subject.checks.push(Check::unknown(checks::NEITHER, text));
    }
    let kills: Vec<Kill> = done.iter().flat_map(FaultRecord::kills).collect();
    let ended = stage.stop();
    stage.read_all();
    rejudge(stage, subject, done);
    subject.processes = stage.board.begun().1;
    match ended {
        Ok((status, ended)) => match serde_json::from_str::<Value>(&ended.out) {
            Ok(report) => {
                subject.run = report["data"]["run"]["id"].as_str().map(str::to_owned);
                subject.checks.extend(checks::of_report(&report["data"]));
                if stage.refused == Some(Call::PerfEventOpen) {
                    subject.checks.push(refused::no_figure(stage));
                }
            }
            Err(_) => {
                let text = format!("it ended without one ({status}): {}", said(&ended));
                subject.checks.push(Check::seen("the run has a report", false, text));
            }
        },
        Err(cause) => {
            subject.checks.push(Check::seen("the subject ends when it is told to", false, cause))
        }
    }
    // What no fault may lose is looked for when all are over, too: not each ends a process.
    subject.checks.extend(durable(stage).0);
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
    attribute(stage, subject, done);
    let faults: Vec<&FaultRecord> = done.iter().collect();
    subject.checks.extend(held::checks(subject.levels.as_ref(), &faults));
}

/// Says of each fault where the time of the slowest requests went.
fn attribute(stage: &Stage<'_>, subject: &SubjectRecord, done: &mut [FaultRecord]) {
    let Some(run) = &subject.run else { return };
    let dir = stage.setting.store.join(run);
    for fault in done {
        fault.tail = attribution::tail(&dir, fault, stage.board.shape().from_ns);
    }
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

/// What was damaged in the log of a core.
fn ours<'s>(stage: &'s Stage<'_>, core: u32) -> impl Iterator<Item = &'s Planted> {
    stage.flipped.iter().filter(move |(of, _)| *of == core).map(|(_, planted)| planted)
}

/// What damaging the logs of a subject that runs no more came to.
pub(super) struct Flips {
    /// Events that were damaged, one in each log that has enough of them.
    pub(super) events: u64,
    /// Logs.
    pub(super) logs: u64,
    /// Why there are no more.
    pub(super) failed: Option<String>,
}

/// Damages an event in each log of a subject that runs no more.
pub(super) fn flip(stage: &mut Stage<'_>, draw: u64) -> Flips {
    let logs = stage.logs();
    let mut flips = Flips { events: 0, logs: logs.len() as u64, failed: None };
    for (core, dir) in logs {
        match flip_in(stage, (core, &dir), draw) {
            Ok(done) => flips.events += u64::from(done),
            Err(error) => flips.failed = Some(format!("{}: {error}", dir.display())),
        }
    }
    flips
}

/// Whether the log had an event for it.
fn flip_in(stage: &mut Stage<'_>, (core, dir): (u32, &Path), draw: u64) -> std::io::Result<bool> {
    let log = copied(dir)?;
    // Each log at another place, and in another part of the event.
    let draw = draw.rotate_left(core.wrapping_mul(21) % 64);
    let Some(flip) = corrupt::flip(&log, stage.log_key(), draw) else { return Ok(false) };
    // Known before it is done: a byte that was written and not synced is damaged all the same.
    stage.flipped.push((core, flip.planted.clone()));
    stage.answers_flipped += corrupt::answers_of(&log, stage.log_key(), &flip.planted);
    corrupt::flip_on_disk(dir, &flip)?;
    Ok(true)
}

/// Whether the process that goes on has found what was damaged in its logs so far, each place of it and no other; none if
/// nothing was.
pub(super) fn damage_named(stage: &Stage<'_>) -> Option<Check> {
    if stage.flipped.is_empty() {
        return None;
    }
    let cores = 0..stage.board.shape().cores;
    let logs: Vec<(Vec<Planted>, FoundDamage)> = cores
        .map(|core| (ours(stage, core).cloned().collect(), stage.board.damage(core)))
        .collect();
    Some(named(&logs))
}

/// By what was planted in each log, and what was found in it.
fn named(logs: &[(Vec<Planted>, FoundDamage)]) -> Check {
    let (mut holds, mut all_told, mut text) = (true, true, Vec::new());
    for (core, (planted, found)) in logs.iter().enumerate() {
        let mut planted: Vec<Place> = planted.iter().map(place).collect();
        planted.sort_unstable();
        holds &= found.count == planted.len() as u64
            && planted.iter().take(PLACES_MAX).eq(&found.places);
        all_told &= planted.len() <= PLACES_MAX;
        let list = |of: &[Place]| of.iter().map(Place::to_string).collect::<Vec<_>>().join("; ");
        let (n, places) = (found.count, list(&found.places));
        text.push(match found.places == planted {
            true => format!("log {core}: {n} of {n} damaged places found: {places}"),
            false => format!(
                "log {core}: {n} of {} damaged places found: {places}; planted: {}",
                planted.len(),
                list(&planted)
            ),
        });
    }
    match holds && !all_told {
        true => Check::unknown(NAMES_DAMAGE, format!("more than {PLACES_MAX} places are damaged")),
        false => Check::seen(NAMES_DAMAGE, holds, text.join(" | ")),
    }
}

fn place(of: &Planted) -> Place {
    let byte = u32::try_from(of.offset).unwrap_or(u32::MAX);
    Place { segment: of.segment, byte, event: Some(of.seqs.start) }
}

/// Whether a restart has restored what the log held: `kept` events. By what the process says at its begin.
pub(super) fn restored(kept: u64, (events, refused): (u64, u64)) -> Check {
    let name = "a restart restores its log";
    if kept == 0 {
        return Check::unknown(name, "the log held no event");
    }
    let text = format!("{events} of {kept} events of the log, {refused} refused");
    Check::seen(name, events == kept && refused == 0, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_of_several_processes_left_is_said() {
        let of = |holds, text: &str| Check { name: "n".to_owned(), holds, text: text.to_owned() };
        let (good, bad) =
            (of(Some(true), "3 before, 3 after"), of(Some(false), "3 before, 4 after"));
        assert_eq!(worst(std::slice::from_ref(&good), "n"), Some(good.clone()));
        assert_eq!(worst(&[], "n"), None);
        let found = worst(&[good.clone(), bad, of(None, "?"), good], "n").unwrap();
        assert_eq!(found, of(Some(false), "3 before, 4 after; the worst of 4 processes"));
    }

    #[test]
    fn a_restart_names_every_place_that_is_damaged_and_no_other() {
        let planted = |at: &[(u32, u64)]| -> Vec<Planted> {
            at.iter().map(|&(segment, offset)| Planted { segment, offset, seqs: 5..6 }).collect()
        };
        let place = |(segment, byte): (u32, u32)| Place { segment, byte, event: Some(5) };
        let found = |count, at: &[(u32, u32)]| FoundDamage {
            count,
            places: at.iter().copied().map(place).collect(),
        };
        let holds = |at: &[(u32, u64)], found| named(&[(planted(at), found)]).holds;
        let two = [(2, 8), (1, 64)];
        assert_eq!(holds(&two, found(2, &[(1, 64), (2, 8)])), Some(true));
        let mut other_event = found(2, &[(1, 64), (2, 8)]);
        other_event.places[0].event = Some(4);
        for wrong in [
            found(0, &[]),
            found(1, &[(1, 64)]),
            found(2, &[(1, 64), (2, 16)]),
            found(2, &[(1, 64), (3, 8)]),
            found(3, &[(1, 64), (2, 8), (2, 16)]),
            other_event,
        ] {
            assert_eq!(holds(&two, wrong.clone()), Some(false), "{wrong:?}");
        }
        let many: Vec<(u32, u64)> = (0..13).map(|of| (of, 64)).collect();
        let told: Vec<(u32, u32)> = (0..11).map(|of| (of, 64)).collect();
        assert_eq!(holds(&many, found(13, &told)), None, "not each was told");
        assert_eq!(holds(&many, found(12, &told)), Some(false));
        assert_eq!(holds(&[], found(1, &[(0, 64)])), Some(false), "in another core's log");
    }

    #[test]
    fn who_was_told_of_what_is_in_no_log_is_found_behind_any_number_of_late_answers() {
        let holds = |told, lost_told, answers, had, damaged| {
            ends_hold(&Ends { told, lost_told, answers }, had, damaged).holds
        };
        assert_eq!(holds(900, 0, 300, 300, 0), Some(true));
        assert_eq!(holds(900, 0, 320, 300, 0), Some(true), "twenty heard too late");
        assert_eq!(holds(900, 1, 320, 300, 0), Some(false), "one of them had no event");
        assert_eq!(holds(900, 0, 299, 300, 0), Some(false));
        assert_eq!(holds(900, 0, 299, 300, 1), Some(true));
        for nothing in [holds(0, 0, 0, 0, 0), holds(0, 0, 5, 5, 0), holds(5, 0, 5, 0, 0)] {
            assert_eq!(nothing, None);
        }
    }

    #[test]
    fn a_restart_that_restores_less_or_what_does_not_follow_fails() {
        let holds = |kept, said| restored(kept, said).holds;
        assert_eq!(holds(0, (0, 0)), None);
        assert_eq!(holds(5, (5, 0)), Some(true));
        for said in [(0, 0), (4, 0), (6, 0), (5, 1)] {
            assert_eq!(holds(5, said), Some(false), "{said:?}");
        }
    }

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
