//! Attacks on elicitation, against anything that takes its messages: the pure state machine in our tests,
//! the live runtime in a run.
//!
//! An attack begins with honest agents that get served (if they do not, it was NOT RUN, which is no pass),
//! then tries what must not work and says whether the defence held. It judges by what can be seen from
//! outside: outcomes, notices, how an elicitation stands. In our tests each check of the machine is left
//! out in turn, and the suite has to find each: see `tests.rs`.

mod abuse;
mod bench;
mod reuse;
mod theft;

pub use bench::Bench;

use super::elicitation::{
    Ask, Id, KeyRing, Message, Nonce, Notice, Outcome, Profile, Refusal, Signer, State, wire,
};

/// What is attacked.
pub trait Target {
    /// Now, monotonic ns, on the clock that the owner expires by.
    fn now_ns(&mut self) -> u64;
    /// Lets time pass until `at_ns`, expiry included.
    fn wait_until(&mut self, at_ns: u64);
    /// Sends bytes by the session of `caller` and waits for what it is told.
    fn send(&mut self, caller: u32, bytes: &[u8]) -> Outcome;
    /// What `agent` was notified of since the last call.
    fn notices(&mut self, agent: u32) -> Vec<Notice>;
}

/// What an attack came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was tried was refused as it must be.
    Held {
        /// How many things were tried.
        tries: u32,
    },
    /// Something worked that must not, or was refused for a reason that says another check is missing.
    Broken {
        /// What was tried and what came.
        how: String,
    },
    /// The honest part did not work: nothing is known.
    NotRun {
        /// Why.
        cause: String,
    },
}

/// One attack and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub attack: &'static str,
    /// What it tries.
    pub about: &'static str,
    /// What came.
    pub verdict: Verdict,
}

/// What the suite knows of its target.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Keys of the run: the suite plays its own agents, honest ones and thieves.
    pub keys: KeyRing,
    /// First of the [`AGENTS`] agents that are the suite's own; nobody else uses them.
    pub first_agent: u32,
    /// Agents of the run.
    pub agents: u32,
    /// The limits that are set.
    pub profile: Profile,
    /// Bounds of contents that are set.
    pub bounds: wire::Bounds,
    /// How old a request may be, ns.
    pub fresh_ns: u64,
}

/// Agents that the suite needs: three for each attack.
#[expect(clippy::cast_possible_truncation, reason = "a handful of attacks")]
pub const AGENTS: u32 = 3 * ALL.len() as u32;

type Attack = fn(&mut Stage<'_>) -> Result<(), Verdict>;

const ALL: [(&str, &str, Attack); 19] = [
    ("impersonation", "answers in another's name", theft::impersonation),
    ("stolen-session", "another's session without its key", theft::stolen_session),
    ("relay", "another's own signed message by a wrong session", theft::relay),
    ("third-party-answer", "strangers and the asker answer", theft::third_party_answer),
    ("third-party-cancel", "strangers and the addressee withdraw", theft::third_party_cancel),
    ("snooping", "strangers ask how it stands", theft::snooping),
    ("forged-signature", "each part of a signed answer is changed", theft::forged_signature),
    ("truncated-signature", "a signature of which half is right", theft::truncated_signature),
    ("replayed-request", "a request is sent twice", reuse::replayed_request),
    ("replayed-answer", "an answer is sent twice", reuse::replayed_answer),
    (
        "transplanted-answer",
        "an answer to one elicitation is sent for another",
        reuse::transplanted,
    ),
    ("second-ending", "what ended is ended again in every way", reuse::second_ending),
    ("expiry-race", "answers at the deadline and after it", reuse::expiry_race),
    ("stale-request", "requests from the past and the future", reuse::stale_request),
    ("request-flood", "more requests than the limit", abuse::request_flood),
    ("answer-flood", "more answers than the limit", abuse::answer_flood),
    ("oversized", "contents above their bounds", abuse::oversized),
    ("malformed", "bytes that are no message", abuse::malformed),
    ("unfit-answer", "data that do not fit the schema, bombs among them", abuse::unfit_answer),
];

/// Names of the attacks, in their order.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, ..)| *name)
}

/// Runs every attack.
pub fn run(target: &mut dyn Target, scene: &Scene) -> Vec<Finding> {
    run_some(target, scene, |_| true)
}

/// Runs the attacks whose name is wanted; an attack's agents are its own, whichever others run.
pub fn run_some(
    target: &mut dyn Target,
    scene: &Scene,
    mut wanted: impl FnMut(&'static str) -> bool,
) -> Vec<Finding> {
    (0..)
        .zip(ALL)
        .filter(|(_, (attack, ..))| wanted(attack))
        .map(|(index, (attack, about, act))| {
            let signer = |n| Signer::new(scene.first_agent + 3 * index + n, &scene.keys);
            let (asker, addressee, thief) = (signer(0), signer(1), signer(2));
            let mut stage = Stage { target, scene, asker, addressee, thief, next_k: 0, tries: 0 };
            let verdict = match act(&mut stage) {
                Ok(()) if stage.tries == 0 => {
                    Verdict::NotRun { cause: "nothing was tried".to_owned() }
                }
                Ok(()) => Verdict::Held { tries: stage.tries },
                Err(verdict) => verdict,
            };
            Finding { attack, about, verdict }
        })
        .collect()
}

/// The agents of one attack and what they do to the target.
struct Stage<'a> {
    target: &'a mut dyn Target,
    scene: &'a Scene,
    asker: Signer,
    addressee: Signer,
    thief: Signer,
    next_k: u64,
    tries: u32,
}

const TIMEOUT_NS: u64 = 2_000_000_000;
const SCHEMA: &[u8] = br#"{"type":"object","required":["ok"]}"#;
const FITS: &[u8] = br#"{"ok":true}"#;

fn bytes(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    wire::encode(message, &mut out);
    out
}

fn broken(how: String) -> Verdict {
    Verdict::Broken { how }
}

impl Stage<'_> {
    fn ask(&mut self, now_ns: u64) -> Ask {
        let (message, schema) = (b"well?"[..].into(), SCHEMA.into());
        Ask { to: self.addressee.agent(), now_ns, timeout_ns: TIMEOUT_NS, message, schema }
    }

    fn k(&mut self) -> u64 {
        self.next_k += 1;
        self.next_k
    }

    /// An honest request and the challenge that its addressee got.
    fn honest(&mut self) -> Result<(Id, Nonce), Verdict> {
        let now_ns = self.target.now_ns();
        let ask = self.ask(now_ns);
        let k = self.k();
        let create = self.asker.create(k, ask);
        let outcome = self.target.send(self.asker.agent(), &bytes(&create));
        let notices = self.target.notices(self.addressee.agent());
        let Outcome::Created { id: created, .. } = outcome else {
            return Err(Verdict::NotRun { cause: format!("an honest request: {outcome:?}") });
        };
        let asked = notices.iter().find_map(|notice| match notice {
            Notice::Asked { id, challenge, .. } if *id == created => Some((*id, *challenge)),
            _ => None,
        });
        asked.ok_or_else(|| Verdict::NotRun { cause: "the addressee was not asked".to_owned() })
    }

    fn accept(&mut self, id: Id, challenge: Nonce) -> Message {
        let now_ns = self.target.now_ns();
        self.addressee.accept(id, challenge, now_ns, FITS.into())
    }

    /// Something that an honest agent does and that must work.
    fn works(&mut self, caller: u32, message: &Message, state: State) -> Result<(), Verdict> {
        match self.target.send(caller, &bytes(message)) {
            Outcome::Closed { state: ended, .. } if ended == state => Ok(()),
            other => Err(Verdict::NotRun { cause: format!("an honest message: {other:?}") }),
        }
    }

    /// Something that must be refused, for a reason that `right` accepts.
    fn refused(
        &mut self,
        what: &str,
        (caller, bytes): (u32, &[u8]),
        right: impl FnOnce(&Refusal) -> bool,
    ) -> Result<(), Verdict> {
        self.tries += 1;
        match self.target.send(caller, bytes) {
            Outcome::Refused(why) if right(&why) => Ok(()),
            other => Err(broken(format!("{what}: {other:?}"))),
        }
    }

    /// That it stands as it should, as both parties see it.
    fn stands(&mut self, id: Id, state: State) -> Result<(), Verdict> {
        for party in [self.asker.clone(), self.addressee.clone()] {
            match self.target.send(party.agent(), &bytes(&party.status(id))) {
                Outcome::Status { state: seen, .. } if seen == state => {}
                other => return Err(broken(format!("{id} should be {state:?}: {other:?}"))),
            }
        }
        Ok(())
    }

    /// How often the asker was told since the last call that `id` ended.
    fn told(&mut self, id: Id) -> Vec<State> {
        let notices = self.target.notices(self.asker.agent());
        let told = notices.iter().filter_map(|notice| match notice {
            Notice::Settled { id: ended, state, .. } if *ended == id => Some(*state),
            _ => None,
        });
        told.collect()
    }

    fn told_once(&mut self, id: Id, state: State) -> Result<(), Verdict> {
        let told = self.told(id);
        if told == [state] {
            Ok(())
        } else {
            Err(broken(format!("the asker of {id} was told {told:?}")))
        }
    }
}

#[cfg(test)]
mod tests;
