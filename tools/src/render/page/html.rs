//! The page as one HTML file: nothing is fetched, everything can be read without its script, and names from
//! a run are text whatever they hold.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::svg;
use super::{Block, Card, Fact, Figure, Page, Section, Table, Tone, unknown_facts};

/// The page's script.
pub const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

/// How a policy for content names the script.
#[must_use]
pub fn script_hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// Writes the page with the document that it was made from.
///
/// # Errors
/// Those of `out`.
pub fn html(page: &Page, document: &Value, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(whole(page, &embedded(document)?).into_string().as_bytes())?;
    writeln!(out)
}

/// JSON that ends no script: `<` is written by its number.
fn embedded(document: &Value) -> io::Result<String> {
    let text = serde_json::to_string(document)?;
    Ok(text.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"))
}

fn whole(page: &Page, json: &str) -> Markup {
    let policy = format!(
        "default-src 'none'; img-src data:; style-src {}; script-src {}",
        script_hash(STYLE),
        script_hash(SCRIPT)
    );
    let title = format!("{} {}", page.kind, page.title);
    let title: String = title.chars().take(68).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content={ "tailbeam " (env!("CARGO_PKG_VERSION")) };
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the report" }
                header { (head(page)) }
                main id="main" {
                    @for section in &page.sections { (self::section(section)) }
                    (glossary(page))
                }
                footer {
                    p { "Written by tailbeam " (env!("CARGO_PKG_VERSION")) ". Every figure is recomputed from the run directory; unknown is never 0." }
                    button id="download" type="button" hidden { "Download the figures as JSON" }
                }
                script id="document" type="application/json" { (PreEscaped(json)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn head(page: &Page) -> Markup {
    html! {
        div.title {
            @if let Some((word, _)) = &page.verdict { (badge(word, "verdict")) }
            div {
                p.kind { (page.kind) }
                h1 { (page.title) }
            }
        }
        @if let Some((_, sentence)) = page.verdict.as_ref().filter(|(_, text)| !text.is_empty()) {
            p.sentence { (sentence) }
        }
        (facts(&page.facts))
        (believe(page))
        @if !page.sections.is_empty() {
            nav aria-label="Parts of this report" {
                ul {
                    @for section in &page.sections { li { a href={ "#" (section.id) } { (section.title) } } }
                    @if !page.glossary.is_empty() { li { a href="#glossary" { "Glossary" } } }
                }
            }
        }
    }
}

fn believe(page: &Page) -> Markup {
    if page.trust.is_empty() && page.caveats.is_empty() {
        return html! {};
    }
    html! {
        section.caveats aria-labelledby="caveats" {
            h2 id="caveats" { "Before you believe a figure" }
            (facts(&page.trust))
            @if page.caveats.is_empty() {
                p { "No caveat was recorded." }
            } @else {
                ul { @for caveat in &page.caveats { li { (caveat) } } }
            }
        }
    }
}

/// A verdict's word with its sign.
fn badge(word: &str, class: &str) -> Markup {
    let (tone, sign) = match Tone::of(word) {
        Tone::Good => ("good", "\u{2713}"),
        Tone::Bad => ("bad", "\u{2717}"),
        Tone::Open => ("open", "?"),
        Tone::Plain | Tone::Unknown => ("plain", ""),
    };
    html! {
        span class={ "badge " (tone) " " (class) } {
            @if !sign.is_empty() { span aria-hidden="true" { (sign) " " } }
            (word)
        }
    }
}

fn figure(figure: &Figure) -> Markup {
    let at = figure.at.as_deref();
    match (figure.tone, &figure.raw) {
        (Tone::Unknown, _) => html! { span.unknown { (figure.text) } },
        (Tone::Good | Tone::Bad | Tone::Open, _) => {
            html! { span data-at=[at] { (badge(&figure.text, "small")) } }
        }
        (Tone::Plain, Some(raw)) => html! { data value=(raw) data-at=[at] { (figure.text) } },
        (Tone::Plain, None) if at.is_some() => html! { span data-at=[at] { (figure.text) } },
        (Tone::Plain, None) => html! { (figure.text) },
    }
}

fn facts(list: &[Fact]) -> Markup {
    if list.is_empty() {
        return html! {};
    }
    html! {
        dl.facts {
            @for fact in list {
                div {
                    dt { (fact.label) }
                    dd { @for of in &fact.figures { (figure(of)) } }
                }
            }
        }
        @let notes = unknown_facts(list);
        @if !notes.is_empty() { ul.notes { @for note in notes { li { (note) } } } }
    }
}

fn section(section: &Section) -> Markup {
    html! {
        section id=(section.id) aria-labelledby={ (section.id) "-h" } {
            h2 id={ (section.id) "-h" } { (section.title) }
            @if !section.lead.is_empty() { p.lead { (section.lead) } }
            @for (index, block) in section.blocks.iter().enumerate() {
                (self::block(block, &format!("{}-{index}", section.id)))
            }
            @if let Some(command) = &section.command {
                p.command { span { "The same in a terminal: " } code { (command) } }
            }
        }
    }
}

fn block(block: &Block, id: &str) -> Markup {
    match block {
        Block::Text(text) => html! { p { (text) } },
        Block::Facts(list) => facts(list),
        Block::Table(table) => self::table(table),
        Block::Chart(chart) => svg::chart(chart, id),
        Block::List(items) => html! { ul { @for item in items { li { (item) } } } },
        Block::Stack(calls) => html! { ol.stack { @for call in calls { li { (call) } } } },
        Block::Code(text) => html! { pre tabindex="0" { (text) } },
        Block::Fold(summary, blocks) => html! {
            details {
                summary { (summary) }
                @for (index, of) in blocks.iter().enumerate() { (self::block(of, &format!("{id}-{index}"))) }
            }
        },
        Block::Card(card) => self::card(card, id),
    }
}

fn card(card: &Card, id: &str) -> Markup {
    html! {
        article.card aria-labelledby={ (id) "-h" } {
            h3 id={ (id) "-h" } {
                @if let Some(word) = &card.badge { (badge(word, "small")) " " }
                (card.title)
            }
            @for (index, of) in card.blocks.iter().enumerate() { (block(of, &format!("{id}-{index}"))) }
        }
    }
}

fn table(table: &Table) -> Markup {
    html! {
        div.scroll role="group" tabindex="0" aria-label=(table.caption) {
            table {
                caption { (table.caption) }
                thead { tr {
                    @for (index, name) in table.columns.iter().enumerate() {
                        @if index < table.words { th scope="col" { (name) } } @else { th.n scope="col" { (name) } }
                    }
                } }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (index, cell) in row.iter().enumerate() {
                                @if index == 0 && table.words > 0 {
                                    th scope="row" { @if cell.text.is_empty() { "-" } @else { (figure(cell)) } }
                                }
                                @else if index < table.words { td { (figure(cell)) } }
                                @else { td.n { (figure(cell)) } }
                            }
                        }
                    }
                }
            }
        }
        @let notes = table.notes();
        @if !notes.is_empty() { ul.notes { @for note in notes { li { (note) } } } }
    }
}

fn glossary(page: &Page) -> Markup {
    if page.glossary.is_empty() {
        return html! {};
    }
    html! {
        section id="glossary" aria-labelledby="glossary-h" {
            h2 id="glossary-h" { "Glossary" }
            dl.glossary {
                @for (word, meaning) in &page.glossary {
                    div { dt { (word) } dd { (meaning) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn embedded_json_ends_no_script_and_stays_the_same_document() {
        let document = json!({"name": "</script><!--<script>alert(1)</script>\u{2028}"});
        let text = embedded(&document).unwrap();
        assert!(!text.contains('<') && !text.contains('\u{2028}'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    }
}
