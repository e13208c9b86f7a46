//! Latency over time for the Firefox Profiler (processed profile, version 55 as beside this file): a thread
//! per core with its long turns, its times off the CPU, and the stages of the requests that were written
//! down whole; counters of each core. What was not recorded one by one is not in it.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use serde_json::{Value, json};
use tailbeam_harness::evidence::{Interval, Intervals};
use tailbeam_probes::record::latency::{Count, Exemplar, LatencyWindow, Leg, Off, Stage, Why};

/// Markers of the whole profile; the profiler becomes slow above.
const MARKERS_MAX: u64 = 400_000;
/// Samples of a counter.
const SAMPLES_MAX: usize = 200_000;

/// Categories, their colours, and places.
const CATEGORIES: [(&str, &str); 5] = [
    ("Other", "grey"),
    ("Waiting", "orange"),
    ("Service", "blue"),
    ("Long turn", "purple"),
    ("Off CPU", "red"),
];
const WAITING: usize = 1;
const SERVICE: usize = 2;
const TURN: usize = 3;
const OFF: usize = 4;

#[derive(Debug, Default)]
struct Thread {
    strings: Vec<String>,
    ids: HashMap<String, usize>,
    category: Vec<usize>,
    data: Vec<Value>,
    start: Vec<f64>,
    end: Vec<f64>,
    name: Vec<usize>,
    /// Counters by name: end of the tick in ms, count.
    counters: BTreeMap<String, Vec<(f64, u64)>>,
    counters_left_out: u64,
}

impl Thread {
    fn string(&mut self, text: &str) -> usize {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        self.strings.push(text.to_owned());
        self.ids.insert(text.to_owned(), self.strings.len() - 1);
        self.strings.len() - 1
    }

    fn marker(&mut self, name: &str, category: usize, (from_ms, to_ms): (f64, f64), data: Value) {
        let name = self.string(name);
        self.name.push(name);
        self.category.push(category);
        self.start.push(from_ms);
        self.end.push(to_ms);
        self.data.push(data);
    }
}

struct Made {
    threads: BTreeMap<u16, Thread>,
    start_ns: u64,
    markers: u64,
    left_out: u64,
    end_ms: f64,
}

/// Writes every window that `wanted` takes; returns how many there were.
///
/// # Errors
/// Those of `out`.
pub fn write(
    intervals: &mut Intervals,
    wanted: &mut dyn FnMut(&Interval) -> bool,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let manifest = intervals.manifest.clone();
    let mut made = Made {
        threads: BTreeMap::new(),
        start_ns: manifest.start_ns,
        markers: 0,
        left_out: 0,
        end_ms: 0.0,
    };
    let mut windows = 0;
    for interval in intervals.by_ref() {
        if wanted(&interval) {
            windows += 1;
            interval.latency.iter().for_each(|window| made.window(window));
        }
    }
    let facts: Vec<Value> = made
        .notes(intervals)
        .iter()
        .map(|text| json!({"label": "note", "format": "string", "value": text}))
        .collect();
    let cpu = |shard: u16| {
        manifest.cores.get(usize::from(shard)).copied().unwrap_or_else(|| u64::from(shard))
    };
    let end_ms = made.end_ms;
    let first = made.threads.keys().next().copied();
    let threads: Vec<Value> = made
        .threads
        .iter()
        .map(|(&shard, thread)| json_thread(thread, cpu(shard), Some(shard) == first, end_ms))
        .collect();
    let counters: Vec<Value> = (0..)
        .zip(&made.threads)
        .flat_map(|(place, (&shard, thread))| counters(thread, cpu(shard), place))
        .collect();
    let profile = json!({
        "meta": {
            "categories": CATEGORIES.map(|(name, color)| json!({"name": name, "color": color, "subcategories": ["Other"]})),
            "debug": false,
            "extensions": {"length": 0, "baseURL": [], "id": [], "name": []},
            "interval": 1.0,
            "preprocessedProfileVersion": 55,
            "processType": 0,
            "product": format!("{} (run {})", manifest.workload, manifest.id),
            "importedFrom": format!("tailbeam {}", env!("CARGO_PKG_VERSION")),
            "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
            "startTime": manifest.started_unix_ns as f64 / 1e6,
            "symbolicated": true,
            "pausedRanges": [],
            "version": 24,
            "usesOnlyOneStackType": true,
            "sourceCodeIsNotOnSearchfox": true,
            "markerSchema": schemas(),
            "extra": [{"label": "Latency", "entries": facts}],
        },
        "libs": [],
        "threads": threads,
        "pages": [],
        "profilerOverhead": [],
        "counters": counters,
    });
    serde_json::to_writer(&mut *out, &profile)?;
    writeln!(out)?;
    Ok(windows)
}

fn schemas() -> Value {
    let field = |key: &str, label: &str, format: &str| json!({"key": key, "label": label, "format": format, "searchable": true});
    let schema = |name: &str, label: &str, data: Vec<Value>| {
        json!({
            "name": name, "chartLabel": label, "tableLabel": label, "tooltipLabel": label,
            "display": ["marker-chart", "marker-table", "timeline-overview"],
            "data": data,
        })
    };
    json!([
        schema(
            "stage",
            "{marker.name}: {marker.data.request}",
            vec![
                field("request", "Request", "string"),
                field("why", "Written down as", "string"),
                field("system", "System latency", "duration"),
            ]
        ),
        schema("turn", "{marker.data.agent}", vec![field("agent", "Agent", "string")]),
        schema("off", "{marker.name}", vec![field("why", "Why", "string")]),
    ])
}

impl Made {
    /// What a reader must know of the markers and counters.
    fn notes(&self, intervals: &Intervals) -> Vec<String> {
        let mut notes = vec![
            "stages of drawn, late and slowest requests only: see `tailbeam latency` for all"
                .to_owned(),
            "long turns and times off the CPU are the ones that were long enough to be recorded"
                .to_owned(),
        ];
        let (markers, samples) =
            (self.left_out, self.threads.values().map(|of| of.counters_left_out).sum::<u64>());
        if markers > 0 {
            notes.push(format!(
                "{markers} markers were left out: export a part with --from, --until"
            ));
        }
        if samples > 0 {
            notes.push(format!("{samples} samples of counters were left out: export a part"));
        }
        let unknown = intervals.manifest.unknowns.iter();
        notes.extend(unknown.map(|of| format!("{} unknown: {}", of.thing, of.unknown)));
        notes.extend(intervals.damage.iter().cloned());
        notes
    }

    fn ms(&self, ns: u64) -> f64 {
        ns.saturating_sub(self.start_ns) as f64 / 1e6
    }

    fn marker(&mut self, shard: u16, name: &str, category: usize, span: (u64, u64), data: Value) {
        if self.markers >= MARKERS_MAX {
            self.left_out += 1;
            return;
        }
        self.markers += 1;
        let span = (self.ms(span.0), self.ms(span.1));
        self.end_ms = self.end_ms.max(span.1);
        self.threads.entry(shard).or_default().marker(name, category, span, data);
    }

    fn window(&mut self, window: &LatencyWindow) {
        let shard = window.shard;
        for turn in &window.long_turns {
            let agent = match turn.agent {
                u32::MAX => "none of the workload's".to_owned(),
                agent => agent.to_string(),
            };
            let span = (turn.from_ns, turn.from_ns.saturating_add(turn.len_ns));
            self.marker(shard, "long turn", TURN, span, json!({"type": "turn", "agent": agent}));
        }
        for &Off { from_ns, to_ns, preempted } in &window.off {
            let (name, why) = match preempted {
                true => ("preempted", "it could have run"),
                false => ("blocked", "it waited in the kernel"),
            };
            self.marker(shard, name, OFF, (from_ns, to_ns), json!({"type": "off", "why": why}));
        }
        window.exemplars.iter().for_each(|of| self.exemplar(of));
        let end = self.ms(window.to_ns);
        self.end_ms = self.end_ms.max(end);
        let start_ns = self.start_ns;
        let thread = self.threads.entry(shard).or_default();
        for tick in &window.ticks {
            let at_ms = tick.to_ns.saturating_sub(start_ns) as f64 / 1e6;
            let own = [("turns, ns", Some(tick.turns_ns)), ("queued", Some(tick.queued))];
            let counted = tick.counters.iter().map(|of| {
                let count = match of.count {
                    Count::Exact(count) | Count::Scaled(count, _) => Some(count),
                    Count::Rough(..) | Count::Unknown(_) => None,
                };
                (of.name.as_str(), count)
            });
            for (name, count) in own.into_iter().chain(counted) {
                let Some(count) = count else { continue };
                let samples = thread.counters.entry(name.to_owned()).or_default();
                match samples.len() < SAMPLES_MAX {
                    true => samples.push((at_ms, count)),
                    false => thread.counters_left_out += 1,
                }
            }
        }
    }

    /// The stages of one request, each on the core on which it passes.
    fn exemplar(&mut self, of: &Exemplar) {
        let at = &of.stamps;
        let system = tailbeam_probes::analyse::latency::system_ns(at) as f64 / 1e6;
        let why = match of.why {
            Why::Uniform => "drawn",
            Why::Late => "late",
            Why::Top => "among the slowest",
        };
        let request = format!("{} -> {}", of.asker, of.responder);
        let data = json!({"type": "stage", "request": request, "why": why, "system": system});
        for (shard, stage, from_ns, to_ns) in spans(of) {
            if from_ns != 0 && from_ns < to_ns {
                let category = if stage == Stage::Service { SERVICE } else { WAITING };
                self.marker(shard, stage.name(), category, (from_ns, to_ns), data.clone());
            }
        }
    }
}

type Span = (u16, Stage, u64, u64);

fn spans(of: &Exemplar) -> Vec<Span> {
    let at = &of.stamps;
    let (asker, responder) = (of.asker_shard, of.responder_shard);
    let mut spans = vec![(asker, Stage::Schedule, at.intended_ns, at.sent_ns)];
    if at.answered_ns == 0 {
        spans.push((responder, Stage::Unanswered, at.sent_ns, at.closed_ns));
        return spans;
    }
    let out = [Stage::SendQueue, Stage::Hop, Stage::RunQueue, Stage::Mailbox];
    leg(&mut spans, &at.out, at.sent_ns, (asker, responder), out);
    let service = if at.due_ns == 0 { at.out.turn_ns } else { at.timer_turn_ns };
    spans.push((responder, Stage::Timer, at.due_ns, at.timer_turn_ns));
    // Where it was suspended in between, this is the span that holds its polls.
    spans.push((responder, Stage::Service, service, at.answered_ns));
    let back = [Stage::ReplySendQueue, Stage::ReplyHop, Stage::ReplyRunQueue, Stage::ReplyMailbox];
    leg(&mut spans, &at.back, at.answered_ns, (responder, asker), back);
    spans.push((asker, Stage::Settle, at.back.turn_ns, at.closed_ns));
    spans
}

fn leg(
    spans: &mut Vec<Span>,
    leg: &Leg,
    sent_ns: u64,
    (from, to): (u16, u16),
    [queue, hop, run, mailbox]: [Stage; 4],
) {
    let mut ready_ns = sent_ns;
    if leg.published_ns != 0 {
        spans.push((from, queue, sent_ns, leg.published_ns));
        spans.push((to, hop, leg.published_ns, leg.seen_ns));
        ready_ns = leg.seen_ns;
    }
    match leg.aside_ns {
        0 => spans.push((to, run, ready_ns, leg.turn_ns)),
        aside => {
            spans.push((to, run, ready_ns, aside));
            spans.push((to, mailbox, aside, leg.turn_ns));
        }
    }
}

fn json_thread(thread: &Thread, core: u64, first: bool, end_ms: f64) -> Value {
    let n = thread.name.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| thread.start[a].total_cmp(&thread.start[b]));
    let pick = |of: &dyn Fn(usize) -> Value| order.iter().map(|&k| of(k)).collect::<Vec<_>>();
    let empty = |names: &[&str]| {
        let mut table: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!([]))).collect();
        table.insert("length".to_owned(), json!(0));
        Value::Object(table)
    };
    json!({
        "name": format!("Core {core}"), "isMainThread": first, "pausedRanges": [],
        "pid": "1", "processName": "tailbeam", "processShutdownTime": null,
        "processStartupTime": 0.0, "processType": "default", "registerTime": 0.0,
        "unregisterTime": null, "showMarkersInTimeline": true, "tid": format!("core-{core}"),
        // Two empty samples span the run: the profiler shows the range that it finds.
        "samples": {"length": 2, "weightType": "samples", "stack": [null, null],
            "timeDeltas": [0.0, end_ms], "weight": null, "threadCPUDelta": [null, null]},
        "markers": {
            "length": n,
            "category": pick(&|k| json!(thread.category[k])),
            "data": pick(&|k| thread.data[k].clone()),
            "startTime": pick(&|k| json!(thread.start[k])),
            "endTime": pick(&|k| json!(thread.end[k])),
            "name": pick(&|k| json!(thread.name[k])),
            // 1: from a begin to an end.
            "phase": vec![1; n],
        },
        "stringArray": thread.strings,
        "frameTable": empty(&["address", "inlineDepth", "category", "subcategory", "func",
            "nativeSymbol", "innerWindowID", "line", "column"]),
        "funcTable": empty(&["name", "isJS", "relevantForJS", "resource", "fileName", "lineNumber",
            "columnNumber"]),
        "resourceTable": empty(&["lib", "name", "host", "type"]),
        "stackTable": empty(&["prefix", "frame"]),
        "nativeSymbols": empty(&["address", "functionSize", "libIndex", "name"]),
    })
}

fn counters(thread: &Thread, core: u64, place: usize) -> Vec<Value> {
    let counter = |(name, samples): (&String, &Vec<(f64, u64)>)| {
        let mut before = 0.0;
        let deltas = samples.iter().map(|(at, _)| at - std::mem::replace(&mut before, *at));
        json!({
            "category": "Core", "name": format!("{name}, core {core}"),
            "description": "per tick; ticks in which it is unknown are left out",
            "mainThreadIndex": place, "pid": "1",
            "samples": {
                "length": samples.len(),
                "timeDeltas": deltas.collect::<Vec<_>>(),
                "count": samples.iter().map(|(_, count)| count).collect::<Vec<_>>(),
                "number": vec![0; samples.len()],
            },
        })
    };
    thread.counters.iter().map(counter).collect()
}
