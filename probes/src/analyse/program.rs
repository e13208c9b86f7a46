//! A recorded program: what each of its threads and each core used, and where it was on the CPU. Made of
//! frames one by one, so that a live view and a report are the same; a run that is cut is whole up to
//! there.

use std::collections::{HashMap, HashSet};

use super::chains;
use super::profile::{Amount, Frames, HeapProfile, Holding};
use super::symbols::{ReadFile, Symbols};
use crate::record::heap::Site;
use crate::record::program::{
    Count, KERNEL, ModuleRow, OTHERS, OffWindow, ProgramEnd, ProgramSamples, ProgramStacks,
    ProgramStart, ProgramTick, RingCounts, STACK_NO_ROOM, StackRow, ThreadRow, WHATS, What, Why,
};

/// How far to believe a sum: the worst of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Trust {
    /// As counted.
    #[default]
    Exact,
    /// In ticks, or up to the kernel's last tick.
    Ticks,
    /// Parts are scaled from 90 % and more of their windows.
    Scaled,
    /// Parts are scaled from less: for the eye, not for verdicts.
    Rough,
}

impl Trust {
    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Ticks => "ticks",
            Self::Scaled => "scaled",
            Self::Rough => "rough",
        }
    }
}

/// A sum over windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Of what is known.
    pub sum: u64,
    /// Windows that are in it.
    pub windows: u64,
    /// The worst of them.
    pub trust: Trust,
    /// Windows that are not known, and the number of the reason of the last.
    pub unknown: u64,
    /// That number.
    pub why: Option<u16>,
}

impl Sum {
    /// Adds a window.
    pub fn add(&mut self, count: Count) {
        let trust = match count {
            Count::Exact(_) => Trust::Exact,
            Count::Ticks(_) => Trust::Ticks,
            Count::Scaled(..) => Trust::Scaled,
            Count::Rough(..) => Trust::Rough,
            Count::Unknown(why) => {
                self.unknown += 1;
                self.why = Some(why);
                return;
            }
        };
        self.sum = self.sum.saturating_add(count.known().unwrap_or(0));
        self.windows += 1;
        self.trust = self.trust.max(trust);
    }

    /// The sum, where any window is known.
    #[must_use]
    pub const fn known(&self) -> Option<u64> {
        if self.windows == 0 { None } else { Some(self.sum) }
    }

    /// Parts are missing: the sum is a lower bound.
    #[must_use]
    pub const fn at_least(&self) -> bool {
        self.windows > 0 && self.unknown > 0
    }

    /// The sum with that of others.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            sum: self.sum.saturating_add(other.sum),
            windows: self.windows + other.windows,
            trust: self.trust.max(other.trust),
            unknown: self.unknown + other.unknown,
            why: other.why.or(self.why),
        }
    }
}

/// A thread and what it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadUse {
    /// Who it is.
    pub row: ThreadRow,
    /// When its end was seen.
    pub ended_ns: Option<u64>,
    /// By [`What::index`].
    pub sums: [Sum; WHATS],
    /// The last window alone.
    pub last: [Sum; WHATS],
    /// Times off the CPU, where they were recorded.
    pub off: Option<OffWindow>,
    /// Samples.
    pub samples: u64,
}

impl ThreadUse {
    fn new(row: ThreadRow) -> Self {
        let none = [Sum::default(); WHATS];
        Self { row, ended_ns: None, sums: none, last: none, off: None, samples: 0 }
    }

    /// A sum.
    #[must_use]
    pub const fn of(&self, what: What) -> &Sum {
        &self.sums[what.index()]
    }
}

/// A core and what it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CoreUse {
    /// CPU number.
    pub cpu: u32,
    /// Busy, idle, in interrupts (part of busy), stolen; ns.
    pub times: [Sum; 4],
    /// The same of the last window.
    pub last: [Sum; 4],
    /// By [`What::index`].
    pub sums: [Sum; WHATS],
}

/// A sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    /// When.
    pub at_ns: u64,
    /// Index into [`Program::threads`].
    pub thread: usize,
    /// CPU.
    pub cpu: u32,
    /// Number of the stack.
    pub stack: u32,
}

/// All threads in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Its start.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// On a CPU, ns.
    pub cpu: Sum,
    /// Ready to run without a CPU, ns.
    pub wait: Sum,
    /// Switches away.
    pub switches: Sum,
    /// Page faults without a disk.
    pub faults: Sum,
}

/// A recorded program.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// What was recorded.
    pub start: ProgramStart,
    /// Its end, unless it was cut or goes on.
    pub end: Option<ProgramEnd>,
    /// Threads; the first stands for those without a row.
    pub threads: Vec<ThreadUse>,
    /// Cores.
    pub cores: Vec<CoreUse>,
    /// Samples in order of time.
    pub samples: Vec<Sampled>,
    /// What the rings said.
    pub ring: RingCounts,
    /// Reasons by number.
    pub reasons: Vec<Why>,
    /// The largest number of threads at a look that had no row.
    pub left_out: u64,
    /// End of the last window.
    pub to_ns: u64,
    /// Windows in order; of a live view only the last.
    pub windows: Vec<Window>,
    /// CPU time of the recorder, ns.
    pub self_ns: u64,
    modules: Vec<ModuleRow>,
    stacks: Vec<StackRow>,
    kernel: HashMap<u64, String>,
}

impl Program {
    /// A program of which nothing is known yet.
    #[must_use]
    pub fn new(start: ProgramStart) -> Self {
        let others = ThreadRow {
            process: 0,
            thread: 0,
            name: "(threads without a row)".to_owned(),
            since_ns: start.start_ns,
        };
        Self {
            threads: vec![ThreadUse::new(others)],
            to_ns: start.start_ns,
            start,
            ..Self::default()
        }
    }

    /// Adds a window.
    pub fn tick(&mut self, tick: ProgramTick) {
        self.reasons.extend(tick.reasons);
        self.threads.extend(tick.born.into_iter().map(ThreadUse::new));
        for (row, name) in tick.renamed {
            if let Some(thread) = self.threads.get_mut(row as usize) {
                thread.row.name = name;
            }
        }
        for thread in &mut self.threads {
            thread.last = [Sum::default(); WHATS];
        }
        let (from_ns, to_ns) = (tick.from_ns, tick.to_ns);
        let mut all = Window { from_ns, to_ns, ..Window::default() };
        for window in tick.threads {
            all.cpu.add(window.counts[What::Cpu.index()]);
            all.wait.add(window.counts[What::Wait.index()]);
            all.switches.add(window.counts[What::Switches.index()]);
            all.faults.add(window.counts[What::MinorFaults.index()]);
            let Some(thread) = self.threads.get_mut(window.thread as usize) else { continue };
            for (place, count) in window.counts.into_iter().enumerate() {
                thread.sums[place].add(count);
                thread.last[place].add(count);
            }
        }
        for (row, at_ns) in tick.ended {
            if let Some(thread) = self.threads.get_mut(row as usize) {
                thread.ended_ns = Some(at_ns);
            }
        }
        for off in tick.off_cpu {
            let Some(thread) = self.threads.get_mut(off.thread as usize) else { continue };
            let sum = thread.off.get_or_insert_default();
            for (sum, add) in [(&mut sum.blocked, off.blocked), (&mut sum.preempted, off.preempted)]
            {
                *sum = (sum.0 + add.0, sum.1 + add.1, sum.2.max(add.2));
            }
        }
        for window in tick.cores {
            let place = self.cores.iter().position(|core| core.cpu == window.cpu);
            let place = place.unwrap_or_else(|| {
                self.cores.push(CoreUse { cpu: window.cpu, ..CoreUse::default() });
                self.cores.len() - 1
            });
            let core = &mut self.cores[place];
            core.last = [Sum::default(); 4];
            let times = [window.busy_ns, window.idle_ns, window.irq_ns, window.steal_ns];
            for (place, count) in times.into_iter().enumerate() {
                core.times[place].add(count);
                core.last[place].add(count);
            }
            for (sum, count) in core.sums.iter_mut().zip(window.counts) {
                sum.add(count);
            }
        }
        self.left_out = self.left_out.max(tick.left_out);
        self.to_ns = tick.to_ns;
        self.windows.push(all);
        self.self_ns += tick.self_ns;
        let ring = &mut self.ring;
        ring.samples += tick.ring.samples;
        ring.lost += tick.ring.lost;
        ring.throttled += tick.ring.throttled;
        ring.broken += tick.ring.broken;
        ring.cut += tick.ring.cut;
    }

    /// Adds what samples refer to.
    pub fn stacks(&mut self, stacks: ProgramStacks) {
        self.modules.extend(stacks.modules);
        self.stacks.extend(stacks.stacks);
        self.kernel.extend(stacks.kernel);
    }

    /// Adds samples.
    pub fn samples(&mut self, samples: &ProgramSamples) {
        for row in &samples.samples {
            let thread = row.thread as usize;
            let thread = if thread < self.threads.len() { thread } else { OTHERS as usize };
            self.threads[thread].samples += 1;
            let at_ns = samples.from_ns + row.after_ns;
            self.samples.push(Sampled { at_ns, thread, cpu: row.cpu, stack: row.stack });
        }
    }

    /// Length of the recording, ns.
    #[must_use]
    pub fn elapsed_ns(&self) -> u64 {
        let end = self.end.as_ref().map_or(self.to_ns, |end| end.end_ns.max(self.to_ns));
        end.saturating_sub(self.start.start_ns)
    }

    /// Stacks that samples may refer to.
    #[must_use]
    pub const fn stack_count(&self) -> usize {
        self.stacks.len()
    }

    /// Forgets samples and windows before an instant: a live view has no past. Counts keep it.
    pub fn forget(&mut self, before_ns: u64) {
        let past = self.samples.partition_point(|sample| sample.at_ns < before_ns);
        self.samples.drain(..past);
        let past = self.windows.partition_point(|window| window.to_ns < before_ns);
        self.windows.drain(..past);
    }

    /// CPU time that a sample stands for, ns; 0 without a profile.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        1_000_000_000u64.checked_div(self.start.hz).unwrap_or(0)
    }

    /// A sum over all threads.
    #[must_use]
    pub fn total(&self, what: What) -> Sum {
        self.threads.iter().skip(1).fold(Sum::default(), |sum, thread| sum.plus(thread.of(what)))
    }

    /// Samples of chains of a single address: the caller is unknown, as the program keeps no frame
    /// pointers there.
    #[must_use]
    pub fn without_caller(&self) -> u64 {
        let alone = |sample: &&Sampled| {
            let stack = self.stacks.get(sample.stack as usize);
            stack.is_some_and(|stack| {
                stack.frames.iter().filter(|(module, _)| *module != KERNEL).count() == 1
            })
        };
        self.samples.iter().filter(alone).count() as u64
    }
}

/// A CPU profile with names.
#[derive(Debug, Clone)]
pub struct CpuProfile {
    /// Stacks, and what was sampled by stack, thread (`owner`) and core; bytes are ns of CPU time, objects
    /// are samples.
    pub profile: HeapProfile,
    /// How well each module could be resolved.
    pub symbols: Symbols,
    /// Index into the profile's stacks of each sample of [`Program::samples`].
    pub stack_of: Vec<usize>,
}

/// Names the addresses of a program's samples, offline. `extra` and `read` as in
/// [`symbolise`](super::symbols::symbolise).
#[must_use]
pub fn cpu_profile(program: &Program, extra: &[String], read: &ReadFile<'_>) -> CpuProfile {
    let kernel = program.kernel.iter().map(|(&address, name)| (address, name.as_str()));
    let named = chains::named((&program.modules, &program.stacks, kernel), extra, read);
    let chains::Named { mut snapshot, symbols } = named;
    snapshot.sites.push(Site { id: STACK_NO_ROOM, ..Site::default() });
    let mut profile = HeapProfile::of(&snapshot, &symbols, Frames::All);
    let no_room = profile.stacks.len() - 1;
    let stack_of: Vec<usize> =
        program.samples.iter().map(|sample| (sample.stack as usize).min(no_room)).collect();
    let mut held: HashMap<(usize, usize, u32), i64> = HashMap::new();
    for (sample, &stack) in program.samples.iter().zip(&stack_of) {
        *held.entry((stack, sample.thread, sample.cpu)).or_default() += 1;
    }
    let period = i64::try_from(program.period_ns()).unwrap_or(0);
    profile.live = held
        .into_iter()
        .map(|((stack, thread, cpu), samples)| Holding {
            stack,
            owner: u32::try_from(thread).unwrap_or(u32::MAX),
            core: u16::try_from(cpu).unwrap_or(u16::MAX),
            class: 0,
            amount: Amount { bytes: samples.saturating_mul(period), objects: samples },
        })
        .collect();
    profile.live.sort_by_key(|holding| (holding.stack, holding.owner, holding.core));
    CpuProfile { profile, symbols, stack_of }
}

/// A function's share of the samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hot {
    /// Its name; file and offset where it has none.
    pub name: String,
    /// File of the innermost frame.
    pub module: String,
    /// Samples in which it was innermost.
    pub own: i64,
    /// Samples in which it was anywhere.
    pub total: i64,
}

/// Functions by samples, those first that were innermost most often.
#[must_use]
pub fn hot(profile: &HeapProfile) -> Vec<Hot> {
    let mut rows: HashMap<String, Hot> = HashMap::new();
    for holding in &profile.live {
        let stack = &profile.stacks[holding.stack];
        let names = profile.names(stack);
        let mut seen = HashSet::new();
        for (place, name) in names.iter().enumerate() {
            let row = rows.entry(name.clone()).or_insert_with(|| Hot {
                name: name.clone(),
                module: String::new(),
                own: 0,
                total: 0,
            });
            if place == 0 {
                row.own += holding.amount.objects;
                if row.module.is_empty() {
                    let module = stack.frames.first().and_then(|frame| frame.module);
                    let path = module.and_then(|module| profile.modules.get(module));
                    row.module = path.map_or_else(String::new, |module| {
                        module.path.rsplit('/').next().unwrap_or_default().to_owned()
                    });
                }
            }
            if seen.insert(name) {
                row.total += holding.amount.objects;
            }
        }
    }
    let mut rows: Vec<Hot> = rows.into_values().collect();
    rows.sort_by(|a, b| (b.own, b.total, &a.name).cmp(&(a.own, a.total, &b.name)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::program::NOWHERE;
    use crate::record::program::{SampleRow, ThreadWindow};
    use std::io;

    fn row(thread: u32) -> ThreadRow {
        ThreadRow { process: 1, thread, name: format!("t{thread}"), since_ns: 0 }
    }

    #[test]
    fn a_sum_is_as_good_as_its_worst_part_and_says_what_is_missing() {
        let mut sum = Sum::default();
        assert_eq!(sum.known(), None, "nothing was counted: that is no zero");
        sum.add(Count::Exact(5));
        sum.add(Count::Ticks(7));
        assert_eq!((sum.known(), sum.trust, sum.at_least()), (Some(12), Trust::Ticks, false));
        sum.add(Count::Unknown(3));
        assert!(sum.at_least() && sum.why == Some(3) && sum.known() == Some(12));
    }

    #[test]
    fn frames_make_a_program() {
        let start = ProgramStart { hz: 100, start_ns: 1_000, ..ProgramStart::default() };
        let mut program = Program::new(start);
        let mut counts = [Count::Unknown(0); WHATS];
        counts[What::Cpu.index()] = Count::Ticks(30);
        let window = ThreadWindow { thread: 2, counts };
        program.tick(ProgramTick {
            from_ns: 1_000,
            to_ns: 5_000,
            born: vec![row(11), row(12)],
            threads: vec![window.clone(), window],
            ended: vec![(1, 4_000)],
            renamed: vec![(2, "other".to_owned())],
            ..ProgramTick::default()
        });
        program.stacks(ProgramStacks {
            modules: vec![ModuleRow { path: "/nowhere/app".to_owned(), build_id: vec![] }],
            stacks: vec![
                StackRow { frames: vec![(KERNEL, 0xff10), (0, 0x40), (0, 0x80)], cut: false },
                StackRow { frames: vec![(NOWHERE, 0x9999)], cut: false },
            ],
            kernel: vec![(0xff10, "do_work".to_owned())],
        });
        let sample = |stack| SampleRow { after_ns: 5, thread: 2, cpu: 1, stack };
        let samples = vec![sample(0), sample(0), sample(1), sample(STACK_NO_ROOM)];
        program.samples(&ProgramSamples { from_ns: 2_000, samples });
        let thread = &program.threads[2];
        assert_eq!((thread.of(What::Cpu).known(), thread.samples), (Some(60), 4));
        assert_eq!((&*thread.row.name, program.threads[1].ended_ns), ("other", Some(4_000)));
        assert_eq!(thread.of(What::Cycles).known(), None);
        assert_eq!((program.elapsed_ns(), program.without_caller()), (4_000, 1));
        let none = |_: &str| Err(io::ErrorKind::NotFound.into());
        let cpu = cpu_profile(&program, &[], &none);
        let hot = hot(&cpu.profile);
        let first = &hot[0];
        assert_eq!((&*first.name, &*first.module, first.own), ("do_work", "[kernel]", 2));
        let names: Vec<&str> = hot.iter().map(|hot| &*hot.name).collect();
        assert!(names.contains(&"(code that lies in no file)"), "{names:?}");
        assert!(names.contains(&"(stack unknown)"), "{names:?}");
        assert!(names.contains(&"app+0x80"), "{names:?}");
        assert_eq!(cpu.profile.live_total(), Amount { bytes: 40_000_000, objects: 4 });
    }
}
