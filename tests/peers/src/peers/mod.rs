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
    let length_s = work(args, sheet);
    Ok(sheet.outcome(length_s, round_trip_ns))
}

/// Lets the agents work; returns how long they did.
fn work(args: &Args, sheet: &Sheet) -> f64 {
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    sheet.close();
    let length_s = start.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(200));
    length_s
}
