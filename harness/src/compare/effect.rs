//! From pairs to effects: ratios with intervals, smallest effects that can be found, verdicts.
//!
//! A pair gives `d = ln(b / a)`. Reported is `exp(mean d)` with Student's 95 % interval. A claim (better or
//! worse) needs four things: six pairs, an interval without 0, a sign-flip permutation test below 5 %, and an
//! effect above the noise floor, which is the bound of what A against A showed on the same host. Equivalence
//! is two one-sided tests: the 90 % interval inside the band (Schuirmann 1987). Everything else is
//! INCONCLUSIVE, and the smallest effect that could have been found is said.
//! Where the differences drift over the pairs (Mann and Kendall below 1 %), a mean has no meaning: then the
//! interval reaches from the smallest to the largest difference.

use serde::{Deserialize, Serialize};

use super::design::PAIRS_MIN;
use super::figures::RunFigures;
use crate::load::{Draw, Stream};
use crate::report::Measured;
use crate::verdict::mann_kendall;
use crate::verdict::student::quantile;

/// Largest number of pairs whose sign flips are all tried; above it 65,536 are drawn.
const FLIPS_ALL: usize = 16;
/// Level of the drift test.
const DRIFT: f64 = 0.01;
/// Power of the smallest effect that can be found.
const POWER: f64 = 0.8;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Median system latency.
    P50,
    /// Its 99th percentile.
    P99,
    /// Terminal replies per second.
    Throughput,
    /// CPU time per terminal reply.
    CpuPerOp,
    /// Share of requests that were answered in time.
    Delivery,
}

impl Metric {
    /// All of them, in the order of a table.
    pub const ALL: [Self; 5] =
        [Self::P50, Self::P99, Self::Throughput, Self::CpuPerOp, Self::Delivery];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Throughput => "throughput",
            Self::CpuPerOp => "cpu per op",
            Self::Delivery => "delivery",
        }
    }

    /// Whether more is better.
    #[must_use]
    pub const fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput | Self::Delivery)
    }

    /// Ratios between `1 / band` and `band` are equivalent. 5 %, and for delivery 0.1 %: the service levels
    /// tell 99.9 % from 99.5 %.
    #[must_use]
    pub const fn band(self) -> f64 {
        match self {
            Self::Delivery => 1.001,
            _ => 1.05,
        }
    }

    /// The figure of a run.
    #[must_use]
    pub const fn of(self, run: &RunFigures) -> &Measured<f64> {
        match self {
            Self::P50 => &run.p50_ns,
            Self::P99 => &run.p99_ns,
            Self::Throughput => &run.throughput_per_s,
            Self::CpuPerOp => &run.cpu_per_op_ns,
            Self::Delivery => &run.delivery,
        }
    }
}

/// Verdict about B against A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judged {
    /// B is better.
    #[serde(rename = "better")]
    Better,
    /// B is worse.
    #[serde(rename = "worse")]
    Worse,
    /// They lie within the band of each other.
    #[serde(rename = "equivalent")]
    Equivalent,
    /// Neither can be said.
    #[serde(rename = "INCONCLUSIVE")]
    Inconclusive,
}

/// An effect as ratios B / A.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Geometric mean of the pairs' ratios.
    pub ratio: f64,
    /// Lower 95 % bound.
    pub low: f64,
    /// Upper 95 % bound.
    pub high: f64,
    /// Lower 90 % bound, that of the equivalence test.
    pub low90: f64,
    /// Upper 90 % bound.
    pub high90: f64,
    /// Hodges and Lehmann's estimate: the median of the means of two pairs.
    pub hodges_lehmann: f64,
    /// Probability of a mean as far from 0 when every pair's sign is a coin.
    pub flip_p: f64,
    /// Standard deviation of `ln(b / a)`.
    pub sd: f64,
    /// Smallest ratio away from 1 that so many pairs find in four of five comparisons, above the noise floor.
    pub detectable: f64,
}

/// One metric of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricResult {
    /// Which.
    pub metric: Metric,
    /// Geometric mean of side A, in the metric's unit (ns, per s, share).
    pub a: Measured<f64>,
    /// Of side B.
    pub b: Measured<f64>,
    /// Pairs that count.
    pub pairs: u64,
    /// Ratios B / A; unknown below two pairs.
    pub effect: Measured<Effect>,
    /// Noise floor: effects of a smaller factor (1.02: 2 %) are never claimed. Unknown without A against A.
    pub floor: Measured<f64>,
    /// A against A pairs that it is from.
    pub floor_pairs: u64,
    /// Probability of as much drift of the differences over the pairs by chance.
    pub drift_p: Option<f64>,
    /// Equivalence band: ratios between its inverse and itself.
    pub band: f64,
    /// Verdict about B.
    pub judged: Judged,
    /// Why.
    pub reason: String,
}

/// Effect of differences `d = ln(b / a)`; `None` below two.
#[must_use]
pub fn effect(d: &[f64]) -> Option<Effect> {
    if d.len() < 2 {
        return None;
    }
    let n = d.len() as f64;
    let mean = d.iter().sum::<f64>() / n;
    let sd = (d.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let error = sd / n.sqrt();
    let half = |p: f64| quantile(p, n - 1.0) * error;
    let (half95, half90) = (half(0.975), half(0.95));
    Some(Effect {
        ratio: mean.exp(),
        low: (mean - half95).exp(),
        high: (mean + half95).exp(),
        low90: (mean - half90).exp(),
        high90: (mean + half90).exp(),
        hodges_lehmann: hodges_lehmann(d).exp(),
        flip_p: sign_flip(d),
        sd,
        detectable: (half95 + half(POWER)).exp(),
    })
}

/// Median of the means of all pairs of differences, each with itself too.
fn hodges_lehmann(d: &[f64]) -> f64 {
    let mut means: Vec<f64> = Vec::with_capacity(d.len() * (d.len() + 1) / 2);
    for (i, a) in d.iter().enumerate() {
        means.extend(d[i..].iter().map(|b| f64::midpoint(*a, *b)));
    }
    means.sort_by(f64::total_cmp);
    let n = means.len();
    if n % 2 == 1 { means[n / 2] } else { f64::midpoint(means[n / 2 - 1], means[n / 2]) }
}

/// Share of the ways to flip signs whose sum is at least as far from 0.
fn sign_flip(d: &[f64]) -> f64 {
    let seen = d.iter().sum::<f64>().abs();
    // A hair of tolerance: sums in another order round otherwise.
    let reached = |sum: f64| sum.abs() >= seen * (1.0 - 1e-12);
    let flipped = |bits: u64| {
        d.iter().enumerate().map(|(i, v)| if bits >> i & 1 == 1 { -v } else { *v }).sum::<f64>()
    };
    if d.len() <= FLIPS_ALL {
        let all = 1u64 << d.len();
        return (0..all).filter(|bits| reached(flipped(*bits))).count() as f64 / all as f64;
    }
    let drawn = 1u64 << FLIPS_ALL;
    let draw = Draw::new(0x666c_6970, 0);
    let random = |k: u64| -> f64 {
        let coin = |i: usize| draw.bits(k * d.len() as u64 + i as u64, Stream::Content) >> 63 == 1;
        d.iter().enumerate().map(|(i, v)| if coin(i) { -v } else { *v }).sum()
    };
    let far = (0..drawn).filter(|k| reached(random(*k))).count();
    (far + 1) as f64 / (drawn + 1) as f64
}

/// Bound of what A against A showed, as a factor: the farther end of the 95 % interval of its mean.
fn noise_floor(aa: &[f64]) -> Measured<f64> {
    effect(aa).map_or_else(
        || {
            Measured::unknown(
                format!("{} pairs of A against A", aa.len()),
                "let A run against itself in two blocks or more: --aa",
            )
        },
        |effect| Measured::Known(effect.high.max(1.0 / effect.low)),
    )
}

/// What can be found has to be above the floor as well, with room for its own error.
fn above_floor(effect: Effect, pairs: usize, floor: &Measured<f64>) -> Effect {
    let n = pairs as f64;
    let room = quantile(POWER, n - 1.0) * effect.sd / n.sqrt();
    let least = floor.known().map_or(1.0, |floor| (floor.ln() + room).exp());
    Effect { detectable: effect.detectable.max(least), ..effect }
}

/// The figures of one metric in one pair.
pub(super) type Two<'a> = (&'a Measured<f64>, &'a Measured<f64>);

/// Judges one metric: `pairs` are (A, B), `aa` are (A, A2), in the order of the runs.
#[must_use]
pub(super) fn judge(metric: Metric, pairs: &[Two<'_>], aa: &[Two<'_>]) -> MetricResult {
    let known: Vec<(f64, f64)> = pairs.iter().filter_map(positive).collect();
    let d: Vec<f64> = known.iter().map(|(a, b)| (b / a).ln()).collect();
    let aa: Vec<f64> = aa.iter().filter_map(positive).map(|(a, b)| (b / a).ln()).collect();
    let side = |take: fn(&(f64, f64)) -> f64| {
        if known.is_empty() {
            return Measured::unknown("no pair has this figure", "see the pairs");
        }
        let logs = known.iter().map(|pair| take(pair).ln()).sum::<f64>();
        Measured::Known((logs / known.len() as f64).exp())
    };
    let floor = noise_floor(&aa);
    let found = effect(&d).map(|effect| above_floor(effect, d.len(), &floor)).map_or_else(
        || Measured::unknown(format!("{} pairs have this figure", d.len()), "run more pairs"),
        Measured::Known,
    );
    let mut result = MetricResult {
        metric,
        a: side(|pair| pair.0),
        b: side(|pair| pair.1),
        pairs: d.len() as u64,
        effect: found,
        floor,
        floor_pairs: aa.len() as u64,
        drift_p: mann_kendall(&d).map(|test| test.p),
        band: metric.band(),
        judged: Judged::Inconclusive,
        reason: String::new(),
    };
    if let Some(dead) = dead(metric, pairs) {
        (result.judged, result.reason) = dead;
        return result;
    }
    if d.len() < pairs.len() {
        let missing = pairs.iter().find_map(|(a, b)| cause(a).or_else(|| cause(b)));
        result.reason = format!(
            "{} of {} pairs lack this figure: {}",
            pairs.len() - d.len(),
            pairs.len(),
            missing.unwrap_or_else(|| "it is 0".to_owned())
        );
        return result;
    }
    conclude(&mut result, &d);
    result
}

/// A side that has nothing of what more is better of, in each of six pairs or more, while the other has: no ratio says so.
fn dead(metric: Metric, pairs: &[Two<'_>]) -> Option<(Judged, String)> {
    let all = |is: fn(f64, f64) -> bool| {
        let known = |(a, b): &Two<'_>| Some((*a.known()?, *b.known()?));
        pairs.iter().all(|pair| known(pair).is_some_and(|(a, b)| is(a, b)))
    };
    if pairs.len() < PAIRS_MIN || !metric.more_is_better() {
        return None;
    }
    let told = |side: &str| format!("side {side} has none in any of {} pairs", pairs.len());
    if all(|a, b| a > 0.0 && b <= 0.0) {
        return Some((Judged::Worse, told("B")));
    }
    all(|a, b| a <= 0.0 && b > 0.0).then(|| (Judged::Better, told("A")))
}

fn positive(pair: &Two<'_>) -> Option<(f64, f64)> {
    let (a, b) = (*pair.0.known()?, *pair.1.known()?);
    (a > 0.0 && b > 0.0).then_some((a, b))
}

fn cause(figure: &Measured<f64>) -> Option<String> {
    match figure {
        Measured::Known(_) => None,
        Measured::Unknown { unknown, .. } => Some(unknown.clone()),
    }
}

fn conclude(result: &mut MetricResult, d: &[f64]) {
    let Some(effect) = result.effect.known() else {
        result.reason = format!("{} pairs; a claim needs {PAIRS_MIN}", d.len());
        return;
    };
    if d.len() < PAIRS_MIN {
        result.reason = format!("{} pairs; a claim needs {PAIRS_MIN}", d.len());
        return;
    }
    let drifts = result.drift_p.is_some_and(|p| p < DRIFT);
    let (least, most) = d
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(*v), most.max(*v)));
    let (low, high) = if drifts { (least, most) } else { (effect.low.ln(), effect.high.ln()) };
    let (low90, high90) =
        if drifts { (least, most) } else { (effect.low90.ln(), effect.high90.ln()) };
    let band = result.band.ln();
    let said = if drifts { "the differences drift over the pairs; " } else { "" };
    if low90 > -band && high90 < band {
        result.judged = Judged::Equivalent;
        result.reason = format!("{said}90 % interval within {:.1} %", (result.band - 1.0) * 100.0);
        return;
    }
    let Some(&floor) = result.floor.known() else {
        result.reason =
            "without A against A no effect is claimed: the noise is not known".to_owned();
        return;
    };
    let mean = effect.ratio.ln();
    let claimed = (low > 0.0 || high < 0.0) && effect.flip_p <= 0.05 && mean.abs() > floor.ln();
    if claimed {
        let more = mean > 0.0;
        let better = more == result.metric.more_is_better();
        result.judged = if better { Judged::Better } else { Judged::Worse };
        result.reason = format!("{said}95 % interval without 1, above the noise floor");
    } else {
        result.reason = if mean.abs() <= floor.ln() && (low > 0.0 || high < 0.0) {
            format!("{said}A against itself differs by as much: {:.2} %", (floor - 1.0) * 100.0)
        } else {
            format!(
                "{said}smallest effect that so many pairs find: {:.2} %",
                (effect.detectable - 1.0) * 100.0
            )
        };
    }
}

#[cfg(test)]
#[path = "effect_tests.rs"]
mod tests;
