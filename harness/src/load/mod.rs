//! Open-loop load: schedule, hosted agents, recording.

pub(crate) mod account;
mod ask;
mod draw;
mod elicit;
mod exchange;
pub(crate) mod harm;
mod host;
pub(crate) mod latency;
pub(crate) mod legs;
pub(crate) mod link;
pub(crate) mod middle;
pub(crate) mod open;
pub(crate) mod plant;
mod poll;
pub(crate) mod recorder;
pub(crate) mod secure;
pub(crate) mod session;
pub(crate) mod settle;
pub(crate) mod slow;
mod thin;
pub(crate) mod units;
mod way;
mod workload;

use std::marker::PhantomData;
use std::path::PathBuf;

pub use ask::Ask;
pub use draw::{Draw, Stream};
pub use elicit::{Elicit, Question, Verdict};
#[doc(hidden)]
pub use exchange::Exchange;
pub use exchange::ReplyTo;
pub(crate) use host::{Fleet, HostMsg, Hosted, owner_of};
pub(crate) use latency::{CoreLatency, LIST};
#[doc(hidden)]
pub use middle::{Middle, MiddleMsg, Setup};
pub use poll::Poll;
pub(crate) use recorder::{AgentNs, LIMITS_MAX, Place, Recorder, SeriesSet, empty_set};
pub use recorder::{SecondCounts, Series};
pub(crate) use secure::answer_data;
pub use secure::{Asked, Said, Secure};
pub use tailbeam_runtime::Cx;
pub use workload::{AgentInfo, Settled, Workload};
#[doc(hidden)]
pub use workload::{Asking, Outgoing};

use crate::drive::{self, Control, DriveError, Progress, Resume};
use crate::evidence::Store;
use crate::plan::{Plan, Span};

/// A workload without its type, for a command line.
pub trait AnyWorkload: Sync {
    /// Name.
    fn name(&self) -> &'static str;
    /// One line.
    fn about(&self) -> &'static str;
    /// Planned delay when none is given.
    fn default_delay(&self) -> Span;
    /// Whether it has an event log, limits, sizes and polling that a plan can set.
    fn has_log(&self) -> bool {
        false
    }
    /// Runs a plan.
    ///
    /// # Errors
    /// [`DriveError`].
    fn run(
        &self,
        plan: &Plan,
        store: &Store,
        control: &Control,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<PathBuf, DriveError>;
    /// Continues a run of this workload.
    ///
    /// # Errors
    /// [`DriveError`].
    fn resume(
        &self,
        resume: Resume,
        control: &Control,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<PathBuf, DriveError>;
}

/// The entry of a workload in a list of workloads.
#[derive(Debug)]
pub struct Entry<W>(PhantomData<fn(W)>);

impl<W: Workload> Entry<W> {
    /// The one value.
    pub const NEW: Self = Self(PhantomData);
}

impl<W: Workload> AnyWorkload for Entry<W> {
    fn name(&self) -> &'static str {
        W::NAME
    }

    fn about(&self) -> &'static str {
        W::ABOUT
    }

    fn default_delay(&self) -> Span {
        W::DELAY
    }

    fn has_log(&self) -> bool {
        W::MIDDLE
    }

    fn run(
        &self,
        plan: &Plan,
        store: &Store,
        control: &Control,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<PathBuf, DriveError> {
        drive::run::<W>(plan, store, control, progress)
    }

    fn resume(
        &self,
        resume: Resume,
        control: &Control,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<PathBuf, DriveError> {
        drive::resume::<W>(resume, control, progress)
    }
}
