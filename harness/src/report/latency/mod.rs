//! Where the time of a run's requests went: plain values, recomputed from the run directory.
//!
//! Percentiles of stages do not add up to a percentile of the whole, so none are given: a band of the
//! distribution has the mean of each stage over its requests, and these add up to its mean latency. That
//! they do is checked against the askers' own clock reads, and the residual stands beside the sum.

mod agents;
mod bands;
mod build;
mod cores;
mod fleet;
mod outliers;

pub use build::{LatencyError, Question, Range, build, build_with_fleet, check};
pub(crate) use build::{attribution, identity, recorded};
pub(crate) use cores::cpu;
pub use fleet::{Between, LastSeen, Links, Throttled};

use serde::{Deserialize, Serialize};

use super::{LatencyRow, LittleSection, Measured, OwnCost, Spread};
use tailbeam_probes::record::latency::{Stage, Sums};

/// Name of the JSON document that `latency --format json` prints.
pub const SCHEMA: &str = "tailbeam.latency";
/// Version of that document; additive changes keep it.
pub const SCHEMA_VERSION: u32 = 1;

/// Name of a stage in documents: that of reports, as one word.
#[must_use]
pub fn stage_name(stage: Stage) -> String {
    stage.name().replace(' ', "_")
}

/// Everything that `tailbeam latency` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// Which run, and which part of it.
    pub run: LatencyRun,
    /// What could be measured when it was recorded, and why the rest is unknown.
    pub host: Recorded,
    /// Things to know before believing a figure; empty is good.
    pub caveats: Vec<String>,
    /// Requests and what became of their stamps.
    pub requests: Requests,
    /// What a CPU quota did to the process.
    #[serde(default = "uncounted")]
    pub throttled: Measured<Throttled>,
    /// What faulty links between cores did to messages.
    #[serde(default = "uncounted")]
    pub links: Measured<Links>,
    /// Where requests were last seen to which no answer came.
    #[serde(default = "uncounted")]
    pub last_seen: Measured<LastSeen>,
    /// Percentiles with their counts: system latency, then end to end.
    pub series: Vec<LatencyRow>,
    /// Throughput x mean time open against the number outstanding.
    pub littles_law: Measured<LittleSection>,
    /// Age of the oldest unanswered request at any sample, ns.
    pub oldest_open_ns: Measured<u64>,
    /// Completed requests per agent, of the whole run.
    pub completions: Measured<Spread>,
    /// All requests.
    pub all: Composition,
    /// Bands of the distribution, fast to slow.
    pub bands: Vec<Band>,
    /// What was compared with what, and whether it holds.
    pub conservation: Conservation,
    /// The cores.
    pub cores: Vec<CoreLatency>,
    /// The kinds of agent that answered.
    pub types: Vec<TypeLatency>,
    /// Agents by time in their service, then by lateness of the requests that they answered.
    pub agents: WorstAgents,
    /// Slow requests, the slowest first.
    pub outliers: Vec<Outlier>,
    /// What measuring cost.
    pub own_cost: OwnCost,
}

fn uncounted<T>() -> Measured<T> {
    Measured::unknown("the report was made before this was counted", "make a new one of the run")
}

/// Which run, and which part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyRun {
    /// Run id.
    pub id: String,
    /// Workload.
    pub workload: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// Host line: kernel, CPU model.
    pub host: String,
    /// Tailbeam version that recorded it.
    pub recorded_by: String,
    /// Windows that these figures are of.
    pub windows: u64,
    /// Windows on disk.
    pub windows_on_disk: u64,
    /// First instant of those windows, s after the start.
    pub from_s: f64,
    /// Last instant of them, s after the start.
    pub to_s: f64,
    /// CPUs of the shards.
    pub cores: Vec<u64>,
}

/// What held when the run was recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The matrix: by area, what was measured and what was not.
    pub matrix: Vec<MatrixRow>,
    /// What is unknown, why, and what would change it.
    pub unknown: Vec<UnknownThing>,
}

/// A row of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixRow {
    /// `stamps`, `counters`, `off-cpu`, ...
    pub area: String,
    /// What was measured, then what was not and why.
    pub text: String,
}

/// Something that was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownThing {
    /// What.
    pub thing: String,
    /// Cause.
    pub unknown: String,
    /// What to do.
    pub remedy: String,
}

/// Requests and what became of their stamps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// In the bands below.
    pub banded: u64,
    /// One request in so many is: drawn before it was sent, each with the same chance; 1 is each.
    #[serde(default = "each")]
    pub staged_every: u64,
    /// Given up at their deadline in these windows; their latency is their age then.
    pub expired: u64,
    /// In the histogram of system latency.
    pub in_histogram: u64,
    /// Differences of stamps that were negative within the clock's bound and taken as 0.
    pub clamped: u64,
    /// Requests whose stamps were out of order beyond it: in no band.
    pub disordered: u64,
    /// Windows of cores in which nothing was recorded although the run went on.
    pub missing_windows: u64,
}

const fn each() -> u64 {
    1
}

/// Mean time in one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageMean {
    /// Stage.
    pub stage: String,
    /// Mean over the requests of the group, ns.
    pub mean_ns: f64,
    /// Of the sum of all stages; 0 where that is 0.
    pub share: f64,
}

/// Where the time of a group of requests went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Composition {
    /// Requests.
    pub count: u64,
    /// Mean system latency by the askers' own clock reads, ns; unknown of no request.
    pub mean_ns: Measured<f64>,
    /// Every stage in its order; empty for no request.
    pub stages: Vec<StageMean>,
    /// Sum of the stages, ns.
    pub sum_ns: f64,
    /// Measured less sum, ns.
    pub residual_ns: f64,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Holds {
    /// It adds up.
    Ok,
    /// It does not.
    Fail,
    /// There is not enough to say.
    Unknown,
}

/// A band of the distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// `p50-p90`, ...
    pub name: String,
    /// Share of the requests: `rank_to` less `rank_from`.
    pub share: f64,
    /// Share of all requests that are quicker; bands are cut between buckets, near the ranks that name them.
    pub rank_from: f64,
    /// Share of all requests that are in it or quicker.
    pub rank_to: f64,
    /// System latency from here on, ns.
    pub from_ns: u64,
    /// And below; unknown above the largest bucket.
    pub below_ns: Measured<u64>,
    /// Largest system latency of an answered request in it, ns; known where the band is the last.
    pub max_ns: Measured<u64>,
    /// Where the time went.
    pub composition: Composition,
    /// The comparison of its sum with its latency.
    pub check: Option<Check>,
    /// What its requests waited behind.
    pub causes: Measured<Causes>,
}

/// What the report of a whole run says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// The slowest band that has requests.
    pub band: Band,
    /// Whether everything adds up.
    pub holds: Holds,
    /// Comparisons that do not, in words.
    pub failed: Vec<String>,
}

/// One comparison of what is independent of each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What with what.
    pub name: String,
    /// Verdict.
    pub holds: Holds,
    /// Unit of the figures: `ns`, `requests`, `windows`.
    pub unit: String,
    /// The first of the two; where there is anything to compare.
    pub left: Option<f64>,
    /// The second.
    pub right: Option<f64>,
    /// How far they may be apart.
    pub allowed: Option<f64>,
    /// How many requests, ticks or windows they are from.
    pub n: u64,
    /// Where it does not fit, in words; when it fails.
    pub misfit: Option<String>,
    /// Why the comparison could not be made, and what would make it possible.
    pub unknown: Option<UnknownThing>,
}

impl Check {
    /// The first less the second.
    #[must_use]
    pub fn residual(&self) -> Option<f64> {
        Some(self.left? - self.right?)
    }
}

/// All comparisons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conservation {
    /// FAIL when one fails; UNKNOWN when none does and one cannot be said.
    pub holds: Holds,
    /// By how much two clocks of the run may differ, ns.
    pub clock_ns: Measured<u64>,
    /// One by one; of long runs the worst hour of each.
    pub checks: Vec<Check>,
}

/// A core: the requests that it answered, and what its thread did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreLatency {
    /// CPU.
    pub core: u64,
    /// All requests that its agents answered.
    pub all: Composition,
    /// Those above the latency that the window before had at its 99th percentile.
    pub late: Composition,
    /// Wall time of its ticks, ns.
    pub wall_ns: Measured<u64>,
    /// In turns of agents, ns.
    pub turns_ns: Measured<u64>,
    /// Looked for work, ns.
    pub spun_ns: Measured<u64>,
    /// Parked for want of work, ns.
    pub parked_ns: Measured<u64>,
    /// In our own ticks, ns.
    pub tick_ns: Measured<u64>,
    /// On the CPU, by schedstat, ns.
    pub run_ns: Measured<u64>,
    /// Ready and not on it, by schedstat, ns.
    pub wait_ns: Measured<u64>,
    /// Switched away while it could run, ns.
    pub preempted_ns: Measured<u64>,
    /// Switched away in a wait, ns.
    pub blocked_ns: Measured<u64>,
    /// Records of switches that were lost.
    pub lost: u64,
    /// Long turns: how many, and together, ns.
    pub long_turns: (u64, u64),
    /// What our own measuring took, ns, by its own meters.
    pub self_ns: u64,
}

/// A kind of agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeLatency {
    /// Its name: the workload's, whose agents are all of one kind.
    pub name: String,
    /// Requests that such agents answered.
    pub all: Composition,
    /// The late ones.
    pub late: Composition,
}

/// An agent of a top list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstAgent {
    /// Index.
    pub agent: u32,
    /// CPU of its shard.
    pub core: u64,
    /// At most, ns.
    pub at_most_ns: u64,
    /// At least, ns.
    pub at_least_ns: u64,
    /// How far the two are apart: what of it may be another agent's, ns.
    pub error_ns: u64,
    /// Times that it was added to while it was in a list.
    pub count: u64,
}

/// An agent whose mailbox was full when requests were sent to it; they were handed back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullMailbox {
    /// Index.
    pub agent: u32,
    /// CPU of its shard.
    pub core: u64,
    /// Requests, at least.
    pub at_least: u64,
    /// At most.
    pub at_most: u64,
}

/// Top lists of agents: space-saving ones (Metwally et al., 2005) of the windows asked about, and the exact sums of
/// the whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstAgents {
    /// By time in their service.
    pub service: Vec<WorstAgent>,
    /// An agent that is in none of the lists had less time in its service than this, ns.
    pub service_left_out_ns: u64,
    /// By the latency of late requests that they answered.
    pub late: Vec<WorstAgent>,
    /// An agent that is in none of the lists answered late requests of less than this together, ns.
    pub late_left_out_ns: u64,
    /// The sums of each agent over the whole run, whatever part of it is asked about.
    pub exact: Measured<ExactAgents>,
    /// By requests that found their mailbox full.
    #[serde(default)]
    pub full: Vec<FullMailbox>,
}

/// Agents by exact sums of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExactAgents {
    /// Of so many agents.
    pub agents: u64,
    /// By the system latency of the requests that they made, together.
    pub system: Vec<ExactAgent>,
    /// By the largest of them.
    pub worst: Vec<ExactAgent>,
    /// By the service of the requests that they answered, together.
    pub service: Vec<ExactAgent>,
}

/// Sums of one agent over the whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExactAgent {
    /// Index.
    pub agent: u32,
    /// CPU of its shard.
    pub core: u64,
    /// Requests of its own that were answered.
    pub answered: u64,
    /// System latency of its requests together, those without an answer at their age, ns.
    pub system_ns: u64,
    /// The largest of them, ns.
    pub worst_ns: u64,
    /// Service of the requests that it answered, together, ns.
    pub service_ns: u64,
}

/// What a wait was behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Stage of the wait.
    pub stage: String,
    /// `turn`: long turns; `preempted`: off the CPU although it could run; `blocked`: in a blocking call of a
    /// turn; `asleep`: in a wait outside of any long turn; `throttled`: held by the CPU quota; `link`: held by a link
    /// between cores; `carried`: on the way to another process and back; `never_answered`: not known.
    pub what: String,
    /// Agent whose turns they were; none where it was none of the workload's, or no turn.
    pub agent: Option<u32>,
    /// CPU that was waited for.
    pub core: u64,
    /// How much of the wait, ns.
    pub ns: u64,
    /// In how many pieces.
    pub pieces: u64,
}

/// What the requests of a band waited behind, estimated from those written down whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Causes {
    /// Requests of the sample: drawn from all, and from the late ones.
    pub drawn: u64,
    /// Late ones among them.
    pub late: u64,
    /// The largest causes of its waits, longest first.
    pub waits: Vec<Blame>,
    /// Held by the CPU quota of the process, in waits and in the service, ns per request; none where nothing was.
    #[serde(default)]
    pub throttled: Option<Part>,
    /// Waits behind what is not recorded one by one (short turns, the scheduler's work, waking up), ns per
    /// request.
    pub unrecorded_ns: f64,
    /// Parts of the service: `preempted`, `blocked`, `off the CPU`, `in the allocator`, ns per request.
    pub service: Vec<Part>,
}

/// A cause of a band's waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blame {
    /// Stage of the waits.
    pub stage: String,
    /// As in [`Behind::what`].
    pub what: String,
    /// Agent whose turns they were.
    pub agent: Option<u32>,
    /// CPU that was waited for.
    pub core: u64,
    /// Mean over the band, ns per request.
    pub mean_ns: f64,
    /// Its standard error, ns.
    pub error_ns: f64,
    /// Requests of the sample that waited behind it.
    pub requests: u64,
}

/// A part of the service of a band.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub part: String,
    /// Mean over the band, per request: ns, or a count.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
    /// Requests that it is from.
    pub n: u64,
}

/// One slow request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    /// When it was to be sent, s after the start.
    pub at_s: f64,
    /// System latency, ns.
    pub system_ns: u64,
    /// Agent that asked.
    pub asker: u32,
    /// Its CPU.
    pub asker_core: u64,
    /// Agent that answered, or was to.
    pub responder: u32,
    /// Its CPU.
    pub responder_core: u64,
    /// Why it was written down: `uniform`, `late`, `top`.
    pub why: String,
    /// Whether it was answered.
    pub answered: bool,
    /// Stages that are not 0, ns, in their order.
    pub stages: Vec<(String, u64)>,
    /// What it waited behind, longest first.
    pub behind: Vec<Behind>,
    /// Of its waits, behind nothing that was recorded, ns.
    pub behind_unrecorded_ns: u64,
    /// What its service was made of, where that is known.
    pub service: ServiceParts,
    /// What its service took, where it was counted.
    pub counts: Option<ServiceCounts>,
}

/// What the service of one request was made of; what is not known has no figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceParts {
    /// Off the CPU although it could run, ns.
    pub preempted_ns: Option<u64>,
    /// Of `preempted_ns`, held by the CPU quota of the process, ns; none where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_ns: Option<u64>,
    /// In blocking calls, ns.
    pub blocked_ns: Option<u64>,
    /// Off the CPU by the thread's own CPU time, ns.
    pub off_ns: Option<u64>,
    /// In the allocator, ns.
    pub allocator_ns: Option<u64>,
    /// The agent's own code, and what of the others is not known, ns.
    pub rest_ns: u64,
}

/// What the thread's counters said over the service of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCounts {
    /// CPU time, ns.
    pub cpu_ns: Option<u64>,
    /// Page faults without I/O.
    pub minor_faults: Option<u64>,
    /// Page faults with I/O.
    pub major_faults: Option<u64>,
    /// Switches away while it could run.
    pub preemptions: Option<u64>,
    /// Switches away because it waited.
    pub blocks: Option<u64>,
    /// Allocations.
    pub allocations: Option<u64>,
    /// Bytes allocated.
    pub allocated_bytes: Option<u64>,
    /// Time in the allocator, ns.
    pub allocator_ns: Option<u64>,
}

/// The means of a group of requests.
fn composition(sums: &Sums) -> Composition {
    if sums.count == 0 {
        return Composition {
            count: 0,
            mean_ns: Measured::unknown("no request is in it", "record for longer"),
            stages: Vec::new(),
            sum_ns: 0.0,
            residual_ns: 0.0,
        };
    }
    let (count, sum) = (sums.count as f64, sums.staged_ns() as f64);
    let stages = Stage::ALL.map(|stage| {
        let ns = sums.stages[stage.index()] as f64;
        let share = if sum > 0.0 { ns / sum } else { 0.0 };
        StageMean { stage: stage_name(stage), mean_ns: ns / count, share }
    });
    let (mean_ns, sum_ns) = (sums.system_ns as f64 / count, sum / count);
    Composition {
        count: sums.count,
        mean_ns: Measured::Known(mean_ns),
        stages: stages.to_vec(),
        sum_ns,
        residual_ns: mean_ns - sum_ns,
    }
}
