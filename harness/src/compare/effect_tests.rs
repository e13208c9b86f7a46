use super::*;

/// xorshift64* with Box and Muller's normal.
struct Rng(u64);

impl Rng {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// `n` pairs with noise `sd` in each run and B above A by `by` in the logarithm.
fn pairs(rng: &mut Rng, n: usize, sd: f64, by: f64) -> Vec<Owned> {
    let run = |level: f64, rng: &mut Rng| Measured::Known((level + sd * rng.normal()).exp());
    (0..n).map(|_| (run(3.0, rng), run(3.0 + by, rng))).collect()
}

type Owned = (Measured<f64>, Measured<f64>);

fn borrow(of: &[Owned]) -> Vec<Two<'_>> {
    of.iter().map(|(a, b)| (a, b)).collect()
}

fn judged(metric: Metric, pairs: &[Owned], aa: &[Owned]) -> MetricResult {
    judge(metric, &borrow(pairs), &borrow(aa))
}

fn rates(n: usize, sd: f64, by: f64) -> (usize, usize, usize) {
    let mut rng = Rng(0x1234_5678_9abc_def1);
    let (mut better, mut worse, mut equivalent) = (0, 0, 0);
    for _ in 0..400 {
        let (tests, noise) = (pairs(&mut rng, n, sd, by), pairs(&mut rng, n, sd, 0.0));
        match judged(Metric::P99, &tests, &noise).judged {
            Judged::Better => better += 1,
            Judged::Worse => worse += 1,
            Judged::Equivalent => equivalent += 1,
            Judged::Inconclusive => {}
        }
    }
    (better, worse, equivalent)
}

#[test]
fn nothing_is_rarely_claimed_of_two_that_are_the_same() {
    for (n, sd) in [(6, 0.05), (10, 0.3), (20, 0.1)] {
        let (better, worse, _) = rates(n, sd, 0.0);
        assert!(better + worse <= 20, "{better} better, {worse} worse of 400 at {n} pairs, {sd}");
    }
    // On the edge of the band equivalence is a false claim: at most 5 % and what chance adds.
    let (_, _, equivalent) = rates(10, 0.02, 1.05f64.ln());
    assert!(equivalent <= 32, "{equivalent} of 400 equivalent on the edge");
    let (_, _, equivalent) = rates(10, 0.01, 0.0);
    assert!(equivalent >= 390, "{equivalent} of 400 equivalent");
}

#[test]
fn an_effect_is_found_with_its_sign() {
    let (better, worse, _) = rates(6, 0.05, 0.3);
    assert!(better == 0 && worse >= 380, "{better} better, {worse} worse of 400");
    let (better, worse, _) = rates(6, 0.3, -3.0);
    assert!(worse == 0 && better >= 380, "{better} better, {worse} worse of 400");
}

/// The smallest effect that a comparison says it finds is found in about four of five, its own floor included.
#[test]
fn the_smallest_effect_is_as_small_as_it_says() {
    let mut rng = Rng(0x0dd_ba11);
    let (mut found, mut told) = (0, 0.0);
    for _ in 0..400 {
        let noise = pairs(&mut rng, 10, 0.1, 0.0);
        let said = judged(Metric::P99, &pairs(&mut rng, 10, 0.1, 0.0), &noise);
        let detectable = said.effect.known().unwrap().detectable;
        told += detectable / 400.0;
        let there = judged(Metric::P99, &pairs(&mut rng, 10, 0.1, detectable.ln()), &noise);
        found += usize::from(there.judged == Judged::Worse);
    }
    assert!((260..=370).contains(&found), "{found} of 400 found, {told} in the mean");
}

#[test]
fn more_throughput_is_better_and_more_latency_is_not() {
    let mut rng = Rng(99);
    let (more, same) = (pairs(&mut rng, 8, 0.02, 0.5), pairs(&mut rng, 8, 0.02, 0.0));
    for (metric, verdict) in [
        (Metric::P50, Judged::Worse),
        (Metric::CpuPerOp, Judged::Worse),
        (Metric::Throughput, Judged::Better),
        (Metric::Delivery, Judged::Better),
    ] {
        assert_eq!(judged(metric, &more, &same).judged, verdict, "{metric:?}");
    }
}

#[test]
fn what_a_claim_lacks_is_said() {
    let mut rng = Rng(5);
    let (far, same) = (pairs(&mut rng, 6, 0.02, 1.0), pairs(&mut rng, 6, 0.02, 0.0));
    assert_eq!(judged(Metric::P99, &far, &same).judged, Judged::Worse);
    let without = judged(Metric::P99, &far, &[]);
    assert_eq!(without.judged, Judged::Inconclusive);
    assert!(without.reason.contains("A against A"), "{}", without.reason);
    let five = judged(Metric::P99, &far[..5], &same);
    assert!(
        five.judged == Judged::Inconclusive && five.reason.contains("needs 6"),
        "{}",
        five.reason
    );
    assert!(five.effect.known().is_some(), "an interval is shown all the same");
    let mut missing = far.clone();
    missing[2].1 = Measured::unknown("too few values", "record for longer");
    let missing = judged(Metric::P99, &missing, &same);
    assert!(missing.judged == Judged::Inconclusive && missing.reason.contains("too few values"));
    // An effect of the size of what A against itself shows is not claimed.
    let noisy = pairs(&mut rng, 3, 1.0, 0.0);
    let hidden = judged(Metric::P99, &far, &noisy);
    assert_eq!(hidden.judged, Judged::Inconclusive, "{hidden:?}");
    assert!(judged(Metric::P99, &[], &[]).effect.known().is_none());
}

#[test]
fn a_side_that_has_nothing_at_all_is_worse() {
    let side = |a: f64, b: f64, n| vec![(Measured::Known(a), Measured::Known(b)); n];
    let of = |metric, pairs: &[Owned]| judged(metric, pairs, &[]);
    let dead = of(Metric::Throughput, &side(1_000.0, 0.0, 6));
    assert!(dead.judged == Judged::Worse && dead.reason.contains("side B has none"), "{dead:?}");
    assert_eq!(of(Metric::Delivery, &side(0.0, 1.0, 6)).judged, Judged::Better);
    // Fewer pairs, one that has something, or a figure of which less is better, say nothing.
    assert_eq!(of(Metric::Throughput, &side(1_000.0, 0.0, 5)).judged, Judged::Inconclusive);
    let mut one = side(1_000.0, 0.0, 6);
    one[3].1 = Measured::Known(1.0);
    assert_eq!(of(Metric::Throughput, &one).judged, Judged::Inconclusive);
    assert_eq!(of(Metric::P99, &side(1_000.0, 0.0, 6)).judged, Judged::Inconclusive);
    assert_eq!(of(Metric::Throughput, &side(0.0, 0.0, 6)).judged, Judged::Inconclusive);
}

#[test]
fn a_drift_widens_the_interval_to_its_extremes() {
    let at = |d: f64| (Measured::Known(1.0), Measured::Known(d.exp()));
    let mut rng = Rng(6);
    let same = pairs(&mut rng, 6, 0.001, 0.0);
    let drifting: Vec<_> = [-0.02, 0.03, 0.09, 0.14, 0.2, 0.26].map(at).to_vec();
    let result = judged(Metric::P99, &drifting, &same);
    assert_eq!(result.judged, Judged::Inconclusive, "{result:?}");
    assert!(result.drift_p.unwrap() < 0.01 && result.reason.contains("drift"), "{result:?}");
    // All far on one side: it holds whatever the drift.
    let far: Vec<_> = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5].map(at).to_vec();
    assert_eq!(judged(Metric::P99, &far, &same).judged, Judged::Worse);
}

#[test]
fn the_sums_are_those_of_the_books() {
    let found = effect(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).unwrap();
    // R: t.test(c(.1,.2,.3,.4,.5,.6)) gives 0.35, [0.1536, 0.5464].
    assert!((found.ratio.ln() - 0.35).abs() < 1e-12);
    assert!((found.low.ln() - 0.153_67).abs() < 1e-4 && (found.high.ln() - 0.546_33).abs() < 1e-4);
    assert!((found.hodges_lehmann.ln() - 0.35).abs() < 1e-12);
    // All signs alike: two of 64 ways.
    assert!((found.flip_p - 2.0 / 64.0).abs() < 1e-12);
    let many = effect(&[0.1; 20]).unwrap();
    assert!(many.flip_p < 0.001, "{many:?}");
    assert!(effect(&[0.1]).is_none());
}
