//! The heap of a run: sampled into the run directory, with copies of its state on the way.

use std::fs;
use std::path::{Path, PathBuf};

use tailbeam_probes::Unavailable;
use tailbeam_probes::collect::heap::{HeapConfig, HeapError, HeapSession, name_owner, start};

use crate::evidence::HEAP_STATE;
use crate::load::owner_of;
use crate::plan::Plan;

const MINUTE_NS: u64 = 60_000_000_000;
/// When a copy of the state is kept, minutes after the start: what grew since can be asked for later. At most
/// 12 copies of at most 16 MB.
const KEPT: [u64; 12] = [1, 10, 30, 60, 120, 240, 480, 720, 1_440, 2_160, 2_880, 4_320];

/// Copies that a run of this length keeps.
pub(super) fn copies(length_ns: u64) -> u64 {
    KEPT.iter().filter(|&&minutes| minutes * MINUTE_NS <= length_ns).count() as u64
}

/// The heap of a run.
pub(super) struct Heap {
    session: Option<HeapSession>,
    dir: PathBuf,
    kept: usize,
    operations: u64,
}

impl Heap {
    /// Starts to sample; says why it does not, if it does not.
    pub(super) fn start(dir: &Path, plan: &Plan, unix_ns: u64) -> (Self, Option<Unavailable>) {
        let begun = begin(dir, plan, unix_ns);
        let (session, why) = match begun {
            Ok(session) => (Some(session), None),
            Err(why) => (None, Some(why)),
        };
        if session.is_some() {
            name(plan);
        }
        (Self { session, dir: dir.to_owned(), kept: 0, operations: 0 }, why)
    }

    /// Takes the census of a second in which so many requests were answered.
    /// Returns what is worth a line.
    pub(super) fn tick(&mut self, now_ns: u64, answered: u64) -> Option<String> {
        let session = self.session.as_ref()?;
        self.operations += answered;
        session.operations(self.operations);
        session.tick(now_ns);
        let age_ns = session.now_ns();
        if KEPT.get(self.kept).is_none_or(|minutes| age_ns < minutes * MINUTE_NS) {
            return None;
        }
        self.kept += 1;
        let copy = format!("heap-at-{}s.tbh", age_ns / 1_000_000_000);
        // A copy less is a question less that can be asked later: the run goes on.
        let copied = fs::copy(self.dir.join(HEAP_STATE), self.dir.join(&copy));
        copied.err().map(|error| format!("{copy} was not kept: {error}"))
    }
}

fn begin(dir: &Path, plan: &Plan, unix_ns: u64) -> Result<HeapSession, Unavailable> {
    if plan.heap.sample_bytes == 0 {
        return Err(unavailable("the plan samples no heap", "give --heap-sample 64KiB"));
    }
    let config = HeapConfig {
        mean_bytes: plan.heap.sample_bytes,
        command: format!("{} of {} agents", plan.workload, plan.agents),
        // Draws differ from run to run, as the schedule does not.
        seed: unix_ns | 1,
        ..HeapConfig::new(dir.join(HEAP_STATE))
    };
    start(&config).map_err(|error| match error {
        HeapError::NoAllocator => unavailable(
            "TailbeamAlloc is not this program's global allocator",
            "#[global_allocator] static A: TailbeamAlloc = TailbeamAlloc;",
        ),
        error => unavailable(&error.to_string(), "mend the cause and run again"),
    })
}

fn unavailable(cause: &str, remedy: &str) -> Unavailable {
    Unavailable { source: "heap sampler", cause: cause.to_owned(), remedy: remedy.to_owned() }
}

/// Agents are shown by their index; only the tag of the first is another number.
fn name(plan: &Plan) {
    let agents = u32::try_from(plan.agents).unwrap_or(u32::MAX);
    name_owner(owner_of(0, agents), "agent 0");
}
