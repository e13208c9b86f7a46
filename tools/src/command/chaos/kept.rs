//! What is kept of a subject that is over: its slots, beside the record; its logs only where they may tell something.

use std::fs;
use std::path::Path;

use tailbeam_harness::chaos::record::{FaultRecord, SubjectRecord};
use tailbeam_harness::chaos::series::slots_file;
use tailbeam_harness::chaos::slots;

use super::stage::Stage;

/// Takes the logs of a subject away: they have been read, and are kept only where something that they should show does
/// not hold.
pub(super) fn take_away(
    home: &Path,
    subject: &SubjectRecord,
    done: &[FaultRecord],
) -> Result<(), String> {
    let trials = done.iter().flat_map(|of| &of.trials).flat_map(|trial| &trial.checks);
    if subject.checks.iter().chain(trials).any(|check| check.holds != Some(true)) {
        return Ok(());
    }
    fs::remove_dir_all(home).map_err(|error| format!("{}: {error}", home.display()))
}

/// Writes the slots beside the record.
pub(super) fn keep(stage: &Stage<'_>, scenario: &str, subject: usize) -> Result<(), String> {
    let path = stage.setting.dir.join(slots_file(scenario, subject));
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = std::io::BufWriter::new(fs::File::create(&path).map_err(failed)?);
    slots::write(&stage.axis.cells, &mut file).map_err(failed)?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}
