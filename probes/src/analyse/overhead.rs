//! What measuring costs, measured in the run itself: seconds with it beside seconds without it; pure.
//!
//! A pair is two neighbouring seconds, one on and one off, in an order that is drawn. What changes slowly
//! (clock speed, neighbours) is in both, and what depends on the order goes either way as often. The result
//! is a signed difference with an interval of Student's t over the pairs: one that contains 0 says that
//! nothing was found and, by its upper end, how much can have been missed.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Fewest pairs of which an interval is made: with less its t quantile alone is above 4.
pub const PAIRS_MIN: usize = 4;

/// One second, on or off.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Second {
    /// Its length, ns.
    pub len_ns: u64,
    /// CPU time of the cores' threads in it, looking on for work not counted, ns.
    pub cpu_ns: u64,
    /// Requests that ended in it.
    pub requests: u64,
    /// Their mean system latency, ns.
    pub mean_ns: f64,
    /// The 99th percentile of it, ns.
    pub p99_ns: f64,
}

/// Two neighbouring seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pair {
    /// The one in which measuring was on.
    pub on: Second,
    /// The one in which it was off.
    pub off: Second,
}

/// A signed difference, on minus off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Mean over the pairs.
    pub mean: f64,
    /// Lower 95 % bound, two-sided.
    pub low: f64,
    /// Upper 95 % bound.
    pub high: f64,
}

impl Difference {
    /// Whether it is told from nothing.
    #[must_use]
    pub const fn is_found(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// What measuring costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Pairs.
    pub pairs: usize,
    /// CPU time of all cores, as a share of their capacity.
    pub cpu_share: Difference,
    /// CPU time of a request, ns.
    pub cpu_per_request_ns: Difference,
    /// Requests per second, relative to those without.
    pub throughput: Difference,
    /// Mean system latency, ns.
    pub mean_ns: Difference,
    /// The seconds' 99th percentile, ns.
    pub p99_ns: Difference,
}

/// Why the cost is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCost {
    /// Fewer than [`PAIRS_MIN`] pairs.
    TooFew {
        /// How many there are.
        pairs: usize,
    },
}

/// Which second of a pair is on first; every window draws its own. splitmix64 (Steele, Lea, Flood, 2014).
#[must_use]
pub const fn on_first(seed: u64, window: u32) -> bool {
    let mut z = seed.wrapping_add((window as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) & 1 == 1
}

/// The cost over `pairs` of a program with `cores` cores. Pairs with an empty second are left out.
///
/// # Errors
/// [`NoCost`].
pub fn cost(pairs: &[Pair], cores: usize) -> Result<Cost, NoCost> {
    let whole = |second: &Second| second.len_ns > 0 && second.requests > 0;
    let pairs: Vec<&Pair> = pairs.iter().filter(|p| whole(&p.on) && whole(&p.off)).collect();
    if pairs.len() < PAIRS_MIN {
        return Err(NoCost::TooFew { pairs: pairs.len() });
    }
    let of = |figure: &dyn Fn(&Second) -> f64| {
        difference(&pairs.iter().map(|p| figure(&p.on) - figure(&p.off)).collect::<Vec<_>>())
    };
    let rate = |s: &Second| s.requests as f64 / s.len_ns as f64;
    Ok(Cost {
        pairs: pairs.len(),
        cpu_share: of(&|s| s.cpu_ns as f64 / s.len_ns as f64 / cores.max(1) as f64),
        cpu_per_request_ns: of(&|s| s.cpu_ns as f64 / s.requests as f64),
        throughput: difference(
            &pairs.iter().map(|p| rate(&p.on) / rate(&p.off) - 1.0).collect::<Vec<_>>(),
        ),
        mean_ns: of(&|s| s.mean_ns),
        p99_ns: of(&|s| s.p99_ns),
    })
}

/// Mean and interval of differences, of which there are [`PAIRS_MIN`] or more.
fn difference(values: &[f64]) -> Difference {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let t = StudentsT::new(0.0, 1.0, n - 1.0).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975));
    let half = t * (variance / n).sqrt();
    Difference { mean, low: mean - half, high: mean + half }
}

/// How much is measured. Each step down gives up what costs most and is missed least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Stages only.
    Stages,
    /// And counters, once a second instead of at each tick.
    Slow,
    /// And counters at each tick.
    Ticks,
    /// And counts of polls of single requests.
    Full,
}

impl Detail {
    const fn lower(self) -> Option<Self> {
        match self {
            Self::Full => Some(Self::Ticks),
            Self::Ticks => Some(Self::Slow),
            Self::Slow => Some(Self::Stages),
            Self::Stages => None,
        }
    }

    /// Name in records and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stages => "stages only",
            Self::Slow => "stages, and counters once a second",
            Self::Ticks => "stages, and counters at each tick",
            Self::Full => "stages, counters at each tick, and counts of single requests",
        }
    }
}

/// Keeps measuring within its budget. It only ever lowers the detail: a run of changing detail cannot be
/// compared with itself, and each change is written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Governor {
    /// Largest share of a core.
    budget: f64,
    detail: Detail,
    spent_ns: u64,
    over_ns: u64,
}

/// Time over which the budget holds, ns.
pub const BUDGET_NS: u64 = 60_000_000_000;

/// A step down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lowered {
    /// From.
    pub from: Detail,
    /// To.
    pub to: Detail,
    /// Share of a core that measuring took in the minute before.
    pub share: f64,
}

impl Governor {
    /// Allows `budget` of a core (0.01 is 1 %).
    #[must_use]
    pub const fn new(budget: f64) -> Self {
        Self { budget, detail: Detail::Full, spent_ns: 0, over_ns: 0 }
    }

    /// How much is measured now.
    #[must_use]
    pub const fn detail(&self) -> Detail {
        self.detail
    }

    /// Notes that measuring took `self_ns` of the busiest core in `len_ns`; a step down when a minute is over
    /// the budget.
    pub fn note(&mut self, self_ns: u64, len_ns: u64) -> Option<Lowered> {
        self.spent_ns = self.spent_ns.saturating_add(self_ns);
        self.over_ns = self.over_ns.saturating_add(len_ns);
        if self.over_ns < BUDGET_NS {
            return None;
        }
        let share = self.spent_ns as f64 / self.over_ns as f64;
        (self.spent_ns, self.over_ns) = (0, 0);
        if share <= self.budget {
            return None;
        }
        let from = self.detail;
        self.detail = from.lower()?;
        Some(Lowered { from, to: self.detail, share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise of a share around 0.4 of two cores, the same for a seed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "about 8e8: far from both ends"
    )]
    fn seconds(seed: u64, added: f64) -> Vec<Pair> {
        let mut state = seed;
        let mut noise = || {
            let drawn = (0..12).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 11) as f64 / (1u64 << 53) as f64
            });
            drawn.sum::<f64>() - 6.0
        };
        let mut second = |share: f64| Second {
            len_ns: 1_000_000_000,
            cpu_ns: ((share + 0.01 * noise()) * 2e9) as u64,
            requests: 1_000_000,
            mean_ns: 10_000.0 + 100.0 * noise(),
            p99_ns: 50_000.0 + 5_000.0 * noise(),
        };
        (0..60).map(|_| Pair { off: second(0.4), on: second(0.4 + added) }).collect()
    }

    #[test]
    fn a_known_cost_of_one_percent_is_found_and_nothing_is_not() {
        let found = (0..200).filter(|&seed| {
            let cost = cost(&seconds(seed, 0.01), 2).expect("60 pairs");
            assert_eq!(cost.pairs, 60);
            cost.cpu_share.low > 0.0
        });
        assert!(found.count() >= 198, "sd 1 % and 60 pairs: the interval is +-0.37 %");
        let alarms = (0..1_000)
            .filter(|&seed| cost(&seconds(seed, 0.0), 2).expect("60 pairs").cpu_share.is_found());
        let alarms = alarms.count();
        assert!((25..=80).contains(&alarms), "5 % of 1,000 are expected: {alarms}");
    }

    #[test]
    fn the_sign_is_kept_and_few_pairs_give_no_figure() {
        let cheaper = cost(&seconds(1, -0.05), 2).expect("60 pairs").cpu_share;
        assert!(cheaper.high < 0.0, "{cheaper:?}");
        assert_eq!(cost(&seconds(1, 0.0)[..3], 2), Err(NoCost::TooFew { pairs: 3 }));
        let mut pairs = seconds(1, 0.0);
        pairs.truncate(5);
        pairs[0].off.requests = 0;
        pairs[1].on.len_ns = 0;
        assert_eq!(cost(&pairs, 2), Err(NoCost::TooFew { pairs: 3 }), "empty seconds are left out");
    }

    #[test]
    fn either_order_comes_as_often() {
        let first = (0..10_000).filter(|&window| on_first(7, window)).count();
        assert!((4_800..=5_200).contains(&first), "{first}");
    }

    #[test]
    fn the_governor_steps_down_once_a_minute_and_never_up() {
        let mut governor = Governor::new(0.01);
        let second = 1_000_000_000;
        let steps: Vec<(u64, Lowered)> = (0..600)
            .filter_map(|s| {
                let spent = if s < 300 { 20_000_000 } else { 0 };
                governor.note(spent, second).map(|step| (s, step))
            })
            .collect();
        let to: Vec<(u64, Detail)> = steps.iter().map(|&(s, step)| (s, step.to)).collect();
        assert_eq!(to, [(59, Detail::Ticks), (119, Detail::Slow), (179, Detail::Stages)]);
        assert!(steps.iter().all(|(_, step)| (step.share - 0.02).abs() < 1e-9));
        assert_eq!(governor.detail(), Detail::Stages);
        let mut within = Governor::new(0.01);
        assert!((0..600).all(|_| within.note(9_000_000, second).is_none()));
        assert_eq!(within.detail(), Detail::Full);
    }
}
