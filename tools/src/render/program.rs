//! A recorded program as text and as JSON: how each part works here, then threads, cores and functions.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use tailbeam_probes::analyse::program::{CpuProfile, Hot, Program, Sum, ThreadUse, Trust, hot};
use tailbeam_probes::analyse::symbols::Resolved;
use tailbeam_probes::record::program::{WHATS, What, Why};

use super::json::document_of;
use super::units::{count, time};

/// Name and version of the JSON document.
pub const PROGRAM_SCHEMA: (&str, u32) = ("tailbeam.program", 1);
/// JSON Schema of the document.
pub const PROGRAM_JSON_SCHEMA: &str = include_str!("../../schemas/program.schema.json");

/// A share of the CPU time below which a profile is said not to cover it.
const COVERED: f64 = 0.9;
/// A share of samples without a caller above which that is said.
const ALONE: f64 = 0.2;

/// What is shown.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Run.
    pub run: &'a str,
    /// The program.
    pub program: &'a Program,
    /// Its CPU profile.
    pub profile: &'a CpuProfile,
    /// How it ended, in words.
    pub end: Option<String>,
    /// What of its frames is damaged.
    pub damage: &'a [String],
    /// Rows of a table.
    pub top: usize,
}

/// Draws a table, names left and figures right.
pub(crate) fn table(header: &[&str], left: usize, rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if index >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let drawn = table.to_string();
    drawn.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A sum in a cell: `>` where a part is missing, `~` where it is scaled, `unknown` where nothing is known.
pub(crate) fn cell(sum: &Sum, text: impl FnOnce(u64) -> String) -> String {
    let Some(known) = sum.known() else {
        return if sum.unknown == 0 { text(0) } else { "unknown".to_owned() };
    };
    let mark = match (sum.at_least(), sum.trust) {
        (true, _) => ">",
        (false, Trust::Rough | Trust::Scaled) => "~",
        _ => "",
    };
    format!("{mark}{}", text(known))
}

pub(crate) fn ns(ns: u64) -> String {
    time(ns as f64)
}

fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

/// Threads by CPU time, most first.
pub(crate) fn by_cpu(program: &Program) -> Vec<&ThreadUse> {
    let mut threads: Vec<&ThreadUse> = program
        .threads
        .iter()
        .enumerate()
        .filter(|(place, thread)| *place > 0 || thread.samples > 0)
        .map(|(_, thread)| thread)
        .collect();
    threads.sort_by_key(|thread| std::cmp::Reverse((thread.of(What::Cpu).sum, thread.samples)));
    threads
}

/// Writes the report.
///
/// # Errors
/// Those of `out`.
pub fn text(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    head(shown, out)?;
    modes(shown.program, out)?;
    threads(shown, out)?;
    off_cpu(shown, out)?;
    cores(shown.program, out)?;
    functions(shown, out)?;
    unknowns(shown, out)
}

fn head(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    let program = shown.program;
    let end = shown.end.as_deref().unwrap_or("unsealed");
    let reason = program
        .end
        .as_ref()
        .map_or("cut: its recorder was killed, or still runs", |end| &end.reason);
    writeln!(out, "Program  run {}  {}", shown.run, program.start.command.join(" "))?;
    writeln!(
        out,
        "         {} recorded, {} threads, {end} ({reason})",
        ns(program.elapsed_ns()),
        count(program.threads.len() as u64 - 1)
    )?;
    for caveat in caveats(shown) {
        writeln!(out, "  ! {caveat}")?;
    }
    Ok(())
}

/// What a reader must know before any figure.
pub(crate) fn caveats(shown: &Shown<'_>) -> Vec<String> {
    let program = shown.program;
    let mut said: Vec<String> = shown.damage.to_vec();
    let ring = &program.ring;
    for (value, what) in [
        (ring.lost, "records were lost: the rings were full; a smaller --hz, or no --switches"),
        (ring.throttled, "times the kernel stopped sampling for a tick: a smaller --hz"),
        (ring.broken, "records of the rings were unreadable"),
        (program.left_out, "threads at a time found no row in the table"),
    ] {
        if value > 0 {
            said.push(format!("{} {what}", count(value)));
        }
    }
    let period = program.period_ns();
    let sampled_ns = ring.samples.saturating_mul(period);
    let cpu_ns = whole_cpu(program);
    if let Some(cpu_ns) = cpu_ns.filter(|&cpu_ns| period > 0 && cpu_ns > 100 * period) {
        let covered = sampled_ns as f64 / cpu_ns as f64;
        if covered < COVERED && ring.samples > 0 {
            said.push(format!(
                "the samples stand for {} of {} of CPU time: threads that end within {} on a CPU have none; a larger --hz",
                ns(sampled_ns),
                ns(cpu_ns),
                ns(period)
            ));
        }
    }
    let alone = program.without_caller();
    if alone as f64 > ALONE * program.samples.len() as f64 {
        said.push(format!(
            "{} of {} samples have no caller: the code keeps no frame pointers (-C force-frame-pointers=yes, -fno-omit-frame-pointer)",
            count(alone),
            count(program.samples.len() as u64)
        ));
    }
    let left_out = program.end.as_ref().map_or(0, |end| end.samples_left_out);
    if left_out > 0 {
        said.push(format!("{} samples had a stack for which there was no room", count(left_out)));
    }
    said
}

/// CPU time of the whole program: the kernel's total, else the sum of its threads.
fn whole_cpu(program: &Program) -> Option<u64> {
    let total = program.end.as_ref().and_then(|end| end.total);
    total.map(|total| total.user_ns + total.system_ns).or_else(|| program.total(What::Cpu).known())
}

fn modes(program: &Program, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nMeasured here")?;
    for mode in &program.start.modes {
        writeln!(out, "  {:<9} {}", mode.part, mode.works)?;
        for (what, why) in &mode.missing {
            writeln!(out, "            unknown: {what}: {}; remedy: {}", why.cause, why.remedy)?;
        }
    }
    Ok(())
}

/// Columns of hardware counters that any thread has.
fn hardware(program: &Program) -> Vec<What> {
    let wanted = [What::Cycles, What::Instructions, What::CacheMisses, What::BranchMisses];
    wanted.into_iter().filter(|&what| program.total(what).known().is_some()).collect()
}

fn threads(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    let program = shown.program;
    let hardware = hardware(program);
    writeln!(
        out,
        "\nThreads (wait: ready to run without a CPU; > a part is unknown, ~ scaled; quality of cpu)"
    )?;
    let mut header = vec![
        "name",
        "process",
        "thread",
        "cpu",
        "share",
        "user",
        "system",
        "wait",
        "voluntary",
        "involuntary",
        "minor",
        "major",
        "moves",
        "samples",
        "quality",
    ];
    header.extend(hardware.iter().map(|what| what.name()));
    let elapsed = program.elapsed_ns();
    let all = by_cpu(program);
    let mut rows: Vec<Vec<String>> =
        all.iter().take(shown.top).map(|thread| row(thread, elapsed, &hardware)).collect();
    rows.push(sum_row(program, elapsed, &hardware));
    writeln!(out, "{}", table(&header, 1, &rows))?;
    if all.len() > shown.top {
        writeln!(out, "{} more threads; --top {} shows them", all.len() - shown.top, all.len())?;
    }
    if let Some(total) = program.end.as_ref().and_then(|end| end.total) {
        let cpu = total.user_ns + total.system_ns;
        let seen = program.total(What::Cpu);
        let optional = |n: Option<u64>| n.map_or_else(|| "unknown".to_owned(), count);
        writeln!(
            out,
            "The kernel's total  cpu {} (user {}, system {}), switches {} voluntary {} involuntary, faults {} minor {} major",
            ns(cpu),
            ns(total.user_ns),
            ns(total.system_ns),
            optional(total.voluntary),
            optional(total.involuntary),
            count(total.minor_faults),
            count(total.major_faults)
        )?;
        let unseen = cpu.saturating_sub(seen.sum);
        writeln!(
            out,
            "                    {} of it by threads and in windows that no look has seen",
            ns(unseen)
        )?;
    }
    Ok(())
}

fn row(thread: &ThreadUse, elapsed: u64, hardware: &[What]) -> Vec<String> {
    let of = |what: What, text: fn(u64) -> String| cell(thread.of(what), text);
    let mut row = vec![
        if thread.row.name.is_empty() { "(unnamed)".to_owned() } else { thread.row.name.clone() },
        thread.row.process.to_string(),
        thread.row.thread.to_string(),
        of(What::Cpu, ns),
        thread.of(What::Cpu).known().map_or_else(|| "-".to_owned(), |cpu| share(cpu, elapsed)),
        of(What::User, ns),
        of(What::System, ns),
        of(What::Wait, ns),
        of(What::Voluntary, count),
        of(What::Involuntary, count),
        of(What::MinorFaults, count),
        of(What::MajorFaults, count),
        of(What::Migrations, count),
        count(thread.samples),
        quality(thread.of(What::Cpu)).to_owned(),
    ];
    row.extend(hardware.iter().map(|&what| of(what, count)));
    row
}

fn quality(sum: &Sum) -> &'static str {
    match sum.known() {
        None if sum.unknown > 0 => "unknown",
        _ if sum.at_least() => "at least",
        _ => sum.trust.word(),
    }
}

fn sum_row(program: &Program, elapsed: u64, hardware: &[What]) -> Vec<String> {
    let all = ThreadUse {
        sums: What::ALL.map(|what| program.total(what)),
        samples: program.threads.iter().map(|thread| thread.samples).sum(),
        ..program.threads[0].clone()
    };
    let mut row = row(&all, elapsed, hardware);
    "all".clone_into(&mut row[0]);
    row[1].clear();
    row[2].clear();
    row
}

fn off_cpu(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    let threads = by_cpu(shown.program);
    let recorded: Vec<_> = threads.iter().filter_map(|t| Some((t, t.off?))).collect();
    if recorded.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nOff the CPU, by switch records")?;
    let rows: Vec<Vec<String>> = recorded
        .iter()
        .take(shown.top)
        .map(|(thread, off)| {
            let three = |(n, sum, longest): (u64, u64, u64)| [count(n), ns(sum), ns(longest)];
            let mut row = vec![thread.row.name.clone(), thread.row.thread.to_string()];
            row.extend(three(off.blocked));
            row.extend(three(off.preempted));
            row
        })
        .collect();
    let header = ["name", "thread", "blocked", "sum", "longest", "preempted", "sum", "longest"];
    writeln!(out, "{}", table(&header, 1, &rows))
}

fn cores(program: &Program, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nCores, all programs together (steal: taken by the host)")?;
    let rows: Vec<Vec<String>> = program
        .cores
        .iter()
        .map(|core| {
            let [busy, idle, irq, steal] = &core.times;
            let whole = busy.sum + idle.sum + steal.sum;
            let mut row = vec![core.cpu.to_string()];
            for sum in [busy, idle, irq, steal] {
                row.push(cell(sum, ns));
                row.push(sum.known().map_or_else(|| "-".to_owned(), |part| share(part, whole)));
            }
            for what in [What::Switches, What::Migrations, What::MinorFaults, What::Cycles] {
                row.push(cell(&core.sums[what.index()], count));
            }
            row
        })
        .collect();
    let header = [
        "core", "busy", "", "idle", "", "irq", "", "steal", "", "switches", "moves", "faults",
        "cycles",
    ];
    writeln!(out, "{}", table(&header, 0, &rows))
}

fn functions(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    let program = shown.program;
    if program.start.hz == 0 {
        return Ok(());
    }
    let functions = hot(&shown.profile.profile);
    let all: i64 = functions.iter().map(|hot| hot.own).sum();
    writeln!(
        out,
        "\nFunctions ({} samples of {} CPU time each; self: innermost, total: anywhere on the stack)",
        count(all.unsigned_abs()),
        ns(program.period_ns())
    )?;
    let percent = |samples: i64| share(samples.unsigned_abs(), all.unsigned_abs());
    let rows: Vec<Vec<String>> = functions
        .iter()
        .take(shown.top)
        .map(|hot: &Hot| {
            let (own, total) = (percent(hot.own), percent(hot.total));
            vec![own, hot.own.to_string(), total, hot.name.clone(), hot.module.clone()]
        })
        .collect();
    let mut drawn = table(&["self", "samples", "total", "function", "file"], 0, &rows);
    if rows.is_empty() {
        drawn = "no sample was taken".to_owned();
    }
    writeln!(out, "{drawn}")
}

/// Reasons of what is unknown, with the columns that they concern.
fn reasons(program: &Program) -> Vec<(Vec<&'static str>, Why)> {
    let mut found: Vec<(u16, Vec<&'static str>)> = Vec::new();
    for thread in &program.threads {
        for place in 0..WHATS {
            let Some(why) = thread.sums[place].why else { continue };
            let name = What::ALL[place].name();
            match found.iter_mut().find(|(known, _)| *known == why) {
                Some((_, names)) if !names.contains(&name) => names.push(name),
                Some(_) => {}
                None => found.push((why, vec![name])),
            }
        }
    }
    let reason = |why: u16| program.reasons.get(usize::from(why)).cloned();
    found.into_iter().filter_map(|(why, names)| Some((names, reason(why)?))).collect()
}

fn unknowns(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    let reasons = reasons(shown.program);
    let symbols: Vec<_> =
        shown.profile.symbols.modules.iter().filter_map(Resolved::missing).collect();
    if reasons.is_empty() && symbols.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nUnknown, in whole or in part")?;
    for (names, why) in reasons {
        writeln!(out, "  {}: {}; remedy: {}", names.join(", "), why.cause, why.remedy)?;
    }
    for why in symbols {
        writeln!(out, "  symbols: {}; remedy: {}", why.cause, why.remedy)?;
    }
    Ok(())
}

/// A sum as JSON: value or null, quality, and why a part is unknown.
fn sum_json(program: &Program, sum: &Sum) -> Value {
    let why = sum.why.and_then(|why| program.reasons.get(usize::from(why)));
    json!({
        "value": sum.known().or((sum.unknown == 0).then_some(0)),
        "quality": quality(sum),
        "unknown_windows": sum.unknown,
        "unknown": why.map(|why| why.cause.clone()),
        "remedy": why.map(|why| why.remedy.clone()),
    })
}

fn sums_json(program: &Program, sums: &[Sum; WHATS]) -> Value {
    let pairs = What::ALL.into_iter().zip(sums);
    Value::Object(
        pairs.map(|(what, sum)| (what.name().to_owned(), sum_json(program, sum))).collect(),
    )
}

/// Writes the report as one document.
///
/// # Errors
/// Those of `out`.
pub fn json(shown: &Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
    let program = shown.program;
    let why = |why: &Why| json!({"cause": why.cause, "remedy": why.remedy});
    let modes: Vec<Value> = program
        .start
        .modes
        .iter()
        .map(|mode| {
            let missing: Vec<Value> = mode
                .missing
                .iter()
                .map(|(what, reason)| json!({"what": what, "why": why(reason)}))
                .collect();
            json!({"part": mode.part, "works": mode.works, "missing": missing})
        })
        .collect();
    let threads: Vec<Value> = by_cpu(program)
        .iter()
        .map(|thread| {
            json!({
                "name": thread.row.name, "process": thread.row.process,
                "thread": thread.row.thread, "samples": thread.samples,
                "ended": thread.ended_ns.is_some(),
                "counts": sums_json(program, &thread.sums),
                "off_cpu": thread.off.map(|off| json!({
                    "blocked": {"count": off.blocked.0, "sum_ns": off.blocked.1, "longest_ns": off.blocked.2},
                    "preempted": {"count": off.preempted.0, "sum_ns": off.preempted.1, "longest_ns": off.preempted.2},
                })),
            })
        })
        .collect();
    let cores: Vec<Value> = program
        .cores
        .iter()
        .map(|core| {
            let [busy, idle, irq, steal] = core.times.each_ref().map(|sum| sum_json(program, sum));
            json!({"core": core.cpu, "busy_ns": busy, "idle_ns": idle, "irq_ns": irq,
                "steal_ns": steal, "counts": sums_json(program, &core.sums)})
        })
        .collect();
    let functions: Vec<Value> = hot(&shown.profile.profile)
        .iter()
        .map(|hot| json!({"name": hot.name, "file": hot.module, "self_samples": hot.own, "total_samples": hot.total}))
        .collect();
    let total = program.end.as_ref().and_then(|end| end.total);
    let data = json!({
        "run": shown.run, "command": program.start.command, "process": program.start.process,
        "attached": program.start.attached, "end": shown.end,
        "reason": program.end.as_ref().map(|end| end.reason.clone()),
        "elapsed_ns": program.elapsed_ns(), "hz": program.start.hz,
        "caveats": caveats(shown), "modes": modes,
        "samples": program.ring.samples, "lost_records": program.ring.lost,
        "self_cpu_ns": program.self_ns,
        "total": total.map(|total| json!({
            "user_ns": total.user_ns, "system_ns": total.system_ns,
            "minor_faults": total.minor_faults, "major_faults": total.major_faults,
            "voluntary_switches": total.voluntary, "involuntary_switches": total.involuntary,
            "rss_max_bytes": total.rss_max_bytes,
        })),
        "threads": threads, "cores": cores, "functions": functions,
    });
    document_of(PROGRAM_SCHEMA, &data, out)
}
