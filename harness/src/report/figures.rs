//! Small sums that turn records into the report's figures.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

use tailbeam_probes::stats::Histogram;

use super::{
    CoreRow, LatencyRow, LittleSection, Measured, MemorySection, OwnMemory, Spread, growth,
};
use crate::evidence::RunFrames;
use crate::evidence::records::{CoreRecord, Reading, SecondRecord, WindowRecord};
use crate::load::{SecondCounts, Series};
use crate::plan::Responders;

/// Sum of all seconds. What was open when an epoch was cut is open at stop.
pub(super) fn totals<'a>(seconds: impl Iterator<Item = &'a SecondRecord>) -> SecondCounts {
    let mut total = SecondCounts::default();
    for second in seconds {
        total.merge(&second.counts);
        total.outcomes.open_at_stop += if second.cut { second.open_end } else { 0 };
    }
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

/// Share of the requests whose agents are known, where that is not all of them. What an epoch did between its last word
/// and its cut is counted, but by no agent.
pub(super) fn counted_share(attempts: Option<&[u32]>, of: u64) -> Option<f64> {
    let known: u64 = attempts?.iter().map(|&count| u64::from(count)).sum();
    (known < of).then(|| known as f64 / of as f64)
}

/// Spread of a count over the agents. `attempted`: whether there was anything to count.
pub(super) fn spread(counts: Option<&[u32]>, attempted: bool) -> Measured<Spread> {
    if !attempted {
        return Measured::unknown("nothing was attempted", "record for longer");
    }
    let Some(counts) = counts.filter(|counts| !counts.is_empty()) else {
        return Measured::unknown(
            "per-agent counts are not known of the whole run: it was cut before they were written, or this view has them of runs of one process only",
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

/// Little's law over all seconds, the drain included, so that both sides see every request whole: the
/// times open are exact sums, those of requests still open at the end included; the number outstanding is
/// the mean of independent samples, each second weighted by its length.
pub(super) fn little(seconds: &[&SecondRecord], total: &SecondCounts) -> Measured<LittleSection> {
    let samples: u64 = seconds.iter().map(|second| second.open_samples).sum();
    let length_s: f64 = seconds.iter().map(|second| second.len_ns as f64 / 1e9).sum();
    let cut = seconds.iter().rev().skip(1).filter(|second| second.cut);
    let ends = seconds.last().into_iter().chain(cut);
    let (open_end, open_age_ns) =
        ends.fold((0, 0), |(n, age_ns), end| (n + end.open_end, age_ns + end.open_age_ns));
    let requests = (total.closed + open_end) as f64;
    if samples == 0 || requests <= 0.0 || length_s <= 0.0 {
        return Measured::unknown(
            "no request was open while samples were taken",
            "record for longer",
        );
    }
    let sampled = seconds.iter().filter(|second| second.open_samples > 0);
    let (weighted, sampled_s) = sampled.fold((0.0, 0.0), |(sum, length), second| {
        let (mean, len_s) =
            (second.open_sum as f64 / second.open_samples as f64, second.len_ns as f64 / 1e9);
        (sum + mean * len_s, length + len_s)
    });
    let mean_outstanding = weighted / sampled_s;
    if mean_outstanding <= 0.0 {
        return Measured::unknown(
            "no request was open at any sample",
            "raise the load or the delay",
        );
    }
    let throughput_per_s = requests / length_s;
    let mean_open_s = (total.closed_open_ns + open_age_ns) as f64 / 1e9 / requests;
    Measured::Known(LittleSection {
        throughput_per_s,
        mean_open_s,
        mean_outstanding,
        ratio: throughput_per_s * mean_open_s / mean_outstanding,
        samples,
        error95: 1.96 * sampling_error(requests, samples as f64) / mean_outstanding,
    })
}

/// Standard error of the mean of `samples` of the number outstanding against its mean over the time, with
/// `requests` coming and going as Poisson streams: between two samples the number wanders with a variance
/// that grows by two per request to 2 requests / samples; its mean over the gap lies off the sample by a
/// third of that, and the gaps are independent: sqrt(2 requests / 3) / samples.
fn sampling_error(requests: f64, samples: f64) -> f64 {
    (2.0 * requests / 3.0).sqrt() / samples
}

/// CPU time of everything but the shards, ns: the controller, the watch, signals.
pub(super) fn housekeeping_ns(window: Option<&WindowRecord>) -> Measured<u64> {
    let process = measured(window.map(|window| &window.cpu_ns));
    let cores = window.map_or(&[][..], |window| &window.cores);
    cores.iter().fold(process, |left, core| match (left, measured(Some(&core.cpu_ns))) {
        (Measured::Known(left), Measured::Known(ns)) => Measured::Known(left.saturating_sub(ns)),
        (unknown @ Measured::Unknown { .. }, _) | (_, unknown) => unknown,
    })
}

/// A sum over the run as a share or rate of its length.
fn over(value: Measured<u64>, scale: f64, length_s: f64) -> Measured<f64> {
    match value {
        Measured::Known(_) if length_s <= 0.0 => {
            Measured::unknown("no second was recorded", "record for longer")
        }
        Measured::Known(value) => Measured::Known(value as f64 / scale / length_s),
        Measured::Unknown { unknown, remedy } => Measured::Unknown { unknown, remedy },
    }
}

/// The row of one core over `length_s`.
pub(super) fn core_row(core: &CoreRecord, length_s: f64, housekeeping: &Measured<u64>) -> CoreRow {
    let per_s = |count: u64| over(Measured::Known(count), 1.0, length_s);
    let accounted = core.busy_ns + core.parked_ns;
    let waited = measured(Some(&core.run_delay_ns));
    let outside = match (waited.clone(), housekeeping.clone()) {
        (Measured::Known(waited), Measured::Known(own)) => {
            Measured::Known(waited.saturating_sub(own))
        }
        (unknown @ Measured::Unknown { .. }, _) | (_, unknown) => unknown,
    };
    CoreRow {
        core: core.core,
        agents: core.agents,
        cpu_share: over(measured(Some(&core.cpu_ns)), 1e9, length_s),
        spun_share: over(measured(Some(&core.spun_ns)), 1e9, length_s),
        busy_share: if accounted == 0 {
            Measured::unknown("the core has not reported", "record for longer")
        } else {
            Measured::Known(core.busy_ns as f64 / accounted as f64)
        },
        waited_share: over(waited, 1e9, length_s),
        outside_share: over(outside, 1e9, length_s),
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

/// Memory over the windows; `answered`: terminal replies.
pub(super) fn memory(
    run: &RunFrames,
    length_s: f64,
    answered: u64,
    own: Measured<OwnMemory>,
) -> MemorySection {
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
        rss_growth: growth::slope(run, |w| &w.rss_bytes),
        live_growth: growth::slope(run, |w| &w.live_bytes),
        own,
        disk_held: disk_held(run),
        cpu_share: over(cpu.clone(), 1e9, length_s * cores),
        cpu_per_request_ns: match cpu {
            // That of a process is no whole of what two have done.
            _ if run.plan.protocol.responders == Responders::Tcp => Measured::unknown(
                "half of the requests are answered by a second process, whose CPU time is not in this one's",
                "see \"second process: CPU time\" among the protocol's counts, or record with --responders here",
            ),
            Measured::Known(_) if answered == 0 => {
                Measured::unknown("no request was answered", "record for longer")
            }
            Measured::Known(ns) => Measured::Known(ns as f64 / answered as f64),
            Measured::Unknown { unknown, remedy } => Measured::Unknown { unknown, remedy },
        },
        housekeeping_share: over(housekeeping_ns(last), 1e9, length_s * cores),
    }
}

/// What was held of the disk for the last epoch: that of one before it went with its process.
fn disk_held(run: &RunFrames) -> Measured<u64> {
    let began = run.epochs.last().and_then(|epoch| epoch.began.as_ref());
    match began.and_then(|began| began.disk_held.as_ref()) {
        Some(held) => measured(Some(held)),
        None => Measured::unknown("the run does not say", "record a new run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn second(len_ns: u64, open: (u64, u64), end: (u64, u64), closed: (u64, u64)) -> SecondRecord {
        SecondRecord {
            from_ns: 0,
            len_ns,
            counts: SecondCounts {
                closed: closed.0,
                closed_open_ns: closed.1,
                ..SecondCounts::default()
            },
            live_agents: 2,
            open_sum: open.0,
            open_samples: open.1,
            oldest_open_ns: 0,
            open_end: end.0,
            open_age_ns: end.1,
            issuing: true,
            cut: false,
        }
    }

    fn ratio(seconds: &[SecondRecord]) -> Option<f64> {
        let total = totals(seconds.iter());
        little(&seconds.iter().collect::<Vec<_>>(), &total).known().map(|law| law.ratio)
    }

    /// Requests that are open for 2 s each, 10 begun in the first second: the law holds over the whole
    /// run, at a cut in its middle, and with seconds of unequal length; a lost or doubled one breaks it.
    #[test]
    fn littles_law_is_exact_wherever_the_run_is_cut() {
        let first = second(S, (100, 10), (10, 10 * S), (0, 0));
        assert_eq!(ratio(std::slice::from_ref(&first)), Some(1.0));
        let drain = second(S, (1_000, 100), (0, 0), (10, 20 * S));
        assert_eq!(ratio(&[first.clone(), drain.clone()]), Some(1.0));
        let late = second(S / 4, (0, 9), (0, 0), (0, 0));
        assert_eq!(ratio(&[first.clone(), drain, late]), Some(1.0));
        let lost = second(S, (1_000, 100), (0, 0), (9, 18 * S));
        assert_eq!(ratio(&[first.clone(), lost]), Some(0.9));
        let doubled = second(S, (1_000, 100), (0, 0), (11, 22 * S));
        assert_eq!(ratio(&[first.clone(), doubled]), Some(1.1));
        // Cut behind the first second, ten more in the next epoch: what was open at the cut was not lost.
        let cut = SecondRecord { cut: true, ..first.clone() };
        assert_eq!(ratio(&[cut.clone(), first.clone()]), Some(1.0));
        assert_eq!(ratio(&[first.clone(), first]), Some(0.5), "and without the cut they would be");
        assert_eq!(totals([&cut].into_iter()).outcomes.open_at_stop, 10);
        assert_eq!(ratio(&[]), None);
    }

    #[test]
    fn a_run_without_length_has_no_rates() {
        assert!(over(Measured::Known(5), 1.0, 0.0).known().is_none());
        assert_eq!(over(Measured::Known(5), 1.0, 2.0).known(), Some(&2.5));
        assert!(spread(Some(&[0, 0]), false).known().is_none());
        assert_eq!(counted_share(Some(&[3, 4]), 7), None);
        assert_eq!(counted_share(Some(&[3, 4]), 14), Some(0.5));
        assert_eq!(counted_share(None, 14), None);
    }
}
