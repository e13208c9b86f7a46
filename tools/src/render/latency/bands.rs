//! Bands of the distribution, each with its stages in their order.

use std::io::{self, Write};

use tailbeam_harness::chaos::attribution::Tail;
use tailbeam_harness::report::Measured;
use tailbeam_harness::report::latency::{
    Attribution, Band, Between, Blame, Causes, Composition, LatencyReport, Part, StageMean,
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
    let last_seen = last_seen(report);
    report.bands.iter().try_for_each(|band| one(band, &last_seen, out))
}

/// Where requests without an answer were last seen: of all of them, as no single one's place is known.
fn last_seen(report: &LatencyReport) -> String {
    let Measured::Known(seen) = &report.last_seen else {
        return "where is unknown".to_owned();
    };
    let hop = match report.links.known() {
        Some(links) if links.dropped > 0 => "the hop",
        _ => "being sent",
    };
    format!(
        "of all without an answer {} were last seen at {hop}, {} at the responder, {} at the reply hop",
        between(&seen.sent),
        between(&seen.taken),
        between(&seen.answered)
    )
}

fn between(of: &Between) -> String {
    match of.at_least == of.at_most {
        true => count(of.at_least),
        false => format!("{} to {}", count(of.at_least), count(of.at_most)),
    }
}

fn extent(band: &Band) -> String {
    let from = time(band.from_ns as f64);
    match (band.max_ns.known(), band.below_ns.known()) {
        (Some(max), _) => format!("{from} to {}", time(*max as f64)),
        (None, Some(below)) => format!("{from} to {}", time(*below as f64)),
        (None, None) => format!("from {from} on"),
    }
}

fn one(band: &Band, last_seen: &str, out: &mut dyn Write) -> io::Result<()> {
    let of = &band.composition;
    writeln!(
        out,
        "\n  {:<11} {} requests (ranks {} to {}), {}, mean {}",
        band.name,
        count(of.count),
        percent(band.rank_from),
        percent(band.rank_to),
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
    causes(&band.causes, (of.mean_ns.known().copied().unwrap_or(0.0), last_seen), out)
}

/// What the band's requests waited behind, and what their service was made of.
fn causes(
    causes: &Measured<Causes>,
    (mean_ns, last_seen): (f64, &str),
    out: &mut dyn Write,
) -> io::Result<()> {
    let causes = match causes {
        Measured::Known(causes) => causes,
        Measured::Unknown { unknown, remedy } => {
            return writeln!(out, "    waits             unknown ({unknown}; {remedy})");
        }
    };
    if let Some(of) = causes.throttled.as_ref().filter(|of| of.mean >= SHOWN_SHARE * mean_ns) {
        writeln!(
            out,
            "    throttled         {:>8} +- {:<8} of {} behind the CPU quota of the process ({})",
            time(of.mean),
            time(of.error),
            time(mean_ns),
            percent(of.mean / mean_ns.max(1.0))
        )?;
    }
    let shown = |of: &&Blame| of.mean_ns >= SHOWN_SHARE * mean_ns;
    let is_lost = |of: &&Blame| of.what == "never_answered";
    let lost_ns: f64 = causes.waits.iter().filter(is_lost).map(|of| of.mean_ns).sum();
    if lost_ns > 0.0 {
        let lost = time(lost_ns);
        writeln!(out, "    waits             {lost:>8}             never answered: {last_seen}")?;
    }
    let shown = |of: &&Blame| shown(of) && !is_lost(of);
    let named: Vec<&Blame> = causes.waits.iter().filter(shown).take(BLAMES_MAX).collect();
    for of in &named {
        writeln!(
            out,
            "    waits             {:>8} +- {:<8} {} {}",
            time(of.mean_ns),
            time(of.error_ns),
            stage(&of.stage),
            cause(&of.what, of.agent, of.core)
        )?;
    }
    writeln!(
        out,
        "    waits             {:>8}             {}behind what is not recorded one by one (short turns, scheduler, waking up)",
        time(causes.unrecorded_ns),
        if named.is_empty() && lost_ns <= 0.0 { "all " } else { "" }
    )?;
    for of in causes.service.iter().filter(|of| of.mean > 0.0) {
        let (name, figure) = part(of);
        writeln!(out, "    of the service    {figure:>8}             {name}")?;
    }
    writeln!(
        out,
        "    estimated from {} requests that were written down whole, {} of them late ones",
        count(causes.drawn),
        count(causes.late)
    )
}

/// The tail of a fault's windows.
pub(in crate::render) fn of_a_tail(of: &Tail) -> String {
    let stages = of
        .stages
        .iter()
        .map(|of| format!("{} {} ({})", stage(&of.stage), time(of.mean_ns), percent(of.share)));
    let mut text = format!(
        "{}, {} requests, mean {} = {} + ...",
        of.band,
        count(of.requests),
        time(of.mean_ns),
        stages.collect::<Vec<_>>().join(" + ")
    );
    if let Some(ns) = of.throttled_ns {
        text.push_str(&format!("; {} of it behind the CPU quota of the process", time(ns)));
    }
    for of in &of.waits {
        let why = cause(&of.what, of.agent, of.core);
        text.push_str(&format!("; {} {} {why}", time(of.mean_ns), stage(&of.stage)));
    }
    for said in &of.fleet {
        text.push_str(&format!("; {said}"));
    }
    text.push_str(&format!("; conservation {}", word(of.holds)));
    if !of.failed.is_empty() {
        // Of the attribution, not of the service: what does not add up says nothing about it.
        let failed = of.failed.join("; ");
        text.push_str(&format!(", so these figures are in doubt: {failed}"));
    }
    text
}

/// A part of the service and its figure.
fn part(of: &Part) -> (String, String) {
    let name = match of.part.as_str() {
        "off_ns" => "off the CPU",
        "allocator_ns" => "in the allocator",
        "preempted_ns" => "preempted, in times that were long enough to be recorded",
        "blocked_ns" => "off the CPU and not ready (a blocking call, or held), likewise",
        "minor_faults" => "page faults",
        "major_faults" => "page faults with I/O",
        other => other,
    };
    let figure = if of.part.ends_with("_ns") { time(of.mean) } else { format!("{:.2}", of.mean) };
    (format!("{name} ({} requests)", count(of.n)), figure)
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
