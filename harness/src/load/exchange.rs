//! One request and its answer: a box that travels to the responder and back, and is freed at home.

use tailbeam_runtime::{Addr, Cx};

use super::host::{HostMsg, Hosted};
use super::recorder::{self, Series};
use super::workload::Workload;

/// The box. The asker's core allocates it and the asker's core frees it.
#[derive(Debug)]
pub(crate) struct Exchange<W: Workload> {
    pub(crate) from: u32,
    pub(crate) key: u64,
    pub(crate) sent_ns: u64,
    pub(crate) deadline_ns: u64,
    pub(crate) planned_ns: u64,
    /// When the responder's handler took it.
    pub(crate) served_ns: u64,
    /// When the responder sent the answer.
    pub(crate) answered_ns: u64,
    pub(crate) home: Addr<Hosted<W>>,
    pub(crate) body: Body<W>,
}

/// What the box carries.
pub(crate) enum Body<W: Workload> {
    Request(W::Request),
    Reply(W::Reply),
    Empty,
}

impl<W: Workload> std::fmt::Debug for Body<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Request(_) => "Request",
            Self::Reply(_) => "Reply",
            Self::Empty => "Empty",
        })
    }
}

/// The way back to the asker. Dropping it without an answer lets the request expire.
#[derive(Debug)]
pub struct ReplyTo<W: Workload>(pub(crate) Box<Exchange<W>>);

impl<W: Workload> ReplyTo<W> {
    /// Index of the asking agent.
    #[must_use]
    pub fn from(&self) -> u32 {
        self.0.from
    }

    /// Deadline of the request, monotonic ns; an answer seen later counts as expired.
    #[must_use]
    pub fn deadline_ns(&self) -> u64 {
        self.0.deadline_ns
    }

    /// When the plan wants the answer sent: the instant it was served plus the planned delay.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        self.0.served_ns + self.0.planned_ns
    }

    /// Sends the answer. When the asker's mailbox or ring is full the answer is dropped and counted
    /// (`answers_undelivered`), and the request expires at the asker.
    pub fn send(self, cx: &mut Cx<'_>, reply: W::Reply) {
        let mut exchange = self.0;
        let now = cx.fresh_ns();
        exchange.answered_ns = now;
        exchange.body = Body::Reply(reply);
        if exchange.planned_ns > 0 {
            let due = exchange.served_ns + exchange.planned_ns;
            recorder::with(|r| r.record(Series::ResponseTimer, now.saturating_sub(due)));
        }
        let home = exchange.home;
        if home.try_send(cx, HostMsg::Answer(exchange)).is_err() {
            recorder::with(|r| r.second.answers_undelivered += 1);
        }
    }
}
