//! The table: medians with min and max, then the ratios of each peer to the first, then what was left out.

use std::fmt::Write as _;

use crate::Args;
use crate::bench::{Bench, Column};
use crate::child::name;
use crate::figure::{Figure, Round};
use crate::place::Regime;
use crate::rounds::Cost;
use crate::stats::{Spread, median, spread};
use crate::verdict::Record;

/// The text of a bench's outcome.
pub(crate) fn render(bench: Bench, args: &Args, records: &[Record], cost: &Cost) -> String {
    let mut text = format!(
        "{}\n2 pinned cores, {} rounds of {} s wanted; median [min..max]\n",
        bench.title(args),
        args.rounds,
        args.seconds
    );
    text.push_str(&aligned(&figures(bench, args, records)));
    let ratios = ratios(bench, args, records);
    if ratios.len() > 1 {
        let first = name(&args.peers[0]);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nratio to {first} in the same round and place; median [min..max]");
        text.push_str(&aligned(&ratios));
    }
    text.push('\n');
    for (peer, record) in args.peers.iter().zip(records) {
        if let Some(note) = note(record, args.rounds) {
            let _ = writeln!(text, "{}: {note}", name(peer));
        }
    }
    let _ = writeln!(text, "{}", probe(cost, args));
    text
}

/// Rounds of a record in a regime.
fn rounds_in(record: &Record, regime: Regime) -> Vec<&Round> {
    record.clean.iter().filter(|(_, at, _)| *at == regime).map(|(_, _, round)| round).collect()
}

fn figures(bench: Bench, args: &Args, records: &[Record]) -> Vec<Vec<String>> {
    let columns = bench.columns();
    let mut head = vec!["peer".to_owned(), "place".to_owned(), "n".to_owned()];
    head.extend(columns.iter().map(|column| column.name.to_owned()));
    head.extend(["faults", "waited %"].map(str::to_owned));
    let mut lines = vec![head];
    for regime in Regime::ALL {
        for (peer, record) in args.peers.iter().zip(records) {
            let rounds = rounds_in(record, regime);
            if rounds.is_empty() {
                continue;
            }
            let mut line = vec![name(peer), regime.name().to_owned(), rounds.len().to_string()];
            line.extend(columns.iter().enumerate().map(|(at, column)| cell(&rounds, at, *column)));
            let faults = rounds.iter().map(|round| round.used.faults as f64).collect();
            line.push(median(faults).map_or_else(String::new, |faults| format!("{faults:.0}")));
            line.push(waited(&rounds));
            lines.push(line);
        }
    }
    lines
}

/// The figure of a column over rounds: known when it is in all of them.
fn cell(rounds: &[&Round], at: usize, column: Column) -> String {
    let figures: Vec<&Figure> = rounds.iter().filter_map(|round| round.figures.get(at)).collect();
    let unknown = figures.iter().find_map(|figure| match figure {
        Figure::Unknown(why) => Some(why.clone()),
        Figure::Known(_) => None,
    });
    if let Some(why) = unknown {
        return why;
    }
    let values = figures.iter().filter_map(|figure| figure.known()).collect();
    match spread(values) {
        Some(spread) if column.compared => with_ends(spread, column.digits),
        Some(Spread { median, .. }) => format!("{median:.0$}", column.digits),
        None => "unknown".to_owned(),
    }
}

fn with_ends(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max, .. } = spread;
    format!("{median:.digits$} [{min:.digits$}..{max:.digits$}]")
}

/// Share of the two cores' time that the peer's threads were ready and did not run.
fn waited(rounds: &[&Round]) -> String {
    let share = |round: &Round| {
        let window_us = (round.window_ns[1] - round.window_ns[0]) as f64 / 1e3;
        round.used.waited_us.map(|waited_us| 100.0 * waited_us / (2.0 * window_us))
    };
    let shares: Option<Vec<f64>> = rounds.iter().map(|round| share(round)).collect();
    shares.and_then(median).map_or_else(|| "unknown".to_owned(), |share| format!("{share:.1}"))
}

fn ratios(bench: Bench, args: &Args, records: &[Record]) -> Vec<Vec<String>> {
    let compared: Vec<(usize, &Column)> =
        bench.columns().iter().enumerate().filter(|(_, column)| column.compared).collect();
    let mut head = vec!["peer".to_owned(), "place".to_owned(), "pairs".to_owned()];
    head.extend(compared.iter().map(|(_, column)| column.name.to_owned()));
    let mut lines = vec![head];
    for regime in Regime::ALL {
        for (peer, record) in args.peers.iter().zip(records).skip(1) {
            let pairs = pairs(&records[0], record, regime);
            if pairs.is_empty() {
                continue;
            }
            let mut line = vec![name(peer), regime.name().to_owned(), pairs.len().to_string()];
            line.extend(compared.iter().map(|(at, _)| ratio(&pairs, *at)));
            lines.push(line);
        }
    }
    lines
}

/// Rounds of the same number that were clean for both in the same regime.
fn pairs<'a>(first: &'a Record, other: &'a Record, regime: Regime) -> Vec<(&'a Round, &'a Round)> {
    let in_regime =
        |record: &'a Record| record.clean.iter().filter(move |(_, at, _)| *at == regime);
    in_regime(first)
        .flat_map(|(number, _, round)| {
            in_regime(other)
                .filter(move |(theirs, ..)| theirs == number)
                .map(move |(_, _, theirs)| (round, theirs))
        })
        .collect()
}

/// The ratio over the pairs in which both figures are known.
fn ratio(pairs: &[(&Round, &Round)], at: usize) -> String {
    let of = |round: &Round| round.figures.get(at).and_then(Figure::known);
    let values: Vec<f64> = pairs
        .iter()
        .filter_map(|(first, other)| Some(of(other)? / of(first)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    match spread(values) {
        Some(spread) if spread.count == pairs.len() => with_ends(spread, 2),
        Some(spread) => format!("{} of {}", with_ends(spread, 2), spread.count),
        None => "unknown".to_owned(),
    }
}

/// What is to be said of a peer: nothing when all its rounds were clean at once.
fn note(record: &Record, wanted: u32) -> Option<String> {
    let clean = record.clean.len();
    if record.why.is_none() && clean == wanted as usize && record.attempts == wanted {
        return None;
    }
    let mut parts = Vec::new();
    parts.extend(record.why.clone());
    if record.attempts > 1 || record.why.is_none() {
        parts.push(format!("{clean} of {wanted} rounds clean in {} attempts", record.attempts));
    }
    let counts = [
        (record.disturbed, "disturbed by a stall over 1 ms"),
        (record.moved, "with another place after than before"),
        (record.hung, "hung"),
        (record.failed, "failed"),
    ];
    let counted = counts.iter().filter(|(count, _)| *count > 0);
    parts.extend(counted.map(|(count, what)| format!("{count} {what}")));
    Some(parts.join(", "))
}

fn probe(cost: &Cost, args: &Args) -> String {
    if args.probe_us == 0 {
        return "hiccup probe: off, rounds with stalls are among these".to_owned();
    }
    let per_round_ms = 1e3 * cost.cpu_s / f64::from(cost.attempts.max(1));
    let share = 100.0 * cost.cpu_s / cost.ran_s.max(f64::MIN_POSITIVE);
    format!(
        "hiccup probe: {}, {per_round_ms:.1} ms of CPU per attempt, {share:.2} % of a core for both cores",
        cost.schedule.name()
    )
}

/// Columns as wide as they need to be; the first left, the others right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        for (at, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = if at == 0 {
                write!(text, "{cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hiccup::Schedule;
    use crate::peers::Peer;
    use crate::usage::Used;

    fn round(first: Figure, second: f64) -> Round {
        let figures = vec![first, Figure::Known(second)];
        Round { window_ns: [0, 1_000], used: Used::default(), figures }
    }

    fn record(rounds: &[(usize, Regime, f64)]) -> Record {
        let clean = rounds
            .iter()
            .map(|&(number, regime, value)| (number, regime, round(value.into(), value)))
            .collect::<Vec<_>>();
        Record { attempts: clean.len() as u32, clean, ..Record::default() }
    }

    fn args() -> Args {
        let peers = vec![Peer::TokioCt, Peer::Tailbeam, Peer::Monoio];
        Args { peers, rounds: 3, ..Args::for_tests() }
    }

    fn table(records: &[Record]) -> String {
        let cost = Cost { schedule: Schedule::Fifo, attempts: 9, cpu_s: 0.09, ran_s: 9.0 };
        render(Bench::Same, &args(), records, &cost)
    }

    fn line<'a>(text: &'a str, start: &str, nth: usize) -> Vec<&'a str> {
        let line = text.lines().filter(|line| line.starts_with(start)).nth(nth).expect("a line");
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn ratios_pair_rounds_of_the_same_number_and_place() {
        use Regime::{Far, Near};
        let first = record(&[(0, Near, 10.0), (1, Near, 20.0), (2, Far, 100.0)]);
        let ours = record(&[(0, Near, 5.0), (1, Near, 2.0), (2, Near, 1.0)]);
        let text = table(&[first, ours, Record::default()]);
        assert_eq!(line(&text, "tokio-ct", 0)[..4], ["tokio-ct", "near", "2", "15.0 [10.0..20.0]"]);
        assert_eq!(line(&text, "tokio-ct", 1)[..3], ["tokio-ct", "far", "1"]);
        assert_eq!(line(&text, "tailbeam", 0)[2..4], ["3", "2.0 [1.0..5.0]"]);
        let ratios = line(&text, "tailbeam", 1);
        assert_eq!(ratios[..4], ["tailbeam", "near", "2", "0.30 [0.10..0.50]"]);
        assert!(text.contains("10.0 ms of CPU per attempt, 1.00 % of a core"), "{text}");
    }

    #[test]
    fn what_is_unknown_says_why_and_has_no_ratio() {
        let first = record(&[(0, Regime::Near, 10.0)]);
        let unknown = round(Figure::Unknown("none in 5 s".to_owned()), 2.0);
        let other = Record { clean: vec![(0, Regime::Near, unknown)], ..Record::default() };
        let text = table(&[first, Record::default(), other]);
        assert_eq!(line(&text, "monoio", 0)[3..5], ["none in 5 s", "2.0 [2.0..2.0]"]);
        assert_eq!(line(&text, "monoio", 1)[3..], ["unknown", "0.20 [0.20..0.20]"]);
    }

    #[test]
    fn what_was_left_out_is_counted() {
        let disturbed = Record { attempts: 9, disturbed: 6, moved: 1, ..record(&[]) };
        let not_run =
            Record { attempts: 1, why: Some("not run: no cores".to_owned()), ..Record::default() };
        let whole =
            record(&[(0, Regime::Near, 1.0), (1, Regime::Near, 1.0), (2, Regime::Near, 1.0)]);
        let text = table(&[whole, disturbed, not_run]);
        assert!(text.contains("monoio: not run: no cores\n"), "{text}");
        assert!(text.contains(
            "tailbeam: 0 of 3 rounds clean in 9 attempts, 6 disturbed by a stall over 1 ms, 1 with"
        ));
        assert!(!text.contains("tokio-ct: "), "nothing to say of it");
    }
}
