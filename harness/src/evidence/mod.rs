//! Run directories: the only source of truth. Written append-only by the drive, read back by reports.
//!
//! | file | holds |
//! |---|---|
//! | `plan.toml` | the frozen plan; its SHA-256 stands in the first frame |
//! | `host.json` | the host as described at the start |
//! | `seg/NNNN.log` | checksummed frames, see [`records::kind`] |
//! | `record.json` | in runs of `record`: what ran and how it ended, see [`Recorded`] |
//! | | of such a run the frames are those of `tailbeam_probes::record::program`, see [`ProgramLog`] |
//! | `../marks.json` | tags and pins of the store's runs, beside them: see [`Marks`] |
//! | `heap.tbh` | state of the heap sampler, written in place; `heap-at-Ns.tbh`: copies after N seconds |
//! | `waits.json` | handlers that wait and wakers that are out at the end, see [`Waits`] |
//! | `heap-epoch-N.tbh` | the state of epoch N, once another epoch has followed; its copies: `heap-epoch-N-at-Ns.tbh` |
//! | `heap-PID.tbh` | the same for other processes of a run of `record --heap`; `heap-PID.refused`: why one has none |

mod check;
mod documents;
mod epoch;
mod intervals;
mod latency;
mod marks;
mod program;
mod read;
mod recorded;
pub mod records;
pub(crate) mod so_far;
mod stalls;
mod store;
mod time;
mod waits;

pub use check::{Checked, Finding, Health, check};
pub use documents::{DOCUMENT, Documents};
pub use epoch::{Axis, Began, Cut, Epoch, EpochRecord, Hole, seed_of};
pub use intervals::{Interval, Intervals};
pub use latency::read_latency;
pub use marks::{Mark, Marks, TagError};
pub use program::{Following, ProgramLog, ProgramLogError, ProgramRun, is_program, read_program};
pub use read::{AgentNumbers, ReadRunError, RunFrames, WindowLatency, read_plan, read_run};
pub use recorded::{Ending, RECORD_VERSION, Recorded};
pub use stalls::{StallRecord, StallsRecord};
pub use store::{RunSummary, Store, StoreError};
pub use time::{rfc3339, rfc3339_ms};
pub use waits::{LateRecord, WAITS, WAITS_VERSION, WaitKind, WaitRecord, Waits};

/// The heap sampler's state in a run directory.
pub const HEAP_STATE: &str = "heap.tbh";

/// The name of the state of an epoch, of so many.
#[must_use]
pub fn heap_state(epoch: u32, epochs: u32) -> String {
    if epoch < epochs { format!("heap-epoch-{epoch}.tbh") } else { HEAP_STATE.to_owned() }
}

/// SHA-256 in lower-case hex, as `sha256sum` prints it.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
