//! Which sites leak, whose objects, how fast, and how sure that is. Pure: a snapshot in, a report out.
//!
//! A site is called LEAK when four clauses hold together:
//! 1. old objects do not die (`hazard`): a survivor-hazard test that may be read at any time, adjusted for
//!    all sites together (`judge::adjusted`);
//! 2. births of the survivors do not decline (`births`): a structure that fills up, or a leak that stopped,
//!    is not one that goes on;
//! 3. they have gone on for longer than a backlog may last, and the run is three warm-ups old;
//! 4. the lower bound of the rate lies above the floor (`rate`), however often it was read.
//!
//! Buffers that grow for ever (`chains`) and objects whose owner ended (`orphans`) are judged apart: one has
//! no survivors to count, the other needs no waiting.
//!
//! What it cannot tell: a cache that fills for longer than twice the declared warm-up, or a backlog longer
//! than the horizon, is a leak as far as anyone can see until then.
//!
//! ```
//! use tailbeam_probes::analyse::leak::{LeakConfig, Verdict, analyse};
//! let report = analyse(&Default::default(), &LeakConfig::default());
//! assert_eq!(report.verdict, Verdict::Inconclusive);
//! ```

mod births;
mod chains;
mod cohort;
mod config;
mod finding;
mod hazard;
mod judge;
mod model;
mod orphans;
mod owners;
mod plan;
mod rate;
mod site;
mod study;
mod survivors;
mod totals;

pub use config::LeakConfig;
pub use model::{
    AgeCount, Blind, CoreCount, Evidence, Finding, Gate, Growth, Interval, LeakReport, OWNERS_MAX,
    Onset, Orphans, OwnerReport, Reason, Retention, SIZES_MAX, SiteReport, SizeCount, Spread,
    Survivors, Totals, Verdict,
};

pub use plan::{HOURS_MAX, Plan, Soak, plan, power_at};

use crate::record::heap::{HeapSnapshot, SITE_OTHER, Sample};
use owners::Owners;
use site::Studied;

/// Judges a snapshot. Allocates; sorts the samples of each site, else linear in what the snapshot holds.
#[must_use]
pub fn analyse(snapshot: &HeapSnapshot, config: &LeakConfig) -> LeakReport {
    let owners = Owners::new(snapshot, config);
    let studied: Vec<Studied<'_>> = cohort::by_site(snapshot)
        .into_iter()
        .map(|entry| site::studied(snapshot, entry, config))
        .collect();
    let log_e: Vec<f64> = studied.iter().map(|s| s.study.hazard.log_e).collect();
    let q = judge::adjusted(&log_e, studied.len());
    let rejected = q.iter().filter(|&&q| q <= config.fdr).count();
    let q_scale =
        if rejected == 0 { f64::INFINITY } else { studied.len() as f64 / rejected as f64 };
    let mut sites: Vec<(SiteReport, &cohort::SiteData<'_>)> = studied
        .iter()
        .zip(&q)
        .map(|(s, &q)| (site::report(snapshot, s, (q, q_scale), &owners, config), &s.data))
        .collect();
    let live = totals::live(snapshot, config);
    let totals = totals::totals(snapshot, &sites, live, config);
    sites.sort_by(|a, b| order(&a.0, &b.0));
    let sites: Vec<SiteReport> = sites.into_iter().map(|s| s.0).collect();
    let gate = totals::gate(snapshot, &sites, live, config);
    let blind = blind(snapshot, config);
    let verdict = Verdict::Inconclusive;
    let mut report = LeakReport { at_ns: snapshot.at_ns, verdict, sites, totals, gate, blind };
    report.verdict = totals::overall(&report);
    report
}

/// LEAK first, then by rate, then by what lives.
fn order(a: &SiteReport, b: &SiteReport) -> std::cmp::Ordering {
    let rank = |s: &SiteReport| match s.finding.verdict {
        Verdict::Leak => 0,
        Verdict::Suspect => 1,
        Verdict::Inconclusive => 2,
        Verdict::Clean => 3,
    };
    let rate = |s: &SiteReport| s.finding.rate.map_or(0.0, |rate| rate.estimate);
    rank(a)
        .cmp(&rank(b))
        .then(rate(b).total_cmp(&rate(a)))
        .then(b.survivors.bytes.estimate.total_cmp(&a.survivors.bytes.estimate))
        .then(a.site.cmp(&b.site))
}

/// Rates that are tried for [`Blind::rate_80`]: eight to a decade, from a tenth of the floor to a million
/// times that.
const RATES: u32 = 57;

fn blind(snapshot: &HeapSnapshot, config: &LeakConfig) -> Blind {
    let sum = |wanted: &dyn Fn(&Sample) -> bool| -> f64 {
        snapshot.samples.iter().filter(|s| wanted(s)).map(|s| s.weight).sum()
    };
    let hours = snapshot.at_ns as f64 / cohort::HOUR_NS;
    let mean_bytes = snapshot.sampler.mean_bytes.max(1) as f64;
    let power = |rate: f64| {
        let quiet = Soak { churn_bytes: 0.0, ..Soak::of(rate, mean_bytes) };
        power_at(hours, &quiet, config)
    };
    let rates: Vec<f64> =
        (0..RATES).map(|i| config.floor * 10f64.powf(f64::from(i) / 8.0 - 1.0)).collect();
    let first = rates.partition_point(|&rate| power(rate) < 0.8);
    Blind {
        mean_bytes: snapshot.sampler.mean_bytes,
        rate_80: rates.get(first).copied(),
        power_at_limit: power(config.limit),
        warm_up_bytes: sum(&|s| s.born_ns < config.warm_up_ns),
        other_bytes: sum(&|s| s.site == SITE_OTHER),
    }
}
