//! What recording costs the program that is recorded: `cargo run --release -p tailbeam --example record_cost -- BURN [PAIRS [ROUNDS [ARGS]]]`
//! with BURN compiled from tests/fixtures/program/burn.c, and tailbeam built beside it.
//!
//! The same work is done bare and recorded, in the order ABBA, and the program's own CPU time compared in
//! pairs: what samples and looks take from it is in there. The interval is that of the median by order
//! statistics, at least 95 %, whatever the differences are distributed like.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to fail")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// CPU time that the program says it took, ns.
fn cpu_ns(command: &mut Command) -> f64 {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Ranks between which the median lies with at least 95 %: the largest `k` with
/// P(Binomial(n, 1/2) < k) <= 2.5 %.
fn ranks(n: usize) -> (usize, usize) {
    let (mut chance, mut below, mut k) = (0.5f64.powi(i32::try_from(n).unwrap()), 0.0, 0);
    while below + chance <= 0.025 && k < n / 2 {
        below += chance;
        chance *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    (k.saturating_sub(1), n - k.max(1))
}

fn tailbeam() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent().and_then(Path::parent).unwrap().join("tailbeam")
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let burn = args.first().expect("the path of burn");
    let number =
        |place: usize, default: usize| args.get(place).map_or(default, |n| n.parse().unwrap());
    let (pairs, rounds) = (number(1, 20), number(2, 1_000).to_string());
    let more: Vec<&String> = args.iter().skip(3).collect();
    let store = tempfile::tempdir().unwrap();
    let bare = || cpu_ns(Command::new(burn).args(["work", &rounds]));
    let recorded = || {
        let mut command = Command::new(tailbeam());
        command.arg("--store").arg(store.path()).args(["record", "-q"]).args(&more);
        cpu_ns(command.arg("--").arg(burn).args(["work", &rounds]))
    };
    let mut differences = Vec::new();
    for pair in 0..pairs {
        // A B, then B A: a drift of the machine cancels.
        let (off, on) = if pair % 2 == 0 {
            let off = bare();
            (off, recorded())
        } else {
            let on = recorded();
            (bare(), on)
        };
        differences.push((on - off) / off * 100.0);
        println!(
            "pair {pair}: bare {:.1} ms, recorded {:.1} ms, {:+.2} %",
            off / 1e6,
            on / 1e6,
            (on - off) / off * 100.0
        );
    }
    differences.sort_by(f64::total_cmp);
    let (low, high) = ranks(pairs);
    println!(
        "recording adds {:+.2} % of the program's CPU time [{:+.2}, {:+.2}], median of {pairs} pairs, interval of at least 95 %",
        differences[pairs / 2],
        differences[low],
        differences[high]
    );
}
