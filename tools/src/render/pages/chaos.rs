//! The page of a series of faults.

use serde::Serialize;
use tailbeam_harness::chaos::checks::{IS_NAMED, NAMES_DAMAGE};
use tailbeam_harness::chaos::record::{
    Ability, Bite, ChaosRecord, Check, FaultRecord, Judged, ScenarioRecord, SubjectRecord, Verdict,
};
use tailbeam_harness::chaos::recovery::{Recovery, Took, failure_bound};
use tailbeam_harness::report::Measured;

use super::Page;
use crate::render::latency::bands::of_a_tail;
use crate::render::units::{self, count};

/// What the JSON document holds: what was seen, and what it is worth.
#[derive(Debug, Serialize)]
pub struct ChaosData<'a> {
    verdict: Judged,
    scenarios: Vec<ScenarioData<'a>>,
    series: &'a ChaosRecord,
}

#[derive(Debug, Serialize)]
struct ScenarioData<'a> {
    name: &'a str,
    verdict: Judged,
    faults: Vec<FaultData>,
}

#[derive(Debug, Serialize)]
struct FaultData {
    name: String,
    verdict: Judged,
}

impl<'a> ChaosData<'a> {
    /// Of a series.
    #[must_use]
    pub fn of(series: &'a ChaosRecord) -> Self {
        let fault = |(_, of): (usize, FaultRecord)| {
            let verdict = of.judged();
            FaultData { name: of.fault.name, verdict }
        };
        let scenario = |of: &'a ScenarioRecord| ScenarioData {
            name: &of.name,
            verdict: of.judged(),
            faults: of.merged().into_iter().map(fault).collect(),
        };
        let scenarios = series.scenarios.iter().map(scenario).collect();
        Self { verdict: series.judged(), scenarios, series }
    }
}

/// The page.
#[must_use]
pub fn chaos(of: &ChaosRecord) -> Page {
    let judged = of.judged();
    let title = format!("Chaos  {}  {}  started {}", judged.verdict.name(), of.id, of.started);
    let mut page = Page { title, ..Page::default() };
    page.verdict = Some((judged.verdict.name().to_owned(), judged.reason.clone()));
    page.again = Some(format!("tailbeam chaos --from {}", of.id));
    let plan = &of.plan;
    page.line(format!(
        "{} agents, {:.0} requests/s due; {} injections of each fault, {} long unless it says otherwise, at random instants of seed {}",
        count(plan.agents),
        plan.rate_per_s,
        plan.injections,
        time(plan.hold_ns),
        plan.seed
    ));
    page.line(format!("on {}", of.host));
    page.line(format!(
        "the subjects' runs are a store of their own: tailbeam --store STORE/chaos/{}/subjects latency RUN --from .. --to ..",
        of.id
    ));
    page.line(format!("because of {}", judged.reason));
    if let Some(defence) = plan.broken {
        page.caveat(format!(
            "{defence:?} is switched off in the subjects: {} must fail",
            defence.guard()
        ));
    }
    if of.stopped {
        page.caveat("the series was stopped before its end, or it still runs");
    }
    for scenario in &of.scenarios {
        one(scenario, &mut page);
    }
    clean(of, &mut page);
    page
}

fn one(of: &ScenarioRecord, page: &mut Page) {
    let judged = of.judged();
    page.heading(format!("{}  {}  {}", of.name, judged.verdict.name(), of.about));
    let merged = of.merged();
    let rows = merged.iter().map(|(_, fault)| row(fault, before(of, fault)));
    let head = [
        "fault",
        "verdict",
        "how",
        "proof that it bit",
        "n",
        "available",
        "P99 before",
        "during",
        "after",
        "back from injection",
        "from revert",
    ];
    page.table(&head, 4, rows.collect());
    for (_, fault) in &merged {
        let judged = fault.judged();
        if judged.verdict != Verdict::Pass {
            page.caveat(format!("{}: {}", fault.fault.name, judged.reason));
        }
        if let Ability::Impossible { remedy, .. } = &fault.ability {
            page.caveat(format!("{}: remedy: {remedy}", fault.fault.name));
        }
        if let Ability::Replaced { by, why } = &fault.ability {
            page.caveat(format!("{}: replaced by {by}: {why}", fault.fault.name));
        }
    }
    for (_, fault) in &merged {
        let last = fault.trials.last().into_iter().flat_map(|trial| &trial.checks);
        for check in last.filter(|check| [IS_NAMED, NAMES_DAMAGE].contains(&check.name.as_str())) {
            page.line(format!(
                "damage by {}, injection {}: {}",
                fault.fault.name,
                fault.trials.len(),
                check.text
            ));
        }
    }
    if !of.guard_limits.is_empty() {
        page.caveat(format!(
            "the guard, which undoes faults if this program dies, is limited here: {}",
            of.guard_limits
        ));
    }
    merged.iter().for_each(|(_, fault)| tail(fault, page));
    for (number, subject) in of.subjects.iter().enumerate() {
        let run = subject.run.as_deref().unwrap_or("none");
        page.line(format!(
            "subject {number}: run {run}, {} processes; {}; {}",
            subject.processes,
            usual(subject),
            held(&subject.checks)
        ));
    }
    page.line(format!("host: {}", held(&of.residue)));
    let all = of.subjects.iter().flat_map(|subject| &subject.checks).chain(&of.residue);
    for check in all.filter(|check| check.holds != Some(true)) {
        let word = if check.holds.is_none() { "unknown" } else { "does not hold" };
        page.caveat(format!("{} {word}: {}", check.name, check.text));
    }
}

/// What the noise of the host may add to its recoveries.
fn usual(subject: &SubjectRecord) -> String {
    subject.baseline.map_or_else(
        || "no baseline".to_owned(),
        |of| match of.noise_ns {
            0 => "any five seconds of its baseline are a return".to_owned(),
            ns => format!("within its baseline a return is up to {} away", time(ns)),
        },
    )
}

/// Where the time of the slowest requests went.
fn tail(fault: &FaultRecord, page: &mut Page) {
    match &fault.tail {
        Some(Measured::Known(of)) => page.line(format!(
            "tail in {:.0} to {:.0} s of {}, with {}: {}",
            of.from_s,
            of.to_s,
            of.run,
            fault.fault.name,
            of_a_tail(of)
        )),
        Some(Measured::Unknown { unknown, remedy }) => page
            .line(format!("tail with {}: unknown: {unknown}; remedy: {remedy}", fault.fault.name)),
        None => {}
    }
}

fn time(ns: u64) -> String {
    units::time(ns as f64)
}

fn held(checks: &[Check]) -> String {
    let hold: Vec<&str> = checks
        .iter()
        .filter(|check| check.holds == Some(true))
        .map(|check| check.name.as_str())
        .collect();
    format!("{} of {} checks hold ({})", hold.len(), checks.len(), hold.join(", "))
}

fn took(took: Took) -> String {
    match took {
        Took::Ns(0) => "within 100 ms".to_owned(),
        Took::Ns(ns) => time(ns),
        Took::MoreThan(ns) => format!("> {}", time(ns)),
    }
}

fn proof(bite: &Bite) -> String {
    let Bite { source, before, after, bit, .. } = bite;
    let mark = if *bit { "" } else { " (no proof)" };
    let value = |value: &Option<u64>| value.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    format!("{source} {} -> {}{mark}", value(before), value(after))
}

/// P99 of the baselines of the subjects that a fault was done to: from the least to the largest.
fn before(of: &ScenarioRecord, fault: &FaultRecord) -> String {
    let theirs = of.faults.iter().filter(|(_, of)| of.fault == fault.fault);
    let baselines = theirs.filter_map(|(number, _)| of.subjects.get(*number)?.baseline);
    let p99: Vec<u64> = baselines.map(|baseline| baseline.p99_ns).collect();
    match (p99.iter().min(), p99.iter().max()) {
        (Some(&least), Some(&most)) if least == most => time(least),
        (Some(&least), Some(&most)) => format!("{} to {}", time(least), time(most)),
        _ => "-".to_owned(),
    }
}

fn row(of: &FaultRecord, before: String) -> Vec<String> {
    let found: Vec<&Recovery> =
        of.trials.iter().filter_map(|trial| trial.recovery.as_ref()).collect();
    let none = || "-".to_owned();
    let worst = |pick: fn(&Recovery) -> Took| {
        let longest = found
            .iter()
            .map(|of| pick(of))
            .max_by_key(|took| (took.at_least_ns(), matches!(took, Took::MoreThan(_))));
        let away = found.iter().any(|of| of.onset_ns.is_some());
        longest.map_or_else(none, |longest| match longest {
            Took::Ns(0) if !away => "was not away".to_owned(),
            longest => took(longest),
        })
    };
    let p99 = |pick: fn(&Recovery) -> Option<u64>| {
        found.iter().filter_map(|of| pick(of)).max().map_or_else(none, time)
    };
    let seen = found.iter().filter(|of| of.slots > 0);
    let available = seen.map(|of| of.available as f64 / of.slots as f64).reduce(f64::min);
    // The injection that proves least is shown.
    let weak = of.trials.iter().find(|trial| trial.bites.iter().any(|bite| !bite.bit));
    let bites = weak.or_else(|| of.trials.first());
    let bites = bites.map(|trial| trial.bites.iter().map(proof).collect::<Vec<_>>().join("; "));
    vec![
        of.fault.name.clone(),
        of.judged().verdict.name().to_owned(),
        of.how.text().to_owned(),
        bites.unwrap_or_else(none),
        of.trials.len().to_string(),
        available.map_or_else(none, |share| format!("{:.1} %", share * 100.0)),
        before,
        p99(|of| of.during_p99_ns),
        p99(|of| of.after_p99_ns),
        worst(|of| of.from_injection),
        worst(|of| of.from_revert),
    ]
}

/// What clean injections are worth.
fn clean(of: &ChaosRecord, page: &mut Page) {
    let passed = of.scenarios.iter().flat_map(ScenarioRecord::merged);
    let trials: Vec<u32> = passed
        .filter(|(_, fault)| fault.judged().verdict == Verdict::Pass)
        .map(|(_, fault)| u32::try_from(fault.trials.len()).unwrap_or(u32::MAX))
        .collect();
    let Some(least) = trials.iter().min() else { return };
    page.heading("What a PASS says");
    page.line(format!(
        "{least} injections without a failure bound the probability of one at {:.0} % (95 % confidence, 1 - 0.05^(1/n)); --injections raises n",
        failure_bound(*least) * 100.0
    ));
    page.line("figures are the worst of all injections; available: 100 ms slots, from injection to return, with 99 % of what was due answered");
    page.line("by the instant at which a request was due, to 100 ms; P99 at most 6.25 % too high");
}
