//! A page as plain text: for pipes, and for `--once` and `--count`.

use std::io::{self, Write};

use super::{Grid, Page};
use crate::render::program::table;

/// Writes a page.
///
/// # Errors
/// Those of `out`.
pub(crate) fn write(page: &Page, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", page.title)?;
    for line in &page.lines {
        writeln!(out, "{line}")?;
    }
    grid(&page.main, out)?;
    if let Some(second) = &page.second {
        grid(second, out)?;
    }
    for note in &page.notes {
        writeln!(out, "! {note}")?;
    }
    writeln!(out)
}

fn grid(grid: &Grid, out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<Vec<String>> =
        grid.rows.iter().map(|row| row.iter().map(|cell| cell.text.clone()).collect()).collect();
    writeln!(out, "\n{}", grid.title)?;
    writeln!(out, "{}", table(&grid.header, grid.left, &rows))
}
