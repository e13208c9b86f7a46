//! The group of a CPU, through perf-event2: all that runs there, the kernel included.
//!
//! perf-event cannot do this: its groups are a thread's, and a member for a CPU is EINVAL.

use std::marker::PhantomData;

use rustix::io::Errno;

use super::kind::{Scope, Support};
use super::open::{Opened, Target};
use super::reading::{Reading, State};
use super::thread::here;
use super::{CounterBackend, errno_of, explain, paranoid};
use crate::Unavailable;

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
    group: Opened,
    cpu: u32,
    _thread: PhantomData<*const ()>,
}

impl CpuGroup {
    /// Opens and enables the group of `cpu`.
    ///
    /// # Errors
    /// [`Unavailable`] when this user may not count whole CPUs, or there is no such CPU.
    pub fn open(cpu: u32, options: CpuOptions) -> Result<Self, Unavailable> {
        let level = paranoid();
        let scope = if options.user_only { Scope::User } else { Scope::All };
        let opened = Opened::open(Target::Cpu(cpu), scope, options.pinned, level);
        let group = opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::INVAL | Errno::NODEV) => no_such(cpu),
            _ => explain(errno_of(&error), level),
        })?;
        Ok(Self { group, cpu, _thread: PhantomData })
    }
}

impl CpuGroup {
    /// Reads the group from another CPU: 5 to 13 us and an interrupt there. For the tick of a recorder.
    pub fn read_from_afar(&mut self, at_ns: u64, into: &mut Reading) {
        *into = Reading { at_ns, cpu: self.cpu, ..Reading::default() };
        self.group.read(into);
    }
}

fn no_such(cpu: u32) -> Unavailable {
    Unavailable {
        source: "perf_event_open",
        cause: format!("there is no CPU {cpu}, or it is offline"),
        remedy: "name an online CPU".to_owned(),
    }
}

impl CounterBackend for CpuGroup {
    fn support(&self) -> &Support {
        &self.group.support
    }

    fn read(&mut self, at_ns: u64, into: &mut Reading) {
        *into = Reading { at_ns, cpu: here(), ..Reading::default() };
        if into.cpu == self.cpu {
            self.group.read(into);
        } else {
            into.state = State::Elsewhere;
        }
    }
}
