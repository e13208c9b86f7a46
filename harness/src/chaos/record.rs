//! What a series of faults leaves, and what it is worth: everything that was seen of each, and a verdict that can be
//! computed from it again.

use serde::{Deserialize, Serialize};

use super::attribution::Tail;
use super::board::{Defence, LevelSpan};
use super::checks::{self, Kill};
use super::held;
use super::recovery::{Axis, Baseline, PARTIAL_NS, PASS_NS, Recovery, Span, Took, judge};
use super::scenario::{Fault, How, Scenario};
use crate::report::Measured;

/// Version of the file.
pub const VERSION: u32 = 1;
/// Injections that a fault needs for a PASS.
pub const TRIALS_MIN: usize = 5;

/// What a series is run with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChaosPlan {
    /// Agents of a subject.
    pub agents: u64,
    /// Requests per second that a subject's plan has due.
    pub rate_per_s: f64,
    /// Flags of the subject's `soak`.
    pub flags: Vec<String>,
    /// Time before the baseline, ns.
    pub warm_ns: u64,
    /// Length of the baseline, ns.
    pub baseline_ns: u64,
    /// How long a fault lasts that does not say otherwise, ns.
    pub hold_ns: u64,
    /// Injections of each fault.
    pub injections: u32,
    /// How long a recovery is waited for, ns.
    pub patience_ns: u64,
    /// Timeout of a subject's requests: what was due longer ago does not change any more, ns.
    pub timeout_ns: u64,
    /// After so long what was due is answered, when all is well, ns.
    pub settle_ns: u64,
    /// Length of a slot, ns.
    pub slot_ns: u64,
    /// Seed of the injections' phases.
    pub seed: u64,
    /// A defence of the subjects that is switched off, to see that its guard fails.
    #[serde(default)]
    pub broken: Option<Defence>,
}

impl ChaosPlan {
    /// A request that is open was due at most so long ago, ns: its timeout, and two seconds for whoever closes it late.
    #[must_use]
    pub const fn open_ns(&self) -> u64 {
        self.timeout_ns.saturating_add(2_000_000_000)
    }
}

/// What a host can do of a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Ability {
    /// It can be done.
    Available,
    /// Something near it is done.
    Replaced {
        /// What.
        by: String,
        /// Why.
        why: String,
    },
    /// It cannot be done here.
    Impossible {
        /// What prevents it.
        cause: String,
        /// What the reader can do about it.
        remedy: String,
    },
}

/// A counter before and after a fault: the proof that it bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bite {
    /// Where it is read.
    pub source: String,
    /// Unit.
    pub unit: String,
    /// Before the injection; `None`: it could not be read, and `source` says why.
    pub before: Option<u64>,
    /// At the revert; as before.
    pub after: Option<u64>,
    /// Whether that proves it.
    pub bit: bool,
}

/// One injection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// When, on the axis of its subject's slots.
    pub span: Span,
    /// What was open when it ended the process, as that one had said; none where it ended none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenAtEnd>,
    /// What the process held when the service was back; none where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<LevelSpan>,
    /// The proof that it bit.
    pub bites: Vec<Bite>,
    /// Whether what was changed reads as before.
    pub reverted: Result<(), String>,
    /// What it did to the service; none when there is no baseline, or nothing of the kind is judged.
    pub recovery: Option<Recovery>,
    /// What else must hold.
    pub checks: Vec<Check>,
}

/// What a process had open when it was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAtEnd {
    /// Requests.
    pub requests: u64,
    /// Cores that counted them.
    pub cores: u32,
}

/// Something that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Name.
    pub name: String,
    /// Whether it does; `None`: that is not known.
    pub holds: Option<bool>,
    /// What was seen.
    pub text: String,
}

impl Check {
    /// One that was looked at.
    pub fn seen(name: &str, holds: bool, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), holds: Some(holds), text: text.into() }
    }

    /// One that could not be looked at.
    pub fn unknown(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), holds: None, text: text.into() }
    }
}

/// A fault and its injections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// The fault.
    pub fault: Fault,
    /// How it reached the subject.
    pub how: How,
    /// What the host can do of it.
    pub ability: Ability,
    /// Its injections.
    pub trials: Vec<Trial>,
    /// Why there are no more of them.
    pub ended: Option<String>,
    /// Where the time of the slowest requests went meanwhile; none where the service did not suffer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Measured<Tail>>,
}

/// What a subject came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubjectRecord {
    /// Its run in the store; none when it left none.
    pub run: Option<String>,
    /// Slots without faults, from which its baseline is taken.
    pub quiet: (usize, usize),
    /// Processes that worked on it.
    pub processes: u64,
    /// What is usual for it.
    pub baseline: Option<Baseline>,
    /// What it held meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<LevelSpan>,
    /// Integrity and residue.
    pub checks: Vec<Check>,
}

/// A scenario, run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioRecord {
    /// Name.
    pub name: String,
    /// What it asks.
    pub about: String,
    /// Its subjects, in order.
    pub subjects: Vec<SubjectRecord>,
    /// Its faults; which subject each was done to.
    pub faults: Vec<(usize, FaultRecord)>,
    /// Whether anything was left of it on the host.
    pub residue: Vec<Check>,
    /// What the guard, which undoes faults when the supervisor is dead, may not do here, in its words; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub guard_limits: String,
}

/// A series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChaosRecord {
    /// Version of this file.
    pub version: u32,
    /// Id in the store.
    pub id: String,
    /// When it began.
    pub started: String,
    /// Kernel and machine, in a line.
    pub host: String,
    /// What it was run with.
    pub plan: ChaosPlan,
    /// Scenarios that were asked for: what whoever goes on with it runs.
    pub asked: Vec<Scenario>,
    /// Scenarios.
    pub scenarios: Vec<ScenarioRecord>,
    /// It was stopped before its end.
    pub stopped: bool,
}

/// What a fault, a scenario or a series is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The service was back in its time and nothing was lost.
    Pass,
    /// That cannot be said.
    Inconclusive,
    /// It was back, and late: as good as a FAIL for a certificate.
    Partial,
    /// It was not.
    Fail,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Partial => "PARTIAL",
            Self::Fail => "FAIL",
        }
    }

    /// Exit code of a command that judged: 0, 3 or 4.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Inconclusive => 4,
            Self::Partial | Self::Fail => 3,
        }
    }
}

/// A verdict and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Verdict.
    pub verdict: Verdict,
    /// The weightiest reason.
    pub reason: String,
}

impl Judged {
    fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into() }
    }

    /// The worse of two; of equals the first.
    fn worse(self, other: Self) -> Self {
        if other.verdict > self.verdict { other } else { self }
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}

/// What a check is worth.
fn of_check(check: &Check) -> Judged {
    let (name, text) = (&check.name, &check.text);
    match check.holds {
        Some(true) => Judged::new(Verdict::Pass, format!("{name} holds")),
        Some(false) => Judged::new(Verdict::Fail, format!("{name}: {text}")),
        None => Judged::new(Verdict::Inconclusive, format!("{name} is unknown: {text}")),
    }
}

fn of_recovery(recovery: &Recovery) -> Judged {
    let took = recovery.from_revert;
    let ns = took.at_least_ns();
    let lacked = recovery.outside.map(|of| format!(": {}", of.text())).unwrap_or_default();
    match took {
        Took::Ns(_) if ns < PASS_NS => {
            Judged::new(Verdict::Pass, format!("back {} after the revert", seconds(ns)))
        }
        Took::Ns(_) if ns < PARTIAL_NS => {
            Judged::new(Verdict::Partial, format!("back only {} after the revert", seconds(ns)))
        }
        Took::Ns(_) => {
            Judged::new(Verdict::Fail, format!("back only {} after the revert", seconds(ns)))
        }
        Took::MoreThan(_) if ns >= PASS_NS => {
            Judged::new(Verdict::Fail, format!("not back {} after the revert{lacked}", seconds(ns)))
        }
        // Nobody looked for long enough.
        Took::MoreThan(_) => Judged::new(
            Verdict::Inconclusive,
            format!(
                "not back {} after the revert, when it was looked at last{lacked}",
                seconds(ns)
            ),
        ),
    }
}

impl Trial {
    fn judged(&self, fault: &Fault) -> Judged {
        let mut judged = match &self.recovery {
            Some(recovery) => {
                let share =
                    recovery.answered as f64 / (recovery.due + recovery.not_asked).max(1) as f64;
                let mut judged = of_recovery(recovery);
                if let Some(least) = fault.answered_min.filter(|least| share < *least) {
                    let text = format!(
                        "{:.2} % of what was due was answered, not {:.2} %",
                        share * 100.0,
                        least * 100.0
                    );
                    judged = judged.worse(Judged::new(Verdict::Fail, text));
                }
                let slow =
                    recovery.during_p99_ns.zip(fault.p99_max_ns).filter(|(p99, max)| p99 > max);
                if let Some((p99, max)) = slow {
                    let ms = |ns: u64| ns as f64 / 1e6;
                    let text =
                        format!("P99 was {:.1} ms meanwhile, not {:.0} ms", ms(p99), ms(max));
                    judged = judged.worse(Judged::new(Verdict::Fail, text));
                }
                judged
            }
            None if fault.act.is_of_the_service() => Judged::new(
                Verdict::Inconclusive,
                "there is no baseline: too few requests, or the service was not well before any fault, or never the same for five seconds",
            ),
            None if self.checks.is_empty() => {
                Judged::new(Verdict::Inconclusive, "nothing was looked at")
            }
            None => Judged::new(Verdict::Pass, "every check holds"),
        };
        // Each part of it: a limit that nobody reaches is none.
        if let Some(bite) = self.bites.iter().find(|bite| !bite.bit) {
            let text = format!("{} does not prove that it bit", bite.source);
            judged = judged.worse(Judged::new(Verdict::Inconclusive, text));
        }
        if self.bites.is_empty() {
            judged = judged.worse(Judged::new(Verdict::Inconclusive, "nothing proves that it bit"));
        }
        if let Err(why) = &self.reverted {
            judged =
                judged.worse(Judged::new(Verdict::Fail, format!("it was not taken back: {why}")));
        }
        self.checks.iter().map(of_check).fold(judged, Judged::worse)
    }
}

impl ScenarioRecord {
    /// Judges every trial of a subject again, by its slots, and whether its requests have ended. `open_ns`: as of
    /// [`ChaosPlan::open_ns`].
    pub fn rejudge(&mut self, number: usize, axis: &Axis, open_ns: u64) {
        let theirs = self.faults.iter().filter(|(of, _)| *of == number);
        let kills: Vec<Kill> = theirs.flat_map(|(_, fault)| fault.kills()).collect();
        let theirs = self.faults.iter().filter(|(of, _)| *of == number);
        let theirs: Vec<&FaultRecord> = theirs.map(|(_, fault)| fault).collect();
        let Some(subject) = self.subjects.get_mut(number) else { return };
        subject.see_again(checks::one_end(axis, &kills, open_ns));
        let held = held::checks(subject.levels.as_ref(), &theirs);
        held.into_iter().for_each(|check| subject.see_again(check));
        let (from, to) = subject.quiet;
        subject.baseline = Baseline::of(axis, from..to);
        let baseline = subject.baseline;
        let theirs = self.faults.iter_mut().filter(|(of, _)| *of == number);
        for (_, fault) in theirs.filter(|(_, fault)| fault.fault.act.is_of_the_service()) {
            for trial in &mut fault.trials {
                trial.recovery =
                    baseline.as_ref().map(|baseline| judge(axis, baseline, trial.span));
            }
        }
    }
}

impl SubjectRecord {
    /// Puts a check that was made again in the place of the one that was recorded.
    pub fn see_again(&mut self, check: Check) {
        match self.checks.iter_mut().find(|of| of.name == check.name) {
            Some(recorded) => *recorded = check,
            None => self.checks.push(check),
        }
    }
}

impl FaultRecord {
    /// When its injections ended a process; none for a fault that ends none.
    pub fn kills(&self) -> impl Iterator<Item = Kill> {
        let ends = self.fault.act.restarts();
        let of = |trial: &Trial| Kill { span: trial.span, open: trial.open };
        self.trials.iter().filter(move |_| ends).map(of)
    }

    /// What the injections are worth together: as much as the worst.
    #[must_use]
    pub fn judged(&self) -> Judged {
        self.judged_by(TRIALS_MIN)
    }

    /// The same where a PASS needs so many injections.
    #[must_use]
    pub fn judged_by(&self, trials_min: usize) -> Judged {
        if let Ability::Impossible { cause, .. } = &self.ability {
            return Judged::new(Verdict::Inconclusive, format!("impossible here: {cause}"));
        }
        let each = self.trials.iter().map(|trial| trial.judged(&self.fault));
        let Some(worst) = each.reduce(Judged::worse) else {
            let why = self.ended.as_deref().unwrap_or("it was not injected");
            return Judged::new(Verdict::Inconclusive, why);
        };
        let few = self.trials.len() < trials_min;
        let why = self.ended.clone().or_else(|| {
            let text =
                format!("{} of {trials_min} injections that a PASS needs", self.trials.len());
            few.then_some(text)
        });
        match why {
            Some(why) => worst.clone().worse(Judged::new(Verdict::Inconclusive, why)),
            None => worst,
        }
    }

    /// The longest recovery from the revert.
    #[must_use]
    pub fn longest(&self) -> Option<Took> {
        let took = self.trials.iter().filter_map(|trial| Some(trial.recovery?.from_revert));
        took.max_by_key(|took| (took.at_least_ns(), matches!(took, Took::MoreThan(_))))
    }
}

impl ScenarioRecord {
    /// Its faults, each once: one of a subject's start has a subject for each trial. With the number of its first subject.
    #[must_use]
    pub fn merged(&self) -> Vec<(usize, FaultRecord)> {
        let mut merged: Vec<(usize, FaultRecord)> = Vec::new();
        for (number, fault) in &self.faults {
            let before = merged.iter_mut().find(|(_, of)| of.fault == fault.fault);
            let Some((_, before)) = before else {
                merged.push((*number, fault.clone()));
                continue;
            };
            before.trials.extend(fault.trials.iter().cloned());
            before.tail = before.tail.take().or_else(|| fault.tail.clone());
            before.ended = before.ended.take().or_else(|| fault.ended.clone());
        }
        merged
    }

    /// As much as the worst of its faults, of its subjects, and of what it left.
    #[must_use]
    pub fn judged(&self) -> Judged {
        self.judged_by(TRIALS_MIN)
    }

    /// The same where a PASS needs so many injections of each fault.
    #[must_use]
    pub fn judged_by(&self, trials_min: usize) -> Judged {
        let merged = self.merged();
        let faults = merged.iter().map(|(_, fault)| {
            let Judged { verdict, reason } = fault.judged_by(trials_min);
            Judged { verdict, reason: format!("{}: {reason}", fault.fault.name) }
        });
        let checks = self.subjects.iter().flat_map(|subject| &subject.checks).chain(&self.residue);
        let all = faults.chain(checks.map(of_check)).reduce(Judged::worse);
        match all {
            Some(Judged { verdict: Verdict::Pass, .. }) => {
                Judged::new(Verdict::Pass, "every injection of every fault".to_owned())
            }
            Some(judged) => judged,
            None => Judged::new(Verdict::Inconclusive, "nothing was injected"),
        }
    }
}

impl ChaosRecord {
    /// As much as the worst scenario.
    #[must_use]
    pub fn judged(&self) -> Judged {
        let each = self.scenarios.iter().map(|scenario| {
            let Judged { verdict, reason } = scenario.judged();
            Judged { verdict, reason: format!("{}: {reason}", scenario.name) }
        });
        let all = each.reduce(Judged::worse);
        let all = all.unwrap_or_else(|| Judged::new(Verdict::Inconclusive, "nothing was run"));
        if let Some(defence) = self.plan.broken.filter(|_| all.verdict != Verdict::Fail) {
            let text = format!("{defence:?} is switched off, and no scenario has failed for it");
            return all.worse(Judged::new(Verdict::Inconclusive, text));
        }
        if self.stopped {
            return all.worse(Judged::new(Verdict::Inconclusive, "it was stopped before its end"));
        }
        all
    }
}

#[cfg(test)]
pub(super) mod tests;
