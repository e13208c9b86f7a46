//! Agents between askers and responders: one per core, for protocols that do not go straight from one
//! agent to the other. The owner of an elicitation is one, the box that a poller looks into is another.
//!
//! The exchange goes by them, with its stamps. What it waits there is its mailbox stage: it came to the
//! middle (seen, run queue), was set aside there, and was taken by the turn of whom it was for.

use std::sync::Arc;

use tailbeam_runtime::{Addr, Agent, Cx, Reply, SendError, Stop};

use super::exchange::Exchange;
use super::host::{Fleet, HostMsg, Hosted};
use super::recorder;
use super::workload::Workload;
use crate::chaos::board::Board;
use crate::log::{LogAgent, Progress};
use crate::observe;
use crate::plan::Plan;
use crate::protocol::elicitation::{Message, Outcome};

/// What a middle is made for.
#[doc(hidden)]
#[derive(Debug)]
pub struct Setup<W: Workload> {
    pub(crate) fleet: Arc<Fleet<W>>,
    /// Of so many shards with agents.
    pub(crate) shard: usize,
    pub(crate) shards: usize,
    /// The log of this middle.
    pub(crate) log: Addr<LogAgent>,
    /// Secret of the run.
    pub(crate) secret: [u8; 32],
    /// What the log held when it was opened.
    pub(crate) kept: Kept,
    /// Number of the first request of an agent, so that no nonce is made twice under one secret.
    pub(crate) first_request: u64,
    /// What a supervisor shares with the run.
    pub(crate) board: Option<Arc<Board>>,
}

/// What a log held when it was opened, and where it goes on.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Number of the first event of this process.
    pub(crate) next: u64,
    /// Its records, by kind, in order.
    pub(crate) records: Vec<(u16, Box<[u8]>)>,
}

impl<W: Workload> Setup<W> {
    /// The plan of the run.
    pub(crate) fn plan(&self) -> &Plan {
        &self.fleet.plan
    }
}

/// A count of a protocol, for the end of the run.
pub(crate) type Counted = (String, u64);

/// What stands on one core between its agents and others.
#[doc(hidden)]
pub trait Middle<W: Workload> {
    /// A message.
    fn on(&mut self, msg: MiddleMsg<W>, cx: &mut Cx<'_>);
    /// A timer of its own.
    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>);
}

/// What a middle is sent.
#[doc(hidden)]
#[derive(Debug)]
pub enum MiddleMsg<W: Workload> {
    /// A request on its way.
    Ask(Box<Exchange<W>>),
    /// An answer on its way.
    Answer(Box<Exchange<W>>),
    /// A message that no exchange carries, and who wants to know what came of it.
    Say(Box<Message>, Option<Reply<Box<Outcome>>>),
    /// An asker withdraws what its host knows by this key.
    Cancel(Box<Message>, u64),
    /// A receiver of this core calls, with the last number that it has.
    Wait { receiver: u32, cursor: Option<u64> },
    /// How far the log is.
    Log(Progress),
    /// What was counted.
    Counts(Reply<Vec<(String, u64)>>),
}

impl<W: Workload> MiddleMsg<W> {
    /// It was handed back and is dropped: what it carries has not begun its way.
    pub(super) fn never_sent(mut self) {
        if let Self::Ask(exchange) = &mut self {
            exchange.at = None;
        }
    }
}

/// The agent that hosts one.
pub(crate) struct MiddleAgent<W: Workload>(Box<dyn Middle<W>>);

impl<W: Workload> MiddleAgent<W> {
    pub(crate) fn new(middle: Box<dyn Middle<W>>) -> Self {
        Self(middle)
    }
}

impl<W: Workload> Agent for MiddleAgent<W> {
    type Msg = MiddleMsg<W>;
    const MAILBOX: u32 = 50_000;

    async fn on(&mut self, msg: MiddleMsg<W>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        observe::runs(u32::MAX, cx.turn_ns());
        self.0.on(msg, cx);
        Ok(())
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        observe::runs(u32::MAX, cx.turn_ns());
        self.0.on_timer(token, cx);
        Ok(())
    }
}

/// Passes a request on to whom it is for.
pub(crate) fn pass_on<W: Workload>(
    to: Addr<Hosted<W>>,
    exchange: Box<Exchange<W>>,
    cx: &mut Cx<'_>,
) -> bool {
    let sent = to.try_send(cx, HostMsg::Ask(exchange));
    sent.inspect_err(|refused| {
        if matches!(refused, SendError::Full(_)) {
            recorder::with(|r| r.found_full());
        }
        lost();
    })
    .is_ok()
}

/// Brings an answer home.
pub(crate) fn bring_home<W: Workload>(exchange: Box<Exchange<W>>, cx: &mut Cx<'_>) {
    let home = exchange.home;
    if home.try_send(cx, HostMsg::Answer(exchange)).is_err() {
        lost();
    }
}

/// An exchange is given up: nobody will have it in hand, and its request expires at its asker.
pub(crate) fn lost() {
    recorder::with(|r| r.second.answers_undelivered += 1);
}
