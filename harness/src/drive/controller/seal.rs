//! The end of a run's record.

use std::path::PathBuf;

use tailbeam_probes::clock;

use super::{Logs, Measured};
use crate::drive::DriveError;
use crate::evidence::records::EndRecord;

/// Writes the last frames. The runtime has ended by now, so its own report is part of them, and what the
/// protocol's logs say when they are read again.
pub(in crate::drive) fn seal(
    mut measured: Measured,
    logs: &Logs,
    drained: bool,
    agents_panicked: u64,
) -> Result<PathBuf, DriveError> {
    measured.protocol.extend(logs.replay());
    let end = EndRecord {
        reason: measured.reason.to_owned(),
        issued_ns: measured.issued_ns,
        open_at_stop: measured.open_at_stop,
        lost: measured.lost,
        drained,
        agents_panicked,
        planted: measured.planted,
        slowed: measured.slowed,
        saturated: measured.saturated,
        protocol: measured.protocol,
    };
    let now_ns = clock::monotonic_ns();
    measured.writer.finish(now_ns, &measured.agents, &end)?;
    Ok(measured.writer.dir().to_owned())
}
