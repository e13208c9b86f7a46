//! A page as one HTML file: what the text says, and the document that it was made from. All text is escaped where the
//! file is written, by [`page::html`], which has no other way of writing it.

use std::io::{self, Write};

use serde_json::Value;

use super::{Cell, Page, Part, Sheet};
use crate::render::page::{self, Block, Figure, Section, Table};

/// Writes a page as HTML, with its document for whoever wants the figures.
///
/// # Errors
/// Those of `out`.
pub fn html(of: &Page, document: &Value, out: &mut dyn Write) -> io::Result<()> {
    page::html(&whole(of, document), document, out)
}

/// Where what comes before the first heading is.
const FIRST: &str = "Overview";

fn whole(of: &Page, document: &Value) -> page::Page {
    let (kind, title) = of.title.split_once("  ").unwrap_or(("Document", &of.title));
    let mut sections = vec![section(0, FIRST)];
    let mut caveats = Vec::new();
    for part in &of.parts {
        match part {
            Part::Heading(heading) => sections.push(section(sections.len(), heading)),
            // Above everything, where nobody has to look for it.
            Part::Caveat(caveat) => caveats.push(caveat.clone()),
            other => {
                let last = sections.last_mut().expect("the first is always there");
                last.blocks.extend(block(other, &last.title, document));
            }
        }
    }
    let pointers = of.parts.iter().flat_map(|part| match part {
        Part::Table(sheet) => &sheet.rows[..],
        _ => &[],
    });
    let pointers = pointers.flatten().filter_map(|cell| cell.at.clone());
    let lost = pointers.filter(|at| document.pointer(at).is_none()).collect();
    sections[0].command.clone_from(&of.again);
    page::Page {
        kind: kind.to_owned(),
        title: title.to_owned(),
        verdict: of.verdict.clone(),
        facts: Vec::new(),
        trust: Vec::new(),
        caveats,
        sections,
        glossary: Vec::new(),
        lost,
    }
}

fn section(number: usize, title: &str) -> Section {
    Section {
        id: format!("part-{number}").into(),
        title: title.to_owned(),
        lead: String::new(),
        command: None,
        blocks: Vec::new(),
    }
}

fn block(part: &Part, title: &str, document: &Value) -> Option<Block> {
    match part {
        Part::Line(line) => Some(Block::Text(line.clone())),
        Part::Table(sheet) => Some(Block::Table(table(sheet, title, document))),
        Part::Chart(of) => Some(match &of.drawn {
            Some(chart) => Block::Chart(chart.clone()),
            None => Block::Code(of.lines.join("\n")),
        }),
        Part::Heading(_) | Part::Caveat(_) => None,
    }
}

fn table(sheet: &Sheet, title: &str, document: &Value) -> Table {
    let row = |cells: &Vec<Cell>| cells.iter().map(|cell| figure(cell, document)).collect();
    Table {
        caption: title.to_owned(),
        columns: sheet.head.clone(),
        words: sheet.words,
        rows: sheet.rows.iter().map(row).collect(),
    }
}

/// What a cell says, with the number that it is of.
fn figure(cell: &Cell, document: &Value) -> Figure {
    let said = Figure::text(&cell.text);
    match cell.at.as_ref().and_then(|at| Some((at, document.pointer(at)?))) {
        Some((at, Value::Number(number))) => {
            Figure { at: Some(at.clone()), raw: Some(number.to_string()), ..said }
        }
        // Why it is not known stands below the table.
        Some((_, of @ Value::Object(_))) => match page::unknown(of) {
            Some(why) => Figure { why: Some(why), tone: page::Tone::Unknown, ..said },
            None => said,
        },
        _ => said,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Picture, text};
    use super::*;

    const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&|`#";

    fn page() -> Page {
        let mut page = Page {
            title: format!("Comparison  {HOSTILE}"),
            verdict: Some((HOSTILE.to_owned(), HOSTILE.to_owned())),
            again: Some(format!("tailbeam compare --from {HOSTILE}")),
            ..Page::default()
        };
        page.line("6 pairs");
        for part in 0..2 {
            page.heading(format!("part {part} of {HOSTILE}"));
            page.caveat(format!("caveat {part} {HOSTILE}"));
            page.line(HOSTILE);
            page.table(&["name", HOSTILE], 1, vec![vec![HOSTILE.to_owned(), "88.0 us".to_owned()]]);
            let lines = vec![format!("10 |## {HOSTILE}"), "20 |#".to_owned()];
            page.parts.push(Part::Chart(Picture { lines, drawn: None }));
        }
        page
    }

    fn written(document: &Value) -> String {
        let mut out = Vec::new();
        html(&page(), document, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What a browser shows: no tags, and signs for their names.
    fn shown(html: &str) -> String {
        let body = html.split_once("<body>").unwrap().1.split_once("<script").unwrap().0;
        let mut shown = String::new();
        for piece in body.split('<') {
            shown.push_str(piece.split_once('>').map_or(piece, |(_, text)| text));
        }
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")]
            .iter()
            .fold(shown, |text, (name, sign)| text.replace(name, sign))
    }

    #[test]
    fn a_page_says_in_html_what_it_says_as_text() {
        let shown = shown(&written(&json!({"data": HOSTILE})));
        let mut plain = Vec::new();
        text(&page(), &mut plain).unwrap();
        let plain = String::from_utf8(plain).unwrap();
        for line in plain.lines().map(|line| line.trim_start_matches([' ', '!'])) {
            // Columns are cells there.
            for words in line.split("  ").map(str::trim).filter(|words| !words.is_empty()) {
                assert!(shown.contains(words), "{words:?} is not in {shown}");
            }
        }
        assert!(shown.contains("tailbeam compare --from"), "{shown}");
    }

    #[test]
    fn hostile_names_stay_text_and_nothing_is_fetched() {
        let html = written(&json!({"data": HOSTILE}));
        // The document, and the page's own script, which it can be read without.
        assert_eq!(html.matches("<script").count(), 2);
        assert!(!html.contains("<img") && !html.contains("onerror=alert(2)>\""), "{html}");
        assert!(
            !html.contains(" src=\"") && !html.contains("http://") && !html.contains("https://")
        );
        let embedded = html.split_once("type=\"application/json\">").unwrap().1;
        let embedded: Value =
            serde_json::from_str(embedded.split_once("</script>").unwrap().0).unwrap();
        assert_eq!(embedded, json!({"data": HOSTILE}));
    }

    #[test]
    fn a_figure_is_that_of_the_document_and_a_pointer_that_leads_nowhere_is_told() {
        let mut page = page();
        let of = |text: &str, key: &str| Cell::of(text.to_owned(), "/data", key);
        let row = vec![of("88.0 us", "p99"), of("unknown", "cpu"), of("7", "nowhere")];
        page.table(&["p99", "cpu", "n"], 0, vec![row]);
        let why = json!({"unknown": "no reply", "remedy": "longer"});
        let document = json!({"data": {"p99": 88_000, "cpu": why}});
        let whole = whole(&page, &document);
        assert_eq!(whole.lost, ["/data/nowhere"]);
        let mut out = Vec::new();
        html(&page, &document, &mut out).unwrap();
        let html = String::from_utf8(out).unwrap();
        assert!(
            html.contains("value=\"88000\"") && html.contains("data-at=\"/data/p99\""),
            "{html}"
        );
        assert!(html.contains("no reply; remedy: longer"), "{html}");
    }

    /// Two parts of one name are two places.
    #[test]
    fn each_part_has_an_anchor_of_its_own() {
        let html = written(&Value::Null);
        for number in 0..3 {
            assert_eq!(html.matches(&format!(" id=\"part-{number}\"")).count(), 1);
            assert_eq!(html.matches(&format!("href=\"#part-{number}\"")).count(), 1);
        }
    }
}
