//! Runs judged under a policy: plain values, made from run directories and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::policy::{Builds, Continuity, Need, Policy, PolicyGate};
use super::series::{self, CertSeries, SeriesGate, SeriesNeed};
use crate::chaos::series::SeriesError;
use crate::evidence::{ReadRunError, read_run};
use crate::plan::{Arrivals, Plan};
use crate::report::{self, EpochRow, EpochsSection, Report, ReportError, UNBROKEN};
use crate::verdict::{Gate, GateResult, GateVerdict, Overall, Validity};

/// Share of its plan's requests that a run must have made: below it, it is not the load that it was to be.
const OFFERED: f64 = 0.95;

/// Directories of runs and series by the name that the policy has for them.
pub type RunDirs = BTreeMap<String, PathBuf>;

/// Why nothing can be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertifyError {
    /// A run cannot be read at all.
    #[error(transparent)]
    Read(#[from] ReadRunError),
    /// Or not be reported.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A series cannot be read.
    #[error(transparent)]
    Series(#[from] SeriesError),
    /// A run or a series that the policy does not ask for.
    #[error(
        "the policy asks for no run or series {given:?}\n  cause: it is judged on: {asked}\n  remedy: name a run or a series as NAME=.. with one of these names"
    )]
    Unasked {
        /// Given.
        given: String,
        /// What it asks for.
        asked: String,
    },
}

/// One run of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertRun {
    /// Name in the policy.
    pub name: String,
    /// Run id; none when no run was given.
    pub id: Option<String>,
    /// Start, RFC 3339.
    pub started: Option<String>,
    /// Workload.
    pub workload: Option<String>,
    /// Tailbeam version that recorded it.
    pub recorded_by: Option<String>,
    /// Kernel and CPU.
    pub host: Option<String>,
    /// Seed of its draws.
    pub seed: Option<u64>,
    /// SHA-256 of its frozen plan.
    pub plan_sha256: Option<String>,
    /// Time during which requests were due, s.
    pub measured_s: Option<f64>,
    /// Agents asked for.
    pub agents: Option<u64>,
    /// Requests per second that its schedule asked for.
    pub planned_per_s: Option<f64>,
    /// Build-ids of the programs that recorded it, in their order; "unknown" where one could not be read.
    pub builds: Vec<String>,
    /// What it is not, of what the policy needs; empty when it counts.
    pub lacks: Vec<String>,
    /// What must hold for its gates to mean anything.
    pub validity: Vec<Validity>,
    /// Things to know before believing a figure.
    pub caveats: Vec<String>,
    /// Its epochs and how long nobody measured, when it was cut and continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<EpochsSection>,
}

/// One gate of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertGate {
    /// Id in the policy.
    pub id: String,
    /// Run or series that it is judged on.
    pub run: String,
    /// How it was judged.
    pub result: GateResult,
}

/// What a policy makes of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The policy, whole.
    pub policy: Policy,
    /// Runs.
    pub runs: Vec<CertRun>,
    /// Series of faults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<CertSeries>,
    /// Gates.
    pub gates: Vec<CertGate>,
    /// GO / NO-GO / INCONCLUSIVE.
    pub verdict: Overall,
}

/// Judges the runs and series in `dirs` under `policy`.
///
/// # Errors
/// [`CertifyError`]: one that was given and is damaged or not there. One that was not given, or is too short, is no error
/// but no PASS.
pub fn judge(policy: &Policy, dirs: &RunDirs) -> Result<Judged, CertifyError> {
    let names = policy.names();
    if let Some(given) = dirs.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(CertifyError::Unasked { given: given.clone(), asked: names.join(", ") });
    }
    let (mut runs, mut all, mut gates) = (Vec::new(), Vec::new(), Vec::new());
    for need in &policy.runs {
        let (run, results) = match dirs.get(&need.name) {
            Some(dir) => on_run(policy, need, dir)?,
            None => (missing(need), Vec::new()),
        };
        let spelled = |gate: &PolicyGate| {
            gate.gate().map(|gate| Spelled { name: gate.name(), requirement: gate.requirement() })
        };
        let broken = run.validity.iter().filter(|check| !check.holds && check.name != UNBROKEN);
        // That it was cut is among what it lacks, where the policy wants one piece.
        let broken = broken.map(|check| format!("{}: {}", check.name, check.text));
        let why: Vec<String> = run.lacks.iter().cloned().chain(broken).collect();
        gates.extend(judged_on(policy, ("run", &need.name), (results, &why), &spelled));
        runs.push(run);
    }
    for need in &policy.series {
        let (series, results) = match dirs.get(&need.name) {
            Some(dir) => series::on_series(need, &asked(policy, need), dir)?,
            None => (series::missing(need), Vec::new()),
        };
        let spelled = |gate: &PolicyGate| {
            let spelled =
                |gate: SeriesGate| Spelled { name: gate.name(), requirement: gate.requirement() };
            gate.of_series().map(spelled)
        };
        gates.extend(judged_on(policy, ("series", &need.name), (results, &series.lacks), &spelled));
        all.push(series);
    }
    let verdict = combine(&gates);
    Ok(Judged { policy: policy.clone(), runs, series: all, gates, verdict })
}

/// The gates of a series that can be measured.
fn asked(policy: &Policy, need: &SeriesNeed) -> Vec<SeriesGate> {
    let theirs = policy.gates.iter().filter(|gate| gate.run == need.name);
    theirs
        .filter(|gate| gate.unmeasured.is_none())
        .filter_map(|gate| gate.of_series().ok())
        .collect()
}

/// A gate in words.
struct Spelled {
    name: String,
    requirement: String,
}

/// The policy's gates on a run or a series, with their results in their order; `why`: what it lacks.
fn judged_on(
    policy: &Policy,
    (kind, of): (&str, &str),
    (results, why): (Vec<GateResult>, &[String]),
    spelled: &dyn Fn(&PolicyGate) -> Result<Spelled, String>,
) -> Vec<CertGate> {
    let mut results = results.into_iter();
    let mut result = |gate: &PolicyGate| match (&gate.unmeasured, spelled(gate)) {
        (Some(by), _) => {
            open(gate.id.clone(), gate.require.clone(), format!("not measured: that takes {by}"))
        }
        (None, Ok(Spelled { name, requirement })) => match results.next() {
            Some(result) => weakened(result, why),
            None => open(name, requirement, format!("no {kind} {of:?} was given")),
        },
        (None, Err(cause)) => open(gate.id.clone(), gate.require.clone(), cause),
    };
    let asked = policy.gates.iter().filter(|gate| gate.run == of);
    asked
        .map(|gate| CertGate { id: gate.id.clone(), run: of.to_owned(), result: result(gate) })
        .collect()
}

fn combine(gates: &[CertGate]) -> Overall {
    let any = |verdict| gates.iter().any(|gate| gate.result.verdict == verdict);
    if any(GateVerdict::Fail) {
        Overall::NoGo
    } else if gates.is_empty() || any(GateVerdict::Inconclusive) {
        Overall::Inconclusive
    } else {
        Overall::Go
    }
}

/// A PASS on what the policy does not need, or that does not hold, is none. A FAIL is one.
fn weakened(mut result: GateResult, why: &[String]) -> GateResult {
    if let (GateVerdict::Pass, Some(why)) = (result.verdict, why.first()) {
        result.verdict = GateVerdict::Inconclusive;
        result.reason = format!("{why}; otherwise it would pass ({})", result.reason);
    }
    result
}

/// The run, and a result for each gate that can be measured on it, in the policy's order.
fn on_run(
    policy: &Policy,
    need: &Need,
    dir: &std::path::Path,
) -> Result<(CertRun, Vec<GateResult>), CertifyError> {
    let frames = read_run(dir)?;
    let gates = policy.gates_of(&need.name);
    let counted = |gate: &Gate| match gate {
        Gate::Percentile { limit_ns, .. } => frames.manifest.limits_ns.contains(limit_ns),
        _ => true,
    };
    let judged: Vec<Gate> = gates.iter().copied().filter(counted).collect();
    let report = report::build(dir, Some(&judged))?;
    let mut results = report.gates.iter().cloned();
    let all = gates.iter().map(|gate| {
        let uncounted = || {
            let reason = format!(
                "the run did not count requests above this limit; record one with `--gate {}`",
                spelling(policy, need, gate)
            );
            open(gate.name(), gate.requirement(), reason)
        };
        if counted(gate) { results.next().unwrap_or_else(uncounted) } else { uncounted() }
    });
    let all = all.collect();
    let run = cert_run(need, &report, &frames.plan, frames.manifest.plan_sha256);
    Ok((run, all))
}

/// Build-ids of a run, each once.
fn builds(report: &Report) -> Vec<String> {
    let mut builds: Vec<String> = Vec::new();
    for row in &report.epochs.rows {
        let build = row.build_id.known().map_or("unknown", String::as_str);
        if !builds.iter().any(|known| known == build) {
            builds.push(build.to_owned());
        }
    }
    builds
}

/// What a run is not, of what the policy needs, beside its length and its size.
fn unlike(need: &Need, report: &Report, plan: &Plan, builds: &[String]) -> Vec<String> {
    let mut lacks = Vec::new();
    let workload = &report.run.workload;
    if let Some(needed) = need.workload.as_ref().filter(|needed| *needed != workload) {
        lacks.push(format!("it was of the workload {workload}, the policy needs {needed}"));
    }
    lacks.extend(need.unlike(plan));
    if plan.shape.arrivals == Arrivals::Closed {
        lacks.push(
            "its loop was closed: what a slow system is not asked is in no figure, and a policy needs a schedule that \
             waits for nobody"
                .to_owned(),
        );
    }
    let is_unknown = |row: &EpochRow| row.build_id.known().is_none();
    let rows = &report.epochs.rows;
    if need.builds == Builds::One && rows.len() > 1 && rows.iter().any(is_unknown) {
        lacks.push("which build of the program recorded an epoch of it is not known".to_owned());
    } else if builds.len() > 1 && need.builds == Builds::One {
        let all = builds.join(", ");
        lacks.push(format!(
            "several builds of the program recorded it ({all}), the policy needs one"
        ));
    }
    lacks
}

fn spelling(policy: &Policy, need: &Need, gate: &Gate) -> String {
    let same = |known: &&PolicyGate| known.run == need.name && known.gate() == Ok(*gate);
    policy.gates.iter().find(same).map_or_else(|| gate.name(), |known| known.require.clone())
}

fn cert_run(need: &Need, report: &Report, plan: &Plan, plan_sha256: String) -> CertRun {
    let (run, agents, planned_per_s) = (&report.run, report.agents.asked, plan.rate_per_s());
    let builds = builds(report);
    let mut lacks = unlike(need, report, plan, &builds);
    if run.measured_s < need.seconds_min as f64 {
        lacks.push(format!(
            "the run measured {:.0} s of the {} s that the policy needs",
            run.measured_s, need.seconds_min
        ));
    }
    if agents < need.agents_min {
        lacks.push(format!(
            "it had {agents} agents of the {} that the policy needs",
            need.agents_min
        ));
    }
    if planned_per_s < need.offered_per_s_min as f64 {
        lacks.push(format!(
            "it offered {planned_per_s:.0}/s of the {}/s that the policy needs",
            need.offered_per_s_min
        ));
    }
    let asked = report.load.outcomes.known().map(|all| all.attempts as f64 / run.measured_s);
    if let Some(asked_per_s) = asked.filter(|asked| *asked < OFFERED * planned_per_s) {
        lacks.push(format!(
            "{asked_per_s:.0} requests a second were made of the {planned_per_s:.0}/s that its plan has"
        ));
    }
    let broken = report.validity.iter().find(|check| check.name == UNBROKEN && !check.holds);
    if let (Some(broken), Continuity::Strict) = (broken, need.continuity) {
        lacks.push(format!("the policy needs a run of one piece: {}", broken.text));
    }
    CertRun {
        name: need.name.clone(),
        id: Some(run.id.clone()),
        started: Some(run.started.clone()),
        workload: Some(run.workload.clone()),
        recorded_by: Some(run.recorded_by.clone()),
        host: Some(run.host.clone()),
        seed: Some(run.seed),
        plan_sha256: Some(plan_sha256),
        measured_s: Some(run.measured_s),
        agents: Some(agents),
        planned_per_s: Some(planned_per_s),
        builds,
        lacks,
        validity: report.validity.clone(),
        caveats: report.caveats.clone(),
        epochs: broken.map(|_| report.epochs.clone()),
    }
}

fn missing(need: &Need) -> CertRun {
    CertRun {
        name: need.name.clone(),
        id: None,
        started: None,
        workload: None,
        recorded_by: None,
        host: None,
        seed: None,
        plan_sha256: None,
        measured_s: None,
        agents: None,
        planned_per_s: None,
        builds: Vec::new(),
        lacks: vec!["no such run was given".to_owned()],
        validity: Vec::new(),
        caveats: Vec::new(),
        epochs: None,
    }
}

fn open(gate: String, requirement: String, reason: String) -> GateResult {
    GateResult {
        gate,
        requirement,
        measured: "unknown".to_owned(),
        n: 0,
        blocks: None,
        verdict: GateVerdict::Inconclusive,
        reason,
        needs_more_s: None,
        latency: false,
    }
}
