//! A CPU profile as a processed profile of the Firefox Profiler, version 55: a track per thread with its
//! samples and the CPU time of each, markers where threads begin and end, and counters of the program
//! over time.

use std::io::{self, Write};

use serde_json::{Value, json};
use tailbeam_probes::analyse::program::{Program, Sum, Window};

use super::cpu::CpuExport;
use super::firefox::{Tables, lib, title};

const CATEGORIES: [(&str, &str); 3] = [("Other", "grey"), ("User", "yellow"), ("Kernel", "orange")];

/// Writes the profile as JSON.
///
/// # Errors
/// Those of `out`.
pub fn write(export: &CpuExport<'_>, out: &mut dyn Write) -> io::Result<()> {
    let program = export.program;
    let categories = CATEGORIES
        .map(|(name, color)| json!({"name": name, "color": color, "subcategories": ["Other"]}));
    let facts: Vec<Value> = export
        .comments
        .iter()
        .map(|text| json!({"label": "note", "format": "string", "value": text}))
        .collect();
    let own = by_thread(export);
    let shown: Vec<usize> =
        (0..program.threads.len()).filter(|&row| row > 0 || !own[row].is_empty()).collect();
    let threads: Vec<Value> = shown
        .iter()
        .map(|&row| thread(export, row, &own[row], Some(&row) == shown.first()))
        .collect();
    let title = title(program.start.command.first().map_or("program", String::as_str));
    let profile = json!({
        "meta": {
            "categories": categories, "debug": false,
            "extensions": {"length": 0, "baseURL": [], "id": [], "name": []},
            "interval": (program.period_ns().max(1)) as f64 / 1e6,
            "preprocessedProfileVersion": 55, "processType": 0,
            "product": format!("{title} (run {})", export.run),
            "importedFrom": format!("tailbeam {}", env!("CARGO_PKG_VERSION")),
            "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
            "startTime": program.start.started_unix_ns as f64 / 1e6,
            "symbolicated": true, "pausedRanges": [], "version": 24,
            "usesOnlyOneStackType": true, "sourceCodeIsNotOnSearchfox": true,
            "markerSchema": schema(), "extra": [{"label": "CPU sampling", "entries": facts}],
        },
        "libs": export.profile.profile.modules.iter().map(lib).collect::<Vec<_>>(),
        "threads": threads, "pages": [], "profilerOverhead": [],
        "counters": counters(program),
    });
    serde_json::to_writer(&mut *out, &profile)?;
    writeln!(out)
}

fn schema() -> Value {
    json!([{
        "name": "Thread", "tooltipLabel": "{marker.name}", "tableLabel": "{marker.data.what}",
        "chartLabel": "{marker.name}", "display": ["marker-chart", "marker-table", "timeline-overview"],
        "data": [{"key": "what", "label": "What", "format": "string"}],
        "fields": [{"key": "what", "label": "What", "format": "string"}],
    }])
}

/// Samples of each thread: instant and stack.
fn by_thread(export: &CpuExport<'_>) -> Vec<Vec<(u64, usize)>> {
    let mut own = vec![Vec::new(); export.program.threads.len()];
    for (sample, &stack) in export.program.samples.iter().zip(&export.profile.stack_of) {
        own[sample.thread].push((sample.at_ns, stack));
    }
    own
}

fn thread(export: &CpuExport<'_>, row: usize, own: &[(u64, usize)], main: bool) -> Value {
    let (program, profile) = (export.program, &export.profile.profile);
    let ms = |at_ns: u64| at_ns.saturating_sub(program.start.start_ns) as f64 / 1e6;
    let of = &program.threads[row];
    let mut tables = Tables::default();
    let (mut stacks, mut deltas, mut last) = (Vec::new(), Vec::new(), 0.0);
    for &(at_ns, stack) in own {
        let frames = &profile.stacks[stack].frames;
        let module = frames.first().and_then(|frame| profile.modules.get(frame.module?));
        let kernel = module.is_some_and(|module| module.path == "[kernel]");
        stacks.push(tables.stack(profile, frames, if kernel { 2 } else { 1 }));
        deltas.push(ms(at_ns) - last);
        last = ms(at_ns);
    }
    // Between two samples a thread used a period of CPU time: that is what a sample is.
    let cpu = vec![program.period_ns() / 1_000; own.len()];
    let began = tables.string("thread began");
    let ended = tables.string("thread ended");
    let mut markers = vec![(began, ms(of.row.since_ns), "began")];
    if let Some(at_ns) = of.ended_ns {
        markers.push((ended, ms(at_ns), "ended"));
    }
    let data: Vec<Value> =
        markers.iter().map(|(.., what)| json!({"type": "Thread", "what": what})).collect();
    let n = markers.len();
    let process = program.threads.iter().find(|t| t.row.thread == of.row.process);
    let process = process.map_or_else(|| "process".to_owned(), |leader| leader.row.name.clone());
    let facts = json!({
        "name": export.thread(row), "isMainThread": of.row.process == of.row.thread || main,
        "pausedRanges": [], "pid": of.row.process.to_string(), "processName": process,
        "processShutdownTime": null, "processStartupTime": 0.0, "processType": "default",
        "registerTime": ms(of.row.since_ns), "unregisterTime": of.ended_ns.map(ms),
        "showMarkersInTimeline": false, "tid": of.row.thread.to_string(),
        "samples": {"length": own.len(), "weightType": "samples", "weight": null,
            "stack": stacks, "timeDeltas": deltas, "threadCPUDelta": cpu},
        "markers": {"length": n, "category": vec![0; n], "data": data, "endTime": vec![Value::Null; n],
            "name": markers.iter().map(|m| m.0).collect::<Vec<_>>(), "phase": vec![0; n],
            "startTime": markers.iter().map(|m| m.1).collect::<Vec<_>>()},
        "nativeSymbols": {"length": 0, "address": [], "functionSize": [], "libIndex": [],
            "name": []},
    });
    let mut value = tables.json();
    if let (Value::Object(all), Value::Object(more)) = (&mut value, facts) {
        all.extend(more);
    }
    value
}

fn counters(program: &Program) -> Vec<Value> {
    type Take = fn(&Window) -> &Sum;
    let all: [(&str, &str, Take); 4] = [
        ("cpu_us", "CPU time of all threads, us", |window| &window.cpu),
        ("wait_us", "Ready to run without a CPU, us", |window| &window.wait),
        ("switches", "Context switches of all threads", |window| &window.switches),
        ("faults", "Page faults without a disk", |window| &window.faults),
    ];
    all.into_iter().filter_map(|(name, about, of)| counter(program, (name, about), of)).collect()
}

/// A counter; a window that is not known is left out, not 0.
fn counter(
    program: &Program,
    (name, about): (&str, &str),
    of: fn(&Window) -> &Sum,
) -> Option<Value> {
    let scale = if name.ends_with("_us") { 1_000 } else { 1 };
    let known: Vec<(f64, u64)> = program
        .windows
        .iter()
        .filter_map(|window| {
            let at = window.to_ns.saturating_sub(program.start.start_ns) as f64 / 1e6;
            // A window in which no thread did anything is a known 0.
            let sum = of(window);
            (sum.windows > 0 || sum.unknown == 0).then_some((at, sum.sum / scale))
        })
        .collect();
    let mut last = 0.0;
    let deltas: Vec<f64> =
        known.iter().map(|(at, _)| at - std::mem::replace(&mut last, *at)).collect();
    (!known.is_empty()).then(|| {
        json!({
            "category": "CPU", "name": name, "description": about, "mainThreadIndex": 0,
            "pid": program.start.process.to_string(),
            "samples": {"length": known.len(), "count": known.iter().map(|k| k.1).collect::<Vec<_>>(),
                "number": vec![0; known.len()], "timeDeltas": deltas},
        })
    })
}
