//! The owner of one core's elicitations as an agent: what the pure owner says, done.
//!
//! Outcome, notice and exchange of a message wait until its event is as durable as the plan wants; then the
//! exchange goes on. Time runs out by a timer of this core.

use std::sync::Arc;

use tailbeam_runtime::{Cx, Reply};

use super::core::{self, AUDIT_LINES};
use super::{Asked, Said, Secure, far};
use crate::chaos::board::{Board, Defence};
use crate::load::exchange::{Body, Exchange};
use crate::load::host::{Fleet, HostMsg};
use crate::load::legs::Step;
use crate::load::link::{self, Link, Waited};
use crate::load::middle::{self, Counted, Middle, MiddleMsg, Setup};
use crate::load::way;
use crate::log::Entry;
use crate::protocol::elicitation::wire::Bounds;
use crate::protocol::elicitation::{
    AuditRing, Effects, Event, Message, Notice, Outcome, Output, Owner, OwnerConfig, Refusal,
    State, record,
};

/// Elicitations that one turn of the clock ends.
const EXPIRE_MAX: usize = 256;
/// A clock that is due at once, but found no room in the log, is looked at again after this, ns.
const LATER_NS: u64 = 1_000_000;

/// What waits for an event.
struct Then {
    since_ns: u64,
    what: What,
}

enum What {
    /// The exchange goes on to the addressee.
    Ask(Box<Exchange<Secure>>, Notice),
    /// It goes home.
    Home(Box<Exchange<Secure>>, State, Option<Arc<[u8]>>),
    /// A message without an exchange: its notice, its outcome.
    Said(Option<Notice>, Option<(Reply<Box<Outcome>>, Outcome)>),
    /// A request was withdrawn: the addressee is told, and its asker's host.
    Withdrawn(Notice, u32, u64),
    /// Nothing: a violation was written down.
    Nothing,
}

/// The owner and all that belongs to it.
pub(super) struct Ownership {
    fleet: Arc<Fleet<Secure>>,
    owner: Owner,
    audit: AuditRing,
    link: Link<Then>,
    watched: bool,
    /// When the clock is looked at next, ns.
    armed_ns: Option<u64>,
    /// Time in the pure owner's checks, per message.
    checks: Waited,
    refused_answers: u64,
    log: tailbeam_runtime::Addr<crate::log::LogAgent>,
    buffer: Vec<u8>,
    core: usize,
    board: Option<Arc<Board>>,
    restored: Restored,
}

/// What became of the events that the log held at the start.
#[derive(Debug, Clone, Copy, Default)]
struct Restored {
    events: u64,
    /// Pending afterwards.
    pending: u64,
    /// That do not follow from those before them.
    refused: u64,
    unreadable: u64,
}

/// Gives the owner the events of its log again.
fn restored(owner: &mut Owner, records: &[(u16, Box<[u8]>)]) -> Restored {
    let mut all = Restored::default();
    for (kind, payload) in records.iter().filter(|(kind, _)| *kind != link::MARK) {
        match record::decode(*kind, payload, &Bounds::default()) {
            Ok(event) if owner.restore(&event, 0).is_ok() => all.events += 1,
            Ok(_) => all.refused += 1,
            Err(_) => all.unreadable += 1,
        }
    }
    all.pending = owner.pending() as u64;
    all
}

/// Time that an elicitation is open beyond the delay of its answer, ns: more than a service has that is well.
const OPEN_NS: u64 = 1_000_000_000;
/// Open ones that room is made for at most.
const OPEN_MAX: usize = 1 << 15;

impl Ownership {
    pub(super) fn new(setup: &Setup<Secure>) -> Self {
        let plan = setup.plan();
        let per_ns = plan.rate_per_s() / 1e9 / setup.shards as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive; casts of floats saturate"
        )]
        let within = |ns: u64| (per_ns * ns as f64) as usize;
        let held = within(2 * plan.timeout_ns);
        let bounds = OwnerConfig::default();
        // While all is well: what a fault adds may make the table grow, and what nobody could hold is not reserved.
        let open = within(plan.delay.max_ns.saturating_add(OPEN_NS)).min(OPEN_MAX);
        let config = OwnerConfig {
            core: u16::try_from(setup.shard).expect("at most 255 cores"),
            agents: setup.fleet.agents,
            pending_max: held.max(1 << 16),
            fresh_ns: plan.protocol.fresh_ns,
            // Each request, answer and withdrawal has one, and it is kept for as long as its message could be fresh.
            nonces_max: (3 * within(plan.protocol.fresh_ns.saturating_add(bounds.ahead_ns)))
                .max(bounds.nonces_max),
            reserve: within(bounds.closed_keep_ns).min(bounds.closed_max) + open,
            ..bounds
        };
        let mut owner = Owner::new(config, core::keys(setup.secret));
        let restored = restored(&mut owner, &setup.kept.records);
        if let (Some(board), Ok(core)) = (&setup.board, u32::try_from(setup.shard)) {
            board.set_restored(core, restored.events, restored.refused + restored.unreadable);
        }
        #[cfg(test)]
        let owner = {
            owner.plant(core::planted());
            owner
        };
        Self {
            fleet: Arc::clone(&setup.fleet),
            owner,
            audit: AuditRing::new(AUDIT_LINES),
            link: Link::new(
                setup.log,
                setup.kept.next,
                &plan.protocol,
                setup.board.as_ref().is_some_and(|board| board.is_off(Defence::Ack)),
            ),
            watched: false,
            armed_ns: None,
            checks: Waited::default(),
            refused_answers: 0,
            log: setup.log,
            buffer: Vec::new(),
            core: setup.shard,
            board: setup.board.clone(),
            restored,
        }
    }

    /// The pure owner's word on a message.
    fn handle(&mut self, message: &Message, cx: &mut Cx<'_>) -> (Outcome, Effects, u64) {
        let now_ns = cx.fresh_ns();
        let Output { outcome, mut effects } = self.owner.handle(now_ns, message, self.link.room());
        if let Some(line) = effects.audit.take() {
            self.audit.push(line);
        }
        let done_ns = cx.fresh_ns();
        self.checks.add(done_ns.saturating_sub(now_ns));
        (outcome, effects, done_ns)
    }

    /// Does `what` once `event` is in the log.
    fn after(&mut self, event: Option<Event>, now_ns: u64, what: What, cx: &mut Cx<'_>) {
        let then = Then { since_ns: now_ns, what };
        let Some(event) = event else { return self.perform(then, true, cx) };
        self.buffer.clear();
        let kind = record::encode(&event, &mut self.buffer);
        let payload = self.buffer.as_slice().into();
        let entry = Entry { kind, version: record::VERSION, payload };
        if let Some((then, kept)) = self.link.append(entry, then, cx) {
            self.perform(then, kept, cx);
        }
    }

    fn perform(&mut self, then: Then, kept: bool, cx: &mut Cx<'_>) {
        // Before it is told, as with how far the log is.
        if let (Some(board), Ok(core)) = (&self.board, u32::try_from(self.core)) {
            board.set_told(core, self.link.told());
        }
        match then.what {
            What::Ask(mut exchange, notice) if kept => {
                let to = self.fleet.address(notice.to());
                if let Notice::Asked { id, .. } = &notice {
                    // An asker that is full does not hear of it, and cannot withdraw.
                    drop(exchange.home.try_send(cx, HostMsg::Made(id.to_bytes(), exchange.key)));
                }
                exchange.body = Body::Request(Asked::Notice(notice));
                middle::pass_on(to, exchange, cx);
            }
            What::Ask(exchange, _) => self.refuse(exchange, Said::LogLost, cx),
            What::Home(mut exchange, state, data) => {
                let said = if kept { Said::Settled { state, data } } else { Said::LogLost };
                exchange.body = Body::Reply(said);
                middle::bring_home(exchange, cx);
            }
            What::Said(notice, reply) => {
                if let Some(notice) = notice.filter(|_| kept) {
                    let to = self.fleet.address(notice.to());
                    // One that is full misses it: as with any message, nothing waits for it.
                    drop(to.try_send(cx, HostMsg::Told(Box::new(notice))));
                }
                if let Some((reply, outcome)) = reply {
                    let outcome = if kept { outcome } else { Outcome::Refused(Refusal::LogFull) };
                    drop(reply.send(cx, Box::new(outcome)));
                }
            }
            What::Withdrawn(notice, asker, key) if kept => {
                let to = self.fleet.address(notice.to());
                // One that is full misses it; its answer will be refused.
                drop(to.try_send(cx, HostMsg::Told(Box::new(notice))));
                // A host that is full closes the request at its deadline.
                let home = self.fleet.address(asker);
                drop(home.try_send(cx, HostMsg::Withdrawn(key)));
            }
            What::Withdrawn(..) | What::Nothing => {}
        }
    }

    /// A request that its addressee never sees goes home: the owner has answered it.
    fn refuse(&self, mut exchange: Box<Exchange<Secure>>, said: Said, cx: &mut Cx<'_>) {
        let stamps = &mut exchange.stamps;
        if let Some(leg) = exchange.held.take() {
            stamps.out = leg;
        }
        stamps.answered_ns = cx.fresh_ns();
        exchange.stepped(&[Step::Taken, Step::Answered]);
        exchange.body = Body::Reply(said);
        middle::bring_home(exchange, cx);
    }

    fn ask(&mut self, mut exchange: Box<Exchange<Secure>>, cx: &mut Cx<'_>) {
        exchange.held = Some(way::leg(cx));
        let body = std::mem::replace(&mut exchange.body, Body::Empty);
        let Body::Request(Asked::Create(message)) = body else { return middle::lost() };
        let (outcome, effects, now_ns) = self.handle(&message, cx);
        match (outcome, effects.notice) {
            (Outcome::Created { .. }, Some(notice)) => {
                self.after(effects.event, now_ns, What::Ask(exchange, notice), cx);
            }
            (Outcome::Refused(why), _) => {
                self.after(effects.event, now_ns, What::Nothing, cx);
                self.refuse(exchange, Said::Refused(why), cx);
            }
            _ => middle::lost(),
        }
        self.arm(cx);
    }

    fn answer(&mut self, mut exchange: Box<Exchange<Secure>>, cx: &mut Cx<'_>) {
        let body = std::mem::replace(&mut exchange.body, Body::Empty);
        let Body::Reply(Said::Respond(message)) = body else { return middle::lost() };
        exchange.held = Some(way::leg(cx));
        let (outcome, effects, now_ns) = self.handle(&message, cx);
        match (outcome, effects.notice) {
            (Outcome::Closed { state, .. }, Some(Notice::Settled { data, .. })) => {
                self.after(effects.event, now_ns, What::Home(exchange, state, data), cx);
            }
            _ => {
                // It stays as it is, and its time runs out; the exchange has nobody to go to.
                self.refused_answers += 1;
                self.after(effects.event, now_ns, What::Nothing, cx);
            }
        }
    }

    fn cancel(&mut self, message: &Message, key: u64, cx: &mut Cx<'_>) {
        let (outcome, effects, now_ns) = self.handle(message, cx);
        let what = match (outcome, effects.notice) {
            (Outcome::Closed { .. }, Some(notice)) => What::Withdrawn(notice, message.by(), key),
            // Answered before: that it was late is counted among the refusals.
            _ => What::Nothing,
        };
        self.after(effects.event, now_ns, what, cx);
    }

    fn say(&mut self, message: &Message, reply: Option<Reply<Box<Outcome>>>, cx: &mut Cx<'_>) {
        let (outcome, effects, now_ns) = self.handle(message, cx);
        let what = What::Said(effects.notice, reply.map(|reply| (reply, outcome)));
        self.after(effects.event, now_ns, what, cx);
        self.arm(cx);
    }

    /// Sees to it that the clock is looked at when the next one's time runs out.
    fn arm(&mut self, cx: &mut Cx<'_>) {
        let Some(next_ns) = self.owner.next_deadline() else { return };
        if self.armed_ns.is_some_and(|armed_ns| armed_ns <= next_ns) {
            return;
        }
        // Without room for the timer the next message arms it.
        self.armed_ns = cx.notify_at(next_ns, next_ns).ok().map(|_| next_ns);
    }

    fn expire(&mut self, cx: &mut Cx<'_>) {
        let now_ns = cx.fresh_ns();
        let mut ended = Vec::new();
        let room = self.link.room().min(EXPIRE_MAX);
        self.owner.expire(now_ns, room, |effects| ended.push(effects));
        for effects in ended {
            if let Some(line) = effects.audit {
                self.audit.push(line);
            }
            self.after(effects.event, now_ns, What::Said(effects.notice, None), cx);
        }
        // What is due and found no room in the log waits for it.
        if self.owner.next_deadline().is_some_and(|next_ns| next_ns <= now_ns) {
            let at_ns = if room == 0 { now_ns + LATER_NS } else { now_ns };
            self.armed_ns = cx.notify_at(at_ns, at_ns).ok().map(|_| at_ns);
        } else {
            self.arm(cx);
        }
    }

    fn progress(&mut self, cx: &mut Cx<'_>) {
        let now_ns = cx.fresh_ns();
        while let Some((then, kept)) = self.link.next_ready() {
            self.link.waited.add(now_ns.saturating_sub(then.since_ns));
            self.perform(then, kept, cx);
        }
    }

    fn counted(&self) -> Vec<Counted> {
        let counts = self.owner.counts();
        let mut all = core::counted();
        let mut add = |name: &str, count: u64| all.push((name.to_owned(), count));
        add("created", counts.created);
        for (state, count) in State::ALL[1..].iter().zip(counts.closed) {
            add(&format!("{state:?}").to_lowercase(), count);
        }
        add("pending at the end", self.owner.pending() as u64);
        add("answers refused", self.refused_answers);
        add("forgotten early", counts.forgotten_early);
        add("violations not logged", counts.violations_unlogged);
        for (code, &refused) in counts.refused.iter().enumerate() {
            add(&format!("owner refused: {}", core::refusal_name(code)), refused);
        }
        add("audit lines", self.audit.lines().count() as u64 + self.audit.dropped());
        add("messages checked", self.checks.count);
        add("check time, ns", self.checks.sum_ns);
        add("longest check, ns", self.checks.max_ns);
        let Restored { events, pending, refused, unreadable } = self.restored;
        if events + refused + unreadable > 0 {
            add("restored: events", events);
            add("restored: pending", pending);
            add("restored: events that do not follow", refused);
            add("restored: unreadable events", unreadable);
        }
        link::counted(&self.link, &mut add);
        far::counted(&mut all);
        all
    }
}

impl Middle<Secure> for Ownership {
    fn on(&mut self, msg: MiddleMsg<Secure>, cx: &mut Cx<'_>) {
        if !self.watched {
            self.watched = link::watch::<Secure>(self.log, cx.me(), cx);
        }
        match msg {
            MiddleMsg::Ask(exchange) => self.ask(exchange, cx),
            MiddleMsg::Answer(exchange) => self.answer(exchange, cx),
            MiddleMsg::Say(message, reply) => self.say(&message, reply, cx),
            MiddleMsg::Cancel(message, key) => self.cancel(&message, key, cx),
            MiddleMsg::Log(now) => {
                // Before anybody is told: who looks on afterwards finds at least what was promised.
                if let (Some(board), Ok(core)) = (&self.board, u32::try_from(self.core)) {
                    board.set_durable(core, now.done);
                }
                self.link.progress(now);
                self.progress(cx);
            }
            MiddleMsg::Counts(reply) => drop(reply.send(cx, self.counted())),
            MiddleMsg::Wait { .. } => {}
        }
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) {
        self.armed_ns = None;
        self.expire(cx);
    }
}
