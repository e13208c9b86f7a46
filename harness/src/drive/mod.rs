//! Runs a plan: spawn, begin, sample, record, drain, seal.
//!
//! One controller thread (housekeeping) drives the run; it never sends a request itself. Every 20 ms it
//! samples the open requests, every second it takes the cores' counts and histograms, every 10 s it
//! writes a window and syncs it. A second thread looks at the clock every 20 ms: a look that is late while
//! the process used no CPU is a gap from outside.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

mod attack;
mod begin;
mod checkpoint;
mod controller;
mod cost;
mod error;
mod fleet;
mod heap;
mod knobs;
mod last;
mod latency;
mod levels;
mod mail;
mod middles;
mod occupancy;
mod readings;
mod replay;
mod reserve;
mod resume;
mod room;
mod saturate;
mod second;
mod spawn;
mod stalls;
pub mod synthetic;
mod totals;
mod waits;
mod watch;
mod windows;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use tailbeam_runtime::{Config, Cores, Runtime};

use crate::chaos::board::Board;
use crate::evidence::Store;
use crate::load::{Fleet, Workload};
use crate::observe::{CoreObserver, Setup};
use crate::plan::Plan;
use crate::remote::Second;
use crate::verdict::Gate;
use begin::Target;

pub use attack::{Attacked, attack};
pub use error::{DriveError, DriveErrorKind};
pub use resume::Resume;
pub use totals::{LatencyTotals, OCTAVES, SharedTotals, Totals};

/// How the outside world talks to a running plan.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Set to end the run early: it drains, seals and says `interrupted`.
    pub stop: Arc<AtomicBool>,
    /// Set to end the drain too: what is still open then is counted as open at stop.
    pub hurry: Arc<AtomicBool>,
    /// Counts SIGCONT, which tells a stopped process from a host gap.
    pub continued: Arc<AtomicUsize>,
    /// Where the sums of the run so far are put once a second; none when nobody wants them.
    pub totals: Option<SharedTotals>,
    /// What a supervisor shares with it, to do harm and to look on; none without a supervisor.
    pub board: Option<Arc<Board>>,
    /// The second process of a run whose plan has one.
    pub second: Option<Second>,
    /// Where the event logs lie, and the secret that they are kept under: a run that is continued reads them again.
    pub log_home: Option<LogHome>,
}

/// Where the event logs of a run lie when they are to outlive its process.
#[derive(Clone)]
pub struct LogHome {
    /// Directory; an owner's log is `owner-N` in it.
    pub dir: PathBuf,
    /// Secret of the run: keys of its agents and of its logs come from it.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for LogHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogHome").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What a person watching wants to know, once a second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Since the start, s.
    pub elapsed_s: f64,
    /// Planned, s.
    pub planned_s: f64,
    /// `spawn`, `measure`, `drain` or `seal`.
    pub phase: &'static str,
    /// Alive agents.
    pub live_agents: u64,
    /// Attempts in the last second.
    pub attempts_per_s: f64,
    /// Terminal replies in the last second.
    pub served_per_s: f64,
    /// Open requests at the last sample.
    pub open: u64,
    /// Median system latency of the last second, ns.
    pub p50_ns: Option<u64>,
    /// Its P99, ns.
    pub p99_ns: Option<u64>,
    /// Its maximum, ns.
    pub max_ns: Option<u64>,
    /// Resident bytes.
    pub rss_bytes: Option<u64>,
    /// Something that happened: a gap, the start of the drain, the path of the run.
    pub event: Option<String>,
}

/// Runs `plan` with agents of `W` and returns the sealed run's directory.
///
/// # Errors
/// [`DriveError`]: bad plan, host not ready, or the store failed. What was on disk stays readable.
pub fn run<W: Workload>(
    plan: &Plan,
    store: &Store,
    control: &Control,
    progress: &mut dyn FnMut(&Progress),
) -> Result<PathBuf, DriveError> {
    run_beside::<W, ()>(plan, store, control, progress, &|_: &Alive<'_, W>| ()).map(|(dir, ())| dir)
}

/// A fleet that lives, for whoever does something beside its load.
pub(crate) struct Alive<'a, W: Workload> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) fleet: Arc<Fleet<W>>,
    pub(crate) shards: usize,
    pub(crate) secret: [u8; 32],
}

/// Runs `plan`, and `beside` on a thread of its own once all agents live. The agents live until both are over.
pub(crate) fn run_beside<W: Workload, T: Send>(
    plan: &Plan,
    store: &Store,
    control: &Control,
    progress: &mut dyn FnMut(&Progress),
    beside: &(dyn Fn(&Alive<'_, W>) -> T + Sync),
) -> Result<(PathBuf, T), DriveError> {
    to(plan, Target::New(store), control, progress, beside)
}

/// Continues a run whose process died in a new epoch, for what is left of its plan, and returns its directory.
/// Agents are made anew, and their draws are of another seed.
///
/// # Errors
/// [`DriveError`]: the machine has other cores, the host is not ready, or the store failed.
pub fn resume<W: Workload>(
    resume: Resume,
    control: &Control,
    progress: &mut dyn FnMut(&Progress),
) -> Result<PathBuf, DriveError> {
    if resume.left_ns() == 0 {
        return resume.seal();
    }
    let plan = resume.plan().clone();
    let target = Target::Resumed(Box::new(resume));
    to::<W, ()>(&plan, target, control, progress, &|_: &Alive<'_, W>| ()).map(|(dir, ())| dir)
}

fn to<W: Workload, T: Send>(
    plan: &Plan,
    target: Target<'_>,
    control: &Control,
    progress: &mut dyn FnMut(&Progress),
    beside: &(dyn Fn(&Alive<'_, W>) -> T + Sync),
) -> Result<(PathBuf, T), DriveError> {
    plan.check()?;
    let root = target.root().to_owned();
    saturate::check::<W>(plan)?;
    second::check::<W>(plan, control.second.as_ref())?;
    let limits = limits(plan)?;
    room::check_memory(plan, tailbeam_probes::collect::room::memory_bytes().ok())?;
    let setup = Setup::new(&plan.observe, plan.duration_ns);
    // Links and rings that cannot be harmed are looked at by nobody.
    let faults = control.board.as_ref().map(|_| knobs::Faults::new(plan.seed));
    let config = Config {
        link_faults: faults.as_ref().map(|of| Arc::clone(&of.links)),
        ring_faults: faults.as_ref().map(|of| Arc::clone(&of.rings)),
        ..config(plan)?
    };
    let config = mail::bounded(config, control.board.as_ref());
    let runtime = Runtime::start(config, |_| CoreObserver::new(setup))?;
    target.check_cores(runtime.cores())?;
    let cores = runtime.shards() as u64;
    room::check_disk(plan, cores, tailbeam_probes::collect::room::disk_bytes(&root).ok())?;
    let outcome = controller::Controller::<W>::new(plan, control, (&runtime, faults), limits)
        .and_then(|mut controller| {
            controller.start_middles(&root)?;
            controller.spawn_agents(progress)?;
            controller.reach_second()?;
            let live = controller.alive();
            std::thread::scope(|scope| {
                let besides = scope.spawn(move || beside(&live));
                let measured = controller.measure(target, progress)?;
                let said = besides.join().map_err(|_| DriveError::BesidePanicked)?;
                Ok((measured, said))
            })
            .and_then(|(measured, said)| {
                controller.leave_second()?;
                Ok((measured, said, std::mem::take(&mut controller.logs), controller.second.take()))
            })
        });
    // A run that has failed waits for no answers: some may be owed by a core that is lost.
    let report = if outcome.is_err() { runtime.shutdown_within(0) } else { runtime.shutdown() };
    let drained = report.shards.iter().all(|shard| shard.drained);
    let panicked = report.shards.iter().map(|shard| shard.agents_panicked).sum();
    let (mut measured, said, logs, second) = outcome?;
    measured.add(second::end(second));
    Ok((controller::seal(measured, &logs, drained, panicked)?, said))
}

/// The latency limits that the plan's gates need counted exactly.
fn limits(plan: &Plan) -> Result<Vec<u64>, DriveError> {
    let mut limits: Vec<u64> = plan
        .gates
        .iter()
        .filter_map(|gate| match gate {
            Gate::Percentile { limit_ns, .. } => Some(*limit_ns),
            _ => None,
        })
        .collect();
    limits.sort_unstable();
    limits.dedup();
    if limits.len() > crate::load::LIMITS_MAX {
        return Err(DriveError::TooManyLimits {
            asked: limits.len(),
            max: crate::load::LIMITS_MAX,
        });
    }
    Ok(limits)
}

/// A turn of this length is a stall, ns: the runtime's default.
const STALL_NS: u64 = 25_000_000;

/// Bounds of the runtime, from the plan. Tables grow lazily, so a generous bound costs nothing.
fn config(plan: &Plan) -> Result<Config, DriveError> {
    let cores = plan.cores.clone().map_or(Cores::Auto, Cores::List);
    let shards = match &cores {
        Cores::List(list) => list.len().max(1),
        Cores::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let per_shard = plan.agents.div_ceil(shards as u64);
    let bound = |n: u64| {
        u32::try_from(n).map_err(|_| DriveError::TooMany { what: "agents per core", asked: n })
    };
    // One tick per agent and one timer per open or pending request. Little's law gives the usual
    // number open; eight times that and a floor leave room for a stall of the whole timeout.
    let in_flight = plan.rate_per_s() * (plan.timeout_ns as f64 / 1e9) / shards as f64;
    let in_flight = (in_flight * 2.0) as u64 + 65_536;
    Ok(Config {
        cores,
        // With supervisors, where there are any.
        agents_max: bound(
            per_shard
                + per_shard.div_ceil(spawn::CHILDREN as u64)
                + 64
                + crate::load::plant::tasks_max(plan),
        )?,
        timers_max: bound(per_shard + 2 * in_flight)?,
        // A generator is to be on time, whatever the wakes cost.
        timer_slack_ns: 0,
        turn_stamps: plan.observe.on,
        stall_ns: STALL_NS,
        ..Config::default()
    })
}
