//! What the frames of a run hold. Versioned structs of their own: a change in the program never
//! changes an old run. Readers skip unknown kinds and unknown JSON keys.

use serde::{Deserialize, Serialize};
use tailbeam_probes::analyse::overhead::{Pair, Second};

use super::epoch::Began;
use super::stalls::StallsRecord;
use crate::load::SecondCounts;
use crate::plan::{Plant, SlowPlant};

/// Frame kinds.
pub mod kind {
    /// [`super::Manifest`], JSON; the first frame of a run.
    pub const MANIFEST: u16 = 1;
    /// [`super::WindowRecord`], JSON; closes a window, after its histograms.
    pub const WINDOW: u16 = 2;
    /// Histogram: window u32, core u16, series u8, 0u8, then the histogram's bytes; little endian.
    pub const HISTOGRAM: u16 = 3;
    /// A number of every agent: which u8 ([`super::per_agent`]), 3 zero bytes, then u32 or u64 per agent.
    pub const PER_AGENT: u16 = 4;
    /// [`super::EndRecord`], JSON; the last frame of a sealed run.
    pub const END: u16 = 5;
    /// `probes::record::latency::LatencyWindow`, postcard: one per core and window, before its WINDOW frame.
    pub const LATENCY: u16 = 6;
    /// `super::super::EpochRecord`, JSON: another process continues the run; what waits for its WINDOW is dropped.
    pub const EPOCH: u16 = 7;
    /// Counts of agents of a shard so far in this epoch, behind a window: shard u16, shards u16, first agent of the shard
    /// u32, then attempts and completions, u32 per agent each; little endian. Agent `i` lives on shard `i % shards`.
    pub const SO_FAR: u16 = 8;
    /// What `record` recorded of a program, see `tailbeam_probes::record::program`; all five in the bytes of
    /// that module. First frame: `ProgramStart`.
    pub const PROGRAM_START: u16 = 16;
    /// `ProgramTick`: counts of a window, and threads that are new.
    pub const PROGRAM_TICK: u16 = 17;
    /// `ProgramStacks`: stacks that are new.
    pub const PROGRAM_STACKS: u16 = 18;
    /// `ProgramSamples`.
    pub const PROGRAM_SAMPLES: u16 = 19;
    /// `ProgramEnd`; the last frame of a sealed recording.
    pub const PROGRAM_END: u16 = 20;
}

/// Numbers in PER_AGENT frames.
pub mod per_agent {
    /// Attempts, u32.
    pub const ATTEMPTS: u8 = 0;
    /// Completions, u32.
    pub const COMPLETIONS: u8 = 1;
    /// System latency of the agent's requests together, ns, u64.
    pub const SYSTEM_NS: u8 = 2;
    /// The largest of them, ns, u64.
    pub const WORST_NS: u8 = 3;
    /// Service of the requests that it answered, together, ns, u64.
    pub const SERVICE_NS: u8 = 4;
}

/// Version of every frame that this program writes.
pub const FRAME_VERSION: u16 = 1;

/// First frame: what ran where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Run id.
    pub id: String,
    /// Tailbeam version.
    pub recorded_by: String,
    /// Workload name.
    pub workload: String,
    /// Unix time of the start, ns.
    pub started_unix_ns: u64,
    /// Monotonic instant of the start, ns; every other instant is on this clock.
    pub start_ns: u64,
    /// SHA-256 of plan.toml, hex.
    pub plan_sha256: String,
    /// Cores of the shards.
    pub cores: Vec<u64>,
    /// Latency limits counted exactly, ns, in the order of [`SecondCounts::over`].
    pub limits_ns: Vec<u64>,
    /// Kernel and CPU in one line.
    pub host: String,
    /// Why the heap was not sampled; none when it was. Older runs have neither.
    #[serde(default)]
    pub no_heap: Option<Unknown>,
    /// What this host allowed, by area, in words; empty when nothing was observed.
    #[serde(default)]
    pub matrix: Vec<String>,
    /// Where the stamps of turns came from; empty in older runs.
    #[serde(default)]
    pub stamps: String,
    /// By how much stamps of one request may be out of order and count as 0, ns; none when requests were not
    /// attributed.
    #[serde(default)]
    pub clock_bound_ns: Option<u64>,
    /// What no core could tell, and why.
    #[serde(default)]
    pub unknowns: Vec<UnknownThing>,
    /// What measuring takes here, measured when the run began; older runs have none.
    #[serde(default)]
    pub units: Option<UnitCosts>,
    /// By whom and when the first epoch was begun; older runs do not say.
    #[serde(default)]
    pub began: Option<Began>,
}

/// What one piece of measuring takes on this host, from a loop of many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UnitCosts {
    /// The stamp of a turn, ns.
    pub turn_ns: f64,
    /// The stages of a request, from its stamps to the tables, ns.
    pub request_ns: f64,
    /// A request whose stages are not noted, ns; none where each is.
    #[serde(default)]
    pub undrawn_ns: Option<f64>,
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

/// Why something was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// Cause.
    pub unknown: String,
    /// What to do.
    pub remedy: String,
}

/// What was planted, so that a report can be compared with the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlantedRecord {
    /// The plant.
    pub plant: Plant,
    /// Objects planted.
    pub objects: u64,
    /// Bytes requested for them; 0 for those of the C library, which are not known.
    pub bytes: u64,
    /// Objects that found no room (slots, descriptors).
    pub refused: u64,
}

/// How often planted slowness struck, so that a report can be compared with the truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowedRecord {
    /// The slowness.
    pub slow: SlowPlant,
    /// Requests that met it.
    pub times: u64,
    /// How long together, ns, time off the CPU included.
    pub ns: u64,
}

/// One second (or the shorter rest of a run).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondRecord {
    /// Monotonic start, ns.
    pub from_ns: u64,
    /// Length, ns.
    pub len_ns: u64,
    /// Counts of all cores.
    pub counts: SecondCounts,
    /// Live agents at its end.
    pub live_agents: u64,
    /// Sum of the samples of the number of open requests.
    pub open_sum: u64,
    /// Number of those samples.
    pub open_samples: u64,
    /// Age of the oldest open request at the samples, the largest, ns.
    pub oldest_open_ns: u64,
    /// Requests open when the counts were taken, at its end.
    #[serde(default)]
    pub open_end: u64,
    /// Sum of their ages, ns.
    #[serde(default)]
    pub open_age_ns: u64,
    /// Whether requests were still due (false while draining).
    pub issuing: bool,
    /// It is the last one on disk of an epoch that was cut: what was open at its end has no other end. Set by
    /// readers.
    #[serde(skip)]
    pub cut: bool,
}

/// One core's counters since the first request was due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreRecord {
    /// CPU number.
    pub core: u64,
    /// Live agents.
    pub agents: u64,
    /// Agents that panicked.
    pub panicked: u64,
    /// Agent turns.
    pub turns: u64,
    /// Doorbells rung.
    pub doorbells: u64,
    /// io_uring_enter calls.
    pub enters: u64,
    /// Time between sleeps, ns; without the kernel's part of going to sleep and waking up.
    pub busy_ns: u64,
    /// Time parked, ns.
    pub parked_ns: u64,
    /// Time ready to run while another thread had the CPU, ns.
    #[serde(default = "Reading::not_recorded")]
    pub run_delay_ns: Reading,
    /// CPU time of the shard's thread, kernel included, ns.
    #[serde(default = "Reading::not_recorded")]
    pub cpu_ns: Reading,
    /// Of `cpu_ns`, looking on for work that had not come, ns.
    #[serde(default = "Reading::not_recorded")]
    pub spun_ns: Reading,
    /// Largest timer lateness, ns.
    pub timer_late_max_ns: u64,
    /// Messages to agents that were gone.
    pub dead_letters: u64,
    /// Bytes of slots, states, cells and timers in use.
    pub state_bytes: u64,
}

/// A figure that may be missing, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reading {
    /// Read.
    Value(u64),
    /// Not read.
    Missing {
        /// Why.
        unknown: String,
        /// What to do.
        remedy: String,
    },
}

impl Reading {
    /// Not read, and why.
    pub(crate) fn missing(unknown: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Missing { unknown: unknown.into(), remedy: remedy.into() }
    }

    /// The value of a field that older runs do not have.
    fn not_recorded() -> Self {
        Self::Missing {
            unknown: "the run was recorded before this was read".to_owned(),
            remedy: "record a new run".to_owned(),
        }
    }
}

/// A hole in the run that the subject did not cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Monotonic start, ns.
    pub from_ns: u64,
    /// Length, ns.
    pub len_ns: u64,
    /// `process stopped` or `host gap`.
    pub cause: String,
}

/// One window: what was on disk after its fdatasync.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord {
    /// Window number from 0.
    pub window: u32,
    /// Its seconds.
    pub seconds: Vec<SecondRecord>,
    /// Cores, cumulative.
    pub cores: Vec<CoreRecord>,
    /// Resident set, bytes.
    pub rss_bytes: Reading,
    /// Proportional set, bytes.
    pub pss_bytes: Reading,
    /// Allocator live bytes.
    pub live_bytes: Reading,
    /// CPU time of the process since the first request was due, ns.
    pub cpu_ns: Reading,
    /// Gaps that ended in this window.
    pub gaps: Vec<Gap>,
    /// Seconds with measuring beside seconds without.
    #[serde(default)]
    pub cost: Vec<CostPair>,
    /// Steps down in what is measured.
    #[serde(default)]
    pub lowered: Vec<LoweredRecord>,
    /// Turns that kept a core from all others; none in older runs, and where no core ran.
    #[serde(default)]
    pub stalls: Option<StallsRecord>,
}

impl WindowRecord {
    /// Moves every instant by so many ns.
    pub(super) fn shift(&mut self, by: i64) {
        let instants = self.seconds.iter_mut().map(|second| &mut second.from_ns);
        let instants = instants.chain(self.gaps.iter_mut().map(|gap| &mut gap.from_ns));
        let instants = instants.chain(self.lowered.iter_mut().map(|step| &mut step.at_ns));
        let stalls = self.stalls.iter_mut().flat_map(|stalls| &mut stalls.longest);
        let instants = instants.chain(stalls.map(|stall| &mut stall.since_ns));
        instants.for_each(|ns| *ns = ns.saturating_add_signed(by));
    }

    /// The run was cut behind it.
    pub(super) fn cut(&mut self) {
        if let Some(second) = self.seconds.last_mut() {
            second.cut = true;
        }
    }
}

/// A second with measuring beside one without; in a run that compares like with like (A/A) both had it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CostPair {
    /// With.
    pub on: CostSecond,
    /// Without.
    pub off: CostSecond,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CostSecond {
    /// Length, ns.
    pub len_ns: u64,
    /// CPU time of the shards' threads, looking on for work not counted, ns.
    pub cpu_ns: u64,
    /// Terminal replies.
    pub requests: u64,
    /// Their mean system latency, ns.
    pub mean_ns: f64,
    /// The 99th percentile, ns.
    pub p99_ns: f64,
}

impl CostPair {
    /// As it is stored.
    #[must_use]
    pub const fn new(on: Second, off: Second) -> Self {
        Self { on: CostSecond::new(on), off: CostSecond::new(off) }
    }

    /// As it is computed with.
    #[must_use]
    pub const fn pair(&self) -> Pair {
        Pair { on: self.on.second(), off: self.off.second() }
    }
}

impl CostSecond {
    const fn new(second: Second) -> Self {
        let Second { len_ns, cpu_ns, requests, mean_ns, p99_ns } = second;
        Self { len_ns, cpu_ns, requests, mean_ns, p99_ns }
    }

    const fn second(&self) -> Second {
        let Self { len_ns, cpu_ns, requests, mean_ns, p99_ns } = *self;
        Second { len_ns, cpu_ns, requests, mean_ns, p99_ns }
    }
}

/// A step down: measuring took more than its budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoweredRecord {
    /// When, monotonic ns.
    pub at_ns: u64,
    /// From, in words.
    pub from: String,
    /// To.
    pub to: String,
    /// Share of a core that measuring took in the minute before.
    pub share: f64,
}

/// Last frame of a sealed run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndRecord {
    /// `finished` or `interrupted`.
    pub reason: String,
    /// Time during which requests were due, of the last epoch, ns.
    pub issued_ns: u64,
    /// Requests still open when the drain ended, before their deadline.
    pub open_at_stop: u64,
    /// Requests open past their deadline with nobody left to close them.
    pub lost: u64,
    /// Whether the runtime drained.
    pub drained: bool,
    /// Agents that panicked.
    pub agents_panicked: u64,
    /// What was planted, in the order of the plan.
    #[serde(default)]
    pub planted: Vec<PlantedRecord>,
    /// How planted slowness struck, in the order of the plan.
    #[serde(default)]
    pub slowed: Vec<SlowedRecord>,
    /// The saturated phase: spans with measuring beside spans without.
    #[serde(default)]
    pub saturated: Vec<CostPair>,
    /// What the protocol's own parts counted, over all cores.
    #[serde(default)]
    pub protocol: Vec<CountRecord>,
}

impl EndRecord {
    /// Of a run that finished, was drained and had nothing planted.
    #[must_use]
    pub fn finished(issued_ns: u64) -> Self {
        Self {
            reason: "finished".to_owned(),
            issued_ns,
            open_at_stop: 0,
            lost: 0,
            drained: true,
            agents_panicked: 0,
            planted: Vec::new(),
            slowed: Vec::new(),
            saturated: Vec::new(),
            protocol: Vec::new(),
        }
    }
}

/// Something that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountRecord {
    /// What.
    pub name: String,
    /// How often, or how long in ns.
    pub count: u64,
}
