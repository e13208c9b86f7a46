//! Opening a group through perf-event2 whose leader counts, of a CPU or of a thread of any process.

use perf_event2::events::{Event, Hardware, Software};
use perf_event2::{Builder, Counter, ReadFormat};

use super::kind::{Kind, Scope, Source, Support};
use super::reading::{Members, Reading, State, WORDS_MAX};
use super::{errno_of, explain};
use crate::Unavailable;
use crate::collect::sys;

/// What a group counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// All that runs on a CPU.
    Cpu(u32),
    /// One thread, wherever it runs.
    Thread(i32),
}

/// An open group.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) support: Support,
    members: Members,
    // Declared before the leader: members close first.
    _counters: Vec<Counter>,
    leader: Counter,
}

const FORMAT: ReadFormat =
    ReadFormat::GROUP.union(ReadFormat::TOTAL_TIME_ENABLED).union(ReadFormat::TOTAL_TIME_RUNNING);

fn builder(event: impl Event, target: Target, scope: Scope) -> Builder<'static> {
    let mut builder = Builder::new(event);
    match target {
        Target::Cpu(cpu) => builder.any_pid().one_cpu(cpu as usize),
        Target::Thread(thread) => builder.observe_pid(thread).any_cpu(),
    };
    builder.exclude_kernel(scope == Scope::User).read_format(FORMAT);
    builder
}

const HARDWARE: [(Kind, Hardware); 4] = [
    (Kind::Cycles, Hardware::CPU_CYCLES),
    (Kind::Instructions, Hardware::INSTRUCTIONS),
    (Kind::CacheMisses, Hardware::CACHE_MISSES),
    (Kind::BranchMisses, Hardware::BRANCH_MISSES),
];

/// These happen in the kernel, some of them only there: without it they read too little, or 0 for ever.
const SOFTWARE: [(Kind, Software); 4] = [
    (Kind::PageFaults, Software::PAGE_FAULTS),
    (Kind::MajorFaults, Software::PAGE_FAULTS_MAJ),
    (Kind::Switches, Software::CONTEXT_SWITCHES),
    (Kind::Migrations, Software::CPU_MIGRATIONS),
];

impl Opened {
    /// Opens and enables a group of all kinds that the kernel gives. The errors are of its leader.
    pub(super) fn open(
        target: Target,
        scope: Scope,
        pinned: bool,
        level: Option<i32>,
    ) -> std::io::Result<Self> {
        let clock = match target {
            Target::Cpu(_) => Software::CPU_CLOCK,
            Target::Thread(_) => Software::TASK_CLOCK,
        };
        let mut first = builder(clock, target, scope);
        first.pinned(pinned);
        let mut leader = first.build()?;
        let mut support = Support::new(|kind| match kind {
            Kind::Preemptions => Err(no_preemptions()),
            _ => Ok(Source { name: "perf", scope: Scope::All, grouped: true }),
        });
        let (mut members, mut counters) = (Members::led_by_first(), Vec::new());
        members.add(Kind::TaskClock);
        let mut add = |kind: Kind, mut builder: Builder<'_>, scope: Scope| {
            // Members wait for their leader alone: those of a CPU's group that are opened disabled and
            // enabled with the group stand at 0 for ever, without an error (Linux 6.18).
            builder.enabled(true);
            let source = builder.build_with_group(&mut leader).map(|counter| {
                counters.push(counter);
                members.add(kind);
                Source { name: "perf", scope, grouped: true }
            });
            support.set(kind, source.map_err(|error| explain(errno_of(&error), level)));
        };
        for (kind, event) in HARDWARE {
            add(kind, builder(event, target, scope), scope);
        }
        for (kind, event) in SOFTWARE {
            add(kind, builder(event, target, Scope::All), Scope::All);
        }
        leader.enable()?;
        Ok(Self { support, members, _counters: counters, leader })
    }

    /// Reads the group; the caller has filled in when and where.
    pub(super) fn read(&self, into: &mut Reading) {
        let mut words = [0u64; WORDS_MAX];
        into.state = match sys::read_words(&self.leader, &mut words) {
            Ok(count) => self.members.unpack(&words[..count], into),
            Err(errno) => State::Failed(errno.raw_os_error()),
        };
    }
}

fn no_preemptions() -> Unavailable {
    Unavailable {
        source: "perf_event_open",
        cause: "perf counts switches, not why they happen".to_owned(),
        remedy: "read the thread's own counters, or its switch records".to_owned(),
    }
}
