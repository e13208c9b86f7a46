//! Windows of a run as rows, for pandas, DuckDB and spreadsheets: CSV (RFC 4180), JSON lines or Parquet. One row for
//! each window, or for each window and core. Units are in the names of the columns; instants are RFC 3339 in text.
//!
//! What was not measured is empty in CSV and null elsewhere, where `unknown` says why; it is never 0.

mod parquet;

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use tailbeam_harness::evidence::records::{Reading, WindowRecord};
use tailbeam_harness::evidence::{Interval, Intervals, rfc3339_ms};
use tailbeam_harness::load::{SecondCounts, Series};
use tailbeam_probes::record::latency::{CoreTick, Count, LatencyWindow};
use tailbeam_probes::stats::Histogram;

/// What a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// A window.
    Windows,
    /// A window and a core.
    Cores,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Comma-separated values, one line of names first.
    Csv,
    /// One JSON object in each line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Text(String),
    /// Nanoseconds since 1970, UTC.
    Instant(u64),
    Whole(u64),
    Number(f64),
    Unknown(String),
}

type Row = Vec<(String, Cell)>;

/// Names of the counters that any core has in these windows, in the order in which they come.
#[must_use]
pub fn counter_names(intervals: &mut Intervals) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for interval in intervals {
        let ticks = interval.latency.iter().flat_map(|window| &window.ticks);
        for counter in ticks.flat_map(|tick| &tick.counters) {
            if !names.contains(&counter.name) {
                names.push(counter.name.clone());
            }
        }
    }
    names
}

/// Writes a row for each window that `wanted` takes; returns how many rows there were. `names`: counters, as
/// [`counter_names`] gives them.
///
/// # Errors
/// Those of `out`.
pub fn write(
    intervals: &mut Intervals,
    wanted: &mut dyn FnMut(&Interval) -> bool,
    (rows, kind): (Rows, Kind),
    names: &[String],
    out: &mut dyn Write,
) -> io::Result<u64> {
    let manifest = intervals.manifest.clone();
    let mut written = 0;
    let mut lines = Lines::new(kind, out);
    for interval in intervals {
        if !wanted(&interval) {
            continue;
        }
        let Some(extent) = interval.extent_ns() else { continue };
        let head = |core: Option<u64>| {
            let after = |ns: u64| ns.saturating_sub(manifest.start_ns);
            let at = |ns: u64| Cell::Instant(manifest.started_unix_ns.saturating_add(after(ns)));
            let mut row = vec![
                ("run".to_owned(), Cell::Text(manifest.id.clone())),
                ("window".to_owned(), Cell::Whole(u64::from(interval.record.window))),
                ("from".to_owned(), at(extent.0)),
                ("to".to_owned(), at(extent.1)),
                ("from_s".to_owned(), Cell::Number(after(extent.0) as f64 / 1e9)),
                ("to_s".to_owned(), Cell::Number(after(extent.1) as f64 / 1e9)),
            ];
            row.extend(core.map(|core| ("core".to_owned(), Cell::Whole(core))));
            row
        };
        let made: Vec<Row> = match rows {
            Rows::Windows => vec![[head(None), window(&interval)].concat()],
            Rows::Cores => {
                let cores = manifest.cores.iter().enumerate();
                cores
                    .map(|(shard, &cpu)| [head(Some(cpu)), core(&interval, shard, names)].concat())
                    .collect()
            }
        };
        for row in made {
            lines.row(row, written == 0)?;
            written += 1;
        }
    }
    lines.finish()?;
    Ok(written)
}

/// Where rows go.
enum Lines<'o> {
    Csv(&'o mut dyn Write),
    Jsonl(&'o mut dyn Write),
    Parquet(Box<parquet::Table<'o>>),
}

impl<'o> Lines<'o> {
    fn new(kind: Kind, out: &'o mut dyn Write) -> Self {
        match kind {
            Kind::Csv => Self::Csv(out),
            Kind::Jsonl => Self::Jsonl(out),
            Kind::Parquet => Self::Parquet(Box::new(parquet::Table::new(out))),
        }
    }

    fn row(&mut self, row: Row, first: bool) -> io::Result<()> {
        match self {
            Self::Csv(out) => {
                if first {
                    let columns: Vec<String> = row.iter().map(|(name, _)| quoted(name)).collect();
                    writeln!(out, "{}", columns.join(","))?;
                }
                let cells: Vec<String> = row.iter().map(|(_, cell)| plain(cell)).collect();
                writeln!(out, "{}", cells.join(","))
            }
            Self::Jsonl(out) => {
                let cells = row.iter().map(|(name, cell)| (name.clone(), value(cell)));
                let (mut object, unknown): (Map<_, _>, _) = (cells.collect(), unknowns(&row));
                if !unknown.is_empty() {
                    object.insert("unknown".to_owned(), Value::Object(unknown));
                }
                writeln!(out, "{}", Value::Object(object))
            }
            Self::Parquet(table) => table.row(row),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Csv(_) | Self::Jsonl(_) => Ok(()),
            Self::Parquet(table) => table.finish(),
        }
    }
}

/// Why cells of a row are not known, by column.
fn unknowns(row: &Row) -> Map<String, Value> {
    let why = |(name, cell): &(String, Cell)| match cell {
        Cell::Unknown(why) => Some((name.clone(), json!(why))),
        _ => None,
    };
    row.iter().filter_map(why).collect()
}

fn plain(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => quoted(text),
        Cell::Instant(ns) => rfc3339_ms(*ns),
        Cell::Whole(n) => n.to_string(),
        Cell::Number(n) => n.to_string(),
        Cell::Unknown(_) => String::new(),
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Text(text) => json!(text),
        Cell::Instant(ns) => json!(rfc3339_ms(*ns)),
        Cell::Whole(n) => json!(n),
        Cell::Number(n) => json!(n),
        Cell::Unknown(_) => Value::Null,
    }
}

fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Latency of some requests: a percentile of too few is unknown.
fn latency(row: &mut Row, histogram: &Histogram) {
    row.push(("latency_count".to_owned(), Cell::Whole(histogram.count())));
    for (name, q) in [("p50_ns", 0.5), ("p90_ns", 0.9), ("p99_ns", 0.99), ("p999_ns", 0.999)] {
        let needed = (1.0f64 / (1.0 - q)).round();
        let value = histogram.quantile(q).filter(|_| histogram.count() as f64 >= needed);
        let few = || Cell::Unknown(format!("fewer than {needed} values, or above the range"));
        row.push((format!("latency_{name}"), value.map_or_else(few, Cell::Whole)));
    }
    let nothing = || Cell::Unknown("nothing was recorded".to_owned());
    row.push(("latency_max_ns".to_owned(), histogram.max().map_or_else(nothing, Cell::Whole)));
    row.push(("latency_mean_ns".to_owned(), histogram.mean().map_or_else(nothing, Cell::Number)));
}

fn system(interval: &Interval, shard: Option<usize>) -> Histogram {
    let mut merged = Histogram::new();
    let of = interval.histograms.iter().filter(|(of, series, _)| {
        *series == Series::System && shard.is_none_or(|shard| usize::from(*of) == shard)
    });
    of.for_each(|(_, _, histogram)| merged.merge(histogram));
    merged
}

fn reading(of: &Reading) -> Cell {
    match of {
        Reading::Value(value) => Cell::Whole(*value),
        Reading::Missing { unknown, remedy } => Cell::Unknown(format!("{unknown}; {remedy}")),
    }
}

fn window(interval: &Interval) -> Row {
    let record = &interval.record;
    let mut counts = SecondCounts::default();
    record.seconds.iter().for_each(|second| counts.merge(&second.counts));
    let mut row: Row = Vec::new();
    let mut put = |name: &str, cell: Cell| row.push((name.to_owned(), cell));
    let o = counts.outcomes;
    put("attempts", Cell::Whole(o.attempts));
    for (name, n) in o.named() {
        put(name, Cell::Whole(n));
    }
    let length_s = record.seconds.iter().fold(0.0, |sum, second| sum + second.len_ns as f64 / 1e9);
    let per_s = |n: u64| match length_s > 0.0 {
        true => Cell::Number(n as f64 / length_s),
        false => Cell::Unknown("no second was recorded".to_owned()),
    };
    put("offered_per_s", per_s(o.attempts));
    put("served_per_s", per_s(o.ok + o.declined));
    open(record, &mut put);
    put("rss_bytes", reading(&record.rss_bytes));
    put("pss_bytes", reading(&record.pss_bytes));
    put("live_bytes", reading(&record.live_bytes));
    put("cpu_since_start_ns", reading(&record.cpu_ns));
    put("gaps", Cell::Whole(record.gaps.len() as u64));
    put("gap_ns", Cell::Whole(record.gaps.iter().map(|gap| gap.len_ns).sum()));
    latency(&mut row, &system(interval, None));
    row
}

fn open(record: &WindowRecord, put: &mut dyn FnMut(&str, Cell)) {
    let samples: u64 = record.seconds.iter().map(|second| second.open_samples).sum();
    let sum: u64 = record.seconds.iter().map(|second| second.open_sum).sum();
    put(
        "open_mean",
        match samples {
            0 => Cell::Unknown("no sample was taken".to_owned()),
            n => Cell::Number(sum as f64 / n as f64),
        },
    );
    let oldest = record.seconds.iter().map(|second| second.oldest_open_ns).max();
    let none = || Cell::Unknown("no second was recorded".to_owned());
    put("oldest_open_ns", oldest.map_or_else(none, Cell::Whole));
    let live = record.seconds.last().map(|second| second.live_agents);
    put("live_agents", live.map_or_else(none, Cell::Whole));
}

fn core(interval: &Interval, shard: usize, names: &[String]) -> Row {
    let mut row: Row = Vec::new();
    latency(&mut row, &system(interval, Some(shard)));
    let window = interval.latency.iter().find(|window| usize::from(window.shard) == shard);
    let none = || Cell::Unknown("the core was not observed in this window".to_owned());
    let ticks = window.map_or(&[][..], |window| &window.ticks);
    let mut put = |name: &str, cell: Cell| row.push((name.to_owned(), cell));
    put("ticks", window.map_or_else(none, |window| Cell::Whole(window.ticks.len() as u64)));
    let sum = |of: fn(&CoreTick) -> u64| match ticks.is_empty() {
        true => none(),
        false => Cell::Whole(ticks.iter().map(of).fold(0, u64::saturating_add)),
    };
    put("observed_ns", sum(|tick| tick.to_ns.saturating_sub(tick.from_ns)));
    put("turns", sum(|tick| tick.turns));
    put("turns_ns", sum(|tick| tick.turns_ns));
    put("spun_ns", sum(|tick| tick.spun_ns));
    put("parked_ns", sum(|tick| tick.parked_ns));
    put("tick_ns", sum(|tick| tick.tick_ns));
    put("lost_records", sum(|tick| tick.lost));
    let known = |of: fn(&CoreTick) -> Option<u64>| {
        let sum = ticks.iter().map(of).sum::<Option<u64>>().filter(|_| !ticks.is_empty());
        let why = || Cell::Unknown("not read in a tick of this window".to_owned());
        sum.map_or_else(why, Cell::Whole)
    };
    put("on_cpu_ns", known(|tick| tick.run_ns));
    put("ready_ns", known(|tick| tick.wait_ns));
    put("preempted_ns", known(|tick| tick.preempted_ns));
    put("blocked_ns", known(|tick| tick.blocked_ns));
    put(
        "queued_mean",
        match ticks.len() {
            0 => none(),
            n => Cell::Number(ticks.iter().map(|tick| tick.queued).sum::<u64>() as f64 / n as f64),
        },
    );
    put(
        "measuring_ns",
        window.map_or_else(none, |window: &LatencyWindow| Cell::Whole(window.self_ns)),
    );
    for name in names {
        row.extend(counter(ticks, name));
    }
    row
}

/// A counter over the ticks of a window and how far to believe it; unknown as soon as one tick lacks it.
fn counter(ticks: &[CoreTick], name: &str) -> [(String, Cell); 2] {
    let (mut sum, mut worst) = (Some(0u64), "exact");
    let mut why = None;
    for tick in ticks {
        let count = tick.counters.iter().find(|of| of.name == name).map(|of| &of.count);
        let value = match count {
            Some(Count::Exact(value)) => Some(*value),
            Some(Count::Scaled(value, _)) => {
                worst = if worst == "rough" { worst } else { "scaled" };
                Some(*value)
            }
            Some(Count::Rough(value, _)) => {
                worst = "rough";
                Some(*value)
            }
            Some(Count::Unknown(cause)) => {
                why.get_or_insert_with(|| cause.clone());
                None
            }
            None => None,
        };
        sum = sum.zip(value).map(|(sum, value)| sum.saturating_add(value));
    }
    // The kernel counts both clocks in ns.
    let unit = if name.ends_with("-clock") { "_ns" } else { "" };
    let column = format!("{}{unit}", name.replace('-', "_"));
    let quality = format!("{}_quality", name.replace('-', "_"));
    let unknown = || Cell::Unknown(why.clone().unwrap_or_else(|| "it was not counted".to_owned()));
    match sum.filter(|_| !ticks.is_empty()) {
        Some(sum) => [(column, Cell::Whole(sum)), (quality, Cell::Text(worst.to_owned()))],
        None => [(column, unknown()), (quality, Cell::Text("unknown".to_owned()))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_and_the_unknown_is_empty() {
        let row: Row = vec![
            ("a".to_owned(), Cell::Text("x,\"y\"\n".to_owned())),
            ("b_ns".to_owned(), Cell::Unknown("no PMU".to_owned())),
            ("c".to_owned(), Cell::Whole(0)),
        ];
        let written = |kind| {
            let mut out = Vec::new();
            Lines::new(kind, &mut out).row(row.clone(), false).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(Kind::Csv), "\"x,\"\"y\"\"\n\",,0\n");
        let json: Value = serde_json::from_str(&written(Kind::Jsonl)).unwrap();
        assert_eq!(
            json,
            json!({"a": "x,\"y\"\n", "b_ns": null, "c": 0, "unknown": {"b_ns": "no PMU"}})
        );
    }

    #[test]
    fn a_counter_that_a_tick_lacks_is_unknown_and_the_worst_quality_counts() {
        let tick = |count: Count| CoreTick {
            counters: vec![tailbeam_probes::record::latency::CounterRecord {
                name: "task-clock".to_owned(),
                count,
            }],
            ..CoreTick::default()
        };
        let of = |ticks: &[CoreTick]| {
            counter(ticks, "task-clock").map(|(name, cell)| (name, plain(&cell)))
        };
        let ticks =
            [tick(Count::Exact(3)), tick(Count::Rough(4, 400)), tick(Count::Scaled(5, 950))];
        assert_eq!(of(&ticks)[0], ("task_clock_ns".to_owned(), "12".to_owned()));
        assert_eq!(of(&ticks)[1].1, "rough");
        let ticks = [tick(Count::Exact(3)), tick(Count::Unknown("gone".to_owned()))];
        assert_eq!((of(&ticks)[0].1.as_str(), of(&ticks)[1].1.as_str()), ("", "unknown"));
    }
}
