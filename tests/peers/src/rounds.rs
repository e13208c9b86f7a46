//! The rounds of one bench: one child per attempt, the order, what is thrown away.

use crate::bench::Bench;
use crate::hiccup::{Probe, Schedule};
use crate::verdict::{Next, Record, Verdict, judge};
use crate::{Args, child, order, place};

/// What the probe cost over all attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) schedule: Schedule,
    pub(crate) attempts: u32,
    pub(crate) cpu_s: f64,
    pub(crate) ran_s: f64,
}

/// Runs a bench; a record per peer of `args`.
pub(crate) fn run(
    bench: Bench,
    args: &Args,
    cores: [usize; 2],
    say: &mut dyn FnMut(&str),
) -> (Vec<Record>, Cost) {
    let mut records = vec![Record::default(); args.peers.len()];
    let mut cost = Cost { schedule: Schedule::Fifo, attempts: 0, cpu_s: 0.0, ran_s: 0.0 };
    for (number, turn) in order::interleaved(args.peers.len(), args.rounds as usize).enumerate() {
        for index in turn {
            while records[index].takes_part(args.rounds) {
                let verdict = attempt(bench, args, (cores, index), &mut cost);
                let what = format!("{} round {} {}", child::name(&bench), number + 1, {
                    child::name(&args.peers[index])
                });
                say(&format!("{what}: {}", describe(&verdict, bench)));
                if records[index].note(number, verdict, args.rounds) == Next::Go {
                    break;
                }
            }
        }
    }
    (records, cost)
}

fn attempt(
    bench: Bench,
    args: &Args,
    (cores, index): ([usize; 2], usize),
    cost: &mut Cost,
) -> Verdict {
    let before = place::round_trip_ns(cores);
    // The kernel's own batches hold the probe up: see the README.
    let probe = Probe::start(cores, if bench == Bench::Echo { 0 } else { args.probe_us });
    let end = child::run(args.peers[index], bench, args);
    let seen = probe.stop();
    let after = place::round_trip_ns(cores);
    cost.schedule = cost.schedule.max(seen.schedule);
    cost.attempts += 1;
    cost.cpu_s += seen.cpu_s;
    cost.ran_s += seen.ran_s;
    judge(end, [before, after], &seen, bench.is_timed())
}

/// A line for who watches.
fn describe(verdict: &Verdict, bench: Bench) -> String {
    match verdict {
        Verdict::Clean(regime, round) => {
            let first = round.figures.first().and_then(|figure| figure.known());
            let text = first.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"));
            format!("{text} {}, {}", bench.columns()[0].name, regime.name())
        }
        Verdict::Disturbed => "disturbed, a core stood still for over 1 ms".to_owned(),
        Verdict::Moved => "moved, the CPUs lie otherwise after it".to_owned(),
        Verdict::Hung(limit_s) => format!("hung, killed after {limit_s} s"),
        Verdict::Failed(why) => format!("failed: {why}"),
        Verdict::NotRun(why) => format!("not run: {why}"),
    }
}
