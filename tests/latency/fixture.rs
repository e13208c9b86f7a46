//! A run directory made by hand: two cores, six windows of 10 s, requests whose stamps are known. One in
//! fifty waits 5 ms for a turn of agent 17 on core 3; all else takes microseconds. Everything adds up.

use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tailbeam_harness::evidence::records::{
    CostPair, CostSecond, EndRecord, LoweredRecord, Manifest, Reading, SecondRecord, UnitCosts,
    UnknownThing, WindowRecord, kind,
};
use tailbeam_harness::load::{SecondCounts, Series};
use tailbeam_harness::plan::Plan;
use tailbeam_probes::analyse::latency::{StageTable, stages, system_ns};
use tailbeam_probes::record::SegmentWriter;
use tailbeam_probes::record::latency::{
    CoreTick, Count, CounterRecord, Exemplar, LatencyWindow, Leg, LegSum, LongTurn, Off,
    PollCounts, ResponderSums, Stamps, Sums, TopAgent, Why,
};
use tailbeam_probes::stats::Histogram;

pub(crate) const SECOND: u64 = 1_000_000_000;
/// Monotonic start of the run.
pub(crate) const START: u64 = 1_000 * SECOND;
/// Requests of a core in a window.
const REQUESTS: u64 = 500;
const WINDOWS: u32 = 6;
pub(crate) const CORES: [u64; 2] = [1, 3];

/// Of one window: what each core recorded, and the histograms.
pub(crate) struct Window {
    pub(crate) cores: Vec<LatencyWindow>,
    pub(crate) system: Vec<Histogram>,
    pub(crate) cost: Vec<CostPair>,
    pub(crate) lowered: Vec<LoweredRecord>,
}

/// A whole run, to be changed before it is written.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) manifest: Manifest,
    pub(crate) windows: Vec<Window>,
    /// Frames that are written instead of a core's stages, by window and shard.
    pub(crate) broken: Vec<(u32, u16, Vec<u8>)>,
    pub(crate) sealed: bool,
    /// Spans of the saturated phase.
    pub(crate) saturated: Vec<CostPair>,
}

/// A second of two cores with so much CPU time and so many requests.
fn cost_second(cpu_ns: u64, requests: u64) -> CostSecond {
    CostSecond { len_ns: SECOND, cpu_ns, requests, mean_ns: 104_000.0, p99_ns: 5_001_000.0 }
}

/// Seconds beside each other; with measuring 20 to 28 ms more of two cores, about 1.2 %.
pub(crate) fn pair(k: u64) -> CostPair {
    CostPair {
        on: cost_second(680_000_000 + k * 2_000_000, 1_000),
        off: cost_second(660_000_000 + k * 400_000, 1_001),
    }
}

#[allow(dead_code, reason = "shared by test binaries that need different parts")]
/// Spans in which both cores are busy; with measuring 3 to 5 % fewer replies.
pub(crate) fn saturated_pair(k: u64) -> CostPair {
    CostPair {
        on: cost_second(1_990_000_000, 950_000 + k * 4_000),
        off: cost_second(1_995_000_000, 1_000_000),
    }
}

/// The stamps of request `i` of a core in a window: 20 us apart from each other in what they do.
fn stamps(window: u32, shard: u16, i: u64) -> Stamps {
    let intended =
        START + u64::from(window) * 10 * SECOND + i * 19_000_000 + u64::from(shard) * 7_000;
    let slow = i % 50 == 49;
    let sent = intended + 200 + i % 7 * 10;
    let published = sent + 400;
    let seen = published + 1_500 + i % 11 * 100;
    let turn = seen + if slow { 5_000_000 } else { 900 + i % 5 * 50 };
    let answered = turn + 2_400;
    let back = Leg {
        published_ns: answered + 300,
        seen_ns: answered + 1_900,
        aside_ns: 0,
        turn_ns: answered + 2_500,
    };
    Stamps {
        intended_ns: intended,
        sent_ns: sent,
        out: Leg { published_ns: published, seen_ns: seen, aside_ns: 0, turn_ns: turn },
        polls: 1,
        service_ns: 2_400,
        answered_ns: answered,
        back,
        closed_ns: back.turn_ns + 60,
        ..Stamps::default()
    }
}

fn exemplar(why: Why, shard: u16, i: u64, stamps: Stamps) -> Exemplar {
    let counts = PollCounts {
        cpu_ns: Some(2_390),
        allocations: Some(3),
        allocated_bytes: Some(96),
        ..PollCounts::default()
    };
    Exemplar {
        why,
        asker: u32::try_from(i).unwrap() + 100 * u32::from(shard),
        responder: 40 + u32::from(shard),
        asker_shard: shard,
        responder_shard: 1 - shard,
        stamps,
        counts: (why == Why::Uniform).then_some(counts),
    }
}

fn tick(from: u64, k: u64) -> CoreTick {
    let counter = |name: &str, count: Count| CounterRecord { name: name.to_owned(), count };
    CoreTick {
        from_ns: from + k * SECOND,
        to_ns: from + (k + 1) * SECOND,
        turns_ns: 340_000_000,
        turns: 12_000,
        parked_ns: 640_000_000,
        spun_ns: 15_000_000,
        tick_ns: 5_000_000,
        counters: vec![
            counter("task-clock", Count::Exact(330_000_000)),
            counter("page-faults", if k == 0 { Count::Exact(1_200) } else { Count::Exact(10 + k) }),
            counter(
                "instructions",
                match k {
                    3 => Count::Rough(700_000, 400),
                    _ => Count::Scaled(1_000_000, 950),
                },
            ),
            counter("cycles", Count::Unknown("ENOENT: no PMU, or none that counts it".to_owned())),
        ],
        run_ns: Some(330_000_000),
        wait_ns: Some(40_000_000),
        preempted_ns: Some(30_000_000),
        blocked_ns: Some(640_000_000),
        lost: 0,
        queued: k % 3,
    }
}

fn core(window: u32, shard: u16) -> (LatencyWindow, Histogram) {
    let from = START + u64::from(window) * 10 * SECOND;
    let (mut table, mut histogram) = (StageTable::new(), Histogram::new());
    let (mut all, mut late, mut legs) = (Sums::default(), Sums::default(), [LegSum::default(); 3]);
    let (mut exemplars, mut long_turns) = (Vec::new(), Vec::new());
    for i in 0..REQUESTS {
        let of = stamps(window, shard, i);
        let (system, staged) = (system_ns(&of), stages(&of, 0));
        assert_eq!((staged.clamped, staged.disordered), (0, None));
        table.add(system, &staged.stages);
        histogram.record(system);
        all.add(system, &staged.stages);
        let spans = [
            of.out.turn_ns - of.sent_ns,
            of.answered_ns - of.out.turn_ns,
            of.closed_ns - of.answered_ns,
        ];
        for (leg, ns) in legs.iter_mut().zip(spans) {
            leg.count += 1;
            leg.ns += ns;
        }
        if i % 50 == 49 {
            late.add(system, &staged.stages);
            exemplars.push(exemplar(Why::Late, shard, i, of));
            // On the core of who answers; core 3 is shard 1.
            long_turns.push(LongTurn {
                agent: 17,
                from_ns: of.out.seen_ns - 100_000,
                len_ns: 5_100_000,
            });
        } else if i % 25 == 0 {
            exemplars.push(exemplar(Why::Uniform, shard, i, of));
        }
    }
    exemplars.push(exemplar(Why::Top, shard, 499, stamps(window, shard, 499)));
    let samples = 1_000_000_000;
    let occupancy = legs.map(|leg| leg.ns / 10);
    let window = LatencyWindow {
        window,
        shard,
        from_ns: from,
        to_ns: from + 10 * SECOND,
        buckets: table.take(),
        responders: vec![ResponderSums { shard: 1 - shard, all, late }],
        late_ns: (window > 0).then_some(1 << 20),
        exemplars,
        top_service: vec![TopAgent { agent: 17, weight: 40_000_000, error: 0, count: 9 }],
        top_late: vec![TopAgent {
            agent: 40 + u32::from(shard),
            weight: 50_000_000,
            error: 0,
            count: 10,
        }],
        long_turns,
        off: vec![Off {
            from_ns: from + SECOND,
            to_ns: from + SECOND + 20_000_000,
            preempted: true,
        }],
        ticks: (0..10).map(|k| tick(from, k)).collect(),
        occupancy,
        occupancy_samples: samples,
        self_ns: 12_000_000,
        legs,
        ..LatencyWindow::default()
    };
    (window, histogram)
}

impl Run {
    pub(crate) fn new() -> Self {
        let windows = (0..WINDOWS).map(|window| {
            let (mut one, mut two) = (core(window, 0), core(window, 1));
            // The controller samples all cores at once.
            for (sum, more) in one.0.occupancy.iter_mut().zip(std::mem::take(&mut two.0.occupancy))
            {
                *sum += more;
            }
            two.0.occupancy_samples = 0;
            // A turn is on the core of who answers.
            std::mem::swap(&mut one.0.long_turns, &mut two.0.long_turns);
            Window {
                cores: vec![one.0, two.0],
                system: vec![one.1, two.1],
                cost: (window > 0).then(|| pair(window.into())).into_iter().collect(),
                lowered: Vec::new(),
            }
        });
        let unknown = |thing: &str, unknown: &str, remedy: &str| UnknownThing {
            thing: thing.to_owned(),
            unknown: unknown.to_owned(),
            remedy: remedy.to_owned(),
        };
        let manifest = serde_json::json!({
            "id": "20261126-020000-000", "recorded_by": "0.1.0", "workload": "elicit",
            "started_unix_ns": 1_796_000_000_000_000_000u64, "start_ns": START, "plan_sha256": "",
            "cores": CORES, "limits_ns": [], "host": "kernel 6.18.0, a processor",
        });
        let mut manifest: Manifest = serde_json::from_value(manifest).unwrap();
        manifest.matrix = vec![
            "stamps: TSC, invariant".to_owned(),
            "counters: task-clock, page-faults; cycles unknown: no PMU".to_owned(),
        ];
        manifest.unknowns = vec![unknown("cycles", "no PMU", "run on bare metal")];
        manifest.clock_bound_ns = Some(50);
        manifest.units = Some(UnitCosts { turn_ns: 9.0, request_ns: 55.5, undrawn_ns: None });
        Self {
            plan: Plan::soak("elicit"),
            manifest,
            windows: windows.collect(),
            broken: Vec::new(),
            sealed: true,
            saturated: Vec::new(),
        }
    }

    /// As a run directory.
    pub(crate) fn write(mut self, dir: &Path) {
        let plan = toml::to_string_pretty(&self.plan).unwrap();
        fs::write(dir.join("plan.toml"), &plan).unwrap();
        fs::create_dir_all(dir.join("seg")).unwrap();
        let hash = Sha256::digest(plan.as_bytes());
        self.manifest.plan_sha256 = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut log = SegmentWriter::create(&dir.join("seg"), 0, 0, [0; 32]).unwrap();
        let mut frame = |kind: u16, payload: &[u8]| log.append(kind, 1, START, payload).unwrap();
        frame(kind::MANIFEST, &serde_json::to_vec(&self.manifest).unwrap());
        for (number, window) in (0u32..).zip(&self.windows) {
            for (core, histogram) in (0u16..).zip(&window.system) {
                for series in [Series::System, Series::EndToEnd] {
                    let mut payload = number.to_le_bytes().to_vec();
                    payload.extend_from_slice(&core.to_le_bytes());
                    payload.extend_from_slice(&[series as u8, 0]);
                    payload.extend_from_slice(&histogram.encode());
                    frame(kind::HISTOGRAM, &payload);
                }
            }
            for of in &window.cores {
                let broken = self.broken.iter().find(|(w, s, _)| (*w, *s) == (number, of.shard));
                let payload = broken.map_or_else(|| of.encode().unwrap(), |b| b.2.clone());
                frame(kind::LATENCY, &payload);
            }
            frame(kind::WINDOW, &serde_json::to_vec(&record(number, window)).unwrap());
        }
        if self.sealed {
            let mut counts = vec![1u8, 0, 0, 0];
            counts.extend((0..100u32).flat_map(|agent| (55 + agent % 10).to_le_bytes()));
            frame(kind::PER_AGENT, &counts);
            // Agent 17 gives most service, agent 3 waits longest and agent 99 most of all together.
            for (which, heavy) in [(2, 99), (3, 3), (4, 17)] {
                let ns =
                    |agent: u64| 1_000_000 + agent + if agent == heavy { 700_000_000 } else { 0 };
                let mut sums = vec![which, 0, 0, 0];
                sums.extend((0..100).flat_map(|agent| ns(agent).to_le_bytes()));
                frame(kind::PER_AGENT, &sums);
            }
            let saturated = std::mem::take(&mut self.saturated);
            let end = EndRecord { saturated, ..EndRecord::finished(60 * SECOND) };
            frame(kind::END, &serde_json::to_vec(&end).unwrap());
        }
        log.seal().unwrap();
    }
}

fn record(number: u32, window: &Window) -> WindowRecord {
    let closed: u64 = window.system.iter().map(Histogram::count).sum();
    let open_ns = u64::try_from(window.system.iter().map(Histogram::sum).sum::<u128>()).unwrap();
    let second = |k: u64| {
        let mut counts = SecondCounts::default();
        if k == 9 {
            (counts.closed, counts.closed_open_ns, counts.judged) = (closed, open_ns, closed);
            (counts.outcomes.attempts, counts.outcomes.ok) = (closed, closed);
        }
        SecondRecord {
            from_ns: START + (u64::from(number) * 10 + k) * SECOND,
            len_ns: SECOND,
            counts,
            live_agents: 100,
            open_sum: open_ns / 10_000,
            open_samples: 1_000_000,
            oldest_open_ns: 5_012_345,
            open_end: 0,
            open_age_ns: 0,
            issuing: true,
            cut: false,
        }
    };
    WindowRecord {
        window: number,
        seconds: (0..10).map(second).collect(),
        cores: Vec::new(),
        rss_bytes: Reading::Value(1 << 20),
        pss_bytes: Reading::Value(1 << 20),
        live_bytes: Reading::Value(1 << 20),
        cpu_ns: Reading::Value(SECOND),
        gaps: Vec::new(),
        cost: window.cost.clone(),
        lowered: window.lowered.clone(),
        stalls: None,
    }
}
