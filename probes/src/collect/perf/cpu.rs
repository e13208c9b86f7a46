//! The group of a CPU, through perf-event2: all that runs there, the kernel included.
//!
//! perf-event cannot do this: its groups are a thread's, and a member for a CPU is EINVAL.

use std::marker::PhantomData;

use perf_event2::events::{Hardware, Software};
use perf_event2::{Builder, Counter, ReadFormat};
use rustix::io::Errno;

use super::kind::{Kind, Scope, Source, Support};
use super::reading::{Members, Reading, State, WORDS_MAX};
use super::thread::here;
use super::{CounterBackend, errno_of, explain, paranoid};
use crate::Unavailable;
use crate::collect::sys;

/// How to open the group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Leaves the kernel's work out.
    pub user_only: bool,
    /// Demands its counters for good. When they cannot be had the group is in error at once, and reads
    /// the end of file; others go without. Not for the product's own groups.
    pub pinned: bool,
}

/// Counters of one CPU; read by a thread that runs there.
#[derive(Debug)]
pub struct CpuGroup {
    support: Support,
    members: Members,
    cpu: u32,
    // Declared before the leader: members close first.
    _counters: Vec<Counter>,
    leader: Counter,
    _thread: PhantomData<*const ()>,
}

const FORMAT: ReadFormat =
    ReadFormat::GROUP.union(ReadFormat::TOTAL_TIME_ENABLED).union(ReadFormat::TOTAL_TIME_RUNNING);

fn builder(
    event: impl perf_event2::events::Event,
    cpu: usize,
    options: CpuOptions,
) -> Builder<'static> {
    let mut builder = Builder::new(event);
    builder.any_pid().one_cpu(cpu).exclude_kernel(options.user_only).read_format(FORMAT);
    builder
}

impl CpuGroup {
    /// Opens and enables the group of `cpu`.
    ///
    /// # Errors
    /// [`Unavailable`] when this user may not count whole CPUs, or there is no such CPU.
    pub fn open(cpu: u32, options: CpuOptions) -> Result<Self, Unavailable> {
        let level = paranoid();
        let refused = |error: &std::io::Error| match Errno::from_io_error(error) {
            Some(Errno::INVAL) => no_such(cpu),
            _ => explain(errno_of(error), level),
        };
        let place = cpu as usize;
        let mut first = builder(Software::CPU_CLOCK, place, options);
        first.pinned(options.pinned);
        let mut leader = first.build().map_err(|error| refused(&error))?;
        let mut support = Support::new(|kind| match kind {
            Kind::Preemptions => Err(no_preemptions()),
            _ => Ok(Source { name: "perf", scope: Scope::All, grouped: true }),
        });
        let (mut members, mut counters) = (Members::led_by_first(), Vec::new());
        members.add(Kind::TaskClock);
        let hardware = [
            (Kind::Cycles, Hardware::CPU_CYCLES),
            (Kind::Instructions, Hardware::INSTRUCTIONS),
            (Kind::CacheMisses, Hardware::CACHE_MISSES),
            (Kind::BranchMisses, Hardware::BRANCH_MISSES),
        ];
        let software = [
            (Kind::PageFaults, Software::PAGE_FAULTS),
            (Kind::MajorFaults, Software::PAGE_FAULTS_MAJ),
            (Kind::Switches, Software::CONTEXT_SWITCHES),
            (Kind::Migrations, Software::CPU_MIGRATIONS),
        ];
        let scope = if options.user_only { Scope::User } else { Scope::All };
        let mut add = |kind: Kind, builder: Builder<'_>, scope: Scope| {
            let source = match builder.build_with_group(&mut leader) {
                Ok(counter) => {
                    counters.push(counter);
                    members.add(kind);
                    Ok(Source { name: "perf", scope, grouped: true })
                }
                Err(error) => Err(explain(errno_of(&error), level)),
            };
            support.set(kind, source);
        };
        for (kind, event) in hardware {
            add(kind, builder(event, place, options), scope);
        }
        // Switches and migrations happen in the kernel: without it they read 0 for ever.
        let with_kernel = CpuOptions { user_only: false, ..options };
        for (kind, event) in software {
            add(kind, builder(event, place, with_kernel), Scope::All);
        }
        leader.enable_group().map_err(|error| explain(errno_of(&error), level))?;
        Ok(Self { support, members, cpu, _counters: counters, leader, _thread: PhantomData })
    }
}

fn no_such(cpu: u32) -> Unavailable {
    Unavailable {
        source: "perf_event_open",
        cause: format!("EINVAL: there is no CPU {cpu}, or it is offline"),
        remedy: "name an online CPU".to_owned(),
    }
}

fn no_preemptions() -> Unavailable {
    Unavailable {
        source: "perf_event_open",
        cause: "perf counts the switches of a CPU, not why".to_owned(),
        remedy: "read the thread's own counters".to_owned(),
    }
}

impl CounterBackend for CpuGroup {
    fn support(&self) -> &Support {
        &self.support
    }

    fn read(&mut self, at_ns: u64, into: &mut Reading) {
        *into = Reading { at_ns, cpu: here(), ..Reading::default() };
        if into.cpu != self.cpu {
            into.state = State::Elsewhere;
            return;
        }
        let mut words = [0u64; WORDS_MAX];
        into.state = match sys::read_words(&self.leader, &mut words) {
            Ok(count) => self.members.unpack(&words[..count], into),
            Err(errno) => State::Failed(errno.raw_os_error()),
        };
    }
}
