//! The judgements that need no statistics of blocks, and the combination of all of them.

use super::{Gate, GateResult, GateVerdict, Outcomes, Overall, Validity};

/// Fewer completions per agent than this say more about chance than about starvation.
const FAIR_MEAN: f64 = 30.0;

/// A result with everything but the verdict filled in.
fn result(gate: &Gate, n: u64, measured: String) -> GateResult {
    GateResult {
        gate: gate.name(),
        requirement: gate.requirement(),
        measured,
        n,
        blocks: None,
        verdict: GateVerdict::Inconclusive,
        reason: String::new(),
        needs_more_s: None,
        latency: false,
    }
}

fn decided(mut result: GateResult, pass: bool, reason: &str) -> GateResult {
    result.verdict = if pass { GateVerdict::Pass } else { GateVerdict::Fail };
    reason.clone_into(&mut result.reason);
    result
}

fn open(mut result: GateResult, reason: &str, needs_more_s: Option<f64>) -> GateResult {
    reason.clone_into(&mut result.reason);
    result.needs_more_s = needs_more_s;
    result
}

/// Attempts against the sum of outcomes; no tolerance. `sealed`: whether the run has its end record.
#[must_use]
pub fn outcome_sum(gate: &Gate, outcomes: &Outcomes, sealed: bool, open_last: u64) -> GateResult {
    let result =
        result(gate, outcomes.attempts, format!("{} of {}", outcomes.sum(), outcomes.attempts));
    if outcomes.attempts == 0 {
        return open(result, "nothing was attempted", None);
    }
    if !sealed {
        let reason =
            format!("the run was not sealed; {open_last} requests were open at the last sample");
        return open(result, &reason, None);
    }
    decided(
        result,
        outcomes.sum() == outcomes.attempts,
        "every attempt must have exactly one outcome",
    )
}

/// Fewest seconds of which a rate is judged.
const RATE_SECONDS: usize = 30;

/// Replies per second, one value for each second: PASS when the lower 95 % bound of the mean reaches the limit,
/// FAIL when the upper one does not. Neighbouring seconds resemble each other, so the error of the mean is
/// widened by `(1 + phi) / (1 - phi)` for their lag-1 correlation (statistics.md).
#[must_use]
pub fn throughput(gate: &Gate, at_least_per_s: f64, rates: &[f64]) -> GateResult {
    let n = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / n;
    let measured = if rates.is_empty() { "unknown".to_owned() } else { format!("{mean:.0}/s") };
    let result = result(gate, rates.len() as u64, measured);
    if rates.len() < RATE_SECONDS {
        let reason = format!("a rate is judged by {RATE_SECONDS} seconds or more");
        return open(result, &reason, Some((RATE_SECONDS - rates.len()) as f64));
    }
    let squares: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
    let products: f64 = rates.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum();
    let lag1 = if squares > 0.0 { products / squares } else { 0.0 };
    // Kendall's correction for short series, as in probes::stats::trend.
    let phi = (lag1 + (1.0 + 4.0 * lag1) / n).clamp(0.0, 0.9);
    let error = (squares / (n - 1.0) / n * (1.0 + phi) / (1.0 - phi)).sqrt();
    // 2.1 is above Student's 97.5 % point from 22 degrees of freedom on.
    let (low, high) = (2.1f64.mul_add(-error, mean), 2.1f64.mul_add(error, mean));
    let bounds = format!("95 % bounds {low:.0}/s and {high:.0}/s");
    if low >= at_least_per_s {
        decided(result, true, &bounds)
    } else if high < at_least_per_s {
        decided(result, false, &bounds)
    } else {
        open(result, &format!("{bounds}: the limit lies between them"), Some(n))
    }
}

/// Requests that were open before their deadline when the run was stopped are neither answered nor not:
/// a PASS that they could turn is none.
#[must_use]
pub fn undecided_requests(
    mut result: GateResult,
    at_least: f64,
    outcomes: &Outcomes,
) -> GateResult {
    let waiting = outcomes.open_at_stop;
    let at_worst = outcomes.delivery();
    if waiting > 0 && result.verdict == GateVerdict::Pass && at_worst < Some(at_least) {
        result.verdict = GateVerdict::Inconclusive;
        result.reason =
            format!("{waiting} requests were open before their deadline when the run was stopped");
    }
    result
}

/// Little's law: throughput x mean time / outstanding, with the half-width of its 95 % interval. PASS needs
/// the interval inside the band, FAIL needs it outside.
#[must_use]
pub fn little(gate: &Gate, within: f64, ratio: Option<(f64, f64)>, samples: u64) -> GateResult {
    let Some((ratio, error)) = ratio else {
        return open(
            result(gate, samples, "unknown".to_owned()),
            "there is nothing to compare",
            None,
        );
    };
    // A hole from outside has requests and no samples, so it disturbs this sum as it does latency.
    let result = GateResult {
        latency: true,
        ..result(gate, samples, format!("ratio {ratio:.4} +- {error:.4}"))
    };
    if samples < 30 {
        return open(result, "fewer than 30 samples of the number outstanding", Some(3.0));
    }
    let off = (ratio - 1.0).abs();
    if off + error > within && off - error <= within {
        let reason = "the number outstanding was sampled too rarely for so small a load";
        return open(result, reason, None);
    }
    decided(result, off <= within, "requests would be missing from the latencies, or counted twice")
}

/// Share of the requests whose agents must be known. What they did in the rest is not seen, so it must be small beside a
/// ratio of two.
const COUNTED_MIN: f64 = 0.95;

/// Spread of completions per agent, given as (min, max, mean, agents), and the share of the requests that it is of;
/// `length_s` is how long they took.
#[must_use]
pub fn fairness(
    gate: &Gate,
    limit: f64,
    (spread, counted): (Option<(u64, u64, f64, u64)>, f64),
    length_s: f64,
) -> GateResult {
    let Some((min, max, mean, agents)) = spread else {
        let unknown = result(gate, 0, "unknown".to_owned());
        let reason = "per-agent counts are written from time to time and at the end; it was cut before any was";
        return open(unknown, reason, None);
    };
    let mut text = format!("min {min}, mean {mean:.1}, max {max}");
    if counted < 1.0 {
        text.push_str(&format!(", of {:.1} % of the requests", counted * 100.0));
    }
    let result = result(gate, agents, text);
    if counted < COUNTED_MIN {
        let reason =
            "an epoch was cut, and what its agents did since their last counts is not known";
        // As much again as would make the rest small.
        let needed = length_s * (1.0 - counted) / (1.0 - COUNTED_MIN) - length_s;
        return open(result, reason, (needed > 0.0).then_some(needed));
    }
    if mean < FAIR_MEAN {
        let needed = (mean > 0.0).then(|| length_s * (FAIR_MEAN / mean) - length_s);
        let reason = format!(
            "{mean:.1} completions per agent; below {FAIR_MEAN} chance alone spreads them this much"
        );
        return open(result, &reason, needed);
    }
    decided(
        result,
        min > 0 && max as f64 / (min as f64) < limit,
        "the slowest agent against the fastest",
    )
}

/// How late the requests of a run were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sends {
    /// P99 of the lateness, ns.
    pub p99_ns: Option<u64>,
    /// Sends.
    pub n: u64,
    /// Of those, later than the limit.
    pub late: u64,
    /// Requests that the generator's own tables had no room for.
    pub exhausted: u64,
    /// Largest share of a core's time that other programs had while its shard was ready.
    pub taken: f64,
}

/// Other programs can explain late sends up to this multiple of the time they took: one that competes at
/// equal weight takes every other slice, so twice the time it takes is disturbed.
const DISTURBED_PER_TAKEN: f64 = 2.0;

/// Lateness of the sends. Late because our own cores were busy is the subject's doing: it FAILs. A
/// generator whose own tables were full measured something else than it was asked, and late sends that the
/// time other programs took can explain may be theirs: INCONCLUSIVE.
#[must_use]
pub fn generator(
    gate: &Gate,
    limit_ns: u64,
    Sends { p99_ns, n, late, exhausted, taken }: Sends,
) -> GateResult {
    let Some(p99_ns) = p99_ns else {
        return open(result(gate, n, "unknown".to_owned()), "too few sends for a P99", None);
    };
    let mut result = result(gate, n, format!("{:.3} ms", p99_ns as f64 / 1e6));
    result.latency = true;
    if exhausted > 0 {
        return open(
            result,
            &format!("generator exhausted: {exhausted} requests were not sent or timed"),
            None,
        );
    }
    let late_share = late as f64 / n.max(1) as f64;
    if p99_ns >= limit_ns && late_share <= taken * DISTURBED_PER_TAKEN {
        let reason = format!(
            "{:.2} % of the sends were late, and other programs had a core for {:.2} % of the time; run alone",
            late_share * 100.0,
            taken * 100.0
        );
        return open(result, &reason, None);
    }
    decided(result, p99_ns < limit_ns, "lateness of sends counts in every latency")
}

/// What the comparisons of a run's stages, cores and samples came to, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conserved {
    /// Comparisons that agree.
    pub agree: u64,
    /// Those that do not, and where.
    pub failed: Vec<String>,
    /// Those without which it is not known whether requests add up, and that could not be made.
    pub open: Vec<String>,
    /// Others that could not be made: what the host does not tell, and samples of which there are too few.
    pub unmade: Vec<String>,
}

/// Whether the time of a run adds up; `Err`: why it was not compared. What the host does not tell is no
/// fault of the run's, and is said.
#[must_use]
pub fn conservation(gate: &Gate, conserved: Result<&Conserved, &String>) -> GateResult {
    let found = match conserved {
        Ok(found) => found,
        Err(why) => return open(result(gate, 0, "unknown".to_owned()), why, None),
    };
    let made = found.agree + found.failed.len() as u64;
    let measured = format!("{} of {made} comparisons agree", found.agree);
    // A hole from outside has requests and no samples of the number outstanding.
    let result = GateResult { latency: true, ..result(gate, made, measured) };
    if let Some(failed) = first_of(&found.failed) {
        return decided(result, false, &format!("FAIL conservation: {failed}"));
    }
    if let Some(open_one) = first_of(&found.open) {
        return open(result, &open_one, None);
    }
    if made == 0 {
        return open(result, "nothing was compared", None);
    }
    let reason = first_of(&found.unmade).map_or_else(
        || "every comparison was made".to_owned(),
        |unmade| format!("not compared: {unmade}"),
    );
    decided(result, true, &reason)
}

/// The first of a list, and how many there are more.
fn first_of(list: &[String]) -> Option<String> {
    let first = list.first()?;
    Some(match list.len() {
        1 => first.clone(),
        n => format!("{first} (and {} more)", n - 1),
    })
}

/// Applies the validity checks to the gates and concludes: GO only if every gate passes and every check
/// holds, NO-GO if any gate fails, INCONCLUSIVE otherwise; also when no gate was asked for.
pub fn combine(gates: &mut [GateResult], validity: &[Validity]) -> Overall {
    for broken in validity.iter().filter(|check| !check.holds && check.outside) {
        for gate in gates
            .iter_mut()
            .filter(|gate| gate.latency && gate.verdict != GateVerdict::Inconclusive)
        {
            gate.verdict = GateVerdict::Inconclusive;
            gate.reason.clone_from(&broken.text);
        }
    }
    let any = |verdict| gates.iter().any(|gate| gate.verdict == verdict);
    if any(GateVerdict::Fail) {
        return Overall::NoGo;
    }
    let valid = validity.iter().all(|check| check.holds);
    if gates.is_empty() || any(GateVerdict::Inconclusive) || !valid {
        Overall::Inconclusive
    } else {
        Overall::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIR: Gate = Gate::Fairness { max_over_min: 2.0 };
    const LITTLE: Gate = Gate::LittlesLaw { within: 0.05 };
    const GENERATOR: Gate = Gate::Generator { p99_lateness_ns: 3_000_000 };

    #[test]
    fn a_rate_is_judged_by_its_interval() {
        use GateVerdict::{Fail, Inconclusive, Pass};
        let gate = Gate::Throughput { at_least_per_s: 100.0 };
        let around = |mean: f64| (0..60).map(|i| mean + f64::from(i % 3) - 1.0).collect::<Vec<_>>();
        let verdict = |rates: &[f64]| throughput(&gate, 100.0, rates).verdict;
        assert_eq!(verdict(&around(105.0)), Pass);
        assert_eq!(verdict(&around(95.0)), Fail);
        assert_eq!(verdict(&around(100.05)), Inconclusive);
        assert_eq!(verdict(&around(105.0)[..29]), Inconclusive);
        assert_eq!(verdict(&[]), Inconclusive);
        // Neighbours that resemble each other say less: a slow swing is not sixty independent seconds.
        let swing: Vec<f64> = (0..60).map(|i| 100.6 + 2.0 * (f64::from(i) / 8.0).sin()).collect();
        assert_eq!(verdict(&swing), Inconclusive);
    }

    #[test]
    fn each_gate_can_pass_fail_and_stay_open() {
        use GateVerdict::{Fail, Inconclusive, Pass};
        let closed = Outcomes { attempts: 10, ok: 9, expired: 1, ..Outcomes::default() };
        let leaky = Outcomes { attempts: 11, ..closed };
        let sum = |outcomes, sealed| outcome_sum(&Gate::Outcomes {}, outcomes, sealed, 0).verdict;
        assert_eq!(
            (sum(&closed, true), sum(&leaky, true), sum(&closed, false)),
            (Pass, Fail, Inconclusive)
        );
        assert_eq!(sum(&Outcomes::default(), true), Inconclusive);
        let law = |ratio: Option<f64>, samples| {
            little(&LITTLE, 0.05, ratio.map(|ratio| (ratio, 0.009)), samples).verdict
        };
        assert_eq!((law(Some(1.045), 99), law(Some(0.945), 99)), (Inconclusive, Inconclusive));
        assert_eq!(
            (law(Some(1.04), 99), law(Some(0.9), 99), law(Some(1.1), 99)),
            (Pass, Fail, Fail)
        );
        assert_eq!((law(Some(1.0), 9), law(None, 99)), (Inconclusive, Inconclusive));
        let fair = |spread| fairness(&FAIR, 2.0, (spread, 1.0), 60.0);
        assert_eq!(fair(Some((90, 110, 100.0, 9))).verdict, Pass);
        assert_eq!(fair(Some((0, 110, 100.0, 9))).verdict, Fail);
        assert_eq!(fair(Some((50, 110, 100.0, 9))).verdict, Fail);
        assert_eq!(fair(None).verdict, Inconclusive);
        let of = |counted| fairness(&FAIR, 2.0, (Some((90, 110, 100.0, 9)), counted), 60.0);
        assert_eq!((of(0.96).verdict, of(0.9).verdict), (Pass, Inconclusive));
        assert!(of(0.96).measured.contains("96.0 %") && of(0.9).needs_more_s.is_some());
        assert_eq!(fair(Some((5, 31, 18.0, 9))).needs_more_s, Some(40.0));
        let sends = |p99_ns, exhausted, taken| {
            let sends = Sends { p99_ns, n: 1_000, late: 40, exhausted, taken };
            generator(&GENERATOR, 3_000_000, sends).verdict
        };
        let late = |p99_ns, exhausted| sends(p99_ns, exhausted, 0.0);
        let slow = Some(9_000_000);
        assert_eq!(
            [sends(Some(1), 0, 0.02), sends(slow, 0, 0.02), sends(slow, 0, 0.019)],
            [Pass, Inconclusive, Fail],
            "4 % late are explained by 2 % taken and by no less"
        );
        assert_eq!((late(Some(1), 0), late(Some(3_000_000), 0)), (Pass, Fail));
        assert_eq!((late(Some(1), 1), late(None, 0)), (Inconclusive, Inconclusive));
    }

    #[test]
    fn what_does_not_add_up_fails_and_what_the_host_does_not_tell_is_said() {
        use GateVerdict::{Fail, Inconclusive, Pass};
        let gate = Gate::Conservation {};
        let list = |n: usize| vec!["stages = latency, p99-p99.9: in hop".to_owned(); n];
        let judged = |failed, open, unmade| {
            let found = Conserved {
                agree: 20,
                failed: list(failed),
                open: list(open),
                unmade: list(unmade),
            };
            conservation(&gate, Ok(&found))
        };
        let verdict = |failed, open, unmade| judged(failed, open, unmade).verdict;
        assert_eq!(
            [verdict(0, 0, 0), verdict(0, 0, 3), verdict(0, 1, 3), verdict(1, 1, 1)],
            [Pass, Pass, Inconclusive, Fail]
        );
        let failed = judged(2, 0, 0);
        assert_eq!(failed.measured, "20 of 22 comparisons agree");
        assert_eq!(
            failed.reason,
            "FAIL conservation: stages = latency, p99-p99.9: in hop (and 1 more)"
        );
        assert!(judged(0, 0, 2).reason.starts_with("not compared: "));
        let nothing = Conserved::default();
        assert_eq!(conservation(&gate, Ok(&nothing)).verdict, Inconclusive, "no PASS from nothing");
        let why = "no stages".to_owned();
        let unknown = conservation(&gate, Err(&why));
        assert_eq!((unknown.verdict, unknown.reason.as_str()), (Inconclusive, "no stages"));
        let broken = Validity {
            name: "x".into(),
            holds: false,
            text: "process stopped 5.0 s".into(),
            outside: true,
        };
        assert_eq!(combine(&mut [judged(1, 0, 0)], &[broken]), Overall::Inconclusive);
    }

    #[test]
    fn requests_that_were_open_at_a_stop_take_a_pass_away_and_never_make_a_fail() {
        use GateVerdict::{Fail, Inconclusive, Pass};
        let gate = Gate::Delivery { at_least: 0.9 };
        let judged = |verdict, ok, open_at_stop| {
            let outcomes = Outcomes { attempts: 100, ok, open_at_stop, ..Outcomes::default() };
            let result = GateResult { verdict, ..result(&gate, ok, String::new()) };
            undecided_requests(result, 0.9, &outcomes).verdict
        };
        assert_eq!(
            [judged(Pass, 95, 5), judged(Pass, 80, 20), judged(Fail, 80, 20), judged(Pass, 80, 0)],
            [Pass, Inconclusive, Fail, Pass]
        );
    }

    #[test]
    fn nothing_but_all_passes_and_all_valid_is_go() {
        let gate =
            |verdict| GateResult { verdict, latency: true, ..result(&FAIR, 1, String::new()) };
        let check = |holds, outside| Validity {
            name: "x".into(),
            holds,
            text: "process stopped 5.0 s".into(),
            outside,
        };
        use GateVerdict::{Fail, Inconclusive, Pass};
        assert_eq!(combine(&mut [gate(Pass)], &[check(true, true)]), Overall::Go);
        assert_eq!(combine(&mut [], &[]), Overall::Inconclusive);
        assert_eq!(combine(&mut [gate(Pass), gate(Fail)], &[]), Overall::NoGo);
        assert_eq!(combine(&mut [gate(Pass), gate(Inconclusive)], &[]), Overall::Inconclusive);
        assert_eq!(combine(&mut [gate(Pass)], &[check(false, false)]), Overall::Inconclusive);
        let mut stopped = [gate(Fail)];
        assert_eq!(combine(&mut stopped, &[check(false, true)]), Overall::Inconclusive);
        assert_eq!(stopped[0].reason, "process stopped 5.0 s");
        assert_eq!(
            [Overall::Go, Overall::NoGo, Overall::Inconclusive].map(Overall::exit_code),
            [0, 3, 4]
        );
    }
}
