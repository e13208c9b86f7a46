//! `soak --resume`: a run whose process died, continued as a new epoch.

use std::io::Write;
use std::path::Path;

use tailbeam_harness::drive::Resume;
use tailbeam_harness::evidence::Store;
use tailbeam_harness::load::AnyWorkload;

use super::how::How;
use super::{Outcome, not_run, told, watched};
use crate::Failure;
use crate::args::{ProgressMode, Soak};

/// Goes on with the run `name` by its own plan.
pub(super) fn run(
    name: &str,
    args: &Soak,
    (workloads, root): (&[&'static dyn AnyWorkload], &Path),
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    let store = Store::open_existing(root).map_err(|error| Failure::new(1, error))?;
    let dir = store.resolve(name).map_err(|error| Failure::new(1, error))?;
    let resume = Resume::open(&dir).map_err(not_run)?;
    let wanted = &resume.plan().workload;
    let workload = workloads.iter().find(|of| of.name() == wanted).ok_or_else(|| {
        let names = workloads.iter().map(|of| of.name()).collect::<Vec<_>>().join(", ");
        Failure::new(
            2,
            format!(
                "run {name} cannot be resumed\n  cause: its workload is {wanted:?}, and this program has {names}\n  remedy: resume it with the program that has its agents"
            ),
        )
    })?;
    if args.progress != ProgressMode::None {
        let left_s = resume.left_ns() as f64 / 1e9;
        let epoch = resume.epochs().len() + 1;
        // Nothing is left to tell an unwritable stderr to.
        let _ = writeln!(err, "epoch {epoch}: {left_s:.1} s of the plan are left");
    }
    let ran = watched(How::of(args, err)?, err, |control, shown| {
        workload.resume(resume, control, shown)
    })?;
    told(&ran, args, out, err)
}
