//! The heap: verdict, each leak with its stack, what lives most, and what could not have been seen.

use serde_json::Value;

use super::data;
use super::time::{verdict, why};
use crate::render::page::{Block, Card, Doc, Fact, Figure, Section, Table, Unit};

pub(super) fn section(doc: &Doc<'_>, run: &str) -> Section {
    let blocks = if doc.is_known(&data("/leaks")) {
        let mut blocks = vec![Block::Facts(facts(doc)), Block::Text(gate(doc))];
        blocks.extend(cards(doc));
        blocks.push(Block::Table(live(doc)));
        if let Some(text) = left_out(doc, run) {
            blocks.push(Block::Text(text));
        }
        blocks
    } else {
        vec![Block::Text(why(doc, "/leaks"))]
    };
    Section {
        id: "leaks".into(),
        title: "Leaks".to_owned(),
        lead: "A leak is a site whose objects outlive their kind and grow in number, with the chance of a mistake bounded over all sites; a suspect is one that may still become it."
            .to_owned(),
        command: Some(format!("tailbeam leaks {run}")),
        blocks,
    }
}

fn rate(doc: &Doc<'_>, at: &str) -> Vec<Figure> {
    if !doc.is_known(at) {
        return vec![doc.figure(at, Unit::BytesPerHour)];
    }
    let part = |key: &str| doc.figure(&format!("{at}/{key}"), Unit::BytesPerHour);
    vec![
        part("estimate"),
        Figure::text(" ["),
        part("low"),
        Figure::text(", "),
        part("high"),
        Figure::text("]"),
    ]
}

fn facts(doc: &Doc<'_>) -> Vec<Fact> {
    let at = |path: &str| data(&format!("/leaks{path}"));
    vec![
        Fact::new("Verdict", [verdict(doc, &at("/verdict"))]),
        Fact::new("Growth of live bytes", rate(doc, &at("/totals/live_bytes_per_h"))),
        Fact::new("Explained by leaks", rate(doc, &at("/totals/explained_bytes_per_h"))),
        Fact::new("Live", [doc.figure(&at("/live/total/bytes"), Unit::Bytes)]),
        Fact::new(
            "Sampled",
            [
                Figure::text("one in "),
                doc.figure(&at("/sampling/mean_bytes"), Unit::Bytes),
                Figure::text(", "),
                doc.figure(&at("/sampling/taken"), Unit::Count),
                Figure::text(" samples"),
            ],
        ),
        Fact::new(
            "Found 4 times of 5",
            [
                doc.figure(&at("/blind/rate_80_bytes_per_h"), Unit::BytesPerHour),
                Figure::text(" at one site"),
            ],
        ),
    ]
}

fn gate(doc: &Doc<'_>) -> String {
    let word = |key: &str| doc.str(&data(&format!("/leaks/gate/{key}"))).to_owned();
    format!("Gate {}: {}.", word("verdict"), word("reason").trim_end_matches('.'))
}

/// A card for each site that is a leak or a suspect, or at which an agent is one.
fn cards(doc: &Doc<'_>) -> Vec<Block> {
    let sites = doc.list(&data("/leaks/sites"));
    let shown = sites.iter().enumerate().filter_map(|(index, site)| {
        let word = worst(site)?;
        Some(Block::Card(card(doc, index, site, word)))
    });
    let cards: Vec<Block> = shown.collect();
    match cards.is_empty() {
        true => vec![Block::Text("No site is a leak or a suspect.".to_owned())],
        false => cards,
    }
}

/// The worse verdict of a site and of its agents, when it is one to be shown.
fn worst(site: &Value) -> Option<&'static str> {
    let of_site = site["finding"]["verdict"].as_str();
    let of_agents = site["agents"].as_array().into_iter().flatten();
    let of_agents = of_agents.filter_map(|agent| agent["finding"]["verdict"].as_str());
    let all: Vec<&str> = of_site.into_iter().chain(of_agents).collect();
    ["LEAK", "SUSPECT"].into_iter().find(|word| all.contains(word))
}

fn card(doc: &Doc<'_>, index: usize, site: &Value, word: &str) -> Card {
    let at = |path: &str| data(&format!("/leaks/sites/{index}{path}"));
    let mut facts = vec![
        Fact::new("Growth", rate(doc, &at("/finding/rate_bytes_per_h"))),
        Fact::new(
            "Survivors",
            [
                doc.figure(&at("/survivors/sampled"), Unit::Count),
                Figure::text(" sampled of "),
                doc.figure(&at("/survivors/born"), Unit::Count),
                Figure::text(" that were made"),
            ],
        ),
        Fact::new("Oldest", [doc.figure(&at("/survivors/oldest_ns"), Unit::Ns)]),
        Fact::new("Chance of a mistake", [doc.figure(&at("/finding/evidence/p"), Unit::Number)]),
    ];
    if doc.is_known(&at("/finding/since")) {
        facts.push(Fact::new(
            "Since",
            [doc.figure(&at("/finding/since/at_ns"), Unit::Ns), Figure::text(" after the start")],
        ));
    }
    if doc.is_known(&at("/finding/reason_text")) {
        facts.push(Fact::new("But", [doc.figure(&at("/finding/reason_text"), Unit::Text)]));
    }
    let stack = site["stack"].as_array().into_iter().flatten().map(call).collect();
    let mut blocks = vec![Block::Facts(facts)];
    blocks.extend(agents(doc, index, site));
    blocks.push(Block::Stack(stack));
    if let Some(n) = site["calls_left_out"].as_u64().filter(|n| *n > 0) {
        blocks.push(Block::Text(format!("and {n} outer calls")));
    }
    let line = site["line"].as_str().map_or_else(String::new, |line| format!(" {line}"));
    let function = site["function"].as_str().unwrap_or("(unknown)");
    Card { title: format!("{function}{line}"), badge: Some(word.to_owned()), blocks }
}

fn call(call: &Value) -> String {
    let function = call["function"].as_str().unwrap_or("?");
    match (call["file"].as_str(), call["line"].as_u64()) {
        (Some(file), Some(line)) => format!("{function}  {file}:{line}"),
        (Some(file), None) => format!("{function}  {file}"),
        _ => function.to_owned(),
    }
}

fn agents(doc: &Doc<'_>, site: usize, of: &Value) -> Option<Block> {
    let mut table = Table::new(
        "Whose the survivors are",
        &["agent", "verdict", "sampled", "bytes", "share"],
        2,
    );
    for index in 0..of["agents"].as_array()?.len().min(8) {
        let at = |path: &str| data(&format!("/leaks/sites/{site}/agents/{index}{path}"));
        table.rows.push(vec![
            doc.figure(&at("/agent"), Unit::Text),
            verdict(doc, &at("/finding/verdict")),
            doc.figure(&at("/sampled"), Unit::Count),
            doc.figure(&at("/bytes"), Unit::Bytes),
            doc.figure(&at("/share/estimate"), Unit::Share),
        ]);
    }
    (!table.rows.is_empty()).then_some(Block::Table(table))
}

fn live(doc: &Doc<'_>) -> Table {
    let mut table = Table::new(
        "Where the most bytes live (estimated from samples)",
        &["function", "line", "verdict", "live", "objects"],
        3,
    );
    for index in 0..doc.list(&data("/leaks/live/rows")).len() {
        let at = |key: &str| data(&format!("/leaks/live/rows/{index}/{key}"));
        table.rows.push(vec![
            doc.figure(&at("function"), Unit::Text),
            doc.figure(&at("line"), Unit::Text),
            verdict(doc, &at("verdict")),
            doc.figure(&at("bytes"), Unit::Bytes),
            doc.figure(&at("objects"), Unit::Count),
        ]);
    }
    table
}

fn left_out(doc: &Doc<'_>, run: &str) -> Option<String> {
    let count = |key: &str| doc.number(&data(&format!("/leaks/{key}"))).unwrap_or(0.0);
    let (sites, rows) = (count("sites_left_out"), count("live/rows_left_out"));
    (sites + rows > 0.0).then(|| {
        format!(
            "Not on this page: {sites} further sites, {rows} further rows; tailbeam leaks {run} --format json has all."
        )
    })
}
