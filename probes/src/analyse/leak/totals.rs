//! The whole heap over time, from exact totals, and the gate judged on it.

use super::cohort::{Cohort, HOUR_NS, SiteData};
use super::finding::per_million;
use super::{Gate, Interval, LeakConfig, LeakReport, Retention, SiteReport, Totals, Verdict};
use crate::Unavailable;
use crate::record::heap::{Census, HeapSnapshot};
use crate::stats::{Judgement, Trend, trend};

/// A slope, and whether it means anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slope {
    interval: Interval,
    wanders: bool,
}

impl From<Trend> for Slope {
    fn from(found: Trend) -> Self {
        let interval = Interval { estimate: found.slope, low: found.low, high: found.high };
        Self { interval, wanders: found.wanders }
    }
}

/// Growth of live bytes after the warm-up.
pub(super) fn live(snapshot: &HeapSnapshot, config: &LeakConfig) -> Option<Slope> {
    slope(snapshot, config, |c| Some(c.live_bytes as f64))
}

fn slope(
    snapshot: &HeapSnapshot,
    config: &LeakConfig,
    value: impl Fn(&Census) -> Option<f64>,
) -> Option<Slope> {
    let points: Vec<(f64, f64)> = snapshot
        .census
        .iter()
        .filter(|c| c.at_ns >= config.warm_up_ns)
        .filter_map(|c| Some((c.at_ns as f64 / HOUR_NS, value(c)?)))
        .collect();
    trend(&points).map(Slope::from)
}

/// What the totals say, beside what the sites say. `sites` come with their data.
pub(super) fn totals(
    snapshot: &HeapSnapshot,
    sites: &[(SiteReport, &SiteData<'_>)],
    live: Option<Slope>,
    config: &LeakConfig,
) -> Totals {
    let mut explained = Interval::default();
    let (mut below, mut above) = (0.0, 0.0);
    for (report, data) in sites {
        let suspicious = matches!(report.finding.verdict, Verdict::Leak | Verdict::Suspect);
        if let (true, Some(rate)) = (suspicious, report.finding.rate) {
            let share = grown_share(snapshot, data, rate, config);
            explained.estimate += rate.estimate * share;
            below += ((rate.estimate - rate.low) * share).powi(2);
            above += ((rate.high - rate.estimate) * share).powi(2);
        }
    }
    explained.low = explained.estimate - below.sqrt();
    explained.high = explained.estimate + above.sqrt();
    let slope = live.map(|s| s.interval);
    let grows = slope.filter(|s| s.low > 0.0);
    Totals {
        live: slope.ok_or_else(|| few_readings(snapshot)),
        live_per_million: slope.and_then(|s| per_million(s, snapshot)),
        explained,
        unexplained: slope.map(|s| difference(s, explained)),
        explained_share: grows.map(|s| explained.estimate / s.estimate),
        retained: retention(snapshot, config, "allocator census", |c| {
            Some(c.held_bytes? as f64 - c.live_bytes as f64)
        }),
        foreign: retention(snapshot, config, "resident set", |c| {
            Some(c.rss_bytes? as f64 - c.held_bytes? as f64)
        }),
    }
}

/// A rate since its onset, as a share of it that counts over the whole time after the warm-up: the slope
/// of the staircase of the survivors' births over that time, by least squares.
fn grown_share(
    snapshot: &HeapSnapshot,
    data: &SiteData<'_>,
    rate: Interval,
    config: &LeakConfig,
) -> f64 {
    let cohort = Cohort::new(snapshot, data, config, |_| true);
    let mut births: Vec<(u64, f64)> = cohort.alive.iter().map(|s| (s.born_ns, s.weight)).collect();
    births.sort_by_key(|b| b.0);
    let (mut at, mut sum) = (0, 0.0);
    let (mut points, from) = (Vec::new(), config.warm_up_ns);
    for census in snapshot.census.iter().filter(|c| c.at_ns >= from) {
        while at < births.len() && births[at].0 <= census.at_ns {
            sum += births[at].1;
            at += 1;
        }
        points.push((census.at_ns as f64 / HOUR_NS, sum));
    }
    let n = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let sxx: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    if points.len() < 2 || sxx <= 0.0 || rate.estimate <= 0.0 {
        return 1.0;
    }
    let slope: f64 = points.iter().map(|p| (p.0 - mean_x) * p.1).sum::<f64>() / sxx;
    (slope / rate.estimate).clamp(0.0, 1.0)
}

fn difference(a: Interval, b: Interval) -> Interval {
    let estimate = a.estimate - b.estimate;
    let below = (a.estimate - a.low).hypot(b.high - b.estimate);
    let above = (a.high - a.estimate).hypot(b.estimate - b.low);
    Interval { estimate, low: estimate - below, high: estimate + above }
}

fn few_readings(snapshot: &HeapSnapshot) -> Unavailable {
    Unavailable {
        source: "heap census",
        cause: format!(
            "{} readings of the totals after the warm-up, a slope needs 8",
            snapshot.census.len()
        ),
        remedy: "run longer, or declare a shorter warm-up".to_owned(),
    }
}

fn retention(
    snapshot: &HeapSnapshot,
    config: &LeakConfig,
    source: &'static str,
    value: impl Fn(&Census) -> Option<f64>,
) -> Result<Retention, Unavailable> {
    let Some(bytes) = snapshot.census.last().and_then(&value) else {
        return Err(Unavailable {
            source,
            cause: "the readings do not hold it".to_owned(),
            remedy: "record with an allocator that tells what it holds".to_owned(),
        });
    };
    let found = slope(snapshot, config, value);
    let rate = found.map(|s| s.interval);
    let grows = found.is_some_and(|s| !s.wanders && s.interval.low > config.floor);
    Ok(Retention { bytes, rate, grows })
}

/// FAIL on any LEAK; else the limit against the interval of the growth of live bytes.
pub(super) fn gate(
    snapshot: &HeapSnapshot,
    sites: &[SiteReport],
    live: Option<Slope>,
    config: &LeakConfig,
) -> Gate {
    let leaks = sites.iter().filter(|s| s.finding.verdict == Verdict::Leak).count();
    let rate = live.map(|s| s.interval);
    let gate = |judgement, cause: String| Gate { judgement, cause, rate, limit: config.limit };
    let undecided = |reason: &str, needed_s| {
        gate(Judgement::Undecided { reason: reason.to_owned(), needed_s }, reason.to_owned())
    };
    if leaks > 0 {
        return gate(Judgement::Fail, format!("{leaks} of {} sites leak", sites.len()));
    }
    let Some(slope) = live else {
        return undecided("too few readings of the totals after the warm-up", None);
    };
    if snapshot.at_ns < config.earliest_ns() {
        let missing = config.earliest_ns() - snapshot.at_ns;
        return undecided("the run is younger than three warm-ups", Some(missing as f64 / 1e9));
    }
    if slope.wanders {
        return undecided("live bytes wander like a random walk: no slope of them holds", None);
    }
    let Interval { estimate, low, high } = slope.interval;
    if low > config.limit {
        return gate(
            Judgement::Fail,
            "live bytes grow faster than the limit, at no site that is proven alone".to_owned(),
        );
    }
    if high < config.limit {
        return gate(Judgement::Pass, "live bytes grow slower than the limit".to_owned());
    }
    // The error of a slope falls as the 3/2 power of the time.
    let (half, margin) = ((high - low) / 2.0, (config.limit - estimate).abs());
    let hours = snapshot.at_ns as f64 / HOUR_NS;
    let needed_s = (margin > 0.0)
        .then(|| (hours * ((half / margin).powf(2.0 / 3.0) - 1.0)).max(0.1) * 3_600.0)
        .filter(|s| *s < 3.6e7);
    undecided("the interval of the growth straddles the limit", needed_s)
}

/// The word for the run.
pub(super) fn overall(report: &LeakReport) -> Verdict {
    if report.count(Verdict::Leak) > 0 {
        Verdict::Leak
    } else if report.count(Verdict::Suspect) > 0 {
        Verdict::Suspect
    } else if report.count(Verdict::Inconclusive) > 0
        || matches!(report.gate.judgement, Judgement::Undecided { .. })
    {
        Verdict::Inconclusive
    } else if report.gate.judgement == Judgement::Fail {
        // Growth that no site explains.
        Verdict::Suspect
    } else {
        Verdict::Clean
    }
}
