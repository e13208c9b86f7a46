//! What measuring cost, as text: measured, with the loss where the cores have nothing to spare beside it, then
//! modelled, then each step down.

use std::io::{self, Write};

use tailbeam_harness::report::{
    CostModel, CostSection, LoweredStep, Measured, OwnCost, SaturatedSection, Signed,
};

use super::words::signed;
use crate::render::text::figure;
use crate::render::units::{count, span};

/// Writes what measuring cost.
///
/// # Errors
/// Those of `out`.
pub fn cost(of: &OwnCost, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nMeasuring (with it, less without; in brackets the 95 % interval)")?;
    writeln!(out, "  CPU time   {}", figure(&of.measured, measured))?;
    if let Measured::Known(section) = &of.measured {
        writeln!(out, "             {}", latencies(section))?;
    }
    writeln!(out, "  saturated  {}", figure(&of.saturated, saturated))?;
    writeln!(out, "  model      {}", figure(&of.model, model))?;
    if of.model.known().is_some_and(|model| model.disagrees) {
        writeln!(
            out,
            "  ! measured and modelled are more than twice apart: one of them is wrong, or the cost is in what has no model (caches, the runtime's other path)"
        )?;
    }
    of.lowered.iter().try_for_each(|step| writeln!(out, "  lowered    {}", lowered(step)))
}

/// A share with its sign, in percent.
fn percent(share: f64) -> String {
    format!("{:+.2}", share * 100.0)
}

fn shares(of: &Signed) -> String {
    format!("{} % [{}, {}]", percent(of.mean), percent(of.low), percent(of.high))
}

fn times(of: &Signed) -> String {
    format!("{} [{}, {}]", signed(&of.mean), signed(&of.low), signed(&of.high))
}

/// What an interval says, and whether it was to say that.
fn said(of: &Signed, switched: bool) -> &'static str {
    match (switched, of.is_found()) {
        (true, true) => "",
        (true, false) => ": not told from nothing",
        (false, false) => ": nothing was switched and nothing is found",
        (false, true) => {
            ": NOTHING WAS SWITCHED and a difference is found; one interval in twenty does so by chance"
        }
    }
}

fn measured(of: &CostSection) -> String {
    format!(
        "{} of {} cores in {} pairs of seconds{}; {:.1} % with it, at {} replies/s; looking on for work is not counted",
        shares(&of.cpu_share),
        of.cores,
        count(of.pairs),
        said(&of.cpu_share, of.switched),
        of.cpu_on_share * 100.0,
        per_s(of.replies_per_s)
    )
}

fn latencies(of: &CostSection) -> String {
    format!(
        "a request {}; mean latency {}, p99 of a second {}",
        times(&of.cpu_per_request_ns),
        times(&of.mean_ns),
        times(&of.p99_ns)
    )
}

fn saturated(of: &SaturatedSection) -> String {
    format!(
        "{} throughput in {} pairs of half seconds{}; {} replies/s with it, cores {:.0} % busy or more{}",
        shares(&of.throughput),
        count(of.pairs),
        said(&of.throughput, of.switched),
        per_s(of.replies_per_s),
        of.cpu_least_share * 100.0,
        match of.left_out {
            0 => String::new(),
            n => format!("; {n} pairs with time to spare left out"),
        }
    )
}

fn model(of: &CostModel) -> String {
    format!(
        "{:.2} %: {} turns/s at {:.1} ns {:.2} %, {} requests/s at {:.1} ns {:.2} %, ticks and readings by their meters {:.2} %",
        of.cpu_share * 100.0,
        per_s(of.turns_per_s),
        of.turn_ns,
        of.turns_share * 100.0,
        per_s(of.requests_per_s),
        of.request_ns,
        of.requests_share * 100.0,
        of.meters_share * 100.0
    )
}

fn lowered(step: &LoweredStep) -> String {
    format!(
        "{} after the start: {:.2} % of a core in the minute before: from {} to {}",
        span(step.at_s),
        step.share * 100.0,
        step.from,
        step.to
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive; Rust casts of floats saturate"
)]
fn per_s(rate: f64) -> String {
    count(rate.round() as u64)
}
