//! Pictures as SVG: readable without a script, drawn by classes so that the page's style colours them for
//! light and dark. Lines differ in dash as well as in colour.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::chart::{Axis, clock, rank_place, summary};
use super::{Across, Bars, Chart, Forest, Heat, Line, Lines, Part, Ratio, Unit};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
const HEIGHT: f64 = 236.0;
/// Steps of a map's colour.
const LEVELS: usize = 8;
/// Lines with at most so many points show them.
const DOTS_MAX: usize = 24;
/// Narrower parts of a bar have no room for their name.
const NAMED_SHARE: f64 = 0.11;

/// The picture and its legend; `id` is unique in the page.
pub(super) fn chart(chart: &Chart, id: &str) -> Markup {
    match chart {
        Chart::Lines(lines) => figure(id, &lines.title, &lines.about, &self::lines(lines, id)),
        Chart::Bars(bars) => figure(id, &bars.title, &bars.about, &self::bars(bars, id)),
        Chart::Heat(heat) => figure(id, &heat.title, &heat.about, &self::heat(heat, id)),
        Chart::Forest(of) => figure(id, &of.title, &of.about, &forest(of, id)),
    }
}

fn figure(id: &str, title: &str, about: &str, inner: &Markup) -> Markup {
    html! {
        figure {
            figcaption id={ (id) "-t" } { (title) }
            (inner)
            p.about id={ (id) "-d" } { (about) }
        }
    }
}

/// What scrolls when the page is narrower than the picture.
fn canvas(id: &str, size: (f64, f64), extra: &Markup, inner: &Markup) -> Markup {
    html! {
        div.scroll role="group" tabindex="0" aria-labelledby={ (id) "-t" } {
            svg role="img" aria-labelledby={ (id) "-t" } aria-describedby={ (id) "-d" }
                viewBox={ "0 0 " (size.0) " " (size.1) } {
                (extra)
                (inner)
            }
        }
    }
}

/// A coordinate, to a tenth of a unit.
fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

fn axis(lines: &Lines) -> Axis {
    let known = || lines.lines.iter().flat_map(|line| line.points.iter().flatten().copied());
    let max = known().fold(0.0, f64::max);
    match (lines.log, lines.unit) {
        (true, _) => Axis::decades(known().fold(f64::INFINITY, f64::min).min(max), max),
        (false, Unit::Bytes) => Axis::bytes(max),
        (false, _) => Axis::linear(max, 4.0),
    }
}

/// A tick in few letters.
fn tick(unit: Unit, value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let text = unit.write(value);
    let (number, rest) = text.split_once([' ', '/']).unwrap_or((&text, ""));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    match (unit, rest) {
        (_, "") => number.to_owned(),
        (Unit::PerSecond, _) => format!("{number}/s"),
        _ => format!("{number} {rest}"),
    }
}

/// Coordinates of a line's points; its pieces.
fn pieces(lines: &Lines, line: &Line, end: f64, y: &Axis) -> Vec<Vec<(f64, f64)>> {
    let (mut pieces, mut piece) = (Vec::new(), Vec::new());
    for (index, point) in line.points.iter().enumerate() {
        let x = match &line.x {
            Some(own) => own.get(index).copied(),
            None => lines.x.get(index).map(|(from, to)| f64::midpoint(*from, *to)),
        };
        match x.zip(*point) {
            Some((x, value)) => piece.push((place_x(lines, x, end), place_y(y, value))),
            None if piece.is_empty() => {}
            None => pieces.push(std::mem::take(&mut piece)),
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

fn place_x(lines: &Lines, x: f64, end: f64) -> f64 {
    let place = match lines.across {
        Across::Time => (x / end).clamp(0.0, 1.0),
        Across::Ranks => rank_place(x, end),
        Across::Many => {
            let begin = lines.x.first().map_or(1.0, |(from, _)| *from);
            let decades = (end / begin).ln();
            // One point has no axis.
            if decades > 0.0 { ((x / begin).ln() / decades).clamp(0.0, 1.0) } else { 0.5 }
        }
    };
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn place_y(y: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)
}

fn path(points: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        // Writing to a string cannot fail.
        let _ = write!(d, "{command}{} {}", px(*x), px(*y));
    }
    d
}

/// The last x of all.
fn end_of(lines: &Lines) -> f64 {
    let own = lines.lines.iter().filter_map(|line| line.x.as_ref()?.last().copied());
    let shared = lines.x.last().map(|(_, to)| *to);
    shared.into_iter().chain(own).fold(lines.end, f64::max)
}

fn lines(lines: &Lines, id: &str) -> Markup {
    let (y, end) = (axis(lines), end_of(lines));
    let drawn: Vec<Vec<Vec<(f64, f64)>>> =
        lines.lines.iter().map(|line| pieces(lines, line, end, &y)).collect();
    let inner = html! {
        (grid(lines, &y, end))
        @if let Some(area) = lines.band { (band(&drawn, area)) }
        @for (mark, name) in &lines.marks {
            @let x = place_x(lines, *mark, end);
            line.mark x1=(px(x)) x2=(px(x)) y1=(px(TOP)) y2=(px(HEIGHT - BOTTOM)) {}
            @if x > 0.8 * WIDTH {
                text.mark.end x=(px(x - 4.0)) y=(px(TOP + 10.0)) { (name) }
            } @else {
                text.mark x=(px(x + 4.0)) y=(px(TOP + 10.0)) { (name) }
            }
        }
        @for (number, (line, pieces)) in lines.lines.iter().zip(&drawn).enumerate() {
            g data-line=(line.at) data-name=(line.name) {
                @for piece in pieces {
                    @if piece.len() > 1 { path class={ "l s" (number) } d=(path(piece)) {} }
                    @if piece.len() == 1 || line.points.len() <= DOTS_MAX {
                        @for (x, y) in piece {
                            circle class={ "d s" (number) } cx=(px(*x)) cy=(px(*y)) r="2.4" {}
                        }
                    }
                }
            }
        }
        line.cursor x1="0" x2="0" y1=(px(TOP)) y2=(px(HEIGHT - BOTTOM)) {}
    };
    let hover = lines.across == Across::Time && lines.lines.iter().all(|line| line.x.is_none());
    html! {
        (legend(lines))
        @if hover {
            div.plot data-from=(lines.x_at.0) data-to=(lines.x_at.1) data-end=(end)
                data-left=(LEFT) data-right=(WIDTH - RIGHT) data-width=(WIDTH)
                data-unit=(lines.unit.code()) {
                (canvas(id, (WIDTH, HEIGHT), &html! {}, &inner))
            }
        } @else {
            (canvas(id, (WIDTH, HEIGHT), &html! {}, &inner))
        }
    }
}

fn grid(lines: &Lines, y: &Axis, end: f64) -> Markup {
    let ranks = [0.0, 0.5, 0.9, 0.99, 0.999, 0.999_9, 0.999_99, 0.999_999];
    let x = match lines.across {
        Across::Ranks => ranks.into_iter().filter(|rank| *rank <= end).collect(),
        Across::Time => Axis::time(end).ticks,
        Across::Many => {
            let begin = lines.x.first().map_or(1.0, |(from, _)| *from);
            (0..=12)
                .map(|power| 10f64.powi(power))
                .filter(|of| (begin..=end).contains(of))
                .collect()
        }
    };
    let name = |value: f64| match lines.across {
        Across::Ranks => format!("{} %", px_free(value * 100.0)),
        Across::Time => clock(value),
        Across::Many => Unit::Count.write(value),
    };
    html! {
        @for value in &y.ticks {
            @let at = place_y(y, *value);
            line.grid x1=(px(LEFT)) x2=(px(WIDTH - RIGHT)) y1=(px(at)) y2=(px(at)) {}
            text.y x=(px(LEFT - 8.0)) y=(px(at + 4.0)) { (tick(lines.unit, *value)) }
        }
        @for value in &x {
            @let at = place_x(lines, *value, end);
            line.tick x1=(px(at)) x2=(px(at)) y1=(px(HEIGHT - BOTTOM)) y2=(px(HEIGHT - BOTTOM + 4.0)) {}
            // The last name would be cut by the edge.
            @if at > WIDTH - RIGHT - 14.0 {
                text.y x=(px(WIDTH - 2.0)) y=(px(HEIGHT - BOTTOM + 18.0)) { (name(*value)) }
            } @else {
                text.x x=(px(at)) y=(px(HEIGHT - BOTTOM + 18.0)) { (name(*value)) }
            }
        }
    }
}

/// A number of few digits without zeros at its end.
fn px_free(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn band(drawn: &[Vec<Vec<(f64, f64)>>], area: super::Area) -> Markup {
    let (Some(low), Some(high)) = (drawn.get(area.low), drawn.get(area.high)) else {
        return html! {};
    };
    html! {
        @for (low, high) in low.iter().zip(high) {
            @if low.len() == high.len() && low.len() > 1 {
                @let outline: Vec<(f64, f64)> = low.iter().chain(high.iter().rev()).copied().collect();
                path.band d={ (path(&outline)) "Z" } {}
            }
        }
    }
}

/// Names of the lines with what they come to: also what is read where nothing is drawn.
fn legend(lines: &Lines) -> Markup {
    html! {
        table.legend {
            caption.hidden { "Lines of " (lines.title) }
            thead { tr {
                th scope="col" { "line" }
                @if lines.across != Across::Ranks {
                    @for name in ["smallest", "median", "largest"] { th.n scope="col" { (name) } }
                }
            } }
            tbody {
                @for (number, line) in lines.lines.iter().enumerate() {
                    tr {
                        th scope="row" {
                            svg.swatch viewBox="0 0 26 8" aria-hidden="true" {
                                path class={ "l s" (number) } d="M1 4L25 4" {}
                            }
                            (line.name)
                        }
                        @match summary(&line.points) {
                            _ if lines.across == Across::Ranks => {}
                            Some((low, middle, high)) => {
                                @for value in [low, middle, high] { td.n { (lines.unit.write(value)) } }
                            }
                            None => {
                                @for _ in 0..3 { td.n { span.unknown { "unknown" } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn bars(bars: &Bars, id: &str) -> Markup {
    let (left, right, step, high) = (104.0, 96.0, 36.0, 24.0);
    let wide = WIDTH - left - right;
    let height = 8.0 + step * bars.rows.len() as f64;
    let inner = html! {
        @for (index, row) in bars.rows.iter().enumerate() {
            @let y = 6.0 + step * index as f64;
            text.y x=(px(left - 10.0)) y=(px(y + 16.0)) { (row.name) }
            @for (part, x, w) in placed(&row.parts, left, wide) {
                // A gap tells two parts apart where colours do not.
                rect class={ "c" (part.colour) } x=(px(x)) y=(px(y)) width=(px((w - 1.5).max(0.4))) height=(px(high)) {
                    title { (part.name) " " (Unit::Share.write(part.share)) }
                }
                @if part.share > NAMED_SHARE {
                    text.part x=(px(x + 6.0)) y=(px(y + 16.0)) { (part.name) }
                }
            }
            text.whole x=(px(WIDTH - right + 8.0)) y=(px(y + 16.0)) { (row.whole) }
        }
    };
    let mut keys: Vec<(&str, usize)> = Vec::new();
    for part in bars.rows.iter().flat_map(|row| &row.parts).filter(|part| part.share >= 0.005) {
        if keys.iter().all(|(name, _)| *name != part.name) {
            keys.push((&part.name, part.colour));
        }
    }
    keys.sort_by_key(|(_, colour)| *colour);
    html! {
        (canvas(id, (WIDTH, height), &html! {}, &inner))
        ul.keys {
            @for (name, colour) in keys {
                li {
                    svg.swatch viewBox="0 0 14 12" aria-hidden="true" {
                        rect class={ "c" (colour) } width="14" height="12" {}
                    }
                    (name)
                }
            }
        }
    }
}

/// Each ratio with its interval, over the zone in which it would be no difference.
fn forest(of: &Forest, id: &str) -> Markup {
    let (left, right, step) = (104.0, 190.0, 30.0);
    let wide = WIDTH - left - right;
    let bottom = 8.0 + step * of.rows.len() as f64;
    let x = |ratio: f64| left + of.place(ratio) * wide;
    let row = |index: usize, row: &Ratio| {
        let middle = 8.0 + step * (index as f64 + 0.5);
        let (from, to) = (x(row.band.recip()), x(row.band));
        html! {
            rect.band x=(px(from)) y=(px(middle - step / 2.0)) width=(px((to - from).max(0.4))) height=(px(step)) {}
            text.y x=(px(left - 10.0)) y=(px(middle + 4.0)) { (row.name) }
            path class="l s0" d={ "M" (px(x(row.low))) " " (px(middle)) "L" (px(x(row.high))) " " (px(middle)) } {}
            rect class="d s0" x=(px(x(row.at) - 4.0)) y=(px(middle - 4.0)) width="8" height="8" {
                title { (row.name) " " (row.said) }
            }
            text.whole x=(px(WIDTH - right + 8.0)) y=(px(middle + 4.0)) { (row.said) }
        }
    };
    let inner = html! {
        @for (index, of) in of.rows.iter().enumerate() { (row(index, of)) }
        line.mark x1=(px(x(1.0))) x2=(px(x(1.0))) y1="4" y2=(px(bottom)) {}
        @for tick in of.ticks() {
            line.tick x1=(px(x(tick))) x2=(px(x(tick))) y1=(px(bottom)) y2=(px(bottom + 4.0)) {}
            text.x x=(px(x(tick))) y=(px(bottom + 18.0)) { "x " (px_free(tick)) }
        }
    };
    canvas(id, (WIDTH, bottom + 26.0), &html! {}, &inner)
}

/// Parts that have any share, with their begin and width.
fn placed(parts: &[Part], left: f64, wide: f64) -> Vec<(&Part, f64, f64)> {
    let mut x = left;
    let mut placed = Vec::new();
    for part in parts.iter().filter(|part| part.share > 0.0) {
        placed.push((part, x, part.share * wide));
        x += part.share * wide;
    }
    placed
}

/// A share below this is nothing.
const NOTHING: f64 = 0.01;

/// Number of the step of a share, rounded up; 0 is nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and LEVELS")]
fn level(share: f64) -> usize {
    if share < NOTHING { 0 } else { (share.clamp(0.0, 1.0) * LEVELS as f64).ceil() as usize }
}

fn heat(heat: &Heat, id: &str) -> Markup {
    let (left, right) = (LEFT + 4.0, RIGHT + 62.0);
    let step = if heat.rows.len() > 24 { 11.0 } else { 26.0 };
    let wide = WIDTH - left - right;
    let bottom = 4.0 + step * heat.rows.len() as f64;
    let time = Axis::time(heat.extent.1);
    let inner = html! {
        @for (index, (name, cells)) in heat.rows.iter().enumerate() {
            @let y = 4.0 + step * index as f64;
            @let known: Vec<f64> = cells.iter().flatten().copied().collect();
            @if step > 12.0 || index % 4 == 0 {
                text.y x=(px(left - 8.0)) y=(px(y + step / 2.0 + 3.0)) { (name) }
                @if !known.is_empty() {
                    @let mean = known.iter().sum::<f64>() / known.len() as f64;
                    text.whole x=(px(WIDTH - right + 8.0)) y=(px(y + step / 2.0 + 3.0)) { (Unit::Share.write(mean)) }
                }
            }
            rect.empty x=(px(left)) y=(px(y)) width=(px(wide)) height=(px(step - 2.0)) {}
            (levels(cells, (left, wide), (y, step - 2.0)))
        }
        @for value in &time.ticks {
            @let x = left + time.place(*value) * wide;
            line.tick x1=(px(x)) x2=(px(x)) y1=(px(bottom)) y2=(px(bottom + 4.0)) {}
            text.x x=(px(x)) y=(px(bottom + 18.0)) { (clock(*value)) }
        }
    };
    html! {
        (canvas(id, (WIDTH, bottom + 26.0), &html! {}, &inner))
        ul.keys {
            li {
                svg.swatch viewBox="0 0 14 12" aria-hidden="true" {
                    rect.none width="14" height="12" {}
                }
                "not observed"
            }
            li {
                svg.swatch viewBox="0 0 14 12" aria-hidden="true" {
                    rect.empty x="0.5" y="0.5" width="13" height="11" {}
                }
                "under 1 %"
            }
            @for step in [1, 2, 4, 6, 8] {
                li {
                    svg.swatch viewBox="0 0 14 12" aria-hidden="true" {
                        rect.empty x="0.5" y="0.5" width="13" height="11" {}
                        rect class={ "h" (step) } width="14" height="12" {}
                    }
                    "to " (Unit::Share.write(step as f64 / LEVELS as f64))
                }
            }
        }
    }
}

/// Cells of a row, one path for each step of colour, and one for what is not known.
fn levels(cells: &[Option<f64>], (left, wide): (f64, f64), (y, high): (f64, f64)) -> Markup {
    let cell = wide / cells.len().max(1) as f64;
    let (mut paths, mut unknown) = (vec![String::new(); LEVELS + 1], String::new());
    let mut index = 0;
    while index < cells.len() {
        let step = cells[index].map(level);
        let same = cells[index..].iter().take_while(|of| of.map(level) == step).count();
        let (x, w) = (left + index as f64 * cell, same as f64 * cell);
        let d = step.map_or(&mut unknown, |step| &mut paths[step]);
        // Writing to a string cannot fail.
        let _ = write!(d, "M{} {}h{}v{}h-{}Z", px(x), px(y), px(w), px(high), px(w));
        index += same;
    }
    html! {
        @if !unknown.is_empty() { path.none d=(unknown) {} }
        @for (step, d) in paths.iter().enumerate().skip(1).filter(|(_, d)| !d.is_empty()) {
            path class={ "h" (step) } d=(d) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_point_breaks_a_line_and_a_lonely_one_is_a_dot() {
        let line = Line {
            name: "<b>p99</b>".to_owned(),
            at: "/a".to_owned(),
            points: vec![Some(1.0), Some(2.0), None, Some(3.0)],
            x: None,
        };
        let lines = Lines {
            title: "t".to_owned(),
            about: "a".to_owned(),
            x: (0..4u32).map(|at| (f64::from(at), f64::from(at) + 1.0)).collect(),
            x_at: ("/f".to_owned(), "/t".to_owned()),
            across: Across::Time,
            log: false,
            unit: Unit::Number,
            lines: vec![line],
            band: None,
            end: 0.0,
            marks: vec![(1.0, "</svg><script>x</script>".to_owned())],
        };
        let drawn = chart(&Chart::Lines(lines), "x").into_string();
        assert_eq!(drawn.matches("<path class=\"l s0\" d=\"M151").count(), 1, "{drawn}");
        assert_eq!(drawn.matches("<circle").count(), 3);
        assert!(!drawn.contains("<script") && !drawn.contains("<b>"), "{drawn}");
    }

    #[test]
    fn equal_cells_are_one_shape() {
        let row = vec![Some(0.5), Some(0.49), None, Some(1.0), Some(0.0)];
        let heat = Heat {
            title: "t".to_owned(),
            about: "a".to_owned(),
            extent: (0.0, 5.0),
            rows: vec![("core 1".to_owned(), row)],
        };
        let drawn = chart(&Chart::Heat(heat), "x").into_string();
        assert_eq!(drawn.matches("<path").count(), 3, "{drawn}");
        assert!(drawn.contains("<path class=\"h4\""));
    }

    #[test]
    fn an_interval_lies_where_its_bounds_are_and_names_stay_text() {
        let row = |name: &str, at, low, high| Ratio {
            name: name.to_owned(),
            at,
            low,
            high,
            band: 1.05,
            said: "+1 %".to_owned(),
        };
        let of = Forest {
            title: "t".to_owned(),
            about: "a".to_owned(),
            rows: vec![row("p50", 0.5, 0.25, 1.0), row("</svg><script>", 1.0, 0.9, 1.1)],
        };
        let drawn = chart(&Chart::Forest(of), "x").into_string();
        assert_eq!(drawn.matches("class=\"l s0\"").count(), 2, "{drawn}");
        assert_eq!(drawn.matches("<rect class=\"band\"").count(), 2);
        assert!(drawn.contains("x 1<") && !drawn.contains("<script"), "{drawn}");
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(tick(Unit::Ns, 10_000.0), "10 us");
        assert_eq!(tick(Unit::Ns, 1e6), "1 ms");
        assert_eq!(tick(Unit::PerSecond, 2_000.0), "2,000/s");
        assert_eq!(tick(Unit::Bytes, 209_715_200.0), "200 MiB");
        assert_eq!(px_free(99.9), "99.9");
    }
}
