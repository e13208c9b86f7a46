//! The page of a soak: verdict and what weakens it first, then gates, latency, the run over time, where the
//! time went, load, cores, heap, counters, cost and host.

mod heap;
mod rest;
mod stalls;
mod time;
mod why;

use serde_json::Value;

use super::{Block, Doc, Fact, Figure, Page, Section, Table, Tone, Unit, glossary};

/// Where the report lies in its document.
const DATA: &str = "/data";

/// A JSON pointer below it.
fn data(path: &str) -> String {
    format!("{DATA}{path}")
}

pub(super) fn page(doc: &Doc<'_>) -> Page {
    let run = doc.str(&data("/run/id")).to_owned();
    Page {
        kind: format!("Soak of {}", doc.str(&data("/run/workload"))),
        title: run.clone(),
        verdict: Some((doc.str(&data("/verdict")).to_owned(), sentence(doc))),
        facts: identity(doc),
        trust: trust(doc),
        caveats: caveats(doc),
        sections: vec![
            gates(doc, &run),
            latency(doc, &run),
            time::section(doc, &run),
            why::section(doc, &run),
            rest::load(doc, &run),
            time::cores(doc, &run),
            heap::section(doc, &run),
            rest::counters(doc, &run),
            rest::cost(doc, &run),
            rest::host(doc),
        ],
        glossary: glossary::SOAK.to_vec(),
        lost: Vec::new(),
    }
}

/// What the verdict rests on, in one sentence.
fn sentence(doc: &Doc<'_>) -> String {
    let gates = doc.list(&data("/gates"));
    let named = |verdict: &str| {
        let with = gates.iter().filter(|gate| gate["verdict"] == verdict);
        with.filter_map(|gate| gate["gate"].as_str()).collect::<Vec<_>>().join(", ")
    };
    let (failed, open) = (named("FAIL"), named("INCONCLUSIVE"));
    match (failed.is_empty(), open.is_empty()) {
        _ if gates.is_empty() => "No gate was judged.".to_owned(),
        (true, true) => format!("All {} gates pass.", gates.len()),
        (false, true) => format!("Failed: {failed}."),
        (true, false) => format!("Nothing failed, but this could not be decided: {open}."),
        (false, false) => format!("Failed: {failed}. Not decided: {open}."),
    }
}

fn identity(doc: &Doc<'_>) -> Vec<Fact> {
    let run = |key: &str, unit| doc.figure(&data(&format!("/run/{key}")), unit);
    vec![
        Fact::new("Started", [run("started", Unit::Text)]),
        Fact::new(
            "Measured",
            [
                run("measured_s", Unit::Seconds),
                Figure::text(" of "),
                run("planned_s", Unit::Seconds),
            ],
        ),
        Fact::new("Ended", [run("end", Unit::Text)]),
        Fact::new(
            "Epochs",
            [
                Figure::text(format!(
                    "{}, not measured between them: ",
                    doc.list(&data("/epochs/rows")).len()
                )),
                doc.figure(&data("/epochs/unmeasured_s"), Unit::Seconds),
            ],
        ),
        Fact::new(
            "Agents",
            [
                doc.figure(&data("/agents/asked"), Unit::Count),
                Figure::text(" asked, at least "),
                doc.figure(&data("/agents/live_min"), Unit::Count),
                Figure::text(" live"),
            ],
        ),
        Fact::new(
            "Load",
            [
                doc.figure(&data("/load/offered_per_s"), Unit::PerSecond),
                Figure::text(" offered of "),
                doc.figure(&data("/load/planned_per_s"), Unit::PerSecond),
                Figure::text(" planned"),
            ],
        ),
        Fact::new("Seed", [run("seed", Unit::Count)]),
        Fact::new("Host", [run("host", Unit::Text)]),
        Fact::new("Recorded by", [Figure::text("tailbeam "), run("recorded_by", Unit::Text)]),
    ]
}

/// Host, counters, losses, gaps and our own cost: what each figure is worth.
fn trust(doc: &Doc<'_>) -> Vec<Fact> {
    let unknown: Vec<&str> =
        doc.list(&data("/measured/unknown")).iter().filter_map(|of| of["thing"].as_str()).collect();
    let hardware = ["cycles", "instructions", "cache-misses", "branch-misses"];
    let absent = hardware.iter().filter(|name| unknown.iter().any(|of| of.contains(*name))).count();
    let counters = match absent {
        0 if doc.list(&data("/measured/matrix")).is_empty() => {
            Figure::text("unknown").toned(Tone::Unknown)
        }
        0 => Figure::text("all counted"),
        4 => Figure::text("none: not measured here"),
        n => Figure::text(format!("{n} of 4 not measured here")),
    };
    let machine = data("/host/virtual_machine");
    let machine = match doc.get(&machine) {
        Some(_) => doc.figure(&machine, Unit::Text),
        None => Figure::text("unknown").toned(Tone::Unknown),
    };
    let gaps = doc.list(&data("/timeline/events")).iter().filter(|event| event["kind"] == "gap");
    let (count, length) =
        gaps.fold((0, 0.0), |(n, s), gap| (n + 1, s + gap["len_s"].as_f64().unwrap_or(0.0)));
    let mut facts = vec![
        Fact::new("Virtual machine", [machine]),
        Fact::new("Hardware counters", [counters]),
        Fact::new(
            "Gaps from outside",
            [Figure::text(match count {
                0 => "none".to_owned(),
                n => format!("{n}, together {}", Unit::Seconds.write(length)),
            })],
        ),
        Fact::new("Lost", [Figure::text(lost(doc))]),
    ];
    facts.push(match doc.is_known(&data("/cost")) {
        true => Fact::new(
            "Measuring cost",
            [
                doc.figure(&data("/cost/cpu_share/mean"), Unit::SignedShare),
                Figure::text(" of the cores ["),
                doc.figure(&data("/cost/cpu_share/low"), Unit::SignedShare),
                Figure::text(", "),
                doc.figure(&data("/cost/cpu_share/high"), Unit::SignedShare),
                Figure::text("]"),
            ],
        ),
        false => Fact::new("Measuring cost", [doc.figure(&data("/cost"), Unit::Share)]),
    });
    facts
}

/// Samples and records that were lost, in words.
fn lost(doc: &Doc<'_>) -> String {
    let heap: Option<u64> = doc.is_known(&data("/leaks")).then(|| {
        let lost = doc.list(&data("/leaks/sampling/lost")).iter();
        lost.filter_map(|of| of["samples"].as_u64()).sum()
    });
    let switches: Option<u64> = doc.is_known(&data("/stages")).then(|| {
        doc.list(&data("/stages/cores")).iter().filter_map(|core| core["lost"].as_u64()).sum()
    });
    let words = |of: Option<u64>, what: &str| match of {
        Some(n) => format!("{} {what}", Unit::Count.write(n as f64)),
        None => format!("{what}: unknown"),
    };
    format!("{}, {}", words(heap, "heap samples"), words(switches, "records of switches"))
}

fn caveats(doc: &Doc<'_>) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut caveats: Vec<String> = doc.list(&data("/caveats")).iter().filter_map(text).collect();
    for check in doc.list(&data("/validity")).iter().filter(|check| check["holds"] == false) {
        let (name, text) = (check["name"].as_str(), check["text"].as_str());
        caveats.push(format!("{}: {}", name.unwrap_or_default(), text.unwrap_or_default()));
    }
    caveats.extend(unmeasured(doc));
    for place in ["/stages/caveats", "/leaks/caveats"] {
        let more = doc.get(&data(place)).and_then(Value::as_array);
        caveats.extend(more.into_iter().flatten().filter_map(text));
    }
    let mut seen = Vec::new();
    caveats.retain(|caveat| {
        let new = !seen.contains(caveat);
        seen.push(caveat.clone());
        new
    });
    caveats
}

/// What was not measured, each cause once.
fn unmeasured(doc: &Doc<'_>) -> Vec<String> {
    let mut causes: Vec<(String, Vec<&str>)> = Vec::new();
    for of in doc.list(&data("/measured/unknown")) {
        let part = |key: &str| of[key].as_str().unwrap_or_default();
        let cause = format!("{}; remedy: {}", part("unknown"), part("remedy"));
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, things)) => things.push(part("thing")),
            None => causes.push((cause, vec![part("thing")])),
        }
    }
    let said = causes.into_iter();
    said.map(|(cause, things)| format!("not measured: {}: {cause}", things.join(", "))).collect()
}

fn gates(doc: &Doc<'_>, run: &str) -> Section {
    let columns = ["gate", "required", "measured", "result", "judged on", "blocks"];
    let mut table = Table::new("What was asked and what was found", &columns, 4);
    let mut reasons = Vec::new();
    for (index, gate) in doc.list(&data("/gates")).iter().enumerate() {
        let at = |key: &str| data(&format!("/gates/{index}/{key}"));
        let verdict = doc.figure(&at("verdict"), Unit::Text);
        let tone = Tone::of(&verdict.text);
        table.rows.push(vec![
            doc.figure(&at("gate"), Unit::Text),
            doc.figure(&at("requirement"), Unit::Text),
            doc.figure(&at("measured"), Unit::Text),
            verdict.toned(tone),
            doc.figure(&at("n"), Unit::Count),
            doc.figure(&at("blocks"), Unit::Count),
        ]);
        if tone != Tone::Good {
            let more = doc.number(&at("needs_more_s"));
            let more = more
                .map_or_else(String::new, |s| format!("; needs {} more", Unit::Seconds.write(s)));
            let word = |key: &str| gate[key].as_str().unwrap_or_default();
            reasons.push(format!("{}: {}{more}", word("gate"), word("reason")));
        }
    }
    let mut checks =
        Table::new("What must hold for them to mean anything", &["check", "holds", "seen"], 3);
    for index in 0..doc.list(&data("/validity")).len() {
        let at = |key: &str| data(&format!("/validity/{index}/{key}"));
        let holds = doc.figure(&at("holds"), Unit::Text);
        let tone = if holds.text == "yes" { Tone::Plain } else { Tone::Bad };
        let (name, text) =
            (doc.figure(&at("name"), Unit::Text), doc.figure(&at("text"), Unit::Text));
        checks.rows.push(vec![name, holds.toned(tone), text]);
    }
    let mut blocks = vec![Block::Table(table)];
    if !reasons.is_empty() {
        blocks.push(Block::List(reasons));
    }
    blocks.push(Block::Table(checks));
    blocks.extend(epochs(doc));
    Section {
        id: "gates".into(),
        title: "Gates".to_owned(),
        lead: "A gate passes or fails with 95 % confidence, or it is not decided; what was not measured never passes."
            .to_owned(),
        command: Some(format!("tailbeam report {run}")),
        blocks,
    }
}

/// Who recorded which part of a run that was cut and continued.
fn epochs(doc: &Doc<'_>) -> Option<Block> {
    let rows = doc.list(&data("/epochs/rows"));
    if rows.len() < 2 {
        return None;
    }
    let columns = [
        "epoch",
        "started",
        "not measured before",
        "by the clock",
        "measured",
        "windows",
        "ended",
        "open then",
        "bytes cut",
        "build",
    ];
    let mut table = Table::new("Epochs: who recorded which part", &columns, 10);
    for index in 0..rows.len() {
        let at = |key: &str| data(&format!("/epochs/rows/{index}/{key}"));
        let figure = |key: &str, unit| doc.figure(&at(key), unit);
        table.rows.push(vec![
            figure("epoch", Unit::Count),
            figure("started", Unit::Text),
            figure("unmeasured_before_s", Unit::Seconds),
            figure("unmeasured_clock", Unit::Text),
            figure("measured_s", Unit::Seconds),
            figure("windows", Unit::Count),
            figure("end", Unit::Text),
            figure("open_at_cut", Unit::Count),
            figure("cut_bytes", Unit::Count),
            figure("build_id", Unit::Text),
        ]);
    }
    Some(Block::Table(table))
}

fn latency(doc: &Doc<'_>, run: &str) -> Section {
    let columns = ["series", "count", "p50", "p90", "p99", "p99.9", "max", "mean", "off the scale"];
    let mut table = Table::new("Percentiles, with their count and maximum", &columns, 1);
    for index in 0..doc.list(&data("/latency")).len() {
        let at = |key: &str| data(&format!("/latency/{index}/{key}"));
        let series = doc.figure(&at("series"), Unit::Text);
        let mut row = vec![
            Figure::text(series.text.replace('_', " ")),
            doc.figure(&at("count"), Unit::Count),
        ];
        row.extend(
            ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns", "mean_ns"]
                .map(|key| doc.figure(&at(key), Unit::Ns)),
        );
        row.push(doc.figure(&at("overflow"), Unit::Count));
        table.rows.push(row);
    }
    let mut blocks = vec![Block::Table(table)];
    blocks.extend(time::curves(doc));
    Section {
        id: "latency".into(),
        title: "Latency".to_owned(),
        lead: "From the instant at which a request was to be sent, so that a stall of the system is in it; system is end to end less the planned delay of the responder."
            .to_owned(),
        command: Some(format!("tailbeam latency {run}")),
        blocks,
    }
}
