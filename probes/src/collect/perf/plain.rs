//! What can be counted of a thread without perf: everywhere, also in containers that refuse it.

use std::marker::PhantomData;

use super::CounterBackend;
use super::kind::{Kind, Scope, Source, Support};
use super::reading::{Reading, State};
use super::thread::{here, read_usage, usage_source};
use crate::{Unavailable, clock};

/// CPU time, faults and switches of the calling thread.
#[derive(Debug)]
pub struct Plain {
    support: Support,
    /// Reads the thread that calls, so it must stay with one.
    _thread: PhantomData<*const ()>,
}

impl Plain {
    /// Of the calling thread; `why` perf is not used is the reason for all that it alone counts.
    #[must_use]
    pub fn new(why: &Unavailable) -> Self {
        let support = Support::new(|kind| match kind {
            Kind::TaskClock => {
                Ok(Source { name: "CLOCK_THREAD_CPUTIME_ID", scope: Scope::All, grouped: false })
            }
            _ => usage_source(kind).map_err(|_| why.clone()),
        });
        Self { support, _thread: PhantomData }
    }
}

impl CounterBackend for Plain {
    fn support(&self) -> &Support {
        &self.support
    }

    fn read(&mut self, at_ns: u64, into: &mut Reading) {
        *into = Reading { at_ns, cpu: here(), state: State::Ungrouped, ..Reading::default() };
        into.values[Kind::TaskClock.index()] = clock::thread_cpu_ns();
        read_usage(into);
    }
}
