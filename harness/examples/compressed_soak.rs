//! A soak of days on a clock that is a number, and whether the harness itself grows meanwhile:
//! `cargo run --release -p tailbeam-harness --example compressed_soak -- REQUESTS [DIR [LEAK]]`.
//!
//! REQUESTS (default 1,000,000,000: 91 hours at 3,030/s) are made up; recorder, windows, frames and report are those
//! of a run of agents. The resident set of this process is read at the end of each window of ten virtual seconds.
//! Ends with 3 when its slope is not below 0.1 MB per virtual hour, with 1 when a request is missing or it cannot run. LEAK bytes per
//! virtual hour are kept on purpose, to see that it does. A short run cannot tell such a slope from one buffer that
//! found its size: below ten hours a megabyte in all is let pass.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tailbeam_harness::drive::synthetic::Synthetic;
use tailbeam_harness::evidence::{Store, read_run, records::Reading};
use tailbeam_harness::plan::Plan;
use tailbeam_harness::report;
use tailbeam_probes::clock;
use tailbeam_probes::collect::process;
use tailbeam_probes::stats::trend;

type Failure = Box<dyn std::error::Error>;

/// What the soak preset offers: 10,000 agents, 3.3 s each.
const PER_S: u64 = 3_030;
/// The resident set may grow by less, bytes per virtual hour; in a short run by less in all.
const LIMIT: f64 = 1e5;
const SHORT: f64 = 1e6;
/// In so much of the run, from its begin, buffers find their size: one part of this many.
const WARM_UP: usize = 10;

/// Exit code: it grows.
const GROWS: u8 = 3;

fn main() -> Result<ExitCode, Failure> {
    let mut args = std::env::args().skip(1);
    let requests: u64 = args.next().map_or(Ok(1_000_000_000), |text| text.parse())?;
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("compressed-soak-{}", std::process::id()));
    let leak: u64 = args.next().map_or(Ok(0), |text| text.parse())?;
    let outcome = soak(requests, &dir, leak);
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn soak(requests: u64, dir: &Path, leak: u64) -> Result<ExitCode, Failure> {
    let seconds = requests.div_ceil(PER_S);
    let plan = Plan { duration_ns: seconds * 1_000_000_000, ..Plan::soak("synthetic") };
    let began_ns = clock::monotonic_ns();
    let mut run = Synthetic::create(&Store::open(dir)?, plan, "a boot")?;
    let mut kept = Vec::new();
    let mut left = requests;
    for second in 0..seconds {
        let now = left.min(PER_S);
        left -= now;
        let _ = run.second(now)?;
        if leak > 0 {
            kept.push(vec![1u8; usize::try_from(leak / 3_600)?]);
        }
        if second % 36_000 == 0 {
            let rss = process::memory().map(|memory| memory.rss_bytes as f64 / 1e6)?;
            println!("{:>5} h  {:>13} requests  RSS {rss:.2} MB", second / 3_600, requests - left);
        }
    }
    let path = run.finish()?;
    std::hint::black_box(&kept);
    let took_s = (clock::monotonic_ns() - began_ns) as f64 / 1e9;
    println!("{requests} requests, {:.2} virtual hours in {took_s:.0} s", seconds as f64 / 3_600.0);
    let grows = grows(&path)?;
    let whole = whole(&path, requests)?;
    Ok(match (whole, grows) {
        (true, false) => ExitCode::SUCCESS,
        (true, true) => ExitCode::from(GROWS),
        (false, _) => ExitCode::FAILURE,
    })
}

/// Whether the resident set grew by more than may be, by the windows on disk.
fn grows(path: &Path) -> Result<bool, Failure> {
    let run = read_run(path)?;
    let points: Vec<(f64, f64)> = run
        .windows
        .iter()
        .filter_map(|window| match window.rss_bytes {
            Reading::Value(bytes) => {
                Some((f64::from(window.window) * 10.0 / 3_600.0, bytes as f64))
            }
            Reading::Missing { .. } => None,
        })
        .collect();
    let from = points.len() / WARM_UP;
    let found = trend(&points[from..]).ok_or("too few windows for a slope")?;
    let mb = |bytes: f64| bytes / 1e6;
    println!(
        "RSS slope {:+.4} MB/h [{:+.4}, {:+.4}] over {} windows after {:.1} h of warm-up; from {:.2} to {:.2} MB",
        mb(found.slope),
        mb(found.low),
        mb(found.high),
        points.len() - from,
        points[from].0,
        mb(points[from].1),
        mb(points[points.len() - 1].1)
    );
    let hours = points[points.len() - 1].0 - points[from].0;
    Ok(found.high >= LIMIT.max(SHORT / hours))
}

/// Whether the report has every request.
fn whole(path: &Path, requests: u64) -> Result<bool, Failure> {
    let report = report::build(path, None)?;
    let bytes: u64 = std::fs::read_dir(path.join("seg"))?
        .map(|entry| Ok(entry?.metadata()?.len()))
        .sum::<Result<u64, std::io::Error>>()?;
    let outcomes = report.load.outcomes.known().ok_or("no outcomes")?;
    let rss = process::memory().map(|memory| memory.rss_bytes as f64 / 1e6)?;
    println!(
        "report: {} attempts, {} ok, {} in the histogram, {} windows, {:.1} MB on disk, RSS {rss:.0} MB with the report built",
        outcomes.attempts,
        outcomes.ok,
        report.latency[0].count,
        report.run.windows,
        bytes as f64 / 1e6
    );
    for gate in &report.gates {
        println!("  {:<12} {:?}: {}", gate.gate, gate.verdict, gate.measured);
    }
    let counted = [outcomes.attempts, outcomes.ok, report.latency[0].count];
    Ok(counted == [requests; 3] && report.run.damage.is_empty())
}
