//! Random programs over sockets and files under simulation, against a model: bytes arrive whole, in order and once, or an
//! error says so; a file has what acknowledged writes have written; no slot, buffer or descriptor is left, whatever goes
//! wrong with the ring.

mod files;
mod program;
mod sockets;
mod world;

use std::sync::{Mutex, PoisonError};

use program::{Dir, Outcome, Planted, Violation, run};
use world::Tally;

/// Descriptors are the process', so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn judge(result: Result<Outcome, Violation>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(violation) => panic!("{violation}"),
    }
}

#[test]
fn few_seeds_keep_every_promise() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, mut sum) = (Dir::new(), Tally::default());
    for seed in 0..60 {
        sum.add(&judge(run(seed, &dir, Planted::Nothing)).tally);
    }
    let Tally { whole, sends_dropped, recvs_dropped, bytes_read, panics, kills, starved, .. } = sum;
    let happened = [whole, sends_dropped, recvs_dropped, bytes_read, panics, kills, starved];
    assert!(happened.iter().all(|&count| count > 0), "{sum:#?}");
}

/// `TAILBEAM_SIM_SEEDS=from..to`.
#[test]
#[ignore = "minutes: .ci/sim runs it"]
#[expect(clippy::print_stdout, reason = "what a long run has done")]
fn many_seeds_keep_every_promise() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seeds = std::env::var("TAILBEAM_SIM_SEEDS").unwrap_or_else(|_| "0..1000".to_owned());
    let (from, to) = seeds.split_once("..").expect("from..to");
    let seeds = from.parse::<u64>().expect("a number")..to.parse().expect("a number");
    let (dir, mut sum) = (Dir::new(), Tally::default());
    for seed in seeds {
        sum.add(&judge(run(seed, &dir, Planted::Nothing)).tally);
    }
    println!("{sum:#?}");
}

#[test]
fn a_seed_repeats_exactly_and_another_differs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = Dir::new();
    for seed in 1_000..1_050 {
        let first = judge(run(seed, &dir, Planted::Nothing));
        assert_eq!(judge(run(seed, &dir, Planted::Nothing)), first);
        assert_ne!(judge(run(seed + 1, &dir, Planted::Nothing)).trace_hash, first.trace_hash);
    }
}

#[test]
fn a_ring_that_lies_is_found() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = Dir::new();
    for (planted, words) in [
        (Planted::CompletionsLost, &["never end", "leaked", "holds", "descriptors"][..]),
        (Planted::CountsOverstated, &["ended early", "byte "]),
    ] {
        let found: Vec<_> = (0..20).filter_map(|seed| run(seed, &dir, planted).err()).collect();
        assert!(found.len() >= 5, "{planted:?} was found {} times", found.len());
        let named = |what: &str| words.iter().any(|word| what.contains(word));
        let violation = found.iter().find(|violation| named(&violation.what)).expect("it is named");
        assert_eq!(run(violation.seed, &dir, planted).expect_err("it repeats"), *violation);
    }
}
