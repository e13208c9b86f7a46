//! Small sums that turn records into the report's figures.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

use tailbeam_probes::stats::Histogram;

use super::{CoreRow, LatencyRow, LittleSection, Measured, MemorySection, Spread};
use crate::evidence::RunFrames;
use crate::evidence::records::{CoreRecord, Reading, SecondRecord};
use crate::load::{SecondCounts, Series};

/// Sum of all seconds.
pub(super) fn totals<'a>(seconds: impl Iterator<Item = &'a SecondRecord>) -> SecondCounts {
    let mut total = SecondCounts::default();
    seconds.for_each(|second| total.merge(&second.counts));
    total
}

/// A percentile needs more values than 1 / (1 - q), or it is just the maximum.
fn quantile(histogram: &Histogram, q: f64) -> Measured<u64> {
    let needed = (1.0 / (1.0 - q)).round();
    let count = histogram.count() as f64;
    if count < needed {
        return Measured::unknown(
            format!("{count} values are fewer than the {needed} that this rank needs"),
            "record for longer",
        );
    }
    match histogram.quantile(q) {
        Some(ns) => Measured::Known(ns),
        None => {
            Measured::unknown("the rank lies above the histogram's range", "see the overflow count")
        }
    }
}

/// The row of one series.
pub(super) fn latency_row(series: Series, histogram: &Histogram) -> LatencyRow {
    let nothing = || ("nothing was recorded", "record a run in which requests are answered");
    LatencyRow {
        series: series.name().to_owned(),
        count: histogram.count(),
        overflow: histogram.overflow(),
        mean_ns: histogram.mean().map_or_else(|| unknown(nothing()), Measured::Known),
        p50_ns: quantile(histogram, 0.5),
        p90_ns: quantile(histogram, 0.9),
        p99_ns: quantile(histogram, 0.99),
        p999_ns: quantile(histogram, 0.999),
        max_ns: histogram.max().map_or_else(|| unknown(nothing()), Measured::Known),
    }
}

fn unknown<T>((cause, remedy): (&str, &str)) -> Measured<T> {
    Measured::unknown(cause, remedy)
}

/// Spread of a count over the agents.
pub(super) fn spread(counts: Option<&[u32]>) -> Measured<Spread> {
    let Some(counts) = counts.filter(|counts| !counts.is_empty()) else {
        return Measured::unknown(
            "per-agent counts are written when a run is sealed, and this run was not",
            "end a run by its duration or by SIGINT",
        );
    };
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    let n = sorted.len();
    // Nearest rank.
    let rank = |q: f64| u64::from(sorted[(((n as f64) * q).ceil() as usize).clamp(1, n) - 1]);
    Measured::Known(Spread {
        agents: n as u64,
        min: u64::from(sorted[0]),
        p1: rank(0.01),
        p50: rank(0.5),
        p99: rank(0.99),
        max: u64::from(sorted[n - 1]),
        mean: sorted.iter().map(|&count| f64::from(count)).sum::<f64>() / n as f64,
        zero: sorted.iter().take_while(|&&count| count == 0).count() as u64,
    })
}

/// Little's law over the seconds in which requests were due.
pub(super) fn little(seconds: &[&SecondRecord], total: &SecondCounts) -> Measured<LittleSection> {
    let issuing: Vec<_> = seconds.iter().filter(|second| second.issuing).collect();
    let samples: u64 = issuing.iter().map(|second| second.open_samples).sum();
    let length_s: f64 = issuing.iter().map(|second| second.len_ns as f64 / 1e9).sum();
    if samples == 0 || total.closed == 0 || length_s <= 0.0 {
        return Measured::unknown(
            "no request was closed while samples were taken",
            "record for longer",
        );
    }
    let open: u64 = issuing.iter().map(|second| second.open_sum).sum();
    // Arrivals over the issuing time, as L = lambda x W asks for the arrival rate.
    let outcomes = &total.outcomes;
    let sent =
        outcomes.attempts.saturating_sub(total.refused_open_bound + total.generator_exhausted);
    let throughput_per_s = sent as f64 / length_s;
    let mean_open_s = total.closed_open_ns as f64 / 1e9 / total.closed as f64;
    let mean_outstanding = open as f64 / samples as f64;
    if mean_outstanding <= 0.0 {
        return Measured::unknown(
            "no request was open at any sample",
            "raise the load or the delay",
        );
    }
    Measured::Known(LittleSection {
        throughput_per_s,
        mean_open_s,
        mean_outstanding,
        ratio: throughput_per_s * mean_open_s / mean_outstanding,
        samples,
    })
}

/// The row of one core over `length_s`.
pub(super) fn core_row(core: &CoreRecord, length_s: f64) -> CoreRow {
    let per_s = |count: u64| count as f64 / length_s.max(1e-9);
    let accounted = core.busy_ns + core.parked_ns;
    CoreRow {
        core: core.core,
        agents: core.agents,
        busy_share: if accounted == 0 {
            Measured::unknown("the core has not reported", "record for longer")
        } else {
            Measured::Known(core.busy_ns as f64 / accounted as f64)
        },
        waited_share: match measured(Some(&core.run_delay_ns)) {
            Measured::Known(ns) => Measured::Known(ns as f64 / 1e9 / length_s.max(1e-9)),
            Measured::Unknown { unknown, remedy } => Measured::Unknown { unknown, remedy },
        },
        turns_per_s: per_s(core.turns),
        doorbells_per_s: per_s(core.doorbells),
        enters_per_s: per_s(core.enters),
        timer_late_max_ns: core.timer_late_max_ns,
        panicked: core.panicked,
        dead_letters: core.dead_letters,
    }
}

/// A reading as a figure.
pub(super) fn measured(reading: Option<&Reading>) -> Measured<u64> {
    match reading {
        Some(Reading::Value(value)) => Measured::Known(*value),
        Some(Reading::Missing { unknown, remedy }) => Measured::unknown(unknown, remedy),
        None => Measured::unknown(
            "no window is on disk",
            "record for at least 10 s or end the run by SIGINT",
        ),
    }
}

/// Memory over the windows.
pub(super) fn memory(run: &RunFrames, length_s: f64) -> MemorySection {
    let (first, last) = (run.windows.first(), run.windows.last());
    let largest =
        run.windows.iter().filter_map(|w| measured(Some(&w.rss_bytes)).known().copied()).max();
    let cpu = measured(last.map(|w| &w.cpu_ns));
    let cores = run.manifest.cores.len() as f64;
    MemorySection {
        rss_first_bytes: measured(first.map(|w| &w.rss_bytes)),
        rss_last_bytes: measured(last.map(|w| &w.rss_bytes)),
        rss_max_bytes: largest
            .map_or_else(|| measured(last.map(|w| &w.rss_bytes)), Measured::Known),
        pss_last_bytes: measured(last.map(|w| &w.pss_bytes)),
        live_last_bytes: measured(last.map(|w| &w.live_bytes)),
        cpu_share: match cpu {
            Measured::Known(ns) => Measured::Known(ns as f64 / 1e9 / (length_s.max(1e-9) * cores)),
            Measured::Unknown { unknown, remedy } => Measured::Unknown { unknown, remedy },
        },
    }
}
