//! Which setting of a side is the one to compare: a baseline is compared at its best, or nothing is shown.

use serde::{Deserialize, Serialize};

use super::figures::{Exclusion, RunFigures};
use super::law::{LawCheck, check};
use super::outcome::Sources;
use crate::report::Measured;

/// A setting counts only if it delivers this share, the service level of the original assessment.
pub const DELIVERY_MIN: f64 = 0.999;
/// And answers this share of what is offered.
pub const SERVED_MIN: f64 = 0.99;
/// P99s within this factor of the best are the same; then the cheaper one is taken.
pub const SAME: f64 = 1.05;

/// A run of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepRun {
    /// The setting as a person reads it.
    pub setting: String,
    /// Its flags.
    pub args: Vec<String>,
    /// The interval of a sleep-poll, ns; none where a message wakes its receiver.
    pub interval_ns: Option<u64>,
    /// Its id, or why there is none.
    pub run: Measured<String>,
    /// How often a request waits for a look: once, or for its answer too.
    pub looks: u32,
    /// The rule by which it does not count; another run of its setting follows, if that many were allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<Exclusion>,
}

/// A sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// By which criterion, in words.
    pub criterion: String,
    /// The settings in their order.
    pub points: Vec<SweepPoint>,
    /// The setting that was compared; none if none met the criterion.
    pub chosen: Option<String>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// The setting.
    pub setting: String,
    /// The interval of a sleep-poll, ns.
    pub interval_ns: Option<u64>,
    /// Figures of its run.
    pub figures: Measured<RunFigures>,
    /// Whether it waits as its interval says.
    pub law: Measured<LawCheck>,
    /// The rule by which its run does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<Exclusion>,
}

impl Sweep {
    /// Why nothing may be claimed of what was compared: its setting waits otherwise than its interval says, so that it is no
    /// sleep-poll or the figures are not those of one; or of no interval is it known that it waits so. One whose law could
    /// not be checked is believed where that of another interval holds: they are the same program.
    #[must_use]
    pub fn law_doubt(&self) -> Option<String> {
        let counts = |point: &&SweepPoint| point.excluded.is_none() && point.interval_ns.is_some();
        let compared = |point: &&SweepPoint| self.chosen.as_ref() == Some(&point.setting);
        let holds = |point: &SweepPoint| point.law.known().map(|law| law.holds);
        let counted = || self.points.iter().filter(counts);
        if counted().filter(compared).any(|point| holds(point) == Some(false)) {
            return Some(
                "the setting that was compared does not wait as its interval says: nothing is claimed of it".to_owned(),
            );
        }
        let any = counted().any(|point| holds(point) == Some(true));
        (counted().count() > 0 && !any).then(|| {
            let why = counted().find_map(|point| match &point.law {
                Measured::Unknown { unknown, .. } => Some(unknown.as_str()),
                Measured::Known(_) => None,
            });
            let why = why.unwrap_or("each that was checked waits otherwise");
            format!("of no interval is it known that polling waits as it says ({why}): nothing is claimed of it")
        })
    }
}

/// The criterion in words.
#[must_use]
pub fn criterion() -> String {
    format!(
        "the lowest P99 among the settings that deliver {} % and serve {} % of what is offered; within {:.0} % of it the lowest CPU per op",
        DELIVERY_MIN * 100.0,
        SERVED_MIN * 100.0,
        (SAME - 1.0) * 100.0
    )
}

/// The sweep as it is shown.
pub(super) fn sweep(
    runs: &[SweepRun],
    chosen: Option<&str>,
    sources: &Sources<'_>,
) -> Option<Sweep> {
    let slack = slack_ns(runs, sources);
    let point = |run: &SweepRun| SweepPoint {
        setting: run.setting.clone(),
        interval_ns: run.interval_ns,
        figures: read(&run.run, sources.figures),
        law: law(run, &slack, sources),
        excluded: run.excluded.clone(),
    };
    (!runs.is_empty()).then(|| Sweep {
        criterion: criterion(),
        points: runs.iter().map(point).collect(),
        chosen: chosen.map(str::to_owned),
    })
}

fn read<T>(run: &Measured<String>, source: &dyn Fn(&str) -> Measured<T>) -> Measured<T> {
    match run {
        Measured::Known(id) => source(id),
        Measured::Unknown { unknown, remedy } => Measured::unknown(unknown, remedy),
    }
}

/// What the system takes besides the sleep: the 99th percentile of the wait where an append wakes the receiver.
fn slack_ns(runs: &[SweepRun], sources: &Sources<'_>) -> Measured<u64> {
    let none = || Measured::unknown("no setting without a sleep ran", "sweep the long-poll too");
    let mut counted = runs.iter().filter(|run| run.excluded.is_none());
    counted.find(|run| run.interval_ns.is_none()).map_or_else(none, |run| {
        match read(&run.run, sources.waits) {
            Measured::Known(waits) => waits.quantile(0.99).map_or_else(none, Measured::Known),
            Measured::Unknown { unknown, remedy } => Measured::Unknown { unknown, remedy },
        }
    })
}

fn law(run: &SweepRun, slack: &Measured<u64>, sources: &Sources<'_>) -> Measured<LawCheck> {
    let Some(interval_ns) = run.interval_ns else {
        return Measured::unknown("an append wakes it: it has no interval", "none is needed");
    };
    match (read(&run.run, sources.waits), slack) {
        (Measured::Known(waits), Measured::Known(slack)) => {
            check(&waits, interval_ns, run.looks, *slack).map_or_else(
                || Measured::unknown(
                        "fewer than 1,000 waits, or the system's own time is above a fifth of the interval",
                        "record for longer, and alone on the machine",
                    ),
                Measured::Known,
            )
        }
        (Measured::Unknown { unknown, remedy }, _) => Measured::Unknown { unknown, remedy },
        (_, Measured::Unknown { unknown, remedy }) => Measured::unknown(unknown, remedy),
    }
}

/// The place of the best setting by the criterion; `None` when none meets it.
#[must_use]
pub fn choose(points: &[Measured<RunFigures>]) -> Option<usize> {
    let fit: Vec<(usize, f64, f64)> = points
        .iter()
        .enumerate()
        .filter_map(|(place, figures)| {
            let figures = figures.known()?;
            let (served, offered) =
                (figures.throughput_per_s.known()?, figures.offered_per_s.known()?);
            let fits =
                *figures.delivery.known()? >= DELIVERY_MIN && served >= &(SERVED_MIN * offered);
            let cpu = figures.cpu_per_op_ns.known().copied().unwrap_or(f64::INFINITY);
            fits.then_some((place, *figures.p99_ns.known()?, cpu))
        })
        .collect();
    let best = fit.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let same = fit.iter().filter(|point| point.1 <= best * SAME);
    same.min_by(|a, b| a.2.total_cmp(&b.2)).map(|point| point.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::outcome::tests::run;

    #[test]
    fn the_quickest_that_delivers_is_chosen_and_the_cheaper_of_equals() {
        let point = |p99: f64, cpu: f64, delivery: f64| {
            let mut figures = run("x", p99);
            figures.cpu_per_op_ns = Measured::Known(cpu);
            figures.delivery = Measured::Known(delivery);
            Measured::Known(figures)
        };
        assert_eq!(
            choose(&[point(5e6, 9.0, 1.0), point(3e6, 9.0, 1.0), point(4e6, 1.0, 1.0)]),
            Some(1)
        );
        assert_eq!(choose(&[point(3e6, 9.0, 1.0), point(3.1e6, 2.0, 1.0)]), Some(1));
        assert_eq!(choose(&[point(3e6, 9.0, 0.99), point(9e9, 2.0, 1.0)]), Some(1));
        let mut slow = run("x", 1e6);
        slow.throughput_per_s = Measured::Known(10.0);
        let gone = Measured::unknown("it failed", "see why");
        assert_eq!(choose(&[Measured::Known(slow), gone]), None);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn only_the_setting_that_was_compared_must_be_what_it_is_called() {
        let law = |holds| LawCheck {
            n: 5_000,
            interval_ns: 1_000_000_000,
            looks: 1,
            slack_ns: 0,
            distance: 0.3,
            bound: 0.1,
            mean_ns: 2e8,
            law_mean_ns: 5e8,
            p99_ns: 1,
            law_p99_ns: 1.0,
            holds,
        };
        let point = |setting: &str, holds| SweepPoint {
            setting: setting.to_owned(),
            interval_ns: Some(1_000_000_000),
            figures: Measured::Known(run("x", 5e6)),
            law: Measured::Known(law(holds)),
            excluded: None,
        };
        let broken = |chosen: &str| Sweep {
            criterion: criterion(),
            points: vec![point("every 1s", false), point("every 2s", true)],
            chosen: Some(chosen.to_owned()),
        };
        let doubt = |sweep: &Sweep| sweep.law_doubt().unwrap_or_default();
        assert!(doubt(&broken("every 1s")).contains("does not wait as its interval says"));
        assert_eq!(broken("every 2s").law_doubt(), None);
        assert_eq!(broken("woken by an append").law_doubt(), None);
        let mut left_out = broken("every 1s");
        left_out.points[0].excluded =
            Some(Exclusion { rule: "steal".to_owned(), seen: "9 %".to_owned() });
        assert_eq!(left_out.law_doubt(), None);
        // Of which nobody knows whether they are sleep-polls.
        let mut unknown = broken("every 2s");
        unknown.points[1].law = Measured::unknown("fewer than 1,000 waits", "record for longer");
        assert_eq!(
            doubt(&unknown),
            "of no interval is it known that polling waits as it says (fewer than 1,000 waits): nothing is claimed of it"
        );
        unknown.points[0].law = Measured::Known(law(true));
        assert_eq!(unknown.law_doubt(), None, "another interval's is known");
        let woken = Sweep { points: Vec::new(), ..unknown };
        assert_eq!(woken.law_doubt(), None, "nothing polls");
    }
}
