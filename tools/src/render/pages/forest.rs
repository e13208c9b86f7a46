//! Ratios with their intervals as lines of text, and as a chart.

use super::{Part, Picture};
use crate::render::page::{Chart, Forest, Ratio};

/// Columns of an interval.
const WIDTH: usize = 48;

/// The picture of ratios, but of those that have no logarithm; `None` without any.
pub(super) fn forest(title: &str, about: &str, rows: Vec<Ratio>) -> Option<Part> {
    let rows: Vec<Ratio> = rows.into_iter().filter(Ratio::is_drawable).collect();
    if rows.is_empty() {
        return None;
    }
    let of = Forest { title: title.to_owned(), about: about.to_owned(), rows };
    Some(Part::Chart(Picture { lines: lines(&of), drawn: Some(Chart::Forest(of)) }))
}

/// The column of a ratio.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the width")]
fn column(of: &Forest, ratio: f64) -> usize {
    (of.place(ratio) * (WIDTH - 1) as f64).round() as usize
}

fn lines(of: &Forest) -> Vec<String> {
    let names = of.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let one = column(of, 1.0);
    let line = |row: &Ratio| {
        let band = column(of, row.band.recip())..=column(of, row.band);
        let interval = column(of, row.low)..=column(of, row.high);
        let at = column(of, row.at);
        let sign = |column: usize| match column {
            of if of == at => 'o',
            of if interval.contains(&of) => '-',
            of if of == one => '|',
            of if band.contains(&of) => '.',
            _ => ' ',
        };
        let drawn: String = (0..WIDTH).map(sign).collect();
        format!("{:>names$}  {drawn}  {}", row.name, row.said)
    };
    let mut lines: Vec<String> = of.rows.iter().map(line).collect();
    lines.push(format!("{:names$}  {}", "", scale(of).trim_end()));
    lines.push("o B / A, - its 95 % interval, | no difference, . within the band".to_owned());
    lines
}

/// Ticks, each at its column, as far as there is room.
fn scale(of: &Forest) -> String {
    let mut line = String::new();
    for tick in of.ticks() {
        let (text, at) = (format!("x{tick}"), column(of, tick));
        let from = at.saturating_sub(text.len() / 2);
        // Text that would touch the one before is left out; 1 always has room of its own.
        if line.is_empty() || from > line.len() {
            line.push_str(&" ".repeat(from - line.len()));
            line.push_str(&text);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, at: f64, low: f64, high: f64) -> Ratio {
        Ratio { name: name.to_owned(), at, low, high, band: 1.05, said: "said".to_owned() }
    }

    #[test]
    fn each_row_shows_its_interval_and_where_nothing_differs() {
        let rows = vec![row("p50", 0.1, 0.09, 0.12), row("delivery", 1.0, 1.0, 1.0)];
        let Some(Part::Chart(picture)) = forest("t", "a", rows) else { panic!("a picture") };
        let [p50, delivery, scale, _] = &picture.lines[..] else { panic!("{:?}", picture.lines) };
        assert!(p50.starts_with("     p50  ") && p50.contains("-o-"), "{p50}");
        assert!(p50.find('o') < p50.find('|') && p50.ends_with("said"), "{p50}");
        assert!(delivery.contains('o') && !delivery.contains('-'), "{delivery}");
        assert!(scale.contains("x0.1") && scale.contains("x1"), "{scale}");
        // The tick of 1 stands below the line of no difference.
        assert!(scale.find("x1").unwrap().abs_diff(p50.find('|').unwrap()) <= 1, "{p50}\n{scale}");
        assert!(matches!(picture.drawn, Some(Chart::Forest(_))));
    }

    #[test]
    fn nothing_to_draw_is_no_picture() {
        assert!(forest("t", "a", vec![row("x", f64::NAN, 1.0, 1.0)]).is_none());
    }
}
