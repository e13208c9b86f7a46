//! The page as Markdown (GitHub's), and as plain text. A picture becomes a table of its smallest, median and
//! largest points; whoever wants all of them takes the JSON.

use std::io::{self, Write};

use super::chart::summary;
use super::{Block, Chart, Fact, Figure, Page, Table, Unit, unknown_facts};
use crate::render::text::table as aligned;

/// How text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Markdown,
    Plain,
}

/// Writes the page as Markdown.
///
/// # Errors
/// Those of `out`.
pub fn markdown(page: &Page, out: &mut dyn Write) -> io::Result<()> {
    write(page, Kind::Markdown, out)
}

/// Writes the page as plain text.
///
/// # Errors
/// Those of `out`.
pub fn plain(page: &Page, out: &mut dyn Write) -> io::Result<()> {
    write(page, Kind::Plain, out)
}

fn write(page: &Page, kind: Kind, out: &mut dyn Write) -> io::Result<()> {
    kind.heading(1, &format!("{}  {}", page.kind, page.title), out)?;
    if let Some((word, sentence)) = &page.verdict {
        let word = kind.strong(word);
        writeln!(out, "Verdict: {word}. {}\n", kind.escape(sentence))?;
    }
    kind.facts(&page.facts, out)?;
    if !page.trust.is_empty() || !page.caveats.is_empty() {
        kind.heading(2, "Before you believe a figure", out)?;
        kind.facts(&page.trust, out)?;
        kind.list(&page.caveats, out)?;
        if page.caveats.is_empty() {
            writeln!(out, "No caveat was recorded.\n")?;
        }
    }
    for section in &page.sections {
        kind.heading(2, &section.title, out)?;
        if !section.lead.is_empty() {
            writeln!(out, "{}\n", kind.escape(&section.lead))?;
        }
        section.blocks.iter().try_for_each(|block| kind.block(block, out))?;
        if let Some(command) = &section.command {
            writeln!(out, "The same in a terminal: {}\n", kind.code(command))?;
        }
    }
    if !page.glossary.is_empty() {
        kind.heading(2, "Glossary", out)?;
        for (word, meaning) in &page.glossary {
            writeln!(out, "- {}: {}", kind.strong(word), kind.escape(meaning))?;
        }
    }
    Ok(())
}

impl Kind {
    fn heading(self, level: usize, text: &str, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Markdown => writeln!(out, "{} {}\n", "#".repeat(level), self.escape(text)),
            Self::Plain => {
                let line = if level == 1 { "=" } else { "-" };
                writeln!(out, "{text}\n{}\n", line.repeat(text.chars().count()))
            }
        }
    }

    /// Text in which nothing is markup; line ends and what a terminal obeys are shown and not done.
    fn escape(self, text: &str) -> String {
        let mut safe = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\n' | '\r' | '\t' => safe.push(' '),
                c if c.is_control() => safe.push('\u{fffd}'),
                '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~'
                    if self == Self::Markdown =>
                {
                    safe.push('\\');
                    safe.push(c);
                }
                '&' if self == Self::Markdown => safe.push_str("&amp;"),
                c => safe.push(c),
            }
        }
        safe
    }

    fn strong(self, text: &str) -> String {
        match self {
            Self::Markdown => format!("**{}**", self.escape(text)),
            Self::Plain => self.escape(text),
        }
    }

    fn code(self, text: &str) -> String {
        match self {
            Self::Markdown if !text.contains('`') => format!("`{}`", Self::Plain.escape(text)),
            _ => self.escape(text),
        }
    }

    fn figures(self, figures: &[Figure]) -> String {
        figures.iter().map(|figure| self.escape(&figure.text)).collect()
    }

    fn facts(self, facts: &[Fact], out: &mut dyn Write) -> io::Result<()> {
        for fact in facts {
            let text = self.figures(&fact.figures);
            writeln!(out, "- {}: {text}", self.escape(&fact.label))?;
        }
        for note in unknown_facts(facts) {
            writeln!(out, "- unknown: {}", self.escape(&note))?;
        }
        writeln!(out)
    }

    fn list(self, items: &[String], out: &mut dyn Write) -> io::Result<()> {
        for item in items {
            writeln!(out, "- {}", self.escape(item))?;
        }
        if items.is_empty() { Ok(()) } else { writeln!(out) }
    }

    fn block(self, block: &Block, out: &mut dyn Write) -> io::Result<()> {
        match block {
            Block::Text(text) => writeln!(out, "{}\n", self.escape(text)),
            Block::Facts(facts) => self.facts(facts, out),
            Block::Table(table) => self.table(table, out),
            Block::Chart(chart) => self.chart(chart, out),
            Block::List(items) => self.list(items, out),
            Block::Stack(calls) => {
                for (index, call) in calls.iter().enumerate() {
                    writeln!(out, "{}. {}", index + 1, self.escape(call))?;
                }
                writeln!(out)
            }
            Block::Code(text) => {
                for line in text.lines() {
                    writeln!(out, "    {}", Self::Plain.escape(line))?;
                }
                writeln!(out)
            }
            Block::Fold(summary, blocks) => {
                self.heading(3, summary, out)?;
                blocks.iter().try_for_each(|block| self.block(block, out))
            }
            Block::Card(card) => {
                let badge =
                    card.badge.as_ref().map_or_else(String::new, |word| format!("{word}  "));
                self.heading(3, &format!("{badge}{}", card.title), out)?;
                card.blocks.iter().try_for_each(|block| self.block(block, out))
            }
        }
    }

    fn table(self, table: &Table, out: &mut dyn Write) -> io::Result<()> {
        if !table.caption.is_empty() {
            writeln!(out, "{}\n", self.strong(&table.caption))?;
        }
        let cells =
            |row: &Vec<Figure>| row.iter().map(|cell| self.escape(&cell.text)).collect::<Vec<_>>();
        match self {
            Self::Markdown => {
                let names: Vec<String> =
                    table.columns.iter().map(|name| self.escape(name)).collect();
                let rule = |index| if index < table.words { "---" } else { "---:" };
                let rules: Vec<&str> = (0..names.len()).map(rule).collect();
                writeln!(out, "| {} |\n| {} |", names.join(" | "), rules.join(" | "))?;
                for row in &table.rows {
                    writeln!(out, "| {} |", cells(row).join(" | "))?;
                }
            }
            Self::Plain => {
                let names: Vec<&str> = table.columns.iter().map(String::as_str).collect();
                let drawn = aligned(&names, table.rows.iter().map(cells), table.words).to_string();
                drawn.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))?;
            }
        }
        writeln!(out)?;
        self.list(&table.notes(), out)
    }

    fn chart(self, chart: &Chart, out: &mut dyn Write) -> io::Result<()> {
        let table = match chart {
            Chart::Lines(lines) => {
                let rows =
                    lines.lines.iter().map(|line| (line.name.clone(), summary(&line.points)));
                spread(&lines.title, "line", lines.unit, rows)
            }
            Chart::Heat(heat) => {
                let rows = heat.rows.iter().map(|(name, cells)| (name.clone(), summary(cells)));
                spread(&heat.title, "row", Unit::Share, rows)
            }
            // Its figures are in the table that follows it.
            Chart::Bars(_) | Chart::Forest(_) => return Ok(()),
        };
        self.table(&table, out)
    }
}

fn spread(
    title: &str,
    first: &str,
    unit: Unit,
    rows: impl Iterator<Item = (String, Option<(f64, f64, f64)>)>,
) -> Table {
    let mut table = Table::new(title, &[first, "smallest", "median", "largest"], 1);
    table.rows = rows
        .map(|(name, summary)| {
            let figures = match summary {
                Some((low, middle, high)) => [low, middle, high].map(|value| unit.write(value)),
                None => ["unknown"; 3].map(str::to_owned),
            };
            let mut row = vec![Figure::text(name)];
            row.extend(figures.map(Figure::text));
            row
        })
        .collect();
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_text_in_both() {
        let name = "<b>|`x`\n# y\u{1b}[31m";
        let markdown = Kind::Markdown.escape(name);
        assert_eq!(markdown, "\\<b\\>\\|\\`x\\` \\# y\u{fffd}\\[31m");
        assert!(!Kind::Plain.escape(name).contains(['\n', '\u{1b}']));
    }
}
