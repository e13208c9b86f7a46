//! Bands of the distribution, and the comparisons that must hold, as report values.

use tailbeam_probes::analyse::latency::conserve::{
    Check as Found, Counted, Given, Misfit, Outcome, What,
};
use tailbeam_probes::analyse::latency::explain::{self, BandCauses, Index, causes};
use tailbeam_probes::analyse::latency::{self, Bands, CUTS, Estimate, StageTable};
use tailbeam_probes::record::latency::LatencyWindow;

use super::cores::cpu;
use super::{
    Band, Blame, Causes, Check, Conservation, Holds, Part, UnknownThing, composition, stage_name,
};
use crate::evidence::records::Manifest;
use crate::report::Measured;

/// Names of [`CUTS`]' bands.
pub(super) const NAMES: [&str; CUTS.len()] =
    ["below p50", "p50-p90", "p90-p99", "p99-p99.9", "above p99.9"];

/// Intervals that are compared together: an hour of the usual 10 s. The rest of a long run joins the last.
const TOGETHER: usize = 360;

/// Causes shown of a band.
const BLAMES_MAX: usize = 8;

/// Makes the comparisons piece by piece, so that a long run is never in memory whole; keeps the worst of
/// each.
#[derive(Debug, Default)]
pub(super) struct Comparer {
    windows: Vec<LatencyWindow>,
    counted: Vec<Counted>,
    found: Vec<(What, Found)>,
    pieces: u64,
}

/// What came of all windows.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) checks: Vec<Found>,
    bands: Bands,
    /// What each band waited behind; none where the windows were too many to look at together.
    causes: Option<[Option<BandCauses>; CUTS.len()]>,
}

impl Comparer {
    /// Takes all windows of one interval.
    pub(super) fn add(&mut self, windows: Vec<LatencyWindow>, counted: Counted, clock_ns: u64) {
        self.windows.extend(windows);
        self.counted.push(counted);
        if self.counted.len() < 2 * TOGETHER {
            return;
        }
        let rest = self.counted.split_off(TOGETHER);
        let first = rest.first().map_or(u32::MAX, |of| of.window);
        let later = self.windows.iter().position(|window| window.window >= first);
        let later = self.windows.split_off(later.unwrap_or(self.windows.len()));
        self.compare(clock_ns);
        (self.windows, self.counted) = (later, rest);
    }

    fn compare(&mut self, clock_ns: u64) {
        self.pieces += 1;
        let given = Given { windows: &self.windows, counted: Some(&self.counted), clock_ns };
        for check in latency::conservation(&given).checks {
            match self.found.iter_mut().find(|(what, _)| *what == check.what) {
                Some((_, kept)) => {
                    if worse(&check, kept) {
                        *kept = check;
                    }
                }
                None => self.found.push((check.what, check)),
            }
        }
    }

    /// All comparisons, the bands of `table`, and what these waited behind, if that is `wanted`.
    pub(super) fn done(mut self, table: &StageTable, clock_ns: u64, wanted: bool) -> Compared {
        self.compare(clock_ns);
        let joined = LatencyWindow { buckets: table.held().collect(), ..LatencyWindow::default() };
        let bands = latency::bands([&joined]);
        let causes = (wanted && self.pieces == 1)
            .then(|| causes(&self.windows, &bands, &Index::new(&self.windows), clock_ns));
        Compared { checks: self.found.into_iter().map(|(_, check)| check).collect(), bands, causes }
    }
}

/// A failure is worse than what is not known, and that than what holds; of equals what uses up more of its
/// allowance.
fn worse(a: &Found, b: &Found) -> bool {
    let rank = |check: &Found| {
        let used =
            check.figures.map_or(0.0, |f| f.residual().abs() / f.allowed.max(f64::MIN_POSITIVE));
        let rank = match check.outcome {
            Outcome::Pass => 0,
            Outcome::Unknown(_) => 1,
            Outcome::Fail(_) => 2,
        };
        (rank, used)
    };
    rank(a).partial_cmp(&rank(b)).is_some_and(std::cmp::Ordering::is_gt)
}

/// The bands that hold requests.
pub(super) fn values(compared: &Compared, max_ns: Option<u64>, manifest: &Manifest) -> Vec<Band> {
    let bands = &compared.bands.bands;
    let last = bands.iter().rposition(|band| band.sums.count > 0);
    let band = |(k, band): (usize, &latency::Band)| {
        let what = What::Band { band: Some(k) };
        let (from_ns, to_ns) = band.range_ns;
        Band {
            name: NAMES[k].to_owned(),
            share: band.actual.1 - band.actual.0,
            rank_from: band.actual.0,
            rank_to: band.actual.1,
            from_ns,
            below_ns: match to_ns {
                u64::MAX => Measured::unknown("the last bucket has no end", "see the maximum"),
                to => Measured::Known(to),
            },
            max_ns: max_ns.filter(|_| last == Some(k)).map_or_else(
                || Measured::unknown("only the slowest band's is known", "see where it ends"),
                Measured::Known,
            ),
            composition: composition(&band.sums),
            check: compared.checks.iter().find(|of| of.what == what).map(|of| check(of, manifest)),
            causes: of_band(compared, k, manifest),
        }
    };
    let held = bands.iter().enumerate().filter(|(_, band)| band.sums.count > 0);
    held.map(band).collect()
}

fn of_band(compared: &Compared, band: usize, manifest: &Manifest) -> Measured<Causes> {
    let Some(causes) = &compared.causes else {
        return Measured::unknown(
            format!("more than {} windows are not looked at together", 2 * TOGETHER),
            "ask for a part of the run with --from and --to",
        );
    };
    let Some(of) = &causes[band] else {
        return Measured::unknown(
            "no request of the band was drawn to be written down whole",
            "record for longer",
        );
    };
    let blame = |of: &explain::Blame| {
        let (what, agent) = super::outliers::words(of.behind?);
        Some(Blame {
            stage: stage_name(of.stage),
            what: what.to_owned(),
            agent,
            core: cpu(manifest, of.shard),
            mean_ns: of.ns.mean,
            error_ns: of.ns.error,
            requests: of.requests,
        })
    };
    let unrecorded = of.waits.iter().filter(|of| of.behind.is_none());
    let part = |name: &str, of: Option<Estimate>| {
        let of = of?;
        Some(Part { part: name.to_owned(), mean: of.mean, error: of.error, n: of.n })
    };
    let service = [
        part("preempted_ns", of.preempted),
        part("blocked_ns", of.blocked),
        part("off_ns", of.off),
        part("allocator_ns", of.allocator),
        part("minor_faults", of.minor_faults),
        part("major_faults", of.major_faults),
    ];
    Measured::Known(Causes {
        drawn: of.draws.uniform + of.draws.late,
        late: of.draws.late,
        waits: of.waits.iter().filter_map(blame).take(BLAMES_MAX).collect(),
        throttled: part("throttled_ns", of.throttled.filter(|of| of.mean > 0.0)),
        unrecorded_ns: unrecorded.map(|of| of.ns.mean).sum(),
        service: service.into_iter().flatten().collect(),
    })
}

/// All comparisons as report values.
pub(super) fn conservation(found: &[Found], manifest: &Manifest) -> Conservation {
    let any = |of: fn(&Outcome) -> bool| found.iter().any(|check| of(&check.outcome));
    Conservation {
        holds: if any(|outcome| matches!(outcome, Outcome::Fail(_))) {
            Holds::Fail
        } else if found.is_empty() || any(|outcome| matches!(outcome, Outcome::Unknown(_))) {
            Holds::Unknown
        } else {
            Holds::Ok
        },
        clock_ns: manifest.clock_bound_ns.map_or_else(
            || Measured::unknown("the run does not say", "record a new run"),
            Measured::Known,
        ),
        checks: found.iter().map(|of| check(of, manifest)).collect(),
    }
}

fn check(of: &Found, manifest: &Manifest) -> Check {
    let (name, unit) = name(of.what, manifest);
    let (holds, misfit, unknown) = match &of.outcome {
        Outcome::Pass => (Holds::Ok, None, None),
        Outcome::Fail(misfit) => (Holds::Fail, Some(place(misfit)), None),
        Outcome::Unknown(why) => {
            let (unknown, remedy) = (why.cause.clone(), why.remedy.clone());
            let thing = why.source.to_owned();
            (Holds::Unknown, None, Some(UnknownThing { thing, unknown, remedy }))
        }
    };
    Check {
        name,
        holds,
        unit: unit.to_owned(),
        left: of.figures.map(|figures| figures.left),
        right: of.figures.map(|figures| figures.right),
        allowed: of.figures.map(|figures| figures.allowed),
        n: of.figures.map_or(0, |figures| figures.n),
        misfit,
        unknown,
    }
}

/// What is compared, first and second, and the unit.
fn name(what: What, manifest: &Manifest) -> (String, &'static str) {
    let on = |text: &str, shard: u16| format!("{text}, core {}", cpu(manifest, shard));
    match what {
        What::Band { band: None } => ("stages = latency, all requests".to_owned(), "ns"),
        What::Band { band: Some(k) } => (format!("stages = latency, {}", NAMES[k]), "ns"),
        What::Requests => ("requests attributed = requests counted".to_owned(), "requests"),
        What::Latency => ("latency attributed = latency counted".to_owned(), "ns"),
        What::Drawn => ("requests with stages = requests drawn".to_owned(), "requests"),
        What::Fair => ("latency of those drawn = of all".to_owned(), "ns"),
        What::Books => ("by who asked = by who answered".to_owned(), "requests"),
        What::Order => ("requests with stamps out of order".to_owned(), "requests"),
        What::Windows => ("windows there = windows expected".to_owned(), "windows"),
        What::Stages { band } => (format!("tables = whole requests, {}", NAMES[band]), "share"),
        What::Parts { shard } => (on("turns + parked + looking + tick <= wall", shard), "ns"),
        What::Ticks { shard } => (on("ticks leave no gap", shard), "ns"),
        What::OnOff { shard } => (on("task-clock + off CPU = wall", shard), "ns"),
        What::Blocked { shard } => (on("blocked <= parked + turns", shard), "ns"),
        What::RunTime { shard } => (on("schedstat run = task-clock + wake-ups", shard), "ns"),
        What::Waiting { shard } => (on("schedstat wait = preempted + woken", shard), "ns"),
        What::Service { shard } => (on("service <= turns", shard), "ns"),
        What::Little { leg } => {
            let legs = ["sent, not taken", "taken, not answered", "answered, not in hand"];
            (format!("Little: {}", legs.get(leg).unwrap_or(&"another leg")), "requests")
        }
    }
}

/// Where it does not fit.
fn place(misfit: &Misfit) -> String {
    match misfit {
        Misfit::Stages(stages) => {
            let names: Vec<&str> = stages.iter().map(|stage| stage.name()).collect();
            format!("in {}", names.join(" or "))
        }
        Misfit::Handler => "between the turn that took it and the answer".to_owned(),
        Misfit::Plan => "in the planned delay".to_owned(),
        Misfit::SwitchesLost(lost) => format!("{lost} records of switches were lost"),
        Misfit::Window(window) => format!("in window {window}"),
        Misfit::Itself => "between these two".to_owned(),
        Misfit::Unclear => "not known where".to_owned(),
    }
}
