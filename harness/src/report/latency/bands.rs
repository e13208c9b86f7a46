//! Bands, and the comparisons that must hold.

use tailbeam_probes::analyse::latency::bucket_range;
use tailbeam_probes::record::latency::{BucketSums, Sums};

use super::build::Gathered;
use super::{Attribution, Band, Check, Conservation, Holds, composition};
use crate::evidence::RunFrames;
use crate::evidence::records::Manifest;
use crate::load::Series;
use crate::report::Measured;

const EDGES: [(&str, f64); 5] = [
    ("below p50", 0.5),
    ("p50-p90", 0.9),
    ("p90-p99", 0.99),
    ("p99-p99.9", 0.999),
    ("above p99.9", 1.0),
];

/// Bands of all requests, and whether everything adds up.
pub(super) fn judge(
    gathered: &Gathered,
    _manifest: &Manifest,
    max_ns: Option<u64>,
) -> (Vec<Band>, Conservation) {
    let held: Vec<BucketSums> = gathered.table.held().collect();
    let bands = bands(&held, max_ns);
    let checks: Vec<Check> = bands.iter().map(|band| band.check.clone()).collect();
    let holds = together(&checks);
    let resolution_ns = Measured::unknown("not yet", "wait");
    (bands, Conservation { holds, resolution_ns, checks })
}

fn together(checks: &[Check]) -> Holds {
    match checks {
        all if all.iter().any(|check| check.holds == Holds::Fail) => Holds::Fail,
        all if all.is_empty() || all.iter().any(|check| check.holds == Holds::Unknown) => {
            Holds::Unknown
        }
        _ => Holds::Ok,
    }
}

fn bands(held: &[BucketSums], max_ns: Option<u64>) -> Vec<Band> {
    let total: u64 = held.iter().map(|of| of.sums.count).sum();
    let (mut bands, mut below) = (Vec::new(), 0u64);
    let mut rest = held.iter().peekable();
    for (name, edge) in EDGES {
        let (mut sums, mut range) = (Sums::default(), None);
        while let Some(of) = rest.peek() {
            let middle = below as f64 + of.sums.count as f64 / 2.0;
            if middle >= edge * total as f64 {
                break;
            }
            let (from, to) = bucket_range(usize::from(of.bucket));
            range = Some((range.map_or(from, |(first, _)| first), to));
            below += of.sums.count;
            sums.merge(&of.sums);
            rest.next();
        }
        if let Some(range) = range {
            let max_ns = max_ns.filter(|_| rest.peek().is_none());
            bands.push(band(name, &sums, range, (total, max_ns)));
        }
    }
    bands
}

fn band(
    name: &str,
    sums: &Sums,
    (from_ns, to_ns): (u64, u64),
    (total, max): (u64, Option<u64>),
) -> Band {
    let composition = composition(sums);
    let mean = composition.mean_ns.known().copied().unwrap_or(0.0);
    let allowed = mean / 100.0 + 1_000.0;
    Band {
        name: name.to_owned(),
        share: sums.count as f64 / total.max(1) as f64,
        from_ns,
        below_ns: if to_ns == u64::MAX {
            Measured::unknown("the last bucket has no end", "see the maximum")
        } else {
            Measured::Known(to_ns)
        },
        max_ns: max.map_or_else(
            || Measured::unknown("only the last band's is known exactly", "see where it ends"),
            Measured::Known,
        ),
        check: Check {
            name: format!("sum of stages, {name}"),
            holds: if composition.residual_ns.abs() <= allowed { Holds::Ok } else { Holds::Fail },
            residual_ns: Measured::Known(composition.residual_ns),
            allowed_ns: Measured::Known(allowed),
            stage: None,
            text: "mean of the askers' clock reads less sum of the stages".to_owned(),
        },
        composition,
    }
}

/// The slowest band of a whole run.
pub(crate) fn attribution(run: &RunFrames) -> Measured<Attribution> {
    if run.latency_frames == 0 {
        return Measured::unknown(
            "the run was recorded without stages of latency",
            "record a new run with this version",
        );
    }
    let held: Vec<BucketSums> = run.stages.held().collect();
    let max_ns = run.histograms[Series::System as usize].max();
    let bands = bands(&held, max_ns);
    let checks: Vec<Check> = bands.iter().map(|band| band.check.clone()).collect();
    match bands.into_iter().next_back() {
        Some(band) => Measured::Known(Attribution { band, holds: together(&checks) }),
        None => Measured::unknown("no request was attributed", "record for longer"),
    }
}
