//! The page of a comparison.

use tailbeam_harness::compare::sweep::{Sweep, SweepPoint};
use tailbeam_harness::compare::{
    Comparison, Effect, Judged, Metric, MetricResult, Pair, RunFigures, SideSum,
};
use tailbeam_harness::report::Measured;
use tailbeam_harness::verdict::Overall;

use super::{Page, cell};
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

fn metrics(of: &Comparison, page: &mut Page) {
    let row = |m: &MetricResult| {
        let interval =
            |e: &Effect| format!("{} [{}, {}]", ratio(e.ratio), ratio(e.low), ratio(e.high));
        vec![
            m.metric.name().to_owned(),
            cell(&m.a, |v| value(m.metric, *v)),
            cell(&m.b, |v| value(m.metric, *v)),
            cell(&m.effect, interval),
            format!("+- {:.1} %", (m.band - 1.0) * 100.0),
            cell(&m.effect, |e| ratio(e.detectable)),
            cell(&m.floor, |floor| ratio(*floor)),
            m.drift_p.map_or_else(|| "-".to_owned(), |p| format!("{p:.2}")),
            judged(m.judged).to_owned(),
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
    page.table(&head, 1, of.metrics.iter().map(row).collect());
    for m in of.metrics.iter().filter(|m| !m.reason.is_empty()) {
        page.line(format!("{}: {}", m.metric.name(), m.reason));
    }
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
    let row = |point: &SweepPoint| {
        let f = &point.figures;
        let with = |text: fn(&RunFigures) -> String| cell(f, text);
        vec![
            point.setting.clone(),
            with(|f| cell(&f.p50_ns, |v| time(*v))),
            with(|f| cell(&f.p99_ns, |v| time(*v))),
            with(|f| cell(&f.throughput_per_s, |v| format!("{v:.0}/s"))),
            with(|f| cell(&f.cpu_per_op_ns, |v| time(*v))),
            with(|f| cell(&f.delivery, |v| format!("{:.4} %", v * 100.0))),
        ]
    };
    let head = ["setting", "p50", "p99", "throughput", "cpu per op", "delivery"];
    page.table(&head, 1, sweep.points.iter().map(row).collect());
    laws(sweep, page);
}

fn laws(sweep: &Sweep, page: &mut Page) {
    page.heading("The law of a sleep-poll: a message waits U(0, T) for the look that finds it");
    let polls: Vec<&SweepPoint> =
        sweep.points.iter().filter(|point| point.interval_ns.is_some()).collect();
    let row = |point: &&SweepPoint| match &point.law {
        Measured::Known(law) => vec![
            point.setting.clone(),
            count(law.n),
            time(law.mean_ns),
            time(law.law_mean_ns),
            time(law.p99_ns as f64),
            time(law.law_p99_ns),
            format!("{:.4}", law.distance),
            format!("{:.4}", law.bound),
            if law.holds { "holds" } else { "BROKEN" }.to_owned(),
        ],
        Measured::Unknown { unknown, .. } => {
            let mut row = vec![point.setting.clone()];
            row.extend(std::iter::repeat_n("-".to_owned(), 7));
            row.push(format!("unknown: {unknown}"));
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
    let slack = polls.iter().find_map(|point| point.law.known()).map(|law| law.slack_ns);
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
