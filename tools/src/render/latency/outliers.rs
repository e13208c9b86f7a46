//! Slow requests, one line each: where the time went, and behind what.

use std::io::{self, Write};

use tailbeam_harness::report::latency::{Behind, LatencyReport, Outlier, ServiceCounts};

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
    for behind in of.behind.iter().take(NAMED_MAX) {
        line += &format!("; {}", words(behind));
    }
    if of.behind.len() > NAMED_MAX {
        line += &format!("; and {} more", of.behind.len() - NAMED_MAX);
    }
    if let Some(counts) = of.counts.as_ref().and_then(counted) {
        line += &format!("; its service: {counts}");
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
pub(super) fn words(behind: &Behind) -> String {
    let (len, core) = (time(behind.len_ns as f64), behind.core);
    match (behind.what.as_str(), behind.agent) {
        ("own_turn", _) => format!("in its own responder's turn of {len}"),
        ("turn", Some(agent)) => format!("behind agent {agent} (turn of {len} on core {core})"),
        ("turn", None) => format!("behind a turn of {len} on core {core} that is no agent's"),
        ("preempted", _) => format!("core {core} held {len} (preempted)"),
        ("blocked", _) => format!("core {core} held {len} (blocked in a poll)"),
        (other, _) => format!("{other} of {len} on core {core}"),
    }
}

fn counted(of: &ServiceCounts) -> Option<String> {
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
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
