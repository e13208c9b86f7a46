//! The workload `elicitation`: the secure protocol, whole.
//!
//! ```text
//! asker -- create, signed --> desk -> [owner: verify, log] -- asked --> addressee
//! asker <-- settled, data -- [owner: verify, log] <- desk <-- answer, signed, when it is due --'
//! ```
//!
//! The desk stands on the agent's core, a thread-local of it (`core.rs`); the owner is the agent of the core
//! that the asker's nonce chose (`owner.rs`). What the plan delays is the addressee's thinking, before it
//! signs. An addressee whose table is full does not answer, and the owner's clock ends the elicitation.

mod core;
pub(crate) mod far;
mod owner;

#[cfg(test)]
pub(crate) use core::HOLE;
pub(crate) use core::{keys, profile, read, take_notices};

use std::net::SocketAddr;
use std::sync::Arc;

use tailbeam_runtime::Cx;

use super::draw::Stream;
use super::exchange::ReplyTo;
use super::middle::{Middle, MiddleMsg, Setup};
use super::workload::{AgentInfo, Asking, Outgoing, Settled, Workload};
use crate::plan::Span;
use crate::protocol::elicitation::{
    Ask, Digest, Id, Message, Nonce, Notice, Refusal, Say, Signer, State,
};
use crate::remote::Hello;

/// What an agent answers.
pub(crate) fn answer_data(agent: u32) -> Arc<[u8]> {
    format!("{{\"response\":\"From agent_{agent}\"}}").into_bytes().into()
}

/// An agent that elicits and answers, with signatures.
#[derive(Debug)]
pub struct Secure {
    info: AgentInfo,
    signer: Box<Signer>,
    data: Arc<[u8]>,
    text: Arc<[u8]>,
    /// Elicitations held until their answer is due; bounded by the plan.
    pending: Vec<Option<Held>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Held {
    id: Id,
    challenge: Nonce,
    reply: ReplyTo<Secure>,
}

/// What a request's exchange carries: to the owner, then to the addressee.
#[derive(Debug)]
pub enum Asked {
    /// The asker's message.
    Create(Message),
    /// What the addressee is told.
    Notice(Notice),
}

/// What an answer's exchange carries: to the owner, then to the asker.
#[derive(Debug)]
pub enum Said {
    /// The addressee's message.
    Respond(Message),
    /// What the asker is told.
    Settled {
        /// How it ended.
        state: State,
        /// The data of an accepted one.
        data: Option<Arc<[u8]>>,
    },
    /// The owner did not take it.
    Refused(Refusal),
    /// Its event is lost with the log.
    LogLost,
}

impl Secure {
    fn hold(&mut self, held: Held) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            u32::try_from(self.pending.len() - 1).expect("bounded by pending_max, a u32")
        });
        self.pending[index as usize] = Some(held);
        index
    }

    /// What is held of an elicitation that has ended is dropped.
    fn let_go(&mut self, ended: Id) {
        let held = |held: &Option<Held>| held.as_ref().is_some_and(|held| held.id == ended);
        if let Some(index) = self.pending.iter().position(held) {
            // Its place is free once its timer has fired.
            self.pending[index] = None;
        }
    }

    /// Signs the answer to `id` and gives it to the desk.
    fn respond(&self, held: Held, cx: &mut Cx<'_>) {
        let Held { id, challenge, reply } = held;
        let now_ns = cx.fresh_ns();
        let declines = self.info.draw.unit(id.seq(), Stream::Content) < core::decline();
        let say = if declines { Say::Decline } else { Say::Accept(Arc::clone(&self.data)) };
        let message = self.signer.respond(id, challenge, now_ns, say);
        if core::admit(now_ns, self.info.index, &message).is_ok() {
            reply.send(cx, Said::Respond(message));
        }
        // What the desk refuses is counted there; the elicitation goes on, and its time runs out.
    }
}

impl Workload for Secure {
    const NAME: &'static str = "elicitation";
    const ABOUT: &'static str = "elicitation with signatures, owners, limits and an event log";
    const DELAY: Span = Span::ms(100, 500);
    const MIDDLE: bool = true;
    type Request = Asked;
    type Reply = Said;

    fn new(info: AgentInfo) -> Self {
        let (signer, text) = core::agent(info.index);
        let data = answer_data(info.index);
        Self { info, signer: Box::new(signer), data, text, pending: Vec::new(), free: Vec::new() }
    }

    fn request(&mut self, _: u64) -> Asked {
        unreachable!("asked by `ask`, which knows the addressee")
    }

    fn middle(setup: &Setup<Self>) -> Option<Box<dyn Middle<Self>>> {
        core::install(setup);
        far::install(setup);
        Some(Box::new(owner::Ownership::new(setup)))
    }

    const FAR: bool = true;

    fn reach(address: SocketAddr, hello: Hello, cx: &mut Cx<'_>) -> bool {
        cx.spawn_with(async move |cx: &mut Cx<'_>| far::keep(cx, address, hello).await).is_ok()
    }

    fn leave() {
        far::end();
    }

    fn ask(&mut self, asking: Asking, _: &mut Cx<'_>) -> Result<Outgoing<Asked>, Settled> {
        let Asking { k, to, now_ns, deadline_ns } = asking;
        // The deadline counts from the intended instant: what the generator was late by is gone.
        let timeout_ns = deadline_ns.saturating_sub(now_ns).max(1);
        let (message, schema) = (Arc::clone(&self.text), core::schema());
        let message = self
            .signer
            .create(core::request_number(k), Ask { to, now_ns, timeout_ns, message, schema });
        core::admit(now_ns, self.info.index, &message).map_err(|()| Settled::Refused)?;
        let Message::Create(create) = &message else { return Err(Settled::Error) };
        let owner = Digest::of(create.from, &create.nonce).owner(core::owners());
        Ok(Outgoing { request: Asked::Create(message), out: Some(owner), back: Some(owner) })
    }

    async fn serve(&mut self, asked: Asked, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        let Asked::Notice(notice) = asked else { return };
        if far::answers(self.info.index) {
            return far::carry(notice, reply);
        }
        let Notice::Asked { id, challenge, .. } = notice else { return };
        let held = self.pending.len() - self.free.len();
        if held >= self.info.pending_max as usize {
            core::count(|counts| counts.responder_full += 1);
            return;
        }
        let due = reply.due_ns();
        let held = Held { id, challenge, reply };
        if due <= cx.fresh_ns() {
            return self.respond(held, cx);
        }
        let index = self.hold(held);
        if cx.notify_at(due, u64::from(index)).is_err() {
            core::count(|counts| counts.responder_full += 1);
            self.free.push(index);
            self.pending[index as usize] = None;
        }
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) {
        let Ok(index) = u32::try_from(token) else { return };
        let Some(place) = self.pending.get_mut(index as usize) else { return };
        self.free.push(index);
        if let Some(held) = place.take() {
            self.respond(held, cx);
        }
    }

    fn idle(&self) -> bool {
        self.pending.iter().all(Option::is_none)
    }

    fn settle(&mut self, said: Said) -> Settled {
        match said {
            Said::Settled { state: State::Accepted, data: Some(_) } => Settled::Ok,
            Said::Settled { state: State::Declined, .. } => Settled::Declined,
            Said::Settled { state: State::Cancelled, .. } => Settled::Cancelled,
            Said::Refused(why) if core::is_limit(&why) => Settled::Refused,
            _ => Settled::Error,
        }
    }

    fn made(&mut self, id: Id, key: u64, cx: &mut Cx<'_>) {
        if self.info.draw.unit(id.seq(), Stream::Content) >= core::cancel() {
            return;
        }
        let now_ns = cx.fresh_ns();
        let message = self.signer.cancel(id, now_ns);
        if core::admit(now_ns, self.info.index, &message).is_ok()
            && let Some(owner) = core::owner(id)
        {
            // An owner that is full does not hear of it: the request goes on.
            drop(owner.try_send(cx, MiddleMsg::Cancel(Box::new(message), key)));
        }
    }

    fn told(&mut self, notice: Notice, _: &mut Cx<'_>) {
        if let Notice::Settled { id, .. } = &notice {
            self.let_go(*id);
            // One that ran out is told to its asker, and that may be this one.
            let withdrawn = matches!(notice, Notice::Settled { state: State::Cancelled, .. });
            if withdrawn && far::answers(self.info.index) {
                far::withdrawn(&notice);
            }
        }
        core::told(self.info.index, notice);
    }
}
