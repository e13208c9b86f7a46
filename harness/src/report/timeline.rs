//! A run over time: load by the second, latency and memory by the window, cores by the tick, and what
//! happened. Points are bounded: a longer run has longer slots, whose length is decided before the first
//! frame is read, so that a run of days takes no more memory than one of minutes.
//!
//! A slot in which nothing was measured has no figure; a line breaks there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use tailbeam_probes::record::latency::LatencyWindow;
use tailbeam_probes::stats::Histogram;

use super::curve::{Curve, Curves};
use super::latency::cpu;
use super::{CostSection, Measured, cost};
use crate::evidence::records::{Manifest, Reading, SecondRecord, WindowRecord};
use crate::evidence::{Cut, Epoch, Interval, Intervals, ReadRunError, StallsRecord};
use crate::load::Series;
use crate::plan::Plan;

/// Points of a line at most, unless the run outlives its plan.
const POINTS_MAX: u64 = 360;
/// Columns of the map of cores at most, by the number of cores: cells together.
const CELLS_MAX: u64 = 6_000;
/// Columns of that map whatever the number of cores.
const COLUMNS_MAX: u64 = 120;
/// Events kept.
const EVENTS_MAX: usize = 200;
/// Of these, turns that kept their core: they must not crowd out what is rarer.
const STALLS_MAX: usize = 50;

const SECOND: u64 = 1_000_000_000;

/// A run over time. Instants are seconds after the start, of time that was measured: see `evidence::Axis`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Timeline {
    /// Load.
    pub load: LoadLine,
    /// Latency of the requests that ended in each slot, without the planned delay.
    pub latency: LatencyLine,
    /// Memory at the end of each slot.
    pub memory: MemoryLine,
    /// Cores.
    pub cores: CoreMap,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Events for which there was no room.
    pub events_left_out: u64,
}

/// Load by slots of whole seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LoadLine {
    /// Begin of each slot.
    pub from_s: Vec<f64>,
    /// End of each.
    pub to_s: Vec<f64>,
    /// Requests that came due, per second.
    pub offered_per_s: Vec<f64>,
    /// Terminal replies, per second.
    pub served_per_s: Vec<f64>,
    /// Expired, lost, failed or refused, per second.
    pub failed_per_s: Vec<f64>,
    /// Mean number of open requests at the samples.
    pub open: Vec<Option<f64>>,
}

/// Latency by slots of whole windows; a percentile of too few values is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LatencyLine {
    /// Begin of each slot.
    pub from_s: Vec<f64>,
    /// End of each.
    pub to_s: Vec<f64>,
    /// Requests.
    pub count: Vec<u64>,
    /// Median, ns.
    pub p50_ns: Vec<Option<u64>>,
    /// 90th percentile, ns.
    pub p90_ns: Vec<Option<u64>>,
    /// 99th percentile, ns.
    pub p99_ns: Vec<Option<u64>>,
    /// Maximum, ns.
    pub max_ns: Vec<Option<u64>>,
}

/// Memory by slots of whole windows.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct MemoryLine {
    /// Begin of each slot.
    pub from_s: Vec<f64>,
    /// End of each.
    pub to_s: Vec<f64>,
    /// Resident set, bytes.
    pub rss_bytes: Vec<Option<u64>>,
    /// Live bytes of the allocator.
    pub live_bytes: Vec<Option<u64>>,
    /// Why a figure is missing, by what it is of.
    pub unknown: Vec<(String, String)>,
}

/// What the cores did, slot by slot.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct CoreMap {
    /// Begin of each slot.
    pub from_s: Vec<f64>,
    /// End of each.
    pub to_s: Vec<f64>,
    /// One row for each core.
    pub rows: Vec<CoreLine>,
}

/// One core, slot by slot; none where it was not observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CoreLine {
    /// CPU.
    pub core: u64,
    /// Share of the time in turns of agents.
    pub turns_ratio: Vec<Option<f64>>,
    /// Share of the time ready to run without the CPU.
    pub waited_ratio: Vec<Option<f64>>,
    /// Messages that waited, mean over the ticks.
    pub queued: Vec<Option<f64>>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub at_s: f64,
    /// How long; none of an instant.
    pub len_s: Option<f64>,
    /// `gap`, `stall`, `lowered`, `drain`, `epoch`.
    pub kind: String,
    /// In words.
    pub text: String,
}

/// All that is made of the windows in one pass.
pub(super) struct Made {
    pub(super) timeline: Timeline,
    pub(super) curves: Vec<Curve>,
    pub(super) cost: Measured<CostSection>,
    pub(super) plan: Plan,
}

/// Reads the run in `dir` once.
pub(super) fn build(dir: &Path) -> Result<Made, ReadRunError> {
    let mut intervals = Intervals::open(dir)?;
    let (plan, manifest) = (intervals.plan.clone(), intervals.manifest.clone());
    let mut pass = Pass::new(&plan, &manifest);
    while let Some(interval) = intervals.next() {
        pass.epoch(intervals.epochs());
        pass.interval(interval, &manifest);
    }
    // One that sealed the run and measured nothing.
    pass.epoch(intervals.epochs());
    pass.latency_slot.close(&mut pass.timeline.latency);
    pass.load.close(&mut pass.timeline.load, pass.start_ns);
    let cost = cost(&pass.slim, &plan, manifest.cores.len());
    let mut timeline = pass.timeline;
    timeline.cores = pass.cores.done(&manifest);
    Ok(Made { timeline, curves: pass.curves.done(), cost, plan })
}

/// Length of a slot, ns: the smallest multiple of `base_ns` of which `points` hold `whole_ns`.
fn slot_ns(whole_ns: u64, base_ns: u64, points: u64) -> u64 {
    let base_ns = base_ns.max(1);
    whole_ns.div_ceil(points.max(1)).div_ceil(base_ns).max(1) * base_ns
}

fn after_s(ns: u64, start_ns: u64) -> f64 {
    // To the millisecond: what is finer is the tick's own jitter.
    (ns.saturating_sub(start_ns) / 1_000_000) as f64 / 1e3
}

struct Pass {
    timeline: Timeline,
    start_ns: u64,
    /// Seconds of a slot of load.
    load_seconds: u64,
    load: LoadSlot,
    latency_slot: LatencySlot,
    cores: Cores,
    curves: Curves,
    /// What is left of the windows for the measurement of our own cost.
    slim: Vec<WindowRecord>,
    drains: bool,
    epochs: usize,
    /// End of the last window.
    end_ns: u64,
}

impl Pass {
    fn new(plan: &Plan, manifest: &Manifest) -> Self {
        let whole_ns = plan.duration_ns.saturating_add(plan.timeout_ns);
        let window_ns = plan.observe.window_ns();
        let columns = COLUMNS_MAX.min(CELLS_MAX / (manifest.cores.len() as u64).max(1)).max(8);
        let tick_ns = plan.observe.tick_ns(plan.duration_ns);
        Self {
            timeline: Timeline::default(),
            start_ns: manifest.start_ns,
            load_seconds: slot_ns(plan.duration_ns, SECOND, POINTS_MAX) / SECOND,
            load: LoadSlot::default(),
            latency_slot: LatencySlot {
                windows: slot_ns(whole_ns, window_ns, POINTS_MAX) / window_ns.max(1),
                ..LatencySlot::default()
            },
            cores: Cores {
                start_ns: manifest.start_ns,
                slot_ns: slot_ns(whole_ns, tick_ns, columns),
                cells: BTreeMap::new(),
            },
            curves: Curves::new(plan.duration_ns, manifest.start_ns),
            slim: Vec::new(),
            drains: false,
            epochs: 1,
            end_ns: manifest.start_ns,
        }
    }

    /// No point reaches over a time in which nobody measured, and that time is an event.
    fn epoch(&mut self, epochs: &[Epoch]) {
        if epochs.len() == self.epochs {
            return;
        }
        std::mem::take(&mut self.load).close(&mut self.timeline.load, self.start_ns);
        self.latency_slot.close(&mut self.timeline.latency);
        let at_ns = self.end_ns;
        for epoch in &epochs[self.epochs..] {
            let how = epoch.after.map_or(Cut::Unknown, |(cut, _)| cut).text();
            let gap = epoch.gap.map_or_else(
                || "nobody measured, it is not known for how long".to_owned(),
                |hole| format!("nobody measured for {:.1} s", hole.ns as f64 / 1e9),
            );
            let text = format!("epoch {} begins: {how}; {gap}", epoch.number);
            self.event(at_ns, None, "epoch", text);
        }
        self.epochs = epochs.len();
    }

    fn interval(&mut self, interval: Interval, manifest: &Manifest) {
        self.events(&interval.record);
        for second in &interval.record.seconds {
            self.second(second);
        }
        let mut system = Histogram::new();
        let mut end_to_end = Histogram::new();
        for (_, series, histogram) in &interval.histograms {
            match series {
                Series::System => system.merge(histogram),
                Series::EndToEnd => end_to_end.merge(histogram),
                _ => {}
            }
        }
        if let Some((from_ns, to_ns)) = interval.extent_ns() {
            self.end_ns = to_ns;
            let extent = (after_s(from_ns, self.start_ns), after_s(to_ns, self.start_ns));
            self.curves.add((from_ns, to_ns), &system, &end_to_end);
            self.latency_slot.add(extent, &system, &mut self.timeline.latency);
            memory(&mut self.timeline.memory, extent, self.latency_slot.windows, &interval.record);
        }
        for window in &interval.latency {
            self.cores.add(window, cpu(manifest, window.shard));
        }
        let WindowRecord { cost, lowered, .. } = interval.record;
        self.slim.push(slim(cost, lowered));
    }

    fn second(&mut self, second: &SecondRecord) {
        if !second.issuing {
            if !self.drains {
                self.drains = true;
                self.event(second.from_ns, None, "drain", "no more requests were due".to_owned());
            }
            return;
        }
        self.load.add(second);
        if self.load.added >= self.load_seconds {
            let load = std::mem::take(&mut self.load);
            load.close(&mut self.timeline.load, self.start_ns);
        }
    }

    fn events(&mut self, record: &WindowRecord) {
        for gap in &record.gaps {
            let text = format!("{} {:.1} s", gap.cause, gap.len_ns as f64 / 1e9);
            self.event(gap.from_ns, Some(gap.len_ns), "gap", text);
        }
        let listed =
            |stalls: &StallsRecord| stalls.found.saturating_sub(stalls.longest.len() as u64);
        self.timeline.events_left_out += record.stalls.as_ref().map_or(0, listed);
        for stall in record.stalls.iter().flat_map(|stalls| &stalls.longest) {
            let owner = stall.owner();
            let text = format!("core {}: {owner} kept it from all others", stall.core);
            let known = self.timeline.events.iter().filter(|event| event.kind == "stall").count();
            if known < STALLS_MAX {
                self.event(stall.since_ns, Some(stall.lasted_ns), "stall", text);
            } else {
                self.timeline.events_left_out += 1;
            }
        }
        for step in &record.lowered {
            let share = step.share * 100.0;
            let text =
                format!("measuring took {share:.2} % of a core: from {} to {}", step.from, step.to);
            self.event(step.at_ns, None, "lowered", text);
        }
    }

    fn event(&mut self, at_ns: u64, len_ns: Option<u64>, kind: &str, text: String) {
        if self.timeline.events.len() >= EVENTS_MAX {
            self.timeline.events_left_out += 1;
            return;
        }
        self.timeline.events.push(Event {
            at_s: after_s(at_ns, self.start_ns),
            len_s: len_ns.map(|ns| ns as f64 / 1e9),
            kind: kind.to_owned(),
            text,
        });
    }
}

/// Seconds that are not yet a point.
#[derive(Default)]
struct LoadSlot {
    added: u64,
    from_ns: Option<u64>,
    to_ns: u64,
    len_ns: u64,
    offered: u64,
    served: u64,
    failed: u64,
    open: (u64, u64),
}

impl LoadSlot {
    fn add(&mut self, second: &SecondRecord) {
        let o = &second.counts.outcomes;
        self.added += 1;
        self.from_ns.get_or_insert(second.from_ns);
        self.to_ns = second.from_ns.saturating_add(second.len_ns);
        self.len_ns += second.len_ns;
        self.offered += o.attempts;
        self.served += o.ok + o.declined;
        self.failed += o.expired + o.lost + o.error + o.refused;
        self.open.0 += second.open_sum;
        self.open.1 += second.open_samples;
    }

    fn close(self, line: &mut LoadLine, start_ns: u64) {
        let Some(from_ns) = self.from_ns.filter(|_| self.len_ns > 0) else { return };
        let per_s = |count: u64| count as f64 / (self.len_ns as f64 / 1e9);
        line.from_s.push(after_s(from_ns, start_ns));
        line.to_s.push(after_s(self.to_ns, start_ns));
        line.offered_per_s.push(per_s(self.offered));
        line.served_per_s.push(per_s(self.served));
        line.failed_per_s.push(per_s(self.failed));
        line.open.push((self.open.1 > 0).then(|| self.open.0 as f64 / self.open.1 as f64));
    }
}

/// Windows that are not yet a point.
#[derive(Default)]
struct LatencySlot {
    /// Windows of a slot.
    windows: u64,
    added: u64,
    extent: Option<(f64, f64)>,
    system: Option<Histogram>,
}

impl LatencySlot {
    fn add(&mut self, extent: (f64, f64), system: &Histogram, line: &mut LatencyLine) {
        self.system.get_or_insert_with(Histogram::new).merge(system);
        self.extent = Some((self.extent.map_or(extent.0, |before| before.0), extent.1));
        self.added += 1;
        if self.added >= self.windows {
            self.close(line);
        }
    }

    fn close(&mut self, line: &mut LatencyLine) {
        self.added = 0;
        let (Some((from_s, to_s)), Some(system)) = (self.extent.take(), self.system.take()) else {
            return;
        };
        // A percentile of fewer values than its rank needs is only the maximum.
        let quantile = |q: f64| {
            let needed = (1.0 / (1.0 - q)).round();
            system.quantile(q).filter(|_| system.count() as f64 >= needed)
        };
        line.from_s.push(from_s);
        line.to_s.push(to_s);
        line.count.push(system.count());
        line.p50_ns.push(quantile(0.5));
        line.p90_ns.push(quantile(0.9));
        line.p99_ns.push(quantile(0.99));
        line.max_ns.push(system.max());
    }
}

/// The last reading of a slot stands for it.
fn memory(line: &mut MemoryLine, extent: (f64, f64), windows: u64, record: &WindowRecord) {
    let mut value = |name: &str, reading: &Reading| match reading {
        Reading::Value(value) => Some(*value),
        Reading::Missing { unknown, remedy } => {
            if line.unknown.iter().all(|(known, _)| known != name) {
                line.unknown.push((name.to_owned(), format!("{unknown}; {remedy}")));
            }
            None
        }
    };
    let rss = value("rss_bytes", &record.rss_bytes);
    let live = value("live_bytes", &record.live_bytes);
    if u64::from(record.window).is_multiple_of(windows.max(1)) || line.to_s.is_empty() {
        line.from_s.push(extent.0);
        line.to_s.push(extent.1);
        line.rss_bytes.push(rss);
        line.live_bytes.push(live);
    } else {
        set_last(&mut line.to_s, extent.1);
        set_last(&mut line.rss_bytes, rss);
        set_last(&mut line.live_bytes, live);
    }
}

fn set_last<T>(list: &mut [T], value: T) {
    if let Some(last) = list.last_mut() {
        *last = value;
    }
}

fn slim(
    cost: Vec<crate::evidence::records::CostPair>,
    lowered: Vec<crate::evidence::records::LoweredRecord>,
) -> WindowRecord {
    WindowRecord {
        window: 0,
        seconds: Vec::new(),
        cores: Vec::new(),
        rss_bytes: Reading::Value(0),
        pss_bytes: Reading::Value(0),
        live_bytes: Reading::Value(0),
        cpu_ns: Reading::Value(0),
        gaps: Vec::new(),
        cost,
        lowered,
        stalls: None,
    }
}

/// Ticks by core and slot.
struct Cores {
    start_ns: u64,
    slot_ns: u64,
    cells: BTreeMap<(u64, u64), Cell>,
}

#[derive(Clone, Copy)]
struct Cell {
    wall_ns: u64,
    turns_ns: u64,
    waited_ns: Option<u64>,
    queued: u64,
    ticks: u64,
}

impl Default for Cell {
    fn default() -> Self {
        Self { wall_ns: 0, turns_ns: 0, waited_ns: Some(0), queued: 0, ticks: 0 }
    }
}

impl Cores {
    fn add(&mut self, window: &LatencyWindow, core: u64) {
        for tick in &window.ticks {
            // A tick belongs to the slot that holds its last ns.
            let slot = tick.to_ns.saturating_sub(self.start_ns + 1) / self.slot_ns;
            let cell = self.cells.entry((core, slot)).or_default();
            cell.wall_ns += tick.to_ns.saturating_sub(tick.from_ns);
            cell.turns_ns += tick.turns_ns;
            cell.waited_ns = cell.waited_ns.zip(tick.wait_ns).map(|(sum, more)| sum + more);
            cell.queued += tick.queued;
            cell.ticks += 1;
        }
    }

    fn done(self, manifest: &Manifest) -> CoreMap {
        let slots = self.cells.keys().map(|(_, slot)| slot + 1).max().unwrap_or(0);
        let edge = |slot: u64| after_s(self.start_ns + slot * self.slot_ns, self.start_ns);
        let row = |&core: &u64| {
            let cells = (0..slots).map(|slot| self.cells.get(&(core, slot)));
            let cells: Vec<Option<&Cell>> =
                cells.map(|cell| cell.filter(|cell| cell.wall_ns > 0)).collect();
            let each = |of: &dyn Fn(&Cell) -> Option<f64>| {
                cells.iter().map(|cell| cell.and_then(of)).collect()
            };
            let share = |ns: u64, cell: &Cell| ns as f64 / cell.wall_ns as f64;
            CoreLine {
                core,
                turns_ratio: each(&|cell| Some(share(cell.turns_ns, cell))),
                waited_ratio: each(&|cell| cell.waited_ns.map(|ns| share(ns, cell))),
                queued: each(&|cell| Some(cell.queued as f64 / cell.ticks as f64)),
            }
        };
        CoreMap {
            from_s: (0..slots).map(edge).collect(),
            to_s: (1..=slots).map(edge).collect(),
            rows: if slots == 0 { Vec::new() } else { manifest.cores.iter().map(row).collect() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_whole_and_bounded() {
        assert_eq!(slot_ns(60 * SECOND, SECOND, 360), SECOND);
        assert_eq!(slot_ns(72 * 3_600 * SECOND, 10 * SECOND, 360), 720 * SECOND);
        assert_eq!(slot_ns(361 * SECOND, SECOND, 360), 2 * SECOND);
        assert_eq!(slot_ns(0, 0, 0), 1);
    }

    #[test]
    fn a_slot_of_latency_holds_whole_windows_and_too_few_values_have_no_percentile() {
        let (mut line, mut slot) =
            (LatencyLine::default(), LatencySlot { windows: 2, ..LatencySlot::default() });
        let mut few = Histogram::new();
        (1..=50).for_each(|ns| few.record(ns * 1_000));
        for at in [0.0, 10.0, 20.0] {
            slot.add((at, at + 10.0), &few, &mut line);
        }
        slot.close(&mut line);
        slot.close(&mut line);
        assert_eq!((line.from_s, line.to_s), (vec![0.0, 20.0], vec![20.0, 30.0]));
        assert_eq!(line.count, [100, 50]);
        assert_eq!(line.p99_ns.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
        assert_eq!(line.max_ns, [Some(50_000), Some(50_000)]);
    }

    #[test]
    fn what_a_core_did_not_tell_has_no_figure() {
        let tick = |slot: u64, wait_ns| tailbeam_probes::record::latency::CoreTick {
            from_ns: slot * 10,
            to_ns: slot * 10 + 10,
            turns_ns: 4,
            wait_ns,
            queued: 3,
            ..Default::default()
        };
        let mut cores = Cores { start_ns: 0, slot_ns: 10, cells: BTreeMap::new() };
        let ticks = vec![tick(0, Some(1)), tick(2, None)];
        cores.add(&LatencyWindow { ticks, ..LatencyWindow::default() }, 7);
        let cell = |slot| cores.cells.get(&(7, slot)).map(|cell| (cell.turns_ns, cell.waited_ns));
        assert_eq!([cell(0), cell(1), cell(2)], [Some((4, Some(1))), None, Some((4, None))]);
    }
}
