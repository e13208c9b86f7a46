//! The run over time, the cores over time, and latency by percentile, as pictures.

use serde_json::Value;

use super::data;
use crate::render::page::{
    Across, Area, Block, Chart, Doc, Fact, Figure, Heat, Line, Lines, Section, Table, Tone, Unit,
};

/// Curves are drawn from this rank on.
const RANK_MIN: f64 = 0.05;

/// Numbers of a list; what is null is not known.
fn points(doc: &Doc<'_>, at: &str) -> Vec<Option<f64>> {
    doc.list(at).iter().map(Value::as_f64).collect()
}

fn spans(doc: &Doc<'_>, of: &str) -> Vec<(f64, f64)> {
    let edge = |key: &str| points(doc, &data(&format!("/timeline/{of}/{key}")));
    let both = edge("from_s").into_iter().zip(edge("to_s"));
    both.map(|(from, to)| (from.unwrap_or(0.0), to.unwrap_or(0.0))).collect()
}

/// What one picture of the run over time shows.
struct Picture<'a> {
    of: &'a str,
    title: &'a str,
    about: &'a str,
    unit: Unit,
    log: bool,
    lines: &'a [(&'a str, &'a str)],
    band: Option<Area>,
}

fn picture(doc: &Doc<'_>, what: &Picture<'_>, marks: &[(f64, String)], end: f64) -> Block {
    let at = |key: &str| data(&format!("/timeline/{}/{key}", what.of));
    let lines = what.lines.iter().map(|(key, name)| Line {
        name: (*name).to_owned(),
        at: at(key),
        points: points(doc, &at(key)),
        x: None,
    });
    Block::Chart(Chart::Lines(Lines {
        title: what.title.to_owned(),
        about: what.about.to_owned(),
        x: spans(doc, what.of),
        x_at: (at("from_s"), at("to_s")),
        across: Across::Time,
        log: what.log,
        unit: what.unit,
        lines: lines.collect(),
        band: what.band,
        end,
        marks: marks.to_vec(),
    }))
}

const PICTURES: [Picture<'_>; 4] = [
    Picture {
        of: "load",
        title: "Requests per second",
        about: "Offered: requests that came due. Served: terminal replies. Failed: expired, lost, refused or in error.",
        unit: Unit::PerSecond,
        log: false,
        lines: &[
            ("served_per_s", "served"),
            ("offered_per_s", "offered"),
            ("failed_per_s", "failed"),
        ],
        band: None,
    },
    Picture {
        of: "latency",
        title: "System latency (logarithmic)",
        about: "Each point is of the requests that ended in its slot; the area reaches from the median to the 99th percentile. A slot with too few requests has no percentile.",
        unit: Unit::Ns,
        log: true,
        lines: &[("p99_ns", "p99"), ("p50_ns", "p50"), ("max_ns", "max"), ("p90_ns", "p90")],
        band: Some(Area { low: 1, high: 0 }),
    },
    Picture {
        of: "load",
        title: "Open requests",
        about: "Mean number of requests that were sent and not yet answered, at independent samples.",
        unit: Unit::Number,
        log: false,
        lines: &[("open", "open")],
        band: None,
    },
    Picture {
        of: "memory",
        title: "Memory",
        about: "At the end of each slot. Live: bytes that the program has allocated and not freed. Resident: what the kernel gives the process, tables of agents and our own probes included.",
        unit: Unit::Bytes,
        log: false,
        lines: &[("live_bytes", "live"), ("rss_bytes", "resident")],
        band: None,
    },
];

/// How fast its memory grows, what of it is nobody's, and what is held of the disk.
fn growth(doc: &Doc<'_>) -> Vec<Fact> {
    let slope = |title: &str, of: &str| {
        let at = data(&format!("/memory/{of}"));
        if !doc.is_known(&at) {
            return Fact::new(title, [doc.figure(&at, Unit::BytesPerHour)]);
        }
        let part = |key: &str| doc.figure(&format!("{at}/{key}"), Unit::BytesPerHour);
        let text = Figure::text;
        let interval = [part("per_hour"), text(" ["), part("low"), text(", "), part("high")];
        Fact::new(title, interval.into_iter().chain([text("]")]).collect::<Vec<_>>())
    };
    let own = data("/memory/own");
    let owned = if doc.is_known(&own) {
        let part = |key: &str, unit| doc.figure(&format!("{own}/{key}"), unit);
        let (leaks, suspects) = (part("leaks", Unit::Count), part("suspects", Unit::Count));
        let text = Figure::text;
        let sites = [part("bytes", Unit::Bytes), text(" at "), part("sites", Unit::Count)];
        let judged = [text(" call sites, "), leaks, text(" LEAK, "), suspects, text(" SUSPECT")];
        sites.into_iter().chain(judged).collect()
    } else {
        vec![doc.figure(&own, Unit::Bytes)]
    };
    vec![
        slope("Resident memory grows by", "rss_growth"),
        slope("Allocator live grows by", "live_growth"),
        Fact::new("Heap of no agent, our own among it", owned),
        Fact::new(
            "Disk held from the start",
            [doc.figure(&data("/memory/disk_held"), Unit::Bytes)],
        ),
    ]
}

/// The run over time.
pub(super) fn section(doc: &Doc<'_>, run: &str) -> Section {
    let mut blocks = Vec::new();
    if doc.is_known(&data("/timeline")) {
        let marks = marks(doc);
        let ends = ["load", "latency", "memory"]
            .map(|of| spans(doc, of).last().map_or(0.0, |last| last.1));
        let end = ends.into_iter().fold(0.0, f64::max);
        blocks.extend(PICTURES.iter().map(|what| picture(doc, what, &marks, end)));
        let missing = doc.list(&data("/timeline/memory/unknown")).iter();
        let missing: Vec<String> = missing
            .map(|pair| {
                let word = |index: usize| pair[index].as_str().unwrap_or_default();
                format!("{}: unknown: {}", word(0), word(1))
            })
            .collect();
        if !missing.is_empty() {
            blocks.push(Block::List(missing));
        }
        blocks.push(Block::Facts(growth(doc)));
        blocks.push(events(doc));
    } else {
        blocks.push(Block::Text(why(doc, "/timeline")));
    }
    Section {
        id: "time".into(),
        title: "Over time".to_owned(),
        lead: "All pictures share their time axis, seconds after the start.".to_owned(),
        command: Some(format!("tailbeam export {run} --to csv")),
        blocks,
    }
}

/// Why something is unknown, as a sentence.
pub(super) fn why(doc: &Doc<'_>, at: &str) -> String {
    let why = doc.why(&data(at)).unwrap_or_else(|| "this document does not hold it".to_owned());
    format!("Unknown: {why}.")
}

fn marks(doc: &Doc<'_>) -> Vec<(f64, String)> {
    let events = doc.list(&data("/timeline/events")).iter();
    let mark = |event: &Value| Some((event["at_s"].as_f64()?, event["kind"].as_str()?.to_owned()));
    // More names than that cover the lines; the table has all. The drain is the end of the lines anyway.
    events.filter_map(mark).filter(|(_, kind)| kind != "drain").take(8).collect()
}

fn events(doc: &Doc<'_>) -> Block {
    let count = doc.list(&data("/timeline/events")).len();
    if count == 0 {
        return Block::Text("No event was recorded: no gap, no step down in measuring.".to_owned());
    }
    let mut table = Table::new("Events", &["kind", "what", "at", "length"], 2);
    for index in 0..count {
        let at = |key: &str| data(&format!("/timeline/events/{index}/{key}"));
        table.rows.push(vec![
            doc.figure(&at("kind"), Unit::Text),
            doc.figure(&at("text"), Unit::Text),
            doc.figure(&at("at_s"), Unit::Seconds),
            doc.figure(&at("len_s"), Unit::Seconds),
        ]);
    }
    Block::Table(table)
}

/// Latency by percentile.
pub(super) fn curves(doc: &Doc<'_>) -> Option<Block> {
    let list = doc.list(&data("/curves"));
    let mut lines = Vec::new();
    for (index, curve) in list.iter().enumerate() {
        let word = |key: &str| curve[key].as_str().unwrap_or_default();
        let second = |key: &str| Unit::Seconds.write(curve[key].as_f64().unwrap_or(0.0));
        let name = match (word("part"), word("series")) {
            ("whole", "system") => "system, whole run".to_owned(),
            ("whole", _) => "end to end, whole run".to_owned(),
            (part, _) => {
                format!("system, {part} part ({} to {})", second("from_s"), second("to_s"))
            }
        };
        let at = data(&format!("/curves/{index}/ns"));
        let x = points(doc, &data(&format!("/curves/{index}/ranks")));
        // The very fastest requests say nothing and would stretch the axis by decades.
        let first =
            x.iter().position(|rank| rank.is_some_and(|rank| rank > RANK_MIN)).unwrap_or(x.len());
        lines.push(Line {
            name,
            points: points(doc, &at).split_off(first),
            at,
            x: Some(x.into_iter().skip(first).map(|rank| rank.unwrap_or(0.0)).collect()),
        });
    }
    (!lines.is_empty()).then(|| {
        Block::Chart(Chart::Lines(Lines {
            title: "Latency by percentile (both axes logarithmic)".to_owned(),
            about: "To the right are the slowest requests: each step of the axis has a tenth of the requests above it. A line begins at the 10th percentile and ends where only its maximum would be left. First and last part are there to look at; whether a run became slower is a gate's business.".to_owned(),
            x: Vec::new(),
            x_at: (String::new(), String::new()),
            across: Across::Ranks,
            log: true,
            unit: Unit::Ns,
            lines,
            band: None,
            end: 0.0,
            marks: Vec::new(),
        }))
    })
}

/// The cores over time and over the whole run.
pub(super) fn cores(doc: &Doc<'_>, run: &str) -> Section {
    let mut blocks = Vec::new();
    if doc.is_known(&data("/timeline")) {
        let maps = [
            (
                "turns_ratio",
                "Time in turns of agents",
                "Share of each slot that a core spent in turns of agents; at the right its mean. A run that measures what measuring costs does not observe its cores in part of the time.",
            ),
            (
                "waited_ratio",
                "Time ready to run without the CPU",
                "Share of each slot in which the core's thread could have run while another had the CPU: other programs, the host, or our own housekeeping.",
            ),
        ];
        blocks
            .extend(maps.into_iter().filter_map(|(key, title, about)| map(doc, key, title, about)));
    }
    let columns = [
        "core",
        "agents",
        "cpu",
        "busy",
        "waited",
        "outside",
        "turns",
        "doorbells",
        "io_uring_enter",
        "timer late, max",
        "panics",
        "dead letters",
    ];
    let mut table = Table::new("Cores over the whole run", &columns, 1);
    for index in 0..doc.list(&data("/cores")).len() {
        let figure = |key: &str, unit| doc.figure(&data(&format!("/cores/{index}/{key}")), unit);
        let mut row = vec![figure("core", Unit::Count), figure("agents", Unit::Count)];
        row.extend(
            ["cpu_share", "busy_share", "waited_share", "outside_share"]
                .map(|key| figure(key, Unit::Share)),
        );
        row.extend(
            ["turns_per_s", "doorbells_per_s", "enters_per_s"]
                .map(|key| figure(key, Unit::PerSecond)),
        );
        row.push(figure("timer_late_max_ns", Unit::Ns));
        row.extend(["panicked", "dead_letters"].map(|key| figure(key, Unit::Count)));
        table.rows.push(row);
    }
    blocks.push(Block::Table(table));
    blocks.extend(super::stalls::blocks(doc));
    Section {
        id: "cores".into(),
        title: "Cores".to_owned(),
        lead: "Cpu holds the kernel's part, busy does not; waited is time ready to run without the CPU, outside the least of it that went to other programs.".to_owned(),
        command: Some(format!("tailbeam latency {run} --by core")),
        blocks,
    }
}

fn map(doc: &Doc<'_>, key: &str, title: &str, about: &str) -> Option<Block> {
    let extent = spans(doc, "cores");
    let extent = (extent.first()?.0, extent.last()?.1);
    let rows = doc.list(&data("/timeline/cores/rows")).iter().enumerate();
    let rows = rows.map(|(index, row)| {
        let cells = points(doc, &data(&format!("/timeline/cores/rows/{index}/{key}")));
        (format!("core {}", row["core"]), cells)
    });
    let (title, about) = (title.to_owned(), about.to_owned());
    Some(Block::Chart(Chart::Heat(Heat { title, about, extent, rows: rows.collect() })))
}

/// A figure with a verdict's tone.
pub(super) fn verdict(doc: &Doc<'_>, at: &str) -> Figure {
    let figure = doc.figure(at, Unit::Text);
    let tone = Tone::of(&figure.text);
    figure.toned(tone)
}
