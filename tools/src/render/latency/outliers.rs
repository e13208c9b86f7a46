//! Slow requests, one line each: where the time went, and behind what.

use std::io::{self, Write};

use tailbeam_harness::report::latency::{
    Behind, LatencyReport, Outlier, ServiceCounts, ServiceParts,
};

use super::head;
use super::words::stage;
use crate::render::units::{bytes, count, time};

/// Causes and stages named in a line; the rest is counted.
const NAMED_MAX: usize = 4;

/// Writes the slowest requests that were written down whole.
///
/// # Errors
/// Those of `out`.
pub fn outliers(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    head(report, out)?;
    writeln!(
        out,
        "\nSlow requests (seconds after the start, system latency, who asked whom, stages, behind what)"
    )?;
    if report.outliers.is_empty() {
        writeln!(out, "  none was written down whole")?;
    }
    report.outliers.iter().try_for_each(|of| writeln!(out, "  {}", line(of)))
}

fn line(of: &Outlier) -> String {
    let asked = match of.asker_core == of.responder_core {
        true => format!("{} -> {} on core {}", of.asker, of.responder, of.asker_core),
        false => format!(
            "{} -> {} from core {} to {}",
            of.asker, of.responder, of.asker_core, of.responder_core
        ),
    };
    let answered = if of.answered { "" } else { "  never answered" };
    let mut line = format!(
        "{:>10.6}  {:>8}  {asked}{answered}  {}",
        of.at_s,
        time(of.system_ns as f64),
        stages(&of.stages)
    );
    // What is less than a hundredth of it explains nothing.
    let told = |behind: &&Behind| behind.ns >= of.system_ns / 100;
    for behind in of.behind.iter().filter(told).take(NAMED_MAX) {
        line += &format!("; {}", words(behind));
    }
    if of.behind_unrecorded_ns >= of.system_ns / 2 {
        line += &format!(
            "; {} behind what is not recorded one by one",
            time(of.behind_unrecorded_ns as f64)
        );
    }
    let counts = of.counts.as_ref().map(counted).unwrap_or_default();
    let parts = [service(&of.service), counts].concat();
    if !parts.is_empty() {
        line += &format!("; its service: {}", parts.join(", "));
    }
    line
}

fn stages(stages: &[(String, u64)]) -> String {
    let mut largest: Vec<&(String, u64)> = stages.iter().collect();
    largest.sort_by_key(|of| std::cmp::Reverse(of.1));
    let mut parts: Vec<String> = largest
        .iter()
        .take(NAMED_MAX)
        .map(|(name, ns)| format!("{} {}", stage(name), time(*ns as f64)))
        .collect();
    let rest: u64 = largest.iter().skip(NAMED_MAX).fold(0, |sum, (_, ns)| sum.saturating_add(*ns));
    if rest > 0 {
        parts.push(format!("others {}", time(rest as f64)));
    }
    if parts.is_empty() { "no time in any stage".to_owned() } else { parts.join(" + ") }
}

/// What it waited behind, in words.
fn words(behind: &Behind) -> String {
    let ns = time(behind.ns as f64);
    format!("{} {ns} {}", stage(&behind.stage), cause(&behind.what, behind.agent, behind.core))
}

/// Behind what, and where.
pub(super) fn cause(what: &str, agent: Option<u32>, core: u64) -> String {
    let during = agent.map_or_else(String::new, |agent| format!(" in a turn of agent {agent}"));
    match (what, agent) {
        ("turn", Some(agent)) => format!("behind agent {agent} (long turns on core {core})"),
        ("turn", None) => format!("behind long turns of no agent on core {core}"),
        ("preempted", _) => format!("while core {core} was taken{during} (preempted)"),
        ("blocked", _) => format!(
            "while core {core} was off its CPU{during}, cause unknown: a blocking call, or held from outside"
        ),
        ("asleep", _) => format!(
            "while core {core} was off its CPU with work to do, cause unknown: asleep, or held from outside"
        ),
        ("throttled", _) => format!("behind the CPU quota: core {core} was throttled"),
        ("link", _) => format!("on the way to core {core}: links between cores held messages back"),
        ("carried", _) => {
            "on the way to the second process and back: its TCP connection".to_owned()
        }
        ("never_answered", _) => {
            "where is unknown of the single request: sent and never answered".to_owned()
        }
        (other, _) => format!("{other} on core {core}"),
    }
}

fn service(of: &ServiceParts) -> Vec<String> {
    let parts = [
        (of.preempted_ns, "preempted"),
        (of.throttled_ns, "of that behind the CPU quota (throttled)"),
        (of.blocked_ns, "off the CPU and not ready (a blocking call, or held)"),
        (of.off_ns, "off the CPU"),
    ];
    let known = parts.into_iter().filter_map(|(ns, noun)| Some((ns.filter(|ns| *ns > 0)?, noun)));
    known.map(|(ns, noun)| format!("{} {noun}", time(ns as f64))).collect()
}

fn counted(of: &ServiceCounts) -> Vec<String> {
    let number = |value: Option<u64>, noun: &str| {
        value.filter(|n| *n > 0).map(|n| format!("{} {noun}", count(n)))
    };
    let ns = |value: Option<u64>, noun: &str| {
        value.filter(|n| *n > 0).map(|n| format!("{} {noun}", time(n as f64)))
    };
    let parts = [
        ns(of.cpu_ns, "of CPU"),
        ns(of.allocator_ns, "in the allocator"),
        number(of.allocations, "allocations"),
        of.allocated_bytes.filter(|n| *n > 0).map(|n| bytes(n as f64)),
        number(of.minor_faults, "page faults"),
        number(of.major_faults, "page faults with I/O"),
        number(of.preemptions, "preemptions"),
        number(of.blocks, "waits"),
    ];
    parts.into_iter().flatten().collect()
}
