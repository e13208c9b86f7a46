//! The page of a scale series, with its chart.

use tailbeam_harness::compare::scale::{Cost, Point, Series};
use tailbeam_harness::report::Measured;

use super::{Page, Part, cell};
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

fn table(of: &Series, page: &mut Page) {
    let row = |point: &Point| {
        let with = |text: fn(&Cost) -> String| cell(&point.cost, text);
        vec![
            count(point.agents),
            with(|c| format!("{:.0}/s", c.planned_per_s)),
            with(|c| cell(&c.figures.throughput_per_s, |v| format!("{v:.0}/s"))),
            with(|c| cell(&c.figures.delivery, |v| format!("{:.3} %", v * 100.0))),
            with(|c| cell(&c.figures.p50_ns, |v| time(*v))),
            with(|c| cell(&c.figures.p99_ns, |v| time(*v))),
            with(|c| cell(&c.figures.cpu_per_op_ns, |v| time(*v))),
            with(|c| cell(&c.core_max, |v| format!("{:.0} %", v * 100.0))),
            with(|c| cell(&c.bytes_per_agent, |v| bytes(*v))),
            with(|c| cell(&c.rss_per_agent, |v| bytes(*v))),
            with(|c| cell(&c.live_min, |v| count(*v))),
            match &point.behind {
                Measured::Known(why) if why.is_empty() => "keeps up",
                Measured::Known(_) => "behind",
                Measured::Unknown { .. } => "unknown",
            }
            .to_owned(),
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
    page.table(&head, 0, of.points.iter().map(row).collect());
}

/// A bar per point on a logarithmic axis, in which a tenfold is the same everywhere.
fn bars(
    points: &[Point],
    figure: impl Fn(&Cost) -> Option<f64>,
    text: fn(f64) -> String,
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

fn chart(of: &Series, page: &mut Page) {
    let known = |figure: &Measured<f64>| figure.known().copied();
    let mut draw = |title: &str, lines: Vec<String>| {
        page.heading(title);
        page.parts.push(Part::Chart(lines));
    };
    draw("P99 over agents (log)", bars(&of.points, |c| known(&c.figures.p99_ns), time));
    draw(
        "CPU per request over agents (log)",
        bars(&of.points, |c| known(&c.figures.cpu_per_op_ns), time),
    );
    let rate = |v: f64| format!("{v:.0}/s");
    draw(
        "Requests served over agents (log)",
        bars(&of.points, |c| known(&c.figures.throughput_per_s), rate),
    );
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
    let agents = |n: Option<u64>| n.map_or_else(|| "none".to_owned(), count);
    page.line(format!(
        "capacity  keeps up to {} agents, not at {}; keeps up: serves 99 % of what is offered, delivers 99.9 %, P99 < {}",
        agents(of.capacity.keeps_up),
        agents(of.capacity.fails),
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
