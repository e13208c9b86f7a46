//! Is a percentile below its limit? Judged on the fraction of requests above the limit, by batch means.
//!
//! P99 < L is the same statement as Pr(R > L) < 0.01. Requests of one second are not independent, so
//! the variance comes from block means, not from the binomial: p = sum k / sum n (ratio estimator),
//! SE^2 = B/(B-1) x sum (k_b - p n_b)^2 / (sum n)^2, bounds by Student's t with B - 1 degrees
//! (Law, "Simulation Modeling and Analysis", batch means; Cochran, ratio estimators).

use statrs::distribution::{ContinuousCDF as _, Gamma, StudentsT};

/// Blocks that a PASS needs at least.
const PASS_BLOCKS: usize = 30;
/// Shortest block of a percentile's PASS, s.
const PASS_BLOCK_S: u32 = 60;
/// Blocks that a FAIL needs at least.
const FAIL_BLOCKS: usize = 10;
/// Lag-1 autocorrelation of block fractions above which blocks are lengthened.
const LAG1_MAX: f64 = 0.1;
/// Blocks below which lengthening stops.
const LENGTHEN_BLOCKS: usize = 20;

/// One second (or another short interval) of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// Requests judged.
    pub n: u64,
    /// Of those, above the limit.
    pub k: u64,
    /// Length, s.
    pub len_s: f64,
}

/// An estimate of the fraction above a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Exceedance {
    /// k / n.
    pub p: f64,
    /// Standard error by batch means; `None` below two blocks.
    pub se: Option<f64>,
    /// One-sided 95 % lower bound.
    pub lower95: Option<f64>,
    /// One-sided 95 % upper bound.
    pub upper95: Option<f64>,
    /// Requests.
    pub n: u64,
    /// Requests above the limit.
    pub k: u64,
    /// Blocks.
    pub blocks: usize,
    /// Length of a block, s.
    pub block_s: f64,
    /// Lag-1 autocorrelation of the block fractions.
    pub lag1: Option<f64>,
}

/// What the data allow to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// The upper bound is at or below what is allowed.
    Pass,
    /// The lower bound is above what is allowed, at two block lengths.
    Fail,
    /// Neither can be said.
    Undecided {
        /// Why.
        reason: String,
        /// How much longer the run must be, s, when that can be told.
        needed_s: Option<f64>,
    },
}

fn aggregate(seconds: &[Block], block_s: u32) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut current = Block { n: 0, k: 0, len_s: 0.0 };
    for second in seconds {
        current.n += second.n;
        current.k += second.k;
        current.len_s += second.len_s;
        // A hair of tolerance: seconds are cut by a clock, 60 of them may last 59.999 s.
        if current.len_s >= f64::from(block_s) * 0.995 {
            blocks.push(current);
            current = Block { n: 0, k: 0, len_s: 0.0 };
        }
    }
    blocks
}

/// The estimate over blocks of `block_s`; an incomplete last block counts in `p`, not in the error.
#[must_use]
pub fn exceedance(seconds: &[Block], block_s: u32) -> Exceedance {
    let blocks = aggregate(seconds, block_s);
    let n: u64 = seconds.iter().map(|b| b.n).sum();
    let k: u64 = seconds.iter().map(|b| b.k).sum();
    let p = if n == 0 { 0.0 } else { k as f64 / n as f64 };
    let block_n: u64 = blocks.iter().map(|b| b.n).sum();
    let count = blocks.len();
    let mut estimate = Exceedance {
        p,
        se: None,
        lower95: None,
        upper95: None,
        n,
        k,
        blocks: count,
        block_s: f64::from(block_s),
        lag1: lag1(&blocks),
    };
    if count < 2 || block_n == 0 {
        return estimate;
    }
    let squares: f64 = blocks.iter().map(|b| (b.k as f64 - p * b.n as f64).powi(2)).sum();
    let b = count as f64;
    let se = (b / (b - 1.0) * squares).sqrt() / block_n as f64;
    let t = StudentsT::new(0.0, 1.0, b - 1.0)
        .expect("at least one degree of freedom")
        .inverse_cdf(0.95);
    estimate.se = Some(se);
    estimate.lower95 = Some((p - t * se).max(0.0));
    estimate.upper95 = Some((p + t * se).max(rare(n as f64, k as f64, se)));
    estimate
}

/// Exceedances of which the batch error says enough.
const MANY: f64 = 10_000.0;

/// The one-sided 95 % upper bound of the share of rare events, `k` of `n`: with few of them the spread of the blocks is too
/// small as often as there happen to be few. For k = 0 the exact binomial one, 1 - 0.05^(1/n) (rule of three); above it the
/// Poisson one, which is never below the exact binomial one (Garwood 1936). Both counts are divided by the design effect,
/// what the spread of the blocks is more than that of independent requests.
fn rare(n: f64, k: f64, se: f64) -> f64 {
    if k == 0.0 {
        return 1.0 - 0.05f64.powf(1.0 / n);
    }
    let p = k / n;
    let design = (se * se * n / (p * (1.0 - p)).max(f64::MIN_POSITIVE)).max(1.0);
    let (k, n) = (k / design, n / design);
    if k > MANY {
        return 0.0;
    }
    let gamma = Gamma::new(k + 1.0, 1.0).expect("a positive shape");
    (gamma.inverse_cdf(0.95) / n).min(1.0)
}

fn lag1(blocks: &[Block]) -> Option<f64> {
    if blocks.len() < 3 {
        return None;
    }
    let fractions: Vec<f64> =
        blocks.iter().map(|b| if b.n == 0 { 0.0 } else { b.k as f64 / b.n as f64 }).collect();
    let mean = fractions.iter().sum::<f64>() / fractions.len() as f64;
    let variance: f64 = fractions.iter().map(|f| (f - mean).powi(2)).sum();
    // Blocks that are all alike differ by rounding, which depends on itself.
    if variance <= f64::EPSILON * mean * mean {
        return Some(0.0);
    }
    Some(fractions.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>() / variance)
}

/// Judges `Pr(R > L) <= allowed` with the rules for a percentile: PASS needs 30 blocks of 60 s.
#[must_use]
pub fn judge_percentile(seconds: &[Block], allowed: f64) -> (Judgement, Exceedance) {
    judge(seconds, allowed, PASS_BLOCK_S)
}

/// Judges a fraction of losses: as a percentile, but PASS needs 30 blocks of 1 s, for a loss does not
/// depend on how the load of the minute came about.
#[must_use]
pub fn judge_fraction(seconds: &[Block], allowed: f64) -> (Judgement, Exceedance) {
    judge(seconds, allowed, 1)
}

fn judge(seconds: &[Block], allowed: f64, pass_block_s: u32) -> (Judgement, Exceedance) {
    let length_s: f64 = seconds.iter().map(|b| b.len_s).sum();
    if let Some(failed) = failing(seconds, allowed) {
        return (Judgement::Fail, failed);
    }
    let estimate = lengthened(seconds, pass_block_s);
    let undecided = |reason: String, needed_s| Judgement::Undecided { reason, needed_s };
    if estimate.n == 0 {
        return (undecided("no request was judged".to_owned(), None), estimate);
    }
    let full_s = PASS_BLOCKS as f64 * estimate.block_s;
    if estimate.blocks < PASS_BLOCKS {
        let reason = format!(
            "a PASS needs {PASS_BLOCKS} blocks of {:.0} s, the run has {} of them",
            estimate.block_s, estimate.blocks
        );
        return (undecided(reason, Some((full_s - length_s).max(estimate.block_s))), estimate);
    }
    if estimate.upper95.is_some_and(|upper| upper <= allowed) {
        let Some(lag) = dependence(&estimate) else { return (Judgement::Pass, estimate) };
        let reason = format!(
            "it would pass, but blocks of {:.0} s depend on each other (lag-1 autocorrelation {lag:.2}): their spread says too little, and longer blocks need a longer run",
            estimate.block_s
        );
        return (undecided(reason, Some(length_s)), estimate);
    }
    let needed = needed_s(&estimate, allowed, length_s);
    (undecided("the interval straddles the limit".to_owned(), needed), estimate)
}

/// A FAIL: the lower bound is above the limit at some block length of 1 s or more with 10 blocks, and
/// also at twice that length.
fn failing(seconds: &[Block], allowed: f64) -> Option<Exceedance> {
    let mut block_s = 1;
    let mut found = None;
    while let estimate = exceedance(seconds, block_s)
        && estimate.blocks >= 2 * FAIL_BLOCKS
    {
        let double = exceedance(seconds, block_s * 2);
        let above = |e: &Exceedance| {
            e.blocks >= FAIL_BLOCKS && e.lower95.is_some_and(|lower| lower > allowed)
        };
        // The longest length counts: a short one that fails and a long one that does not is a burst.
        found = (above(&estimate) && above(&double)).then_some(estimate);
        block_s *= 2;
    }
    found
}

/// Blocks as long as the autocorrelation asks for, as long as 20 of them remain.
fn lengthened(seconds: &[Block], block_s: u32) -> Exceedance {
    let mut estimate = exceedance(seconds, block_s);
    let mut length = block_s;
    while estimate.lag1.is_some_and(|lag| lag >= LAG1_MAX)
        && estimate.blocks / 2 >= LENGTHEN_BLOCKS.max(PASS_BLOCKS)
    {
        length *= 2;
        estimate = exceedance(seconds, length);
    }
    estimate
}

/// The lag-1 autocorrelation of blocks that cannot be longer and are surely no independent ones: it is above 0.1, and above
/// 1.645 / sqrt(blocks), which that of independent ones is in 5 of 100 runs (Bartlett 1946).
fn dependence(estimate: &Exceedance) -> Option<f64> {
    let chance = 1.645 / (estimate.blocks as f64).sqrt();
    estimate.lag1.filter(|lag| *lag >= LAG1_MAX.max(chance))
}

/// What a run that is too short for a verdict says so far: by the longest blocks up to those of a PASS of which there are 10
/// or more; `None` when there are not, or nothing was judged.
#[must_use]
pub fn so_far(seconds: &[Block]) -> Option<Exceedance> {
    let lengths = std::iter::successors(Some(1), |length| Some(length * 2));
    lengths
        .take_while(|length| *length <= PASS_BLOCK_S)
        .map(|length| exceedance(seconds, length))
        .take_while(|estimate| estimate.blocks >= FAIL_BLOCKS && estimate.n > 0)
        .last()
}

/// T x (t SE / |allowed - p|)^2, from SE falling as the square root of the time.
fn needed_s(estimate: &Exceedance, allowed: f64, length_s: f64) -> Option<f64> {
    let margin = (allowed - estimate.p).abs();
    let half = estimate.upper95? - estimate.p;
    (margin > 0.0).then(|| (length_s * (half / margin).powi(2) - length_s).max(estimate.block_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64*, enough for a test.
    struct Rng(u64);
    impl Rng {
        fn unit(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    fn run(rng: &mut Rng, seconds: usize, n: u64, p: f64) -> Vec<Block> {
        (0..seconds)
            .map(|_| Block { n, k: (0..n).filter(|_| rng.unit() < p).count() as u64, len_s: 1.0 })
            .collect()
    }

    #[test]
    fn false_verdicts_stay_below_their_rate() {
        let mut rng = Rng(42);
        let (mut false_fail, mut false_pass, mut pass, mut fail) = (0, 0, 0, 0);
        for _ in 0..200 {
            let good = judge_percentile(&run(&mut rng, 1_800, 30, 0.008), 0.01).0;
            let bad = judge_percentile(&run(&mut rng, 1_800, 30, 0.012), 0.01).0;
            false_fail += usize::from(good == Judgement::Fail);
            false_pass += usize::from(bad == Judgement::Pass);
            pass += usize::from(good == Judgement::Pass);
            fail += usize::from(bad == Judgement::Fail);
        }
        assert!(
            false_fail <= 10 && false_pass <= 10,
            "false FAIL {false_fail}, false PASS {false_pass} of 200"
        );
        assert!(pass > 150 && fail > 150, "power: PASS {pass}, FAIL {fail} of 200");
        let mut rng = Rng(43);
        let on_the_line =
            (0..200).map(|_| judge_percentile(&run(&mut rng, 1_800, 30, 0.01), 0.01).0);
        let (mut passes, mut fails) = (0, 0);
        for verdict in on_the_line {
            passes += usize::from(verdict == Judgement::Pass);
            fails += usize::from(verdict == Judgement::Fail);
        }
        assert!(
            passes <= 18 && fails <= 18,
            "at the limit itself: PASS {passes}, FAIL {fails} of 200"
        );
    }

    /// Two states: bad seconds come in bursts of 10 s in the mean, in which a fifth of the requests is late; the
    /// share of bad time makes the exceedance `p`.
    fn bursts(rng: &mut Rng, seconds: usize, p: f64) -> Vec<Block> {
        let (late_bad, late_good, mean_bad_s) = (0.2, 0.002, 10.0);
        let share = (p - late_good) / (late_bad - late_good);
        let enter = share / (1.0 - share) / mean_bad_s;
        let mut bad = rng.unit() < share;
        (0..seconds)
            .map(|_| {
                bad = if bad { rng.unit() >= 1.0 / mean_bad_s } else { rng.unit() < enter };
                let late = if bad { late_bad } else { late_good };
                let k = (0..30).filter(|_| rng.unit() < late).count() as u64;
                Block { n: 30, k, len_s: 1.0 }
            })
            .collect()
    }

    #[test]
    fn blocks_that_depend_on_each_other_are_no_pass() {
        let mut rng = Rng(45);
        let mut undecided = 0;
        for _ in 0..100 {
            // A level that stays for five minutes: 60-s blocks of half an hour are six values.
            let levels: Vec<f64> = (0..6).map(|_| 0.003 + 0.006 * rng.unit()).collect();
            let seconds: Vec<Block> =
                levels.iter().flat_map(|&p| run(&mut rng, 300, 100, p)).collect();
            match judge_percentile(&seconds, 0.01).0 {
                Judgement::Undecided { reason, needed_s } => {
                    assert!(reason.contains("depend on each other"), "{reason}");
                    assert_eq!(needed_s, Some(1_800.0));
                    undecided += 1;
                }
                Judgement::Pass => {}
                Judgement::Fail => panic!("a FAIL"),
            }
        }
        assert!(undecided > 90, "{undecided} of 100");
    }

    #[test]
    fn a_short_run_says_its_bounds_so_far() {
        let mut rng = Rng(46);
        let found = so_far(&run(&mut rng, 60, 100, 0.005)).unwrap();
        assert_eq!((found.blocks, found.block_s), (15, 4.0));
        assert!(found.lower95.unwrap() < 0.005 && found.upper95.unwrap() > 0.005, "{found:?}");
        let found = so_far(&run(&mut rng, 1_800, 10, 0.005)).unwrap();
        assert_eq!((found.blocks, found.block_s), (56, 32.0));
        assert_eq!(so_far(&run(&mut rng, 9, 100, 0.005)), None);
        assert_eq!(so_far(&run(&mut rng, 60, 0, 0.0)), None);
    }

    #[test]
    fn bursty_sources_get_valid_intervals() {
        let mut rng = Rng(44);
        let mut wrong = Vec::new();
        for seconds in [120, 600, 3_600, 10_800] {
            let of = |rng: &mut Rng, p| judge_percentile(&bursts(rng, seconds, p), 0.01).0;
            let (mut false_fail, mut false_pass) = (0, 0);
            for _ in 0..200 {
                false_fail += usize::from(of(&mut rng, 0.008) == Judgement::Fail);
                false_pass += usize::from(of(&mut rng, 0.012) == Judgement::Pass);
            }
            if false_fail > 18 || false_pass > 18 {
                wrong.push((seconds, false_fail, false_pass));
            }
        }
        assert!(wrong.is_empty(), "seconds, false FAIL, false PASS of 200: {wrong:?}");
        // The interval of an hour covers the truth about as often as it says (two one-sided 95 % bounds).
        let covered = (0..200)
            .filter(|_| {
                let found = exceedance(&bursts(&mut rng, 3_600, 0.0109), 60);
                found.lower95.unwrap() < 0.0109 && 0.0109 < found.upper95.unwrap()
            })
            .count();
        assert!(covered >= 165, "{covered} of 200 at 90 %");
    }

    #[test]
    fn a_minute_cannot_pass_a_percentile_but_can_fail_it() {
        let clean = vec![Block { n: 3_000, k: 0, len_s: 1.0 }; 60];
        let (judgement, estimate) = judge_percentile(&clean, 0.01);
        assert_eq!(estimate.k, 0);
        let Judgement::Undecided { needed_s, .. } = judgement else { panic!("{judgement:?}") };
        assert!((needed_s.unwrap() - 1_740.0).abs() < 1.0);
        assert_eq!(judge_fraction(&clean, 0.001).0, Judgement::Pass);
        let bad: Vec<Block> =
            (0..60).map(|i| Block { n: 3_000, k: 140 + i % 7, len_s: 1.0 }).collect();
        assert_eq!(judge_percentile(&bad, 0.01).0, Judgement::Fail);
    }

    #[test]
    fn half_an_hour_without_exceedance_passes() {
        assert_eq!(
            judge_percentile(&vec![Block { n: 30, k: 0, len_s: 1.0 }; 1_800], 0.01).0,
            Judgement::Pass
        );
        // 298 requests in all are one too few: with k = 0 the bound is above 1 %.
        let mut few = vec![Block { n: 0, k: 0, len_s: 1.0 }; 1_800];
        few.iter_mut().take(298).for_each(|b| b.n = 1);
        assert_ne!(judge_percentile(&few, 0.01).0, Judgement::Pass);
        few[298].n = 1;
        assert_eq!(judge_percentile(&few, 0.01).0, Judgement::Pass);
    }

    #[test]
    fn the_bound_of_rare_events_is_that_of_the_tables() {
        // Chi-squared tables: 95 % points of 2 (k + 1) degrees, halved.
        for (k, above) in [(1.0, 4.744), (4.0, 9.154), (10.0, 16.962)] {
            let bound = rare(1_000.0, k, 0.0) * 1_000.0;
            assert!((bound - above).abs() < 0.002, "{k}: {bound}");
        }
        // Four times the variance is a fourth of the requests.
        let se = 2.0 * (0.004f64 * 0.996 / 1_000.0).sqrt();
        assert!((rare(1_000.0, 4.0, se) * 250.0 - 4.744).abs() < 0.002);
    }

    #[test]
    fn few_requests_pass_no_more_often_than_many() {
        let mut rng = Rng(47);
        let mut wrong = Vec::new();
        // 300, 450, 3,000 requests of a percentile, and fractions of few losses.
        for (seconds, n, limit) in
            [(30, 10, 0.01), (45, 10, 0.01), (30, 100, 0.01), (30, 100, 0.001), (6_000, 1, 0.0005)]
        {
            let mut passes = |times: f64| {
                let of =
                    |rng: &mut Rng| judge_fraction(&run(rng, seconds, n, times * limit), limit).0;
                (0..200).filter(|_| of(&mut rng) == Judgement::Pass).count()
            };
            let (above, at) = (passes(1.2), passes(1.0));
            if above > 18 || at > 18 {
                wrong.push((seconds, n, limit, above, at));
            }
        }
        assert!(wrong.is_empty(), "seconds, n, limit, PASS at 1.2 and 1.0 times it: {wrong:?}");
    }

    #[test]
    fn one_burst_is_not_a_fail_and_nothing_is_not_a_pass() {
        let mut burst = vec![Block { n: 3_000, k: 0, len_s: 1.0 }; 60];
        burst[30].k = 3_000;
        assert!(matches!(judge_percentile(&burst, 0.01).0, Judgement::Undecided { .. }));
        assert!(matches!(judge_percentile(&[], 0.01).0, Judgement::Undecided { .. }));
        assert!(matches!(
            judge_fraction(&[Block { n: 0, k: 0, len_s: 1.0 }; 60], 0.01).0,
            Judgement::Undecided { .. }
        ));
    }
}
