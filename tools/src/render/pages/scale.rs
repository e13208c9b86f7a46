//! The page of a scale series, with its chart.

use tailbeam_harness::compare::scale::{Capacity, Cost, Point, Series};
use tailbeam_harness::report::Measured;

use super::{Cell, Page, Part, Picture, cell};
use crate::render::page::{Across, Chart, Line, Lines, Unit};
use crate::render::units::{bytes, count, time};

/// Columns of the chart's bars.
const WIDTH: usize = 50;

/// The page.
#[must_use]
pub fn series(of: &Series) -> Page {
    let title = format!("Scale  {}  started {}", of.id, of.started);
    let again = Some(format!("tailbeam scale --from {}", of.id));
    let mut page = Page { title, again, ..Page::default() };
    page.line(format!("flags of all points  {}", of.shared.join(" ")));
    if let (Some(cause), Some(first)) = (&of.none_below, of.points.first()) {
        page.line(format!(
            "no fleet below {} can be planned: {}",
            count(first.agents),
            first_cause(cause)
        ));
    }
    if of.stopped {
        page.caveat("the series was stopped before its end");
    }
    table(of, &mut page);
    for point in &of.points {
        if let Measured::Unknown { unknown, remedy } = &point.cost {
            page.caveat(format!("{} agents: unknown ({unknown}; {remedy})", count(point.agents)));
        }
        if let Some(why) = point.behind.known().filter(|why| !why.is_empty()) {
            page.line(format!("{} agents fall behind: {}", count(point.agents), why.join("; ")));
        }
    }
    chart(of, &mut page);
    conclusions(of, &mut page);
    page
}

/// What was refused, of an error with its cause and remedy on lines of their own.
fn first_cause(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("remedy:"));
    lines.collect::<Vec<_>>().join("; ")
}

fn table(of: &Series, page: &mut Page) {
    let row = |(index, point): (usize, &Point)| {
        let at = format!("/data/points/{index}");
        let with = |key: &str, text: fn(&Cost) -> String| match &point.cost {
            Measured::Known(cost) => Cell::of(text(cost), &at, &format!("cost/{key}")),
            Measured::Unknown { .. } => Cell::of("unknown".to_owned(), &at, "cost"),
        };
        vec![
            Cell::of(count(point.agents), &at, "agents"),
            with("planned_per_s", |c| format!("{:.0}/s", c.planned_per_s)),
            with("figures/throughput_per_s", |c| {
                cell(&c.figures.throughput_per_s, |v| format!("{v:.0}/s"))
            }),
            with("figures/delivery", |c| {
                cell(&c.figures.delivery, |v| format!("{:.3} %", v * 100.0))
            }),
            with("figures/p50_ns", |c| cell(&c.figures.p50_ns, |v| time(*v))),
            with("figures/p99_ns", |c| cell(&c.figures.p99_ns, |v| time(*v))),
            with("figures/cpu_per_op_ns", |c| cell(&c.figures.cpu_per_op_ns, |v| time(*v))),
            with("core_max", |c| cell(&c.core_max, |v| format!("{:.0} %", v * 100.0))),
            with("bytes_per_agent", |c| cell(&c.bytes_per_agent, |v| bytes(*v))),
            with("rss_per_agent", |c| cell(&c.rss_per_agent, |v| bytes(*v))),
            with("live_min", |c| cell(&c.live_min, |v| count(*v))),
            match &point.behind {
                Measured::Known(why) if why.is_empty() => "keeps up",
                Measured::Known(_) => "behind",
                Measured::Unknown { .. } => "unknown",
            }
            .to_owned()
            .into(),
        ]
    };
    let head = [
        "agents",
        "planned",
        "served",
        "delivery",
        "p50",
        "p99",
        "cpu/request",
        "busiest core",
        "tables/agent",
        "RSS/agent",
        "live",
        "pace",
    ];
    page.table(&head, 0, of.points.iter().enumerate().map(row).collect());
}

/// A bar per point on a logarithmic axis, in which a tenfold is the same everywhere.
fn bars(
    points: &[Point],
    figure: impl Fn(&Cost) -> Option<f64>,
    text: impl Fn(f64) -> String,
) -> Vec<String> {
    let values: Vec<(u64, Option<f64>)> = points
        .iter()
        .map(|point| (point.agents, point.cost.known().and_then(&figure).filter(|v| *v > 0.0)))
        .collect();
    let known = || values.iter().filter_map(|value| value.1);
    let least = known().fold(f64::INFINITY, f64::min);
    let most = known().fold(f64::NEG_INFINITY, f64::max);
    let range = (most / least).ln();
    let bar = |value: f64| {
        let share = if range > 0.0 { (value / least).ln() / range } else { 1.0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to the width"
        )]
        let length = 1 + (share * (WIDTH - 1) as f64).round() as usize;
        "#".repeat(length)
    };
    values
        .iter()
        .map(|(agents, value)| {
            let bar =
                value.map_or_else(|| "unknown".to_owned(), |v| format!("{} {}", bar(v), text(v)));
            format!("{:>11} |{bar}", count(*agents))
        })
        .collect()
}

/// A figure of a fleet.
type Of = fn(&Cost) -> Option<f64>;

fn chart(of: &Series, page: &mut Page) {
    let curves: [(&str, Of, Unit); 3] = [
        ("P99", |c| c.figures.p99_ns.known().copied(), Unit::Ns),
        ("CPU per request", |c| c.figures.cpu_per_op_ns.known().copied(), Unit::Ns),
        ("Requests served", |c| c.figures.throughput_per_s.known().copied(), Unit::PerSecond),
    ];
    for (name, figure, unit) in curves {
        page.heading(format!("{name} over agents (log)"));
        let text = |value: f64| match unit {
            Unit::Ns => time(value),
            _ => format!("{value:.0}/s"),
        };
        let lines = bars(&of.points, figure, text);
        page.parts.push(Part::Chart(Picture { lines, drawn: curve(of, (name, figure, unit)) }));
    }
}

/// A figure over the number of agents; none where no two points are known.
fn curve(of: &Series, (name, figure, unit): (&str, Of, Unit)) -> Option<Chart> {
    let value = |point: &Point| point.cost.known().and_then(figure).filter(|value| *value > 0.0);
    let points: Vec<Option<f64>> = of.points.iter().map(value).collect();
    let x: Vec<(f64, f64)> =
        of.points.iter().map(|point| (point.agents as f64, point.agents as f64)).collect();
    (points.iter().flatten().count() > 1).then(|| {
        Chart::Lines(Lines {
            title: format!("{name} over agents"),
            about: "One run for each point; both axes are logarithmic.".to_owned(),
            x,
            x_at: (String::new(), String::new()),
            across: Across::Many,
            log: true,
            unit,
            lines: vec![Line { name: name.to_owned(), at: String::new(), points, x: None }],
            band: None,
            end: 0.0,
            marks: Vec::new(),
        })
    })
}

/// How far the fleets kept up, in words.
fn far(Capacity { keeps_up, fails }: Capacity) -> String {
    match (keeps_up.map(count), fails.map(count)) {
        (Some(low), Some(high)) => format!("keeps up to {low} agents, not at {high}"),
        (Some(low), None) => format!("keeps up to {low} agents, and no fleet fell behind"),
        (None, Some(high)) => format!("not at {high} agents, and of no smaller fleet is it known"),
        (None, None) => "of no fleet is it known".to_owned(),
    }
}

fn conclusions(of: &Series, page: &mut Page) {
    page.heading("Where it bends, how far it keeps up, what limits");
    match &of.knee {
        Measured::Known(agents) => page.line(format!(
            "knee      {} agents: the point of the log-log curve of P99 farthest below its chord",
            count(*agents)
        )),
        Measured::Unknown { unknown, remedy } => {
            page.line(format!("knee      unknown ({unknown}; {remedy})"))
        }
    }
    page.line(format!(
        "capacity  {}; keeps up: serves 99 % of what is offered, delivers 99.9 %, P99 < {}",
        far(of.capacity),
        time(of.limit_ns as f64)
    ));
    match &of.limit {
        Measured::Known(limit) => {
            let state = if limit.behind { "that fall behind" } else { "that keep up" };
            page.line(format!(
                "limit     at {} agents {state}: {}",
                count(limit.agents),
                limit.causes.join("; ")
            ));
        }
        Measured::Unknown { unknown, remedy } => {
            page.line(format!("limit     unknown ({unknown}; {remedy})"))
        }
    }
}
