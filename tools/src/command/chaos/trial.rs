//! One injection: at an instant of its own, held, taken back, and watched until the service is back.

use tailbeam_harness::chaos::board::{Defence, Knob};
use tailbeam_harness::chaos::corrupt::{copied, examine, missed, plant};
use tailbeam_harness::chaos::host::Journal;
use tailbeam_harness::chaos::host::injector::LoopDisk;
use tailbeam_harness::chaos::record::{Bite, Check, OpenAtEnd, Trial};
use tailbeam_harness::chaos::recovery::{Baseline, Seek, Span, is_back, judge};
use tailbeam_harness::chaos::scenario::{Act, Damage, Fault};
use tailbeam_probes::Unavailable;
use tailbeam_probes::collect::process::cpu_time_ns;

use super::act::Force;
use super::checks::{self, Flips};
use super::refused::Refusals;
use super::stage::{Stage, said};

/// Why a fault that was cut off has no more injections.
pub(super) const STOPPED: &str = "the series was stopped";
/// Time between two looks for the return, ns. It says when the watch ends; the slots say when the service was back.
const LOOK_NS: u64 = 1_000_000_000;
/// Largest delay before an injection, ns.
const PHASE_NS: u64 = 1_000_000_000;

/// A process that was killed has ended by that.
fn ended(status: &str) -> Bite {
    Bite {
        source: format!("the subject ended: {status}"),
        unit: "processes".to_owned(),
        before: Some(0),
        after: Some(1),
        bit: status.contains("signal: 9"),
    }
}

/// Subjects began, as many as were to.
fn began(before: u64, after: u64, wanted: u64) -> Bite {
    Bite {
        source: "subjects that began".to_owned(),
        unit: "processes".to_owned(),
        before: Some(before),
        after: Some(after),
        bit: after == before + wanted,
    }
}

/// A core was told to end.
fn told_to_end(before: u64, after: u64) -> Bite {
    Bite {
        source: "cores that were told to end".to_owned(),
        unit: "cores".to_owned(),
        before: Some(before),
        after: Some(after),
        bit: after > before,
    }
}

/// What this process may take of a core while it looks on: it runs on the cores of the service, and is not there while
/// the baseline is taken.
const LOOKING_MAX: f64 = 0.02;

/// Whether looking on was cheap enough to be believed.
fn looking_on(
    before: Result<u64, Unavailable>,
    after: Result<u64, Unavailable>,
    length_ns: u64,
) -> Check {
    let name = "looking on takes less than 2 % of a core";
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(gone), _) | (_, Err(gone)) => return Check::unknown(name, gone.cause),
    };
    let share = after.saturating_sub(before) as f64 / length_ns.max(1) as f64;
    let text = format!("{:.2} % of a core for {:.1} s", share * 100.0, length_ns as f64 / 1e9);
    match share < LOOKING_MAX {
        true => Check::seen(name, true, text),
        // It may have been the cause of what it saw.
        false => Check::unknown(name, text),
    }
}

/// Events were damaged on the disk, and why not in each log.
fn flipped(flips: &Flips) -> Bite {
    let Flips { events, logs, failed } = flips;
    let few = || "the others have too few events".to_owned();
    let source = match events == logs {
        true => format!("events damaged on the disk, in {logs} logs"),
        false => {
            let why = failed.clone().unwrap_or_else(few);
            format!("events damaged on the disk, in {events} of {logs} logs ({why})")
        }
    };
    let (before, after) = (Some(0), Some(*events));
    Bite { source, unit: "events".to_owned(), before, after, bit: *events > 0 && events == logs }
}

/// What a trial is done to and judged by.
pub(super) struct Scene<'s, 'a> {
    pub(super) stage: &'s mut Stage<'a>,
    pub(super) journal: &'s mut Journal,
    pub(super) baseline: Option<Baseline>,
    pub(super) disk: Option<&'s LoopDisk>,
}

impl Scene<'_, '_> {
    /// Injects a fault once. `draw`: for its phase. `Err`: why there is no trial.
    pub(super) fn run(&mut self, fault: &Fault, draw: u64) -> Result<Trial, String> {
        if !self.stage.setting.wait(draw % PHASE_NS) {
            return Err(STOPPED.to_owned());
        }
        match &fault.act {
            Act::Corrupt(damage) => self.corrupt(*damage, draw),
            act if act.restarts() => match self.stage.ended() {
                Some(ended) => self.died(&said(&ended)),
                None => self.restart(fault, draw),
            },
            _ => self.hold(fault),
        }
    }

    fn hold(&mut self, fault: &Fault) -> Result<Trial, String> {
        let hold_ns = fault.hold_ns.unwrap_or(self.stage.setting.plan.hold_ns);
        let process = self.stage.process();
        let (injected_ns, mail) = (self.stage.now_ns(), self.stage.board.mail());
        let force = Force::inject(&fault.act, self.stage, self.journal, self.disk, hold_ns)?;
        // A stop ends the fault early; it is taken back in any case.
        self.stage.setting.wait(hold_ns);
        let bites = force.bites(self.stage);
        let reverted = force.revert(self.stage, self.journal);
        let reverted_ns = self.stage.now_ns();
        let (span, own) = self.watch(Span { injected_ns, reverted_ns, until_ns: reverted_ns });
        let alive = self.stage.ended();
        let lives = alive.is_none() && process.is_some() && self.stage.process() == process;
        let text = match &alive {
            Some(ended) => said(ended),
            None if lives => "it lives".to_owned(),
            None => "it had ended before".to_owned(),
        };
        let mut checks = vec![Check::seen("the subject lives", lives, text), own];
        if fault.act.fills_mailboxes() {
            checks.push(checks::bounded(mail, self.stage.board.mail()));
        }
        Ok(Trial {
            span,
            open: None,
            levels: None,
            bites,
            reverted,
            recovery: self.recovery(span),
            checks,
        })
    }

    /// Judges what is known so far.
    fn recovery(&self, span: Span) -> Option<tailbeam_harness::chaos::recovery::Recovery> {
        Some(judge(&self.stage.axis, self.baseline.as_ref()?, span))
    }

    /// Judges again by what has become known since the watch ended. Nothing else is in force yet, so the service had that
    /// time too.
    pub(super) fn judge_again(&mut self, trial: &mut Trial) {
        if trial.recovery.is_none() {
            return;
        }
        let plan = self.stage.setting.plan;
        self.stage.read(plan.open_ns());
        let known_ns = self.stage.now_ns().saturating_sub(plan.settle_ns);
        trial.span.until_ns = trial.span.until_ns.max(known_ns);
        trial.recovery = self.recovery(trial.span);
    }

    /// Looks until the service is back, or the patience is over; up to when everything is known, and what looking took.
    fn watch(&mut self, span: Span) -> (Span, Check) {
        let (cpu_ns, from_ns) = (cpu_time_ns(), self.stage.now_ns());
        let span = self.look_until_back(span);
        let length_ns = self.stage.now_ns().saturating_sub(from_ns);
        (span, looking_on(cpu_ns, cpu_time_ns(), length_ns))
    }

    fn look_until_back(&mut self, mut span: Span) -> Span {
        let plan = self.stage.setting.plan;
        let until_ns = span.reverted_ns + plan.patience_ns + plan.settle_ns;
        let axis = &self.stage.axis;
        let mut seek = self.baseline.map(|baseline| Seek::new(axis, baseline, span.reverted_ns));
        loop {
            self.stage.read(plan.open_ns());
            let now_ns = self.stage.now_ns();
            span.until_ns = now_ns.saturating_sub(plan.settle_ns).max(span.reverted_ns);
            let axis = &self.stage.axis;
            let back = seek.as_mut().zip(self.baseline).is_none_or(|(seek, baseline)| {
                seek.look(axis, span.until_ns).is_some() && is_back(axis, &baseline, span)
            });
            if back || now_ns >= until_ns || !self.stage.setting.wait(LOOK_NS) {
                return span;
            }
        }
    }

    /// The process dies, with its disk or without, and another one goes on.
    fn restart(&mut self, fault: &Fault, draw: u64) -> Result<Trial, String> {
        checks::leave(self.stage);
        let (act, begun) = (&fault.act, self.stage.board.begun().1);
        let injected_ns = self.stage.now_ns();
        let force = match act {
            Act::PowerCut => Some(Force::inject(act, self.stage, self.journal, self.disk, 0)?),
            _ => None,
        };
        let mut bites = force.as_ref().map(|force| force.bites(self.stage)).unwrap_or_default();
        // Without power nothing runs.
        let told = self.stage.board.bites(Knob::CoreEnds);
        let (status, ends) = match act {
            Act::EndCore(core) => {
                self.stage.lose_core(*core).map(|(said, ends)| (said, Some(ends)))?
            }
            _ => (self.stage.kill()?, None),
        };
        bites.push(match &ends {
            None => ended(&status),
            Some(_) => told_to_end(told, self.stage.board.bites(Knob::CoreEnds)),
        });
        let reverted = force.map_or(Ok(()), |force| force.revert(self.stage, self.journal));
        let board = &self.stage.board;
        let open = Some(OpenAtEnd { requests: board.open(), cores: board.shape().cores });
        let (mut checks, kept) = checks::durable(self.stage);
        checks.extend(ends);
        let flips = match act {
            Act::KillAndFlip => {
                let before = self.stage.flipped.len();
                bites.push(flipped(&checks::flip(self.stage, draw)));
                (self.stage.flipped.len() - before) as u64
            }
            _ => 0,
        };
        let mut others = 0;
        if let Act::Refuse(call) = act {
            let hold_ns = fault.hold_ns.unwrap_or(self.stage.setting.plan.hold_ns);
            let tried = Refusals::try_for(self.stage, self.journal, *call, hold_ns)?;
            others = tried.starts;
            bites.push(tried.bite(*call));
            checks.push(tried.check(*call));
        }
        let reverted_ns = self.stage.now_ns();
        let started = self.stage.start(self.journal, true, None);
        if started.is_err() && self.stage.setting.stopped() {
            return Err(STOPPED.to_owned());
        }
        let text =
            started.as_ref().err().cloned().unwrap_or_else(|| "requests are due again".to_owned());
        checks.push(Check::seen("another process goes on", started.is_ok(), text));
        if started.is_ok() && checks::promises(self.stage) {
            checks.push(checks::restored(kept.saturating_sub(flips), self.stage.board.restored()));
            checks.extend(checks::damage_named(self.stage));
        }
        let (span, own) = self.watch(Span { injected_ns, reverted_ns, until_ns: reverted_ns });
        checks.push(own);
        self.stage.opened = Some(checks::open(self.stage));
        bites.push(began(begun, self.stage.board.begun().1, others + 1));
        Ok(Trial {
            span,
            open,
            levels: None,
            bites,
            reverted,
            recovery: self.recovery(span),
            checks,
        })
    }

    /// What the subject did by itself is no fault of ours, and no proof of one: it had died of something before.
    fn died(&mut self, said: &str) -> Result<Trial, String> {
        let at_ns = self.stage.now_ns();
        let mut checks = vec![Check::seen("the subject lives until it is ended", false, said)];
        let started = self.stage.start(self.journal, true, None);
        if started.is_err() && self.stage.setting.stopped() {
            return Err(STOPPED.to_owned());
        }
        let text = started.as_ref().err().map_or("requests are due again", String::as_str);
        checks.push(Check::seen("another process goes on", started.is_ok(), text));
        let span = Span { injected_ns: at_ns, reverted_ns: at_ns, until_ns: self.stage.now_ns() };
        self.stage.opened = Some(checks::open(self.stage));
        Ok(Trial {
            span,
            open: None,
            levels: None,
            bites: Vec::new(),
            reverted: Ok(()),
            recovery: None,
            checks,
        })
    }

    /// A copy of each log is damaged and read.
    fn corrupt(&mut self, damage: Damage, draw: u64) -> Result<Trial, String> {
        let injected_ns = self.stage.now_ns();
        let (mut checks, mut planted) = (Vec::new(), 0);
        let logs = self.stage.logs();
        let all = logs.len();
        for (core, dir) in logs {
            // Before the copy: what is durable by then is in it.
            let durable = self.stage.board.durable(core);
            let before = copied(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            let mut after = before.clone();
            let of = (self.stage.log_key(), durable);
            let Some(place) = plant(&mut after, of, damage, draw) else {
                continue;
            };
            planted += 1;
            if damage == Damage::TruncatedTail {
                checks.push(missed(&after, self.stage.log_key(), durable, &place));
            }
            let blind = self.stage.board.is_off(Defence::Checksum);
            checks.extend(examine((&before, &after), self.stage.log_key(), &place, blind));
        }
        if planted == 0 {
            return Err("the logs hold too few records".to_owned());
        }
        // Of equal checks the first that does not hold is worth telling.
        checks.sort_by_key(|check: &Check| check.holds != Some(false));
        checks.dedup_by(|a, b| a.name == b.name);
        let until_ns = self.stage.now_ns();
        let source = match planted == all as u64 {
            true => format!("damaged, of {all} logs"),
            false => format!("damaged, of {all} logs (the others have too few records)"),
        };
        let bites = vec![Bite {
            source,
            unit: "copies".to_owned(),
            before: Some(0),
            after: Some(planted),
            bit: planted == all as u64,
        }];
        let span = Span { injected_ns, reverted_ns: until_ns, until_ns };
        Ok(Trial {
            span,
            open: None,
            levels: None,
            bites,
            reverted: Ok(()),
            recovery: None,
            checks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_on_for_too_much_of_a_core_is_not_believed() {
        let of = |ms: u64| looking_on(Ok(5), Ok(5 + ms * 1_000_000), 10_000_000_000);
        assert_eq!((of(10).holds, of(500).holds), (Some(true), None));
        assert!(of(500).text.contains("5.00 % of a core for 10.0 s"), "{:?}", of(500));
        let gone = Unavailable {
            source: "clock",
            cause: "no such clock".to_owned(),
            remedy: "none".to_owned(),
        };
        let unknown = looking_on(Ok(5), Err(gone), 1);
        assert!(unknown.holds.is_none() && unknown.text.contains("no such clock"), "{unknown:?}");
    }
}
