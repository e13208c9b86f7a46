//! Watches a program that knows nothing of us: counts of its threads and of the cores, times off the
//! CPU, and a CPU profile, over all that it starts. The program is neither changed nor stopped.
//!
//! Counts come from /proc, which needs no privilege, and from groups of counters for what /proc does not
//! know. Who is there comes from the rings' records (complete), and where those are refused from looks at
//! /proc (a thread that comes and goes between two looks is not seen; the program's total has it).
//! Refusals are modes and never errors: what is missing is in [`Watch::modes`] and in each count.
//!
//! Cost: a look reads three files per thread, about 10 us; a sample is 15 us in this VM.

pub(super) mod build_id;
mod cores;
mod reasons;
mod stacks;
mod table;
mod task;

use std::collections::HashMap;

use super::perf::{CounterBackend as _, Kind, Support, TaskGroup};
use super::profile::{Event, Told, TreeOptions, TreeProfiler};
use super::sys;
use crate::record::program::{
    Mode, ModuleRow, OTHERS, OffWindow, ProgramSamples, ProgramStacks, ProgramTick, ProgramTotal,
    RingCounts, SampleRow, Why,
};
use crate::{Unavailable, clock};
use cores::Cores;
use stacks::Stacks;
pub use stacks::placed;
use table::{Bounds, Table};

/// A record may be on its way into its ring for so long after its instant, ns.
const SETTLE_NS: u64 = 5_000_000;
/// Processes of a program that are looked at.
const PROCESSES_MAX: usize = 4_096;
/// Threads of which one is off the CPU at a time.
const OFF_MAX: usize = 1 << 16;

/// How to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// Rings; `hz` 0 for no profile.
    pub tree: TreeOptions,
    /// Threads that are in the table at once.
    pub threads_max: usize,
    /// Threads that have groups of counters at once, five to nine descriptors each.
    pub groups_max: usize,
    /// CPUs that have groups of counters, eight descriptors each.
    pub cores_max: usize,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { tree: TreeOptions::default(), threads_max: 4_096, groups_max: 64, cores_max: 1_024 }
    }
}

/// What a look found; the parts are written in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Counts, and the threads that samples refer to.
    pub tick: ProgramTick,
    /// Stacks that samples refer to.
    pub stacks: ProgramStacks,
    /// Samples.
    pub samples: ProgramSamples,
}

/// Why a process cannot be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// There is none of this id.
    NoSuch,
    /// It has ended, and its parent has not noticed yet.
    Ended,
    /// It is a thread of the kernel.
    Kernel,
    /// It belongs to another user, or keeps its memory to itself.
    Refused(String),
    /// The id is that of a thread of this process.
    Thread(u32),
}

/// Watches a program.
#[derive(Debug)]
pub struct Watch {
    tree: Result<TreeProfiler, Unavailable>,
    options: WatchOptions,
    table: Table,
    cores: Cores,
    stacks: Stacks,
    /// Processes of the program that live, with the tick of their start.
    processes: HashMap<u32, u64>,
    /// Threads of which we know that the rings have them.
    left_out: u64,
    refused_late: Option<Unavailable>,
    off: HashMap<u32, (u64, bool)>,
    off_windows: HashMap<u32, OffWindow>,
    samples: Vec<(u64, SampleRow)>,
    ring: RingCounts,
    from_ns: u64,
    first: u32,
    attached: bool,
    before: ProgramTotal,
    self_ns: u64,
}

impl Watch {
    /// For a program that the calling thread will start next; say so with [`started`](Self::started).
    #[must_use]
    pub fn launching(options: WatchOptions) -> Self {
        let tree = TreeProfiler::launching(options.tree);
        Self::new(options, tree, sys::children_usage())
    }

    fn new(
        options: WatchOptions,
        tree: Result<TreeProfiler, Unavailable>,
        before: ProgramTotal,
    ) -> Self {
        let bounds = Bounds { threads: options.threads_max, groups: options.groups_max };
        let now_ns = clock::monotonic_ns();
        Self {
            tree,
            options,
            table: Table::new(bounds),
            cores: Cores::open(&super::profile::online(), options.cores_max),
            stacks: Stacks::default(),
            processes: HashMap::new(),
            left_out: 0,
            refused_late: None,
            off: HashMap::new(),
            off_windows: HashMap::new(),
            samples: Vec::new(),
            ring: RingCounts::default(),
            from_ns: now_ns,
            first: 0,
            attached: false,
            before,
            self_ns: clock::thread_cpu_ns(),
        }
    }

    /// The program was started, as this process.
    pub fn started(&mut self, process: u32) {
        self.first = process;
        self.processes.insert(process, task::process(process).map_or(0, |stat| stat.started));
    }

    /// So many threads may have groups of counters at once, from now on.
    pub const fn allow(&mut self, groups_max: usize) {
        self.options.groups_max = groups_max;
        self.table.allow(groups_max);
    }

    /// CPUs of the host.
    #[must_use]
    pub fn cpus(&self) -> Vec<u32> {
        super::profile::online()
    }

    /// Watches a process that runs already, and what it will start from now on.
    ///
    /// # Errors
    /// [`AttachError`] when there is nothing to watch; a refusal of perf is no error.
    pub fn attach(process: u32, options: WatchOptions) -> Result<Self, AttachError> {
        let stat = task::process(process).ok_or(AttachError::NoSuch)?;
        if stat.is_kernel_thread() {
            return Err(AttachError::Kernel);
        }
        if stat.is_dead() {
            return Err(AttachError::Ended);
        }
        let leader = leader(process);
        if leader.is_some_and(|leader| leader != process) {
            return Err(AttachError::Thread(leader.unwrap_or(process)));
        }
        // What the kernel lets us trace, it lets us read.
        if let Err(error) = std::fs::File::open(format!("/proc/{process}/maps")) {
            return Err(match error.raw_os_error() {
                Some(libc::ENOENT | libc::ESRCH) => AttachError::Ended,
                _ => AttachError::Refused(error.to_string()),
            });
        }
        let tree = TreeProfiler::attach(process, options.tree);
        let mut watch = Self::new(options, tree, process_total(process).unwrap_or_default());
        watch.attached = true;
        watch.first = process;
        watch.processes.insert(process, stat.started);
        let now_ns = clock::monotonic_ns();
        watch.adopt(process, now_ns);
        watch.stacks.read_maps(process);
        match task::process(process).filter(|now| now.started == stat.started && !now.is_dead()) {
            Some(_) => Ok(watch),
            None => Err(AttachError::Ended),
        }
    }

    /// Takes every thread of a process that runs already. Threads that come meanwhile inherit the events,
    /// or are in the next list: it is read until nothing is new.
    fn adopt(&mut self, process: u32, now_ns: u64) {
        for _ in 0..4 {
            let fresh: Vec<u32> = task::threads(process)
                .into_iter()
                .filter(|&thread| self.table.known(thread).is_none())
                .collect();
            if fresh.is_empty() {
                return;
            }
            for thread in fresh {
                self.table.row(process, thread, now_ns, true);
                // The first thread's events are open already.
                let Some(tree) = self.tree.as_mut().ok().filter(|_| thread != process) else {
                    continue;
                };
                if let Err(why) = tree.adopt(thread) {
                    self.refused_late = Some(why);
                }
            }
        }
    }

    /// Reads the rings; a few times a second, so that they do not fill.
    pub fn drain(&mut self, now_ns: u64) {
        self.drain_until(now_ns.saturating_sub(SETTLE_NS));
        self.table.meet();
    }

    fn drain_until(&mut self, until_ns: u64) {
        let Ok(mut tree) = std::mem::replace(&mut self.tree, Err(moved())) else { return };
        let drained = tree.drain(until_ns, |event| self.take(event));
        self.tree = Ok(tree);
        self.ring.samples += drained.samples;
        self.ring.lost += drained.lost;
        self.ring.throttled += drained.throttled;
        self.ring.broken += drained.broken;
        self.ring.cut += drained.cut;
    }

    fn take(&mut self, event: Event) {
        let Event { at_ns, process, thread, told } = event;
        match told {
            Told::Sample { cpu, kernel, user, cut } => {
                let stack = self.stacks.stack(process, &kernel, &user, cut);
                let thread = self.table.row(process, thread, at_ns, false);
                self.samples.push((at_ns, SampleRow { after_ns: 0, thread, cpu, stack }));
            }
            Told::Map { from, len, offset, path, build_id } => {
                self.stacks.map(process, (from, len), offset, ModuleRow { path, build_id });
            }
            Told::Name { name, exec } => {
                if exec {
                    self.stacks.executed(process);
                }
                self.table.row(process, thread, at_ns, false);
                self.table.name(thread, &name);
            }
            Told::Began { parent, by } => {
                if parent != process {
                    self.stacks.forked(parent, process);
                    self.add_process(process);
                }
                self.table.began(thread, at_ns);
                self.table.row(process, thread, at_ns, false);
                self.table.inherit_name(thread, by);
            }
            Told::Ended => {
                self.table.ended(thread, at_ns);
                self.off.remove(&thread);
                if process == thread {
                    self.stacks.ended(process);
                }
            }
            Told::Left { preempted } => {
                if self.off.len() < OFF_MAX {
                    self.off.insert(thread, (at_ns, preempted));
                }
            }
            Told::Came => self.came(thread, at_ns),
        }
    }

    fn came(&mut self, thread: u32, at_ns: u64) {
        let Some((since, preempted)) = self.off.remove(&thread) else { return };
        let Some(row) = self.table.known(thread) else { return };
        let window = self.off_windows.entry(row).or_default();
        window.thread = row;
        let kind = if preempted { &mut window.preempted } else { &mut window.blocked };
        let length = at_ns.saturating_sub(since);
        *kind = (kind.0 + 1, kind.1 + length, kind.2.max(length));
    }

    fn add_process(&mut self, process: u32) {
        if self.processes.len() < PROCESSES_MAX {
            let started = task::process(process).map_or(0, |stat| stat.started);
            self.processes.entry(process).or_insert(started);
        }
    }

    /// Looks at all threads and cores, and gives what happened since the last look.
    pub fn look(&mut self, now_ns: u64) -> Batch {
        self.drain(now_ns);
        let seen = self.scan(now_ns);
        self.batch(now_ns, &seen)
    }

    /// The last look: also what the rings' settling time held back.
    pub fn last_look(&mut self, now_ns: u64) -> Batch {
        self.drain_until(u64::MAX);
        let seen = self.scan(now_ns);
        self.batch(now_ns, &seen)
    }

    /// Threads that live, by process.
    fn scan(&mut self, now_ns: u64) -> HashMap<u32, u32> {
        let mut seen = HashMap::new();
        let mut waiting: Vec<u32> = self.processes.keys().copied().collect();
        self.left_out = 0;
        while let Some(process) = waiting.pop() {
            let stat = task::process(process);
            let started = self.processes.get(&process).copied().unwrap_or(0);
            let Some(stat) = stat.filter(|stat| started == 0 || stat.started == started) else {
                self.processes.remove(&process);
                continue;
            };
            self.processes.insert(process, stat.started);
            for thread in task::threads(process) {
                if self.table.row(process, thread, now_ns, false) == OTHERS {
                    self.left_out += 1;
                    continue;
                }
                seen.insert(thread, process);
                for child in task::children(process, thread) {
                    // Children that an attached program had before us are not ours.
                    let old = self.attached
                        && task::process(child).is_some_and(|child| child.started <= stat.started);
                    if !self.processes.contains_key(&child) && !old {
                        self.add_process(child);
                        waiting.push(child);
                    }
                }
            }
        }
        seen
    }

    fn batch(&mut self, now_ns: u64, seen: &HashMap<u32, u32>) -> Batch {
        let (threads, ended) = self.table.look(now_ns, seen);
        let cores = self.cores.look(&mut self.table.reasons);
        let (born, renamed) = self.table.fresh();
        let cpu_ns = clock::thread_cpu_ns();
        let mut off_cpu: Vec<OffWindow> = self.off_windows.drain().map(|(_, w)| w).collect();
        off_cpu.sort_by_key(|window| window.thread);
        let tick = ProgramTick {
            from_ns: self.from_ns,
            to_ns: now_ns,
            reasons: self.table.reasons.fresh(),
            born,
            renamed,
            ended,
            threads,
            off_cpu,
            cores,
            left_out: self.left_out,
            ring: std::mem::take(&mut self.ring),
            self_ns: cpu_ns.saturating_sub(self.self_ns),
        };
        self.self_ns = cpu_ns;
        self.from_ns = now_ns;
        let from_ns = self.samples.first().map_or(now_ns, |(at_ns, _)| *at_ns);
        let samples = self
            .samples
            .drain(..)
            .map(|(at_ns, row)| SampleRow { after_ns: at_ns.saturating_sub(from_ns), ..row })
            .collect();
        let samples = ProgramSamples { from_ns, samples };
        Batch { tick, stacks: self.stacks.fresh(), samples }
    }

    /// Whether a process of the program still lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.processes.iter().any(|(&process, &started)| {
            task::process(process)
                .is_some_and(|stat| (started == 0 || stat.started == started) && !stat.is_dead())
        })
    }

    /// Whether the first process still lives.
    #[must_use]
    pub fn first_lives(&self) -> bool {
        let started = self.processes.get(&self.first).copied();
        task::process(self.first)
            .is_some_and(|stat| Some(stat.started) == started && !stat.is_dead())
    }

    /// The kernel's totals since the start: of a program that we started once it was waited for; of an
    /// attached process while it lives.
    #[must_use]
    pub fn total(&self) -> Option<ProgramTotal> {
        let now = match self.attached {
            false => sys::children_usage(),
            true => process_total(self.first)?,
        };
        Some(less(&now, &self.before))
    }

    /// Samples that had no room in the table of stacks.
    #[must_use]
    pub const fn samples_without_stack(&self) -> u64 {
        self.stacks.no_room
    }

    /// CPU time between two samples of a thread, ns.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        self.tree.as_ref().map_or(0, TreeProfiler::period_ns)
    }

    /// Threads in the table.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.table.len()
    }

    /// Threads of the table with their processes.
    pub fn listed(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.table.threads()
    }

    /// How each part works here, and what is missing.
    #[must_use]
    pub fn modes(&self) -> Vec<Mode> {
        vec![self.profile_mode(), self.counters_mode(), self.off_mode(), self.cores_mode()]
    }

    fn profile_mode(&self) -> Mode {
        let mut missing = Vec::new();
        let hz = self.options.tree.hz;
        let works = match &self.tree {
            Err(why) => {
                missing.push(("samples".to_owned(), Why::from(why)));
                missing
                    .push(("threads and processes between two looks".to_owned(), Why::from(why)));
                "nothing".to_owned()
            }
            Ok(_) if hz == 0 => "births and ends of threads and processes".to_owned(),
            Ok(tree) => {
                if !tree.kernel() {
                    let level = super::perf::paranoid();
                    let why = super::perf::explain(libc::EACCES, level);
                    missing.push(("the kernel's side".to_owned(), Why::from(&why)));
                }
                format!("{hz} Hz of each thread's CPU time, call chains by frame pointers")
            }
        };
        if let Some(why) = &self.refused_late {
            missing.push(("samples of some threads".to_owned(), Why::from(why)));
        }
        Mode { part: "profile".to_owned(), works, missing }
    }

    fn counters_mode(&self) -> Mode {
        let own = TaskGroup::open(rustix::thread::gettid().as_raw_nonzero().get());
        let (works, missing) = match own {
            Err(why) => (String::new(), vec![("migrations, hardware counters".to_owned(), why)]),
            Ok(group) => {
                let works = format!(", groups of up to {} threads", self.options.groups_max);
                (works, missing_kinds(group.support()))
            }
        };
        let missing = missing.iter().map(|(what, why)| (what.clone(), Why::from(why))).collect();
        let works = format!("CPU time, faults and switches by /proc{works}");
        Mode { part: "counters".to_owned(), works, missing }
    }

    fn off_mode(&self) -> Mode {
        let (mut works, mut missing) = ("waiting by schedstat".to_owned(), Vec::new());
        match (&self.tree, self.options.tree.switches) {
            (Ok(_), true) => works += ", each interval by switch records",
            (Err(why), true) => missing.push(("intervals".to_owned(), Why::from(why))),
            (_, false) => missing.push((
                "single intervals".to_owned(),
                Why {
                    source: "switch records".to_owned(),
                    cause: "not asked for: they cost about 1 us per switch".to_owned(),
                    remedy: "record --switches".to_owned(),
                },
            )),
        }
        Mode { part: "off-cpu".to_owned(), works, missing }
    }

    fn cores_mode(&self) -> Mode {
        let works = "busy, idle, interrupts and steal by /proc/stat, in ticks of 10 ms".to_owned();
        let mut missing = Vec::new();
        if let Some(why) = self.cores.no_times() {
            missing.push(("times".to_owned(), Why::from(why)));
        }
        if let Some(why) = self.cores.refused() {
            missing.push(("counters of whole CPUs".to_owned(), Why::from(why)));
        }
        Mode { part: "cores".to_owned(), works, missing }
    }
}

fn moved() -> Unavailable {
    Unavailable { source: "profile", cause: "in use".to_owned(), remedy: "none".to_owned() }
}

/// Kinds that no group has here, those of one reason together.
fn missing_kinds(support: &Support) -> Vec<(String, Unavailable)> {
    let mut missing: Vec<(String, Unavailable)> = Vec::new();
    for kind in Kind::HARDWARE.into_iter().chain([Kind::Migrations]) {
        let Err(why) = support.of(kind) else { continue };
        match missing.iter_mut().find(|(_, known)| known == why) {
            Some((names, _)) => *names += &format!(", {}", kind.name()),
            None => missing.push((kind.name().to_owned(), why.clone())),
        }
    }
    missing
}

/// The process of a thread's id; `None` when /proc does not say.
fn leader(thread: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// What /proc knows of a process and of its dead threads.
fn process_total(process: u32) -> Option<ProgramTotal> {
    let stat = task::process(process)?;
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let (user, system) = stat.children_ticks;
    Some(ProgramTotal {
        user_ns: (stat.user_ticks + user) * tick_ns,
        system_ns: (stat.system_ticks + system) * tick_ns,
        minor_faults: stat.minor_faults,
        major_faults: stat.major_faults,
        ..ProgramTotal::default()
    })
}

fn less(now: &ProgramTotal, before: &ProgramTotal) -> ProgramTotal {
    let both = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_sub(b.unwrap_or(0)));
    ProgramTotal {
        user_ns: now.user_ns.saturating_sub(before.user_ns),
        system_ns: now.system_ns.saturating_sub(before.system_ns),
        minor_faults: now.minor_faults.saturating_sub(before.minor_faults),
        major_faults: now.major_faults.saturating_sub(before.major_faults),
        voluntary: both(now.voluntary, before.voluntary),
        involuntary: both(now.involuntary, before.involuntary),
        rss_max_bytes: now.rss_max_bytes,
    }
}
