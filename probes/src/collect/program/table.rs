//! The threads of a program: who they are, and what each used since the last look.

use std::collections::HashMap;

use super::reasons::Reasons;
use super::task::{self, Task};
use crate::collect::perf::{CounterBackend as _, Kind, Reading, Rules, TaskGroup, between};
use crate::collect::schedstat::Schedule;
use crate::record::program::{Count, OTHERS, ThreadRow, ThreadWindow, WHATS, What};
use crate::{Unavailable, clock};

/// Counts that only a group of counters has.
const GROUPED: [(What, Kind); 5] = [
    (What::Migrations, Kind::Migrations),
    (What::Cycles, Kind::Cycles),
    (What::Instructions, Kind::Instructions),
    (What::CacheMisses, Kind::CacheMisses),
    (What::BranchMisses, Kind::BranchMisses),
];

/// A thread that lives, or has ended since the last look.
#[derive(Debug)]
struct Thread {
    row: u32,
    process: u32,
    name: String,
    /// What /proc said at the last look; nothing when it is new.
    last: Option<Task>,
    /// Its counts before we came are not ours.
    ran_before: bool,
    group: Option<Result<(TaskGroup, Reading), Unavailable>>,
    written: bool,
    ended_ns: Option<u64>,
}

/// The threads.
#[derive(Debug)]
pub(super) struct Table {
    live: HashMap<u32, Thread>,
    rows: u32,
    threads_max: usize,
    groups_max: usize,
    groups: usize,
    rules: Rules,
    tick_ns: u64,
    pub(super) reasons: Reasons,
    born: Vec<ThreadRow>,
    renamed: Vec<(u32, String)>,
    /// Threads that nobody has looked at yet, and the windows of those that were met between two looks.
    unmet: Vec<u32>,
    met: Vec<ThreadWindow>,
    retired: Vec<(u32, u64)>,
}

/// Bounds of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) threads: usize,
    pub(super) groups: usize,
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            live: HashMap::new(),
            rows: 0,
            threads_max: bounds.threads,
            groups_max: bounds.groups,
            groups: 0,
            rules: crate::collect::perf::rules(None),
            tick_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            reasons: Reasons::default(),
            born: Vec::new(),
            renamed: Vec::new(),
            unmet: Vec::new(),
            met: Vec::new(),
            retired: Vec::new(),
        }
    }

    pub(super) const fn allow(&mut self, groups: usize) {
        self.groups_max = groups;
    }

    /// The row of a thread, made when it is new; [`OTHERS`] when there is no room.
    pub(super) fn row(&mut self, process: u32, thread: u32, now_ns: u64, ran_before: bool) -> u32 {
        if let Some(known) = self.live.get(&thread) {
            return known.row;
        }
        if self.live.len() >= self.threads_max {
            return OTHERS;
        }
        self.rows += 1;
        let (row, name) = (self.rows, String::new());
        self.unmet.push(thread);
        self.born.push(ThreadRow { process, thread, name: name.clone(), since_ns: now_ns });
        self.live.insert(
            thread,
            Thread {
                row,
                process,
                name,
                last: None,
                ran_before,
                group: None,
                written: false,
                ended_ns: None,
            },
        );
        row
    }

    /// The row of a thread that is known.
    pub(super) fn known(&self, thread: u32) -> Option<u32> {
        self.live.get(&thread).map(|thread| thread.row)
    }

    pub(super) fn name(&mut self, thread: u32, name: &str) {
        let Some(thread) = self.live.get_mut(&thread).filter(|thread| thread.name != name) else {
            return;
        };
        name.clone_into(&mut thread.name);
        // One that is not written yet is written with its name.
        let fresh = self.born.len();
        let first = self.rows as usize + 1 - fresh;
        match (thread.row as usize).checked_sub(first).and_then(|at| self.born.get_mut(at)) {
            Some(row) => name.clone_into(&mut row.name),
            None => self.renamed.push((thread.row, name.to_owned())),
        }
    }

    /// A thread has the name of the one that made it until it takes another; one that ends before it is looked at
    /// says no other.
    pub(super) fn inherit_name(&mut self, thread: u32, by: u32) {
        if self.live.get(&thread).is_none_or(|thread| !thread.name.is_empty()) {
            return;
        }
        if let Some(name) = self.live.get(&by).map(|maker| maker.name.clone()) {
            self.name(thread, &name);
        }
    }

    /// A record says that the thread has ended.
    pub(super) fn ended(&mut self, thread: u32, at_ns: u64) {
        if let Some(thread) = self.live.get_mut(&thread) {
            thread.ended_ns.get_or_insert(at_ns);
        }
    }

    /// A thread of this id begins: one that has ended and had it before gets its last window now.
    pub(super) fn began(&mut self, thread: u32, now_ns: u64) {
        let ended = self.live.get(&thread).is_some_and(|thread| thread.ended_ns.is_some());
        if !ended {
            return;
        }
        if let Some(mut thread) = self.live.remove(&thread) {
            let counts = self.last_window(&mut thread);
            self.met.push(ThreadWindow { thread: thread.row, counts });
            self.groups -= usize::from(matches!(thread.group, Some(Ok(_))));
            self.retired.push((thread.row, thread.ended_ns.unwrap_or(now_ns)));
        }
    }

    /// Threads of the table, and their processes.
    pub(super) fn threads(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.live.iter().map(|(thread, entry)| (*thread, entry.process))
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Rows and names that are new since the last call.
    pub(super) fn fresh(&mut self) -> (Vec<ThreadRow>, Vec<(u32, String)>) {
        (std::mem::take(&mut self.born), std::mem::take(&mut self.renamed))
    }

    /// Looks at threads that are new: one that ends before the next look is known up to here, and by its
    /// group to its end.
    pub(super) fn meet(&mut self) {
        for id in std::mem::take(&mut self.unmet) {
            let Some(mut thread) = self.live.remove(&id) else { continue };
            if let Some(task) = task::read(thread.process, id).filter(|_| thread.last.is_none()) {
                let counts = self.window(id, &mut thread, &task);
                self.met.push(ThreadWindow { thread: thread.row, counts });
                thread.written = true;
                thread.last = Some(task);
            }
            self.live.insert(id, thread);
        }
    }

    /// What each thread used since the last look, and which have ended. `seen` are those that /proc lists.
    pub(super) fn look(
        &mut self,
        now_ns: u64,
        seen: &HashMap<u32, u32>,
    ) -> (Vec<ThreadWindow>, Vec<(u32, u64)>) {
        self.unmet.clear();
        let mut windows = std::mem::take(&mut self.met);
        let mut ended = std::mem::take(&mut self.retired);
        let mut ids: Vec<u32> = self.live.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(mut thread) = self.live.remove(&id) else { continue };
            let task = seen.get(&id).and_then(|&process| task::read(process, id));
            let counts = match &task {
                Some(task) => self.window(id, &mut thread, task),
                None => self.last_window(&mut thread),
            };
            let used = counts.iter().any(|count| count.known().is_some_and(|count| count > 0));
            if used || !thread.written || task.is_none() {
                windows.push(ThreadWindow { thread: thread.row, counts });
                thread.written = true;
            }
            if let Some(task) = task {
                let name = task.name.clone();
                thread.last = Some(task);
                self.live.insert(id, thread);
                self.name(id, &name);
            } else {
                self.groups -= usize::from(matches!(thread.group, Some(Ok(_))));
                ended.push((thread.row, thread.ended_ns.unwrap_or(now_ns)));
            }
        }
        (windows, ended)
    }

    /// The window of a thread that lives: /proc, and its group for what /proc does not know.
    fn window(&mut self, id: u32, thread: &mut Thread, task: &Task) -> [Count; WHATS] {
        let mut counts = [self.reasons.say("/proc", "not read", "none known"); WHATS];
        // The first look at a thread that ran before us only says where we begin.
        let begin = thread.last.is_none() && thread.ran_before;
        let before = match (&thread.last, begin) {
            (Some(last), _) => last.clone(),
            (None, true) => task.clone(),
            (None, false) => zero(),
        };
        self.add_proc(&before, task, &mut counts);
        self.add_group(id, thread, &mut counts);
        counts
    }

    fn add_proc(&mut self, before: &Task, now: &Task, counts: &mut [Count; WHATS]) {
        let mut put = |what: What, count: Count| counts[what.index()] = count;
        if let (Some(a), Some(b)) = (&before.stat, &now.stat) {
            let ticks = |a: u64, b: u64| Count::Ticks(b.saturating_sub(a) * self.tick_ns);
            put(What::User, ticks(a.user_ticks, b.user_ticks));
            put(What::System, ticks(a.system_ticks, b.system_ticks));
            put(What::Cpu, ticks(a.user_ticks + a.system_ticks, b.user_ticks + b.system_ticks));
            let exact = |a: u64, b: u64| Count::Exact(b.saturating_sub(a));
            put(What::MinorFaults, exact(a.minor_faults, b.minor_faults));
            put(What::MajorFaults, exact(a.major_faults, b.major_faults));
        }
        let schedule = match (before.schedule, now.schedule) {
            (Some(a), Some(b)) => b.since(&a),
            _ => None,
        };
        match schedule {
            Some(Schedule { run_ns, wait_ns, .. }) => {
                put(What::Cpu, Count::Ticks(run_ns));
                put(What::Wait, Count::Exact(wait_ns));
            }
            None => put(
                What::Wait,
                self.reasons.say(
                    "schedstat",
                    "/proc/PID/task/TID/schedstat is not there",
                    "use a kernel with CONFIG_SCHED_INFO",
                ),
            ),
        }
        if let (Some(a), Some(b)) = (before.switches, now.switches) {
            let (voluntary, involuntary) = (b.0.saturating_sub(a.0), b.1.saturating_sub(a.1));
            put(What::Voluntary, Count::Exact(voluntary));
            put(What::Involuntary, Count::Exact(involuntary));
            put(What::Switches, Count::Exact(voluntary + involuntary));
        }
    }

    /// Opens the group at the first look, and counts from there.
    fn add_group(&mut self, id: u32, thread: &mut Thread, counts: &mut [Count; WHATS]) {
        if thread.group.is_none() {
            let opened = match self.groups < self.groups_max {
                true => TaskGroup::open(id.cast_signed()),
                false => Err(Unavailable {
                    source: "perf_event_open",
                    cause: format!("{} threads have counters already", self.groups_max),
                    remedy: "raise --counted-threads, and ulimit -n".to_owned(),
                }),
            };
            thread.group = Some(opened.map(|mut group| {
                self.groups += 1;
                let mut first = Reading::default();
                group.read(clock::monotonic_ns(), &mut first);
                (group, first)
            }));
            let why = match &thread.group {
                Some(Err(why)) => self.reasons.unavailable(why),
                _ => self.reasons.say(
                    "perf",
                    "counters are opened at the first look at a thread, and do not know what was before",
                    "none; it is the first tenth of a second of a thread",
                ),
            };
            for (what, _) in GROUPED {
                counts[what.index()] = why;
            }
            return;
        }
        match &mut thread.group {
            Some(Ok((group, last))) => {
                let mut now = Reading::default();
                group.read(clock::monotonic_ns(), &mut now);
                let delta = between(group.support(), &self.rules, last, &now);
                *last = now;
                for (what, kind) in GROUPED {
                    counts[what.index()] = match group.support().of(kind) {
                        Err(why) => self.reasons.unavailable(why),
                        Ok(_) => self.reasons.value(&delta.of(kind)),
                    };
                }
            }
            Some(Err(why)) => {
                let why = self.reasons.unavailable(why);
                for (what, _) in GROUPED {
                    counts[what.index()] = why;
                }
            }
            None => {}
        }
    }

    /// The window of a thread that has ended since: /proc has forgotten it, its group has not.
    fn last_window(&mut self, thread: &mut Thread) -> [Count; WHATS] {
        let gone = self.reasons.say(
            "/proc",
            "the thread ended between two looks",
            "a shorter --interval, or more --counted-threads; the kernel's total has it",
        );
        let mut counts = [gone; WHATS];
        self.dead_group(thread, &mut counts);
        counts
    }

    fn dead_group(&mut self, thread: &mut Thread, counts: &mut [Count; WHATS]) {
        let Some(Ok((group, last))) = &mut thread.group else { return };
        let mut now = Reading::default();
        group.read(clock::monotonic_ns(), &mut now);
        let delta = between(group.support(), &self.rules, last, &now);
        let also = [
            (What::Cpu, Kind::TaskClock),
            (What::Switches, Kind::Switches),
            (What::MajorFaults, Kind::MajorFaults),
        ];
        for (what, kind) in GROUPED.into_iter().chain(also) {
            counts[what.index()] = match group.support().of(kind) {
                Err(why) => self.reasons.unavailable(why),
                Ok(_) => self.reasons.value(&delta.of(kind)),
            };
        }
        let (all, major) =
            (delta.of(Kind::PageFaults).known(), delta.of(Kind::MajorFaults).known());
        if let (Some(all), Some(major)) = (all, major) {
            counts[What::MinorFaults.index()] = Count::Exact(all.saturating_sub(major));
        }
    }
}

/// Where the counts of a thread begin that began under our eyes.
fn zero() -> Task {
    Task {
        stat: Some(task::Stat::default()),
        schedule: Some(Schedule::default()),
        switches: Some((0, 0)),
        ..Task::default()
    }
}
