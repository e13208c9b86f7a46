//! Stages beside each other, and the cores, agents and kinds of agent that answered.

use std::io::{self, Write};

use tailbeam_harness::report::Measured;
use tailbeam_harness::report::latency::{
    Composition, CoreLatency, ExactAgents, FullMailbox, LatencyReport, WorstAgent, stage_name,
};

use tailbeam_probes::record::latency::Stage;

use super::words::{percent, signed, stage};
use super::{aligned, cell};
use crate::render::units::{count, time};

/// Stages that are not 0 everywhere, one row each, one column for each group of requests.
fn compare(groups: &[(String, &Composition)], out: &mut dyn Write) -> io::Result<()> {
    let mut header = vec!["stage"];
    header.extend(groups.iter().map(|(name, _)| name.as_str()));
    let row = |name: &str, text: &dyn Fn(&Composition) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(groups.iter().map(|(_, of)| text(of)));
        row
    };
    let mut rows = vec![row("requests", &|of| count(of.count))];
    for of in Stage::ALL {
        let name = stage_name(of);
        let at = |of: &Composition| of.stages.iter().find(|stage| stage.stage == name).cloned();
        if groups.iter().filter_map(|(_, of)| at(of)).all(|of| of.mean_ns <= 0.0) {
            continue;
        }
        rows.push(row(&stage(&name), &|of| {
            at(of).map_or_else(
                || "-".to_owned(),
                |of| format!("{} {:>6}", time(of.mean_ns), percent(of.share)),
            )
        }));
    }
    let some = |of: &Composition, ns: f64, text: &dyn Fn(&f64) -> String| {
        if of.count == 0 { "-".to_owned() } else { text(&ns) }
    };
    rows.push(row("sum", &|of| some(of, of.sum_ns, &|ns| time(*ns))));
    rows.push(row("measured", &|of| {
        of.mean_ns.known().map_or_else(|| "-".to_owned(), |ns| time(*ns))
    }));
    rows.push(row("residual", &|of| some(of, of.residual_ns, &signed)));
    let right: Vec<usize> = (1..=groups.len()).collect();
    aligned(&header, &right, rows.into_iter(), out)
}

/// One column for each band, and one for all.
pub(super) fn stages(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\nStages by band of system latency (means over the band's requests, and their share)"
    )?;
    let mut groups = vec![("all".to_owned(), &report.all)];
    groups.extend(report.bands.iter().map(|band| (band.name.clone(), &band.composition)));
    compare(&groups, out)
}

/// The requests by the core that answered, then what each core did.
pub(super) fn cores(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\nStages by the core that answered (late: above the 99th percentile of the window before)"
    )?;
    let groups: Vec<(String, &Composition)> = report
        .cores
        .iter()
        .flat_map(|core| {
            [
                (format!("core {}", core.core), &core.all),
                (format!("late {}", core.core), &core.late),
            ]
        })
        .collect();
    compare(&groups, out)?;
    writeln!(out, "\nCores (share of the wall time of their ticks)")?;
    let share =
        |part: &Measured<u64>, core: &CoreLatency| match (part.known(), core.wall_ns.known()) {
            (Some(part), Some(wall)) if *wall > 0 => percent(*part as f64 / *wall as f64),
            _ => "unknown".to_owned(),
        };
    let rows = report.cores.iter().map(|core| {
        let shares = [
            &core.turns_ns,
            &core.spun_ns,
            &core.parked_ns,
            &core.tick_ns,
            &core.run_ns,
            &core.wait_ns,
            &core.preempted_ns,
            &core.blocked_ns,
        ];
        let mut row = vec![core.core.to_string(), cell(&core.wall_ns, |ns| time(*ns as f64))];
        row.extend(shares.map(|part| share(part, core)));
        row.push(count(core.lost));
        row.push(format!("{} ({})", count(core.long_turns.0), time(core.long_turns.1 as f64)));
        row.push(time(core.self_ns as f64));
        row
    });
    let header = [
        "core",
        "wall",
        "turns",
        "spun",
        "parked",
        "tick",
        "on cpu",
        "ready",
        "preempted",
        "blocked",
        "lost",
        "long turns",
        "measuring",
    ];
    aligned(&header, &(0..13).collect::<Vec<_>>(), rows, out)?;
    unknown_parts(&report.cores, out)
}

/// Why a column says `unknown`, once.
fn unknown_parts(cores: &[CoreLatency], out: &mut dyn Write) -> io::Result<()> {
    let mut said: Vec<(&str, &str)> = Vec::new();
    for core in cores {
        let parts = [
            ("wall", &core.wall_ns),
            ("on cpu", &core.run_ns),
            ("ready", &core.wait_ns),
            ("preempted", &core.preempted_ns),
            ("blocked", &core.blocked_ns),
        ];
        for (name, part) in parts {
            if let Measured::Unknown { unknown, remedy } = part
                && !said.contains(&(name, unknown))
            {
                said.push((name, unknown));
                writeln!(out, "  {name}: unknown ({unknown}; {remedy})")?;
            }
        }
    }
    Ok(())
}

fn worst(
    title: &str,
    (list, left_out_ns): (&[WorstAgent], u64),
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "\n{title}")?;
    if list.is_empty() {
        return writeln!(out, "  none was recorded");
    }
    let rows = list.iter().map(|of| {
        vec![
            of.agent.to_string(),
            of.core.to_string(),
            time(of.at_least_ns as f64),
            time(of.at_most_ns as f64),
            time(of.error_ns as f64),
            count(of.count),
        ]
    });
    let header = ["agent", "core", "at least", "at most", "error", "times"];
    aligned(&header, &[0, 1, 2, 3, 4, 5], rows, out)?;
    match left_out_ns {
        0 => writeln!(out, "  nobody else had any: no list was full"),
        ns => writeln!(out, "  who is in no list of a window had at most {}", time(ns as f64)),
    }
}

/// Agents that weigh most.
pub(super) fn agents(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    let of = &report.agents;
    worst(
        "Agents by time in their service (time off the CPU included)",
        (&of.service, of.service_left_out_ns),
        out,
    )?;
    worst(
        "Agents by the latency of late requests that they answered",
        (&of.late, of.late_left_out_ns),
        out,
    )?;
    if !of.full.is_empty() {
        full(&of.full, out)?;
    }
    match &of.exact {
        Measured::Known(exact) => sums(exact, out),
        Measured::Unknown { unknown, remedy } => {
            writeln!(out, "\nSums of each agent, whole run: unknown ({unknown}; {remedy})")
        }
    }
}

fn full(list: &[FullMailbox], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nAgents by requests that found their mailbox full and were handed back")?;
    let row = |of: &FullMailbox| {
        let (least, most) = (count(of.at_least), count(of.at_most));
        vec![of.agent.to_string(), of.core.to_string(), least, most]
    };
    aligned(&["agent", "core", "at least", "at most"], &[0, 1, 2, 3], list.iter().map(row), out)
}

fn sums(exact: &ExactAgents, out: &mut dyn Write) -> io::Result<()> {
    let lists = [
        ("system latency of the requests that they made", &exact.system),
        ("their slowest request", &exact.worst),
        ("service of the requests that they answered", &exact.service),
    ];
    for (by, list) in lists {
        writeln!(
            out,
            "\nAgents by {by}, whole run, exact (the largest {} of {})",
            list.len(),
            count(exact.agents)
        )?;
        let rows = list.iter().map(|of| {
            vec![
                of.agent.to_string(),
                of.core.to_string(),
                count(of.answered),
                time(of.system_ns as f64),
                time(of.worst_ns as f64),
                time(of.service_ns as f64),
            ]
        });
        let header = ["agent", "core", "answered", "system", "slowest", "service given"];
        aligned(&header, &[0, 1, 2, 3, 4, 5], rows, out)?;
    }
    Ok(())
}

/// Kinds of agent.
pub(super) fn types(report: &LatencyReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\nStages by the kind of agent that answered (a workload's agents are of one kind)"
    )?;
    let groups: Vec<(String, &Composition)> = report
        .types
        .iter()
        .flat_map(|of| [(of.name.clone(), &of.all), (format!("late {}", of.name), &of.late)])
        .collect();
    compare(&groups, out)
}
