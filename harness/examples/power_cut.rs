//! The two sides of a power cut, for `.ci/powercut`:
//!
//! `power_cut write DIR` records windows into a store in DIR, says each on stdout once it is synced, and goes on
//! until it is killed or its file system is; `power_cut unsynced DIR` says them without having synced them. `power_cut check DIR SAID` reads what is left: every window that was
//! said is there, at most one more; then it continues the run, and reads it whole.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use tailbeam_harness::drive::Resume;
use tailbeam_harness::drive::synthetic::Synthetic;
use tailbeam_harness::evidence::{Health, Store, check, read_run};
use tailbeam_harness::plan::Plan;
use tailbeam_harness::report::{self, EpochEnd, Measured};

type Failure = Box<dyn std::error::Error>;

/// Requests per virtual second: little, so that windows come fast.
const PER_S: u64 = 200;
/// Small, so that cuts meet the change from one to the next.
const SEGMENT_BYTES: u64 = 200_000;
/// Windows of the epoch after the cut.
const MORE: u32 = 3;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", dir] => write(Path::new(dir), true),
        ["unsynced", dir] => write(Path::new(dir), false),
        ["check", dir, said] => checked(Path::new(dir), said.parse()?),
        _ => Err("power_cut write|unsynced DIR | power_cut check DIR WINDOWS_SAID".into()),
    }
}

fn plan() -> Plan {
    Plan { agents: 200, duration_ns: 30 * 24 * 3_600_000_000_000, ..Plan::soak("synthetic") }
}

fn write(dir: &Path, syncs: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let mut run =
        Synthetic::create(&Store::open(dir)?, plan(), "first boot")?.segments_of(SEGMENT_BYTES);
    if !syncs {
        run = run.unsynced();
    }
    writeln!(out, "begun")?;
    loop {
        if let Some(window) = run.second(PER_S)? {
            // A machine without power says nothing. The ioctl leaves us running, and once in 20 cuts a window was said
            // that was not there (kernel 6.18): as we read it, a sync under way while the journal is aborted answers
            // that all is well, which is not proven. A sync that begins after the cut is refused, so that one which
            // succeeds shows that the window's own was over in time.
            File::open(run.dir())?.sync_all()?;
            writeln!(out, "window {window}")?;
            out.flush()?;
        }
    }
}

/// What must hold; said in words where it does not.
fn must(holds: bool, what: impl Into<String>) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

fn checked(dir: &Path, said: usize) -> Result<(), Failure> {
    let store = Store::open(dir)?;
    let path = store.resolve("@last")?;
    let before = read_run(&path)?;
    let found = before.windows.len();
    must(
        (said..=said + 1).contains(&found),
        format!("{said} windows were said, {found} are there"),
    )?;
    let resume = Resume::open(&path)?;
    must(Resume::open(&path).is_err(), "two hold the run")?;
    must(resume.epochs()[0].windows as usize == found, "a window went with the tail")?;
    let mut run = Synthetic::resume(resume, "second boot", 7_200)?.segments_of(SEGMENT_BYTES);
    let mut left = MORE;
    while left > 0 {
        left -= u32::from(run.second(PER_S)?.is_some());
    }
    let path = run.finish()?;
    let after = read_run(&path)?;
    must(
        after.windows[..found.saturating_sub(1)] == before.windows[..found.saturating_sub(1)],
        "a window changed",
    )?;
    must(after.windows.len() == found + MORE as usize + 1, "a window is missing")?;
    let health = check(&path);
    must(health.health == Health::Whole, format!("{health:?}"))?;
    let report = report::build(&path, None)?;
    let again = report::build(&path, None)?;
    must(report == again, "replaying changes the report")?;
    let outcomes = report.load.outcomes.known().ok_or("no outcomes")?;
    must(outcomes.attempts == outcomes.sum(), format!("{outcomes:?} does not add up"))?;
    let epochs = &report.epochs;
    must(epochs.rows.len() == 2 && epochs.rows[0].end == EpochEnd::Power, format!("{epochs:?}"))?;
    let Measured::Known(gap_s) = epochs.unmeasured_s else {
        return Err("the gap is not stated".into());
    };
    println!(
        "said {said} kept {found} torn {} open {} gap {gap_s:.1} s segments {} verdict {:?}",
        epochs.rows[1].cut_bytes, epochs.rows[0].open_at_cut, health.segments, report.verdict
    );
    Ok(())
}
