//! The cores of a soak, from what is on disk: written or still being written.

use std::path::Path;

use tailbeam_harness::evidence::Following;
use tailbeam_harness::evidence::records::{CoreRecord, Manifest, Reading, WindowRecord, kind};
use tailbeam_harness::load::{SecondCounts, Series};
use tailbeam_probes::record::latency::LatencyWindow;
use tailbeam_probes::record::program::from_bytes;
use tailbeam_probes::stats::Histogram;

use super::{Cell, Grid, Page, Source};
use crate::Failure;
use crate::render::units::{bytes, count, time};

/// Agents that are shown.
const AGENTS_MAX: usize = 8;

/// A run of `soak`.
pub(crate) struct Soak {
    run: String,
    following: Following,
    manifest: Option<Manifest>,
    /// The last two windows.
    before: Option<WindowRecord>,
    now: Option<WindowRecord>,
    /// System latency of the last window, by core.
    latency: Vec<(u16, Histogram)>,
    waiting: Vec<(u32, u16, Histogram)>,
    /// Where the time went, of the last window that says so.
    attribution: Vec<LatencyWindow>,
    attribution_waiting: Vec<LatencyWindow>,
    end: Option<String>,
}

impl Soak {
    pub(crate) fn new(dir: &Path) -> Self {
        let run = dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Self {
            run,
            following: Following::from_start(dir),
            manifest: None,
            before: None,
            now: None,
            latency: Vec::new(),
            waiting: Vec::new(),
            attribution: Vec::new(),
            attribution_waiting: Vec::new(),
            end: None,
        }
    }

    fn read(&mut self) -> Result<(), Failure> {
        for frame in self.following.fresh()? {
            let bytes = &*frame.payload;
            match frame.kind {
                kind::MANIFEST => self.manifest = serde_json::from_slice(bytes).ok(),
                kind::HISTOGRAM => self.waiting.extend(system(bytes)),
                // Of another version: the report says so.
                LATENCY => self.attribution_waiting.extend(from_bytes::<LatencyWindow>(bytes)),
                kind::WINDOW => {
                    if let Ok(window) = serde_json::from_slice::<WindowRecord>(bytes) {
                        self.close(window);
                    }
                }
                // What waits is of a window that was cut.
                kind::EPOCH => {
                    self.waiting.clear();
                    self.attribution_waiting.clear();
                }
                kind::END => {
                    let end = serde_json::from_slice::<serde_json::Value>(bytes).ok();
                    let reason = end.and_then(|end| Some(end["reason"].as_str()?.to_owned()));
                    self.end = Some(reason.unwrap_or_else(|| "ended".to_owned()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A window counts when its record is there.
    fn close(&mut self, window: WindowRecord) {
        let number = window.window;
        let own = self.waiting.drain(..).filter(|(of, ..)| *of == number);
        self.latency = own.map(|(_, core, histogram)| (core, histogram)).collect();
        self.attribution =
            self.attribution_waiting.drain(..).filter(|of| of.window == number).collect();
        self.before = self.now.replace(window);
    }
}

/// `LATENCY` of the evidence records: where the time went.
const LATENCY: u16 = 6;

/// Window, core and histogram of a frame with system latencies.
fn system(payload: &[u8]) -> Option<(u32, u16, Histogram)> {
    let (head, rest) = payload.split_at_checked(8)?;
    let window = u32::from_le_bytes(head[0..4].try_into().ok()?);
    let core = u16::from_le_bytes(head[4..6].try_into().ok()?);
    (head[6] == Series::System as u8).then_some(())?;
    Some((window, core, Histogram::decode(rest).ok()?))
}

/// Length of a window, ns.
fn length(window: &WindowRecord) -> u64 {
    window.seconds.iter().map(|second| second.len_ns).sum()
}

fn known(reading: &Reading) -> Option<u64> {
    match reading {
        Reading::Value(value) => Some(*value),
        Reading::Missing { .. } => None,
    }
}

fn figures(histogram: Option<&Histogram>) -> [Cell; 3] {
    let quantile = |q: f64, needed: u64| {
        let of = histogram.filter(|histogram| histogram.count() >= needed)?;
        of.quantile(q)
    };
    [quantile(0.5, 2), quantile(0.99, 100), histogram.and_then(Histogram::max)]
        .map(|ns| Cell::figure(ns.map(|ns| ns as f64), time))
}

impl Source for Soak {
    fn page(&mut self, _now_ns: u64) -> Result<Page, Failure> {
        self.read()?;
        let workload = self.manifest.as_ref().map_or("", |manifest| &*manifest.workload);
        let state = self.end.as_deref().unwrap_or("running");
        let title = format!("tailbeam top  run {}  {workload}  {state}", self.run);
        let Some(now) = &self.now else {
            let lines = vec!["no window is on disk yet".to_owned()];
            return Ok(Page { title, lines, ..Page::default() });
        };
        let (lines, mut notes) = (whole(now, &self.latency), Vec::new());
        let rows: Vec<Vec<Cell>> = (0..now.cores.len()).map(|place| self.row(place, now)).collect();
        let header = vec![
            "core", "agents", "busy", "parked", "spun", "delay", "turns/s", "req/s", "p50", "p99",
            "max",
        ];
        let main = Grid { title: format!("Cores, window {}", now.window), header, left: 0, rows };
        if self.attribution.is_empty() {
            notes.push(
                "spun and agents are unknown: the run does not say where its time went".to_owned(),
            );
        }
        if let Some(Reading::Missing { unknown, remedy }) =
            now.cores.first().map(|core| &core.run_delay_ns)
        {
            notes.push(format!("delay is unknown: {unknown}; {remedy}"));
        }
        Ok(Page { title, lines, main, second: self.agents(), notes })
    }

    fn over(&self) -> bool {
        self.end.is_some()
    }
}

impl Soak {
    fn row(&self, place: usize, now: &WindowRecord) -> Vec<Cell> {
        let core = &now.cores[place];
        let before = self.before.as_ref().and_then(|window| window.cores.get(place));
        let length = length(now).max(1) as f64;
        let since =
            |of: fn(&CoreRecord) -> u64| of(core).saturating_sub(before.map_or(0, of)) as f64;
        let share = |ns: Option<f64>| {
            Cell::figure(ns.map(|ns| ns * 100.0 / length), |share| format!("{share:.1} %"))
        };
        let delay = known(&core.run_delay_ns).map(|ns| {
            let before = before.and_then(|core| known(&core.run_delay_ns)).unwrap_or(0);
            ns.saturating_sub(before) as f64
        });
        let attribution = self.attribution.iter().find(|window| usize::from(window.shard) == place);
        let spun = attribution
            .map(|window| window.ticks.iter().map(|tick| tick.spun_ns).sum::<u64>() as f64);
        let histogram = self.latency.iter().find(|(of, _)| usize::from(*of) == place);
        let histogram = histogram.map(|(_, histogram)| histogram);
        let requests = histogram.map_or(0, Histogram::count) as f64;
        let rate = |n: f64| Cell::figure(Some(n * 1e9 / length), |rate| format!("{rate:.0}"));
        let number = |n: u64| Cell { text: count(n), value: Some(n as f64) };
        let mut row = vec![
            Cell { text: core.core.to_string(), value: Some(core.core as f64) },
            number(core.agents),
            share(Some(since(|core| core.busy_ns))),
            share(Some(since(|core| core.parked_ns))),
            share(spun),
            share(delay),
            rate(since(|core| core.turns)),
            rate(requests),
        ];
        row.extend(figures(histogram));
        row
    }

    fn agents(&self) -> Option<Grid> {
        let mut all: Vec<_> =
            self.attribution.iter().flat_map(|window| &window.top_service).collect();
        if all.is_empty() {
            return None;
        }
        all.sort_by_key(|agent| std::cmp::Reverse(agent.weight));
        let rows = all
            .iter()
            .take(AGENTS_MAX)
            .map(|agent| {
                let ns = agent.weight as f64;
                vec![Cell::name(agent.agent.to_string()), Cell::figure(Some(ns), time)]
            })
            .collect();
        let title = "Agents by time in their service, last window".to_owned();
        Some(Grid { title, header: vec!["agent", "service"], left: 1, rows })
    }
}

/// Figures of all cores together.
fn whole(now: &WindowRecord, latency: &[(u16, Histogram)]) -> Vec<String> {
    let mut counts = SecondCounts::default();
    now.seconds.iter().for_each(|second| counts.merge(&second.counts));
    let seconds = length(now).max(1) as f64 / 1e9;
    let rate = |n: u64| format!("{:.0}", n as f64 / seconds);
    let outcomes = &counts.outcomes;
    let last = now.seconds.last();
    let mut all = Histogram::new();
    latency.iter().for_each(|(_, histogram)| all.merge(histogram));
    let [p50, p99, max] = figures(Some(&all));
    let rss = known(&now.rss_bytes);
    vec![
        format!(
            "{} attempts/s, {} ok/s, {} open, {} agents, rss {}",
            rate(outcomes.attempts),
            rate(outcomes.ok),
            last.map_or_else(|| "unknown".to_owned(), |second| count(second.open_end)),
            last.map_or_else(|| "unknown".to_owned(), |second| count(second.live_agents)),
            rss.map_or_else(|| "unknown".to_owned(), |rss| bytes(rss as f64))
        ),
        format!(
            "system latency p50 {} p99 {} max {} of {} requests in {seconds:.0} s; not ok: {} expired, {} refused, {} lost, {} error",
            p50.text,
            p99.text,
            max.text,
            count(all.count()),
            count(outcomes.expired),
            count(outcomes.refused),
            count(outcomes.lost),
            count(outcomes.error)
        ),
    ]
}
