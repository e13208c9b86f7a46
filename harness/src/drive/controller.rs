//! The housekeeping thread's part of a run.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tailbeam_probes::clock;
use tailbeam_probes::collect::{heap, host, process};
use tailbeam_probes::stats::Histogram;
use tailbeam_runtime::{Runtime, ShardStats};

use super::watch::{Look, WATCH_NS, Watch};
use super::writer::RunWriter;
use super::{Control, DriveError, Progress};
use crate::evidence::Store;
use crate::evidence::records::{
    CoreRecord, EndRecord, Gap, Manifest, Reading, SecondRecord, WindowRecord,
};
use crate::load::{Fleet, SecondCounts, Series, SeriesSet, Workload, empty_set, recorder};
use crate::plan::Plan;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Sampling of the open requests.
const SAMPLE_NS: u64 = 100 * MS;
/// A window on disk.
const WINDOW_NS: u64 = 10 * SECOND;
/// How the measured part of a run ended.
pub(super) struct Measured {
    writer: RunWriter,
    reason: &'static str,
    issued_ns: u64,
    open_at_stop: u64,
    lost: u64,
    attempts: Vec<u32>,
    completions: Vec<u32>,
}

pub(super) struct Controller<'a, W: Workload> {
    pub(super) plan: &'a Plan,
    control: &'a Control,
    /// Taken by the end of the run.
    runtime: &'a Runtime,
    pub(super) fleet: Arc<Fleet<W>>,
    pub(super) limits: Vec<u64>,
    pub(super) shards: usize,
    second: Second,
    window: Window,
    watch: Watch,
    /// Read when the first request was due: what came before is not part of the run.
    before: Before,
}

/// Counters at the start of the measured part.
struct Before {
    cpu_ns: Result<u64, tailbeam_probes::Unavailable>,
    cores: Vec<ShardStats>,
    run_delays: Vec<Delay>,
}

type Delay = Result<u64, tailbeam_probes::Unavailable>;

fn run_delays(cores: &[ShardStats]) -> Vec<Delay> {
    cores.iter().map(|core| process::run_delay_ns(core.thread_id)).collect()
}

impl Before {
    fn read(runtime: &Runtime) -> Self {
        let cores = runtime.stats();
        Self { cpu_ns: process::cpu_time_ns(), run_delays: run_delays(&cores), cores }
    }
}

/// What has been gathered of the current second.
#[derive(Default)]
struct Second {
    from_ns: u64,
    open_sum: u64,
    open_samples: u64,
    open_last: u64,
    oldest_open_ns: u64,
}

/// What has been gathered of the current window.
#[derive(Default)]
struct Window {
    number: u32,
    from_ns: u64,
    seconds: Vec<SecondRecord>,
    gaps: Vec<Gap>,
    rss_bytes: Option<u64>,
    live_quantiles: Option<(u64, u64, u64)>,
}

impl<'a, W: Workload> Controller<'a, W> {
    pub(super) fn new(
        plan: &'a Plan,
        control: &'a Control,
        runtime: &'a Runtime,
        limits: Vec<u64>,
    ) -> Result<Self, DriveError> {
        let agents = u32::try_from(plan.agents)
            .map_err(|_| DriveError::TooMany { what: "agents", asked: plan.agents })?;
        let fleet = Arc::new(Fleet {
            plan: plan.clone(),
            agents,
            addresses: OnceLock::new(),
            workload: PhantomData,
        });
        Ok(Self {
            plan,
            control,
            runtime,
            fleet,
            limits,
            shards: runtime.shards(),
            second: Second::default(),
            window: Window::default(),
            watch: Watch::default(),
            before: Before::read(runtime),
        })
    }

    fn stopping(&self) -> bool {
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
        self.runtime.stats().iter().map(|shard| shard.live_agents).sum()
    }

    /// The measured part: from the first due request to the end of the drain.
    pub(super) fn measure(
        &mut self,
        store: &Store,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Measured, DriveError> {
        // Every agent must hold its start message before the start; a million of them take about a
        // second here, so the start is put that far ahead.
        let start_ns = clock::monotonic_ns() + 100 * MS + self.plan.agents * 1_000;
        let mut writer = self.open_run(store, start_ns, progress)?;
        let mut end_ns = start_ns + self.plan.duration_ns;
        for shard in 0..self.shards {
            self.on(shard, move |_| recorder::with(|r| r.end_ns = end_ns))?;
        }
        self.begin(start_ns)?;
        self.wait_until(start_ns)?;
        self.before = Before::read(self.runtime);
        self.second.from_ns = start_ns;
        self.window.from_ns = start_ns;
        let mut reason = "finished";
        while clock::monotonic_ns() < end_ns {
            self.step(&mut writer, end_ns, true, progress)?;
            if self.stopping() {
                reason = "interrupted";
                end_ns = end_ns.min(clock::monotonic_ns());
                for shard in 0..self.shards {
                    self.on(shard, move |_| recorder::with(|r| r.end_ns = r.end_ns.min(end_ns)))?;
                }
            }
        }
        self.close_second(end_ns, true, progress)?;
        self.drain(end_ns, progress)?;
        self.finish(writer, end_ns.saturating_sub(start_ns), reason, progress)
    }

    fn open_run(
        &self,
        store: &Store,
        start_ns: u64,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<RunWriter, DriveError> {
        let unix_ns = clock::realtime_ns();
        let (id, dir) = store.create_run(unix_ns)?;
        let host = host::describe();
        let manifest = Manifest {
            id: id.clone(),
            recorded_by: env!("CARGO_PKG_VERSION").to_owned(),
            workload: self.plan.workload.clone(),
            started_unix_ns: unix_ns,
            start_ns,
            plan_sha256: String::new(),
            cores: self.runtime.cores().iter().map(|&core| core as u64).collect(),
            limits_ns: self.limits.clone(),
            host: crate::host::one_line(&host),
        };
        progress(&Progress {
            phase: "measure",
            event: Some(format!("run {id}")),
            ..Progress::default()
        });
        RunWriter::create(&dir, self.plan, manifest, &crate::host::json(&host))
    }

    /// Waits one watch period, notes a gap, samples, closes the second and the window when due.
    fn step(
        &mut self,
        writer: &mut RunWriter,
        end_ns: u64,
        issuing: bool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), DriveError> {
        let next_second = self.second.from_ns + SECOND;
        let until = (clock::monotonic_ns() + SAMPLE_NS).min(next_second).min(end_ns);
        self.watch_until(until, issuing, progress);
        self.sample()?;
        let now = clock::monotonic_ns();
        if now >= next_second {
            self.close_second(now, issuing, progress)?;
            if now - self.window.from_ns >= WINDOW_NS {
                self.look(false, progress);
                self.write_window(writer)?;
                self.look(true, progress);
            }
        }
        Ok(())
    }

    fn wait_until(&mut self, until_ns: u64) -> Result<(), DriveError> {
        while !self.stopping() {
            let now = clock::monotonic_ns();
            if now >= until_ns {
                break;
            }
            std::thread::park_timeout(Duration::from_nanos((until_ns - now).min(WATCH_NS)));
        }
        Ok(())
    }

    /// Sleeps in watch periods and looks for gaps; ends at once at a stop while requests are `issuing`.
    fn watch_until(&mut self, until_ns: u64, issuing: bool, progress: &mut dyn FnMut(&Progress)) {
        loop {
            let now_ns = self.look(false, progress);
            if now_ns >= until_ns || (issuing && self.stopping()) {
                return;
            }
            std::thread::park_timeout(Duration::from_nanos((until_ns - now_ns).min(WATCH_NS)));
        }
    }

    fn look(&mut self, blocking: bool, progress: &mut dyn FnMut(&Progress)) -> u64 {
        let now_ns = clock::monotonic_ns();
        let continued = self.control.continued.load(Ordering::Relaxed);
        let cpu_ns = process::cpu_time_ns().ok();
        let gap = self.watch.look(Look { now_ns, cpu_ns, continued }, blocking);
        self.note(gap, progress);
        now_ns
    }

    fn note(&mut self, gap: Option<Gap>, progress: &mut dyn FnMut(&Progress)) {
        let Some(gap) = gap else { return };
        let event = Some(format!("{} {:.1} s", gap.cause, gap.len_ns as f64 / 1e9));
        self.window.gaps.push(gap);
        progress(&Progress { phase: "measure", event, ..Progress::default() });
    }

    fn sample(&mut self) -> Result<(), DriveError> {
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
        self.second.open_sum += open;
        self.second.open_samples += 1;
        self.second.open_last = open;
        self.second.oldest_open_ns = self.second.oldest_open_ns.max(oldest);
        Ok(())
    }

    fn close_second(
        &mut self,
        now_ns: u64,
        issuing: bool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), DriveError> {
        let mut counts = SecondCounts::default();
        for shard in 0..self.shards {
            let mine = self.on(shard, |_| recorder::with(|r| std::mem::take(&mut r.second)))?;
            counts.merge(&mine);
        }
        self.record_second(counts, now_ns, issuing, progress);
        Ok(())
    }

    fn record_second(
        &mut self,
        counts: SecondCounts,
        now_ns: u64,
        issuing: bool,
        progress: &mut dyn FnMut(&Progress),
    ) {
        let second =
            std::mem::replace(&mut self.second, Second { from_ns: now_ns, ..Second::default() });
        let record = SecondRecord {
            from_ns: second.from_ns,
            len_ns: now_ns.saturating_sub(second.from_ns),
            counts,
            live_agents: self.live_agents(),
            open_sum: second.open_sum,
            open_samples: second.open_samples,
            oldest_open_ns: second.oldest_open_ns,
            issuing,
        };
        progress(&self.progress(&record, second.open_last));
        self.window.seconds.push(record);
    }

    fn progress(&self, record: &SecondRecord, open: u64) -> Progress {
        let length_s = (record.len_ns as f64 / 1e9).max(1e-9);
        let outcomes = &record.counts.outcomes;
        let quantiles = self.window.live_quantiles;
        Progress {
            elapsed_s: self.elapsed_s(record),
            planned_s: self.plan.duration_ns as f64 / 1e9,
            phase: if record.issuing { "measure" } else { "drain" },
            live_agents: record.live_agents,
            attempts_per_s: outcomes.attempts as f64 / length_s,
            served_per_s: (outcomes.ok + outcomes.declined) as f64 / length_s,
            open,
            p50_ns: quantiles.map(|q| q.0),
            p99_ns: quantiles.map(|q| q.1),
            max_ns: quantiles.map(|q| q.2),
            rss_bytes: self.window.rss_bytes,
            event: None,
        }
    }

    fn elapsed_s(&self, record: &SecondRecord) -> f64 {
        let windows = f64::from(self.window.number) * (WINDOW_NS as f64 / 1e9);
        windows + (record.from_ns + record.len_ns).saturating_sub(self.window.from_ns) as f64 / 1e9
    }

    fn write_window(&mut self, writer: &mut RunWriter) -> Result<(), DriveError> {
        let sets = self.take_histograms()?;
        let memory = process::memory();
        let window = std::mem::take(&mut self.window);
        let now_ns = clock::monotonic_ns();
        let pss = memory.as_ref().ok().and_then(|m| m.pss_bytes).ok_or_else(no_pss);
        let rss_bytes = memory.as_ref().ok().map(|m| m.rss_bytes);
        let record = WindowRecord {
            window: window.number,
            seconds: window.seconds,
            cores: self.core_records(),
            rss_bytes: reading(memory.map(|m| m.rss_bytes)),
            pss_bytes: reading(pss),
            live_bytes: reading(heap::live().map(|live| live.bytes)),
            cpu_ns: reading(self.cpu_since_start()),
            gaps: window.gaps,
        };
        writer.window(now_ns, &record, &sets)?;
        let mut merged = Histogram::new();
        for set in &sets {
            merged.merge(&set[Series::System as usize]);
        }
        self.window = Window {
            number: record.window + 1,
            from_ns: record.seconds.last().map_or(now_ns, |s| s.from_ns + s.len_ns),
            rss_bytes,
            live_quantiles: merged
                .quantile(0.5)
                .zip(merged.quantile(0.99))
                .zip(merged.max())
                .map(|((a, b), c)| (a, b, c)),
            ..Window::default()
        };
        Ok(())
    }

    fn cpu_since_start(&self) -> Result<u64, tailbeam_probes::Unavailable> {
        let start = self.before.cpu_ns.as_ref().map_err(Clone::clone)?;
        Ok(process::cpu_time_ns()?.saturating_sub(*start))
    }

    fn core_records(&self) -> Vec<CoreRecord> {
        let now = self.runtime.stats();
        let delays = run_delays(&now).into_iter().zip(&self.before.run_delays);
        let delays = delays.map(|(now, before)| Ok(now? - before.as_ref().map_err(Clone::clone)?));
        let cores = now.iter().zip(&self.before.cores).zip(delays);
        cores.map(|((now, before), delay)| core_record(now, before, reading(delay))).collect()
    }

    /// Swaps every core's histograms for empty ones that were made here, off the cores.
    fn take_histograms(&self) -> Result<Vec<SeriesSet>, DriveError> {
        (0..self.shards)
            .map(|shard| {
                let spare = empty_set();
                self.on(shard, move |_| {
                    let mut spare = Some(spare);
                    recorder::with(|r| {
                        spare.take().map(|empty| std::mem::replace(&mut r.set, empty))
                    })
                    .unwrap_or_default()
                })
            })
            .collect()
    }

    /// After the last due instant: waits for the open requests, at most one timeout and a second.
    fn drain(
        &mut self,
        end_ns: u64,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(), DriveError> {
        let limit_ns = end_ns + self.plan.timeout_ns + SECOND;
        loop {
            self.sample()?;
            let now = clock::monotonic_ns();
            let hurry = self.control.hurry.load(Ordering::Relaxed);
            if self.second.open_last == 0 || now >= limit_ns || hurry {
                break;
            }
            if now >= self.second.from_ns + SECOND {
                self.close_second(now, false, progress)?;
            }
            self.watch_until(now + WATCH_NS, false, progress);
        }
        self.look(false, progress);
        let gap = self.watch.settle(self.control.continued.load(Ordering::Relaxed));
        self.note(gap, progress);
        Ok(())
    }

    /// Takes the last counts of every core together with what is open there, so that an answer is either
    /// in an outcome or open at stop, and writes the last window.
    fn finish(
        &mut self,
        writer: RunWriter,
        issued_ns: u64,
        reason: &'static str,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Measured, DriveError> {
        let agents = self.fleet.agents as usize;
        let mut measured = Measured {
            writer,
            reason,
            issued_ns,
            open_at_stop: 0,
            lost: 0,
            attempts: vec![0; agents],
            completions: vec![0; agents],
        };
        let mut counts = SecondCounts::default();
        for shard in 0..self.shards {
            let (second, attempts, completions, open, lost) = self.on(shard, |cx| {
                let now = cx.fresh_ns();
                recorder::with(|r| {
                    let lost = r.open.iter().filter(|open| open.deadline_ns <= now).count() as u64;
                    let open = r.open.len() as u64 - lost;
                    (
                        std::mem::take(&mut r.second),
                        r.attempts.clone(),
                        r.completions.clone(),
                        open,
                        lost,
                    )
                })
            })?;
            counts.merge(&second);
            measured.open_at_stop += open;
            measured.lost += lost;
            for (local, (attempts, completions)) in
                attempts.into_iter().zip(completions).enumerate()
            {
                measured.attempts[local * self.shards + shard] = attempts;
                measured.completions[local * self.shards + shard] = completions;
            }
        }
        self.record_second(counts, clock::monotonic_ns(), false, progress);
        self.write_window(&mut measured.writer)?;
        Ok(measured)
    }
}

fn no_pss() -> tailbeam_probes::Unavailable {
    tailbeam_probes::Unavailable {
        source: "/proc/self/smaps_rollup",
        cause: "the kernel gives no smaps_rollup for this process".to_owned(),
        remedy: "use a kernel with CONFIG_PROC_PAGE_MONITOR".to_owned(),
    }
}

fn reading(value: Result<u64, tailbeam_probes::Unavailable>) -> Reading {
    match value {
        Ok(value) => Reading::Value(value),
        Err(gone) => Reading::Missing { unknown: gone.cause, remedy: gone.remedy },
    }
}

fn core_record(stats: &ShardStats, before: &ShardStats, run_delay_ns: Reading) -> CoreRecord {
    CoreRecord {
        core: stats.core as u64,
        agents: stats.live_agents,
        panicked: stats.panicked,
        turns: stats.turns - before.turns,
        doorbells: stats.doorbells - before.doorbells,
        enters: stats.enters - before.enters,
        busy_ns: stats.busy_ns - before.busy_ns,
        parked_ns: stats.parked_ns - before.parked_ns,
        run_delay_ns,
        timer_late_max_ns: stats.timer_late_max_ns,
        dead_letters: stats.dead_letters,
        state_bytes: stats.state_bytes,
    }
}

/// Writes the last frames. The runtime has ended by now, so its own report is part of them.
pub(super) fn seal(
    mut measured: Measured,
    drained: bool,
    agents_panicked: u64,
) -> Result<PathBuf, DriveError> {
    let end = EndRecord {
        reason: measured.reason.to_owned(),
        issued_ns: measured.issued_ns,
        open_at_stop: measured.open_at_stop,
        lost: measured.lost,
        drained,
        agents_panicked,
    };
    let now_ns = clock::monotonic_ns();
    measured.writer.finish(now_ns, &measured.attempts, &measured.completions, &end)?;
    Ok(measured.writer.dir().to_owned())
}
