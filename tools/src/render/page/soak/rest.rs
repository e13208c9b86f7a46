//! Load, counters, what measuring cost, host and plan.

use serde_json::Value;

use super::data;
use super::time::why;
use crate::render::page::{Block, Doc, Fact, Figure, Section, Table, Unit};

const OUTCOMES: [&str; 9] = [
    "attempts",
    "ok",
    "declined",
    "cancelled",
    "expired",
    "refused",
    "lost",
    "error",
    "open_at_stop",
];

pub(super) fn load(doc: &Doc<'_>, run: &str) -> Section {
    let mut blocks = vec![Block::Facts(rates(doc))];
    if doc.is_known(&data("/load/outcomes")) {
        let names = OUTCOMES.map(|key| key.replace('_', " "));
        let columns = names.each_ref().map(String::as_str);
        let mut table = Table::new("Every request and what became of it", &columns, 0);
        let figure = |key: &str| doc.figure(&data(&format!("/load/outcomes/{key}")), Unit::Count);
        table.rows.push(OUTCOMES.map(figure).into());
        blocks.push(Block::Table(table));
    } else {
        blocks.push(Block::Text(why(doc, "/load/outcomes")));
    }
    blocks.extend(budgets(doc).map(Block::Table));
    blocks.push(Block::Table(fairness(doc)));
    blocks.push(Block::Facts(little(doc)));
    Section {
        id: "load".into(),
        title: "Load".to_owned(),
        lead: "The schedule is open: requests come due whether or not earlier ones were answered. All outcomes together are the attempts."
            .to_owned(),
        command: Some(format!("tailbeam report {run}")),
        blocks,
    }
}

fn rates(doc: &Doc<'_>) -> Vec<Fact> {
    let of = |key: &str, unit| [doc.figure(&data(&format!("/load/{key}")), unit)];
    vec![
        Fact::new("Planned", of("planned_per_s", Unit::PerSecond)),
        Fact::new("Offered", of("offered_per_s", Unit::PerSecond)),
        Fact::new("Served", of("served_per_s", Unit::PerSecond)),
        Fact::new("Delivery", of("delivery", Unit::Share)),
        Fact::new("Oldest open request", of("oldest_open_ns", Unit::Ns)),
        Fact::new("Refused by the bound of open requests", of("refused_open_bound", Unit::Count)),
        Fact::new("Answers that found no room", of("answers_undelivered", Unit::Count)),
        Fact::new(
            "Runtime memory of an agent",
            [doc.figure(&data("/agents/bytes_per_agent"), Unit::Bytes)],
        ),
        Fact::new(
            "Resident memory by agent",
            [doc.figure(&data("/agents/rss_per_agent"), Unit::Bytes)],
        ),
    ]
}

fn fairness(doc: &Doc<'_>) -> Table {
    let columns =
        ["requests of an agent", "min", "p1", "p50", "p99", "max", "mean", "agents with none"];
    let mut table = Table::new("Fairness", &columns, 1);
    for of in ["completions", "attempts"] {
        let at = data(&format!("/agents/{of}"));
        let mut row = vec![Figure::text(of)];
        if doc.is_known(&at) {
            row.extend(
                ["min", "p1", "p50", "p99", "max"]
                    .map(|key| doc.figure(&format!("{at}/{key}"), Unit::Count)),
            );
            row.push(doc.figure(&format!("{at}/mean"), Unit::Number));
            row.push(doc.figure(&format!("{at}/zero"), Unit::Count));
        } else {
            row.extend((1..columns.len()).map(|_| doc.figure(&at, Unit::Count)));
        }
        table.rows.push(row);
    }
    table
}

/// What of the gates' budgets was spent; none where no gate has one.
fn budgets(doc: &Doc<'_>) -> Option<Table> {
    let columns = [
        "gate",
        "allowed",
        "spent",
        "worst 5 min, multiple of what is allowed",
        "worst hour",
        "longest above, s",
    ];
    let mut table = Table::new("Error budgets: 1 spends exactly what the gate allows", &columns, 1);
    for index in 0..doc.list(&data("/budgets")).len() {
        let at = |key: &str| data(&format!("/budgets/{index}/{key}"));
        let burn = |key: &str| match doc.is_known(&at(key)) {
            true => doc.figure(&at(&format!("{key}/rate")), Unit::Number),
            false => doc.figure(&at(key), Unit::Number),
        };
        table.rows.push(vec![
            doc.figure(&at("gate"), Unit::Text),
            doc.figure(&at("allowed"), Unit::Share),
            doc.figure(&at("spent"), Unit::Number),
            burn("worst_5min"),
            burn("worst_hour"),
            doc.figure(&at("longest_over_s"), Unit::Number),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn little(doc: &Doc<'_>) -> Vec<Fact> {
    let law = data("/littles_law");
    if !doc.is_known(&law) {
        return vec![Fact::new("Little's law", [doc.figure(&law, Unit::Number)])];
    }
    let of = |key: &str, unit| doc.figure(&format!("{law}/{key}"), unit);
    vec![
        Fact::new(
            "Little's law",
            [of("ratio", Unit::Number), Figure::text(" \u{b1} "), of("error95", Unit::Number)],
        ),
        Fact::new("Throughput", [of("throughput_per_s", Unit::PerSecond)]),
        Fact::new("Mean time open", [of("mean_open_s", Unit::Seconds)]),
        Fact::new("Mean outstanding", [of("mean_outstanding", Unit::Number)]),
    ]
}

pub(super) fn counters(doc: &Doc<'_>, run: &str) -> Section {
    let mut blocks = Vec::new();
    if doc.is_known(&data("/counters")) {
        let cores = doc.list(&data("/counters/cores"));
        for (core, of) in cores.iter().enumerate() {
            blocks.push(Block::Table(counted(doc, core, of)));
        }
    } else {
        blocks.push(Block::Text(why(doc, "/counters")));
    }
    Section {
        id: "counters".into(),
        title: "Counters".to_owned(),
        lead: "What the kernel and the processor counted for the thread of each core. Scaled: the counter ran part of the time; rough: less than nine tenths of it."
            .to_owned(),
        command: Some(format!("tailbeam counters {run}")),
        blocks,
    }
}

fn counted(doc: &Doc<'_>, core: usize, of: &Value) -> Table {
    let caption = format!("Core {}", of["core"]);
    let mut table =
        Table::new(&caption, &["counter", "quality", "count", "per second", "per request"], 2);
    let list = of["total"]["counters"].as_array().map_or(0, Vec::len);
    for index in 0..list {
        let at = |key: &str| data(&format!("/counters/cores/{core}/total/counters/{index}/{key}"));
        let mut row =
            vec![doc.figure(&at("name"), Unit::Text), doc.figure(&at("quality"), Unit::Text)];
        let why = doc.get(&at("unknown")).and_then(Value::as_str);
        let remedy = doc.get(&at("remedy")).and_then(Value::as_str).unwrap_or_default();
        for (key, unit) in
            [("count", Unit::Number), ("per_s", Unit::Number), ("per_request", Unit::Number)]
        {
            let mut figure = doc.figure(&at(key), unit);
            if figure.raw.is_none() && key == "count" {
                figure.text = "unknown".to_owned();
                figure.why = why.map(|why| format!("{why}; remedy: {remedy}"));
            }
            row.push(figure);
        }
        table.rows.push(row);
    }
    table
}

pub(super) fn cost(doc: &Doc<'_>, run: &str) -> Section {
    let mut blocks = Vec::new();
    if doc.is_known(&data("/cost")) {
        let mut table =
            Table::new("With measuring, less without", &["of", "mean", "low", "high"], 1);
        let rows = [
            ("CPU time, share of the cores", "cpu_share", Unit::SignedShare),
            ("CPU time of a request", "cpu_per_request_ns", Unit::SignedNs),
            ("replies per second, relative", "throughput", Unit::SignedShare),
            ("mean latency", "mean_ns", Unit::SignedNs),
            ("99th percentile of a second", "p99_ns", Unit::SignedNs),
        ];
        for (name, key, unit) in rows {
            let mut row = vec![Figure::text(name)];
            row.extend(
                ["mean", "low", "high"]
                    .map(|part| doc.figure(&data(&format!("/cost/{key}/{part}")), unit)),
            );
            table.rows.push(row);
        }
        let facts = vec![
            Fact::new("Pairs of seconds", [doc.figure(&data("/cost/pairs"), Unit::Count)]),
            Fact::new(
                "Switched off in one of each",
                [doc.figure(&data("/cost/switched"), Unit::Text)],
            ),
        ];
        blocks.extend([Block::Facts(facts), Block::Table(table)]);
    } else {
        blocks.push(Block::Text(why(doc, "/cost")));
    }
    blocks.push(Block::Facts(beside(doc)));
    let lowered = doc.list(&data("/own_cost/lowered")).iter().filter_map(|step| {
        let (from, to) = (step["from"].as_str()?, step["to"].as_str()?);
        Some(format!("{} s after the start: from {from} to {to}", step["at_s"]))
    });
    let lowered: Vec<String> = lowered.collect();
    if !lowered.is_empty() {
        blocks.push(Block::List(lowered));
    }
    Section {
        id: "cost".into(),
        title: "What measuring cost".to_owned(),
        lead: "Seconds with measuring beside seconds without, in this run; intervals of 95 %. An interval around 0 means that no cost was found."
            .to_owned(),
        command: Some(format!("tailbeam latency {run}")),
        blocks,
    }
}

/// The loss where the cores have nothing to spare, and what the model says.
fn beside(doc: &Doc<'_>) -> Vec<Fact> {
    let at = |path: &str| data(&format!("/own_cost/{path}"));
    let saturated = match doc.is_known(&at("saturated")) {
        true => vec![
            doc.figure(&at("saturated/throughput/mean"), Unit::SignedShare),
            doc.figure(&at("saturated/throughput/low"), Unit::SignedShare),
            doc.figure(&at("saturated/throughput/high"), Unit::SignedShare),
        ],
        false => vec![doc.figure(&at("saturated"), Unit::Share)],
    };
    let model = if doc.is_known(&at("model")) { "model/cpu_share" } else { "model" };
    vec![
        Fact::new("Saturated throughput, relative", saturated),
        Fact::new("By the model, share of the cores", [doc.figure(&at(model), Unit::Share)]),
    ]
}

pub(super) fn host(doc: &Doc<'_>) -> Section {
    let mut blocks = Vec::new();
    let mut measured = Table::new("What could be measured here", &["area", "how"], 2);
    for index in 0..doc.list(&data("/measured/matrix")).len() {
        let of =
            |key: &str| doc.figure(&data(&format!("/measured/matrix/{index}/{key}")), Unit::Text);
        measured.rows.push(vec![of("area"), of("text")]);
    }
    if !measured.rows.is_empty() {
        blocks.push(Block::Table(measured));
    }
    blocks
        .push(Block::Fold("Fingerprint of the host".to_owned(), vec![tree(doc, "/host", "Host")]));
    blocks.push(Block::Fold(
        "The plan, as it was frozen".to_owned(),
        vec![tree(doc, "/plan", "Plan")],
    ));
    Section {
        id: "host".into(),
        title: "Host and plan".to_owned(),
        lead: "The figures are of this binary, kernel, host, plan and seed.".to_owned(),
        command: Some("tailbeam doctor".to_owned()),
        blocks,
    }
}

/// Everything below a part of the document, one row for each value.
fn tree(doc: &Doc<'_>, of: &str, caption: &str) -> Block {
    let at = data(of);
    let Some(value) = doc.get(&at).filter(|_| doc.is_known(&at)) else {
        return Block::Text(why(doc, of));
    };
    let mut table = Table::new(caption, &["what", "value"], 2);
    walk(doc, value, &at, "", &mut table);
    Block::Table(table)
}

fn walk(doc: &Doc<'_>, value: &Value, at: &str, name: &str, table: &mut Table) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(map) if !map.contains_key("unknown") => {
            for (key, of) in map {
                let step = key.replace('~', "~0").replace('/', "~1");
                walk(doc, of, &format!("{at}/{step}"), &below(key), table);
            }
        }
        Value::Array(list) => {
            for (index, of) in list.iter().enumerate() {
                walk(doc, of, &format!("{at}/{index}"), &below(&index.to_string()), table);
            }
        }
        _ => {
            let key = name.rsplit('.').next().unwrap_or(name);
            table.rows.push(vec![Figure::text(name), doc.figure(at, Unit::of_key(key))]);
        }
    }
}
