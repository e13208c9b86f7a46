//! The verdict of a real run whose evidence was changed: a stage that was dropped or counted twice, a ring that was
//! lost, a window that is gone. Each is NO-GO and says where it does not fit; the clean twin passes.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod common;

use std::fs;
use std::path::Path;

use common::{Ran, largest, plan, run};
use tailbeam_harness::evidence::records::kind;
use tailbeam_harness::report::{self, Report};
use tailbeam_harness::verdict::{Gate, GateResult, GateVerdict, Overall};
use tailbeam_probes::record::latency::{LatencyWindow, Stage, Sums, Why};
use tailbeam_probes::record::{SegmentWriter, read_dir};

const GATES: [Gate; 1] = [Gate::Conservation {}];

/// A copy of the run in which each core's windows are changed; `None`: that one is left out.
fn changed(ran: &Ran, change: impl Fn(LatencyWindow) -> Option<LatencyWindow>) -> Report {
    let to = tempfile::tempdir().unwrap();
    fs::copy(ran.dir.join("plan.toml"), to.path().join("plan.toml")).unwrap();
    let segments = to.path().join("seg");
    fs::create_dir(&segments).unwrap();
    let (frames, damage) = read_dir(&ran.dir.join("seg")).unwrap();
    assert!(damage.is_empty());
    let mut log = SegmentWriter::create(&segments, 0, 0, [0; 32]).unwrap();
    for frame in frames {
        let payload = match frame.kind {
            kind::LATENCY => {
                let window = LatencyWindow::decode(&frame.payload).unwrap();
                change(window).map(|window| window.encode().unwrap())
            }
            _ => Some(frame.payload),
        };
        if let Some(payload) = payload {
            log.append(frame.kind, frame.version, frame.mono_ns, &payload).unwrap();
        }
    }
    log.seal().unwrap();
    judged(to.path())
}

fn judged(dir: &Path) -> Report {
    report::build(dir, Some(&GATES)).unwrap()
}

fn gate(report: &Report) -> &GateResult {
    assert_eq!(report.gates[0].gate, "conservation");
    &report.gates[0]
}

/// All sums of a window that hold stages.
fn sums(window: &mut LatencyWindow) -> impl Iterator<Item = &mut Sums> {
    let buckets = window.buckets.iter_mut().map(|bucket| &mut bucket.sums);
    buckets.chain(window.responders.iter_mut().flat_map(|of| [&mut of.all, &mut of.late]))
}

fn fails(report: &Report, place: &str) {
    let gate = gate(report);
    assert_eq!(gate.verdict, GateVerdict::Fail, "{gate:?}");
    assert!(gate.reason.starts_with("FAIL conservation: "), "{gate:?}");
    assert!(gate.reason.contains(place), "{place:?} is not in {gate:?}");
    assert_eq!((report.verdict, report.verdict.exit_code()), (Overall::NoGo, 3));
}

#[test]
fn evidence_that_does_not_add_up_is_no_go_and_says_where() {
    let Some(ran) = run(&plan(300, 6)) else { return };
    let clean = judged(&ran.dir);
    assert_eq!(gate(&clean).verdict, GateVerdict::Pass, "the clean twin: {:?}", gate(&clean));
    let copied = changed(&ran, Some);
    assert_eq!(copied.gates, clean.gates, "a copy is judged alike");
    let stage = largest(&ran.total().stages);
    let of_stage = |change: fn(&mut u64)| {
        changed(&ran, |mut window| {
            sums(&mut window).for_each(|sums| change(&mut sums.stages[stage.index()]));
            Some(window)
        })
    };
    let named = format!("in {}", stage.name());
    fails(&of_stage(|ns| *ns = 0), &named);
    fails(&of_stage(|ns| *ns *= 2), &named);
    let lost = changed(&ran, |mut window| {
        window.ticks.iter_mut().for_each(|tick| tick.lost = 3);
        Some(window)
    });
    fails(&lost, "records of switches were lost");
    let gone = changed(&ran, |window| Some(window).filter(|w| (w.window, w.shard) != (2, 0)));
    fails(&gone, "in window 2");
    // Stamps that are exchanged put every request out of order; some single ones leave it open.
    let disordered = |share: u64| {
        changed(&ran, |mut window| {
            let all: u64 = window.buckets.iter().map(|bucket| bucket.sums.count).sum();
            window.disordered += all / share;
            Some(window)
        })
    };
    let verdict = |report: &Report| gate(report).verdict;
    assert_eq!(verdict(&disordered(2)), GateVerdict::Fail);
    let unstaged = changed(&ran, |_| None);
    let (verdict, reason) = (gate(&unstaged).verdict, &gate(&unstaged).reason);
    assert_eq!(verdict, GateVerdict::Inconclusive, "{reason}");
    assert!(reason.contains("without stages"), "{reason}");
}

#[test]
fn a_stage_that_lost_what_it_had_in_one_band_is_named_there() {
    let Some(ran) = run(&plan(300, 6)) else { return };
    // Only the slowest buckets: all requests together hide it.
    let slow = changed(&ran, |mut window| {
        let stage = |sums: &Sums| largest(&sums.stages);
        if let Some(bucket) = window.buckets.last_mut() {
            let stage: Stage = stage(&bucket.sums);
            bucket.sums.stages[stage.index()] = 0;
        }
        Some(window)
    });
    fails(&slow, "");
}

/// Above a rate only some have stages. Each is counted, as late as all, and late ones are kept whole besides.
#[test]
fn the_stages_of_one_request_in_four_stand_for_all() {
    let mut plan = plan(300, 6);
    plan.observe.staged_every = Some(4);
    let Some(ran) = run(&plan) else { return };
    // Of the samples of legs nothing is asked here: on crowded cores whoever samples stops the handler that it sees.
    let clean = judged(&ran.dir);
    let reason = &gate(&clean).reason;
    assert!(["drawn", "attributed", "stages"].iter().all(|of| !reason.contains(of)), "{reason}");
    let (drawn, others) = ran.windows.iter().fold((0, 0), |(drawn, others), window| {
        let held: u64 = window.buckets.iter().map(|bucket| bucket.sums.count).sum();
        (drawn + held, others + window.more.undrawn.count)
    });
    let share = drawn as f64 / (drawn + others) as f64;
    assert!((0.2..0.3).contains(&share), "{drawn} of {}", drawn + others);
    let late = ran.windows.iter().filter(|window| window.late_ns.is_some());
    let kept = |window: &LatencyWindow| {
        window.exemplars.iter().filter(|of| of.why == Why::Late).count() as u64
    };
    let (kept, drawn_late) = late.fold((0, 0), |(all, drawn), window| {
        let late: u64 = window.responders.iter().map(|of| of.late.count).sum();
        (all + kept(window) + window.late_left_out, drawn + late)
    });
    assert!(kept > 2 * drawn_late, "{kept} late ones, {drawn_late} of them drawn");
    let other = changed(&ran, |mut window| {
        window.more.staged_every = 2;
        Some(window)
    });
    fails(&other, "requests with stages = requests drawn");
    let lost = changed(&ran, |mut window| {
        window.more.undrawn.count -= u64::from(window.window == 2);
        Some(window)
    });
    fails(&lost, "requests attributed = requests counted");
}
