//! The group of the calling thread, through perf-event.
//!
//! perf-event opens a group behind a dummy of its own, so task-clock is its first member and the times
//! of the group are those of a software event that always has its counter. That leader excludes the
//! kernel, which its members need not. The crate's own read allocates and asserts; we read the
//! descriptor ourselves. Its descriptors survive exec, ours do not: an event that a child inherits
//! goes on counting after we closed ours.

use std::marker::PhantomData;

use perf_event::events::{Hardware, Software};
use perf_event::{Builder, Counter, Group};
use rustix::io::Errno;

use super::kind::{Kind, Scope, Source, Support};
use super::reading::{Members, Reading, State, WORDS_MAX};
use super::{CounterBackend, errno_of, explain, paranoid};
use crate::Unavailable;
use crate::collect::sys;

/// How to open the group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadOptions {
    /// Leaves the kernel's work out even where it may be counted.
    pub user_only: bool,
}

/// Counters of the thread that opened it.
#[derive(Debug)]
pub struct ThreadGroup {
    support: Support,
    members: Members,
    // Declared before the group: members close first, then their leader.
    _counters: Vec<Counter>,
    group: Group,
    /// Read by the thread that opened it.
    _thread: PhantomData<*const ()>,
}

/// A software or hardware event and its kind, in order of importance: later ones go without first.
fn events() -> [(Kind, perf_event::events::Event); 5] {
    [
        (Kind::TaskClock, Software::TASK_CLOCK.into()),
        (Kind::Cycles, Hardware::CPU_CYCLES.into()),
        (Kind::Instructions, Hardware::INSTRUCTIONS.into()),
        (Kind::CacheMisses, Hardware::CACHE_MISSES.into()),
        (Kind::BranchMisses, Hardware::BRANCH_MISSES.into()),
    ]
}

impl ThreadGroup {
    /// Opens and enables the group of the calling thread, with the kernel's work where it may be
    /// counted and all kinds of one scope.
    ///
    /// # Errors
    /// [`Unavailable`] when the kernel refuses all events, also of the own thread's user space.
    pub fn open(options: ThreadOptions) -> Result<Self, Unavailable> {
        let level = paranoid();
        let refused = |error: &std::io::Error| explain(errno_of(error), level);
        let mut group = Group::new().map_err(|error| refused(&error))?;
        kept(&group).map_err(|error| refused(&error))?;
        let scope = if options.user_only { Scope::User } else { scope_of_this_thread() };
        let mut support = Support::new(usage_source);
        let (mut members, mut counters) = (Members::behind_dummy(), Vec::new());
        for (kind, event) in events() {
            let opened = member(&mut group, event, scope);
            let source = opened.map(|counter| {
                counters.push(counter);
                members.add(kind);
                Source { name: "perf", scope, grouped: true }
            });
            support.set(kind, source.map_err(|error| refused(&error)));
        }
        let moves = match scope {
            Scope::User => Err(blind_migrations(level, options.user_only)),
            Scope::All => member(&mut group, Software::CPU_MIGRATIONS.into(), scope)
                .map_err(|error| refused(&error)),
        };
        let source = moves.map(|counter| {
            counters.push(counter);
            members.add(Kind::Migrations);
            Source { name: "perf", scope, grouped: true }
        });
        support.set(Kind::Migrations, source);
        group.enable().map_err(|error| refused(&error))?;
        Ok(Self { support, members, _counters: counters, group, _thread: PhantomData })
    }
}

/// Whether this thread may count what the kernel does for it.
fn scope_of_this_thread() -> Scope {
    let mut builder = Builder::new().kind(Software::TASK_CLOCK);
    builder.include_kernel();
    if builder.build().is_ok() { Scope::All } else { Scope::User }
}

fn member(
    group: &mut Group,
    event: perf_event::events::Event,
    scope: Scope,
) -> std::io::Result<Counter> {
    let mut builder = Builder::new().group(group).kind(event);
    builder.exclude_kernel(scope == Scope::User);
    let counter = builder.build()?;
    kept(&counter)?;
    Ok(counter)
}

fn kept(event: &impl std::os::fd::AsRawFd) -> std::io::Result<()> {
    sys::close_on_exec(event).map_err(std::io::Error::from)
}

/// What getrusage(2) counts; the rest has no source yet.
pub(super) fn usage_source(kind: Kind) -> Result<Source, Unavailable> {
    match kind {
        Kind::PageFaults | Kind::MajorFaults | Kind::Switches | Kind::Preemptions => {
            Ok(Source { name: "getrusage", scope: Scope::All, grouped: false })
        }
        _ => Err(explain(Errno::NOENT.raw_os_error(), None)),
    }
}

/// Fills in what getrusage(2) counts.
pub(super) fn read_usage(into: &mut Reading) {
    let usage = sys::thread_usage();
    into.values[Kind::PageFaults.index()] = usage.minor_faults.wrapping_add(usage.major_faults);
    into.values[Kind::MajorFaults.index()] = usage.major_faults;
    into.values[Kind::Switches.index()] = usage.voluntary.wrapping_add(usage.involuntary);
    into.values[Kind::Preemptions.index()] = usage.involuntary;
}

fn blind_migrations(level: Option<i32>, asked: bool) -> Unavailable {
    let level = level.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    let why = if asked { "it was asked for".to_owned() } else { format!("paranoid {level}") };
    Unavailable {
        source: "perf_event_open",
        cause: format!("without the kernel's work ({why}) this counter opens and reads 0 for ever"),
        remedy: "sysctl -w kernel.perf_event_paranoid=1, or grant CAP_PERFMON".to_owned(),
    }
}

impl CounterBackend for ThreadGroup {
    fn support(&self) -> &Support {
        &self.support
    }

    fn read(&mut self, at_ns: u64, into: &mut Reading) {
        *into = Reading { at_ns, cpu: here(), ..Reading::default() };
        let mut words = [0u64; WORDS_MAX];
        into.state = match sys::read_words(&self.group, &mut words) {
            Ok(count) => self.members.unpack(&words[..count], into),
            Err(errno) => State::Failed(errno.raw_os_error()),
        };
        read_usage(into);
    }
}

/// The CPU of the calling thread. 2 ns where the C library knows rseq.
pub(super) fn here() -> u32 {
    u32::try_from(rustix::thread::sched_getcpu()).unwrap_or(u32::MAX)
}
