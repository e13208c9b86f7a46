//! A report as a page: one model, made from a JSON document of ours and from nothing else, and written as
//! HTML, Markdown or plain text.
//!
//! Every figure is looked up in the document by its JSON pointer, which stays with it: the page's numbers
//! are the document's. A document of a kind that has no page of its own gets tables of what it holds.

mod certificate;
mod chart;
mod doc;
mod generic;
mod glossary;
mod html;
mod markdown;
mod soak;
mod svg;

use std::borrow::Cow;

use serde_json::Value;

pub use chart::{Across, Area, Bars, Chart, Forest, Heat, Line, Lines, Part, Ratio, Row};
pub(crate) use doc::unknown;
pub use doc::{Doc, Figure, Unit};
pub use html::{SCRIPT, html, script_hash};
pub use markdown::{markdown, plain};

/// How something is meant; never said by colour alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// It holds.
    Good,
    /// It does not.
    Bad,
    /// It cannot be said.
    Open,
    /// It was not measured.
    Unknown,
}

impl Tone {
    /// Of a verdict's word.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "GO" | "PASS" | "OK" | "CLEAN" | "SAME" | "EQUIVALENT" | "BETTER" => Self::Good,
            "NO-GO" | "FAIL" | "PARTIAL" | "LEAK" | "WORSE" | "NOT VERIFIED" => Self::Bad,
            "INCONCLUSIVE" | "SUSPECT" | "UNKNOWN" => Self::Open,
            _ => Self::Plain,
        }
    }
}

/// A whole page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What it is: `Soak report`.
    pub kind: String,
    /// Of what: the run.
    pub title: String,
    /// The verdict's word, and one sentence.
    pub verdict: Option<(String, String)>,
    /// Identity.
    pub facts: Vec<Fact>,
    /// What decides how far the figures can be believed, in figures.
    pub trust: Vec<Fact>,
    /// What must be known before a figure is believed, in words.
    pub caveats: Vec<String>,
    /// Parts.
    pub sections: Vec<Section>,
    /// Words, and what they mean here.
    pub glossary: Vec<(&'static str, &'static str)>,
    /// Pointers that led nowhere.
    pub lost: Vec<String>,
}

/// A part of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its anchor.
    pub id: Cow<'static, str>,
    /// Title.
    pub title: String,
    /// What is seen here, in a sentence.
    pub lead: String,
    /// The command that prints the same.
    pub command: Option<String>,
    /// What it holds.
    pub blocks: Vec<Block>,
}

/// A label and its figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Label.
    pub label: String,
    /// Figures, in the words between them.
    pub figures: Vec<Figure>,
}

impl Fact {
    /// A label with its figures.
    pub(crate) fn new(label: &str, figures: impl Into<Vec<Figure>>) -> Self {
        Self { label: label.to_owned(), figures: figures.into() }
    }
}

/// A piece of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// Labels with figures.
    Facts(Vec<Fact>),
    /// A table.
    Table(Table),
    /// A picture of figures.
    Chart(Chart),
    /// A list.
    List(Vec<String>),
    /// Calls of a stack, innermost first.
    Stack(Vec<String>),
    /// Text with its line ends.
    Code(String),
    /// What is opened when it is wanted.
    Fold(String, Vec<Block>),
    /// One of several things of a kind.
    Card(Card),
}

/// One of several things of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Title.
    pub title: String,
    /// The verdict's word.
    pub badge: Option<String>,
    /// What it holds.
    pub blocks: Vec<Block>,
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of its columns.
    pub columns: Vec<String>,
    /// Columns from the left that hold words; the others hold figures, to the right.
    pub words: usize,
    /// Rows.
    pub rows: Vec<Vec<Figure>>,
}

impl Table {
    pub(crate) fn new(caption: &str, columns: &[&str], words: usize) -> Self {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        Self { caption: caption.to_owned(), columns, words, rows: Vec::new() }
    }

    /// Causes of its unknown figures, each once, with the columns that lack them.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<(&str, Vec<&str>)> = Vec::new();
        for row in &self.rows {
            for (column, cell) in self.columns.iter().zip(row) {
                let Some(why) = cell.why.as_deref() else { continue };
                match notes.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, columns)) if columns.contains(&column.as_str()) => {}
                    Some((_, columns)) => columns.push(column),
                    None => notes.push((why, vec![column])),
                }
            }
        }
        let note = |(why, columns): (&str, Vec<&str>)| format!("{}: {why}", columns.join(", "));
        notes.into_iter().map(note).collect()
    }
}

/// Causes of facts that are unknown.
fn unknown_facts(facts: &[Fact]) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for fact in facts {
        for why in fact.figures.iter().filter_map(|figure| figure.why.as_deref()) {
            let note = format!("{}: {why}", fact.label);
            if !said.contains(&note) {
                said.push(note);
            }
        }
    }
    said
}

/// The page of a document.
#[must_use]
pub fn page(document: &Value) -> Page {
    let doc = Doc::new(document);
    let schema = document.get("schema").and_then(Value::as_str).unwrap_or_default();
    let statement = document.get("predicateType").is_some();
    let mut page = match schema {
        "tailbeam.report" => soak::page(&doc),
        "tailbeam.certificate" => certificate::judged(&doc),
        _ if statement => certificate::statement(&doc),
        _ => generic::page(&doc, schema),
    };
    page.lost = doc.lost();
    page
}
