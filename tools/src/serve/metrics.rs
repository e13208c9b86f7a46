//! The sums of a run as text: OpenMetrics 1.0.0, or Prometheus 0.0.4, which differ in a counter's name in its
//! TYPE line, in units and in the end mark. The families are those of the backfill (`export --to openmetrics`).

use std::fmt::Write as _;

use tailbeam_harness::drive::{LatencyTotals, OCTAVES, Totals};
use tailbeam_harness::evidence::records::{CoreRecord, Reading};

use super::http::Dialect;

/// The text so far.
struct Page {
    dialect: Dialect,
    text: String,
}

/// What is known of a run. What is not known has no sample.
pub(super) fn text(totals: &Totals, dialect: Dialect) -> String {
    let mut page = Page { dialect, text: String::with_capacity(8 * 1024) };
    page.run(totals);
    page.requests(totals);
    page.latency(totals);
    page.cores(&totals.cores);
    let gauges = [
        ("tailbeam_agents", "", "Live agents", totals.live_agents.map(|n| n as f64)),
        ("tailbeam_open_requests", "", "Mean number of open requests", totals.open),
        (
            "tailbeam_oldest_request_seconds",
            "seconds",
            "Age of the oldest open request",
            totals.oldest_open_ns.map(|ns| ns as f64 / 1e9),
        ),
        (
            "tailbeam_resident_bytes",
            "bytes",
            "Resident set",
            totals.rss_bytes.map(|bytes| bytes as f64),
        ),
    ];
    for (name, unit, help, value) in gauges {
        if let Some(value) = value {
            page.family(name, "gauge", unit, help);
            page.sample(name, "", value);
        }
    }
    if dialect == Dialect::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let text = &mut self.text;
        // Writing to a string cannot fail.
        let _ = match (self.dialect, kind) {
            (Dialect::OpenMetrics, _) => writeln!(text, "# TYPE {name} {kind}"),
            (Dialect::Text, "counter") => writeln!(text, "# TYPE {name}_total {kind}"),
            (Dialect::Text, "info") => writeln!(text, "# TYPE {name}_info gauge"),
            (Dialect::Text, _) => writeln!(text, "# TYPE {name} {kind}"),
        };
        if self.dialect == Dialect::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let suffix = match (self.dialect, kind) {
            (Dialect::Text, "counter") => "_total",
            (Dialect::Text, "info") => "_info",
            _ => "",
        };
        let _ = writeln!(text, "# HELP {name}{suffix} {help}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn run(&mut self, totals: &Totals) {
        if totals.run.is_empty() {
            return;
        }
        self.family("tailbeam_run", "info", "", "The run that is measured");
        let labels =
            format!("run=\"{}\",workload=\"{}\"", escaped(&totals.run), escaped(&totals.workload));
        self.sample("tailbeam_run_info", &labels, 1.0);
    }

    fn requests(&mut self, totals: &Totals) {
        let o = &totals.counts.outcomes;
        self.family("tailbeam_requests", "counter", "", "Requests by outcome");
        for (name, count) in o.named() {
            let labels = format!("outcome=\"{name}\"");
            self.sample("tailbeam_requests_total", &labels, count as f64);
        }
    }

    fn latency(&mut self, totals: &Totals) {
        let known = totals.cores.iter().zip(&totals.latency);
        if known.len() == 0 {
            return;
        }
        let name = "tailbeam_system_latency_seconds";
        let help = "Latency without the planned delay, by asking core";
        self.family(name, "histogram", "seconds", help);
        for (core, of) in known {
            self.histogram(name, &format!("core=\"{}\"", core.core), of);
        }
    }

    fn histogram(&mut self, name: &str, core: &str, of: &LatencyTotals) {
        for (below, octave) in of.below.iter().zip(OCTAVES) {
            let labels = format!("{core},le=\"{}\"", f64::from(octave).exp2() / 1e9);
            self.sample(&format!("{name}_bucket"), &labels, *below as f64);
        }
        let labels = format!("{core},le=\"+Inf\"");
        self.sample(&format!("{name}_bucket"), &labels, of.count as f64);
        self.sample(&format!("{name}_count"), core, of.count as f64);
        self.sample(&format!("{name}_sum"), core, of.sum_ns as f64 / 1e9);
    }

    fn cores(&mut self, cores: &[CoreRecord]) {
        if cores.is_empty() {
            return;
        }
        let seconds = |ns: u64| ns as f64 / 1e9;
        self.family("tailbeam_core_seconds", "counter", "seconds", "What each core did");
        for core in cores {
            for (state, ns) in [("busy", core.busy_ns), ("parked", core.parked_ns)] {
                let labels = format!("core=\"{}\",state=\"{state}\"", core.core);
                self.sample("tailbeam_core_seconds_total", &labels, seconds(ns));
            }
        }
        self.family(
            "tailbeam_core_cpu_seconds",
            "counter",
            "seconds",
            "CPU time of each core's thread, kernel included",
        );
        for core in cores {
            if let Reading::Value(ns) = core.cpu_ns {
                let labels = format!("core=\"{}\"", core.core);
                self.sample("tailbeam_core_cpu_seconds_total", &labels, seconds(ns));
            }
        }
        self.family("tailbeam_core_turns", "counter", "", "Turns of agents");
        for core in cores {
            let labels = format!("core=\"{}\"", core.core);
            self.sample("tailbeam_core_turns_total", &labels, core.turns as f64);
        }
    }
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
