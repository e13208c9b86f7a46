//! From the windows of a run directory to the report: one pass, and a window is let go before the next.

use std::collections::BTreeMap;
use std::path::Path;

use tailbeam_probes::analyse::latency::StageTable;
use tailbeam_probes::analyse::latency::conserve::{Check as Found, Counted, Figures, What};
use tailbeam_probes::record::latency::{LatencyWindow, Sums};
use tailbeam_probes::stats::Histogram;

use super::bands::Compared;
use super::fleet::Fleet;
use super::outliers::Slow;
use super::{
    Attribution, FullMailbox, Holds, LatencyReport, LatencyRun, MatrixRow, Recorded, Requests,
    TypeLatency, UnknownThing, agents, bands, cores,
};
use crate::evidence::records::{Manifest, SecondRecord};
use crate::evidence::{Interval, Intervals, ReadRunError, RunFrames, rfc3339};
use crate::load::Series;
use crate::report::cost::Costs;
use crate::report::{Measured, OwnCost, figures};
use crate::verdict::Conserved;

/// Which part of a run is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// From, ns after the start; windows that overlap the range are taken whole.
    pub from_ns: u64,
    /// To, ns after the start.
    pub to_ns: u64,
    /// Only slow requests that this agent asked or answered.
    pub agent: Option<u32>,
    /// How many slow requests at most.
    pub outliers: usize,
}

impl Default for Question {
    fn default() -> Self {
        Self { from_ns: 0, to_ns: u64::MAX, agent: None, outliers: 20 }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LatencyError {
    /// The run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadRunError),
    /// It has no stages of latency.
    #[error(
        "run {run} does not say where the time of its requests went\n  cause: it was recorded by tailbeam {recorded_by} without stages of latency\n  remedy: record a new run with this version; `report` shows what this one has"
    )]
    NotRecorded {
        /// Run id.
        run: String,
        /// Version that recorded it.
        recorded_by: String,
    },
    /// Every one of its stages' frames is damaged.
    #[error(
        "none of the {frames} frames with stages of latency of run {run} can be read\n  cause: {cause}\n  remedy: restore the run from a copy, or read it by the version that recorded it"
    )]
    Damaged {
        /// Run id.
        run: String,
        /// How many.
        frames: u64,
        /// The first one's.
        cause: String,
    },
    /// It has no window at all.
    #[error(
        "run {run} has no window on disk\n  cause: it ended before its first one was closed\n  remedy: record for at least 10 s, or end a run by its duration or SIGINT"
    )]
    NoWindow {
        /// Run id.
        run: String,
    },
    /// No window lies in the range asked for.
    #[error(
        "no window of run {run} lies between {from_s} s and {to} after its start\n  cause: it has {windows} windows, up to {end_s} s\n  remedy: ask for a range within them with --from and --to"
    )]
    OutsideRange {
        /// Run id.
        run: String,
        /// From, s.
        from_s: f64,
        /// To.
        to: String,
        /// Windows on disk.
        windows: u64,
        /// End of the last, s.
        end_s: f64,
    },
}

impl LatencyError {
    /// Whether the evidence itself is damaged or foreign (exit 6).
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        match self {
            Self::Read(error) => error.is_corrupt(),
            _ => matches!(self, Self::Damaged { .. }),
        }
    }
}

/// What the windows add up to.
pub(super) struct Gathered {
    pub(super) table: StageTable,
    pub(super) histograms: Vec<Histogram>,
    pub(super) seconds: Vec<SecondRecord>,
    /// By shard that answered: all, and the late ones.
    pub(super) responders: BTreeMap<u16, (Sums, Sums)>,
    pub(super) cores: BTreeMap<u16, cores::Core>,
    pub(super) agents: agents::Agents,
    pub(super) fleet: Fleet,
    slow: Slow,
    costs: Costs,
    comparer: bands::Comparer,
    pub(super) clamped: u64,
    pub(super) disordered: u64,
    pub(super) late_left_out: u64,
    /// One request in so many has stages.
    pub(super) staged_every: u64,
    /// Windows of single cores.
    pub(super) core_windows: u64,
}

impl Gathered {
    fn new(question: &Question) -> Self {
        Self {
            table: StageTable::new(),
            histograms: Series::ALL.iter().map(|_| Histogram::new()).collect(),
            seconds: Vec::new(),
            responders: BTreeMap::new(),
            cores: BTreeMap::new(),
            agents: agents::Agents::default(),
            fleet: Fleet::default(),
            slow: Slow::new(question.outliers, question.agent),
            costs: Costs::default(),
            comparer: bands::Comparer::default(),
            clamped: 0,
            disordered: 0,
            late_left_out: 0,
            staged_every: 1,
            core_windows: 0,
        }
    }

    fn interval(&mut self, interval: Interval, clock_ns: u64) {
        let mut counted = Counted { window: interval.record.window, ..Counted::default() };
        self.costs.add(&interval);
        for (_, series, histogram) in &interval.histograms {
            self.histograms[*series as usize].merge(histogram);
            if *series == Series::System {
                counted.requests += histogram.count();
                counted.system_ns += histogram.sum();
            }
        }
        self.seconds.extend(interval.record.seconds);
        interval.latency.iter().for_each(|window| self.window(window));
        self.slow.interval(&interval.latency, clock_ns);
        self.comparer.add(interval.latency, counted, clock_ns);
    }

    fn window(&mut self, window: &LatencyWindow) {
        self.core_windows += 1;
        self.table.merge_sums(&window.buckets);
        for of in &window.responders {
            let (all, late) = self.responders.entry(of.shard).or_default();
            all.merge(&of.all);
            late.merge(&of.late);
        }
        self.cores.entry(window.shard).or_default().add(window);
        self.agents.add(window);
        window.more.seconds.iter().for_each(|second| self.fleet.add(second));
        window.more.carried.iter().for_each(|second| self.fleet.add_carried(second));
        self.clamped += window.clamped;
        self.disordered += window.disordered;
        self.late_left_out += window.late_left_out;
        self.staged_every = self.staged_every.max(window.stands_for());
    }
}

/// Which windows are asked about, and how many there were.
#[derive(Debug)]
pub struct Range {
    question: Question,
    start_ns: u64,
    end_ns: u64,
    windows: u64,
    extent_ns: Option<(u64, u64)>,
}

impl Range {
    /// Of a run that began at this instant.
    #[must_use]
    pub const fn of(question: &Question, start_ns: u64) -> Self {
        Self { question: *question, start_ns, end_ns: start_ns, windows: 0, extent_ns: None }
    }

    /// Whether this window is asked about: it overlaps the range.
    pub fn takes(&mut self, interval: &Interval) -> bool {
        let after_ns = |ns: u64| ns.saturating_sub(self.start_ns);
        let Some((from, to)) = interval.extent_ns() else { return false };
        self.end_ns = self.end_ns.max(to);
        let asked = after_ns(from) < self.question.to_ns && after_ns(to) > self.question.from_ns;
        if asked {
            self.windows += 1;
            let (first, _) = self.extent_ns.unwrap_or((from, to));
            self.extent_ns = Some((first.min(from), to));
        }
        asked
    }

    /// Whether there is anything to say.
    ///
    /// # Errors
    /// Why there is not.
    pub(crate) fn check(&self, intervals: &Intervals) -> Result<(), LatencyError> {
        let run = intervals.manifest.id.clone();
        if intervals.latency_frames == 0 && intervals.windows == 0 {
            return Err(LatencyError::NoWindow { run });
        }
        if intervals.latency_frames == 0 {
            let recorded_by = intervals.manifest.recorded_by.clone();
            return Err(LatencyError::NotRecorded { run, recorded_by });
        }
        if let Some(cause) = intervals.unreadable_latency.clone()
            && intervals.latency_read == 0
        {
            return Err(LatencyError::Damaged { run, frames: intervals.latency_frames, cause });
        }
        if self.windows > 0 { Ok(()) } else { Err(self.outside(intervals)) }
    }

    fn outside(&self, intervals: &Intervals) -> LatencyError {
        let seconds = |ns: u64| ns as f64 / 1e9;
        LatencyError::OutsideRange {
            run: intervals.manifest.id.clone(),
            from_s: seconds(self.question.from_ns),
            to: match self.question.to_ns {
                u64::MAX => "the end".to_owned(),
                ns => format!("{} s", seconds(ns)),
            },
            windows: intervals.windows,
            end_s: seconds(self.end_ns.saturating_sub(self.start_ns)),
        }
    }
}

/// Whether the run in `dir` can answer: it has windows in the range, and stages if they are needed.
///
/// # Errors
/// Why it cannot.
pub fn check(dir: &Path, question: &Question, needs_stages: bool) -> Result<(), LatencyError> {
    let mut intervals = Intervals::open(dir)?;
    let mut range = Range::of(question, intervals.manifest.start_ns);
    for interval in intervals.by_ref() {
        range.takes(&interval);
    }
    match range.check(&intervals) {
        Err(LatencyError::NotRecorded { .. } | LatencyError::Damaged { .. }) if !needs_stages => {
            if range.windows > 0 {
                Ok(())
            } else {
                Err(range.outside(&intervals))
            }
        }
        outcome => outcome,
    }
}

/// Builds the answer from the run in `dir`.
///
/// # Errors
/// [`LatencyError`].
pub fn build(dir: &Path, question: &Question) -> Result<LatencyReport, LatencyError> {
    built(dir, question).map(|(report, ..)| report)
}

/// The same, and what CPU quotas, links, the way to a second process and full mailboxes did in all of its requests, in
/// words: those of its caveats.
///
/// # Errors
/// [`LatencyError`].
pub fn build_with_fleet(
    dir: &Path,
    question: &Question,
) -> Result<(LatencyReport, Vec<String>), LatencyError> {
    built(dir, question).map(|(report, _, fleet)| (report, fleet))
}

/// The report, what its check has compared, and what is said of the fleet.
type Built = (LatencyReport, Compared, Vec<String>);

fn built(dir: &Path, question: &Question) -> Result<Built, LatencyError> {
    let mut intervals = Intervals::open(dir)?;
    let mut gathered = Gathered::new(question);
    let mut range = Range::of(question, intervals.manifest.start_ns);
    let clock_ns = intervals.manifest.clock_bound_ns;
    for interval in intervals.by_ref() {
        if range.takes(&interval) {
            gathered.interval(interval, clock_ns.unwrap_or(0));
        } else {
            gathered.fleet.before(&interval.record.seconds);
        }
    }
    range.check(&intervals)?;
    let compared = std::mem::take(&mut gathered.comparer).done(
        &gathered.table,
        clock_ns.unwrap_or(0),
        question.outliers > 0,
    );
    let report = report(&intervals, &gathered, &range, &compared);
    Ok((report, compared, fleet(&intervals, &gathered)))
}

fn report(
    intervals: &Intervals,
    gathered: &Gathered,
    range: &Range,
    compared: &Compared,
) -> LatencyReport {
    let manifest = &intervals.manifest;
    let seconds: Vec<&SecondRecord> = gathered.seconds.iter().collect();
    let totals = figures::totals(seconds.iter().copied());
    let total = gathered.table.total();
    let cores = cores::rows(gathered, manifest);
    let row = |series: Series| figures::latency_row(series, &gathered.histograms[series as usize]);
    let system = &gathered.histograms[Series::System as usize];
    LatencyReport {
        run: identity(intervals, range),
        host: recorded(manifest),
        caveats: caveats(intervals, gathered, range),
        requests: Requests {
            banded: total.count,
            staged_every: gathered.staged_every,
            expired: totals.outcomes.expired,
            in_histogram: system.count(),
            clamped: gathered.clamped,
            disordered: gathered.disordered,
            missing_windows: missing(intervals, gathered, range),
        },
        throttled: gathered.fleet.throttled(manifest),
        links: gathered.fleet.links(),
        last_seen: gathered.fleet.last_seen(seconds.last().map_or(0, |last| last.open_end)),
        series: vec![row(Series::System), row(Series::EndToEnd)],
        littles_law: figures::little(&seconds, &totals),
        oldest_open_ns: seconds.iter().map(|second| second.oldest_open_ns).max().map_or_else(
            || Measured::unknown("no second was recorded", "record for longer"),
            Measured::Known,
        ),
        completions: figures::spread(intervals.numbers.completions.as_deref(), total.count > 0),
        all: super::composition(&total),
        bands: bands::values(compared, system.max(), manifest),
        conservation: bands::conservation(&compared.checks, manifest),
        types: types(manifest, gathered),
        cores,
        agents: gathered.agents.worst(manifest, &intervals.numbers),
        outliers: gathered.slow.rows(manifest),
        own_cost: gathered.costs.told(&intervals.plan, manifest, intervals.end.as_ref()),
    }
}

pub(crate) fn identity(intervals: &Intervals, range: &Range) -> LatencyRun {
    let manifest = &intervals.manifest;
    let after_s = |ns: u64| ns.saturating_sub(manifest.start_ns) as f64 / 1e9;
    let (from_ns, to_ns) = range.extent_ns.unwrap_or((manifest.start_ns, manifest.start_ns));
    LatencyRun {
        id: manifest.id.clone(),
        workload: manifest.workload.clone(),
        started: rfc3339(manifest.started_unix_ns),
        host: manifest.host.clone(),
        recorded_by: manifest.recorded_by.clone(),
        windows: range.windows,
        windows_on_disk: intervals.windows,
        from_s: after_s(from_ns),
        to_s: after_s(to_ns),
        cores: manifest.cores.clone(),
    }
}

/// The matrix as it was when the run was recorded.
pub(crate) fn recorded(manifest: &Manifest) -> Recorded {
    let row = |text: &String| match text.split_once(": ") {
        Some((area, text)) => MatrixRow { area: area.to_owned(), text: text.to_owned() },
        None => MatrixRow { area: String::new(), text: text.clone() },
    };
    let unknown = |of: &crate::evidence::records::UnknownThing| UnknownThing {
        thing: of.thing.clone(),
        unknown: of.unknown.clone(),
        remedy: of.remedy.clone(),
    };
    Recorded {
        matrix: manifest.matrix.iter().map(row).collect(),
        unknown: manifest.unknowns.iter().map(unknown).collect(),
    }
}

/// Windows of single cores that should be there and are not.
fn missing(intervals: &Intervals, gathered: &Gathered, range: &Range) -> u64 {
    let expected = range.windows * intervals.manifest.cores.len() as u64;
    expected.saturating_sub(gathered.core_windows)
}

fn caveats(intervals: &Intervals, gathered: &Gathered, range: &Range) -> Vec<String> {
    let mut caveats = intervals.damage.clone();
    let mut count = |n: u64, text: &str| {
        if n > 0 {
            caveats.push(format!("{n} {text}"));
        }
    };
    count(
        missing(intervals, gathered, range),
        "windows of cores have no stages: their requests are in the percentiles and in no band",
    );
    count(
        gathered.disordered,
        "requests had stamps out of order beyond the clock's bound: in no band",
    );
    count(
        gathered.late_left_out,
        "late requests were not written down whole: no room; bands have them",
    );
    let cores = gathered.cores.values();
    let (turns, off, lost) = cores.fold((0, 0, 0), |(turns, off, lost), core| {
        (turns + core.long_turns_left_out, off + core.off_left_out, lost + core.lost)
    });
    count(
        turns,
        "long turns were not written down, the shorter ones: no room; a request may wait behind one unnamed",
    );
    count(off, "times off the CPU were not written down, the shorter ones: no room");
    count(lost, "records of switches were lost: times off the CPU are lower bounds");
    caveats.extend(fleet(intervals, gathered));
    caveats
}

fn fleet(intervals: &Intervals, gathered: &Gathered) -> Vec<String> {
    let fleet = gathered.fleet.caveats(&gathered.seconds);
    full_mailboxes(intervals, gathered).into_iter().chain(fleet).collect()
}

/// Agents named in a caveat.
const NAMED_MAX: usize = 3;

/// Who kept whose requests from being sent: these have no stages, so no band shows them.
fn full_mailboxes(intervals: &Intervals, gathered: &Gathered) -> Option<String> {
    let full: u64 = gathered.seconds.iter().map(|second| second.counts.mailbox_full).sum();
    if full == 0 {
        return None;
    }
    let agents = gathered.agents.full(&intervals.manifest);
    let named = |of: &FullMailbox| {
        format!("agent {} on core {} ({} of them)", of.agent, of.core, of.at_least)
    };
    let names: Vec<String> = agents.iter().take(NAMED_MAX).map(named).collect();
    let more = agents.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more agents") } else { String::new() };
    Some(format!(
        "{full} requests were handed back to their sender, in no band, as a mailbox was full: {}{more}",
        names.join(", ")
    ))
}

/// A workload's agents are of one kind.
fn types(manifest: &Manifest, gathered: &Gathered) -> Vec<TypeLatency> {
    let (mut all, mut late) = (Sums::default(), Sums::default());
    for (of_all, of_late) in gathered.responders.values() {
        all.merge(of_all);
        late.merge(of_late);
    }
    vec![TypeLatency {
        name: manifest.workload.clone(),
        all: super::composition(&all),
        late: super::composition(&late),
    }]
}

/// What the report of the whole run says: the slowest band, and whether it adds up; what measuring cost; and what the
/// gate is judged by, or why there is nothing to judge.
pub(crate) fn attribution(
    dir: &Path,
    run: &RunFrames,
) -> (Measured<Attribution>, OwnCost, Result<Conserved, String>) {
    let question = Question { outliers: 0, ..Question::default() };
    let (report, compared, _) = match built(dir, &question) {
        Ok(built) => built,
        Err(error) => {
            let cost = Costs::default().told(&run.plan, &run.manifest, run.end.as_ref());
            let (cause, remedy) = unattributed(&error);
            return (Measured::unknown(&cause, remedy), cost, Err(format!("{cause}; {remedy}")));
        }
    };
    let conserved = conserved(&report, &compared);
    match report.bands.into_iter().next_back() {
        Some(band) => {
            let (holds, failed) = (report.conservation.holds, conserved.failed.clone());
            let attribution = Measured::Known(Attribution { band, holds, failed });
            (attribution, report.own_cost, Ok(conserved))
        }
        None => {
            let unknown = Measured::unknown("no request was attributed", "record for longer");
            let why = "no request was attributed; record for longer".to_owned();
            (unknown, report.own_cost, Err(why))
        }
    }
}

fn unattributed(error: &LatencyError) -> (String, &'static str) {
    if matches!(error, LatencyError::NotRecorded { .. }) {
        let cause = "the run was recorded without stages of latency";
        return (cause.to_owned(), "record a new run with this version, and with measuring on");
    }
    let text = error.to_string();
    let cause = text.lines().find_map(|line| line.trim().strip_prefix("cause: "));
    (cause.unwrap_or(&text).to_owned(), "see `tailbeam latency`")
}

/// The comparisons as a gate takes them.
fn conserved(report: &LatencyReport, compared: &Compared) -> Conserved {
    let mut conserved = Conserved::default();
    for (found, check) in compared.checks.iter().zip(&report.conservation.checks) {
        match check.holds {
            Holds::Ok => conserved.agree += 1,
            Holds::Fail if is_few(found) => conserved.open.push(format!(
                "{} of {} requests have stamps out of order and are in no band",
                found.figures.map_or(0.0, |figures| figures.left),
                check.n
            )),
            Holds::Fail => conserved.failed.push(match &check.misfit {
                Some(place) => format!("{}: {place}", check.name),
                None => check.name.clone(),
            }),
            Holds::Unknown => {
                let why = check.unknown.as_ref().map_or("unknown", |why| &why.unknown);
                let text = format!("{}: {why}", check.name);
                if is_needed(found.what) {
                    conserved.open.push(text);
                } else {
                    conserved.unmade.push(text);
                }
            }
        }
    }
    conserved
}

/// Stamps of single requests that are out of order, as on a machine that takes the cores away between two reads:
/// the bands add up without them, but the highest may lack some. From one in a hundred on it is the stamps.
fn is_few(found: &Found) -> bool {
    let few = |figures: Figures| figures.left <= FEW * figures.n as f64;
    found.what == What::Order && found.figures.is_some_and(few)
}

const FEW: f64 = 0.01;

/// Without these it is not known whether the requests' time adds up. The others are of the host's counters, which
/// may be refused, or samples, of which a short run has too few.
const fn is_needed(what: What) -> bool {
    matches!(
        what,
        What::Band { .. }
            | What::Requests
            | What::Latency
            | What::Drawn
            | What::Fair
            | What::Books
            | What::Order
            | What::Windows
    )
}
