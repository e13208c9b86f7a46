//! Reads a run directory back: plan, manifest, windows, histograms, end. Torn tails and damaged frames
//! are data: what can be read is read, and what was lost is said.

use std::fs;
use std::path::Path;

use tailbeam_probes::record::latency::LatencyWindow;
use tailbeam_probes::record::{Frame, KIND_SEGMENT, read_bytes, read_dir};
use tailbeam_probes::stats::Histogram;

use super::epoch::{Axis, Epoch, EpochRecord};
use super::program::SEGMENT_HEAD;
use super::recorded::Recorded;
use super::records::{EndRecord, FRAME_VERSION, Manifest, WindowRecord, kind, per_agent};
use super::so_far::PerAgent;
use super::{HEAP_STATE, WAITS};
use crate::load::Series;
use crate::plan::Plan;

/// Everything a run directory holds.
#[derive(Debug)]
pub struct RunFrames {
    /// The frozen plan.
    pub plan: Plan,
    /// First frame.
    pub manifest: Manifest,
    /// Windows in order.
    pub windows: Vec<WindowRecord>,
    /// System latency of each window in `windows`.
    pub window_latency: Vec<WindowLatency>,
    /// One merged histogram per series, in the order of [`Series::ALL`], of complete windows only.
    pub histograms: Vec<Histogram>,
    /// Attempts per agent, when the run ended orderly.
    pub attempts: Option<Vec<u32>>,
    /// Completions per agent, as far as they are known: all of epochs that ended orderly, those up to the last word of one
    /// that was cut.
    pub completions: Option<Vec<u32>>,
    /// System latency of each agent's requests together, ns; older runs have none.
    pub system_ns: Option<Vec<u64>>,
    /// The largest of them, ns.
    pub worst_ns: Option<Vec<u64>>,
    /// Service of the requests that each agent answered, together, ns.
    pub service_ns: Option<Vec<u64>>,
    /// Last frame, when the run was sealed.
    pub end: Option<EndRecord>,
    /// Epochs in order; the windows are on their axis.
    pub epochs: Vec<Epoch>,
    /// Frames read.
    pub frames: u64,
    /// Damage in words.
    pub damage: Vec<String>,
}

/// System latency of one window, all cores together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowLatency {
    /// Values.
    pub count: u64,
    /// Median, ns; none of an empty window.
    pub p50_ns: Option<u64>,
    /// 99th percentile, ns; none below 100 values, of which it would be the largest.
    pub p99_ns: Option<u64>,
}

impl WindowLatency {
    fn of(system: &Histogram) -> Self {
        let count = system.count();
        let p99_ns = if count < 100 { None } else { system.quantile(0.99) };
        Self { count, p50_ns: system.quantile(0.5), p99_ns }
    }
}

/// Why a run cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadRunError {
    /// A file is missing or unreadable.
    #[error("cannot read {file} of run {run}\n  cause: {cause}\n  remedy: {remedy}")]
    Unreadable {
        /// File.
        file: String,
        /// Run directory.
        run: String,
        /// Why.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The plan is not the one that the frames name.
    #[error(
        "plan.toml of run {run} does not match its frames\n  cause: SHA-256 is {found}, the manifest says {expected}\n  remedy: restore the file; a run is judged by the plan it was recorded under"
    )]
    ForeignPlan {
        /// Run directory.
        run: String,
        /// Hash of the file.
        found: String,
        /// Hash in the manifest.
        expected: String,
    },
    /// The directory is made and its first frame is not written.
    #[error(
        "nothing is recorded in run {run} yet\n  cause: it has no first frame: its process has only begun, or ended before it wrote one\n  remedy: ask again in a second; where nobody writes to it any more, take it away with `tailbeam runs rm`"
    )]
    NotBegun {
        /// Run directory.
        run: String,
    },
}

impl ReadRunError {
    /// Whether what was written is damaged or foreign.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        !matches!(self, Self::NotBegun { .. })
    }
}

const RESTORE: &str =
    "the evidence is damaged or not a Tailbeam run; restore it from a copy or record a new run";

/// The plan of the run in `dir`, when it has a readable one: a directory that a plain program wrote has none.
#[must_use]
pub fn read_plan(dir: &Path) -> Option<Plan> {
    toml::from_str(&fs::read_to_string(dir.join("plan.toml")).ok()?).ok()
}

/// Reads the run in `dir`.
///
/// # Errors
/// When the plan or the manifest cannot be had, so that nothing can be said about the run.
pub fn read_run(dir: &Path) -> Result<RunFrames, ReadRunError> {
    let Opened { plan, manifest, frames, damage } = open(dir)?;
    let mut run = RunFrames {
        plan,
        manifest,
        windows: Vec::new(),
        window_latency: Vec::new(),
        histograms: Series::ALL.iter().map(|_| Histogram::new()).collect(),
        attempts: None,
        completions: None,
        system_ns: None,
        worst_ns: None,
        service_ns: None,
        end: None,
        epochs: Vec::new(),
        frames: frames.len() as u64,
        damage,
    };
    collect(&mut run, &frames);
    Ok(run)
}

/// A run directory whose plan and manifest belong together.
pub(super) struct Opened {
    pub(super) plan: Plan,
    pub(super) manifest: Manifest,
    pub(super) frames: Vec<Frame>,
    /// In words.
    pub(super) damage: Vec<String>,
}

pub(super) fn open(dir: &Path) -> Result<Opened, ReadRunError> {
    let unreadable = |file: &str, cause: String| ReadRunError::Unreadable {
        file: file.to_owned(),
        run: dir.display().to_string(),
        cause,
        remedy: RESTORE,
    };
    if !is_begun(dir) {
        return Err(ReadRunError::NotBegun { run: dir.display().to_string() });
    }
    let text = fs::read_to_string(dir.join("plan.toml"))
        .map_err(|e| unreadable("plan.toml", e.to_string()))?;
    let (frames, damage) =
        read_dir(&dir.join("seg")).map_err(|e| unreadable("seg", e.to_string()))?;
    let manifest: Manifest = frames
        .iter()
        .find(|frame| frame.kind == kind::MANIFEST)
        .and_then(|frame| serde_json::from_slice(&frame.payload).ok())
        .ok_or_else(|| unreadable("seg", "no readable manifest frame".to_owned()))?;
    let found = super::sha256_hex(text.as_bytes());
    if found != manifest.plan_sha256 {
        return Err(ReadRunError::ForeignPlan {
            run: dir.display().to_string(),
            found,
            expected: manifest.plan_sha256,
        });
    }
    let plan: Plan = toml::from_str(&text).map_err(|e| unreadable("plan.toml", e.to_string()))?;
    // What no run has is asked for by no run: sizes and times of a foreign plan would be believed.
    plan.check().map_err(|e| unreadable("plan.toml", e.to_string()))?;
    let damage = damage.iter().map(ToString::to_string).collect();
    Ok(Opened { plan, manifest, frames, damage })
}

/// Whether anything was recorded: something after the head of the first segment, or in its place; segments after one
/// that is lost; the heap of a program; what is written at the end.
fn is_begun(dir: &Path) -> bool {
    let seg = dir.join("seg");
    let first = seg.join("0000.log");
    let others = fs::read_dir(&seg).into_iter().flatten().filter_map(Result::ok);
    let others = others.filter(|entry| entry.path() != first).count();
    let length = fs::metadata(&first).map_or(0, |of| of.len());
    let unwritten = length == 0 || length == SEGMENT_HEAD as u64 && is_head(&first);
    // A soak begins its heap before its frames; a certificate and what waited at the end come after them.
    let has = |name: &str| dir.join(name).is_file();
    let heap = has(HEAP_STATE) && matches!(Recorded::read(dir), Ok(Some(_)));
    !unwritten || others > 0 || heap || has(WAITS) || has(crate::certify::CERTIFICATE)
}

fn is_head(segment: &Path) -> bool {
    let (mut frames, mut damage) = (Vec::new(), Vec::new());
    read_bytes("", &fs::read(segment).unwrap_or_default(), true, &mut frames, &mut damage);
    matches!(frames.as_slice(), [head] if head.kind == KIND_SEGMENT) && damage.is_empty()
}

/// Sorts the frames into their places. Histograms wait until the record that closes their window: a
/// window cut by a crash counts nowhere, neither in counts nor in histograms.
fn collect(run: &mut RunFrames, frames: &[Frame]) {
    let mut waiting: Vec<HistogramFrame> = Vec::new();
    let mut numbers = PerAgent::new(run.plan.agents);
    let mut system = Histogram::new();
    let mut axis = Axis::new(&run.manifest, run.plan.seed);
    for frame in frames {
        match frame.kind {
            kind::HISTOGRAM => match histogram(&frame.payload) {
                Some(entry) => waiting.push(entry),
                None => run.damage.push(format!("frame {}: unreadable histogram", frame.seq)),
            },
            kind::WINDOW => match serde_json::from_slice::<WindowRecord>(&frame.payload) {
                Ok(mut window) => {
                    axis.window(&mut window);
                    system.clear();
                    for of in waiting.drain(..).filter(|of| of.window == window.window) {
                        run.histograms[of.series as usize].merge(&of.histogram);
                        if of.series == Series::System {
                            system.merge(&of.histogram);
                        }
                    }
                    run.window_latency.push(WindowLatency::of(&system));
                    run.windows.push(window);
                }
                Err(error) => {
                    run.damage.push(format!("frame {}: unreadable window: {error}", frame.seq))
                }
            },
            kind::PER_AGENT => numbers.at_the_end(&frame.payload),
            kind::SO_FAR => run.damage.extend(
                numbers
                    .so_far(frame.mono_ns, &frame.payload)
                    .is_none()
                    .then(|| format!("frame {}: unreadable counts of agents", frame.seq)),
            ),
            kind::EPOCH => match epoch(frame) {
                Ok(record) => {
                    // What was written of the window that was open counts nowhere.
                    waiting.clear();
                    numbers.epoch();
                    run.windows.last_mut().into_iter().for_each(WindowRecord::cut);
                    axis.begin(&record);
                }
                Err(why) => run.damage.push(why),
            },
            // Whole windows of stages are many: who wants them reads the run window by window.
            kind::LATENCY => run.damage.extend(latency_window(frame).err()),
            kind::END => match serde_json::from_slice(&frame.payload) {
                Ok(end) => run.end = Some(end),
                Err(error) => {
                    run.damage.push(format!("frame {}: unreadable end: {error}", frame.seq))
                }
            },
            _ => {}
        }
    }
    let numbers = numbers.finish();
    (run.attempts, run.completions) = (numbers.attempts, numbers.completions);
    (run.system_ns, run.worst_ns) = (numbers.system_ns, numbers.worst_ns);
    run.service_ns = numbers.service_ns;
    run.epochs = axis.epochs;
    missing_windows(run);
}

/// What begins an epoch, or the damage in words.
pub(super) fn epoch(frame: &Frame) -> Result<EpochRecord, String> {
    let record = serde_json::from_slice(&frame.payload);
    record.map_err(|error| format!("frame {}: unreadable epoch: {error}", frame.seq))
}

fn missing_windows(run: &mut RunFrames) {
    let mut expected = 0;
    for window in &run.windows {
        if window.window != expected {
            run.damage.push(format!("windows {expected}..{} are missing", window.window));
        }
        expected = window.window.saturating_add(1);
    }
}

/// What one core recorded of a window's latency, or the damage in words.
pub(super) fn latency_window(frame: &Frame) -> Result<LatencyWindow, String> {
    let window = match frame.version {
        FRAME_VERSION => LatencyWindow::decode(&frame.payload).map_err(|e| e.to_string()),
        other => Err(format!("version {other} is not known to this program")),
    };
    window.map_err(|why| format!("frame {}: unreadable latency stages: {why}", frame.seq))
}

/// A histogram and what it is of.
pub(super) struct HistogramFrame {
    pub(super) window: u32,
    pub(super) core: u16,
    pub(super) series: Series,
    pub(super) histogram: Histogram,
}

pub(super) fn histogram(payload: &[u8]) -> Option<HistogramFrame> {
    let (head, rest) = payload.split_at_checked(8)?;
    Some(HistogramFrame {
        window: u32::from_le_bytes(head[0..4].try_into().ok()?),
        core: u16::from_le_bytes(head[4..6].try_into().ok()?),
        series: *Series::ALL.get(usize::from(head[6]))?,
        histogram: Histogram::decode(rest).ok()?,
    })
}

/// Numbers of each agent over the whole run, by its index; those that older runs have not are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentNumbers {
    /// Attempts.
    pub attempts: Option<Vec<u32>>,
    /// Completions.
    pub completions: Option<Vec<u32>>,
    /// System latency of each agent's requests together, ns.
    pub system_ns: Option<Vec<u64>>,
    /// The largest of them, ns.
    pub worst_ns: Option<Vec<u64>>,
    /// Service of the requests that each agent answered, together, ns.
    pub service_ns: Option<Vec<u64>>,
}

impl AgentNumbers {
    /// Takes a PER_AGENT frame.
    pub(super) fn add(&mut self, payload: &[u8]) {
        let Some((head, rest)) = payload.split_at_checked(4) else { return };
        let counts = rest.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        let times = rest.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        match head[0] {
            per_agent::ATTEMPTS => self.attempts.get_or_insert_default().extend(counts),
            per_agent::COMPLETIONS => self.completions.get_or_insert_default().extend(counts),
            per_agent::SYSTEM_NS => self.system_ns.get_or_insert_default().extend(times),
            per_agent::WORST_NS => self.worst_ns.get_or_insert_default().extend(times),
            per_agent::SERVICE_NS => self.service_ns.get_or_insert_default().extend(times),
            _ => {}
        }
    }
}
