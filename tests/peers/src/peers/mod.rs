//! One module per peer: the same agent, written as that runtime wants it.

mod tailbeam;
mod tokio;

use std::time::{Duration, Instant};

use crate::sheet::{Outcome, Sheet};
use crate::{Args, place};

/// Runs a peer and returns its figures.
pub(crate) fn run(peer: &str, args: &Args) -> Result<Outcome, String> {
    let cores = place::cores()?;
    let round_trip_ns = place::round_trip_ns(cores);
    let sheet: &'static Sheet = Box::leak(Box::new(Sheet::new(args.agents)));
    match peer {
        "tailbeam" => tailbeam::run(args, cores, sheet)?,
        "tokio-ct" => tokio::current_thread(args, cores, sheet)?,
        "tokio-mt" => tokio::multi_thread(args, cores, sheet)?,
        other => return Err(format!("no peer {other:?}: tailbeam, tokio-ct, tokio-mt")),
    };
    let (counts, length_s) = work(args, sheet);
    // What was asked before the end is answered and timed.
    std::thread::sleep(Duration::from_millis(500));
    Ok(sheet.outcome(counts, length_s, round_trip_ns))
}

/// Lets the agents work, after a third as long to warm up: memory is touched and queues grow then. Returns the
/// completions of each in the rest and how long that was.
fn work(args: &Args, sheet: &Sheet) -> (Vec<u32>, f64) {
    std::thread::sleep(Duration::from_secs_f64(args.seconds / 3.0));
    let start = Instant::now();
    let before = sheet.warmed_up();
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let length_s = start.elapsed().as_secs_f64();
    let after = sheet.counts();
    sheet.close();
    let counts = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    (counts, length_s)
}
