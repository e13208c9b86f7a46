//! The live view: a page of figures each second, as text or on a terminal. Pages are plain values, so that
//! both show the same.

pub(crate) mod plain;
pub(crate) mod process;
pub(crate) mod screen;
pub(crate) mod soak;

use crate::Failure;

/// A figure or a name in a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cell {
    /// As it is shown.
    pub(crate) text: String,
    /// What it is sorted by; unknown ones come last.
    pub(crate) value: Option<f64>,
}

impl Cell {
    pub(crate) fn name(text: impl Into<String>) -> Self {
        Self { text: text.into(), value: None }
    }

    pub(crate) fn figure(value: Option<f64>, text: impl FnOnce(f64) -> String) -> Self {
        Self { text: value.map_or_else(|| "unknown".to_owned(), text), value }
    }
}

/// A table; the first `left` columns are names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Grid {
    pub(crate) title: String,
    pub(crate) header: Vec<&'static str>,
    pub(crate) left: usize,
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Grid {
    /// The rows by a column: figures from the largest, names in their order.
    pub(crate) fn sort(&mut self, column: usize) {
        if column >= self.header.len() {
            return;
        }
        self.rows.sort_by(|a, b| {
            let (a, b) = (&a[column], &b[column]);
            match (a.value, b.value) {
                (Some(x), Some(y)) => y.total_cmp(&x),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => a.text.cmp(&b.text),
            }
        });
    }
}

/// What is shown at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Page {
    /// Of what.
    pub(crate) title: String,
    /// Figures of the whole.
    pub(crate) lines: Vec<String>,
    /// Cores or threads; sorted by a column that the user chooses.
    pub(crate) main: Grid,
    /// Functions or agents.
    pub(crate) second: Option<Grid>,
    /// What is unknown, and why.
    pub(crate) notes: Vec<String>,
}

/// Where pages come from.
pub(crate) trait Source {
    /// The page of now.
    ///
    /// # Errors
    /// What can no longer be read.
    fn page(&mut self, now_ns: u64) -> Result<Page, Failure>;

    /// Does what is due between two pages.
    fn between(&mut self, _now_ns: u64) {}

    /// Nothing will come any more.
    fn over(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_sort_from_the_largest_and_unknown_ones_last() {
        let cell = |value: Option<f64>| vec![Cell::figure(value, |v| v.to_string())];
        let rows = vec![cell(None), cell(Some(1.0)), cell(Some(3.0))];
        let mut grid = Grid { header: vec!["x"], rows, ..Grid::default() };
        grid.sort(0);
        let texts: Vec<&str> = grid.rows.iter().map(|row| &*row[0].text).collect();
        assert_eq!(texts, ["3", "1", "unknown"]);
        grid.sort(7);
    }
}
