//! The report: plain values, recomputed from a run directory and from nothing else.
//!
//! [`build`] reads the frozen plan and the frames; it never talks to a running system. A figure that
//! was not measured is [`Measured::Unknown`] with its cause and remedy, never 0. Rendering is the
//! command line's business.

mod availability;
mod budget;
mod build;
mod cost;
pub mod counters;
mod curve;
mod degradation;
mod epochs;
mod figures;
mod growth;
pub mod latency;
mod leaks;
mod percentile;
mod stalls;
mod timeline;
mod whole;

pub use budget::{BudgetRow, Burn};
pub use build::{ReportError, build};
pub use cost::{CostModel, CostSection, LoweredStep, OwnCost, SaturatedSection, Signed, cost};
pub use curve::Curve;
pub use degradation::DegradationRow;
pub use epochs::{EpochEnd, EpochRow, EpochsSection, UNBROKEN};
pub use growth::{Growth, OwnMemory};
pub use leaks::leak_config;
pub use stalls::{StallRow, StallsSection};
pub use timeline::{CoreLine, CoreMap, Event, LatencyLine, LoadLine, MemoryLine, Timeline};
pub use whole::{Whole, whole};

use serde::{Deserialize, Serialize};

use crate::evidence::records::CountRecord;
use crate::verdict::{GateResult, Outcomes, Overall, Validity};

/// Name of the JSON document that `report --format json` prints.
pub const SCHEMA: &str = "tailbeam.report";
/// Version of that document; additive changes keep it.
pub const SCHEMA_VERSION: u32 = 1;

/// A figure, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Measured<T> {
    /// It was measured.
    Known(T),
    /// It was not measured.
    Unknown {
        /// What prevented it.
        unknown: String,
        /// What the reader can do about it.
        remedy: String,
    },
}

impl<T> Measured<T> {
    /// An unknown value with its cause and remedy.
    pub fn unknown(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unknown { unknown: cause.into(), remedy: remedy.into() }
    }

    /// The value, when there is one.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }
}

/// A figure that older documents do not have.
fn unsaid<T>() -> Measured<T> {
    Measured::unknown("the document does not say", "write it anew")
}

/// Everything a reader of one run may want to see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Identity and extent of the run.
    pub run: RunIdentity,
    /// Its parts, and how long nobody measured between them.
    #[serde(default)]
    pub epochs: EpochsSection,
    /// Things to know before believing a figure; empty is good.
    pub caveats: Vec<String>,
    /// The agents.
    pub agents: AgentsSection,
    /// Offered and served load.
    pub load: LoadSection,
    /// What the protocol's own parts counted (owners, desks, boxes, log), over all cores; empty for workloads
    /// without, and for runs that were not sealed. Times in ns.
    #[serde(default)]
    pub protocol: Vec<CountRecord>,
    /// What could be measured when the run was recorded.
    pub measured: latency::Recorded,
    /// Where the time of the slowest requests went.
    pub attribution: Measured<latency::Attribution>,
    /// What measuring cost.
    pub own_cost: OwnCost,
    /// Latency series: first `system`, then `end_to_end`, `lateness` and the stages.
    pub latency: Vec<LatencyRow>,
    /// Little's law over the whole run.
    pub littles_law: Measured<LittleSection>,
    /// Per-core figures.
    pub cores: Vec<CoreRow>,
    /// Turns that kept a core from all others.
    #[serde(default = "stalls::not_recorded")]
    pub stalls: Measured<StallsSection>,
    /// Memory of the process.
    pub memory: MemorySection,
    /// Whether it got worse while it ran, by series.
    pub degradation: Vec<DegradationRow>,
    /// Gates, in the order asked for.
    pub gates: Vec<GateResult>,
    /// What of the gates' budgets was spent, and how fast.
    #[serde(default)]
    pub budgets: Vec<BudgetRow>,
    /// Validity checks.
    pub validity: Vec<Validity>,
    /// GO / NO-GO / INCONCLUSIVE.
    pub verdict: Overall,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// The planned duration was reached and the run sealed.
    Finished,
    /// A signal ended it; what was measured is sealed.
    Interrupted,
    /// No end record: the process died, and the window that was open then is missing.
    Unsealed,
}

/// Identity and extent of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Run id, also the directory's name.
    pub id: String,
    /// Workload name.
    pub workload: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// Tailbeam version that recorded it.
    pub recorded_by: String,
    /// Seed of every draw.
    pub seed: u64,
    /// Planned duration, s.
    pub planned_s: f64,
    /// Measured duration, s (windows on disk).
    pub measured_s: f64,
    /// The same with the drain, s: what CPU times are over.
    pub whole_s: f64,
    /// Windows on disk.
    pub windows: u64,
    /// How it ended.
    pub end: RunEnd,
    /// Frames read.
    pub frames: u64,
    /// Damage found while reading, in words.
    pub damage: Vec<String>,
    /// Host line: kernel, CPU model.
    pub host: String,
}

/// The agents of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentsSection {
    /// Asked for.
    pub asked: u64,
    /// Smallest live count over all samples.
    pub live_min: Measured<u64>,
    /// Largest live count over all samples.
    pub live_max: Measured<u64>,
    /// Number of samples of the live count.
    pub live_samples: u64,
    /// Bytes of runtime memory (slot, state, cells, timers) per agent.
    pub bytes_per_agent: Measured<f64>,
    /// Resident bytes of the process per agent.
    pub rss_per_agent: Measured<f64>,
    /// Spread of completed requests per agent.
    pub completions: Measured<Spread>,
    /// Spread of attempts per agent.
    pub attempts: Measured<Spread>,
    /// Share of the requests that both are of, where it is not all: of an epoch that was cut the last are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_share: Option<f64>,
}

/// Spread of a count over the agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Agents counted.
    pub agents: u64,
    /// Smallest count.
    pub min: u64,
    /// 1st percentile.
    pub p1: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest count.
    pub max: u64,
    /// Mean.
    pub mean: f64,
    /// Agents with none at all.
    pub zero: u64,
}

/// Offered and served load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadSection {
    /// Requests per second that the plan's schedule asks for.
    pub planned_per_s: f64,
    /// Attempts per second.
    pub offered_per_s: Measured<f64>,
    /// Terminal replies per second.
    pub served_per_s: Measured<f64>,
    /// All outcomes; their sum equals the attempts or the outcome gate fails. In a run that was not sealed
    /// `open_at_stop` is what was open at the end of the last window.
    pub outcomes: Measured<Outcomes>,
    /// Refusals because the agent's bound on open requests was reached (part of `refused`).
    pub refused_open_bound: Measured<u64>,
    /// Answers that found the asker's mailbox or ring full (the request then expires).
    pub answers_undelivered: Measured<u64>,
    /// Terminal replies within the deadline / (attempts - refused).
    pub delivery: Measured<f64>,
    /// Oldest unanswered request seen at any sample, ns.
    pub oldest_open_ns: Measured<u64>,
}

/// One latency series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyRow {
    /// `system`, `end_to_end`, `lateness`, `request_path`, `response_timer` or `reply_path`.
    pub series: String,
    /// Values recorded.
    pub count: u64,
    /// Values above the histogram's range (in `count` too).
    pub overflow: u64,
    /// Exact mean, ns.
    pub mean_ns: Measured<f64>,
    /// Percentiles, ns; unknown when the count is too small for the rank.
    pub p50_ns: Measured<u64>,
    /// 90th.
    pub p90_ns: Measured<u64>,
    /// 99th.
    pub p99_ns: Measured<u64>,
    /// 99.9th.
    pub p999_ns: Measured<u64>,
    /// Exact maximum, ns.
    pub max_ns: Measured<u64>,
}

/// Little's law: throughput x mean time open against the number outstanding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LittleSection {
    /// Requests that were open at some time, per second of the run, its drain included.
    pub throughput_per_s: f64,
    /// Mean time from send to close, or to the end of the run, s.
    pub mean_open_s: f64,
    /// Mean number outstanding, sampled.
    pub mean_outstanding: f64,
    /// throughput x mean time / outstanding.
    pub ratio: f64,
    /// Samples of the number outstanding.
    pub samples: u64,
    /// Half-width of the ratio's 95 % interval, from the distance between samples.
    pub error95: f64,
}

/// One core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreRow {
    /// CPU number.
    pub core: u64,
    /// Agents at the end.
    pub agents: u64,
    /// CPU time of the shard's thread, kernel included / wall time.
    pub cpu_share: Measured<f64>,
    /// Of that, looking on for work that had not come.
    pub spun_share: Measured<f64>,
    /// Share of the time between sleeps; without the kernel's part of sleeping and waking up.
    pub busy_share: Measured<f64>,
    /// Share of the time ready to run while another thread had the CPU.
    pub waited_share: Measured<f64>,
    /// Of that, at least this share went to other programs: what is left when all CPU time of our own
    /// housekeeping is taken off.
    pub outside_share: Measured<f64>,
    /// Agent turns per second.
    pub turns_per_s: Measured<f64>,
    /// Doorbells rung per second.
    pub doorbells_per_s: Measured<f64>,
    /// io_uring_enter calls per second.
    pub enters_per_s: Measured<f64>,
    /// Largest lateness of a timer, ns.
    pub timer_late_max_ns: u64,
    /// Agents that panicked.
    pub panicked: u64,
    /// Messages whose target was gone.
    pub dead_letters: u64,
}

/// Memory of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemorySection {
    /// Resident set at the first window, bytes.
    pub rss_first_bytes: Measured<u64>,
    /// Resident set at the last window, bytes.
    pub rss_last_bytes: Measured<u64>,
    /// Largest of all windows, bytes.
    pub rss_max_bytes: Measured<u64>,
    /// Proportional set at the last window, bytes.
    pub pss_last_bytes: Measured<u64>,
    /// Allocator live bytes at the last window.
    pub live_last_bytes: Measured<u64>,
    /// Slope of the resident set.
    #[serde(default = "unsaid")]
    pub rss_growth: Measured<Growth>,
    /// Slope of what lives in the allocator.
    #[serde(default = "unsaid")]
    pub live_growth: Measured<Growth>,
    /// What of the heap no agent owns.
    #[serde(default = "unsaid")]
    pub own: Measured<OwnMemory>,
    /// Bytes of the store's disk that were held for the run from the start of its last epoch.
    #[serde(default = "unsaid")]
    pub disk_held: Measured<u64>,
    /// CPU time of the process over the run / wall time x cores.
    pub cpu_share: Measured<f64>,
    /// CPU time of the process per terminal reply, ns.
    pub cpu_per_request_ns: Measured<f64>,
    /// Of that, the part of everything but the shards.
    pub housekeeping_share: Measured<f64>,
}
