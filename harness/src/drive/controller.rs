//! The housekeeping thread's part of a run.

mod seal;

use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tailbeam_probes::analyse::overhead;
use tailbeam_probes::clock;
use tailbeam_runtime::Runtime;

use super::begin::Target;
use super::cost::OwnCost;
use super::heap::Heap;
use super::knobs::{Faults, Knobs};
use super::last::{Last, per_agent, planted, slowed};
use super::latency::{Latency, Sheet, hand_over};
use super::mail::Looks;
use super::middles::Logs;
use super::readings::{Before, Carried};
use super::stalls::Stalls;
use super::watch::Watcher;
use super::windows::{Ended, Windows};
use super::writer::{PerAgent, RunWriter};
use super::{Alive, Control, DriveError, Progress};
use crate::chaos::board::Defence;
use crate::evidence::records::{CostPair, CountRecord, PlantedRecord, SecondRecord, SlowedRecord};
use crate::load::harm::Harm;
use crate::load::latency::draws;
use crate::load::secure::far::FarCounts;
use crate::load::session::Sessions;
use crate::load::slow::flooded;
use crate::load::{
    Fleet, Recorder, SecondCounts, Series, SeriesSet, Workload, empty_set, recorder,
};
use crate::log::Wall;
use crate::plan::{LogCore, Plan, Responders};
use crate::remote::{Launched, first_of};

pub(super) use seal::seal;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Between two looks at the open requests, and the longest sleep before a stop is seen.
const NAP_NS: u64 = 20 * MS;
/// How the measured part of a run ended.
pub(super) struct Measured {
    writer: RunWriter,
    reason: &'static str,
    issued_ns: u64,
    open_at_stop: u64,
    lost: u64,
    agents: PerAgent,
    planted: Vec<PlantedRecord>,
    slowed: Vec<SlowedRecord>,
    saturated: Vec<CostPair>,
    protocol: Vec<CountRecord>,
}

impl Measured {
    /// Counts that come behind the load.
    pub(super) fn add(&mut self, counts: Vec<CountRecord>) {
        self.protocol.extend(counts);
    }
}

pub(super) struct Controller<'a, W: Workload> {
    pub(super) plan: &'a Plan,
    pub(super) control: &'a Control,
    /// Taken by the end of the run.
    pub(super) runtime: &'a Runtime,
    pub(super) fleet: Arc<Fleet<W>>,
    pub(super) limits: Vec<u64>,
    /// Shards with agents: the first ones.
    pub(super) shards: usize,
    /// The shard of the logs, where they have one of their own.
    pub(super) log_shard: Option<usize>,
    pub(super) logs: Logs,
    /// Supervisors of agents, where those are made anew.
    pub(super) supervisors: usize,
    pub(super) knobs: Option<Knobs>,
    pub(super) wall: Wall,
    pub(super) secret: [u8; 32],
    /// The second process, where this one has started it.
    pub(super) second: Option<Launched>,
    start_ns: u64,
    /// When the agents' counts are written down next.
    pub(super) checkpoint_ns: u64,
    pub(super) windows: Windows,
    pub(super) live: Live,
    /// What earlier epochs have counted; cumulative figures go on from there.
    pub(super) carried: Carried,
    /// Read when the first request was due: what came before is not part of the run.
    pub(super) before: Before,
    pub(super) heap: Option<Heap>,
    pub(super) latency: Latency,
    pub(super) cost: OwnCost,
    pub(super) stalls: Stalls,
}

/// What a core hands over at the end of a second.
#[derive(Default)]
pub(super) struct Handed {
    pub(super) counts: SecondCounts,
    pub(super) set: SeriesSet,
    pub(super) open: u64,
    pub(super) open_age_ns: u64,
    pub(super) sheet: Option<Sheet>,
    pub(super) last: Last,
}

impl Handed {
    /// Takes it from the core's recorder, on the core; `spare` and, where a window ends, `empty` take its place.
    pub(super) fn take(
        r: &mut Recorder,
        now_ns: u64,
        phase: Phase,
        spare: SeriesSet,
        empty: Option<Sheet>,
    ) -> Self {
        if empty.is_some() {
            r.end_window();
        }
        Self {
            last: if phase == Phase::Last { Last::of(r, now_ns) } else { Last::default() },
            counts: std::mem::take(&mut r.second),
            set: std::mem::replace(&mut r.set, spare),
            open: r.open.len() as u64,
            open_age_ns: r.open.age_ns(now_ns),
            sheet: empty.map(|empty| hand_over(r, empty)),
        }
    }
}

/// Where in the run a second lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Issuing,
    /// It ends a window.
    Window,
    Draining,
    /// The end of the drain.
    Last,
}

impl Phase {
    pub(super) const fn is_issuing(self) -> bool {
        matches!(self, Self::Issuing | Self::Window)
    }

    pub(super) const fn ends_window(self) -> bool {
        matches!(self, Self::Window | Self::Last)
    }
}

/// The last second, for whoever watches.
#[derive(Default)]
pub(super) struct Live {
    /// Open requests at the last sample.
    open: u64,
    pub(super) rss_bytes: Option<u64>,
}

impl<'a, W: Workload> Controller<'a, W> {
    pub(super) fn new(
        plan: &'a Plan,
        control: &'a Control,
        (runtime, faults): (&'a Runtime, Option<Faults>),
        limits: Vec<u64>,
    ) -> Result<Self, DriveError> {
        let agents = u32::try_from(plan.agents)
            .map_err(|_| DriveError::TooMany { what: "agents", asked: plan.agents })?;
        let askers = agents.saturating_sub(plan.protocol.attackers);
        let own = W::MIDDLE && plan.protocol.log_core == LogCore::Own && runtime.shards() > 1;
        let shards = runtime.shards() - usize::from(own);
        let anew = control.board.is_some() || plan.shape.session_ns.is_some();
        let fleet = Arc::new(Fleet {
            plan: plan.clone(),
            agents,
            askers,
            addresses: OnceLock::new(),
            draws: draws(plan, shards),
            flood: flooded(plan),
            middles: OnceLock::new(),
            workload: PhantomData,
            harm: control.board.clone().map(|board| Harm::new(board, shards, askers)),
            sessions: Sessions::default(),
            born: (0..if anew { agents } else { 0 }).map(|_| OnceLock::new()).collect(),
            start_ns: OnceLock::new(),
            far: (plan.protocol.responders == Responders::Tcp)
                .then(|| (0..shards).map(|_| FarCounts::default()).collect()),
            far_from: first_of(plan),
            no_expiry: control.board.as_ref().is_some_and(|board| board.is_off(Defence::Expiry)),
        });
        let wall = Wall::of(clock::monotonic_ns(), clock::realtime_ns());
        let board = control.board.clone();
        let knobs = board.map(|board| Knobs::new(board, faults, wall.clone()));
        Ok(Self {
            plan,
            control,
            runtime,
            fleet,
            limits,
            shards,
            log_shard: own.then_some(shards),
            logs: Logs::default(),
            supervisors: 0,
            knobs,
            wall,
            secret: [0; 32],
            second: None,
            start_ns: 0,
            checkpoint_ns: 0,
            windows: Windows::new(shards, 0),
            live: Live::default(),
            carried: Carried::default(),
            before: Before::read(runtime),
            heap: None,
            latency: Latency::new(plan, shards),
            cost: OwnCost::new(plan),
            stalls: Stalls::new(super::STALL_NS, plan.observe.on),
        })
    }

    /// For whoever does something beside the load.
    pub(super) fn alive(&self) -> Alive<'a, W> {
        let (runtime, fleet) = (self.runtime, Arc::clone(&self.fleet));
        Alive { runtime, fleet, shards: self.shards, secret: self.secret }
    }

    pub(super) fn stopping(&self) -> bool {
        self.control.stop.load(Ordering::Relaxed)
    }

    pub(super) fn on<R: Send + 'static>(
        &self,
        shard: usize,
        f: impl FnOnce(&mut tailbeam_runtime::Cx<'_>) -> R + Send + 'static,
    ) -> Result<R, DriveError> {
        self.runtime.run_on(shard, f).map_err(|_| DriveError::ShardGone { core: shard })
    }

    pub(super) fn live_agents(&self) -> u64 {
        let live: u64 = self.runtime.stats().iter().map(|shard| shard.live_agents).sum();
        // Owners and logs are agents too, and none of the workload's.
        let middles = self.fleet.middles.get().map_or(0, Vec::len);
        live.saturating_sub((middles + self.logs.count() + self.supervisors) as u64)
    }

    /// The measured part: from the first due request to the end of the drain.
    pub(super) fn measure(
        &mut self,
        target: Target<'_>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Measured, DriveError> {
        // Every agent must hold its start message before the start; a million of them take about a
        // second here, so the start is put that far ahead.
        let start_ns = clock::monotonic_ns() + 100 * MS + self.plan.agents * 1_000;
        let left_ns = target.left_ns(self.plan);
        let mut writer = self.open_run(target, start_ns, progress)?;
        let mut end_ns = start_ns + left_ns;
        for shard in 0..self.shards {
            self.on(shard, move |_| recorder::with(|r| r.end_ns = end_ns))?;
        }
        let mut herd = self.knobs.as_ref().map(Knobs::herd);
        let mut mail = Looks::default();
        let continued = Arc::clone(&self.control.continued);
        let looks = (self.knobs.take(), Some(self.latency.sampler()));
        let mut watcher = Watcher::start(continued, looks)?;
        self.begin(start_ns)?;
        self.wait_until(start_ns);
        self.before = Before::read(self.runtime);
        self.restart_notes()?;
        self.stalls.restart(self.runtime, start_ns);
        self.start_ns = start_ns;
        self.windows.begin(start_ns);
        self.latency.restart_samples();
        let mut reason = "finished";
        // Stopped before the first request was due: nothing was measured, and nothing is recorded.
        let begun = clock::monotonic_ns() >= start_ns;
        while begun && reason == "finished" && clock::monotonic_ns() < end_ns {
            self.step(&mut writer, &watcher, end_ns, progress)?;
            if let Some(herd) = &mut herd {
                herd.look(|| self.stampede())?;
            }
            self.look_at_mail(&mut mail)?;
            if self.stopping() {
                reason = "interrupted";
                end_ns = end_ns.min(clock::monotonic_ns());
                self.end_load(end_ns)?;
            }
        }
        if begun {
            // A second that was closed late ends behind the last due instant: the drain goes on from there.
            if self.windows.second.from_ns < end_ns {
                self.close_second(end_ns, Phase::Issuing, progress)?;
            }
            self.drain(end_ns, progress)?;
        } else {
            (reason, end_ns) = ("interrupted", start_ns);
            self.end_load(start_ns)?;
        }
        watcher.end();
        self.note_gaps(&watcher, progress);
        let issued_ns = end_ns.saturating_sub(start_ns);
        self.finish(writer, (issued_ns, reason), progress)
    }

    /// Requests due at or after `end_ns` are not sent.
    fn end_load(&self, end_ns: u64) -> Result<(), DriveError> {
        for shard in 0..self.shards {
            self.on(shard, move |_| recorder::with(|r| r.end_ns = r.end_ns.min(end_ns)))?;
        }
        Ok(())
    }

    /// Waits until the next visit, visits, closes the second and the window when due.
    fn step(
        &mut self,
        writer: &mut RunWriter,
        watcher: &Watcher,
        end_ns: u64,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), DriveError> {
        let next_second = self.windows.second.from_ns + SECOND;
        let nap_ns = self.latency.nap_ns();
        self.wait_until((clock::monotonic_ns() + nap_ns).min(next_second).min(end_ns));
        self.look_at_open()?;
        if let Some(board) = &self.control.board {
            super::levels::tell(board, self.runtime);
        }
        let now = clock::monotonic_ns();
        if now >= next_second {
            self.note_gaps(watcher, progress);
            let full = now - self.windows.from_ns >= self.plan.observe.window_ns();
            self.close_second(now, if full { Phase::Window } else { Phase::Issuing }, progress)?;
            self.end_of_cost_second()?;
            if full {
                self.set_late(&self.windows.sets)?;
                let event = self.govern(self.latency.self_ns(), now - self.windows.from_ns)?;
                if event.is_some() {
                    progress(&Progress { phase: "measure", event, ..Progress::default() });
                }
                self.write_window(writer)?;
                self.checkpoint(writer, now)?;
            }
        }
        Ok(())
    }

    /// The second that was closed last, as its half of a pair.
    fn end_of_cost_second(&mut self) -> Result<(), DriveError> {
        let Some(last) = self.windows.seconds.last() else { return Ok(()) };
        let system = &self.windows.system;
        let half = overhead::Second {
            requests: last.counts.outcomes.ok + last.counts.outcomes.declined,
            mean_ns: system.mean().unwrap_or(0.0),
            p99_ns: system.quantile(0.99).map_or(0.0, |ns| ns as f64),
            ..overhead::Second::default()
        };
        self.second_of_cost((self.windows.number, self.windows.seconds.len()), half)
    }

    /// Sleeps until `until_ns` or a stop.
    pub(super) fn wait_until(&self, until_ns: u64) {
        while !self.stopping() {
            let now = clock::monotonic_ns();
            if now >= until_ns {
                break;
            }
            nap(until_ns - now);
        }
    }

    /// Takes over the gaps that touch the measured part.
    fn note_gaps(&mut self, watcher: &Watcher, progress: &mut dyn FnMut(&Progress)) {
        for gap in watcher.take() {
            // What ended before the first request was due is not part of the run.
            if gap.from_ns + gap.len_ns > self.start_ns {
                let event = Some(format!("{} {:.1} s", gap.cause, gap.len_ns as f64 / 1e9));
                self.windows.gaps.push(gap);
                progress(&Progress { phase: "measure", event, ..Progress::default() });
            }
        }
    }

    /// How old the oldest open request is, and how many are open, by visits to the cores. A core answers between two
    /// turns, and one that is taken late: these instants are not independent of the requests, and no mean is made of them.
    fn look_at_open(&mut self) -> Result<(), DriveError> {
        let (mut open, mut oldest) = (0u64, 0u64);
        for shard in 0..self.shards {
            let (len, age) = self.on(shard, |cx| {
                let now = cx.fresh_ns();
                recorder::with(|r| {
                    let age = r.open.oldest_sent_ns().map_or(0, |sent| now.saturating_sub(sent));
                    (r.open.len() as u64, age)
                })
            })?;
            open += len;
            oldest = oldest.max(age);
        }
        self.live.open = open;
        self.windows.second.oldest_open_ns = self.windows.second.oldest_open_ns.max(oldest);
        Ok(())
    }

    /// Takes what a core has recorded since the last visit, in one job: a request is in the counts or open.
    fn visit(&mut self, shard: usize, phase: Phase) -> Result<Handed, DriveError> {
        let mut spare = Some(self.windows.spare(shard));
        let mut empty = phase.ends_window().then(|| self.latency.spare(shard)).flatten();
        self.on(shard, move |cx| {
            let now = cx.fresh_ns();
            recorder::with(|r| {
                let spare = spare.take().unwrap_or_else(empty_set);
                Handed::take(r, now, phase, spare, empty.take())
            })
        })
    }

    /// Adds a second's histograms to the window's.
    fn gather(&mut self, shard: usize, set: SeriesSet) {
        if let Some(system) = set.get(Series::System as usize) {
            self.tell_latency(shard, system);
        }
        self.windows.gather(shard, set);
    }

    /// Closes the second at `now_ns`; returns what each core hands over at the end of the run.
    fn close_second(
        &mut self,
        now_ns: u64,
        phase: Phase,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Vec<Last>, DriveError> {
        let (mut counts, mut open, mut open_age_ns) = (SecondCounts::default(), 0, 0);
        let mut lasts = Vec::with_capacity(self.shards);
        self.windows.system.clear();
        let samples = self.latency.take_samples();
        self.windows.second.open_sum += samples.open;
        self.windows.second.open_samples += samples.taken;
        // Before the cores hand over a window, which it is a part of.
        self.note_fleet_second(self.windows.second.from_ns, now_ns);
        for shard in 0..self.shards {
            let handed = self.visit(shard, phase)?;
            counts.merge(&handed.counts);
            open += handed.open;
            open_age_ns += handed.open_age_ns;
            self.gather(shard, handed.set);
            if let Some(sheet) = handed.sheet {
                let span = (self.windows.number, self.windows.from_ns, now_ns);
                self.latency.gather(shard, sheet, span);
            }
            lasts.push(handed.last);
        }
        let (live_agents, issuing) = (self.live_agents(), phase.is_issuing());
        let ended = Ended { counts, live_agents, open, open_age_ns, issuing };
        let record = self.windows.second(now_ns, ended);
        let answered = record.counts.outcomes.ok + record.counts.outcomes.declined;
        let event = self.heap.as_mut().and_then(|heap| heap.tick(clock::monotonic_ns(), answered));
        if event.is_some() {
            progress(&Progress { phase: "measure", event, ..Progress::default() });
        }
        // Without length it began in the future: the run was stopped before its start. What was counted is never
        // dropped: the outcomes of a run would not add up.
        if record.len_ns > 0 || record.counts != SecondCounts::default() {
            progress(&self.progress(&record));
            self.tell(&record, self.live.rss_bytes);
            self.windows.seconds.push(record);
        }
        Ok(lasts)
    }

    fn progress(&self, record: &SecondRecord) -> Progress {
        let length_s = (record.len_ns as f64 / 1e9).max(1e-9);
        let outcomes = &record.counts.outcomes;
        let system = &self.windows.system;
        Progress {
            elapsed_s: self.elapsed_s(record),
            planned_s: self.plan.duration_ns as f64 / 1e9,
            phase: if record.issuing { "measure" } else { "drain" },
            live_agents: record.live_agents,
            attempts_per_s: outcomes.attempts as f64 / length_s,
            served_per_s: (outcomes.ok + outcomes.declined) as f64 / length_s,
            open: self.live.open,
            p50_ns: system.quantile(0.5),
            p99_ns: system.quantile(0.99),
            max_ns: system.max(),
            rss_bytes: self.live.rss_bytes,
            event: None,
        }
    }

    fn elapsed_s(&self, record: &SecondRecord) -> f64 {
        let window_s = self.plan.observe.window_ns() as f64 / 1e9;
        f64::from(self.windows.number) * window_s
            + (record.from_ns + record.len_ns).saturating_sub(self.windows.from_ns) as f64 / 1e9
    }

    /// After the last due instant: waits for the open requests, at most one timeout and a second.
    fn drain(
        &mut self,
        end_ns: u64,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), DriveError> {
        let limit_ns = end_ns + self.plan.timeout_ns + SECOND;
        loop {
            self.look_at_open()?;
            let now = clock::monotonic_ns();
            let hurry = self.control.hurry.load(Ordering::Relaxed);
            if self.live.open == 0 || now >= limit_ns || hurry {
                break;
            }
            if now >= self.windows.second.from_ns + SECOND {
                self.close_second(now, Phase::Draining, progress)?;
            }
            nap(NAP_NS);
        }
        Ok(())
    }

    /// Closes the last second with what is open then, so that an answer is either in an outcome or open at
    /// stop, and writes the last window.
    fn finish(
        &mut self,
        writer: RunWriter,
        (issued_ns, reason): (u64, &'static str),
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Measured, DriveError> {
        self.end_stalls();
        let lasts = self.close_second(clock::monotonic_ns(), Phase::Last, progress)?;
        // Whoever looks for messages again and again does so no more.
        self.end_load(0)?;
        self.note_waits(writer.dir(), progress);
        let mut measured = Measured {
            writer,
            reason,
            issued_ns,
            open_at_stop: 0,
            lost: 0,
            agents: PerAgent::default(),
            planted: planted(self.plan, &lasts),
            slowed: slowed(self.plan, &lasts),
            saturated: Vec::new(),
            protocol: self.protocol_counts()?,
        };
        let open = self.windows.seconds.last().map_or(0, |second| second.open_end);
        measured.lost = lasts.iter().map(|last| last.lost).sum();
        measured.open_at_stop = open.saturating_sub(measured.lost);
        // The last state is that of this instant: what ends with the run is no part of it.
        drop(self.heap.take());
        measured.agents = per_agent(lasts, self.fleet.agents as usize);
        self.write_window(&mut measured.writer)?;
        measured.saturated = self.saturate(progress)?;
        self.unobserve()?;
        Ok(measured)
    }
}

/// Sleeps, but not so long that a stop would be seen late.
fn nap(ns: u64) {
    std::thread::park_timeout(Duration::from_nanos(ns.min(NAP_NS)));
}
