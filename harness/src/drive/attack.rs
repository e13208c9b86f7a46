//! Attacks on the live runtime: the suite's agents live among those of a load, and everything they send goes
//! by their own core's desk to the owners that serve the load.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use tailbeam_probes::clock;

use super::{Alive, Control, DriveError, Progress, run_beside};
use crate::evidence::Store;
use crate::load::Secure;
use crate::load::middle::MiddleMsg;
use crate::load::secure;
use crate::plan::Plan;
use crate::protocol::attack::{self, AGENTS, Finding, Scene, Target, Verdict};
use crate::protocol::elicitation::wire::Bounds;
use crate::protocol::elicitation::{Digest, Message, Notice, Outcome, Refusal};

/// How long the live system may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_NS: u64 = 25_000_000_000;

/// What the suite found, and the run that it ran beside.
#[derive(Debug)]
pub struct Attacked {
    /// Directory of the run.
    pub dir: PathBuf,
    /// One per attack.
    pub findings: Vec<Finding>,
}

impl Attacked {
    /// Attacks that were not held.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Broken { .. }))
    }

    /// Attacks of which nothing is known.
    #[must_use]
    pub fn not_run(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::NotRun { .. }))
    }

    fn count(&self, of: impl Fn(&Verdict) -> bool) -> usize {
        self.findings.iter().filter(|finding| of(&finding.verdict)).count()
    }
}

/// Runs `plan` with [`AGENTS`] agents more, and the attacks that are wanted beside its load.
///
/// # Errors
/// [`DriveError`].
pub fn attack(
    plan: &Plan,
    store: &Store,
    control: &Control,
    wanted: &(dyn Fn(&'static str) -> bool + Sync),
    progress: &mut dyn FnMut(&Progress),
) -> Result<Attacked, DriveError> {
    let mut plan = plan.clone();
    plan.agents += u64::from(AGENTS);
    plan.protocol.attackers = AGENTS;
    let suite = |live: &Alive<'_, Secure>| {
        let scene = Scene {
            keys: secure::keys(live.secret),
            first_agent: live.fleet.askers,
            agents: live.fleet.agents,
            profile: secure::profile(&live.fleet.plan),
            bounds: Bounds::default(),
            fresh_ns: live.fleet.plan.protocol.fresh_ns,
        };
        attack::run_some(&mut Runtime(live), &scene, wanted)
    };
    let (dir, findings) = run_beside::<Secure, _>(&plan, store, control, progress, &suite)?;
    Ok(Attacked { dir, findings })
}

/// The live runtime as a target.
struct Runtime<'a, 'b>(&'a Alive<'b, Secure>);

impl Runtime<'_, '_> {
    fn shard(&self, agent: u32) -> usize {
        agent as usize % self.0.shards
    }

    /// Has the session of `caller` send bytes, on its core.
    fn say(&self, caller: u32, bytes: Vec<u8>) -> Option<Outcome> {
        let (told, said) = mpsc::channel();
        let (fleet, shards) = (self.0.fleet.clone(), self.0.shards);
        let run = async move |cx: &mut tailbeam_runtime::Cx<'_>| {
            let now_ns = cx.fresh_ns();
            let outcome = match secure::read(now_ns, caller, &bytes) {
                Err(why) => Some(Outcome::Refused(why)),
                Ok(message) => match fleet.middle(owner(&message, shards)) {
                    None => Some(Outcome::Refused(Refusal::Unknown)),
                    Some(owner) => {
                        let say = |reply| MiddleMsg::Say(Box::new(message), Some(reply));
                        cx.ask(owner, now_ns + PATIENCE_NS, say).await.ok().map(|said| *said)
                    }
                },
            };
            // The suite may have given up.
            let _ = told.send(outcome);
        };
        let spawned = self.0.runtime.run_on(self.shard(caller), |cx| cx.spawn_with(run).is_ok());
        spawned.ok().filter(|spawned| *spawned)?;
        said.recv_timeout(PATIENCE).ok().flatten()
    }
}

/// Which owner a message goes to.
fn owner(message: &Message, shards: usize) -> u16 {
    let cores = u16::try_from(shards).unwrap_or(u16::MAX);
    match message {
        Message::Create(create) => Digest::of(create.from, &create.nonce).owner(cores),
        Message::Respond(respond) => respond.id.core(),
        Message::Cancel(cancel) => cancel.id.core(),
        Message::Status { id, .. } => id.core(),
        Message::Pending { .. } => 0,
    }
}

impl Target for Runtime<'_, '_> {
    fn now_ns(&mut self) -> u64 {
        clock::monotonic_ns()
    }

    fn wait_until(&mut self, at_ns: u64) {
        while let Some(left_ns) = at_ns.checked_sub(clock::monotonic_ns()).filter(|ns| *ns > 0) {
            std::thread::park_timeout(Duration::from_nanos(left_ns));
        }
    }

    fn send(&mut self, caller: u32, bytes: &[u8]) -> Outcome {
        // Without an answer the system is not safe but dead: no attack takes this refusal for the right one.
        self.say(caller, bytes.to_vec()).unwrap_or(Outcome::Refused(Refusal::LogFull))
    }

    fn notices(&mut self, agent: u32) -> Vec<Notice> {
        // What an owner has sent before it answers this comes before the answer does.
        for core in 0..self.0.shards {
            let Some(owner) = self.0.fleet.middle(u16::try_from(core).unwrap_or(u16::MAX)) else {
                continue;
            };
            let (told, said) = mpsc::channel();
            let run = async move |cx: &mut tailbeam_runtime::Cx<'_>| {
                let message = Box::new(Message::Pending { by: agent, after: None });
                let deadline_ns = cx.fresh_ns() + PATIENCE_NS;
                let say = |reply| MiddleMsg::Say(message, Some(reply));
                let _ = told.send(cx.ask(owner, deadline_ns, say).await.is_ok());
            };
            let spawned = self.0.runtime.run_on(self.shard(agent), |cx| cx.spawn_with(run).is_ok());
            if spawned.is_ok_and(|spawned| spawned) {
                let _ = said.recv_timeout(PATIENCE);
            }
        }
        self.0
            .runtime
            .run_on(self.shard(agent), move |_| secure::take_notices(agent))
            .unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "attack_tests.rs"]
mod tests;
