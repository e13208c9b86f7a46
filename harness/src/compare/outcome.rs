//! The recipe of a comparison, which is stored, and the comparison that is computed from it and its runs.

use serde::{Deserialize, Serialize};
use tailbeam_probes::stats::Histogram;

use super::design::{Design, Role, Side};
use super::effect::{Judged, Metric, MetricResult, Two, judge};
use super::figures::{Exclusion, Rules, RunFigures};
use super::percentiles::Percentile;
use super::sweep::{Sweep, SweepRun};
use crate::report::Measured;
use crate::verdict::{Outcomes, Overall};

/// Everything that a comparison is computed from, besides the runs. Its own file in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Always [`super::VERSION`].
    pub version: u32,
    /// Id, also the directory's name.
    pub id: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// Side A.
    pub a: Side,
    /// Side B.
    pub b: Side,
    /// Flags that both have.
    pub shared: Vec<String>,
    /// The design, drawn before the first run; none for runs that were stored before.
    pub design: Option<Design>,
    /// The rules of exclusion, fixed before the first run.
    pub rules: Rules,
    /// Runs of the sweep that chose a side's setting.
    pub sweep: Vec<SweepRun>,
    /// What was chosen, by which criterion.
    pub chosen: Option<String>,
    /// Sides of which no setting was fit.
    #[serde(default)]
    pub unfit: Vec<Role>,
    /// What ran, in its order.
    pub trials: Vec<Trial>,
    /// It was stopped before its end.
    pub stopped: bool,
}

/// One block as it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Seed of its runs.
    pub seed: u64,
    /// Its runs in their order.
    pub runs: Vec<TrialRun>,
}

/// One run of a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialRun {
    /// What it is for.
    pub role: Role,
    /// Its id, or why there is none.
    pub run: Measured<String>,
    /// Share of the CPUs' time that the host took while it ran.
    pub steal: Measured<f64>,
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Id.
    pub id: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// Side A.
    pub a: Side,
    /// Side B.
    pub b: Side,
    /// Flags that both have.
    pub shared: Vec<String>,
    /// Seed of the orders; none for runs that were stored before.
    pub seed: Option<u64>,
    /// Things to know before believing a figure.
    pub caveats: Vec<String>,
    /// One row per metric; the verdicts are about B against A.
    pub metrics: Vec<MetricResult>,
    /// The pairs that count, in their order.
    pub pairs: Vec<Pair>,
    /// A against A.
    pub aa: Vec<Pair>,
    /// Latency by percentile, of all pairs together.
    #[serde(default = "not_said")]
    pub percentiles: Measured<Vec<Percentile>>,
    /// The rules of exclusion in words.
    pub rules: Vec<String>,
    /// The runs that were left out, each with its rule.
    pub excluded: Vec<Excluded>,
    /// Outcomes of all counted runs of A together, and of B.
    pub outcomes: Vec<SideSum>,
    /// Plan keys and hosts that differ between the sides.
    pub differences: Vec<Difference>,
    /// The sweep that chose a side's setting.
    pub sweep: Option<Sweep>,
    /// GO: B is nowhere worse; NO-GO: B is worse somewhere; INCONCLUSIVE: neither can be said.
    pub verdict: Overall,
}

fn not_said() -> Measured<Vec<Percentile>> {
    Measured::unknown("the document does not say", "compute it anew: --from")
}

/// Two runs that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Of side A.
    pub a: RunFigures,
    /// Of side B (or A again).
    pub b: RunFigures,
    /// A ran first.
    pub a_first: bool,
}

/// A run that was left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Excluded {
    /// Block, from 0.
    pub block: u64,
    /// What it was for.
    pub role: Role,
    /// Id, if it has one.
    pub run: Option<String>,
    /// The rule.
    pub why: Exclusion,
}

/// Outcomes of a side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideSum {
    /// Side.
    pub role: Role,
    /// Runs.
    pub runs: u64,
    /// Their outcomes together.
    pub outcomes: Outcomes,
    /// The sum equals the attempts in each of its runs.
    pub closed: bool,
}

/// What differs between the sides besides what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Plan key, or `host`, or `recorded by`.
    pub key: String,
    /// On side A.
    pub a: String,
    /// On side B.
    pub b: String,
}

/// A run of a block that may count.
struct Counted {
    role: Role,
    place: usize,
    figures: RunFigures,
}

/// Where the runs of a comparison are read from, by their ids.
#[expect(missing_debug_implementations, reason = "functions")]
pub struct Sources<'a> {
    /// The figures of a run, or why there are none.
    pub figures: &'a dyn Fn(&str) -> Measured<RunFigures>,
    /// How long its messages waited for a look.
    pub waits: &'a dyn Fn(&str) -> Measured<Histogram>,
    /// The system latency of its requests.
    pub latency: &'a dyn Fn(&str) -> Measured<Histogram>,
}

/// Computes the comparison.
#[must_use]
pub fn compare(recipe: &Recipe, differences: Vec<Difference>, sources: &Sources<'_>) -> Comparison {
    let figures = sources.figures;
    let (mut pairs, mut aa, mut excluded) = (Vec::new(), Vec::new(), Vec::new());
    let mut counted: Vec<RunFigures> = Vec::new();
    let mut sides: Vec<(Role, RunFigures)> = Vec::new();
    for (block, trial) in recipe.trials.iter().enumerate() {
        let runs = runs_of(trial, block as u64, &recipe.rules, figures, &mut excluded);
        let find = |role| runs.iter().find(|run| run.role == role);
        let pair = |a: &Counted, b: &Counted| Pair {
            a: a.figures.clone(),
            b: b.figures.clone(),
            a_first: a.place < b.place,
        };
        if let (Some(a), Some(b)) = (find(Role::A), find(Role::B)) {
            pairs.push(pair(a, b));
            sides.push((Role::A, a.figures.clone()));
            sides.push((Role::B, b.figures.clone()));
        }
        if let (Some(a), Some(again)) = (find(Role::A), find(Role::A2)) {
            aa.push(pair(a, again));
        }
        counted.extend(runs.into_iter().map(|run| run.figures));
    }
    if recipe.design.is_none() {
        aa = neighbours(&pairs);
    }
    let metrics: Vec<MetricResult> = Metric::ALL
        .into_iter()
        .map(|metric| judge(metric, &figures_of(&pairs, metric), &figures_of(&aa, metric)))
        .collect();
    let outcomes = vec![side_sum(Role::A, &sides), side_sum(Role::B, &sides)];
    let sweep = super::sweep::sweep(&recipe.sweep, recipe.chosen.as_deref(), sources);
    let law_broken = sweep.as_ref().is_some_and(Sweep::is_law_broken);
    let verdict = verdict(&metrics, &outcomes, is_baseline_unfit(recipe) || law_broken);
    let mut caveats = caveats(recipe, &pairs, &counted, &outcomes);
    if law_broken {
        caveats.push(
            "the setting that was compared does not wait as its interval says: nothing is claimed of it".to_owned(),
        );
    }
    Comparison {
        id: recipe.id.clone(),
        started: recipe.started.clone(),
        a: recipe.a.clone(),
        b: recipe.b.clone(),
        shared: recipe.shared.clone(),
        seed: recipe.design.as_ref().map(|design| design.seed),
        caveats,
        metrics,
        percentiles: super::percentiles::percentiles(&pairs, sources),
        pairs,
        aa,
        rules: recipe.rules.text(),
        excluded,
        outcomes,
        differences,
        sweep,
        verdict,
    }
}

fn figures_of(pairs: &[Pair], metric: Metric) -> Vec<Two<'_>> {
    pairs.iter().map(|pair| (metric.of(&pair.a), metric.of(&pair.b))).collect()
}

/// The runs of a block that no rule leaves out.
fn runs_of(
    trial: &Trial,
    block: u64,
    rules: &Rules,
    figures: &dyn Fn(&str) -> Measured<RunFigures>,
    excluded: &mut Vec<Excluded>,
) -> Vec<Counted> {
    let mut runs = Vec::new();
    for (place, run) in trial.runs.iter().enumerate() {
        let id = run.run.known().cloned();
        let mut leave_out =
            |why| excluded.push(Excluded { block, role: run.role, run: id.clone(), why });
        let failed = |cause: &str| Exclusion { rule: "failed".to_owned(), seen: cause.to_owned() };
        let found = match &run.run {
            Measured::Known(id) => figures(id),
            Measured::Unknown { unknown, remedy } => Measured::unknown(unknown, remedy),
        };
        match found {
            Measured::Unknown { unknown, .. } => leave_out(failed(&unknown)),
            Measured::Known(figures) => match rules.exclude(&figures, run.steal.known().copied()) {
                Some(why) => leave_out(why),
                None => runs.push(Counted { role: run.role, place, figures }),
            },
        }
    }
    runs
}

/// Runs that were stored before have no A against A of their own: neighbours of side A stand in.
fn neighbours(pairs: &[Pair]) -> Vec<Pair> {
    let pair = |two: &[Pair]| Pair { a: two[0].a.clone(), b: two[1].a.clone(), a_first: true };
    pairs.chunks_exact(2).map(pair).collect()
}

fn side_sum(role: Role, sides: &[(Role, RunFigures)]) -> SideSum {
    let mut sum = SideSum { role, runs: 0, outcomes: Outcomes::default(), closed: true };
    for (_, figures) in sides.iter().filter(|(of, _)| *of == role) {
        sum.runs += 1;
        sum.closed &= figures.closed() == Some(true);
        if let Some(outcomes) = figures.outcomes.known() {
            sum.outcomes.merge(outcomes);
        }
    }
    sum.closed &= sum.runs > 0;
    sum
}

fn caveats(
    recipe: &Recipe,
    pairs: &[Pair],
    counted: &[RunFigures],
    outcomes: &[SideSum],
) -> Vec<String> {
    let mut caveats = Vec::new();
    if is_baseline_unfit(recipe) {
        caveats.push(format!(
            "no setting of side {:?} meets the criterion ({}): what runs is as shipped, and no better than any other",
            recipe.unfit[0],
            super::sweep::criterion()
        ));
    }
    if recipe.stopped {
        caveats.push("the comparison was stopped before its last pair".to_owned());
    }
    let wanted = recipe.design.as_ref().map_or(0, |design| design.pairs);
    if pairs.len() < wanted {
        caveats.push(format!("{} of {wanted} pairs could be had", pairs.len()));
    }
    for side in outcomes.iter().filter(|side| side.runs > 0 && !side.closed) {
        caveats.push(format!("outcome sums of side {:?} do NOT close", side.role));
    }
    let steals = recipe.trials.iter().flat_map(|trial| &trial.runs).map(|run| &run.steal);
    let mut unknown = steals.filter_map(|steal| match steal {
        Measured::Unknown { unknown, .. } => Some(unknown),
        Measured::Known(_) => None,
    });
    if let Some(cause) = unknown.next() {
        caveats.push(format!("the rule `steal` could not be applied to every run: {cause}"));
    }
    if counted.iter().any(|figures| figures.others.known().is_none()) {
        caveats.push("the rule `others` could not be applied to every run".to_owned());
    }
    if recipe.design.is_none() {
        caveats.push(
            "runs that were stored before: paired in their order, not interleaved; neighbours of side A are the noise floor"
                .to_owned(),
        );
    }
    caveats
}

/// Whether a side was to be compared at its best setting, and none was fit to be.
const fn is_baseline_unfit(recipe: &Recipe) -> bool {
    !recipe.unfit.is_empty()
}

/// B is worse somewhere, nowhere, or that cannot be said. Sums that do not close make it INCONCLUSIVE: a figure
/// of requests that were lost from sight compares nothing. So does a side of which no setting was fit, or the one that was
/// taken is not what it is called.
fn verdict(metrics: &[MetricResult], outcomes: &[SideSum], unfit: bool) -> Overall {
    let any = |judged| metrics.iter().any(|metric| metric.judged == judged);
    if unfit || outcomes.iter().any(|side| !side.closed) {
        Overall::Inconclusive
    } else if any(Judged::Worse) {
        Overall::NoGo
    } else if any(Judged::Inconclusive) {
        Overall::Inconclusive
    } else {
        Overall::Go
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
pub(super) mod tests;
