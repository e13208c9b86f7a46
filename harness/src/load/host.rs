//! The agent that hosts a workload value on the runtime: schedule, sending, deadlines, recording.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use tailbeam_probes::collect::heap::owner;
use tailbeam_runtime::{Addr, Agent, Cx, Stop};

use super::draw::{Draw, Stream};
use super::exchange::{Body, Exchange, ReplyTo};
use super::open::Open;
use super::plant::{self, Plot};
use super::recorder::{self, Recorder, Series};
use super::workload::{AgentInfo, Settled, Workload};
use crate::plan::Plan;

/// Timer token of the next intended instant; workloads own the tokens below 2^62.
const TICK: u64 = 1 << 63;
/// Timer token of an expiry: this bit and the key of the open request.
const EXPIRE: u64 = 1 << 62;
/// Requests sent in one turn before other agents get theirs.
const BURST: u32 = 64;

/// The tag of an agent in the record of the heap: 0 is nobody there.
pub(crate) const fn owner_of(index: u32, agents: u32) -> u32 {
    if index == 0 { agents } else { index }
}

/// What all agents of a run share.
#[derive(Debug)]
pub(crate) struct Fleet<W: Workload> {
    pub(crate) plan: Plan,
    pub(crate) agents: u32,
    /// Address of agent `i`; set once every agent lives.
    pub(crate) addresses: OnceLock<Vec<Addr<Hosted<W>>>>,
    pub(crate) workload: PhantomData<fn(W)>,
}

/// One hosted agent.
pub(crate) struct Hosted<W: Workload> {
    fleet: Arc<Fleet<W>>,
    next_ns: u64,
    index: u32,
    local: u32,
    k: u32,
    open: u32,
    /// Whose what it allocates is: its index, and that of the first agent is the number of all.
    owner: u32,
    plots: Vec<Plot>,
    inner: W,
}

/// What hosted agents send each other; the content is boxed, so a message is two words.
#[derive(Debug)]
pub(crate) enum HostMsg<W: Workload> {
    /// The run starts at this monotonic instant, ns.
    Begin(u64),
    Ask(Box<Exchange<W>>),
    Answer(Box<Exchange<W>>),
}

impl<W: Workload> Hosted<W> {
    pub(crate) fn new(fleet: Arc<Fleet<W>>, index: u32, local: u32) -> Self {
        let info = AgentInfo {
            index,
            agents: fleet.agents,
            pending_max: fleet.plan.pending_max,
            draw: Draw::new(fleet.plan.seed, u64::from(index)),
        };
        let owner = owner_of(index, fleet.agents);
        let plots = plant::plots(&fleet.plan, index);
        let _tag = owner::scope(owner);
        let inner = W::new(info);
        Self { fleet, next_ns: 0, index, local, k: 0, open: 0, owner, plots, inner }
    }

    fn draw(&self) -> Draw {
        Draw::new(self.fleet.plan.seed, u64::from(self.index))
    }

    /// Sends every request that is due, late ones included, and arms the next instant.
    fn issue(&mut self, cx: &mut Cx<'_>) {
        if !self.plots.is_empty() {
            let now_ns = cx.fresh_ns();
            self.plots.iter_mut().for_each(|plot| plot.tend(now_ns, cx));
        }
        let end_ns = recorder::with(|r| r.end_ns);
        let mut burst = BURST;
        while self.next_ns < end_ns && burst > 0 && self.next_ns <= cx.fresh_ns() {
            self.send(cx);
            let plan = &self.fleet.plan;
            self.next_ns += self.draw().cycle_ns(u64::from(self.k), plan.think, plan.delay);
            self.k = self.k.wrapping_add(1);
            burst -= 1;
        }
        if self.next_ns < end_ns && cx.notify_at(self.next_ns, TICK).is_err() {
            recorder::with(|r| r.second.generator_exhausted += 1);
        }
    }

    fn send(&mut self, cx: &mut Cx<'_>) {
        let local = self.local as usize;
        recorder::with(|r| {
            r.second.outcomes.attempts += 1;
            r.attempts[local] = r.attempts[local].saturating_add(1);
        });
        if self.open >= self.fleet.plan.open_max {
            recorder::with(|r| {
                r.second.outcomes.refused += 1;
                r.second.refused_open_bound += 1;
            });
            return;
        }
        let open = self.open_request(cx.fresh_ns());
        let Some(key) = recorder::with(|r| r.open.insert(open)) else {
            recorder::with(|r| fail(r, true));
            return;
        };
        recorder::with(|r| r.record(Series::Lateness, open.sent_ns - open.intended_ns));
        let exchange = self.exchange(&open, key, cx.me::<Self>());
        match self.target().try_send(cx, HostMsg::Ask(exchange)) {
            Ok(()) => self.arm_expiry(key, open.deadline_ns, cx),
            Err(_) => recorder::with(|r| {
                r.open.remove(key);
                fail(r, false);
            }),
        }
    }

    fn open_request(&self, now_ns: u64) -> Open {
        let plan = &self.fleet.plan;
        Open {
            intended_ns: self.next_ns,
            sent_ns: now_ns,
            deadline_ns: self.next_ns + plan.timeout_ns,
            planned_ns: self.draw().span_ns(u64::from(self.k), Stream::Delay, plan.delay),
            local: self.local,
            timer: None,
        }
    }

    fn exchange(&mut self, open: &Open, key: u64, home: Addr<Self>) -> Box<Exchange<W>> {
        Box::new(Exchange {
            from: self.index,
            key,
            sent_ns: open.sent_ns,
            deadline_ns: open.deadline_ns,
            planned_ns: open.planned_ns,
            served_ns: 0,
            answered_ns: 0,
            home,
            body: Body::Request(self.inner.request(u64::from(self.k))),
        })
    }

    /// Uniform over all agents but this one.
    fn target(&self) -> Addr<Self> {
        let others = u64::from(self.fleet.agents) - 1;
        let drawn = self.draw().below(u64::from(self.k), Stream::Target, others);
        let other = usize::try_from(drawn).expect("an agent index fits usize");
        let skip = usize::from(other >= self.index as usize);
        let addresses = self.fleet.addresses.get().expect("set before the run begins");
        addresses[other + skip]
    }

    fn arm_expiry(&mut self, key: u64, deadline_ns: u64, cx: &mut Cx<'_>) {
        self.open += 1;
        match cx.notify_at(deadline_ns, EXPIRE | key) {
            Ok(timer) => recorder::with(|r| r.open.set_timer(key, timer)),
            // Without a timer it can still be answered; if it is not, the end of the run counts it lost.
            Err(_) => recorder::with(|r| r.second.generator_exhausted += 1),
        }
    }

    #[expect(
        clippy::boxed_local,
        reason = "the box is the message; it is freed here, on the core that made it"
    )]
    fn answered(&mut self, mut exchange: Box<Exchange<W>>, cx: &mut Cx<'_>) {
        let now = cx.fresh_ns();
        let Some(open) = recorder::with(|r| r.open.remove(exchange.key)) else {
            recorder::with(|r| r.second.late_answers += 1);
            return;
        };
        self.open -= 1;
        if let Some(timer) = open.timer {
            cx.cancel(timer);
        }
        if now > open.deadline_ns {
            recorder::with(|r| expired(r, &open, now));
            return;
        }
        let Body::Reply(reply) = std::mem::replace(&mut exchange.body, Body::Empty) else {
            recorder::with(|r| fail(r, false));
            return;
        };
        let settled = self.inner.settle(reply);
        recorder::with(|r| settle(r, settled, &open, exchange.answered_ns, now));
    }
}

/// Counts a request that could not be sent. `exhausted`: the generator's own table was full.
fn fail(r: &mut Recorder, exhausted: bool) {
    r.second.outcomes.error += 1;
    r.second.generator_exhausted += u64::from(exhausted);
    r.judge_unanswered();
}

fn expired(r: &mut Recorder, open: &Open, now_ns: u64) {
    r.second.outcomes.expired += 1;
    r.closed(open.sent_ns, now_ns);
    // The request waited this long and got nothing: its age is a lower bound of its latency, so it
    // enters the histograms at that age and counts as above every limit.
    let age = now_ns - open.intended_ns;
    r.record(Series::EndToEnd, age);
    r.record(Series::System, age.saturating_sub(open.planned_ns));
    r.judge_unanswered();
}

fn settle(r: &mut Recorder, settled: Settled, open: &Open, answered_ns: u64, now_ns: u64) {
    r.closed(open.sent_ns, now_ns);
    let outcomes = &mut r.second.outcomes;
    match settled {
        Settled::Ok => outcomes.ok += 1,
        Settled::Declined => outcomes.declined += 1,
        Settled::Cancelled => {
            outcomes.cancelled += 1;
            return;
        }
        Settled::Refused => {
            outcomes.refused += 1;
            return;
        }
        Settled::Error => {
            outcomes.error += 1;
            r.judge_unanswered();
            return;
        }
    }
    let local = open.local as usize;
    r.completions[local] = r.completions[local].saturating_add(1);
    let end_to_end = now_ns - open.intended_ns;
    r.record(Series::EndToEnd, end_to_end);
    r.record(Series::ReplyPath, now_ns.saturating_sub(answered_ns));
    match end_to_end.checked_sub(open.planned_ns) {
        Some(system) => {
            r.record(Series::System, system);
            r.judge(system);
        }
        None => r.second.early_answers += 1,
    }
}

impl<W: Workload> Agent for Hosted<W> {
    type Msg = HostMsg<W>;
    const MAILBOX: u32 = 256;

    async fn on(&mut self, msg: HostMsg<W>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let owner = self.owner;
        match msg {
            HostMsg::Begin(start_ns) => {
                let _tag = owner::scope(owner);
                let plan = &self.fleet.plan;
                self.next_ns = start_ns + self.draw().first_ns(plan.think, plan.delay);
                self.issue(cx);
            }
            HostMsg::Ask(mut exchange) => {
                exchange.served_ns = cx.fresh_ns();
                let path = exchange.served_ns.saturating_sub(exchange.sent_ns);
                recorder::with(|r| r.record(Series::RequestPath, path));
                if let Body::Request(request) = std::mem::replace(&mut exchange.body, Body::Empty) {
                    let mut serving = pin!(self.inner.serve(request, ReplyTo(exchange), cx));
                    // The tag is the thread's: it goes with each poll, not with the future.
                    std::future::poll_fn(|context| {
                        let _tag = owner::scope(owner);
                        serving.as_mut().poll(context)
                    })
                    .await;
                }
            }
            HostMsg::Answer(exchange) => {
                let _tag = owner::scope(owner);
                self.answered(exchange, cx);
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let _tag = owner::scope(self.owner);
        if token == TICK {
            self.issue(cx);
        } else if token & EXPIRE != 0 {
            let now = cx.fresh_ns();
            if let Some(open) = recorder::with(|r| r.open.remove(token & !EXPIRE)) {
                self.open -= 1;
                recorder::with(|r| expired(r, &open, now));
            }
        } else {
            self.inner.on_timer(token, cx);
        }
        Ok(())
    }
}
