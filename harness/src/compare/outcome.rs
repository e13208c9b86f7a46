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
    let law_doubt = sweep.as_ref().and_then(Sweep::law_doubt);
    let broke = Broke::of(recipe, &excluded);
    let unfit = is_baseline_unfit(recipe) || law_doubt.is_some();
    let verdict = verdict(&metrics, &outcomes, unfit, broke);
    let mut caveats = caveats(recipe, &pairs, &counted, &outcomes);
    caveats.extend(law_doubt);
    caveats.extend(broke.text());
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

/// Runs that were begun and failed, or did not end after their planned duration.
#[derive(Debug, Clone, Copy, Default)]
struct Broke {
    /// Of A, once or again.
    a: u64,
    b: u64,
    /// Runs that were begun.
    runs_a: u64,
    runs_b: u64,
}

impl Broke {
    fn of(recipe: &Recipe, excluded: &[Excluded]) -> Self {
        let last = recipe.trials.len() as u64;
        // The run in which it was stopped did not end, by whoever stopped it.
        let stopped = |out: &&Excluded| recipe.stopped && out.block + 1 == last;
        let failed = |out: &&Excluded| ["failed", "unfinished"].contains(&out.why.rule.as_str());
        let broken: Vec<Role> = excluded
            .iter()
            .filter(failed)
            .filter(|out| !stopped(out))
            .map(|out| out.role)
            .collect();
        let b = broken.iter().filter(|role| **role == Role::B).count() as u64;
        let runs = || recipe.trials.iter().flat_map(|trial| &trial.runs);
        let runs_b = runs().filter(|run| run.role == Role::B).count() as u64;
        let (a, runs_a) = (broken.len() as u64 - b, runs().count() as u64 - runs_b);
        Self { a, b, runs_a, runs_b }
    }

    const fn any(self) -> bool {
        self.a + self.b > 0
    }

    /// Whether B fails more often than A by more than chance: with equal rates each failure is one of B with the share that B
    /// has of the runs, and so many of them are in at most 5 % of all comparisons. A side that never ran is another matter.
    fn b_is_worse(self) -> bool {
        let share = self.runs_b as f64 / (self.runs_a + self.runs_b).max(1) as f64;
        let n = self.a + self.b;
        // Binomial weights, from none on.
        let mut weight = (1.0 - share).powf(n as f64);
        let mut below = 0.0;
        for k in 0..self.b {
            below += weight;
            weight *= (n - k) as f64 / (k + 1) as f64 * share / (1.0 - share);
        }
        self.b > 0 && self.b < self.runs_b && self.runs_a > 0 && 1.0 - below <= 0.05
    }

    fn text(self) -> Option<String> {
        let Self { a, b, runs_a, runs_b } = self;
        let worse = if self.b_is_worse() { ": B fails more often than chance" } else { "" };
        self.any().then(|| {
            format!("{b} of {runs_b} runs of B and {a} of {runs_a} of A failed or did not end{worse}; the figures are of the others, which makes no GO")
        })
    }
}

/// Whether a side was to be compared at its best setting, and none was fit to be.
const fn is_baseline_unfit(recipe: &Recipe) -> bool {
    !recipe.unfit.is_empty()
}

/// B is worse somewhere, nowhere, or that cannot be said. Sums that do not close make it INCONCLUSIVE: a figure
/// of requests that were lost from sight compares nothing. So does a side of which no setting was fit, or the one that was
/// taken is not what it is called.
///
/// Runs that failed are left out of the figures, and count here: those that did not fail are no GO of those that did.
fn verdict(metrics: &[MetricResult], outcomes: &[SideSum], unfit: bool, broke: Broke) -> Overall {
    let any = |judged| metrics.iter().any(|metric| metric.judged == judged);
    if unfit || outcomes.iter().any(|side| !side.closed) {
        Overall::Inconclusive
    } else if any(Judged::Worse) || broke.b_is_worse() {
        Overall::NoGo
    } else if any(Judged::Inconclusive) || broke.any() {
        Overall::Inconclusive
    } else {
        Overall::Go
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
pub(super) mod tests;
