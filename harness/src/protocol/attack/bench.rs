//! A desk and an owner of one core, under a clock that the attacker's test turns.

use std::collections::HashMap;

use super::super::elicitation::{Desk, Effects, Notice, Outcome, Output, Owner, OwnerConfig};
use super::{Scene, Target};

/// The pure state machine as a target. Every call lets `step_ns` pass.
#[derive(Debug)]
pub struct Bench {
    desk: Desk,
    owner: Owner,
    now_ns: u64,
    step_ns: u64,
    notices: HashMap<u32, Vec<Notice>>,
}

impl Bench {
    /// The machine of `scene`, at `now_ns`.
    #[must_use]
    pub fn new(scene: &Scene, now_ns: u64, step_ns: u64) -> Self {
        let agents = scene.agents as usize;
        let desk = Desk::new(scene.profile, scene.bounds, scene.agents, agents);
        let config = OwnerConfig {
            agents: scene.agents,
            fresh_ns: scene.fresh_ns,
            bounds: scene.bounds,
            ..OwnerConfig::default()
        };
        let owner = Owner::new(config, scene.keys.clone());
        Self { desk, owner, now_ns, step_ns, notices: HashMap::new() }
    }

    #[cfg(test)]
    pub(super) fn plant(&mut self, hole: super::super::elicitation::Hole) {
        let holes = super::super::elicitation::Holes::one(hole);
        self.desk.plant(holes);
        self.owner.plant(holes);
    }

    fn take(notices: &mut HashMap<u32, Vec<Notice>>, effects: Effects) {
        if let Some(notice) = effects.notice {
            notices.entry(notice.to()).or_default().push(notice);
        }
    }

    fn expire(&mut self) {
        let Self { owner, notices, .. } = self;
        owner.expire(self.now_ns, usize::MAX, |effects| Self::take(notices, effects));
    }
}

impl Target for Bench {
    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }

    fn wait_until(&mut self, at_ns: u64) {
        self.now_ns = self.now_ns.max(at_ns);
        // The race is lost on purpose: a message that comes at this instant comes before the sweep.
    }

    fn send(&mut self, caller: u32, bytes: &[u8]) -> Outcome {
        let message = match self.desk.read(self.now_ns, caller, bytes) {
            Ok(message) => message,
            Err(turned) => return Outcome::Refused(turned.why),
        };
        let Output { outcome, effects } = self.owner.handle(self.now_ns, &message, 1);
        Self::take(&mut self.notices, effects);
        self.now_ns += self.step_ns;
        outcome
    }

    fn notices(&mut self, agent: u32) -> Vec<Notice> {
        self.expire();
        self.notices.remove(&agent).unwrap_or_default()
    }
}
