//! Random programs under simulation, against a model: no message lost or duplicated, no slot leaked, no ask
//! without an end, no timer early, whatever goes wrong with rings, wakes and clocks.

mod bonds;
mod names;
mod nest;
mod node;
mod ops;
mod program;
mod relations;
mod world;

use program::{Outcome, Violation, run};
use world::Planted;

fn judge(result: Result<Outcome, Violation>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(violation) => panic!("{violation}"),
    }
}

#[test]
fn few_seeds_keep_every_promise() {
    for seed in 0..20 {
        let outcome = judge(run(seed, 2_000, Planted::Nothing));
        assert!(outcome.tally.letters_read > 0, "{outcome:?}");
    }
}

/// `TAILBEAM_SIM_SEEDS=from..to`, `TAILBEAM_SIM_OPS=n`.
#[test]
#[ignore = "half a minute: .ci/sim runs it"]
#[expect(clippy::print_stdout, reason = "what a long run has done")]
fn many_seeds_keep_every_promise() {
    let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let seeds = variable("TAILBEAM_SIM_SEEDS", "0..1000");
    let (from, to) = seeds.split_once("..").expect("from..to");
    let seeds = from.parse::<u64>().expect("a number")..to.parse().expect("a number");
    let ops = variable("TAILBEAM_SIM_OPS", "10000").parse().expect("a number");
    let (mut sum, mut leaves) = (Outcome::default(), 0);
    for seed in seeds {
        sum.add(judge(run(seed, ops, Planted::Nothing)));
        leaves += nest::run(seed).unwrap_or_else(|what| panic!("{what}"));
    }
    println!("{sum:#?}, {leaves} lives of leaves below nested supervisors");
}

#[test]
fn nested_supervisors_keep_every_promise() {
    let lives: u64 =
        (0..60).map(|seed| nest::run(seed).unwrap_or_else(|what| panic!("{what}"))).sum();
    assert!(lives > 1_000, "{lives}");
}

#[test]
fn a_seed_repeats_exactly_and_another_differs() {
    for seed in 100..110 {
        let first = judge(run(seed, 1_000, Planted::Nothing));
        assert_eq!(judge(run(seed, 1_000, Planted::Nothing)), first);
        assert_ne!(judge(run(seed + 1, 1_000, Planted::Nothing)).trace_hash, first.trace_hash);
    }
}

/// The model must find each planted bug and name it, in a few short runs.
#[test]
fn planted_bugs_are_found() {
    let planted = [
        (Planted::HandledTwice, "and then Read"),
        (Planted::Lost, "is lost"),
        (Planted::Overtaken, "was overtaken"),
        (Planted::AskLeaked, "asks: "),
        (Planted::TimerTwice, "it was Pending"),
        (Planted::TimerEarly, "ns early"),
        (Planted::PollUnseen, "woken and not polled"),
        (Planted::ForwardedTwice, "and then Read"),
        (Planted::RestartLosesMail, "is lost"),
        (Planted::DownTwice, "whose watch was Open"),
        (Planted::DownUnseen, "never told"),
        (Planted::EndsUncaused, "without a cause"),
        (Planted::PublishedTwice, "has read publication"),
        (Planted::NameTwice, "has got the name"),
        (Planted::ReadUnseen, "its account is"),
    ];
    for (planted, word) in planted {
        let mut violations = (0..60).filter_map(|seed| run(seed, 2_000, planted).err());
        let found = violations.find(|violation| violation.what.contains(word));
        let Some(found) = found else { panic!("{planted:?} was not found") };
        let again = run(found.seed, 2_000, planted).expect_err("it repeats").what;
        assert_eq!(again, found.what);
    }
}
