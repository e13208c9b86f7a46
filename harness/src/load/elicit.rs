//! The built-in workload: elicitation, as the original soak meant it. The answer is planned by a timer
//! and never occupies the responder.

use std::sync::OnceLock;

use serde_json::{Value, json};
use tailbeam_runtime::Cx;

use super::exchange::ReplyTo;
use super::workload::{AgentInfo, Settled, Workload};
use crate::plan::Span;
use crate::protocol::elicitation::{Answer, Elicitation, Reply, Schema, State};

/// An agent that elicits and answers.
#[derive(Debug)]
pub struct Elicit {
    info: AgentInfo,
    /// Elicitations held until their answer is due; bounded by the plan.
    pending: Vec<Option<(Elicitation, ReplyTo<Self>)>>,
    free: Vec<u32>,
}

/// What is asked: a message and the shape of the answer.
#[derive(Debug, Clone)]
pub struct Question {
    /// Number at the asker.
    pub k: u64,
    /// Message to the addressee.
    pub message: String,
    /// Shape of the answer.
    pub schema: Schema,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The protocol's reply.
    Reply(Reply),
    /// The responder held as many as it may.
    Busy,
}

fn schema() -> Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    let compile = || {
        Schema::compile(&json!({"type": "object"})).expect("a constant schema that a test compiles")
    };
    SCHEMA.get_or_init(compile).clone()
}

impl Elicit {
    fn answer(&self) -> Value {
        json!({"response": format!("From agent_{}", self.info.index)})
    }
}

impl Workload for Elicit {
    const NAME: &'static str = "elicit";
    const ABOUT: &'static str = "event-driven elicitation between random agents";
    const DELAY: Span = Span::ms(100, 500);
    type Request = Question;
    type Reply = Verdict;

    fn new(info: AgentInfo) -> Self {
        Self { info, pending: Vec::new(), free: Vec::new() }
    }

    fn request(&mut self, k: u64) -> Question {
        Question { k, message: format!("Request from agent_{}", self.info.index), schema: schema() }
    }

    async fn serve(&mut self, question: Question, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        let held = self.pending.len() - self.free.len();
        if held >= self.info.pending_max as usize {
            reply.send(cx, Verdict::Busy);
            return;
        }
        let id = u64::from(reply.from()) << 32 | (question.k & u64::from(u32::MAX));
        let parties = (reply.from(), self.info.index);
        let asked =
            Elicitation::create(id, parties, cx.now_ns(), reply.deadline_ns(), question.schema);
        let due = reply.due_ns();
        let index = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            u32::try_from(self.pending.len() - 1).expect("bounded by pending_max, a u32")
        });
        self.pending[index as usize] = Some((asked, reply));
        if cx.notify_at(due, u64::from(index)).is_err()
            && let Some((_, reply)) = self.pending[index as usize].take()
        {
            self.free.push(index);
            reply.send(cx, Verdict::Busy);
        }
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) {
        let Ok(index) = u32::try_from(token) else { return };
        let Some((mut asked, reply)) = self.pending.get_mut(index as usize).and_then(Option::take)
        else {
            return;
        };
        self.free.push(index);
        let now = cx.fresh_ns();
        // Past its deadline it expires here as it does at the asker; nobody waits for an answer then.
        if let Ok(answered) = asked.respond(now, self.info.index, Answer::Accept(self.answer())) {
            reply.send(cx, Verdict::Reply(answered));
        }
    }

    fn idle(&self) -> bool {
        self.pending.iter().all(Option::is_none)
    }

    fn settle(&mut self, reply: Verdict) -> Settled {
        match reply {
            Verdict::Busy => Settled::Refused,
            Verdict::Reply(reply) => match reply.state {
                State::Accepted if reply.data.is_some() => Settled::Ok,
                State::Declined => Settled::Declined,
                State::Cancelled => Settled::Cancelled,
                _ => Settled::Error,
            },
        }
    }
}
