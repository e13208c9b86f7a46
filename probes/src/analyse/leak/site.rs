//! One site: its study, what else is known of it, and the report.

use super::chains::{self, Chains};
use super::cohort::{Cohort, SiteData};
use super::finding::{self, per_million};
use super::judge::Context;
use super::orphans::{self, Left};
use super::owners::{self, Owners, Whose};
use super::study::{Study, study};
use super::survivors::survivors;
use super::{Finding, Growth, Interval, LeakConfig, Onset, Reason, SiteReport, Spread, Verdict};
use crate::record::heap::HeapSnapshot;

/// Sampled orphans from which a site is suspect for them alone.
const ORPHANS_MIN: u64 = 3;
/// ln of the e-value that orphans need beside their rate: the null has 1 %.
const ORPHANS_LOG_E: f64 = 4.6;
/// Births of the later half over those of the earlier from which load is said to grow.
const LOAD_GROWS: f64 = 1.3;
/// Share of the births that died from which a site is said to turn over.
const TURNS_OVER: f64 = 0.5;

/// A site before all sites were adjusted together.
#[derive(Debug)]
pub(super) struct Studied<'a> {
    pub(super) site: u32,
    pub(super) data: SiteData<'a>,
    pub(super) study: Study,
}

/// Studies a site; buffers that still grow are judged apart.
pub(super) fn studied<'a>(
    snapshot: &HeapSnapshot,
    (site, data): (u32, SiteData<'a>),
    config: &LeakConfig,
) -> Studied<'a> {
    let cohort =
        Cohort::new(snapshot, &data, config, |s| !chains::grows(s, snapshot.at_ns, config));
    let study = study(&cohort, config);
    drop(cohort);
    Studied { site, data, study }
}

/// The report. `q` is adjusted for all sites, `q_scale` what owners' must be multiplied with.
pub(super) fn report(
    snapshot: &HeapSnapshot,
    studied: &Studied<'_>,
    (q, q_scale): (f64, f64),
    owners: &Owners,
    config: &LeakConfig,
) -> SiteReport {
    let Studied { site, data, study } = studied;
    let context = Context {
        q,
        per_owner: owners::per_owner(data, config),
        turnover: turns_over(data),
        load: load_grows(data),
    };
    let mut finding = finding::finding(study, context, snapshot, config);
    let growing = chains::chains(&data.alive, snapshot.at_ns, config);
    let left = orphans::orphans(&data.alive, &owners.ended, snapshot.at_ns, config);
    if let Some(left) = &left {
        with_orphans(&mut finding, study, left, snapshot, config);
    }
    if let Some(growing) = &growing {
        with_chains(&mut finding, growing, snapshot, config);
    }
    let suspicious = matches!(finding.verdict, Verdict::Leak | Verdict::Suspect);
    let whose = if suspicious || !study.hazard.log_e.is_sign_negative() {
        owners::judge(snapshot, data, study, (owners, q_scale), config)
    } else {
        Whose::default()
    };
    let mut report = SiteReport {
        site: *site,
        finding,
        survivors: survivors(snapshot.at_ns, data),
        spread: whose.spread.unwrap_or(Spread::Untagged),
        owners: whose.reports,
        owners_left_out: whose.left_out,
        orphans: left.map(|left| left.facts),
    };
    if let Some(growing) = growing {
        owners_of_chains(&mut report, &growing, config);
    }
    report
}

fn turns_over(data: &SiteData<'_>) -> bool {
    let born: u64 = data.born.iter().map(|b| b.1).sum();
    let dead: u64 = data.dead.iter().map(|d| d.count).sum();
    born > 0 && dead as f64 >= TURNS_OVER * born as f64
}

/// Births rise and lifetimes do not: whoever calls this has no case against the null.
fn load_grows(data: &SiteData<'_>) -> bool {
    let Some(last) = data.born.iter().map(|b| b.0).max() else { return false };
    let half = |late: bool| -> f64 {
        let epochs = data.born.iter().filter(|b| (b.0 >= last.div_ceil(2)) == late);
        epochs.map(|b| b.1 as f64).sum()
    };
    // The last epoch is not full: that errs on the side of no growth.
    last >= 4 && half(true) > LOAD_GROWS * half(false)
}

fn with_orphans(
    finding: &mut Finding,
    study: &Study,
    left: &Left,
    snapshot: &HeapSnapshot,
    config: &LeakConfig,
) {
    if finding.verdict == Verdict::Leak {
        // Proven by itself; that the owners ended names the kind when most survivors are orphans.
        if left.facts.sampled * 2 > study.hazard.best.alive {
            finding.growth = Some(Growth::Orphans);
        }
        return;
    }
    let proven = left.low_any_time > config.floor && study.hazard.log_e >= ORPHANS_LOG_E;
    if !proven && left.facts.sampled < ORPHANS_MIN {
        return;
    }
    if proven {
        (finding.verdict, finding.reason) = (Verdict::Leak, None);
        finding.rate_low_any_time = left.low_any_time;
        set_rate(finding, left.rate, snapshot);
        finding.hours_needed = None;
    } else if finding.verdict != Verdict::Suspect {
        (finding.verdict, finding.reason) = (Verdict::Suspect, Some(Reason::Straddles));
    }
    finding.growth = Some(Growth::Orphans);
    finding.since = Some(first(left.first_ns));
}

fn with_chains(
    finding: &mut Finding,
    growing: &Chains,
    snapshot: &HeapSnapshot,
    config: &LeakConfig,
) {
    let proven = growing.rate.low > config.floor && snapshot.at_ns >= config.earliest_ns();
    let own = finding.rate.map_or(0.0, |rate| rate.estimate);
    if finding.verdict == Verdict::Leak && own > growing.rate.estimate {
        return;
    }
    if proven {
        (finding.verdict, finding.reason) = (Verdict::Leak, None);
        finding.hours_needed = None;
    } else if growing.rate.high > config.floor && finding.verdict != Verdict::Leak {
        (finding.verdict, finding.reason) = (Verdict::Suspect, Some(Reason::Straddles));
    } else {
        return;
    }
    finding.rate_low_any_time = growing.rate.low;
    set_rate(finding, Some(growing.rate), snapshot);
    finding.growth = Some(growing.growth);
    finding.since = Some(first(growing.first_ns));
}

fn set_rate(finding: &mut Finding, rate: Option<Interval>, snapshot: &HeapSnapshot) {
    finding.rate = rate;
    finding.per_million = rate.and_then(|rate| per_million(rate, snapshot));
}

const fn first(at_ns: u64) -> Onset {
    Onset { at_ns, low_ns: 0, high_ns: at_ns, from_start: true }
}

/// An owner of a buffer that leaks alone leaks.
fn owners_of_chains(report: &mut SiteReport, growing: &Chains, config: &LeakConfig) {
    if !matches!(report.finding.growth, Some(Growth::Chains { .. })) {
        return;
    }
    for owner in &mut report.owners {
        let of = |o: &&(u32, f64)| o.0 == owner.owner;
        let rate: f64 = growing.owners.iter().filter(of).map(|o| o.1).sum();
        let share = rate / growing.rate.estimate.max(1.0);
        if growing.rate.low * share > config.floor && report.finding.verdict == Verdict::Leak {
            owner.finding = Finding {
                rate: Some(growing.rate.times(share)),
                rate_low_any_time: growing.rate.low * share,
                ..report.finding.clone()
            };
        }
    }
    if let [(owner, _)] = growing.owners[..]
        && owner != crate::record::heap::OWNER_NONE
    {
        report.spread = Spread::One(owner);
    }
}
