//! Where an agent's messages come in, on that agent's own core: they are read, their sender is who they
//! say, and the agent is within its limits. What passes goes to the owner of the elicitation.

use super::event::Audit;
use super::holes::{Hole, Holes};
use super::limit::{Limiter, Profile};
use super::message::Message;
use super::refusal::Refusal;
use super::wire::{self, Bounds};

/// A message that was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turned {
    /// Why.
    pub why: Refusal,
    /// The line for the audit trail.
    pub audit: Audit,
}

/// The desk of one core.
#[derive(Debug)]
pub struct Desk {
    agents: u32,
    bounds: Bounds,
    limiter: Limiter,
    now_ns: u64,
    refused: [u64; Refusal::CODES],
    holes: Holes,
}

impl Desk {
    /// A desk for a run of `agents` agents, of whom `local_max` at most are at home here.
    #[must_use]
    pub fn new(profile: Profile, bounds: Bounds, agents: u32, local_max: usize) -> Self {
        Self {
            agents,
            bounds,
            limiter: Limiter::new(profile, local_max),
            now_ns: 0,
            refused: [0; Refusal::CODES],
            holes: Holes::none(),
        }
    }

    #[cfg(test)]
    pub(crate) fn plant(&mut self, holes: Holes) {
        self.holes = holes;
    }

    /// Reads the bytes that came by the session of `caller` and admits what they say.
    ///
    /// # Errors
    /// [`Turned`], boxed: it is rare and large.
    pub fn read(&mut self, now_ns: u64, caller: u32, bytes: &[u8]) -> Result<Message, Box<Turned>> {
        match wire::decode(bytes, &self.bounds) {
            Ok(message) => self.admit(now_ns, caller, &message).map(|()| message),
            Err(error) => Err(self.refuse(now_ns, caller, None, error.into())),
        }
    }

    /// Admits a message that came by the session of `caller`. An attempt that is refused here for its
    /// sender's name costs no token of the agent that it names.
    ///
    /// # Errors
    /// [`Turned`], boxed: it is rare and large.
    pub fn admit(
        &mut self,
        now_ns: u64,
        caller: u32,
        message: &Message,
    ) -> Result<(), Box<Turned>> {
        self.now_ns = self.now_ns.max(now_ns);
        self.check(caller, message)
            .map_err(|why| self.refuse(self.now_ns, caller, Some(message), why))
    }

    fn check(&mut self, caller: u32, message: &Message) -> Result<(), Refusal> {
        if caller >= self.agents {
            return Err(Refusal::UnknownAgent(caller));
        }
        let claimed = message.by();
        if claimed != caller && !self.holes.has(Hole::Impersonation) {
            return Err(Refusal::Impersonation { caller, claimed });
        }
        if self.holes.has(Hole::Limits) {
            return Ok(());
        }
        self.limiter.take(self.now_ns, caller, message)
    }

    fn refuse(
        &mut self,
        now_ns: u64,
        caller: u32,
        message: Option<&Message>,
        why: Refusal,
    ) -> Box<Turned> {
        self.refused[usize::from(why.code())] += 1;
        let audit = Audit::refused(now_ns, caller, message, &why);
        Box::new(Turned { why, audit })
    }

    /// Refused here, by [`Refusal::code`].
    #[must_use]
    pub const fn refused(&self) -> &[u64; Refusal::CODES] {
        &self.refused
    }
}
