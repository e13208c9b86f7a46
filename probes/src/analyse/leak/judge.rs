//! From figures to a verdict, clause by clause.

use super::births::DECLINE;
use super::cohort::HOUR_NS;
use super::study::Study;
use super::{Interval, LeakConfig, Reason, Verdict};

/// What else is known of the site that holds the cohort.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Context {
    /// Evidence against the null, adjusted for all that is judged together.
    pub(super) q: f64,
    /// Each owner keeps at most one.
    pub(super) per_owner: Option<(u32, u64)>,
    /// As many die as are born, or more live because more are born.
    pub(super) turnover: bool,
    pub(super) load: bool,
}

/// LEAK = old objects do not die (adjusted for all sites), births of survivors do not decline and have
/// gone on for longer than a backlog may, and the rate is above the floor however often it was read.
pub(super) fn decide(
    study: &Study,
    context: Context,
    config: &LeakConfig,
) -> (Verdict, Option<Reason>) {
    if study.now_ns < config.earliest_ns() {
        return (Verdict::Inconclusive, Some(Reason::TooEarly));
    }
    let Some(rate) = study.rate else {
        return (Verdict::Inconclusive, Some(Reason::TooEarly));
    };
    if context.q > config.fdr {
        return not_proven(study, context, rate, config);
    }
    if study.stop.is_some() || study.laplace < DECLINE || study.warming {
        return declining(study, config);
    }
    if let Some((owners, of)) = context.per_owner {
        return (Verdict::Suspect, Some(Reason::PerOwner { owners, of }));
    }
    if study.span_ns < config.horizon_ns as f64 {
        return (Verdict::Inconclusive, Some(Reason::Backlog));
    }
    if study.hazard.resumes {
        return (Verdict::Suspect, Some(Reason::TailDies));
    }
    if study.low_any_time > config.floor {
        (Verdict::Leak, None)
    } else if rate.high < config.floor {
        (Verdict::Clean, Some(Reason::BelowFloor))
    } else {
        (Verdict::Suspect, Some(Reason::Straddles))
    }
}

fn not_proven(
    study: &Study,
    context: Context,
    rate: Interval,
    config: &LeakConfig,
) -> (Verdict, Option<Reason>) {
    let best = study.hazard.best;
    let reason = if context.load {
        Reason::Load
    } else if context.turnover {
        Reason::Turnover
    } else if best.alive == 0 {
        Reason::NoSurvivors
    } else if best.dead as f64 >= best.expected {
        Reason::TailDies
    } else {
        Reason::Straddles
    };
    if rate.high < config.floor {
        (Verdict::Clean, Some(reason))
    } else {
        (Verdict::Inconclusive, Some(reason))
    }
}

/// Births that were flat and broke off are a leak that stopped; births that dwindle fill a structure.
fn declining(study: &Study, config: &LeakConfig) -> (Verdict, Option<Reason>) {
    let over = study.recent.is_some_and(|recent| recent.high < config.floor)
        || study.stop.is_some() && study.rate.is_some_and(|rate| rate.high < config.floor);
    if let (Some(stop), Some((laplace, span_ns))) = (study.stop, study.before_stop)
        && laplace >= DECLINE
        && span_ns >= config.horizon_ns as f64
    {
        let verdict = if over { Verdict::Suspect } else { Verdict::Inconclusive };
        return (verdict, Some(Reason::Stopped { at_ns: at_ns(stop.at) }));
    }
    let verdict = if over { Verdict::Clean } else { Verdict::Inconclusive };
    (verdict, Some(Reason::WarmUp))
}

/// Hours until the verdict should fall: the interval shrinks as the root of the time, the case grows with it.
pub(super) fn hours_needed(
    study: &Study,
    verdict: (Verdict, Option<Reason>),
    q: f64,
    config: &LeakConfig,
) -> Option<f64> {
    let early = config.earliest_ns().saturating_sub(study.now_ns) as f64 / HOUR_NS;
    match verdict {
        (Verdict::Leak | Verdict::Clean, _) => None,
        (_, Some(Reason::TooEarly)) => Some(early),
        (_, Some(Reason::Backlog)) => {
            Some(((config.horizon_ns as f64 - study.span_ns) / HOUR_NS).max(0.0))
        }
        (_, Some(Reason::PerOwner { .. } | Reason::Stopped { .. } | Reason::WarmUp)) => None,
        _ => {
            let rate = study.rate?;
            let margin = (rate.estimate - config.floor).abs();
            let half = if rate.estimate > config.floor {
                rate.estimate - study.low_any_time.min(rate.low)
            } else {
                rate.high - rate.estimate
            };
            let by_rate = (half / margin.max(1.0)).powi(2);
            let needed = (q / config.fdr).max(1.0).ln() + study.hazard.log_e.max(0.0);
            let by_case = if rate.estimate > config.floor && q > config.fdr {
                needed / study.hazard.log_e.max(1e-9)
            } else {
                1.0
            };
            let hours = study.span_ns / HOUR_NS * (by_rate.max(by_case).max(1.05) - 1.0);
            (hours < 1e4).then_some(hours)
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "instants of a run")]
pub(super) const fn at_ns(instant: f64) -> u64 {
    instant as u64
}

/// Benjamini and Hochberg's adjustment over `judged` hypotheses, of which those not given have an e-value of
/// at most 1. On e-values it keeps the false discovery rate under any dependence and at any stopping time
/// (Wang and Ramdas, "False discovery rate control with e-values", 2022).
pub(super) fn adjusted(log_e: &[f64], judged: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..log_e.len()).collect();
    order.sort_by(|&a, &b| log_e[b].total_cmp(&log_e[a]));
    let mut q = vec![1.0; log_e.len()];
    let mut least: f64 = 1.0;
    for (rank, &index) in order.iter().enumerate().rev() {
        let own = (judged.max(log_e.len()) as f64).ln() - log_e[index] - (rank as f64 + 1.0).ln();
        least = least.min(own.exp());
        q[index] = least;
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::leak::births::Change;
    use crate::analyse::leak::hazard::Hazard;

    const H: f64 = HOUR_NS;

    /// A leak of 2 MB/h that was flat for three hours.
    fn leak() -> Study {
        Study {
            now_ns: at_ns(4.0 * H),
            hazard: Hazard { log_e: 40.0, ..Hazard::default() },
            onset: None,
            stop: None,
            laplace: 0.1,
            warming: false,
            before_stop: None,
            span_ns: 3.0 * H,
            rate: Some(Interval { estimate: 2e6, low: 1.6e6, high: 2.4e6 }),
            low_any_time: 1.4e6,
            recent: Some(Interval { estimate: 2e6, low: 1.5e6, high: 2.5e6 }),
            first_ns: 0.5 * H,
            last_ns: 3.5 * H,
        }
    }

    #[test]
    fn every_clause_alone_can_withhold_a_leak() {
        use Reason as R;
        use Verdict::{Clean, Inconclusive, Leak, Suspect};
        let config = LeakConfig::default();
        let check = |study: Study, context: Context| decide(&study, context, &config);
        let sure = Context::default();
        assert_eq!(check(leak(), sure), (Leak, None));
        let stop = Change { at: 2.0 * H, low: 2.0 * H, high: 2.0 * H, before: 40, sure: true };
        let over = Some(Interval { estimate: 0.0, low: 0.0, high: 0.5e6 });
        let stopped = |before_stop| Study {
            stop: Some(stop),
            before_stop: Some(before_stop),
            rate: over,
            ..leak()
        };
        let at_ns = at_ns(2.0 * H);
        let cases = [
            (Study { now_ns: at_ns / 2, ..leak() }, sure, Inconclusive, R::TooEarly),
            (Study { rate: None, ..leak() }, sure, Inconclusive, R::TooEarly),
            (leak(), Context { q: 0.011, ..sure }, Inconclusive, R::NoSurvivors),
            (Study { laplace: -2.1, ..leak() }, sure, Inconclusive, R::WarmUp),
            (Study { laplace: -2.1, recent: over, ..leak() }, sure, Clean, R::WarmUp),
            (Study { warming: true, ..leak() }, sure, Inconclusive, R::WarmUp),
            (stopped((0.3, 1.5 * H)), sure, Suspect, R::Stopped { at_ns }),
            (stopped((-4.0, 1.5 * H)), sure, Clean, R::WarmUp),
            (
                leak(),
                Context { per_owner: Some((9, 10)), ..sure },
                Suspect,
                R::PerOwner { owners: 9, of: 10 },
            ),
            (Study { span_ns: 0.4 * H, ..leak() }, sure, Inconclusive, R::Backlog),
            (
                Study { hazard: Hazard { resumes: true, ..leak().hazard }, ..leak() },
                sure,
                Suspect,
                R::TailDies,
            ),
            (Study { low_any_time: 0.9e6, ..leak() }, sure, Suspect, R::Straddles),
            (Study { low_any_time: 0.0, rate: over, ..leak() }, sure, Clean, R::BelowFloor),
        ];
        for (study, context, verdict, reason) in cases {
            assert_eq!(check(study, context), (verdict, Some(reason)));
        }
    }

    #[test]
    fn adjusting_is_benjamini_hochberg() {
        // p of 0.001, 0.008, 0.039, 0.041 and one of 1, among 10.
        let log_e: Vec<f64> =
            [0.001f64, 0.041, 0.008, 1.0, 0.039].iter().map(|p| -p.ln()).collect();
        let q = adjusted(&log_e, 10);
        let expected = [0.01, 0.1025, 0.04, 1.0, 0.1025];
        assert!(q.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{q:?}");
    }
}
