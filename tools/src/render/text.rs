//! The report as text: verdict and caveats first, then what they rest on.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use tailbeam_harness::report::{
    Growth, LatencyRow, LittleSection, Measured, MemorySection, OwnMemory, Report, RunEnd, Spread,
};
use tailbeam_harness::verdict::{GateResult, GateVerdict, Outcomes, Overall};

use super::latency as why;
use super::units::{bytes, count, span, time};

/// A figure, or `unknown` with its cause and remedy.
pub(super) fn figure<T>(measured: &Measured<T>, text: impl FnOnce(&T) -> String) -> String {
    match measured {
        Measured::Known(value) => text(value),
        Measured::Unknown { unknown, remedy } => format!("unknown ({unknown}; {remedy})"),
    }
}

/// How fast it grows, what is nobody's, and what is held of the disk.
fn growth(memory: &MemorySection, out: &mut dyn Write) -> io::Result<()> {
    let slope = |of: &Growth| {
        let walk = if of.wanders { ", wanders as a random walk does" } else { "" };
        format!("{} from {} windows{walk}", per_hour((of.per_hour, of.low, of.high)), of.windows)
    };
    writeln!(out, "          RSS grows by {}", figure(&memory.rss_growth, slope))?;
    writeln!(out, "          allocator live grows by {}", figure(&memory.live_growth, slope))?;
    let own = |of: &OwnMemory| {
        let grows = of.per_hour.map_or_else(
            || "too young to tell a rate".to_owned(),
            |rate| format!("grows by {}", per_hour(rate)),
        );
        format!(
            "{} at {} call sites, {} LEAK, {} SUSPECT, {grows}",
            bytes(of.bytes),
            of.sites,
            of.leaks,
            of.suspects
        )
    };
    writeln!(out, "          of no agent, our own among it: {}", figure(&memory.own, own))?;
    let held = |held: &u64| format!("{} held from the start", bytes(*held as f64));
    writeln!(out, "Disk      {}", figure(&memory.disk_held, held))
}

fn per_hour((at, low, high): (f64, f64, f64)) -> String {
    let mb = |bytes: f64| bytes / 1e6;
    format!("{:+.3} MB/h [{:+.3}, {:+.3}]", mb(at), mb(low), mb(high))
}

/// The same in a table's cell, where only the word fits.
pub(super) fn cell<T>(measured: &Measured<T>, text: impl FnOnce(&T) -> String) -> String {
    measured.known().map_or_else(|| "unknown".to_owned(), text)
}

pub(crate) fn table(
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    left: usize,
) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    rows.for_each(|row| {
        table.add_row(row);
    });
    for (index, column) in table.column_iter_mut().enumerate() {
        if index >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub(super) const fn overall(verdict: Overall) -> &'static str {
    match verdict {
        Overall::Go => "GO",
        Overall::NoGo => "NO-GO",
        Overall::Inconclusive => "INCONCLUSIVE",
    }
}

pub(super) const fn word(verdict: GateVerdict) -> &'static str {
    match verdict {
        GateVerdict::Pass => "PASS",
        GateVerdict::Fail => "FAIL",
        GateVerdict::Inconclusive => "INCONCLUSIVE",
    }
}

/// Writes the report.
///
/// # Errors
/// Those of `out`.
pub fn report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    head(report, out)?;
    why::matrix(&report.measured, out)?;
    super::epochs::epochs(&report.epochs, out)?;
    gates(report, out)?;
    super::budget::budgets(&report.budgets, out)?;
    latency(&report.latency, out)?;
    why::short(&report.attribution, out)?;
    why::cost(&report.own_cost, out)?;
    load(report, out)?;
    protocol(report, out)?;
    agents(report, out)?;
    cores_and_memory(report, out)?;
    super::stalls::stalls(&report.stalls, out)?;
    super::degradation::degradation(&report.degradation, out)
}

fn head(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let run = &report.run;
    let end = match run.end {
        RunEnd::Finished => "finished",
        RunEnd::Interrupted => "interrupted",
        RunEnd::Unsealed => "not sealed",
    };
    writeln!(out, "Soak  run {}  workload {}  {end}", run.id, run.workload)?;
    writeln!(
        out,
        "      {} measured of {} planned, {} windows, {} frames, seed {}, started {}",
        span(run.measured_s),
        span(run.planned_s),
        run.windows,
        run.frames,
        run.seed,
        run.started
    )?;
    writeln!(out, "      {}, recorded by tailbeam {}", run.host, run.recorded_by)?;
    writeln!(out, "\nVerdict  {}", overall(report.verdict))?;
    for caveat in &report.caveats {
        writeln!(out, "  ! {caveat}")?;
    }
    for check in report.validity.iter().filter(|check| !check.holds) {
        writeln!(out, "  ! validity: {}: {}", check.name, check.text)?;
    }
    Ok(())
}

fn gates(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nGates")?;
    let row = |gate: &GateResult| {
        vec![
            gate.gate.clone(),
            gate.requirement.clone(),
            gate.measured.clone(),
            count(gate.n),
            gate.blocks.map_or_else(|| "-".to_owned(), count),
            word(gate.verdict).to_owned(),
        ]
    };
    let header = ["gate", "required", "measured", "n", "blocks", "result"];
    writeln!(out, "{}", table(&header, report.gates.iter().map(row), 3))?;
    for gate in report.gates.iter().filter(|gate| gate.verdict != GateVerdict::Pass) {
        let more =
            gate.needs_more_s.map_or_else(String::new, |s| format!("; needs {} more", span(s)));
        writeln!(out, "  {}: {}{more}", gate.gate, gate.reason)?;
    }
    Ok(())
}

pub(super) fn latency(rows: &[LatencyRow], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\nLatency (from the intended send instant; system = end to end - planned delay)"
    )?;
    let ns = |value: &u64| time(*value as f64);
    let row = |row: &LatencyRow| {
        vec![
            row.series.replace('_', " "),
            count(row.count),
            cell(&row.p50_ns, ns),
            cell(&row.p90_ns, ns),
            cell(&row.p99_ns, ns),
            cell(&row.p999_ns, ns),
            cell(&row.max_ns, ns),
            cell(&row.mean_ns, |mean| time(*mean)),
        ]
    };
    let header = ["series", "count", "p50", "p90", "p99", "p99.9", "max", "mean"];
    writeln!(out, "{}", table(&header, rows.iter().map(row), 1))?;
    for row in rows.iter().filter(|row| row.overflow > 0) {
        writeln!(
            out,
            "  {} values of {} lie above the range of 3600 s",
            count(row.overflow),
            row.series
        )?;
    }
    Ok(())
}

/// Attempts, and what they came to.
pub(super) fn attempts(o: &Outcomes) -> String {
    let parts = o.named().into_iter().chain([("open at stop", o.open_at_stop)]);
    let sum: Vec<String> = parts.map(|(name, n)| format!("{} {name}", count(n))).collect();
    format!("{} attempts = {}", count(o.attempts), sum.join(" + "))
}

pub(super) fn outcomes(o: &Outcomes) -> String {
    let closed = if o.sum() == o.attempts {
        String::new()
    } else {
        format!("  (sum {}: NOT CLOSED)", count(o.sum()))
    };
    format!("{}{closed}", attempts(o))
}

fn load(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let load = &report.load;
    let rate = |value: &f64| format!("{}/s", count(value.round() as u64));
    writeln!(
        out,
        "\nLoad      {} planned, {} offered, {} served",
        rate(&load.planned_per_s),
        figure(&load.offered_per_s, rate),
        figure(&load.served_per_s, rate)
    )?;
    writeln!(out, "Outcomes  {}", figure(&load.outcomes, outcomes))?;
    writeln!(
        out,
        "Delivery  {} of attempts not refused",
        figure(&load.delivery, |d| format!("{:.4} %", d * 100.0))
    )?;
    oldest(&load.oldest_open_ns, out)?;
    little(&report.littles_law, out)
}

/// What the protocol's parts counted; what was never counted is left out, as there are many kinds of refusals.
fn protocol(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.protocol.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nProtocol  (all cores; kinds that never came are left out)")?;
    for record in report.protocol.iter().filter(|record| record.count > 0) {
        let (name, value) = match record.name.strip_suffix(", ns") {
            Some(name) => (name, time(record.count as f64)),
            None => (&*record.name, count(record.count)),
        };
        writeln!(out, "  {name:<36} {value:>14}")?;
    }
    Ok(())
}

/// The age of the oldest unanswered request.
pub(super) fn oldest(oldest_ns: &Measured<u64>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "Oldest    {} was the longest any request was open at a sample",
        figure(oldest_ns, |ns| time(*ns as f64))
    )
}

/// Throughput x mean time against the number outstanding.
pub(super) fn little(law: &Measured<LittleSection>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "Little    {}",
        figure(law, |l| format!(
            "{:.1}/s x {} = {:.1} against {:.1} outstanding in {} samples: ratio {:.4} +- {:.4}",
            l.throughput_per_s,
            time(l.mean_open_s * 1e9),
            l.throughput_per_s * l.mean_open_s,
            l.mean_outstanding,
            count(l.samples),
            l.ratio,
            l.error95
        ))
    )
}

pub(super) fn spread(s: &Spread) -> String {
    format!(
        "min {} p1 {} p50 {} p99 {} max {} mean {:.2}, {} of {} agents with none",
        s.min,
        s.p1,
        s.p50,
        s.p99,
        s.max,
        s.mean,
        count(s.zero),
        count(s.agents)
    )
}

fn agents(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let agents = &report.agents;
    let live = |n: &u64| count(*n);
    writeln!(
        out,
        "\nAgents    {} asked, live {} to {} in {} samples",
        count(agents.asked),
        figure(&agents.live_min, live),
        figure(&agents.live_max, live),
        count(agents.live_samples)
    )?;
    let size = |b: &f64| bytes(*b);
    writeln!(
        out,
        "          {} per agent in runtime tables, {} of RSS per agent",
        figure(&agents.bytes_per_agent, size),
        figure(&agents.rss_per_agent, size)
    )?;
    write!(out, "Fairness  completions per agent: {}", figure(&agents.completions, spread))?;
    match agents.counted_share {
        Some(share) => writeln!(out, "; of {:.1} % of the requests", share * 100.0)?,
        None => writeln!(out)?,
    }
    writeln!(out, "          attempts per agent: {}", figure(&agents.attempts, spread))
}

fn cores_and_memory(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\nCores (cpu with the kernel's part, busy without; waited: ready while others had the CPU)"
    )?;
    let share = |share: &f64| format!("{:.2} %", share * 100.0);
    let rate = |rate: &f64| format!("{rate:.0}");
    let rows = report.cores.iter().map(|core| {
        vec![
            core.core.to_string(),
            count(core.agents),
            cell(&core.cpu_share, share),
            cell(&core.busy_share, share),
            cell(&core.waited_share, share),
            cell(&core.outside_share, share),
            cell(&core.turns_per_s, rate),
            cell(&core.doorbells_per_s, rate),
            cell(&core.enters_per_s, rate),
            time(core.timer_late_max_ns as f64),
            count(core.panicked),
            count(core.dead_letters),
        ]
    });
    let header = [
        "core",
        "agents",
        "cpu",
        "busy",
        "waited",
        "outside",
        "turns/s",
        "doorbells/s",
        "enters/s",
        "timer late max",
        "panics",
        "dead letters",
    ];
    writeln!(out, "{}", table(&header, rows, 0))?;
    let memory = &report.memory;
    let size = |b: &u64| bytes(*b as f64);
    writeln!(
        out,
        "\nMemory    RSS {} first, {} last, {} largest window",
        figure(&memory.rss_first_bytes, size),
        figure(&memory.rss_last_bytes, size),
        figure(&memory.rss_max_bytes, size)
    )?;
    writeln!(out, "          PSS {} last", figure(&memory.pss_last_bytes, size))?;
    writeln!(out, "          allocator live {} last", figure(&memory.live_last_bytes, size))?;
    growth(memory, out)?;
    writeln!(
        out,
        "CPU       {} of the cores, housekeeping {} of them",
        figure(&memory.cpu_share, share),
        figure(&memory.housekeeping_share, share)
    )
}
