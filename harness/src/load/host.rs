//! The agent that hosts a workload value on the runtime: schedule, sending, deadlines, recording.

mod life;

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use tailbeam_probes::collect::heap::owner;
use tailbeam_probes::record::latency::Stamps;
use tailbeam_runtime::{Addr, Agent, AgentId, Cx, Stop};

use super::account::{self, Account, Serving};
use super::draw::{Draw, Stream};
use super::exchange::{Body, Exchange, ReplyTo};
use super::harm::Harm;
use super::latency::Draws;
use super::legs::Step;
use super::middle::{MiddleAgent, MiddleMsg};
use super::open::Open;
use super::plant::{self, Plot};
use super::recorder::{self, Series};
use super::secure::far::FarCounts;
use super::session::{Session, Sessions};
use super::settle::{Refusal, fail, handed_back, no_memory, settle, unsent, withdrawn};
use super::slow::{self, Slow};
use super::way;
use super::workload::{AgentInfo, Asking, Outgoing, Workload};
use crate::chaos::board::Fate;
use crate::observe;
use crate::plan::{Arrivals, Plan, Targets};
use crate::protocol::elicitation::{Id, Notice};

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
    /// Those that ask and are asked: the first ones.
    pub(crate) askers: u32,
    /// Address of agent `i`; set once every agent lives.
    pub(crate) addresses: OnceLock<Vec<Addr<Hosted<W>>>>,
    /// Which requests have stages, and which are written down whole.
    pub(crate) draws: Draws,
    /// The agent that is flooded, and each how-many-th request goes to it.
    pub(crate) flood: Option<(u32, u32)>,
    /// The middles of the cores; set before any agent begins, empty without.
    pub(crate) middles: OnceLock<Vec<Addr<MiddleAgent<W>>>>,
    pub(crate) workload: PhantomData<fn(W)>,
    /// What a supervisor does to them; none without a board.
    pub(crate) harm: Option<Harm>,
    /// Sessions of its agents that have ended.
    pub(crate) sessions: Sessions,
    /// Where agents that are made anew live, by themselves; empty where none is.
    pub(crate) born: Box<[OnceLock<Addr<Hosted<W>>>]>,
    /// When the run starts; set before any agent begins.
    pub(crate) start_ns: OnceLock<u64>,
    /// What the connections to a second process have done, by core; none where all agents answer here.
    pub(crate) far: Option<Arc<[FarCounts]>>,
    /// From this agent on they answer there.
    pub(crate) far_from: u32,
    /// Requests do not end at their deadline: a defence that a supervisor has switched off.
    pub(crate) no_expiry: bool,
}

impl<W: Workload> Fleet<W> {
    /// Address of an agent.
    pub(crate) fn address(&self, agent: u32) -> Addr<Hosted<W>> {
        self.addresses.get().expect("set before the run begins")[agent as usize]
    }

    /// The middle of a core.
    pub(crate) fn middle(&self, core: u16) -> Option<Addr<MiddleAgent<W>>> {
        self.middles.get()?.get(usize::from(core)).copied()
    }
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
    slows: Box<[Slow]>,
    /// Counted requests that it holds: its timers' turns are counted meanwhile.
    counted: u32,
    /// Panics of its core that it has behind it.
    behind: u64,
    session: Session,
    inner: W,
}

/// What hosted agents send each other; the content is boxed, so a message is two words.
#[derive(Debug)]
pub(crate) enum HostMsg<W: Workload> {
    /// The run starts at this monotonic instant, ns.
    Begin(u64),
    Ask(Box<Exchange<W>>),
    Answer(Box<Exchange<W>>),
    /// What a look found, and the number of the last of it.
    Batch(Vec<Box<Exchange<W>>>, Option<u64>),
    /// A notice that no exchange carries.
    Told(Box<Notice>),
    /// A request is pending at its owner under this id; its bytes, as a message is aligned to 8.
    Made([u8; 16], u64),
    /// A request was withdrawn: its exchange does not come home with an answer.
    Withdrawn(u64),
    /// Every agent asks now, whatever its schedule says.
    Herd,
}

impl<W: Workload> HostMsg<W> {
    /// It was handed back and is dropped: what it carries has not begun its way.
    fn never_sent(mut self) {
        if let Self::Ask(exchange) = &mut self {
            exchange.at = None;
        }
    }
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
        let slows = slow::of(&fleet.plan, index);
        let _tag = owner::scope(owner);
        let inner = W::new(info);
        let (counted, behind) = (0, fleet.harm.as_ref().map_or(0, |harm| harm.behind(index)));
        Self {
            fleet,
            next_ns: 0,
            index,
            local,
            k: 0,
            open: 0,
            owner,
            plots,
            slows,
            counted,
            behind,
            session: Session::ENDLESS,
            inner,
        }
    }

    fn draw(&self) -> Draw {
        Draw::new(self.fleet.plan.seed, u64::from(self.index))
    }

    /// Sends every request that is due at `now_ns` or becomes due meanwhile, late ones included, and arms the next
    /// instant.
    fn issue(&mut self, now_ns: u64, cx: &mut Cx<'_>) {
        self.issue_due(now_ns, cx);
        self.keep(false);
    }

    /// One request beside the schedule, due now.
    fn ask_with_all(&mut self, cx: &mut Cx<'_>) {
        if self.index >= self.fleet.askers || self.next_ns == 0 {
            return;
        }
        let next_ns = std::mem::replace(&mut self.next_ns, cx.fresh_ns());
        if self.next_ns < recorder::with(|r| r.end_ns) {
            let _ = self.send(cx);
            self.k = self.k.wrapping_add(1);
        }
        self.next_ns = next_ns;
        self.keep(false);
    }

    fn issue_due(&mut self, mut now_ns: u64, cx: &mut Cx<'_>) {
        if !self.plots.is_empty() {
            let now_ns = cx.fresh_ns();
            self.plots.iter_mut().for_each(|plot| plot.tend(now_ns, cx));
        }
        let (end_ns, closed_loop) = recorder::with(|r| (r.end_ns, r.closed_loop));
        if closed_loop {
            return self.ask_again(cx);
        }
        // One look for all that is due, and that of each request for what became due meanwhile.
        let mut burst = BURST;
        while self.next_ns < end_ns && burst > 0 && self.next_ns <= now_ns {
            let k = u64::from(self.k);
            for _ in 0..self.fleet.plan.shape.fan_out {
                let (sent, at_ns) = self.send(cx);
                now_ns = now_ns.max(at_ns);
                self.k = self.k.wrapping_add(1);
                burst = burst.saturating_sub(1);
                if self.fleet.plan.shape.arrivals == Arrivals::Closed && sent {
                    return;
                }
            }
            self.next_ns += self.draw().distance_ns(k, &self.fleet.plan);
        }
        if self.next_ns < end_ns && cx.notify_at(self.next_ns, TICK).is_err() {
            recorder::with(|r| r.second.generator_exhausted += 1);
        }
    }

    /// One request that is due now: the closed loop of a saturated phase.
    fn ask_again(&mut self, cx: &mut Cx<'_>) {
        self.next_ns = cx.fresh_ns();
        let _ = self.send(cx);
        self.k = self.k.wrapping_add(1);
    }

    /// One that waits for an answer is closed: the next one is due a think time later.
    fn ended(&mut self, cx: &mut Cx<'_>) {
        self.open -= 1;
        if recorder::with(|r| r.closed_loop) {
            return self.ask_again(cx);
        }
        if self.fleet.plan.shape.arrivals == Arrivals::Closed {
            let think =
                self.draw().span_ns(u64::from(self.k), Stream::Think, self.fleet.plan.think);
            self.next_ns = cx.fresh_ns() + think;
            self.issue(cx.stamp_ns(), cx);
        }
    }

    /// Whether it is on its way, and when that was decided, ns; 0 where nobody looked.
    fn send(&mut self, cx: &mut Cx<'_>) -> (bool, u64) {
        let (local, due_ns) = (self.local as usize, self.next_ns);
        let closed_loop = recorder::with(|r| {
            r.due(local, due_ns);
            r.closed_loop
        });
        if self.open >= self.fleet.plan.open_max {
            recorder::with(|r| {
                r.came_to(due_ns, Fate::Refused);
                r.second.refused_open_bound += 1;
            });
            return (false, 0);
        }
        let target = self.target();
        let mut open = self.open_request(target, cx.stamp_ns());
        if closed_loop {
            open.planned_ns = 0;
        }
        let (now_ns, deadline_ns) = (open.sent_ns, open.deadline_ns);
        let asking = Asking { k: u64::from(self.k), to: target, now_ns, deadline_ns };
        let outgoing = match self.inner.ask(asking, cx) {
            Ok(outgoing) => outgoing,
            Err(settled) => {
                recorder::with(|r| unsent(r, due_ns, settled));
                return (false, now_ns);
            }
        };
        let Some(key) = recorder::with(|r| r.open.insert(open)) else {
            recorder::with(|r| fail(r, due_ns, true));
            return (false, now_ns);
        };
        let by = outgoing.out.and_then(|core| self.fleet.middle(core));
        let Some(mut exchange) = self.exchange(&open, key, outgoing, cx.me::<Self>()) else {
            recorder::with(|r| no_memory(r, (key, due_ns)));
            return (false, now_ns);
        };
        recorder::with(|r| {
            r.record(Series::Lateness, open.sent_ns.saturating_sub(open.intended_ns));
            // Before it is: the responder may take it before this turn goes on.
            r.step(Step::Sent);
        });
        exchange.at = Some(Step::Sent);
        let sent = match by {
            // Whose mailbox it is then is nobody's that requests are for.
            Some(middle) => middle
                .try_send(cx, MiddleMsg::Ask(exchange))
                .map_err(|refused| (None, Refusal::of(refused, MiddleMsg::never_sent))),
            None => self
                .fleet
                .address(target)
                .try_send(cx, HostMsg::Ask(exchange))
                .map_err(|refused| (Some(target), Refusal::of(refused, HostMsg::never_sent))),
        };
        match sent {
            Ok(()) => self.arm_expiry(key, open.deadline_ns, cx),
            Err((whose, refusal)) => {
                recorder::with(|r| handed_back(r, (key, due_ns), whose, refusal))
            }
        }
        (sent.is_ok(), now_ns)
    }

    fn open_request(&self, target: u32, now_ns: u64) -> Open {
        let plan = &self.fleet.plan;
        let k = u64::from(self.k);
        Open {
            intended_ns: self.next_ns,
            sent_ns: now_ns,
            deadline_ns: self.next_ns + plan.timeout_ns,
            planned_ns: self.draw().delay_ns(k, plan),
            local: self.local,
            responder: target,
            drawn: self.fleet.draws.of(self.draw(), k),
            timer: None,
        }
    }

    /// None when there is no memory for it.
    fn exchange(
        &self,
        open: &Open,
        key: u64,
        outgoing: Outgoing<W::Request>,
        home: Addr<Self>,
    ) -> Option<Box<Exchange<W>>> {
        Harm::boxed(self.fleet.harm.as_ref(), || Exchange {
            from: self.index,
            to: open.responder,
            key,
            deadline_ns: open.deadline_ns,
            stamps: Stamps {
                intended_ns: open.intended_ns,
                sent_ns: open.sent_ns,
                planned_ns: open.planned_ns,
                ..Stamps::default()
            },
            counted: open.drawn.whole,
            counts: None,
            strike: None,
            home,
            back: outgoing.back.and_then(|core| self.fleet.middle(core)),
            at: None,
            held: None,
            body: Body::Request(outgoing.request),
        })
    }

    /// As the plan's shape says, beside what floods one of them.
    fn target(&self) -> u32 {
        if let Some((agent, every)) = self.fleet.flood
            && agent != self.index
            && self.k.is_multiple_of(every)
        {
            return agent;
        }
        let crowded = self.fleet.harm.as_ref().and_then(|harm| harm.crowded(self.index, self.k));
        if let Some(agent) = crowded {
            return agent;
        }
        let targets = self.fleet.plan.shape.targets;
        if targets == Targets::Ring {
            return (self.index + 1) % self.fleet.askers;
        }
        let asked = u32::try_from(targets.asked(u64::from(self.fleet.askers)));
        let asked = asked.expect("at most the number of agents, a u32");
        // Not itself, if it is among them.
        let others = asked - u32::from(self.index < asked);
        let drawn = self.draw().below(u64::from(self.k), Stream::Target, u64::from(others.max(1)));
        let other = u32::try_from(drawn).expect("below the number of agents, a u32");
        other + u32::from(self.index < asked && other >= self.index)
    }

    fn arm_expiry(&mut self, key: u64, deadline_ns: u64, cx: &mut Cx<'_>) {
        self.open += 1;
        if self.fleet.no_expiry {
            return;
        }
        match cx.notify_at(deadline_ns, EXPIRE | key) {
            Ok(timer) => recorder::with(|r| r.open.set_timer(key, timer)),
            // Without a timer it can still be answered; if it is not, the end of the run counts it lost.
            Err(_) => recorder::with(|r| r.second.generator_exhausted += 1),
        }
    }

    fn answered(&mut self, mut exchange: Box<Exchange<W>>, cx: &mut Cx<'_>) {
        let back = exchange.way(way::leg(cx));
        // A clock read of its own: the total that the stages are compared with.
        let now = cx.fresh_ns();
        exchange.stamps.back = back;
        exchange.stamps.closed_ns = now;
        recorder::with(|r| r.in_hand(&exchange.stamps));
        exchange.at = None;
        let Some(open) = recorder::with(|r| r.open.remove(exchange.key)) else {
            recorder::with(|r| r.second.late_answers += 1);
            return;
        };
        if let Some(timer) = open.timer {
            cx.cancel(timer);
        }
        self.outcome(&open, exchange, now);
        self.ended(cx);
    }

    fn withdrawn(&mut self, key: u64, cx: &mut Cx<'_>) {
        let Some(open) = recorder::with(|r| r.open.remove(key)) else { return };
        if let Some(timer) = open.timer {
            cx.cancel(timer);
        }
        let now = cx.fresh_ns();
        recorder::with(|r| withdrawn(r, &open, now));
        self.ended(cx);
    }

    fn outcome(&mut self, open: &Open, mut exchange: Box<Exchange<W>>, now: u64) {
        if now > open.deadline_ns {
            recorder::with(|r| r.expired(self.index, open, now));
            return;
        }
        let Body::Reply(reply) = std::mem::replace(&mut exchange.body, Body::Empty) else {
            recorder::with(|r| fail(r, open.intended_ns, false));
            return;
        };
        let settled = self.inner.settle(reply);
        recorder::with(|r| settle(r, settled, open, &exchange));
    }

    /// Takes a request and serves it, poll by poll.
    async fn serve(&mut self, mut exchange: Box<Exchange<W>>, cx: &mut Cx<'_>) {
        let out = exchange.way(way::leg(cx));
        exchange.taken(out);
        let stamps = &exchange.stamps;
        exchange.counted = recorder::with(|r| r.took(stamps, stamps.out, exchange.counted));
        exchange.at = Some(Step::Taken);
        exchange.strike = slow::next(&mut self.slows);
        self.counted += u32::from(exchange.counted);
        let Body::Request(request) = std::mem::replace(&mut exchange.body, Body::Empty) else {
            return;
        };
        let account = Account::new(exchange.request(), &exchange.stamps);
        let mut polls = Serving::new(account, self.index, exchange.counted);
        let (owner, inner) = (self.owner, &mut self.inner);
        let (harm, index, behind) = (self.fleet.harm.as_ref(), self.index, self.behind);
        let mut serving = pin!(async {
            if let Some(strike) = exchange.strike.filter(|strike| strike.waits()) {
                strike.wait(cx).await;
            }
            let reply = ReplyTo::new(exchange);
            if let Some(harm) = harm {
                if harm.stops_reading(index) {
                    // Boxed: the handlers of all other runs are to be no larger for it.
                    Box::pin(harm.hold(index, cx)).await;
                }
                harm.strike(index, behind);
            }
            inner.serve(request, reply, cx).await;
        });
        std::future::poll_fn(|context| {
            // The tag is the thread's: it goes with each poll, not with the future.
            let _tag = owner::scope(owner);
            polls.begins();
            let polled = serving.as_mut().poll(context);
            polls.ends(polled.is_pending());
            polled
        })
        .await;
        self.counted = self.counted.saturating_sub(account::take_done());
    }

    /// Takes what a look found, one after the other.
    async fn batch(
        &mut self,
        exchanges: Vec<Box<Exchange<W>>>,
        cursor: Option<u64>,
        cx: &mut Cx<'_>,
    ) {
        for exchange in exchanges {
            if matches!(exchange.body, Body::Reply(_)) {
                let _tag = owner::scope(self.owner);
                self.answered(exchange, cx);
            } else {
                self.serve(exchange, cx).await;
            }
        }
        let _tag = owner::scope(self.owner);
        self.inner.batch_taken(cursor, cx);
    }

    /// A timer of the workload, counted while it holds a counted request.
    fn workload_timer(&mut self, token: u64, cx: &mut Cx<'_>) {
        if self.counted == 0 {
            return self.inner.on_timer(token, cx);
        }
        account::begin_turn();
        self.inner.on_timer(token, cx);
        account::end_turn();
        self.counted = self.counted.saturating_sub(account::take_done());
    }
}

impl<W: Workload> Agent for Hosted<W> {
    type Msg = HostMsg<W>;
    const MAILBOX: u32 = 256;

    async fn on(&mut self, msg: HostMsg<W>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        observe::runs(self.index, cx.turn_ns());
        match msg {
            HostMsg::Begin(start_ns) => {
                let _tag = owner::scope(self.owner);
                let plan = &self.fleet.plan;
                self.next_ns = start_ns + self.draw().first_distance_ns(plan);
                self.inner.begin(start_ns, cx);
                // What attacks has no schedule.
                if self.index < self.fleet.askers {
                    self.begin_session();
                    self.issue(cx.stamp_ns(), cx);
                }
            }
            HostMsg::Ask(exchange) => self.serve(exchange, cx).await,
            HostMsg::Answer(exchange) => {
                let _tag = owner::scope(self.owner);
                self.answered(exchange, cx);
            }
            HostMsg::Batch(exchanges, cursor) => self.batch(exchanges, cursor, cx).await,
            HostMsg::Told(notice) => {
                let _tag = owner::scope(self.owner);
                self.inner.told(*notice, cx);
            }
            HostMsg::Made(id, key) => {
                let _tag = owner::scope(self.owner);
                self.inner.made(Id::from_bytes(id), key, cx);
            }
            HostMsg::Withdrawn(key) => self.withdrawn(key, cx),
            HostMsg::Herd => {
                let _tag = owner::scope(self.owner);
                self.ask_with_all(cx);
            }
        }
        Ok(())
    }

    /// It lives, as a supervisor's child: for the first time, or again.
    fn on_started(&mut self, _: u32, _: Option<AgentId>, cx: &mut Cx<'_>) {
        observe::runs(self.index, cx.turn_ns());
        let _tag = owner::scope(self.owner);
        let Some(born) = self.fleet.born.get(self.index as usize) else { return };
        if born.set(cx.me::<Self>()).is_err() {
            self.rejoin(cx);
        }
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        observe::runs(self.index, cx.turn_ns());
        let _tag = owner::scope(self.owner);
        if token == TICK {
            observe::seen(self.next_ns, cx.turn_ns());
            if self.leaves() {
                return Err(Stop);
            }
            // The turn has just begun: its stamp, where it has one, is the instant.
            let now_ns = if cx.has_turn_stamps() { cx.turn_ns() } else { cx.stamp_ns() };
            self.issue(now_ns, cx);
        } else if token & EXPIRE != 0 {
            let now = cx.fresh_ns();
            if let Some(open) = recorder::with(|r| r.open.remove(token & !EXPIRE)) {
                recorder::with(|r| r.expired(self.index, &open, now));
                self.ended(cx);
            }
        } else {
            self.workload_timer(token, cx);
        }
        Ok(())
    }
}
