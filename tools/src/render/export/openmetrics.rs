//! OpenMetrics 1.0 text with a time stamp on every sample: what `promtool tsdb create-blocks-from
//! openmetrics` makes blocks of. One sample per window and series.
//!
//! No agent is a label (10,000 of them would be 10,000 series). A counter of a core that was unknown in a
//! window starts again at 0 after it, as after a restart: a rate over the hole is then not made up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use tailbeam_harness::evidence::records::Reading;
use tailbeam_harness::evidence::{Interval, Intervals};
use tailbeam_harness::report::latency::stage_name;
use tailbeam_probes::analyse::latency::bucket_range;
use tailbeam_probes::record::latency::{Count, LatencyWindow, Stage};

/// Bounds of the latency histogram: powers of two from 2^10 ns (1 us) to 2^34 ns (17 s).
const OCTAVES: std::ops::RangeInclusive<u32> = 10..=34;

/// A metric family: its samples are written together.
#[derive(Debug)]
struct Family {
    name: &'static str,
    kind: &'static str,
    unit: &'static str,
    help: &'static str,
    samples: String,
}

const FAMILIES: [(&str, &str, &str, &str); 11] = [
    ("tailbeam_requests", "counter", "", "Requests by outcome"),
    (
        "tailbeam_system_latency_seconds",
        "histogram",
        "seconds",
        "Latency without the planned delay, by asking core",
    ),
    (
        "tailbeam_stage_seconds",
        "counter",
        "seconds",
        "Time of requests in each stage, by asking core",
    ),
    ("tailbeam_core_seconds", "counter", "seconds", "What each core did"),
    (
        "tailbeam_core_off_cpu_seconds",
        "counter",
        "seconds",
        "Time off the CPU of each core's thread",
    ),
    ("tailbeam_core_events", "counter", "", "Counters of each core's thread; known ones only"),
    ("tailbeam_measuring_seconds", "counter", "seconds", "What measuring took, by its own meters"),
    ("tailbeam_agents", "gauge", "", "Live agents"),
    ("tailbeam_open_requests", "gauge", "", "Mean number of open requests"),
    ("tailbeam_oldest_request_seconds", "gauge", "seconds", "Age of the oldest open request"),
    ("tailbeam_resident_bytes", "gauge", "bytes", "Resident set"),
];

/// Cumulated values, by family and labels.
#[derive(Debug, Default)]
struct Totals(BTreeMap<(usize, String), f64>);

impl Totals {
    fn add(&mut self, family: usize, labels: &str, value: f64) -> f64 {
        let sum = self.0.entry((family, labels.to_owned())).or_default();
        *sum += value;
        *sum
    }
}

struct Writer {
    families: Vec<Family>,
    totals: Totals,
    cores: Vec<u64>,
    at_s: f64,
}

/// Writes every window that `wanted` takes; returns how many there were.
///
/// # Errors
/// Those of `out`.
pub fn write(
    intervals: &mut Intervals,
    wanted: &mut dyn FnMut(&Interval) -> bool,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let manifest = intervals.manifest.clone();
    let family =
        |(name, kind, unit, help)| Family { name, kind, unit, help, samples: String::new() };
    let mut writer = Writer {
        families: FAMILIES.into_iter().map(family).collect(),
        totals: Totals::default(),
        cores: manifest.cores.clone(),
        at_s: 0.0,
    };
    let mut windows = 0;
    for interval in intervals.by_ref() {
        let Some((_, to_ns)) = interval.extent_ns().filter(|_| wanted(&interval)) else { continue };
        windows += 1;
        let after_s = to_ns.saturating_sub(manifest.start_ns) as f64 / 1e9;
        writer.at_s = manifest.started_unix_ns as f64 / 1e9 + after_s;
        writer.interval(&interval);
    }
    for family in writer.families.iter().filter(|family| !family.samples.is_empty()) {
        writeln!(out, "# TYPE {} {}", family.name, family.kind)?;
        if !family.unit.is_empty() {
            writeln!(out, "# UNIT {} {}", family.name, family.unit)?;
        }
        writeln!(out, "# HELP {} {}", family.name, family.help)?;
        out.write_all(family.samples.as_bytes())?;
    }
    writeln!(out, "# EOF")?;
    Ok(windows)
}

impl Writer {
    fn sample(&mut self, family: usize, suffix: &str, labels: &str, value: f64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let (of, at_s) = (&mut self.families[family], self.at_s);
        // Writing to a string cannot fail.
        let _ = writeln!(of.samples, "{}{suffix}{labels} {value} {at_s:.3}", of.name);
    }

    fn count(&mut self, family: usize, labels: &str, value: f64) {
        let sum = self.totals.add(family, labels, value);
        self.sample(family, "_total", labels, sum);
    }

    fn interval(&mut self, interval: &Interval) {
        let record = &interval.record;
        let mut counts = tailbeam_harness::load::SecondCounts::default();
        record.seconds.iter().for_each(|second| counts.merge(&second.counts));
        for (name, count) in counts.outcomes.named() {
            self.count(0, &format!("outcome=\"{name}\""), count as f64);
        }
        for window in &interval.latency {
            self.core(window);
        }
        let seconds = &record.seconds;
        if let Some(last) = seconds.last() {
            self.sample(7, "", "", last.live_agents as f64);
        }
        let samples: u64 = seconds.iter().map(|second| second.open_samples).sum();
        if samples > 0 {
            let sum: u64 = seconds.iter().map(|second| second.open_sum).sum();
            self.sample(8, "", "", sum as f64 / samples as f64);
            let oldest = seconds.iter().map(|second| second.oldest_open_ns).max().unwrap_or(0);
            self.sample(9, "", "", oldest as f64 / 1e9);
        }
        if let Reading::Value(bytes) = record.rss_bytes {
            self.sample(10, "", "", bytes as f64);
        }
    }

    fn core(&mut self, window: &LatencyWindow) {
        let shard = usize::from(window.shard);
        let core = self.cores.get(shard).copied().unwrap_or(shard as u64);
        let core = format!("core=\"{core}\"");
        self.histogram(window, &core);
        for stage in Stage::ALL {
            let ns: u64 = window.buckets.iter().map(|of| of.sums.stages[stage.index()]).sum();
            let labels = format!("{core},stage=\"{}\"", stage_name(stage));
            self.count(2, &labels, ns as f64 / 1e9);
        }
        let ticks = &window.ticks;
        let sum = |of: fn(&tailbeam_probes::record::latency::CoreTick) -> u64| {
            ticks.iter().map(of).fold(0u64, u64::saturating_add) as f64 / 1e9
        };
        let states = [
            ("turns", sum(|tick| tick.turns_ns)),
            ("spun", sum(|tick| tick.spun_ns)),
            ("parked", sum(|tick| tick.parked_ns)),
            ("tick", sum(|tick| tick.tick_ns)),
        ];
        for (state, seconds) in states {
            self.count(3, &format!("{core},state=\"{state}\""), seconds);
        }
        let known = |of: fn(&tailbeam_probes::record::latency::CoreTick) -> Option<u64>| {
            ticks.iter().map(of).sum::<Option<u64>>().filter(|_| !ticks.is_empty())
        };
        for (why, ns) in [
            ("preempted", known(|tick| tick.preempted_ns)),
            ("blocked", known(|tick| tick.blocked_ns)),
        ] {
            self.known(4, &format!("{core},why=\"{why}\""), ns.map(|ns| ns as f64 / 1e9));
        }
        self.counters(window, &core);
        self.count(6, &core, window.self_ns as f64 / 1e9);
    }

    /// A sum that may be unknown in this window.
    fn known(&mut self, family: usize, labels: &str, value: Option<f64>) {
        match value {
            Some(value) => self.count(family, labels, value),
            None => {
                self.totals.0.remove(&(family, labels.to_owned()));
            }
        }
    }

    fn counters(&mut self, window: &LatencyWindow, core: &str) {
        let mut sums: BTreeMap<&str, Option<u64>> = BTreeMap::new();
        for of in window.ticks.iter().flat_map(|tick| &tick.counters) {
            let sum = sums.entry(&of.name).or_insert(Some(0));
            *sum = match (&of.count, *sum) {
                (Count::Exact(n) | Count::Scaled(n, _), Some(sum)) => Some(sum.saturating_add(*n)),
                _ => None,
            };
        }
        for (name, sum) in sums {
            self.known(5, &format!("{core},counter=\"{name}\""), sum.map(|n| n as f64));
        }
    }

    fn histogram(&mut self, window: &LatencyWindow, core: &str) {
        let (mut count, mut system_ns) = (0.0, 0.0);
        let each = window.stands_for() as f64;
        for octave in OCTAVES {
            let bound = 1u64 << octave;
            let inside =
                window.buckets.iter().filter(|of| bucket_range(usize::from(of.bucket)).1 <= bound);
            let below: u64 = inside.map(|of| of.sums.count).sum();
            let labels = format!("{core},le=\"{}\"", bound as f64 / 1e9);
            let sum = self.totals.add(1, &labels, below as f64 * each);
            self.sample(1, "_bucket", &labels, sum);
        }
        for of in &window.buckets {
            count += of.sums.count as f64 * each;
            system_ns += of.sums.system_ns as f64 * each;
        }
        let labels = format!("{core},le=\"+Inf\"");
        let count = self.totals.add(1, &labels, count);
        self.sample(1, "_bucket", &labels, count);
        let sum = self.totals.add(1, &format!("{core},sum"), system_ns / 1e9);
        self.sample(1, "_count", core, count);
        self.sample(1, "_sum", core, sum);
    }
}
