//! A study and its verdict as a report value.

use super::judge::{self, Context, at_ns};
use super::study::Study;
use super::{Evidence, Finding, Growth, Interval, LeakConfig, Onset, Verdict};
use crate::record::heap::HeapSnapshot;

pub(super) fn finding(
    study: &Study,
    context: Context,
    snapshot: &HeapSnapshot,
    config: &LeakConfig,
) -> Finding {
    let (verdict, reason) = judge::decide(study, context, config);
    let best = study.hazard.best;
    let suspicious = matches!(verdict, Verdict::Leak | Verdict::Suspect);
    Finding {
        verdict,
        reason,
        rate: study.rate,
        per_million: study.rate.and_then(|rate| per_million(rate, snapshot)),
        rate_low_any_time: study.low_any_time,
        evidence: Evidence {
            log_e: study.hazard.log_e,
            p: (-study.hazard.log_e).exp().min(1.0),
            q: context.q,
            old_ns: at_ns(best.old_ns),
            old_alive: best.alive,
            old_dead: best.dead,
            expected_dead: best.expected,
        },
        growth: suspicious.then_some(Growth::Inserts),
        since: suspicious.then(|| since(study)),
        hours_needed: judge::hours_needed(study, (verdict, reason), context.q, config),
    }
}

/// Bytes per million operations: by the operations per hour of the whole run.
pub(super) fn per_million(rate: Interval, snapshot: &HeapSnapshot) -> Option<Interval> {
    let operations = snapshot.sampler.operations.filter(|&n| n > 0)? as f64;
    let hours = snapshot.at_ns as f64 / super::cohort::HOUR_NS;
    let millions_per_hour = operations / hours / 1e6;
    (hours > 0.0).then(|| rate.times(1.0 / millions_per_hour))
}

fn since(study: &Study) -> Onset {
    match study.onset {
        Some(onset) => Onset {
            at_ns: at_ns(onset.at),
            low_ns: at_ns(onset.low),
            high_ns: at_ns(onset.high),
            from_start: false,
        },
        None => Onset {
            at_ns: at_ns(study.first_ns),
            low_ns: 0,
            high_ns: at_ns(study.first_ns),
            from_start: true,
        },
    }
}
