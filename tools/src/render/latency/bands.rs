//! Bands of the distribution, each with its stages in their order.

use std::io::{self, Write};

use tailbeam_harness::report::Measured;
use tailbeam_harness::report::latency::{
    Attribution, Band, Causes, Composition, LatencyReport, Part, StageMean,
};

use super::outliers::cause;
use super::words::{bar, figure, percent, signed, stage};
use super::{cell, word};
use crate::render::units::{count, time};

/// Stages below this share of a band are summed up in one line.
const SHOWN_SHARE: f64 = 0.005;

/// Causes shown of a band.
const BLAMES_MAX: usize = 4;

/// Writes every band.
pub(super) fn bands(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\nBands of system latency (mean of each stage over the band's requests: these add up, percentiles do not)"
    )?;
    if report.bands.is_empty() {
        writeln!(out, "  none: no request was attributed")?;
    }
    report.bands.iter().try_for_each(|band| one(band, out))
}

fn extent(band: &Band) -> String {
    let from = time(band.from_ns as f64);
    match (band.max_ns.known(), band.below_ns.known()) {
        (Some(max), _) => format!("{from} to {}", time(*max as f64)),
        (None, Some(below)) => format!("{from} to {}", time(*below as f64)),
        (None, None) => format!("from {from} on"),
    }
}

fn one(band: &Band, out: &mut dyn Write) -> io::Result<()> {
    let of = &band.composition;
    writeln!(
        out,
        "\n  {:<10} {} requests ({}), {}, mean {}",
        band.name,
        count(of.count),
        percent(band.share),
        extent(band),
        cell(&of.mean_ns, |mean| time(*mean))
    )?;
    if of.count == 0 {
        return Ok(());
    }
    lines(of, out)?;
    let verdict = match &band.check {
        Some(check) => {
            format!(" of {} allowed: {}", figure(check.allowed, &check.unit), word(check.holds))
        }
        None => String::new(),
    };
    writeln!(
        out,
        "    {:<17} {:>8}          measured {}, difference {}{verdict}",
        "sum",
        time(of.sum_ns),
        cell(&of.mean_ns, |mean| time(*mean)),
        signed(&-of.residual_ns),
    )?;
    causes(&band.causes, out)
}

/// What the band's requests waited behind, and what their service was made of.
fn causes(causes: &Measured<Causes>, out: &mut dyn Write) -> io::Result<()> {
    let causes = match causes {
        Measured::Known(causes) => causes,
        Measured::Unknown { unknown, remedy } => {
            return writeln!(out, "    behind            unknown ({unknown}; {remedy})");
        }
    };
    let drawn = count(causes.drawn);
    for (place, of) in causes.waits.iter().take(BLAMES_MAX).enumerate() {
        let label = if place == 0 { format!("behind ({drawn})") } else { String::new() };
        writeln!(
            out,
            "    {label:<17} {:>8} +- {:<8} {}: {}",
            time(of.mean_ns),
            time(of.error_ns),
            stage(&of.stage),
            cause(&of.what, of.agent, of.core)
        )?;
    }
    let part = |of: &&Part| of.mean > 0.0;
    for of in causes.service.iter().filter(part) {
        let (name, figure) = match of.part.strip_suffix("_ns") {
            Some(name) => (name, time(of.mean)),
            None => (of.part.as_str(), format!("{:.2}", of.mean)),
        };
        writeln!(
            out,
            "    in the service    {figure:>8}             {} ({} requests)",
            name.replace('_', " "),
            count(of.n)
        )?;
    }
    Ok(())
}

/// One line for each stage that shows, and one for all that do not.
pub(super) fn lines(of: &Composition, out: &mut dyn Write) -> io::Result<()> {
    let (shown, rest): (Vec<&StageMean>, Vec<&StageMean>) =
        of.stages.iter().partition(|stage| stage.share >= SHOWN_SHARE);
    let mut line = |name: &str, ns: f64, share: f64| {
        let line = format!("    {name:<17} {:>8} {:>7}  {}", time(ns), percent(share), bar(share));
        writeln!(out, "{}", line.trim_end())
    };
    for of in shown {
        line(&stage(&of.stage), of.mean_ns, of.share)?;
    }
    let rest: Vec<_> = rest.iter().filter(|of| of.mean_ns > 0.0).collect();
    match &rest[..] {
        [] => Ok(()),
        [of] => line(&stage(&of.stage), of.mean_ns, of.share),
        more => {
            let (ns, share) =
                more.iter().fold((0.0, 0.0), |(ns, s), of| (ns + of.mean_ns, s + of.share));
            line(&format!("{} others", more.len()), ns, share)
        }
    }
}

/// The slowest band and its three largest stages.
pub(super) fn in_one_line(of: &Attribution) -> String {
    let mut stages: Vec<&StageMean> = of.band.composition.stages.iter().collect();
    stages.sort_by(|a, b| b.mean_ns.total_cmp(&a.mean_ns));
    let parts: Vec<String> = stages
        .iter()
        .take(3)
        .filter(|of| of.share >= SHOWN_SHARE)
        .map(|of| format!("{} {} ({})", stage(&of.stage), time(of.mean_ns), percent(of.share)))
        .collect();
    format!(
        "{}: {} requests, mean {} = {}; conservation {}",
        of.band.name,
        count(of.band.composition.count),
        cell(&of.band.composition.mean_ns, |mean| time(*mean)),
        if parts.is_empty() {
            "no time in any stage".to_owned()
        } else {
            parts.join(" + ") + " + ..."
        },
        word(of.holds)
    )
}
