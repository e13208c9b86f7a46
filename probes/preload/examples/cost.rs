//! What the preloaded object costs a C program: `cargo run --release -p tailbeam-preload --example cost`.
//!
//! Each round runs a program plain, recorded, recorded, plain (ABBA), all pinned to one core; the ratio of
//! a round is that of the geometric means. Printed: mean ratio with its 95 % interval over the rounds, and
//! the median. `cost ROUNDS` changes their number (20).
//! The programs time themselves; starting and ending a process are not in the figures.
#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]
#![expect(clippy::expect_used, reason = "a benchmark reports by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Name, source, arguments.
const PROGRAMS: [(&str, &str, &[&str]); 4] = [
    ("JSON and a tree", "cost_real.c", &["30000"]),
    ("loop: churn", "cost_loop.c", &["churn", "8000000"]),
    ("loop: batch", "cost_loop.c", &["batch", "20000000"]),
    ("loop: lifo", "cost_loop.c", &["lifo", "20000000"]),
];
/// Name, mean bytes, exact.
const MODES: [(&str, u32, u32); 2] = [("512 KiB", 512 << 10, 0), ("64 KiB", 64 << 10, 0)];

struct Bench {
    work: PathBuf,
    object: PathBuf,
}

impl Bench {
    fn ns(&self, program: &Path, args: &[&str], mode: Option<(u32, u32)>) -> f64 {
        let mut command = Command::new(program);
        command.args(args);
        if let Some((mean, exact)) = mode {
            let run = self.work.join("run");
            let _ = std::fs::remove_dir_all(&run);
            std::fs::create_dir(&run).expect("a temporary directory can be filled");
            command.env("LD_PRELOAD", &self.object);
            command.env("TAILBEAM_HEAP", format!("1;{mean};{exact};{}", run.display()));
            let output = command.output().expect("starts");
            let state = run.join("heap.tbh");
            assert!(state.exists(), "nothing was recorded: {output:?}");
            return figure(&output.stdout);
        }
        figure(&command.output().expect("starts").stdout)
    }

    fn round(&self, program: &Path, args: &[&str], mode: (u32, u32)) -> f64 {
        let [a, b, c, d] =
            [None, Some(mode), Some(mode), None].map(|m| self.ns(program, args, m).ln());
        (b + c - a - d) / 2.0
    }
}

fn figure(stdout: &[u8]) -> f64 {
    let text = String::from_utf8_lossy(stdout);
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("the program prints its ns first")
}

fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(20, |n| n.parse().expect("a number"));
    let core = *core_affinity::get_core_ids().expect("known").last().expect("one at least");
    assert!(core_affinity::set_for_current(core), "cannot pin to {core:?}");
    let object = object();
    let work = std::env::temp_dir().join(format!("tailbeam-cost-{}", std::process::id()));
    std::fs::create_dir_all(&work).expect("a temporary directory");
    let bench = Bench { work: work.clone(), object };
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/heap");
    println!("preloaded against plain glibc, core {}, {rounds} rounds ABBA", core.id);
    for (name, source, args) in PROGRAMS {
        let program = work.join(source.trim_end_matches(".c"));
        let source = sources.join(source);
        let cc = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status();
        assert!(cc.is_ok_and(|status| status.success()), "cc is needed");
        for (mode, mean, exact) in MODES {
            bench.round(&program, args, (mean, exact));
            let mut logs: Vec<f64> =
                (0..rounds).map(|_| bench.round(&program, args, (mean, exact))).collect();
            println!("{name:<16} sampled at {mode:<8} {}", summary(&mut logs));
        }
    }
    std::fs::remove_dir_all(&work).expect("our own directory");
}

/// Builds the object as it is shipped: cargo does not do so for an example.
fn object() -> PathBuf {
    let this = std::env::current_exe().expect("known");
    let profile = this.parent().and_then(Path::parent).expect("target/release/examples");
    let target = profile.parent().expect("target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "--locked", "-p", "tailbeam-preload"]);
    let built =
        cargo.env("CARGO_TARGET_DIR", target).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.is_ok_and(|status| status.success()), "the object does not build");
    target.join("release/libtailbeam_preload.so")
}

/// Mean with a 95 % interval (Student's t as 2.1: 19 degrees of freedom and more), and median.
fn summary(logs: &mut [f64]) -> String {
    logs.sort_by(f64::total_cmp);
    let n = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let half = 2.1 * (variance / n).sqrt();
    let percent = |log: f64| 100.0 * log.exp_m1();
    format!(
        "{:+.2} % [{:+.2}, {:+.2}]  median {:+.2} %",
        percent(mean),
        percent(mean - half),
        percent(mean + half),
        percent(logs[logs.len() / 2])
    )
}
