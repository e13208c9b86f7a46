//! Days in compressed time: run directories of thousands of windows, written as a run writes them, with a planted
//! degradation and without one; the report must tell which is which, from the frames alone.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "synthetic figures, all positive and small"
)]

use std::fs;
use std::path::Path;

use sha2::Digest as _;
use tailbeam_harness::evidence::records::{
    EndRecord, FRAME_VERSION, Manifest, Reading, SecondRecord, WindowRecord, kind,
};
use tailbeam_harness::load::SecondCounts;
use tailbeam_harness::plan::Plan;
use tailbeam_harness::report::{Report, build};
use tailbeam_harness::verdict::{GateVerdict, Outcomes, parse_gates};
use tailbeam_probes::record::SegmentWriter;
use tailbeam_probes::stats::Histogram;

const WINDOW_NS: u64 = 10_000_000_000;
/// Requests of a window: enough for its P99.
const REQUESTS: u64 = 300;

/// xorshift64* with Box and Muller's normal.
struct Rng(u64);

impl Rng {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// What a window is: factors of latency, replies and CPU time at so many hours.
type Shape = fn(f64) -> (f64, f64, f64);

fn manifest(plan: &str) -> Manifest {
    Manifest {
        id: "20261126-000000-000".to_owned(),
        recorded_by: "test".to_owned(),
        workload: "elicit".to_owned(),
        started_unix_ns: 0,
        start_ns: 0,
        plan_sha256: sha2::Sha256::digest(plan).iter().map(|byte| format!("{byte:02x}")).collect(),
        cores: vec![0],
        limits_ns: Vec::new(),
        host: "none".to_owned(),
        no_heap: None,
        matrix: Vec::new(),
        stamps: String::new(),
        clock_bound_ns: None,
        unknowns: Vec::new(),
        units: None,
        began: None,
    }
}

fn window(number: u32, replies: u64, cpu_ns: u64) -> WindowRecord {
    let outcomes = Outcomes { attempts: replies, ok: replies, ..Outcomes::default() };
    let bytes = || Reading::Value(1 << 20);
    WindowRecord {
        window: number,
        seconds: vec![SecondRecord {
            from_ns: u64::from(number) * WINDOW_NS,
            len_ns: WINDOW_NS,
            counts: SecondCounts { outcomes, ..SecondCounts::default() },
            live_agents: 10_000,
            open_sum: 0,
            open_samples: 0,
            oldest_open_ns: 0,
            open_end: 0,
            open_age_ns: 0,
            issuing: true,
            cut: false,
        }],
        cores: Vec::new(),
        rss_bytes: bytes(),
        pss_bytes: bytes(),
        live_bytes: bytes(),
        cpu_ns: Reading::Value(cpu_ns),
        gaps: Vec::new(),
        cost: Vec::new(),
        lowered: Vec::new(),
        stalls: None,
    }
}

/// Writes a run of `windows` windows whose noise remembers (AR(1), 0.6, 3 %).
fn write(dir: &Path, windows: u32, shape: Shape) {
    let plan = toml::to_string_pretty(&Plan::soak("elicit")).unwrap();
    fs::write(dir.join("plan.toml"), &plan).unwrap();
    fs::create_dir(dir.join("seg")).unwrap();
    let mut segment = SegmentWriter::create(&dir.join("seg"), 0, 0, [0; 32]).unwrap();
    let mut append =
        |kind, payload: &[u8]| segment.append(kind, FRAME_VERSION, 0, payload).unwrap();
    append(kind::MANIFEST, &serde_json::to_vec(&manifest(&plan)).unwrap());
    let (mut rng, mut noise, mut cpu_ns) = (Rng(0x5eed), 0.0, 0u64);
    let mut system = Histogram::new();
    for number in 0..windows {
        let (latency, replies, cpu) = shape(f64::from(number) / 360.0);
        noise = 0.6f64.mul_add(noise, 0.8 * rng.normal());
        let level = 100_000.0 * latency * (1.0 + 0.03 * noise);
        system.clear();
        (0..REQUESTS).for_each(|_| system.record((level * (1.0 - rng.unit().ln())) as u64));
        let answered = (REQUESTS as f64 * replies * (1.0 + 0.01 * rng.normal())) as u64;
        cpu_ns += (answered as f64 * 20_000.0 * cpu * (1.0 + 0.02 * rng.normal())) as u64;
        let mut payload = number.to_le_bytes().to_vec();
        payload.extend_from_slice(&[0, 0, 0, 0]);
        payload.extend(system.encode());
        append(kind::HISTOGRAM, &payload);
        append(kind::WINDOW, &serde_json::to_vec(&window(number, answered, cpu_ns)).unwrap());
    }
    let end = EndRecord::finished(u64::from(windows) * WINDOW_NS);
    append(kind::END, &serde_json::to_vec(&end).unwrap());
    segment.seal().unwrap();
}

fn judged(windows: u32, shape: Shape) -> Report {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), windows, shape);
    let report = build(dir.path(), Some(&parse_gates("degradation").unwrap())).unwrap();
    assert!(report.run.damage.is_empty(), "{:?}", report.run.damage);
    report
}

/// The verdict of the gate and its words.
fn gate(report: &Report) -> (GateVerdict, String) {
    (report.gates[0].verdict, format!("{}: {}", report.gates[0].measured, report.gates[0].reason))
}

#[test]
fn a_day_that_stays_as_it_is_passes() {
    let report = judged(8_640, |_| (1.0, 1.0, 1.0));
    let (verdict, words) = gate(&report);
    assert_eq!(verdict, GateVerdict::Pass, "{words} {:#?}", report.degradation);
    assert_eq!(report.degradation.len(), 4);
}

#[test]
fn ten_per_cent_a_day_fail_in_whichever_series_they_are() {
    let shapes: [(&str, Shape); 3] = [
        ("p50", |hours| (1.0 + 0.1 * hours / 24.0, 1.0, 1.0)),
        ("throughput", |hours| (1.0, 1.0 - 0.1 * hours / 24.0, 1.0)),
        ("cpu_per_request", |hours| (1.0, 1.0, 1.0 + 0.1 * hours / 24.0)),
    ];
    for (series, shape) in shapes {
        let (verdict, words) = gate(&judged(8_640, shape));
        assert_eq!(verdict, GateVerdict::Fail, "{series}: {words}");
        assert!(words.contains(series), "{series}: {words}");
    }
}

#[test]
fn a_step_is_told_with_its_onset_and_half_an_hour_says_nothing() {
    let report =
        judged(8_640, |hours| if hours < 15.0 { (1.0, 1.0, 1.0) } else { (1.2, 1.0, 1.0) });
    let (verdict, words) = gate(&report);
    assert_eq!(verdict, GateVerdict::Fail, "{words}");
    let step = report.degradation[0].found.changes.first().expect("a step in the median");
    assert!(step.from_h - 0.5 < 15.0 && 15.0 < step.to_h + 0.5, "{step:?}");
    assert!((step.by - 0.2).abs() < 0.05, "{step:?}");
    let short = judged(180, |_| (1.0, 1.0, 1.0));
    assert_eq!(gate(&short).0, GateVerdict::Inconclusive);
    assert!(short.gates[0].needs_more_s.is_some_and(|s| s > 600.0), "{:?}", short.gates[0]);
    let none = judged(6, |_| (1.0, 1.0, 1.0));
    assert_eq!(gate(&none).0, GateVerdict::Inconclusive);
}
