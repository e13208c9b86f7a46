//! Where the time of requests went: stages by band, what they waited behind, and the slowest one by one.

use serde_json::Value;

use super::data;
use super::time::{verdict, why};
use crate::render::page::{
    Bars, Block, Card, Chart, Doc, Fact, Figure, Part, Row, Section, Table, Unit,
};

pub(super) fn section(doc: &Doc<'_>, run: &str) -> Section {
    let blocks = if doc.is_known(&data("/stages")) {
        let mut blocks = vec![bars(doc), Block::Table(stages(doc)), conservation(doc)];
        blocks.extend(causes(doc));
        blocks.push(outliers(doc));
        blocks
    } else {
        vec![Block::Text(why(doc, "/stages"))]
    };
    Section {
        id: "stages".into(),
        title: "Where the time went".to_owned(),
        lead: "A band holds the requests between two percentiles. Its row has the mean time in each stage; the stages of a row add up to its mean latency, which was measured apart."
            .to_owned(),
        command: Some(format!("tailbeam latency {run} --by stage")),
        blocks,
    }
}

fn spoken(stage: &str) -> String {
    stage.replace('_', " ")
}

/// All requests, then each band: name and pointer of its composition.
fn groups(doc: &Doc<'_>) -> Vec<(String, String)> {
    let mut groups = vec![("all".to_owned(), data("/stages/all"))];
    for (index, band) in doc.list(&data("/stages/bands")).iter().enumerate() {
        let name = band["name"].as_str().unwrap_or_default().to_owned();
        groups.push((name, data(&format!("/stages/bands/{index}/composition"))));
    }
    groups
}

fn bars(doc: &Doc<'_>) -> Block {
    let rows = groups(doc).into_iter().map(|(name, at)| {
        let stages = doc.list(&format!("{at}/stages"));
        let part = |(colour, of): (usize, &Value)| Part {
            name: spoken(of["stage"].as_str().unwrap_or_default()),
            colour,
            share: of["share"].as_f64().unwrap_or(0.0),
        };
        Row {
            name,
            whole: doc.figure(&format!("{at}/mean_ns"), Unit::Ns).text,
            parts: stages.iter().enumerate().map(part).collect(),
        }
    });
    Block::Chart(Chart::Bars(Bars {
        title: "Stages by band of system latency".to_owned(),
        about: "Each bar is the whole mean latency of its band, written at its right; fast requests above, the slowest below. The table has the figures.".to_owned(),
        rows: rows.filter(|row| !row.parts.is_empty()).collect(),
    }))
}

fn stages(doc: &Doc<'_>) -> Table {
    let groups = groups(doc);
    let mut columns = vec!["stage"];
    columns.extend(groups.iter().map(|(name, _)| name.as_str()));
    let mut table = Table::new("Mean time in each stage", &columns, 1);
    let names: Vec<&str> = groups
        .iter()
        .map(|(_, at)| doc.list(&format!("{at}/stages")))
        .find(|list| !list.is_empty())
        .into_iter()
        .flatten()
        .filter_map(|of| of["stage"].as_str())
        .collect();
    for (index, name) in names.iter().enumerate() {
        let at = |of: &str| format!("{of}/stages/{index}/mean_ns");
        if groups.iter().all(|(_, of)| doc.number(&at(of)).is_none_or(|ns| ns <= 0.0)) {
            continue;
        }
        let mut row = vec![Figure::text(spoken(name))];
        // A band without requests has no stages.
        row.extend(groups.iter().map(|(_, of)| match doc.get(&at(of)) {
            Some(_) => doc.figure(&at(of), Unit::Ns),
            None => Figure::text("-"),
        }));
        table.rows.push(row);
    }
    let sums = [
        ("sum of the stages", "sum_ns", Unit::Ns),
        ("measured apart", "mean_ns", Unit::Ns),
        ("difference", "residual_ns", Unit::SignedNs),
        ("requests", "count", Unit::Count),
    ];
    for (name, key, unit) in sums {
        let mut row = vec![Figure::text(name)];
        row.extend(groups.iter().map(|(_, of)| doc.figure(&format!("{of}/{key}"), unit)));
        table.rows.push(row);
    }
    table
}

fn conservation(doc: &Doc<'_>) -> Block {
    let checks = doc.list(&data("/stages/conservation/checks"));
    let ok = checks.iter().filter(|check| check["holds"] == "OK").count();
    let mut table = Table::new(
        "Comparisons",
        &["check", "holds", "unit", "first", "second", "allowed", "from"],
        3,
    );
    for (index, check) in checks.iter().enumerate() {
        let at = |key: &str| data(&format!("/stages/conservation/checks/{index}/{key}"));
        let unit = match check["unit"].as_str() {
            Some("ns") => Unit::Ns,
            Some("share") => Unit::Share,
            _ => Unit::Number,
        };
        table.rows.push(vec![
            doc.figure(&at("name"), Unit::Text),
            verdict(doc, &at("holds")),
            doc.figure(&at("unit"), Unit::Text),
            doc.figure(&at("left"), unit),
            doc.figure(&at("right"), unit),
            doc.figure(&at("allowed"), unit),
            doc.figure(&at("n"), Unit::Count),
        ]);
    }
    let facts = vec![
        Fact::new("Comparisons that hold", [Figure::text(format!("{ok} of {}", checks.len()))]),
        Fact::new(
            "Clocks agree within",
            [doc.figure(&data("/stages/conservation/clock_ns"), Unit::Ns)],
        ),
    ];
    let misfits = checks.iter().filter_map(|check| {
        Some(format!("{}: {}", check["name"].as_str()?, check["misfit"].as_str()?))
    });
    let mut blocks = vec![Block::Facts(facts)];
    let misfits: Vec<String> = misfits.collect();
    if !misfits.is_empty() {
        blocks.push(Block::List(misfits));
    }
    blocks.push(Block::Fold("All comparisons".to_owned(), vec![Block::Table(table)]));
    Block::Card(Card {
        title: "Do the stages add up to the latency?".to_owned(),
        badge: Some(doc.str(&data("/stages/conservation/holds")).to_owned()),
        blocks,
    })
}

/// What the slowest band waited behind.
fn causes(doc: &Doc<'_>) -> Option<Block> {
    let last = doc.list(&data("/stages/bands")).len().checked_sub(1)?;
    let at = format!("/stages/bands/{last}");
    let name = doc.str(&data(&format!("{at}/name")));
    if !doc.is_known(&data(&format!("{at}/causes"))) {
        return Some(Block::Text(format!(
            "What the requests {name} waited behind: {}",
            why(doc, &format!("{at}/causes"))
        )));
    }
    let waits = format!("{at}/causes/waits");
    let caption = format!("What the requests {name} waited behind, mean per request");
    let mut table =
        Table::new(&caption, &["stage", "behind", "agent", "core", "mean", "error", "requests"], 2);
    let throttled = data(&format!("{at}/causes/throttled"));
    if doc.number(&format!("{throttled}/mean")).is_some() {
        table.rows.push(vec![
            Figure::text("all, and the service"),
            Figure::text("the CPU quota (throttled)"),
            Figure::text("-"),
            Figure::text("-"),
            doc.figure(&format!("{throttled}/mean"), Unit::Ns),
            doc.figure(&format!("{throttled}/error"), Unit::Ns),
            doc.figure(&format!("{throttled}/n"), Unit::Count),
        ]);
    }
    for index in 0..doc.list(&data(&waits)).len() {
        let at = |key: &str| data(&format!("{waits}/{index}/{key}"));
        table.rows.push(vec![
            doc.figure(&at("stage"), Unit::Text),
            doc.figure(&at("what"), Unit::Text),
            doc.figure(&at("agent"), Unit::Count),
            doc.figure(&at("core"), Unit::Count),
            doc.figure(&at("mean_ns"), Unit::Ns),
            doc.figure(&at("error_ns"), Unit::Ns),
            doc.figure(&at("requests"), Unit::Count),
        ]);
    }
    if table.rows.is_empty() {
        return Some(Block::Text(format!(
            "The requests {name} waited behind nothing that was recorded one by one."
        )));
    }
    Some(Block::Table(table))
}

fn outliers(doc: &Doc<'_>) -> Block {
    let list = doc.list(&data("/stages/outliers"));
    let columns = ["at", "most of it", "latency", "asker", "its core", "responder", "its core"];
    let mut table = Table::new("The slowest requests", &columns, 2);
    for (index, of) in list.iter().enumerate() {
        let at = |key: &str| data(&format!("/stages/outliers/{index}/{key}"));
        let longest = of["stages"].as_array().into_iter().flatten();
        let longest = longest.max_by_key(|pair| pair[1].as_u64().unwrap_or(0));
        let longest = longest.map_or_else(String::new, |pair| {
            let ns = pair[1].as_f64().unwrap_or(0.0);
            format!("{} {}", spoken(pair[0].as_str().unwrap_or_default()), Unit::Ns.write(ns))
        });
        table.rows.push(vec![
            doc.figure(&at("at_s"), Unit::Seconds),
            Figure::text(longest),
            doc.figure(&at("system_ns"), Unit::Ns),
            doc.figure(&at("asker"), Unit::Count),
            doc.figure(&at("asker_core"), Unit::Count),
            doc.figure(&at("responder"), Unit::Count),
            doc.figure(&at("responder_core"), Unit::Count),
        ]);
    }
    match table.rows.is_empty() {
        true => Block::Text("No slow request was written down whole.".to_owned()),
        false => Block::Fold(
            format!("The {} slowest requests, one by one", list.len()),
            vec![Block::Table(table)],
        ),
    }
}
