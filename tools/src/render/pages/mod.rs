//! Pages: headings, lines and tables, written as text, as Markdown or as HTML. What is on them is decided once, so that
//! all say the same.

mod chaos;
mod compare;
mod forest;
mod html;
mod scale;

use std::io::{self, Write};

pub use chaos::{ChaosData, chaos};
pub use compare::{brief, comparison};
pub use html::html;
pub use scale::series;

use super::page::Chart;
use super::text;
use tailbeam_harness::report::Measured;

/// JSON Schema of the comparison document.
pub const COMPARE_SCHEMA: &str = include_str!("../../../schemas/compare.schema.json");
/// JSON Schema of the scale document.
pub const SCALE_SCHEMA: &str = include_str!("../../../schemas/scale.schema.json");

/// JSON Schema of the chaos document.
pub const CHAOS_SCHEMA: &str = include_str!("../../../schemas/chaos.schema.json");

/// A page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// What it is, two blanks, and of what.
    pub title: String,
    /// The verdict's word, and one sentence, where it is not a part: for a page that shows it at its head.
    pub verdict: Option<(String, String)>,
    /// The command that makes it again, for a page that is read elsewhere.
    pub again: Option<String>,
    /// Its parts, from top to bottom.
    pub parts: Vec<Part>,
}

/// A part of a page.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// A heading.
    Heading(String),
    /// A line of text.
    Line(String),
    /// Something to know before believing a figure.
    Caveat(String),
    /// A table.
    Table(Sheet),
    /// A picture.
    Chart(Picture),
}

/// A picture, for those who read text and for those who see it drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Lines in which every column counts; none where a table has all of it.
    pub lines: Vec<String>,
    /// The same drawn; without it the lines are shown.
    pub drawn: Option<Chart>,
}

/// What a cell says, and where in the document its figure is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// JSON pointer of its figure; none where it says several, or none.
    pub at: Option<String>,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, at: None }
    }
}

impl Cell {
    /// A figure that is in the document.
    fn of(text: String, at: &str, key: &str) -> Self {
        Self { text, at: Some(format!("{at}/{key}")) }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Column heads.
    pub head: Vec<String>,
    /// Rows, as long as the head.
    pub rows: Vec<Vec<Cell>>,
    /// Columns at the left that hold words; the others are figures and lie at the right.
    pub words: usize,
}

impl Page {
    fn heading(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Heading(text.into()));
    }

    fn line(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Line(text.into()));
    }

    fn caveat(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Caveat(text.into()));
    }

    fn table<C: Into<Cell>>(&mut self, head: &[&str], words: usize, rows: Vec<Vec<C>>) {
        let head = head.iter().map(|&text| text.to_owned()).collect();
        let row = |cells: Vec<C>| cells.into_iter().map(Into::into).collect();
        let rows = rows.into_iter().map(row).collect();
        self.parts.push(Part::Table(Sheet { head, rows, words }));
    }
}

/// A figure in a cell, where only the word fits.
fn cell<T>(measured: &Measured<T>, text: impl FnOnce(&T) -> String) -> String {
    measured.known().map_or_else(|| "unknown".to_owned(), text)
}

/// Writes a page for a terminal.
///
/// # Errors
/// Those of `out`.
pub fn text(page: &Page, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", page.title)?;
    for part in &page.parts {
        match part {
            Part::Heading(heading) => writeln!(out, "\n{heading}")?,
            Part::Line(line) => writeln!(out, "  {line}")?,
            Part::Caveat(caveat) => writeln!(out, "  ! {caveat}")?,
            Part::Chart(of) => of.lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?,
            Part::Table(sheet) => {
                let head: Vec<&str> = sheet.head.iter().map(String::as_str).collect();
                let said = |cells: &Vec<Cell>| cells.iter().map(|cell| cell.text.clone()).collect();
                writeln!(out, "{}", text::table(&head, sheet.rows.iter().map(said), sheet.words))?;
            }
        }
    }
    Ok(())
}

/// Writes a page as Markdown (tables as in GitHub's).
///
/// # Errors
/// Those of `out`.
pub fn markdown(page: &Page, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# {}\n", escaped(&page.title))?;
    for part in &page.parts {
        match part {
            Part::Heading(heading) => writeln!(out, "\n## {}\n", escaped(heading))?,
            Part::Line(line) => writeln!(out, "{}  ", escaped(line))?,
            Part::Caveat(caveat) => writeln!(out, "- **note** {}", escaped(caveat))?,
            // What has a table of its own is not drawn in text.
            Part::Chart(of) if of.lines.is_empty() => {}
            Part::Chart(of) => {
                writeln!(out, "\n```text")?;
                of.lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
                writeln!(out, "```")?;
            }
            Part::Table(sheet) => {
                let row = |cells: &mut dyn Iterator<Item = &str>| {
                    format!("| {} |", cells.map(escaped).collect::<Vec<_>>().join(" | "))
                };
                let rule = |column| if column < sheet.words { "---" } else { "---:" };
                let rules: Vec<&str> = (0..sheet.head.len()).map(rule).collect();
                let head = row(&mut sheet.head.iter().map(String::as_str));
                writeln!(out, "\n{head}\n| {} |", rules.join(" | "))?;
                for cells in &sheet.rows {
                    let cells = row(&mut cells.iter().map(|cell| cell.text.as_str()));
                    writeln!(out, "{cells}")?;
                }
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

/// Text that stays text: names may hold anything.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => {
                escaped.push('\\');
                escaped.push(c);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_hold_the_same_and_names_stay_text() {
        let mut page = Page { title: "a | <b>".to_owned(), ..Page::default() };
        page.heading("rows");
        page.caveat("stopped");
        page.table(&["name", "n"], 1, vec![vec!["x|y".to_owned(), "7".to_owned()]]);
        let lines = vec!["10 |##".to_owned()];
        page.parts.push(Part::Chart(Picture { lines, drawn: None }));
        let written = |write: fn(&Page, &mut dyn Write) -> io::Result<()>| {
            let mut out = Vec::new();
            write(&page, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let (plain, md) = (written(text), written(markdown));
        assert!(plain.contains("! stopped") && plain.contains("x|y") && plain.contains("10 |##"));
        assert!(md.starts_with("# a \\| &lt;b>\n"), "{md}");
        assert!(md.contains("| x\\|y | 7 |") && md.contains("| --- | ---: |"), "{md}");
        assert!(md.contains("```text\n10 |##\n```"), "{md}");
    }
}
