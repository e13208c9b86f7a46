//! The boxes of one core's agents: log, index, and the calls that wait.
//!
//! A message is in its box when its event is as durable as the plan wants. A call looks, waits and looks
//! again as `protocol::wait_for_messages::Waiter` says; what it finds goes to its agent in one reply.

use std::sync::Arc;

use tailbeam_runtime::{Cx, TimerId};

use super::Poll;
use crate::load::exchange::{Body, Exchange};
use crate::load::host::{Fleet, HostMsg};
use crate::load::legs::Step;
use crate::load::link::{self, Link, Waited};
use crate::load::middle::{self, Counted, Middle, MiddleMsg, Setup};
use crate::load::{recorder, way};
use crate::log::Entry;
use crate::plan::PollPlan;
use crate::protocol::wait_for_messages::{
    Index, IndexConfig, Item, Mode, Next, Reply, Status, Wait, Waiter,
};

/// Kind and version of a message in the log.
const POSTED: u16 = 16;
const VERSION: u16 = 1;
/// After the load no call looks on for longer than this beyond the last deadline, ns.
const LINGER_NS: u64 = 1_000_000_000;

struct Call {
    waiter: Waiter,
    timer: Option<TimerId>,
}

/// What waits for its event.
struct Then {
    since_ns: u64,
    exchange: Box<Exchange<Poll>>,
    answer: bool,
}

/// The boxes, and who looks into them.
pub(super) struct Office {
    fleet: Arc<Fleet<Poll>>,
    shards: u32,
    poll: PollPlan,
    index: Index<u32>,
    seq: u64,
    /// Messages in boxes, by the content of their items.
    held: Vec<Option<Box<Exchange<Poll>>>>,
    free: Vec<u32>,
    /// Calls by place of their agent on this core.
    calls: Vec<Option<Call>>,
    /// Up to where each has been given its box: what was given is not looked up again, also by one that takes its place.
    given: Vec<Option<u64>>,
    link: Link<Then>,
    watched: bool,
    log: tailbeam_runtime::Addr<crate::log::LogAgent>,
    counts: Counts,
    buffer: Vec<u8>,
}

#[derive(Default)]
struct Counts {
    looks: u64,
    found: u64,
    batches: u64,
    most: u64,
    timeouts: u64,
    full: u64,
    too_old: u64,
    undelivered: u64,
    in_box: Waited,
}

impl Office {
    pub(super) fn new(setup: &Setup<Poll>) -> Self {
        let plan = setup.plan();
        let agents = setup.fleet.agents as usize;
        Self {
            fleet: Arc::clone(&setup.fleet),
            shards: u32::try_from(setup.shards).expect("at most 255 cores"),
            poll: plan.protocol.poll,
            // Time to live is looked at when a message is found: it is given up with its exchange.
            index: Index::new(IndexConfig { ttl_ns: None, ..IndexConfig::default() }),
            seq: 0,
            held: Vec::new(),
            free: Vec::new(),
            calls: (0..agents / setup.shards + 1).map(|_| None).collect(),
            given: vec![None; agents / setup.shards + 1],
            link: Link::new(setup.log, setup.kept.next, &plan.protocol, false),
            watched: false,
            log: setup.log,
            counts: Counts::default(),
            buffer: Vec::new(),
        }
    }

    /// A message for an agent of this core.
    fn post(&mut self, mut exchange: Box<Exchange<Poll>>, answer: bool, cx: &mut Cx<'_>) {
        exchange.held = Some(way::leg(cx));
        if self.link.room() == 0 {
            self.counts.full += 1;
            return self.turn_away(exchange, answer, cx);
        }
        let since_ns = cx.fresh_ns();
        let (from, to) = Self::parties(&exchange, answer);
        self.buffer.clear();
        self.buffer.extend_from_slice(&since_ns.to_le_bytes());
        self.buffer.extend_from_slice(&from.to_le_bytes());
        self.buffer.extend_from_slice(&to.to_le_bytes());
        self.buffer.extend_from_slice(&exchange.key.to_le_bytes());
        if let Body::Request(text) | Body::Reply(text) = &exchange.body {
            self.buffer.extend_from_slice(text);
        }
        let payload = self.buffer.as_slice().into();
        let entry = Entry { kind: POSTED, version: VERSION, payload };
        let then = Then { since_ns, exchange, answer };
        match self.link.append(entry, then, cx) {
            Some((then, true)) => self.put(then, cx),
            Some((then, false)) => self.turn_away(then.exchange, then.answer, cx),
            None => {}
        }
    }

    const fn parties(exchange: &Exchange<Poll>, answer: bool) -> (u32, u32) {
        match answer {
            true => (exchange.to, exchange.from),
            false => (exchange.from, exchange.to),
        }
    }

    /// Puts it into its box; whoever waits to be woken is.
    fn put(&mut self, then: Then, cx: &mut Cx<'_>) {
        let Then { since_ns, exchange, answer } = then;
        let (_, receiver) = Self::parties(&exchange, answer);
        let place = self.free.pop().unwrap_or_else(|| {
            self.held.push(None);
            u32::try_from(self.held.len() - 1).expect("bounded by the index, a million")
        });
        let item = Item { seq: self.seq, sent_ns: since_ns, content: place };
        if self.index.append(receiver, item).is_err() {
            self.free.push(place);
            self.counts.full += 1;
            return self.turn_away(exchange, answer, cx);
        }
        self.seq += 1;
        self.held[place as usize] = Some(exchange);
        if self.poll.long {
            self.look(receiver, cx);
        }
    }

    /// A full box refuses: the asker is told of its request, an answer is lost.
    fn turn_away(&self, mut exchange: Box<Exchange<Poll>>, answer: bool, cx: &mut Cx<'_>) {
        if answer {
            return middle::lost();
        }
        if let Some(leg) = exchange.held.take() {
            exchange.stamps.out = leg;
        }
        exchange.stamps.answered_ns = cx.fresh_ns();
        exchange.stepped(&[Step::Taken, Step::Answered]);
        exchange.body = Body::Reply(Arc::from(&b""[..]));
        middle::bring_home(exchange, cx);
    }

    /// An agent calls.
    fn wait(&mut self, receiver: u32, cursor: Option<u64>, cx: &mut Cx<'_>) {
        let mode = match self.poll.long {
            true => Mode::LongPoll,
            false => Mode::SleepPoll { interval_ns: self.poll.interval_ns },
        };
        let (batch, timeout_ns) = (self.poll.batch as usize, self.poll.wait_ns);
        let place = (receiver / self.shards) as usize;
        let cursor = cursor.max(self.given[place]);
        let wait = Wait { cursor, batch, timeout_ns, mode };
        let waiter = Waiter::begin(cx.fresh_ns(), wait).expect("the plan was checked");
        // That of an agent that has gone: its successor calls on its own, and looks no more often.
        let gone = self.calls[place].replace(Call { waiter, timer: None });
        if let Some(timer) = gone.and_then(|call| call.timer) {
            cx.cancel(timer);
        }
        self.look(receiver, cx);
    }

    /// The call of an agent looks into its box.
    fn look(&mut self, receiver: u32, cx: &mut Cx<'_>) {
        let place = (receiver / self.shards) as usize;
        let Some(call) = self.calls.get_mut(place).and_then(Option::as_mut) else { return };
        if let Some(timer) = call.timer.take() {
            cx.cancel(timer);
        }
        let now_ns = cx.fresh_ns();
        let page = self.index.after(now_ns, receiver, call.waiter.cursor(), call.waiter.batch());
        self.counts.looks += 1;
        let at_ns = match call.waiter.looked(now_ns, page) {
            Next::Done(reply) => {
                self.calls[place] = None;
                return self.reply(receiver, now_ns, reply, cx);
            }
            Next::LookAt(at_ns) | Next::WakeOrAt(at_ns) => at_ns,
        };
        // Nothing comes any more once all deadlines are over, or the run is.
        let end_ns = recorder::with(|r| r.end_ns);
        let plan = &self.fleet.plan;
        if end_ns != 0 && now_ns < end_ns.saturating_add(plan.timeout_ns + LINGER_NS) {
            call.timer = cx.notify_at(at_ns, u64::from(receiver)).ok();
        }
    }

    /// Gives an agent what its call found.
    fn reply(&mut self, receiver: u32, now_ns: u64, reply: Reply<u32>, cx: &mut Cx<'_>) {
        self.counts.timeouts += u64::from(reply.status == Status::Timeout);
        let mut batch = Vec::with_capacity(reply.items.len());
        for item in reply.items {
            // At least once: one that was given before is not there again.
            let Some(exchange) = self.held[item.content as usize].take() else { continue };
            self.free.push(item.content);
            let age_ns = now_ns.saturating_sub(item.sent_ns);
            if self.poll.ttl_ns.is_some_and(|ttl_ns| age_ns > ttl_ns) {
                self.counts.too_old += 1;
                middle::lost();
                continue;
            }
            self.counts.in_box.add(age_ns);
            batch.push(exchange);
        }
        let given = &mut self.given[(receiver / self.shards) as usize];
        *given = (*given).max(reply.cursor);
        self.counts.found += batch.len() as u64;
        self.counts.batches += u64::from(!batch.is_empty());
        self.counts.most = self.counts.most.max(batch.len() as u64);
        let to = self.fleet.address(receiver);
        if let Err(error) = to.try_send(cx, HostMsg::Batch(batch, reply.cursor)) {
            if let HostMsg::Batch(batch, _) = error.into_message() {
                self.counts.undelivered += batch.len() as u64;
                batch.iter().for_each(|_| middle::lost());
            }
            // Its own loop is broken by that: it calls again as after an empty batch.
            self.wait(receiver, reply.cursor, cx);
        }
    }

    fn counted(&self) -> Vec<Counted> {
        let counts = &self.counts;
        let mut all = Vec::new();
        let mut add = |name: &str, count: u64| all.push((name.to_owned(), count));
        add("looks", counts.looks);
        add("messages found", counts.found);
        add("batches", counts.batches);
        add("largest batch", counts.most);
        add("calls that timed out", counts.timeouts);
        add("messages refused: full", counts.full);
        add("messages too old", counts.too_old);
        add("batches undelivered, messages", counts.undelivered);
        add("addressee full", super::full());
        add("messages in boxes at the end", self.index.held().0 as u64);
        add("time in boxes, ns", counts.in_box.sum_ns);
        add("longest time in a box, ns", counts.in_box.max_ns);
        link::counted(&self.link, &mut add);
        all
    }
}

impl Middle<Poll> for Office {
    fn on(&mut self, msg: MiddleMsg<Poll>, cx: &mut Cx<'_>) {
        if !self.watched {
            self.watched = link::watch::<Poll>(self.log, cx.me(), cx);
        }
        match msg {
            MiddleMsg::Ask(exchange) => self.post(exchange, false, cx),
            MiddleMsg::Answer(exchange) => self.post(exchange, true, cx),
            MiddleMsg::Wait { receiver, cursor } => self.wait(receiver, cursor, cx),
            MiddleMsg::Log(now) => {
                self.link.progress(now);
                let now_ns = cx.fresh_ns();
                while let Some((then, kept)) = self.link.next_ready() {
                    self.link.waited.add(now_ns.saturating_sub(then.since_ns));
                    match kept {
                        true => self.put(then, cx),
                        false => self.turn_away(then.exchange, then.answer, cx),
                    }
                }
            }
            MiddleMsg::Counts(reply) => drop(reply.send(cx, self.counted())),
            MiddleMsg::Say(..) | MiddleMsg::Cancel(..) => {}
        }
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) {
        let Ok(receiver) = u32::try_from(token) else { return };
        let place = (receiver / self.shards) as usize;
        if let Some(call) = self.calls.get_mut(place).and_then(Option::as_mut) {
            call.timer = None;
        }
        self.look(receiver, cx);
    }
}
