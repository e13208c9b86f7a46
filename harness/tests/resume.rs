//! Runs that are cut anywhere and continued, with synthetic requests: what is on disk stays, what is not is stated.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use tailbeam_harness::drive::synthetic::Synthetic;
use tailbeam_harness::drive::{self, Control, DriveErrorKind, Resume};
use tailbeam_harness::evidence::{Health, Store, check, read_run};
use tailbeam_harness::load::Elicit;
use tailbeam_harness::plan::Plan;
use tailbeam_harness::report::{self, EpochEnd, Measured, Report, whole};
use tailbeam_harness::verdict::{GateResult, GateVerdict, Overall, parse_gates};

/// No multiple of the samples in a second: what keeps step with them is sampled badly.
const PER_S: u64 = 397;

fn plan(seconds: u64) -> Plan {
    Plan {
        agents: 40,
        duration_ns: seconds * 1_000_000_000,
        gates: parse_gates("p99<300ms,delivery>=99%,outcomes,littles_law").unwrap(),
        ..Plan::soak("synthetic")
    }
}

fn seconds(run: &mut Synthetic, count: u64) {
    for _ in 0..count {
        let _ = run.second(PER_S).unwrap();
    }
}

/// A run whose process died after so many seconds.
fn died(store: &Path, length_s: u64, after_s: u64) -> PathBuf {
    let mut run = Synthetic::create(&Store::open(store).unwrap(), plan(length_s), "a").unwrap();
    seconds(&mut run, after_s);
    run.dir().to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Goes on for what is left, and seals.
fn finished(dir: &Path, boot: &str, off_s: u64) -> Report {
    let resume = Resume::open(dir).unwrap();
    let left_s = resume.left_ns() / 1_000_000_000;
    let mut run = Synthetic::resume(resume, boot, off_s).unwrap();
    seconds(&mut run, left_s);
    run.finish().unwrap();
    let report = report::build(dir, None).unwrap();
    assert_eq!(report, report::build(dir, None).unwrap(), "replayed, it is the same");
    report
}

/// Every request of the windows on disk has an end, and is counted once.
fn adds_up(dir: &Path, report: &Report) {
    let outcomes = report.load.outcomes.known().unwrap();
    assert_eq!(outcomes.attempts, outcomes.sum(), "{outcomes:?}");
    assert_eq!(report.latency[0].count, outcomes.ok, "no histogram of a window that was cut");
    let checked = check(dir);
    assert_eq!(checked.health, Health::Whole, "{checked:?}");
    let stages = report::latency::build(dir, &report::latency::Question::default()).unwrap();
    assert_eq!(stages.requests.banded, outcomes.ok, "nor its stages");
}

#[test]
fn a_run_torn_anywhere_in_its_last_window_loses_that_window_and_nothing_else() {
    let store = tempfile::tempdir().unwrap();
    let dir = died(&store.path().join("a"), 40, 30);
    let segment = |dir: &Path| dir.join("seg/0000.log");
    let bytes = fs::read(segment(&dir)).unwrap();
    let two = {
        let short = died(&store.path().join("b"), 40, 20);
        fs::metadata(segment(&short)).unwrap().len()
    };
    let length = bytes.len() as u64;
    assert!(two < length);
    // 60 places, the last byte among them; at each the frames before it are whole.
    let places = (0..60).map(|n| length - 1 - n * (length - two) / 60);
    for (n, at) in places.enumerate() {
        let torn = store.path().join(format!("torn-{n}"));
        copy(&dir, &torn);
        fs::write(segment(&torn), &bytes[..usize::try_from(at).unwrap()]).unwrap();
        let before = read_run(&torn).unwrap();
        assert!(before.end.is_none() && before.windows.len() == 2, "torn at {at}");
        let report = finished(&torn, "b", 100);
        adds_up(&torn, &report);
        let after = read_run(&torn).unwrap();
        assert_eq!(after.windows[0], before.windows[0], "what was there stays");
        assert_eq!(report.epochs.rows[0].end, EpochEnd::Power);
        assert!((report.run.measured_s - 40.0).abs() < 1e-6, "{}", report.run.measured_s);
        assert_eq!(report.epochs.unmeasured_s, Measured::Known(80.0), "torn at {at}");
    }
}

#[test]
fn many_epochs_are_one_run_on_one_axis() {
    let store = tempfile::tempdir().unwrap();
    let dir = died(store.path(), 300, 45);
    for (number, (boot, off_s)) in
        [("a", 1_000), ("b", 90_000), ("b", 95_000)].into_iter().enumerate()
    {
        let resume = Resume::open(&dir).unwrap();
        assert_eq!(resume.epochs().len(), number + 1);
        seconds(&mut Synthetic::resume(resume, boot, off_s).unwrap(), 55);
    }
    // The wall clock was set back to the begin, on another boot.
    let report = finished(&dir, "c", 0);
    adds_up(&dir, &report);
    let rows = &report.epochs.rows;
    let ends: Vec<EpochEnd> = rows.iter().map(|row| row.end).collect();
    use EpochEnd::{Killed, Power, Sealed};
    assert_eq!(ends, [Killed, Power, Killed, Power, Sealed]);
    let windows: Vec<u64> = rows.iter().map(|row| row.windows).collect();
    assert_eq!(windows[..4], [4, 5, 5, 5], "a cut takes the window that was open");
    assert!((report.run.measured_s - 300.0).abs() < 1e-6, "the plan is measured whole");
    assert_eq!(rows[1].unmeasured_before_s, Measured::Known(960.0));
    assert_eq!(rows[3].unmeasured_before_s, Measured::Known(4_950.0));
    assert!(rows[4].unmeasured_before_s.known().is_none(), "the clock went backwards: unknown");
    assert!(report.epochs.unmeasured_s.known().is_none(), "and so is the sum, not less");
    let run = read_run(&dir).unwrap();
    let edges = run.windows.windows(2).all(|pair| {
        let (before, after) = (pair[0].seconds.last().unwrap(), &pair[1].seconds[0]);
        before.from_ns + before.len_ns == after.from_ns
    });
    assert!(edges, "the axis has no hole, whatever the clocks said");
    let cpu = |at: usize| run.windows[at].cpu_ns.clone();
    assert!((1..run.windows.len()).all(|at| known(&cpu(at)) >= known(&cpu(at - 1))), "sums go on");
    // Everything that a page shows, of a machine that was off for a day: as many points as of a run.
    let whole = whole(&dir, None).unwrap();
    let timeline = whole.timeline.known().unwrap();
    assert_eq!(timeline.events.iter().filter(|event| event.kind == "epoch").count(), 4);
    assert!(timeline.load.to_s.iter().all(|to_s| *to_s <= 301.0), "{:?}", timeline.load.to_s);
    // What can be judged of 300 s is; the gate of the tail wants 30 blocks of a minute, however many the pieces.
    assert_eq!(report.verdict, Overall::Inconclusive);
    let verdict = |gate: &GateResult| (gate.gate == "p99", gate.blocks, gate.verdict);
    let (tail, others): (Vec<_>, Vec<_>) =
        report.gates.iter().map(verdict).partition(|(tail, ..)| *tail);
    assert_eq!(tail, [(true, Some(5), GateVerdict::Inconclusive)]);
    assert!(others.iter().all(|(.., of)| *of == GateVerdict::Pass), "{:?}", report.gates);
}

fn known(reading: &tailbeam_harness::evidence::records::Reading) -> u64 {
    match reading {
        tailbeam_harness::evidence::records::Reading::Value(value) => *value,
        missing => panic!("{missing:?}"),
    }
}

#[test]
fn a_run_whose_plan_is_on_disk_is_sealed_without_a_load() {
    let store = tempfile::tempdir().unwrap();
    let dir = died(store.path(), 40, 40);
    let resume = Resume::open(&dir).unwrap();
    assert_eq!(resume.left_ns(), 0);
    let sealed = drive::resume::<Elicit>(resume, &Control::default(), &mut |_| {}).unwrap();
    assert_eq!(sealed, dir);
    let report = report::build(&dir, None).unwrap();
    adds_up(&dir, &report);
    let outcomes = report.load.outcomes.known().unwrap();
    assert!(
        outcomes.open_at_stop > 0 && report.epochs.rows[0].open_at_cut == outcomes.open_at_stop
    );
    assert_eq!((report.epochs.rows.len(), report.epochs.rows[1].windows), (2, 0));
    let whole = whole(&dir, None).unwrap();
    let events = &whole.timeline.known().unwrap().events;
    assert!(events.iter().any(|event| event.kind == "epoch" && event.at_s == 40.0), "{events:?}");
}

#[test]
fn what_was_synced_and_is_damaged_is_not_continued() {
    let store = tempfile::tempdir().unwrap();
    let dir = died(store.path(), 60, 40);
    let path = dir.join("seg/0000.log");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 4;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = Resume::open(&dir).unwrap_err();
    assert_eq!(refused.kind(), DriveErrorKind::Damaged);
    assert!(refused.to_string().contains("synced frames follow"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was changed");
}

#[test]
fn one_process_holds_a_run_and_a_sealed_one_is_nobodys() {
    let store = tempfile::tempdir().unwrap();
    let dir = died(store.path(), 60, 25);
    let held = Resume::open(&dir).unwrap();
    assert!(Resume::open(&dir).unwrap_err().to_string().contains("another process"));
    drop(held);
    drop(finished(&dir, "a", 100));
    let sealed = Resume::open(&dir).unwrap_err();
    assert_eq!(sealed.kind(), DriveErrorKind::Usage);
    assert!(sealed.to_string().contains("it was sealed as finished"), "{sealed}");
}
