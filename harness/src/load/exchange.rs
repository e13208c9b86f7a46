//! One request and its answer: a box that travels to the responder and back, and is freed at home.

use tailbeam_probes::record::latency::{Leg, PollCounts, Stamps};
use tailbeam_runtime::{Addr, Cx};

use super::account;
use super::host::{HostMsg, Hosted};
use super::legs::Step;
use super::middle::{MiddleAgent, MiddleMsg};
use super::recorder::{self, Series};
use super::slow::Strike;
use super::workload::Workload;
use crate::observe;

/// The box. The asker's core allocates it and the asker's core frees it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Exchange<W: Workload> {
    pub(crate) from: u32,
    /// Who was asked.
    pub(crate) to: u32,
    pub(crate) key: u64,
    pub(crate) deadline_ns: u64,
    /// When what happened to it.
    pub(crate) stamps: Stamps,
    /// Its polls are counted: it was drawn, or it was late when it was taken.
    pub(crate) counted: bool,
    /// What they took.
    pub(crate) counts: Option<Box<PollCounts>>,
    /// Planted slowness of its answer.
    pub(crate) strike: Option<Strike>,
    pub(crate) home: Addr<Hosted<W>>,
    /// By whom the answer goes; straight home without.
    pub(crate) back: Option<Addr<MiddleAgent<W>>>,
    /// Its last step, while it is on its way: in the leg behind it.
    pub(crate) at: Option<Step>,
    /// How it came to the middle that passed it on.
    pub(crate) held: Option<Leg>,
    pub(crate) body: Body<W>,
}

impl<W: Workload> Exchange<W> {
    /// The responder's turn has it.
    pub(super) fn taken(&mut self, leg: Leg) {
        let stamps = &mut self.stamps;
        stamps.out = leg;
        if stamps.planned_ns > 0 {
            stamps.due_ns = leg.turn_ns + stamps.planned_ns;
        }
    }

    /// Counts steps that a middle makes in its responder's place.
    pub(crate) fn stepped(&mut self, steps: &[Step]) {
        recorder::with(|r| steps.iter().for_each(|&step| r.step(step)));
        self.at = steps.last().copied();
    }

    /// The whole way of which `last` is the last part.
    pub(super) const fn way(&mut self, last: Leg) -> Leg {
        match self.held.take() {
            None => last,
            Some(held) => Leg {
                published_ns: held.published_ns,
                seen_ns: held.seen_ns,
                aside_ns: held.turn_ns,
                turn_ns: last.turn_ns,
            },
        }
    }

    /// Which request this is.
    pub(super) const fn request(&self) -> (u32, u64) {
        (self.from, self.key)
    }
}

/// One that is dropped on its way, by a link that loses it, with an agent that ends, because a mailbox was full, leaves its
/// leg there: it would be in it for ever otherwise, and Little's law with it.
impl<W: Workload> Drop for Exchange<W> {
    #[inline]
    fn drop(&mut self) {
        if let Some(at) = self.at {
            recorder::dropped(at, &self.stamps);
        }
    }
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
pub struct ReplyTo<W: Workload>(Option<Box<Exchange<W>>>);

impl<W: Workload> ReplyTo<W> {
    pub(super) const fn new(exchange: Box<Exchange<W>>) -> Self {
        Self(Some(exchange))
    }

    fn exchange(&self) -> &Exchange<W> {
        self.0.as_deref().expect("taken out by send and drop alone, which end it")
    }

    /// Index of the asking agent.
    #[must_use]
    pub fn from(&self) -> u32 {
        self.exchange().from
    }

    /// Deadline of the request, monotonic ns; an answer seen later counts as expired.
    #[must_use]
    pub fn deadline_ns(&self) -> u64 {
        self.exchange().deadline_ns
    }

    /// When the plan wants the answer sent: the instant it was served plus the planned delay.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        let stamps = &self.exchange().stamps;
        stamps.out.turn_ns + stamps.planned_ns
    }

    /// Planned delay of the answer, ns.
    pub(super) fn planned_ns(&self) -> u64 {
        self.exchange().stamps.planned_ns
    }

    /// What serving it takes is not counted any more: somebody else serves it.
    pub(super) fn leave_uncounted(&mut self) {
        let exchange = self.0.as_deref_mut().expect("taken out by send and drop alone");
        if std::mem::take(&mut exchange.counted) {
            account::done();
        }
    }

    /// Sends an answer that another process has given, which held the request for so long. Gives how long it was on
    /// its way there and back, ns.
    pub(super) fn send_carried(mut self, cx: &mut Cx<'_>, reply: W::Reply, held_ns: u64) -> u64 {
        let Some(mut exchange) = self.0.take() else { return 0 };
        let way_ns = account::carried(cx.fresh_ns(), held_ns, &mut exchange.stamps);
        deliver(exchange, reply, cx);
        way_ns
    }

    /// Sends the answer. When the asker's mailbox or ring is full the answer is dropped and counted
    /// (`answers_undelivered`), and the request expires at the asker.
    pub fn send(mut self, cx: &mut Cx<'_>, reply: W::Reply) {
        let Some(mut exchange) = self.0.take() else { return };
        if let Some(strike) = exchange.strike {
            strike.work(cx);
        }
        let (turn_ns, now_ns) = (cx.turn_ns(), cx.stamp_ns());
        let request = exchange.request();
        account::answer(request, turn_ns, now_ns, &mut exchange.stamps);
        observe::seen(exchange.stamps.due_ns, exchange.stamps.timer_turn_ns);
        if exchange.counted {
            exchange.counts = recorder::with(|r| account::counts(r.unit));
            account::done();
        }
        deliver(exchange, reply, cx);
    }
}

/// Sends an answer on its way.
fn deliver<W: Workload>(mut exchange: Box<Exchange<W>>, reply: W::Reply, cx: &mut Cx<'_>) {
    exchange.body = Body::Reply(reply);
    let (to, stamps) = (exchange.to, &exchange.stamps);
    recorder::with(|r| r.answered(to, stamps));
    exchange.at = Some(Step::Answered);
    let sent = match exchange.back {
        None => {
            let home = exchange.home;
            home.try_send(cx, HostMsg::Answer(exchange)).is_ok()
        }
        Some(middle) => middle.try_send(cx, MiddleMsg::Answer(exchange)).is_ok(),
    };
    if !sent {
        recorder::with(|r| r.second.answers_undelivered += 1);
    }
}

impl<W: Workload> Drop for ReplyTo<W> {
    fn drop(&mut self) {
        let Some(exchange) = self.0.take() else { return };
        if exchange.counted {
            account::done();
        }
    }
}

/// Notes what the answer's timer cost, if the plan had one.
pub(super) fn record_timer(r: &mut recorder::Recorder, stamps: &Stamps) {
    if stamps.due_ns > 0 {
        r.record(Series::ResponseTimer, stamps.answered_ns.saturating_sub(stamps.due_ns));
    }
}
