//! The table: medians, and the ratio of each peer to the first.

use std::fmt::Write as _;

use crate::Args;
use crate::sheet::Outcome;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn render(args: &Args, outcomes: &[Vec<Outcome>]) -> String {
    let mut text = format!(
        "closed-loop ask, {} agents, 2 cores, {} rounds of {} s\n{:<10} {:<5} {:>3} {:>9} {:>15} {:>7} {:>26} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7}\n",
        args.agents,
        args.rounds,
        args.seconds,
        "peer",
        "place",
        "n",
        "M ask/s",
        "min..max",
        "ratio",
        "per agent min/p1/p50/max",
        "starved",
        "refused",
        "p50 us",
        "p99 us",
        "p999 us",
        "little"
    );
    for regime in ["near", "far"] {
        let in_regime = |peer: usize| -> Vec<&Outcome> {
            outcomes[peer].iter().filter(|outcome| outcome.regime == regime).collect()
        };
        let base = median(in_regime(0).iter().map(|outcome| outcome.per_s).collect());
        for (index, peer) in args.peers.iter().enumerate() {
            let rounds = in_regime(index);
            if !rounds.is_empty() {
                row(&mut text, peer, regime, &rounds, base);
            }
        }
    }
    text
}

fn row(text: &mut String, peer: &str, regime: &str, rounds: &[&Outcome], base: f64) {
    let of =
        |take: &dyn Fn(&Outcome) -> f64| median(rounds.iter().map(|round| take(round)).collect());
    let rates = rounds.iter().map(|round| round.per_s / 1e6);
    let (min, max) = rates.fold((f64::MAX, 0.0f64), |(min, max), r| (min.min(r), max.max(r)));
    let agents = [0, 1, 2, 3].map(|i| format!("{:.0}", of(&|r| f64::from(r.agents[i])))).join("/");
    let known = |take: &dyn Fn(&Outcome) -> Option<f64>| -> Option<f64> {
        let values: Option<Vec<f64>> = rounds.iter().map(|round| take(round)).collect();
        values.map(median)
    };
    let text_of = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.digits$}"))
    };
    let us = |i: usize| text_of(known(&|r| Some(r.latency_ns?[i] as f64 / 1e3)), 1);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{peer:<10} {regime:<5} {:>3} {:>9.2} {:>15} {:>7.2} {agents:>26} {:>8.0} {:>8.0} {:>8} {:>8} {:>8} {:>7}",
        rounds.len(),
        of(&|r| r.per_s) / 1e6,
        format!("{min:.2}..{max:.2}"),
        of(&|r| r.per_s) / base,
        of(&|r| f64::from(r.starved)),
        of(&|r| r.refused as f64),
        us(0),
        us(1),
        us(2),
        text_of(known(&|r| r.little), 3),
    );
}
