//! One elicitation without signatures, for agents of one process that trust their runtime: what the
//! workload `elicit` hosts at the responder.
//!
//! The checks of a response run in this order: 1. still pending, 2. not expired, 3. the right party,
//! 4. the answer fits the schema. Signed ones are held by an [`super::Owner`].

use serde_json::Value;

use super::refusal::Refusal;
use super::schema::Schema;
use super::state::{State, Step, next};

/// What the addressee may say.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The data asked for.
    Accept(Value),
    /// No.
    Decline,
}

/// What the asker gets; an accepted one carries the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Elicitation.
    pub id: u64,
    /// Terminal state.
    pub state: State,
    /// Data of an accepted one.
    pub data: Option<Value>,
}

/// One elicitation.
#[derive(Debug, Clone)]
pub struct Elicitation {
    /// Id.
    pub id: u64,
    /// Asker.
    pub from: u32,
    /// Addressee.
    pub to: u32,
    /// When it was made, monotonic ns.
    pub created_ns: u64,
    /// When it expires, monotonic ns.
    pub expires_ns: u64,
    schema: Schema,
    state: State,
}

impl Elicitation {
    /// A pending elicitation.
    #[must_use]
    pub const fn create(
        id: u64,
        parties: (u32, u32),
        created_ns: u64,
        expires_ns: u64,
        schema: Schema,
    ) -> Self {
        Self {
            id,
            from: parties.0,
            to: parties.1,
            created_ns,
            expires_ns,
            schema,
            state: State::Pending,
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// When it must be looked at, while it is pending.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        (self.state == State::Pending).then_some(self.expires_ns)
    }

    fn pending(&self, now_ns: u64) -> Result<(), Refusal> {
        match self.state {
            State::Pending if now_ns < self.expires_ns => Ok(()),
            State::Pending => Err(Refusal::Expired),
            terminal => Err(Refusal::AlreadyTerminal(terminal)),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Refusal> {
        self.state = next(self.state, step).map_err(Refusal::AlreadyTerminal)?;
        Ok(())
    }

    /// The addressee's response.
    ///
    /// # Errors
    /// [`Refusal`]; after [`Refusal::Schema`] it is still pending.
    pub fn respond(&mut self, now_ns: u64, by: u32, answer: Answer) -> Result<Reply, Refusal> {
        self.pending(now_ns)?;
        if by != self.to {
            return Err(Refusal::NotAddressee(by));
        }
        let data = match answer {
            Answer::Accept(data) => {
                self.schema.check(&data)?;
                self.step(Step::Accept)?;
                Some(data)
            }
            Answer::Decline => {
                self.step(Step::Decline)?;
                None
            }
        };
        Ok(Reply { id: self.id, state: self.state, data })
    }

    /// The asker's withdrawal.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn cancel(&mut self, now_ns: u64, by: u32) -> Result<Reply, Refusal> {
        self.pending(now_ns)?;
        if by != self.from {
            return Err(Refusal::NotAsker(by));
        }
        self.step(Step::Cancel)?;
        Ok(Reply { id: self.id, state: self.state, data: None })
    }

    /// The clock; `true` when this made it expire.
    pub fn expire(&mut self, now_ns: u64) -> bool {
        now_ns >= self.expires_ns && self.step(Step::Expire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn make() -> Elicitation {
        let schema = Schema::compile(&json!({"type": "object", "required": ["response"]})).unwrap();
        Elicitation::create(9, (1, 2), 100, 200, schema)
    }

    #[test]
    fn the_answer_must_fit_and_comes_back_whole() {
        let mut asked = make();
        assert!(matches!(asked.respond(150, 2, Answer::Accept(json!(5))), Err(Refusal::Schema(_))));
        assert_eq!(asked.next_deadline(), Some(200));
        let data = json!({"response": "From agent_2"});
        let reply = asked.respond(199, 2, Answer::Accept(data.clone())).unwrap();
        assert_eq!((reply.state, reply.data), (State::Accepted, Some(data)));
        assert_eq!(
            asked.respond(199, 2, Answer::Decline),
            Err(Refusal::AlreadyTerminal(State::Accepted))
        );
        assert_eq!(make().respond(200, 2, Answer::Decline), Err(Refusal::Expired));
        assert!(Schema::compile(&json!({"type": 5})).is_err());
    }

    proptest! {
        #[test]
        fn one_terminal_event_by_the_right_party(events in prop::collection::vec((0u8..4, 0u32..4, 0u64..300), 1..40)) {
            let mut asked = make();
            let mut terminal = 0;
            let mut now = 0;
            for (event, by, step) in events {
                now += step % 30;
                let before = asked.state();
                let took = match event {
                    0 => asked.respond(now, by, Answer::Accept(json!({"response": 1}))).is_ok(),
                    1 => asked.respond(now, by, Answer::Decline).is_ok(),
                    2 => asked.cancel(now, by).is_ok(),
                    _ => asked.expire(now),
                };
                prop_assert_eq!(took, asked.state() != before);
                terminal += u32::from(took);
                if took {
                    prop_assert_eq!(by == 2 || event > 1, true);
                    prop_assert_eq!(by == 1 || event != 2, true);
                    prop_assert_eq!(now >= 200, event == 3);
                }
            }
            prop_assert!(terminal <= 1);
        }
    }
}
