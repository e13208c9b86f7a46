//! The group of a thread of any process, for programs that know nothing of us.
//!
//! Read from outside, so a read while the thread runs interrupts its core (5 to 13 us here): for a tick
//! of a recorder, never for a core of our own.

use super::kind::{Scope, Support};
use super::open::{Opened, Target};
use super::reading::Reading;
use super::thread::here;
use super::{CounterBackend, errno_of, explain, paranoid};
use crate::Unavailable;

/// Counters of one thread of any process that this user may trace.
#[derive(Debug)]
pub struct TaskGroup {
    group: Opened,
}

impl TaskGroup {
    /// Opens and enables the group of `thread`, with the kernel's work where it may be counted.
    ///
    /// # Errors
    /// [`Unavailable`] when the thread has ended, is another user's, or perf is refused.
    pub fn open(thread: i32) -> Result<Self, Unavailable> {
        let level = paranoid();
        let open = |scope| Opened::open(Target::Thread(thread), scope, false, level);
        let group = open(Scope::All).or_else(|_| open(Scope::User));
        let group = group.map_err(|error| match errno_of(&error) {
            libc::ESRCH => ended(thread),
            errno => explain(errno, level),
        })?;
        Ok(Self { group })
    }
}

pub(in crate::collect) fn ended(thread: i32) -> Unavailable {
    Unavailable {
        source: "perf_event_open",
        cause: format!("ESRCH: there is no thread {thread}"),
        remedy: "name a thread that lives".to_owned(),
    }
}

impl CounterBackend for TaskGroup {
    fn support(&self) -> &Support {
        &self.group.support
    }

    fn read(&mut self, at_ns: u64, into: &mut Reading) {
        *into = Reading { at_ns, cpu: here(), ..Reading::default() };
        self.group.read(into);
    }
}
