//! From a run directory to a report.

use std::path::Path;

use tailbeam_probes::record::DamageKind;
use tailbeam_probes::stats::{Block, Exceedance, Judgement, judge_fraction};

use super::availability;
use super::leaks::Heaps;
use super::percentile::percentile;
use super::{
    AgentsSection, CoreRow, LittleSection, LoadSection, Measured, Report, RunEnd, RunIdentity,
    budget, degradation, epochs, figures, growth, latency,
};
use crate::evidence::records::{PlantedRecord, SecondRecord};
use crate::evidence::{ReadRunError, RunFrames, read_run, rfc3339};
use crate::load::{SecondCounts, Series};
use crate::plan::{Arrivals, Plant, PlantKind};
use crate::verdict::{self, Gate, GateResult, GateVerdict, Outcomes, Validity};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadRunError),
    /// The run did not count a limit that a gate asks for.
    #[error(
        "the run did not count requests above {limit_ms} ms\n  cause: only the limits of its own gates were counted exactly: {counted}\n  remedy: judge by one of them, or record a run with this gate"
    )]
    NotCounted {
        /// Limit asked for, ms.
        limit_ms: f64,
        /// Limits counted.
        counted: String,
    },
}

impl ReportError {
    /// Whether the evidence itself is damaged or foreign (exit 6).
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self, Self::Read(error) if error.is_corrupt())
    }
}

/// Everything the sections are made from.
pub(super) struct Material<'a> {
    cores: Vec<CoreRow>,
    pub(super) run: &'a RunFrames,
    pub(super) seconds: Vec<&'a SecondRecord>,
    total: SecondCounts,
    outcomes: Outcomes,
    issuing_s: f64,
    /// With the drain: the length that counters and CPU time cover.
    whole_s: f64,
}

/// Builds the report of the run in `dir`, judged by `gates` or by the plan's own.
///
/// # Errors
/// [`ReportError`].
pub fn build(dir: &Path, gates: Option<&[Gate]>) -> Result<Report, ReportError> {
    let run = read_run(dir)?;
    let seconds: Vec<&SecondRecord> =
        run.windows.iter().flat_map(|window| &window.seconds).collect();
    let total = figures::totals(seconds.iter().copied());
    let mut outcomes = total.outcomes;
    match &run.end {
        Some(end) => {
            outcomes.open_at_stop += end.open_at_stop;
            outcomes.lost += end.lost;
        }
        None => outcomes.open_at_stop += seconds.last().map_or(0, |second| second.open_end),
    }
    let length_s = |only_issuing: bool| {
        let counted = seconds.iter().filter(|second| second.issuing || !only_issuing);
        counted.fold(0.0, |sum, second| sum + second.len_ns as f64 / 1e9)
    };
    let (issuing_s, whole_s) = (length_s(true), length_s(false));
    let housekeeping = figures::housekeeping_ns(run.windows.last());
    let cores = run.windows.last().map_or_else(Vec::new, |window| {
        window.cores.iter().map(|core| figures::core_row(core, whole_s, &housekeeping)).collect()
    });
    let material = Material { cores, run: &run, seconds, total, outcomes, issuing_s, whole_s };
    let little = figures::little(&material.seconds, &material.total);
    let (attribution, own_cost, conserved) = latency::attribution(dir, &run);
    let gates = gates.unwrap_or(&run.plan.gates);
    let degradation = degradation::rows(&run, degradation::margin(gates));
    let epochs = epochs::section(&run);
    let mut results = Vec::new();
    let mut own = growth::unjudged();
    for gate in gates {
        results.push(match gate {
            Gate::Leaks { below } => {
                let heaps = Heaps::read(dir, &run, *below);
                own = growth::own(&heaps, &run);
                heaps.gate(gate, &run)
            }
            Gate::Conservation {} => verdict::conservation(gate, conserved.as_ref()),
            Gate::Degradation { .. } => degradation::gate(gate, &degradation, &run.epochs),
            gate => judge(gate, &material, little.known().cloned())?,
        });
    }
    let mut validity = validity(&material);
    validity.extend(epochs::unbroken(&epochs));
    let verdict = verdict::combine(&mut results, &validity);
    Ok(Report {
        budgets: budget::rows(gates, &material),
        run: identity(&material),
        caveats: [epochs::caveats(&run, &epochs), caveats(&material)].concat(),
        epochs,
        agents: agents(&material),
        load: load(&material),
        protocol: run.end.as_ref().map_or_else(Vec::new, |end| end.protocol.clone()),
        measured: latency::recorded(&run.manifest),
        attribution,
        own_cost,
        latency: Series::ALL
            .iter()
            .zip(&run.histograms)
            .map(|(&series, histogram)| figures::latency_row(series, histogram))
            .collect(),
        littles_law: little,
        cores: material.cores,
        stalls: super::stalls::section(&run),
        memory: figures::memory(&run, material.whole_s, outcomes.ok + outcomes.declined, own),
        degradation,
        gates: results,
        validity,
        verdict,
    })
}

fn identity(m: &Material<'_>) -> RunIdentity {
    let manifest = &m.run.manifest;
    RunIdentity {
        id: manifest.id.clone(),
        workload: manifest.workload.clone(),
        started: rfc3339(manifest.started_unix_ns),
        recorded_by: manifest.recorded_by.clone(),
        seed: m.run.plan.seed,
        planned_s: m.run.plan.duration_ns as f64 / 1e9,
        measured_s: m.issuing_s,
        whole_s: m.whole_s,
        windows: m.run.windows.len() as u64,
        end: match m.run.end.as_ref().map(|end| end.reason.as_str()) {
            Some("finished") => RunEnd::Finished,
            Some(_) => RunEnd::Interrupted,
            None => RunEnd::Unsealed,
        },
        frames: m.run.frames,
        damage: m.run.damage.clone(),
        host: manifest.host.clone(),
    }
}

/// What the protocol's parts counted that must be known before a figure is believed.
fn protocol_caveats(m: &Material<'_>, caveats: &mut Vec<String>) {
    if m.run.plan.shape.arrivals == Arrivals::Closed {
        caveats.push(
            "a closed loop: an agent asks again after its answer, so that a slow system is asked less \
             and what it was not asked is in no figure"
                .to_owned(),
        );
    }
    const GRAVE: [&str; 7] = [
        "events not logged",
        "log: lost",
        "log: failures",
        "log: damaged places at its begin",
        "logs that gave up",
        "cores that did not say what they counted",
        "logs that did not say what they counted",
    ];
    let counts = m.run.end.iter().flat_map(|end| &end.protocol);
    for record in counts.filter(|record| record.count > 0 && GRAVE.contains(&&*record.name)) {
        caveats.push(format!("{} {}", record.count, record.name));
    }
}

fn caveats(m: &Material<'_>) -> Vec<String> {
    let mut caveats = m.run.damage.clone();
    protocol_caveats(m, &mut caveats);
    match &m.run.end {
        None => caveats.push(unsealed(m)),
        Some(end) if end.reason == "interrupted" => {
            caveats.push(format!(
                "interrupted after {:.1} s of {:.0} s",
                m.issuing_s,
                m.run.plan.duration_ns as f64 / 1e9
            ));
        }
        Some(end) if !end.drained => {
            caveats.push("the runtime did not drain at the end".to_owned())
        }
        Some(_) => {}
    }
    let mut count = |n: u64, text: &str| {
        if n > 0 {
            caveats.push(format!("{n} {text}"));
        }
    };
    count(
        m.outcomes.refused,
        "requests were refused by a limit: no latency and no delivery has them",
    );
    count(
        m.total.refused_open_bound,
        "requests were refused because their agent had its bound of open requests",
    );
    count(m.total.refused_no_memory, "requests were refused because there was no memory for them");
    count(
        m.total.mailbox_full,
        "requests found the mailbox of the agent they were for full: errors",
    );
    count(m.total.ring_full, "requests found the ring to the core they were for full: errors");
    count(m.total.generator_exhausted, "requests could not be sent or timed by the generator");
    count(m.total.answers_undelivered, "answers found the asker's mailbox or ring full");
    count(m.total.late_answers, "answers came after their request was closed");
    count(
        m.total.early_answers,
        "answers came before their planned instant and have no system latency",
    );
    for core in m.cores.iter().filter(|core| contended(core)) {
        caveats.push(format!(
            "core {} was ready but other programs had it for {} of the time",
            core.core,
            core.outside_share
                .known()
                .map_or_else(String::new, |share| format!("{:.1} %", share * 100.0)),
        ));
    }
    match &m.run.end {
        Some(end) => caveats.extend(end.planted.iter().map(planted_text)),
        None => caveats.extend(m.run.plan.plants.iter().map(|plant| {
            format!("{}, unknown how much: the run was not sealed", place_text(plant))
        })),
    }
    for gap in m.run.windows.iter().flat_map(|window| &window.gaps) {
        caveats.push(format!("{} {:.1} s", gap.cause, gap.len_ns as f64 / 1e9));
    }
    caveats
}

/// The truth that a leak report is to be compared with.
fn planted_text(planted: &PlantedRecord) -> String {
    let bytes = match planted.plant.kind {
        PlantKind::CLibrary => "bytes unknown: the C library allocates them".to_owned(),
        _ => format!("{} bytes", planted.bytes),
    };
    let refused = match planted.refused {
        0 => String::new(),
        n => format!("; {n} found no room"),
    };
    format!("{}, {} objects, {bytes}{refused}", place_text(&planted.plant), planted.objects)
}

fn place_text(plant: &Plant) -> String {
    let place =
        plant.agent.map_or_else(|| "all agents".to_owned(), |agent| format!("agent {agent}"));
    format!("planted on purpose: {} in {place}", plant.kind.name())
}

/// What can be said of a run without an end: a window is written and synced every 10 s, so the one that
/// was open is missing; when the log itself is damaged more may be.
fn unsealed(m: &Material<'_>) -> String {
    let torn = DamageKind::TornTail.to_string();
    let missing = if m.run.damage.iter().all(|damage| damage.starts_with(&torn)) {
        "at most one window is missing, the one that was open"
    } else {
        "the log is damaged, so it cannot be said how much is missing"
    };
    let windows = match m.run.windows.len() {
        1 => "1 window is".to_owned(),
        n => format!("{n} windows are"),
    };
    format!(
        "the run was not sealed: its process died; {windows} on disk, {:.1} s measured; {missing}; `tailbeam soak --resume {}` goes on with it",
        m.whole_s, m.run.manifest.id,
    )
}

fn agents(m: &Material<'_>) -> AgentsSection {
    let live = || m.seconds.iter().map(|second| second.live_agents);
    let asked = m.run.plan.agents;
    let per_agent = |bytes: Measured<u64>| match bytes {
        Measured::Known(bytes) => Measured::Known(bytes as f64 / asked as f64),
        Measured::Unknown { unknown, remedy } => Measured::Unknown { unknown, remedy },
    };
    let extreme = |value: Option<u64>| {
        value.map_or_else(
            || Measured::unknown("no second was recorded", "record for longer"),
            Measured::Known,
        )
    };
    let last = m.run.windows.last();
    let state = last.map(|window| window.cores.iter().map(|core| core.state_bytes).sum());
    AgentsSection {
        asked,
        live_min: extreme(live().min()),
        live_max: extreme(live().max()),
        live_samples: m.seconds.len() as u64,
        bytes_per_agent: per_agent(extreme(state)),
        rss_per_agent: per_agent(figures::measured(last.map(|window| &window.rss_bytes))),
        completions: figures::spread(m.run.completions.as_deref(), m.outcomes.attempts > 0),
        attempts: figures::spread(m.run.attempts.as_deref(), m.outcomes.attempts > 0),
        counted_share: counted_share(m),
    }
}

fn counted_share(m: &Material<'_>) -> Option<f64> {
    figures::counted_share(m.run.attempts.as_deref(), m.outcomes.attempts)
}

/// A count is a figure only where something was counted.
fn counted_only<T>(counted: bool, value: T) -> Measured<T> {
    if counted {
        Measured::Known(value)
    } else {
        Measured::unknown(
            "no second of load is on disk",
            "record for at least 10 s, or end the run by SIGINT",
        )
    }
}

fn load(m: &Material<'_>) -> LoadSection {
    let rate = |count: u64| {
        if m.issuing_s > 0.0 {
            Measured::Known(count as f64 / m.issuing_s)
        } else {
            Measured::unknown("no second was recorded", "record for longer")
        }
    };
    let counted = m.seconds.iter().any(|second| second.issuing);
    LoadSection {
        planned_per_s: m.run.plan.rate_per_s(),
        offered_per_s: rate(m.outcomes.attempts),
        served_per_s: rate(m.outcomes.ok + m.outcomes.declined),
        outcomes: counted_only(counted, m.outcomes),
        refused_open_bound: counted_only(counted, m.total.refused_open_bound),
        answers_undelivered: counted_only(counted, m.total.answers_undelivered),
        delivery: m.outcomes.delivery().map_or_else(
            || Measured::unknown("nothing was attempted", "record for longer"),
            Measured::Known,
        ),
        oldest_open_ns: m.seconds.iter().map(|second| second.oldest_open_ns).max().map_or_else(
            || Measured::unknown("no second was recorded", "record for longer"),
            Measured::Known,
        ),
    }
}

/// Of a run with sessions: one that panics is made anew as one that goes is, so the number of live agents does not tell.
fn unpanicked(m: &Material<'_>) -> Option<Validity> {
    m.run.plan.shape.session_ns?;
    let cores = m.run.windows.iter().flat_map(|window| &window.cores);
    let seen = cores.map(|core| core.panicked).max().unwrap_or(0);
    let panicked = m.run.end.as_ref().map_or(0, |end| end.agents_panicked).max(seen);
    Some(Validity {
        name: "no agent panicked".to_owned(),
        holds: panicked == 0,
        text: match panicked {
            0 => "none was seen to".to_owned(),
            n => format!("at least {n} did, and others took their place"),
        },
        outside: false,
    })
}

fn validity(m: &Material<'_>) -> Vec<Validity> {
    let gaps: Vec<_> = m.run.windows.iter().flat_map(|window| &window.gaps).collect();
    let longest = gaps.iter().max_by_key(|gap| gap.len_ns);
    let live = m.seconds.iter().map(|second| second.live_agents).min();
    let asked = m.run.plan.agents;
    let sealed = m.run.end.is_some();
    let mut all = vec![
        Validity {
            name: "undisturbed".to_owned(),
            holds: gaps.is_empty(),
            text: longest.map_or_else(
                || "no gap from outside".to_owned(),
                |gap| format!("{} {:.1} s", gap.cause, gap.len_ns as f64 / 1e9),
            ),
            outside: true,
        },
        Validity {
            name: "all agents live".to_owned(),
            holds: live == Some(asked),
            text: live.map_or_else(
                || "never sampled".to_owned(),
                |live| format!("{live} of {asked} at the least"),
            ),
            outside: false,
        },
        Validity {
            name: "evidence whole".to_owned(),
            holds: sealed && m.run.damage.is_empty(),
            text: if sealed {
                format!("{} damaged places", m.run.damage.len())
            } else {
                "not sealed".to_owned()
            },
            outside: false,
        },
    ];
    all.extend(unpanicked(m));
    all
}

fn judge(
    gate: &Gate,
    m: &Material<'_>,
    little: Option<LittleSection>,
) -> Result<GateResult, ReportError> {
    let row = |series: Series| &m.run.histograms[series as usize];
    Ok(match gate {
        Gate::Percentile { q, limit_ns } => return percentile(gate, m, *q, *limit_ns),
        Gate::Delivery { at_least } => {
            let blocks = delivery_blocks(m);
            let (judgement, estimate) = judge_fraction(&blocks, 1.0 - at_least);
            let measured = m.outcomes.delivery().map_or_else(|| "unknown".to_owned(), percent);
            let result = from_blocks(gate, judgement, &estimate, measured);
            verdict::undecided_requests(result, *at_least, &m.outcomes)
        }
        Gate::Availability { at_least } => availability::judge(gate, *at_least, m),
        Gate::Errors { below } => {
            let blocks = fraction_blocks(m, |o| o.error + o.lost);
            outcome_fraction(gate, &blocks, *below)
        }
        Gate::Expired { below } => {
            outcome_fraction(gate, &fraction_blocks(m, |o| o.expired), *below)
        }
        Gate::Refused { below } => {
            let blocks = blocks(m, |counts| (counts.outcomes.sum(), counts.outcomes.refused));
            outcome_fraction(gate, &blocks, *below)
        }
        Gate::Throughput { at_least_per_s } => {
            verdict::throughput(gate, *at_least_per_s, &rates(m))
        }
        Gate::Outcomes {} => {
            let open =
                m.seconds.last().map_or(0, |second| second.open_sum / second.open_samples.max(1));
            verdict::outcome_sum(gate, &m.outcomes, m.run.end.is_some(), open)
        }
        Gate::LittlesLaw { within } => {
            let samples = little.as_ref().map_or(0, |law| law.samples);
            verdict::little(gate, *within, little.map(|law| (law.ratio, law.error95)), samples)
        }
        Gate::Fairness { max_over_min } => {
            let attempted = m.outcomes.attempts > 0;
            let spread = figures::spread(m.run.completions.as_deref(), attempted);
            let spread = spread.known().map(|s| (s.min, s.max, s.mean, s.agents));
            let counted = counted_share(m).unwrap_or(1.0);
            verdict::fairness(gate, *max_over_min, (spread, counted), m.issuing_s)
        }
        Gate::Leaks { .. } | Gate::Conservation {} => {
            unreachable!("judged from the heap and from the stages, not from frames")
        }
        Gate::Degradation { .. } => unreachable!("judged over the windows, before this"),
        Gate::Generator { p99_lateness_ns } => {
            let lateness = row(Series::Lateness);
            let sends = verdict::Sends {
                p99_ns: lateness.quantile(0.99),
                n: lateness.count(),
                late: lateness.count_above(*p99_lateness_ns),
                exhausted: m.total.generator_exhausted,
                taken: taken(&m.cores),
            };
            verdict::generator(gate, *p99_lateness_ns, sends)
        }
    })
}

/// Terminal replies per second, of each second in which requests were due: a record that took longer counts as often as it
/// has seconds.
fn rates(m: &Material<'_>) -> Vec<f64> {
    let seconds = m.seconds.iter().filter(|second| second.issuing && second.len_ns > 0);
    let each = seconds.flat_map(|second| {
        let (outcomes, len_s) = (&second.counts.outcomes, second.len_ns as f64 / 1e9);
        let rate = (outcomes.ok + outcomes.declined) as f64 / len_s;
        availability::parts(len_s, 0).map(move |_| rate)
    });
    each.collect()
}

/// What is worth a line: a P99 is made by 1 % of the requests.
fn contended(core: &CoreRow) -> bool {
    core.outside_share.known().is_some_and(|&share| share > 0.01)
}

/// The largest share of a core's time that other programs had for certain; 0 where it is not known, so
/// that nothing is excused by it.
fn taken(cores: &[CoreRow]) -> f64 {
    cores
        .iter()
        .filter_map(|core| core.outside_share.known())
        .fold(0.0, |max, &share| share.max(max))
}

/// Answered and unanswered requests per second. One that was lost was closed in no second; it counts
/// against the last. One that was open before its deadline when the run was stopped is neither.
pub(super) fn delivery_blocks(m: &Material<'_>) -> Vec<Block> {
    let mut blocks = blocks(m, |counts| {
        let o = &counts.outcomes;
        let bad = o.expired + o.error + o.cancelled + o.lost;
        (o.ok + o.declined + bad, bad)
    });
    if let (Some(last), Some(end)) = (blocks.last_mut(), &m.run.end) {
        last.n += end.lost;
        last.k += end.lost;
    }
    blocks
}

/// Requests with an outcome in each second, and those among them that `bad` counts; a lost one counts against
/// the last second, as it was closed in none.
pub(super) fn fraction_blocks(m: &Material<'_>, bad: impl Fn(&Outcomes) -> u64) -> Vec<Block> {
    let mut blocks = blocks(m, |counts| {
        let o = &counts.outcomes;
        (o.sum() - o.refused, bad(o))
    });
    if let (Some(last), Some(end)) = (blocks.last_mut(), &m.run.end) {
        let lost = Outcomes { lost: end.lost, ..Outcomes::default() };
        last.n += end.lost;
        last.k += bad(&lost);
    }
    blocks
}

fn outcome_fraction(gate: &Gate, blocks: &[Block], below: f64) -> GateResult {
    let (judgement, estimate) = judge_fraction(blocks, below);
    let measured = if estimate.n == 0 { "unknown".to_owned() } else { percent(estimate.p) };
    from_blocks(gate, judgement, &estimate, measured)
}

pub(super) fn percent(fraction: f64) -> String {
    format!("{:.4} %", fraction * 100.0)
}

pub(super) fn blocks(m: &Material<'_>, count: impl Fn(&SecondCounts) -> (u64, u64)) -> Vec<Block> {
    m.seconds
        .iter()
        .map(|second| {
            let (n, k) = count(&second.counts);
            Block { n, k, len_s: second.len_ns as f64 / 1e9 }
        })
        .collect()
}

pub(super) fn from_blocks(
    gate: &Gate,
    judgement: Judgement,
    estimate: &Exceedance,
    measured: String,
) -> GateResult {
    let bounds = match (estimate.lower95, estimate.upper95) {
        (Some(lower), Some(upper)) => {
            format!("95 % bounds {} and {}", percent(lower), percent(upper))
        }
        _ => "too few blocks for bounds".to_owned(),
    };
    let (verdict, reason, needs_more_s) = match judgement {
        Judgement::Pass => (GateVerdict::Pass, bounds, None),
        Judgement::Fail => (GateVerdict::Fail, bounds, None),
        Judgement::Undecided { reason, needed_s } => (GateVerdict::Inconclusive, reason, needed_s),
    };
    GateResult {
        gate: gate.name(),
        requirement: gate.requirement(),
        measured,
        n: estimate.n,
        blocks: Some(estimate.blocks as u64),
        verdict,
        reason,
        needs_more_s,
        latency: true,
    }
}
