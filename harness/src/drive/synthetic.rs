//! A run of synthetic requests on a clock that is a number: for what takes days or a machine's power.
//!
//! Everything behind the request is what a run of agents has: the recorder of each core, open requests, stages,
//! seconds, windows, frames, epochs, report. The load and the time are made up; memory and CPU time in the windows
//! are this process' own.
//!
//! ```
//! use tailbeam_harness::drive::synthetic::Synthetic;
//! use tailbeam_harness::{evidence::Store, plan::Plan, report};
//! # let dir = tempfile::tempdir().unwrap();
//! let plan = Plan { agents: 100, duration_ns: 20_000_000_000, ..Plan::soak("synthetic") };
//! let mut run = Synthetic::create(&Store::open(dir.path()).unwrap(), plan, "a boot").unwrap();
//! for _ in 0..20 {
//!     run.second(30).unwrap();
//! }
//! let report = report::build(&run.finish().unwrap(), None).unwrap();
//! assert_eq!(report.load.outcomes.known().unwrap().ok, 600);
//! ```

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use tailbeam_probes::collect::{host, process};
use tailbeam_probes::record::latency::{Leg, Stamps};

use super::controller::{Handed, Phase};
use super::error::DriveError;
use super::last::{Last, per_agent};
use super::latency::{Latency, p99_ns};
use super::readings::{Carried, no_pss, reading};
use super::resume::Resume;
use super::windows::{Ended, Readings, Windows};
use super::writer::RunWriter;
use crate::evidence::records::{EndRecord, Manifest, Reading, Unknown};
use crate::evidence::{Began, Store};
use crate::load::latency::{Draws, Parties, draws};
use crate::load::legs::Step;
use crate::load::open::Open;
use crate::load::settle::served;
use crate::load::{Draw, Place, Recorder, SecondCounts, Series, Stream};
use crate::plan::Plan;

const SECOND: u64 = 1_000_000_000;
/// Shards that it makes up.
const SHARDS: usize = 2;
/// Samples of the open requests in a second.
const SAMPLES: u64 = 50;
/// Planned delay of every answer, so that requests end in the order in which they began.
const DELAY_NS: u64 = 300_000_000;
/// Wall clock at the first epoch's begin, ns since 1970: 2026-11-26.
const UNIX_NS: u64 = 1_795_651_200_000_000_000;

/// A request under way.
struct Flying {
    key: u64,
    shard: usize,
    open: Open,
    stamps: Stamps,
    parties: Parties,
}

/// The run.
pub struct Synthetic {
    plan: Plan,
    writer: RunWriter,
    windows: Windows,
    recorders: Vec<Recorder>,
    latency: Latency,
    carried: Carried,
    flying: VecDeque<Flying>,
    now_ns: u64,
    start_ns: u64,
    k: u64,
    draws: Draws,
}

impl std::fmt::Debug for Synthetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Synthetic").field("now_ns", &self.now_ns).finish_non_exhaustive()
    }
}

/// So long after the first begin, on a boot whose clock had run for an hour by then.
fn began(boot: &str, off_s: u64) -> Began {
    let (unix_ns, mono_ns) = (UNIX_NS + off_s * SECOND, (3_600 + off_s) * SECOND);
    Began {
        unix_ns,
        mono_ns,
        start_ns: mono_ns + SECOND,
        boot_id: Some(boot.to_owned()),
        build_id: None,
        pid: std::process::id(),
        host: crate::host::one_line(&host::describe()),
        disk_held: None,
    }
}

impl Synthetic {
    /// A new run, on a boot of this name.
    ///
    /// # Errors
    /// [`DriveError`]: the plan cannot be, or the store failed.
    pub fn create(store: &Store, plan: Plan, boot: &str) -> Result<Self, DriveError> {
        plan.check()?;
        let (id, dir) = store.create_run(UNIX_NS)?;
        let began = began(boot, 0);
        let host = host::describe();
        let made_up = || Unknown {
            unknown: "the requests are synthetic".to_owned(),
            remedy: "`tailbeam soak` has agents".to_owned(),
        };
        let manifest = Manifest {
            id,
            recorded_by: env!("CARGO_PKG_VERSION").to_owned(),
            workload: plan.workload.clone(),
            started_unix_ns: UNIX_NS,
            start_ns: began.start_ns,
            plan_sha256: String::new(),
            cores: (0..SHARDS as u64).collect(),
            limits_ns: super::limits(&plan)?,
            host: crate::host::one_line(&host),
            no_heap: Some(made_up()),
            matrix: Vec::new(),
            stamps: "made up".to_owned(),
            clock_bound_ns: Some(0),
            unknowns: Vec::new(),
            units: None,
            began: Some(began.clone()),
        };
        let writer = RunWriter::create(&dir, &plan, manifest, &crate::host::json(&host))?;
        Self::over(plan, writer, began.start_ns, (0, Carried::default()))
    }

    /// Goes on with a run whose process died, on a boot of this name, `off_s` after the run's first begin.
    ///
    /// # Errors
    /// [`DriveError`]: the store failed.
    pub fn resume(resume: Resume, boot: &str, off_s: u64) -> Result<Self, DriveError> {
        let plan = resume.plan().clone();
        let carried = Carried::of(resume.last_window());
        let first = resume.window();
        let began = began(boot, off_s);
        let start_ns = began.start_ns;
        let writer = resume.begin(began)?;
        Self::over(plan, writer, start_ns, (first, carried))
    }

    fn over(
        plan: Plan,
        writer: RunWriter,
        start_ns: u64,
        (first, carried): (u32, Carried),
    ) -> Result<Self, DriveError> {
        let latency = Latency::new(&plan, SHARDS);
        let agents = usize::try_from(plan.agents).unwrap_or(usize::MAX);
        let recorder = |shard: usize| {
            let (limits, legs) = (super::limits(&plan)?, latency.legs.clone());
            let agents = (agents + SHARDS - 1 - shard) / SHARDS;
            Ok(Recorder::new(&plan, Place { shard, agents, limits, legs, lane: None, anew: false }))
        };
        let recorders = (0..SHARDS).map(recorder).collect::<Result<_, DriveError>>()?;
        let mut windows = Windows::new(SHARDS, first);
        windows.begin(start_ns);
        let draws = draws(&plan, SHARDS);
        let (now_ns, flying) = (start_ns, VecDeque::new());
        Ok(Self {
            plan,
            writer,
            windows,
            recorders,
            latency,
            carried,
            flying,
            now_ns,
            start_ns,
            k: 0,
            draws,
        })
    }

    /// Closes segments at this size already.
    #[must_use]
    pub const fn segments_of(mut self, bytes: u64) -> Self {
        self.writer.segment_max = bytes;
        self
    }

    /// Syncs no window any more: what a check of power cuts must find.
    #[must_use]
    pub const fn unsynced(mut self) -> Self {
        self.writer.syncs = false;
        self
    }

    /// Directory of the run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.writer.dir()
    }

    /// One second with so many requests. The number of the window that it has ended, which is on the disk then.
    ///
    /// # Errors
    /// [`DriveError::Record`] when the window cannot be written.
    pub fn second(&mut self, requests: u64) -> Result<Option<u32>, DriveError> {
        let (from_ns, mut sent) = (self.now_ns, 0);
        for sample in 1..=SAMPLES {
            while sent < requests * sample / SAMPLES {
                self.send(from_ns + SECOND * sent / requests);
                sent += 1;
            }
            self.now_ns = from_ns + SECOND * sample / SAMPLES;
            self.answer(self.now_ns);
            self.sample();
        }
        let full = self.now_ns - self.windows.from_ns >= self.plan.observe.window_ns();
        self.close(if full { Phase::Window } else { Phase::Issuing });
        full.then(|| self.write()).transpose()
    }

    /// A request that is due.
    fn send(&mut self, intended_ns: u64) {
        self.answer(intended_ns);
        let agents = self.plan.agents;
        let asker = u32::try_from(self.k % agents).unwrap_or(0);
        let draw = Draw::new(self.plan.seed, u64::from(asker));
        let other = draw.below(self.k, Stream::Target, agents - 1) + 1;
        let responder = u32::try_from((u64::from(asker) + other) % agents).unwrap_or(0);
        let sent_ns = intended_ns + draw.below(self.k, Stream::Start, 50_000);
        let shard = asker as usize % SHARDS;
        let open = Open {
            intended_ns,
            sent_ns,
            deadline_ns: intended_ns + self.plan.timeout_ns,
            planned_ns: DELAY_NS,
            local: u32::try_from(asker as usize / SHARDS).unwrap_or(0),
            responder,
            drawn: self.draws.of(draw, self.k),
            timer: None,
        };
        let r = &mut self.recorders[shard];
        r.second.outcomes.attempts += 1;
        let local = open.local as usize;
        r.attempts[local] = r.attempts[local].saturating_add(1);
        if let Some(key) = r.open.insert(open) {
            r.record(Series::Lateness, sent_ns - intended_ns);
            r.step(Step::Sent);
            let stamps = self.way(&open, draw);
            self.flying.push_back(Flying {
                key,
                shard,
                open,
                stamps,
                parties: Parties { asker, responder },
            });
        } else {
            r.second.outcomes.error += 1;
        }
        self.k += 1;
    }

    /// Every stamp of a request: a few us in each stage, in one of 256 up to 4 ms, and the responder's delay.
    fn way(&mut self, open: &Open, draw: Draw) -> Stamps {
        let bits = draw.bits(self.k, Stream::Content);
        let step = |at: u32, max: u64| (bits >> at) % max;
        let slow = if bits.is_multiple_of(256) { step(40, 4_000_000) } else { 0 };
        let out = Leg {
            published_ns: open.sent_ns + step(0, 2_000),
            seen_ns: open.sent_ns + 2_000 + step(8, 3_000),
            aside_ns: 0,
            turn_ns: open.sent_ns + 5_000 + step(16, 5_000) + slow,
        };
        let due_ns = out.turn_ns + open.planned_ns;
        let timer_turn_ns = due_ns + step(24, 20_000);
        let answered_ns = timer_turn_ns + 1_000;
        let back = Leg {
            published_ns: answered_ns + step(4, 1_000),
            seen_ns: answered_ns + 1_000 + step(12, 1_000),
            aside_ns: 0,
            turn_ns: answered_ns + 2_000 + step(20, 1_000),
        };
        let stamps = Stamps {
            intended_ns: open.intended_ns,
            sent_ns: open.sent_ns,
            out,
            polls: 2,
            service_ns: answered_ns - timer_turn_ns,
            planned_ns: open.planned_ns,
            due_ns,
            timer_turn_ns,
            answered_ns,
            back,
            closed_ns: back.turn_ns + 500,
            ..Stamps::default()
        };
        let r = &mut self.recorders[open.responder as usize % SHARDS];
        let _ = r.took(&stamps, out, false);
        stamps
    }

    /// Answers everything that is due by then.
    fn answer(&mut self, now_ns: u64) {
        while self.flying.front().is_some_and(|front| front.stamps.closed_ns <= now_ns)
            && let Some(Flying { key, shard, open, stamps, parties }) = self.flying.pop_front()
        {
            self.recorders[open.responder as usize % SHARDS].answered(open.responder, &stamps);
            let r = &mut self.recorders[shard];
            r.open.remove(key);
            r.in_hand(&stamps);
            r.closed(open.sent_ns, stamps.closed_ns);
            r.second.outcomes.ok += 1;
            served(r, &open, parties, (&stamps, None));
        }
    }

    fn sample(&mut self) {
        let samples = &self.latency.samples;
        samples.lock().expect("nothing panics under the lock").take(&self.latency.legs, 0);
        let oldest = self.recorders.iter().filter_map(|r| r.open.oldest_sent_ns()).min();
        let second = &mut self.windows.second;
        let age_ns = oldest.map_or(0, |sent| self.now_ns.saturating_sub(sent));
        second.oldest_open_ns = second.oldest_open_ns.max(age_ns);
    }

    fn close(&mut self, phase: Phase) -> Vec<Last> {
        let (mut ended, mut lasts) = (Ended::default(), Vec::with_capacity(SHARDS));
        let mut counts = SecondCounts::default();
        self.windows.system.clear();
        let samples = self.latency.take_samples();
        self.windows.second.open_sum += samples.open;
        self.windows.second.open_samples += samples.taken;
        for shard in 0..SHARDS {
            let spare = self.windows.spare(shard);
            let empty = phase.ends_window().then(|| self.latency.spare(shard)).flatten();
            let r = &mut self.recorders[shard];
            let handed = Handed::take(r, self.now_ns, phase, spare, empty);
            counts.merge(&handed.counts);
            ended.open += handed.open;
            ended.open_age_ns += handed.open_age_ns;
            self.windows.gather(shard, handed.set);
            if let Some(sheet) = handed.sheet {
                let span = (self.windows.number, self.windows.from_ns, self.now_ns);
                self.latency.gather(shard, sheet, span);
            }
            lasts.push(handed.last);
        }
        let (live_agents, issuing) = (self.plan.agents, phase.is_issuing());
        let record =
            self.windows.second(self.now_ns, Ended { counts, live_agents, issuing, ..ended });
        if record.len_ns > 0 {
            self.windows.seconds.push(record);
        }
        lasts
    }

    fn write(&mut self) -> Result<u32, DriveError> {
        let late_ns = p99_ns(&self.windows.sets);
        self.recorders.iter_mut().for_each(|r| r.latency.set_late_ns(late_ns));
        let memory = process::memory();
        let pss = memory.as_ref().ok().and_then(|m| m.pss_bytes).ok_or_else(no_pss);
        let readings = Readings {
            // No shard runs.
            cores: Vec::new(),
            rss_bytes: reading(memory.map(|m| m.rss_bytes)),
            pss_bytes: reading(pss),
            live_bytes: made_up(),
            cpu_ns: self.carried.cpu(reading(process::cpu_time_ns())),
            cost: Vec::new(),
            lowered: Vec::new(),
            stalls: None,
        };
        let (number, latency) = (self.windows.number, self.latency.take());
        self.windows.write(&mut self.writer, self.now_ns, readings, &latency)?;
        Ok(number)
    }

    /// Answers what is under way and seals the run; its directory.
    ///
    /// # Errors
    /// [`DriveError::Record`] when it cannot be written.
    pub fn finish(mut self) -> Result<PathBuf, DriveError> {
        let issued_ns = self.now_ns - self.start_ns;
        if self.now_ns > self.windows.from_ns {
            self.write_rest()?;
        }
        while !self.flying.is_empty() {
            self.now_ns += SECOND / SAMPLES;
            self.answer(self.now_ns);
            self.sample();
        }
        let lasts = self.close(Phase::Last);
        let agents = per_agent(lasts, usize::try_from(self.plan.agents).unwrap_or(0));
        self.write()?;
        let end = EndRecord::finished(issued_ns);
        self.writer.finish(self.now_ns, &agents, &end)?;
        Ok(self.writer.dir().to_owned())
    }

    /// The window that runs, short as it is: the drain has one of its own.
    fn write_rest(&mut self) -> Result<(), DriveError> {
        self.close(Phase::Window);
        self.write().map(drop)
    }
}

fn made_up() -> Reading {
    let unknown = "the requests are synthetic".to_owned();
    Reading::Missing { unknown, remedy: "`tailbeam soak` has agents".to_owned() }
}
