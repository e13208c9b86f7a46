//! What a user writes: one value per agent that makes requests and serves them.
//!
//! The harness owns the schedule, the deadline and the recording; a workload owns the content.
//!
//! ```
//! use tailbeam_harness::load::{AgentInfo, Cx, ReplyTo, Workload};
//!
//! struct Doubler;
//! impl Workload for Doubler {
//!     const NAME: &'static str = "doubler";
//!     const ABOUT: &'static str = "doubles a number";
//!     type Request = u64;
//!     type Reply = u64;
//!     fn new(_: AgentInfo) -> Self { Doubler }
//!     fn request(&mut self, k: u64) -> u64 { k }
//!     async fn serve(&mut self, n: u64, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
//!         reply.send(cx, n * 2);
//!     }
//! }
//! ```

use std::net::SocketAddr;

use tailbeam_runtime::Cx;

use super::draw::Draw;
use super::exchange::ReplyTo;
use super::middle::{Middle, Setup};
use crate::plan::Span;
use crate::protocol::elicitation::{Id, Notice};
use crate::remote::Hello;

/// Who an agent is.
#[derive(Debug, Clone, Copy)]
pub struct AgentInfo {
    /// Index in `0..agents`.
    pub index: u32,
    /// Agents of the run.
    pub agents: u32,
    /// Bound on requests this agent may hold as a responder.
    pub pending_max: u32,
    /// The agent's own draws.
    pub draw: Draw,
}

/// How a reply ends a request in the outcome sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Answered as asked.
    Ok,
    /// The responder declined: an answer all the same.
    Declined,
    /// The asker withdrew it.
    Cancelled,
    /// A limit refused it; refusals do not count against delivery.
    Refused,
    /// The responder failed.
    Error,
}

/// What an agent knows when it is to ask.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    pub(crate) k: u64,
    pub(crate) to: u32,
    pub(crate) now_ns: u64,
    pub(crate) deadline_ns: u64,
}

/// A request, and by which core's middle it and its answer go.
#[doc(hidden)]
#[derive(Debug)]
pub struct Outgoing<R> {
    pub(crate) request: R,
    pub(crate) out: Option<u16>,
    pub(crate) back: Option<u16>,
}

/// One agent of a workload: it asks and it serves. All `N` agents of a run are live at once.
pub trait Workload: Sized + Send + 'static {
    /// Name on the command line.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// Planned delay of the responder when the command line names none. The schedule's cycle holds
    /// it, and [`ReplyTo::due_ns`] tells the responder when to answer.
    const DELAY: Span = Span { min_ns: 0, max_ns: 0 };
    /// What is asked. Any size: it travels boxed.
    type Request: Send + 'static;
    /// What is answered.
    type Reply: Send + 'static;

    /// Makes the agent, on its core.
    fn new(info: AgentInfo) -> Self;
    /// The content of this agent's `k`-th request.
    fn request(&mut self, k: u64) -> Self::Request;
    /// Serves a request of another agent. Answer now, or keep `reply` and answer later. While this
    /// future is suspended the agent takes no other message.
    fn serve(
        &mut self,
        request: Self::Request,
        reply: ReplyTo<Self>,
        cx: &mut Cx<'_>,
    ) -> impl Future<Output = ()>;
    /// A timer set with [`Cx::notify_at`] fired. Tokens below 2^62 are the workload's own.
    fn on_timer(&mut self, _token: u64, _cx: &mut Cx<'_>) {}
    /// Classifies a reply that arrived within its deadline.
    fn settle(&mut self, _reply: Self::Reply) -> Settled {
        Settled::Ok
    }

    /// Whether it holds no request of another agent, so that it may go when its session is over (`soak --session`). What
    /// an agent holds that goes all the same expires at those who asked.
    fn idle(&self) -> bool {
        true
    }

    /// Whether its messages go by a middle on each core, and are logged.
    #[doc(hidden)]
    const MIDDLE: bool = false;
    /// The middle of a core; called there before its agents are made.
    #[doc(hidden)]
    fn middle(_: &Setup<Self>) -> Option<Box<dyn Middle<Self>>> {
        None
    }
    /// Whether its responders may live in a second process.
    #[doc(hidden)]
    const FAR: bool = false;
    /// Keeps a connection of this core to the second process at an address; `false`: there is no room for it.
    #[doc(hidden)]
    fn reach(_: SocketAddr, _: Hello, _: &mut Cx<'_>) -> bool {
        false
    }
    /// Ends the connection of this core.
    #[doc(hidden)]
    fn leave() {}
    /// As [`Workload::request`], where it matters whom it is for.
    ///
    /// # Errors
    /// How a request ends that is not sent.
    #[doc(hidden)]
    fn ask(
        &mut self,
        asking: Asking,
        _cx: &mut Cx<'_>,
    ) -> Result<Outgoing<Self::Request>, Settled> {
        Ok(Outgoing { request: self.request(asking.k), out: None, back: None })
    }
    /// The run begins at this instant, ns.
    #[doc(hidden)]
    fn begin(&mut self, _start_ns: u64, _cx: &mut Cx<'_>) {}
    /// A notice that no exchange carries.
    #[doc(hidden)]
    fn told(&mut self, _notice: Notice, _cx: &mut Cx<'_>) {}
    /// A request of its own is pending at its owner under this id; `key` is the request's at its host.
    #[doc(hidden)]
    fn made(&mut self, _id: Id, _key: u64, _cx: &mut Cx<'_>) {}
    /// A batch was taken; the number of its last message.
    #[doc(hidden)]
    fn batch_taken(&mut self, _cursor: Option<u64>, _cx: &mut Cx<'_>) {}
}
