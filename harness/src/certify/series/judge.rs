//! The gates of a series, by its record as it was judged anew. Of everything that may be said the worst is: a FAIL however
//! little there is, and a PASS only of what is there often enough and did bite.

use std::path::Path;

use super::{CertScenario, CertSeries, SeriesGate, SeriesNeed};
use crate::chaos::checks::{ACKNOWLEDGED, LOST};
use crate::chaos::record::{Ability, ChaosRecord, Check, FaultRecord, Trial, Verdict};
use crate::chaos::recovery::{Took, failure_bound};
use crate::chaos::scenario::{self, How};
use crate::chaos::series::{Load, SeriesError, read};
use crate::verdict::{GateResult, GateVerdict};

/// The series in `dir`, and a result for each gate, in their order.
pub(in super::super) fn on_series(
    need: &SeriesNeed,
    gates: &[SeriesGate],
    dir: &Path,
) -> Result<(CertSeries, Vec<GateResult>), SeriesError> {
    let mut series = read(dir)?;
    let load = series.recheck(dir)?;
    Ok(judge(need, gates, &series.record, (load, series.loaded_ns)))
}

/// `loaded`: what its subjects' plans asked for, and how long requests were due, ns.
pub(super) fn judge(
    need: &SeriesNeed,
    gates: &[SeriesGate],
    record: &ChaosRecord,
    loaded: (Load, u64),
) -> (CertSeries, Vec<GateResult>) {
    let seen = Seen::of(need, record);
    let results = gates.iter().map(|gate| match gate {
        SeriesGate::Recovery { of, limit_ns } => seen.recovery(gate, of.as_deref(), *limit_ns),
        SeriesGate::Integrity => seen.integrity(),
        SeriesGate::Residue => seen.residue(),
        SeriesGate::Scenarios => seen.scenarios(),
    });
    (seen.described(loaded), results.collect())
}

/// A series under a need.
struct Seen<'a> {
    need: &'a SeriesNeed,
    record: &'a ChaosRecord,
    /// Every fault as SCENARIO/FAULT, once.
    faults: Vec<(String, FaultRecord)>,
    scenarios: Vec<CertScenario>,
    /// Why something that must be in it is not, or not often enough.
    gaps: Vec<String>,
}

/// What was found for a gate.
#[derive(Default)]
struct Found {
    n: u64,
    measured: Option<String>,
    failed: Vec<String>,
    open: Vec<String>,
}

/// What nobody has looked at: checks that a record has not are none that hold.
fn unseen(record: &ChaosRecord, faults: &[(String, FaultRecord)]) -> Vec<String> {
    let unlooked = record.scenarios.iter().filter(|of| of.residue.is_empty());
    let mut gaps: Vec<String> =
        unlooked.map(|of| format!("{}: nobody looked at the host afterwards", of.name)).collect();
    for of in &record.scenarios {
        let tried =
            |number| of.faults.iter().any(|(at, fault)| *at == number && !fault.trials.is_empty());
        let left = |checks: &[Check]| checks.iter().any(Check::is_of_residue);
        for (number, subject) in of.subjects.iter().enumerate().filter(|(number, _)| tried(*number))
        {
            if !left(&subject.checks) {
                let of = &of.name;
                gaps.push(format!("{of}: nobody looked at what is left in subject {number}"));
            }
            let made = |name: &str| subject.checks.iter().any(|check| check.name == name);
            if !(made(LOST) && made(ACKNOWLEDGED)) {
                let of = &of.name;
                gaps.push(format!("{of}: nobody looked at what subject {number} had promised"));
            }
        }
    }
    let unchecked =
        faults.iter().filter(|(_, fault)| fault.trials.iter().any(|trial| trial.checks.is_empty()));
    gaps.extend(unchecked.map(|(name, _)| format!("{name}: an injection has no check")));
    gaps
}

impl<'a> Seen<'a> {
    fn of(need: &'a SeriesNeed, record: &'a ChaosRecord) -> Self {
        let least = usize::try_from(need.injections_min).unwrap_or(usize::MAX).max(1);
        let mut faults = Vec::new();
        let mut scenarios = Vec::new();
        for of in &record.scenarios {
            let merged = of.merged();
            let judged = of.judged_by(least);
            scenarios.push(described(&of.name, (judged.verdict, judged.reason), &merged));
            let named = |(_, fault): (usize, FaultRecord)| {
                (format!("{}/{}", of.name, fault.fault.name), fault)
            };
            faults.extend(merged.into_iter().map(named));
        }
        let mut gaps: Vec<String> =
            need.scenarios.iter().flat_map(|word| absent(word, &faults)).collect();
        gaps.extend(faults.iter().filter_map(|(name, fault)| rare(name, fault, least)));
        gaps.extend(unseen(record, &faults));
        Self { need, record, faults, scenarios, gaps }
    }

    fn trials(&self) -> impl Iterator<Item = (&str, &FaultRecord, &Trial)> {
        self.faults.iter().flat_map(|(name, fault)| {
            fault.trials.iter().map(move |trial| (name.as_str(), fault, trial))
        })
    }

    fn injections(&self) -> u64 {
        self.trials().count() as u64
    }

    fn recovery(&self, gate: &SeriesGate, of: Option<&str>, limit_ns: u64) -> GateResult {
        let mut found = Found::default();
        let mut longest: Option<(Took, &str)> = None;
        let judged = self.trials().filter(|(name, fault, _)| {
            fault.fault.act.is_of_the_service() && of.is_none_or(|of| is_of(name, of))
        });
        for (name, _, trial) in judged {
            if let Err(why) = &trial.reverted {
                found.open.push(format!("{name} was not taken back: {why}"));
            }
            if trial.bites.is_empty() || trial.bites.iter().any(|bite| !bite.bit) {
                found.open.push(format!("nothing proves that an injection of {name} bit"));
            }
            let Some(recovery) = trial.recovery else {
                found.open.push(format!("{name}: there is no baseline to come back to"));
                continue;
            };
            let took = recovery.from_revert;
            found.n += 1;
            let more = |took: Took| (took.at_least_ns(), matches!(took, Took::MoreThan(_)));
            if longest.is_none_or(|(before, _)| more(took) > more(before)) {
                longest = Some((took, name));
            }
            if took.at_least_ns() >= limit_ns {
                found.failed.push(format!("{name}: {}", back(took)));
            } else if let Took::MoreThan(_) = took {
                found.open.push(format!("{name}: {}, when it was looked at last", back(took)));
            }
        }
        found.measured = longest.map(|(took, name)| match took {
            Took::Ns(ns) => format!("at most {} ({name})", seconds(ns)),
            Took::MoreThan(ns) => format!("more than {} ({name})", seconds(ns)),
        });
        self.decided(gate, found)
    }

    fn integrity(&self) -> GateResult {
        let subjects = self.record.scenarios.iter().flat_map(|of| {
            let checks = of.subjects.iter().flat_map(|subject| &subject.checks);
            checks.filter(|check| !check.is_of_residue()).map(|check| (of.name.as_str(), check))
        });
        let trials = self
            .trials()
            .flat_map(|(name, _, trial)| trial.checks.iter().map(move |check| (name, check)));
        self.decided(&SeriesGate::Integrity, checked(subjects.chain(trials)))
    }

    fn residue(&self) -> GateResult {
        let checks = self.record.scenarios.iter().flat_map(|of| {
            let left = of.subjects.iter().flat_map(|subject| &subject.checks);
            let left = left.filter(|check| check.is_of_residue()).chain(&of.residue);
            left.map(|check| (of.name.as_str(), check))
        });
        let mut found = checked(checks);
        for (name, _, trial) in self.trials() {
            if let Err(why) = &trial.reverted {
                found.failed.push(format!("{name} was not taken back: {why}"));
            }
        }
        self.decided(&SeriesGate::Residue, found)
    }

    fn scenarios(&self) -> GateResult {
        let mut found = Found { n: self.injections(), ..Found::default() };
        let mut passed = 0;
        for of in &self.scenarios {
            let text = format!("{} is {}: {}", of.name, of.verdict.name(), of.reason);
            match of.verdict {
                Verdict::Pass => passed += 1,
                // Back, and late: for a certificate as good as not back.
                Verdict::Partial | Verdict::Fail => found.failed.push(text),
                Verdict::Inconclusive => found.open.push(text),
            }
        }
        let all = self.scenarios.len();
        found.measured = (all > 0).then(|| format!("{passed} of {all} PASS"));
        self.decided(&SeriesGate::Scenarios, found)
    }

    fn decided(&self, gate: &SeriesGate, mut found: Found) -> GateResult {
        found.open.extend(self.gaps.iter().cloned());
        if found.n == 0 {
            found.open.push("there is nothing to judge".to_owned());
        }
        let (verdict, reason) = match (told(&found.failed), told(&found.open)) {
            (Some(why), _) => (GateVerdict::Fail, why),
            (None, Some(why)) => (GateVerdict::Inconclusive, why),
            (None, None) => (GateVerdict::Pass, self.bound(gate)),
        };
        GateResult {
            gate: gate.name(),
            requirement: gate.requirement(),
            measured: found.measured.unwrap_or_else(|| "unknown".to_owned()),
            n: found.n,
            blocks: None,
            verdict,
            reason,
            needs_more_s: None,
            latency: false,
        }
    }

    /// What so many injections without a failure say, of the faults that a gate judges.
    fn bound(&self, gate: &SeriesGate) -> String {
        let judged = |(name, of): &&(String, FaultRecord)| match gate {
            SeriesGate::Recovery { of: only, .. } => {
                of.fault.act.is_of_the_service()
                    && only.as_ref().is_none_or(|only| is_of(name, only))
            }
            _ => true,
        };
        let judged: Vec<usize> =
            self.faults.iter().filter(judged).map(|(_, of)| of.trials.len()).collect();
        let fewest = judged.iter().min().copied().unwrap_or(0);
        let bound = failure_bound(u32::try_from(fewest).unwrap_or(u32::MAX)) * 100.0;
        format!(
            "{fewest} injections or more of each of {} faults: of each, one in which it does not hold has a probability of at most {bound:.0} % (95 % confidence)",
            judged.len()
        )
    }

    fn described(&self, (load, loaded_ns): (Load, u64)) -> CertSeries {
        let record = self.record;
        let lasting = self.trials().filter(|(_, fault, _)| fault.fault.act.lasts());
        let held = |trial: &Trial| trial.span.reverted_ns.saturating_sub(trial.span.injected_ns);
        let shortest_hold_ns = lasting.map(|(_, _, trial)| held(trial)).min();
        CertSeries {
            name: self.need.name.clone(),
            id: Some(record.id.clone()),
            started: Some(record.started.clone()),
            host: Some(record.host.clone()),
            seed: Some(record.plan.seed),
            agents: Some(load.agents),
            planned_per_s: Some(load.per_s),
            loaded_ns: Some(loaded_ns),
            shortest_hold_ns,
            scenarios: self.scenarios.clone(),
            lacks: self.lacks((load, loaded_ns), shortest_hold_ns),
            caveats: self.caveats(),
        }
    }

    fn lacks(&self, (load, loaded_ns): (Load, u64), held_ns: Option<u64>) -> Vec<String> {
        let need = self.need;
        let mut lacks = Vec::new();
        let floor = |s: u64| s.saturating_mul(1_000_000_000);
        if loaded_ns < floor(need.seconds_min) {
            let (had, asked) = (seconds(loaded_ns), need.seconds_min);
            lacks.push(format!(
                "requests were due for {had} of the {asked} s that the policy needs"
            ));
        }
        if load.agents < need.agents_min {
            let (had, asked) = (load.agents, need.agents_min);
            lacks.push(format!("a subject had {had} agents of the {asked} that the policy needs"));
        }
        if load.per_s < need.offered_per_s_min as f64 {
            let (had, asked) = (load.per_s, need.offered_per_s_min);
            lacks.push(format!(
                "a subject was offered {had:.0}/s of the {asked}/s that the policy needs"
            ));
        }
        if let Some(held_ns) = held_ns.filter(|ns| *ns < floor(need.hold_seconds_min)) {
            let (had, asked) = (seconds(held_ns), need.hold_seconds_min);
            lacks.push(format!("a fault lasted {had} of the {asked} s that the policy needs"));
        }
        if let Some(defence) = self.record.plan.broken {
            lacks.push(format!("{defence:?} was switched off in its subjects"));
        }
        if self.record.stopped {
            lacks.push("it was stopped before its end, or still runs".to_owned());
        }
        lacks
    }

    fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        let not_by_kernel = self.faults.iter().filter(|(_, of)| of.how != How::Kernel).count();
        if not_by_kernel > 0 {
            caveats.push(format!(
                "{not_by_kernel} of {} faults were injected in process, by a proxy or on a copy: what a kernel or a device would do besides is not there",
                self.faults.len()
            ));
        }
        for (name, of) in &self.faults {
            if let Ability::Replaced { by, why } = &of.ability {
                caveats.push(format!("{name} was replaced by {by}: {why}"));
            }
        }
        caveats
    }
}

/// Whether a fault, SCENARIO/FAULT, is the one that a word names, or of its scenario.
fn is_of(name: &str, word: &str) -> bool {
    name == word || name.split('/').next() == Some(word)
}

fn described(
    name: &str,
    (verdict, reason): (Verdict, String),
    faults: &[(usize, FaultRecord)],
) -> CertScenario {
    let injections = faults.iter().map(|(_, of)| of.trials.len() as u64);
    let longest = faults.iter().filter_map(|(_, of)| of.longest());
    let longest =
        longest.max_by_key(|took| (took.at_least_ns(), matches!(took, Took::MoreThan(_))));
    CertScenario {
        name: name.to_owned(),
        verdict,
        reason,
        faults: faults.len() as u64,
        injections: injections.clone().sum(),
        fewest: injections.min().unwrap_or(0),
        longest_ns: longest.map(Took::at_least_ns),
        longer: matches!(longest, Some(Took::MoreThan(_))),
    }
}

/// What of a scenario or a fault that the policy names is not in the series, as this version defines it.
fn absent(word: &str, faults: &[(String, FaultRecord)]) -> Vec<String> {
    let wanted = scenario::named(word);
    if wanted.is_empty() {
        return vec![format!("this version has no scenario or fault {word:?}")];
    }
    let lacking = wanted.into_iter().filter_map(|(name, fault)| {
        match faults.iter().find(|(of, _)| *of == name) {
            None => Some(format!("{name} is not in the series")),
            Some((_, of)) if of.fault != fault => {
                Some(format!("{name} of the series is another fault than this version's"))
            }
            Some(_) => None,
        }
    });
    lacking.collect()
}

/// Why a fault was not injected as often as it must be.
fn rare(name: &str, of: &FaultRecord, least: usize) -> Option<String> {
    if let Ability::Impossible { cause, .. } = &of.ability {
        return Some(format!("{name} is impossible on that host: {cause}"));
    }
    let done = of.trials.len();
    match &of.ended {
        Some(why) => Some(format!("{name}: {why}")),
        None if done < least => {
            Some(format!("{name}: {done} of {least} injections that the policy needs"))
        }
        None => None,
    }
}

fn checked<'c>(checks: impl Iterator<Item = (&'c str, &'c Check)>) -> Found {
    let mut found = Found::default();
    let mut held = 0;
    for (of, check) in checks {
        found.n += 1;
        let text = format!("{of}: {}: {}", check.name, check.text);
        match check.holds {
            Some(true) => held += 1,
            Some(false) => found.failed.push(text),
            None => found.open.push(format!("unknown: {text}")),
        }
    }
    found.measured = (found.n > 0).then(|| format!("{held} of {} checks hold", found.n));
    found
}

/// The first, and how many there are besides.
fn told(reasons: &[String]) -> Option<String> {
    let (first, others) = reasons.split_first()?;
    let others = others.len();
    Some(if others == 0 { first.clone() } else { format!("{first}; and {others} more") })
}

fn back(took: Took) -> String {
    match took {
        Took::Ns(ns) => format!("back only {} after the revert", seconds(ns)),
        Took::MoreThan(ns) => format!("not back {} after the revert", seconds(ns)),
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}
