//! The page of a comparison.

use tailbeam_harness::compare::sweep::{Sweep, SweepPoint};
use tailbeam_harness::compare::{
    Comparison, Effect, Judged, Metric, MetricResult, Pair, Percentile, RunFigures, SideSum,
};
use tailbeam_harness::report::Measured;
use tailbeam_harness::verdict::Overall;

use super::forest::forest;
use super::{Cell, Page, Part, Picture, cell};
use crate::render::page::{Across, Chart, Line, Lines, Ratio, Unit};
use crate::render::text::{attempts, overall};
use crate::render::units::{count, time};

/// The page.
#[must_use]
pub fn comparison(of: &Comparison) -> Page {
    let title = format!("Comparison  {}  A {}  against  B {}", of.id, of.a.name, of.b.name);
    let mut page = Page { title, ..Page::default() };
    page.verdict = Some((overall(of.verdict).to_owned(), verdict(of.verdict).to_owned()));
    page.again = Some(format!("tailbeam compare --from {}", of.id));
    page.line(head(of));
    page.line(format!("flags of both  {}", of.shared.join(" ")));
    page.heading(format!("Verdict  {}", verdict(of.verdict)));
    of.caveats.iter().for_each(|caveat| page.caveat(caveat.clone()));
    metrics(of, &mut page);
    percentiles(of, &mut page);
    outcomes(of, &mut page);
    if let Some(sweep) = &of.sweep {
        swept(sweep, &mut page);
    }
    pairs("Pairs", &of.pairs, &mut page);
    pairs("A against A (the noise floor)", &of.aa, &mut page);
    left_out(of, &mut page);
    differences(of, &mut page);
    page
}

fn head(of: &Comparison) -> String {
    let orders = of.seed.map_or_else(
        || "stored runs in their order".to_owned(),
        |seed| format!("randomised by seed {seed}"),
    );
    let agents = of
        .pairs
        .first()
        .map_or_else(String::new, |pair| format!(", {} agents", count(pair.a.agents)));
    format!("{} pairs{agents}, {orders}, started {}", of.pairs.len(), of.started)
}

const fn verdict(of: Overall) -> &'static str {
    match of {
        Overall::Go => "B is nowhere worse",
        Overall::NoGo => "B is worse",
        Overall::Inconclusive => "INCONCLUSIVE",
    }
}

const fn judged(judged: Judged) -> &'static str {
    match judged {
        Judged::Better => "B better",
        Judged::Worse => "B worse",
        Judged::Equivalent => "equivalent",
        Judged::Inconclusive => "INCONCLUSIVE",
    }
}

/// A figure of a metric with its unit.
fn value(metric: Metric, value: f64) -> String {
    match metric {
        Metric::P50 | Metric::P99 | Metric::CpuPerOp => time(value),
        Metric::Throughput => format!("{value:.0}/s"),
        Metric::Delivery => format!("{:.4} %", value * 100.0),
    }
}

/// A ratio as people read it: small ones as per cent, large ones as a factor.
fn ratio(ratio: f64) -> String {
    if (0.5..2.0).contains(&ratio) {
        format!("{:+.2} %", (ratio - 1.0) * 100.0)
    } else {
        format!("x {ratio:.3}")
    }
}

/// A ratio with its interval.
fn interval(e: &Effect) -> String {
    format!("{} [{}, {}]", ratio(e.ratio), ratio(e.low), ratio(e.high))
}

/// A metric in the picture.
fn drawn(m: &MetricResult) -> Option<Ratio> {
    let effect = m.effect.known()?;
    Some(Ratio {
        name: m.metric.name().to_owned(),
        at: effect.ratio,
        low: effect.low,
        high: effect.high,
        band: m.band,
        said: format!("{}, {}", ratio(effect.ratio), judged(m.judged)),
    })
}

fn metrics(of: &Comparison, page: &mut Page) {
    let row = |(index, m): (usize, &MetricResult)| {
        let at = format!("/data/metrics/{index}");
        let of = |text: String, key: &str| Cell::of(text, &at, key);
        // Of what is not known the document says why in the place of the whole.
        let effect = |text: String, key: &str| match m.effect.known() {
            Some(_) => of(text, &format!("effect/{key}")),
            None => of(text, "effect"),
        };
        vec![
            m.metric.name().to_owned().into(),
            of(cell(&m.a, |v| value(m.metric, *v)), "a"),
            of(cell(&m.b, |v| value(m.metric, *v)), "b"),
            effect(cell(&m.effect, interval), "ratio"),
            of(format!("+- {:.1} %", (m.band - 1.0) * 100.0), "band"),
            effect(cell(&m.effect, |e| ratio(e.detectable)), "detectable"),
            of(cell(&m.floor, |floor| ratio(*floor)), "floor"),
            of(m.drift_p.map_or_else(|| "-".to_owned(), |p| format!("{p:.2}")), "drift_p"),
            judged(m.judged).to_owned().into(),
        ]
    };
    let head = [
        "metric",
        "A",
        "B",
        "B / A [95 %]",
        "band",
        "detectable",
        "A/A floor",
        "drift p",
        "verdict",
    ];
    page.table(&head, 1, of.metrics.iter().enumerate().map(row).collect());
    page.parts.extend(forest(
        "B / A of each metric",
        "The square is the ratio, the line its 95 % interval; the zone around the line at 1 is the band in which the two are equivalent. Logarithmic.",
        of.metrics.iter().filter_map(drawn).collect(),
    ));
    for m in of.metrics.iter().filter(|m| !m.reason.is_empty()) {
        page.line(format!("{}: {}", m.metric.name(), m.reason));
    }
}

/// Where in the distribution they differ.
fn percentiles(of: &Comparison, page: &mut Page) {
    page.heading("Latency by percentile, all pairs together");
    let found = match &of.percentiles {
        Measured::Known(found) => found,
        Measured::Unknown { unknown, remedy } => {
            return page.line(format!("unknown ({unknown}; {remedy})"));
        }
    };
    let row = |(index, p): (usize, &Percentile)| {
        let at = format!("/data/percentiles/{index}");
        vec![
            Cell::of(format!("{} %", (p.rank * 1e7).round() / 1e5), &at, "rank"),
            Cell::of(time(p.a_ns as f64), &at, "a_ns"),
            Cell::of(time(p.b_ns as f64), &at, "b_ns"),
            Cell::of(ratio(p.ratio), &at, "ratio"),
        ]
    };
    page.table(&["percentile", "A", "B", "B / A"], 0, found.iter().enumerate().map(row).collect());
    page.parts.extend(curves(found));
}

/// Both over the percentiles; none where there are no two points.
fn curves(found: &[Percentile]) -> Option<Part> {
    if found.len() < 2 {
        return None;
    }
    let line = |name: &str, ns: fn(&Percentile) -> u64| Line {
        name: name.to_owned(),
        at: String::new(),
        points: found.iter().map(|p| Some(ns(p) as f64)).collect(),
        x: Some(found.iter().map(|p| p.rank).collect()),
    };
    Some(Part::Chart(Picture {
        lines: Vec::new(),
        drawn: Some(Chart::Lines(Lines {
            title: "Latency by percentile (both axes logarithmic)".to_owned(),
            about: "To the right are the slowest requests: each step of the axis has a tenth of the requests above it. A picture and no claim: what is claimed is claimed of pairs.".to_owned(),
            x: Vec::new(),
            x_at: (String::new(), String::new()),
            across: Across::Ranks,
            log: true,
            unit: Unit::Ns,
            lines: vec![line("A", |p| p.a_ns), line("B", |p| p.b_ns)],
            band: None,
            end: 0.0,
            marks: Vec::new(),
        })),
    }))
}

fn outcomes(of: &Comparison, page: &mut Page) {
    page.heading("Outcomes");
    for SideSum { role, runs, outcomes, closed } in &of.outcomes {
        let closed = match (runs, closed) {
            (0, _) => "no run counts",
            (_, true) => "closed",
            (_, false) => "NOT CLOSED",
        };
        page.line(format!("{role:?}  {runs} runs  {}  ({closed})", attempts(outcomes)));
    }
}

fn swept(sweep: &Sweep, page: &mut Page) {
    page.heading("Sweep of the setting");
    let chosen = sweep.chosen.as_deref().unwrap_or("none: no setting meets the criterion");
    page.line(format!("compared is {chosen}: {}", sweep.criterion));
    let row = |(index, point): (usize, &SweepPoint)| {
        let f = &point.figures;
        let at = format!("/data/sweep/points/{index}/figures");
        let with = |key: &str, text: fn(&RunFigures) -> String| match f {
            Measured::Known(f) => Cell::of(text(f), &at, key),
            Measured::Unknown { .. } => Cell { text: "unknown".to_owned(), at: Some(at.clone()) },
        };
        let left_out = point.excluded.as_ref().map(|why| {
            format!("{}, left out by the rule {}: {}", point.setting, why.rule, why.seen)
        });
        vec![
            left_out.unwrap_or_else(|| point.setting.clone()).into(),
            with("p50_ns", |f| cell(&f.p50_ns, |v| time(*v))),
            with("p99_ns", |f| cell(&f.p99_ns, |v| time(*v))),
            with("throughput_per_s", |f| cell(&f.throughput_per_s, |v| format!("{v:.0}/s"))),
            with("cpu_per_op_ns", |f| cell(&f.cpu_per_op_ns, |v| time(*v))),
            with("delivery", |f| cell(&f.delivery, |v| format!("{:.4} %", v * 100.0))),
        ]
    };
    let head = ["setting", "p50", "p99", "throughput", "cpu per op", "delivery"];
    page.table(&head, 1, sweep.points.iter().enumerate().map(row).collect());
    laws(sweep, page);
}

fn laws(sweep: &Sweep, page: &mut Page) {
    page.heading("The law of a sleep-poll: a message waits U(0, T) for the look that finds it");
    let points = sweep.points.iter().enumerate();
    let polls: Vec<(usize, &SweepPoint)> =
        points.filter(|(_, point)| point.interval_ns.is_some()).collect();
    let row = |(index, point): &(usize, &SweepPoint)| match &point.law {
        Measured::Known(law) => {
            let at = format!("/data/sweep/points/{index}/law");
            let of = |text: String, key: &str| Cell::of(text, &at, key);
            vec![
                point.setting.clone().into(),
                of(count(law.n), "n"),
                of(time(law.mean_ns), "mean_ns"),
                of(time(law.law_mean_ns), "law_mean_ns"),
                of(time(law.p99_ns as f64), "p99_ns"),
                of(time(law.law_p99_ns), "law_p99_ns"),
                of(format!("{:.4}", law.distance), "distance"),
                of(format!("{:.4}", law.bound), "bound"),
                if law.holds { "holds" } else { "BROKEN" }.to_owned().into(),
            ]
        }
        Measured::Unknown { unknown, .. } => {
            let mut row: Vec<Cell> = vec![point.setting.clone().into()];
            row.extend(std::iter::repeat_n(Cell::from("-".to_owned()), 7));
            row.push(format!("unknown: {unknown}").into());
            row
        }
    };
    let head = [
        "setting",
        "waits",
        "mean",
        "law: T/2",
        "p99",
        "law: 0.99 T",
        "KS distance",
        "bound",
        "law",
    ];
    page.table(&head, 1, polls.iter().map(row).collect());
    let slack = polls.iter().find_map(|(_, point)| point.law.known()).map(|law| law.slack_ns);
    if let Some(slack) = slack {
        page.line(format!(
            "bound: 1.63 / sqrt(n) + slack / T + 0.011; slack {} is the long-poll's own P99",
            time(slack as f64)
        ));
    }
}

fn pairs(title: &str, pairs: &[Pair], page: &mut Page) {
    if pairs.is_empty() {
        return;
    }
    page.heading(title);
    let two = |a: &Measured<f64>, b: &Measured<f64>, text: fn(f64) -> String| {
        format!("{} | {}", cell(a, |v| text(*v)), cell(b, |v| text(*v)))
    };
    let row = |pair: &Pair| {
        let (a, b) = (&pair.a, &pair.b);
        vec![
            a.run.clone(),
            b.run.clone(),
            if pair.a_first { "first | second" } else { "second | first" }.to_owned(),
            a.seed.to_string(),
            two(&a.p50_ns, &b.p50_ns, time),
            two(&a.p99_ns, &b.p99_ns, time),
            two(&a.throughput_per_s, &b.throughput_per_s, |v| format!("{v:.0}/s")),
            two(&a.cpu_per_op_ns, &b.cpu_per_op_ns, time),
        ]
    };
    let head = ["run of A", "run of B", "order", "seed", "p50", "p99", "throughput", "cpu per op"];
    page.table(&head, 3, pairs.iter().map(row).collect());
    let dots = pairs.iter().enumerate().filter_map(|(index, pair)| dot(index, pair)).collect();
    page.parts.extend(forest(
        "P99 of each pair",
        "The square is the ratio of the pair's two runs; the zone around the line at 1 is the band in which they are equivalent. Logarithmic.",
        dots,
    ));
}

/// A pair's ratio of P99; none where one is not known.
fn dot(index: usize, pair: &Pair) -> Option<Ratio> {
    let (a, b) = (*pair.a.p99_ns.known()?, *pair.b.p99_ns.known()?);
    let at = b / a;
    Some(Ratio {
        name: format!("pair {}", index + 1),
        at,
        low: at,
        high: at,
        band: Metric::P99.band(),
        said: ratio(at),
    })
}

fn left_out(of: &Comparison, page: &mut Page) {
    page.heading(format!("Left out  {} runs", of.excluded.len()));
    for out in &of.excluded {
        let run = out.run.as_deref().unwrap_or("no run");
        let (rule, seen) = (&out.why.rule, &out.why.seen);
        page.line(format!("block {} {:?} {run}: {rule}: {seen}", out.block + 1, out.role));
    }
    page.line(format!("rules, fixed before the first run: {}", of.rules.join("; ")));
}

fn differences(of: &Comparison, page: &mut Page) {
    if of.differences.is_empty() {
        return;
    }
    page.heading("What else differs");
    let rows = of.differences.iter().map(|d| vec![d.key.clone(), d.a.clone(), d.b.clone()]);
    page.table(&["key", "A", "B"], 3, rows.collect());
}

/// The figures of a run in one line.
#[must_use]
pub fn brief(figures: &RunFigures) -> String {
    let ns = |value: &Measured<f64>| cell(value, |ns| time(*ns));
    format!(
        "p50 {}  p99 {}  {}  {} per op  {} delivered",
        ns(&figures.p50_ns),
        ns(&figures.p99_ns),
        cell(&figures.throughput_per_s, |rate| format!("{rate:.0}/s")),
        ns(&figures.cpu_per_op_ns),
        cell(&figures.delivery, |share| format!("{:.3} %", share * 100.0)),
    )
}
