//! The page of any document of ours: its values as labels, its lists as tables. What has a page of its own
//! looks better; this one leaves nothing out that has room.

use serde_json::{Map, Value};

use super::{Block, Doc, Fact, Figure, Page, Section, Table, Tone, Unit};

/// Rows of a table; further ones are counted.
const ROWS_MAX: usize = 200;
/// Columns of a table; lists with more are shown value by value.
const COLUMNS_MAX: usize = 14;
/// Depth to which values are followed.
const DEPTH_MAX: usize = 6;

pub(super) fn page(doc: &Doc<'_>, schema: &str) -> Page {
    let kind = schema.strip_prefix("tailbeam.").unwrap_or("document").replace('_', " ");
    let title = ["/data/run/id", "/data/run", "/data/id", "/data/name"];
    let title = title.into_iter().filter_map(|at| doc.get(at)?.as_str()).next().unwrap_or_default();
    let root = if doc.get("/data").is_some() { "/data" } else { "" };
    let verdict = doc.get(&format!("{root}/verdict")).and_then(Value::as_str);
    let caveats = doc.get(&format!("{root}/caveats")).and_then(Value::as_array);
    let mut blocks = Vec::new();
    match doc.get(root) {
        Some(Value::Array(list)) => blocks = listed(doc, list, root, &kind, 0),
        Some(value) => walk(doc, value, root, &mut blocks, 0),
        None => {}
    }
    Page {
        kind: "Document".to_owned(),
        title: if title.is_empty() { kind } else { format!("{kind} {title}") },
        verdict: verdict.map(|word| (word.to_owned(), String::new())),
        facts: Vec::new(),
        trust: Vec::new(),
        caveats: caveats
            .into_iter()
            .flatten()
            .filter_map(|of| Some(of.as_str()?.to_owned()))
            .collect(),
        sections: vec![Section {
            id: "all".into(),
            title: "What it holds".to_owned(),
            lead: "Every value of the document, in its own words.".to_owned(),
            command: None,
            blocks,
        }],
        glossary: Vec::new(),
        lost: Vec::new(),
    }
}

fn below(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.contains_key("unknown"),
        Value::Array(list) => {
            list.iter().all(|item| !item.is_object() && !item.is_array()) && list.len() <= 12
        }
        _ => true,
    }
}

fn spoken(key: &str) -> String {
    let units = ["_bytes_per_h", "_per_s", "_ns", "_bytes"];
    let key = units.iter().find_map(|unit| key.strip_suffix(unit)).unwrap_or(key);
    key.replace('_', " ")
}

fn cell(doc: &Doc<'_>, at: &str, key: &str) -> Figure {
    let figure = doc.figure(at, Unit::of_key(key));
    match key {
        "verdict" | "result" | "holds" => {
            let tone = Tone::of(&figure.text);
            figure.toned(tone)
        }
        _ => figure,
    }
}

fn walk(doc: &Doc<'_>, value: &Value, at: &str, blocks: &mut Vec<Block>, depth: usize) {
    let Value::Object(map) = value else { return };
    let facts: Vec<Fact> = map
        .iter()
        .filter(|(_, of)| is_plain(of))
        .map(|(key, _)| Fact::new(&spoken(key), [cell(doc, &below(at, key), key)]))
        .collect();
    if !facts.is_empty() {
        blocks.push(Block::Facts(facts));
    }
    for (key, of) in map.iter().filter(|(_, of)| !is_plain(of)) {
        let (at, mut inner) = (below(at, key), Vec::new());
        match of {
            Value::Array(list) => inner = listed(doc, list, &at, &spoken(key), depth),
            Value::Object(_) if depth < DEPTH_MAX => walk(doc, of, &at, &mut inner, depth + 1),
            _ => {}
        }
        match (depth, of) {
            (_, Value::Array(_)) => blocks.append(&mut inner),
            _ => blocks.push(Block::Fold(spoken(key), inner)),
        }
    }
}

/// A list of things as a table with a column for each plain value of theirs.
fn listed(doc: &Doc<'_>, list: &[Value], at: &str, name: &str, depth: usize) -> Vec<Block> {
    let maps: Vec<&Map<String, Value>> = list.iter().filter_map(Value::as_object).collect();
    if maps.len() < list.len() {
        let words: Vec<String> = list.iter().take(ROWS_MAX).map(ToString::to_string).collect();
        let text = format!("{name}: {}{}", words.join(", "), more(list.len()));
        return vec![Block::Fold(format!("{name} ({})", list.len()), vec![Block::Text(text)])];
    }
    let mut columns: Vec<&str> = Vec::new();
    for (key, _) in maps.iter().flat_map(|map| map.iter()).filter(|(_, of)| is_plain(of)) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    columns.truncate(COLUMNS_MAX);
    let text = |key: &&str| maps.iter().all(|map| !map.get(*key).is_some_and(Value::is_number));
    let (mut ordered, figures): (Vec<&str>, Vec<&str>) = columns.into_iter().partition(text);
    let words = ordered.len().max(1);
    ordered.extend(figures);
    let named: Vec<String> = ordered.iter().map(|key| spoken(key)).collect();
    let mut table = Table { caption: name.to_owned(), columns: named, words, rows: Vec::new() };
    let mut deeper = Vec::new();
    for (index, map) in maps.iter().take(ROWS_MAX).enumerate() {
        let cell = |key: &&str| match map.contains_key(*key) {
            true => cell(doc, &below(&format!("{at}/{index}"), key), key),
            false => Figure::text("-"),
        };
        table.rows.push(ordered.iter().map(cell).collect());
        if depth < DEPTH_MAX && map.values().any(|of| !is_plain(of)) {
            let mut inner = Vec::new();
            for (key, of) in map.iter().filter(|(_, of)| !is_plain(of)) {
                let at = below(&format!("{at}/{index}"), key);
                match of {
                    Value::Array(list) => {
                        inner.extend(listed(doc, list, &at, &spoken(key), depth + 1))
                    }
                    of => walk(doc, of, &at, &mut inner, depth + 1),
                }
            }
            deeper.push(Block::Fold(format!("{name} {}", index + 1), inner));
        }
    }
    let mut blocks = Vec::new();
    if !table.columns.is_empty() && !table.rows.is_empty() {
        blocks.push(Block::Table(table));
    }
    blocks.extend(deeper);
    if list.len() > ROWS_MAX {
        blocks.push(Block::Text(format!("{name}{}", more(list.len()))));
    }
    blocks
}

fn more(len: usize) -> String {
    match len.saturating_sub(ROWS_MAX) {
        0 => String::new(),
        rest => format!(" and {rest} more, which the embedded JSON has"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::page;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_without_a_page_of_its_own_is_shown_whole() {
        let document = json!({"schema": "tailbeam.comparison", "schema_version": 1, "data": {
            "verdict": "WORSE", "caveats": ["few pairs"], "seed": 7,
            "metrics": [
                {"name": "p99", "ratio": {"mean": 1.05, "low": 1.03}, "a_ns": 88_000, "verdict": "WORSE"},
                {"name": "<script>", "a_ns": {"unknown": "no reply", "remedy": "longer"}, "verdict": "SAME"},
            ],
        }});
        let page = page(&document);
        assert_eq!(page.verdict, Some(("WORSE".to_owned(), String::new())));
        assert_eq!(page.caveats, ["few pairs"]);
        let table = page.sections[0].blocks.iter().find_map(|block| match block {
            Block::Table(table) => Some(table),
            _ => None,
        });
        let table = table.unwrap();
        assert_eq!(table.columns, ["name", "verdict", "a"]);
        assert_eq!(table.rows[0][2].text, "88.0 us");
        assert_eq!(table.rows[1][2].why.as_deref(), Some("no reply; remedy: longer"));
        assert!(page.lost.is_empty(), "{:?}", page.lost);
    }
}
