//! What stands on each core beside its agents: the desk, the keys, and the counts of both.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Secure;
use tailbeam_runtime::Addr;

use crate::load::host::Fleet;
use crate::load::middle::{Counted, MiddleAgent, Setup};
use crate::plan::{LimitPlan, Plan};
use crate::protocol::elicitation::wire::Bounds;
use crate::protocol::elicitation::{
    AuditRing, Desk, Id, KeyRing, Message, Notice, Profile, Refusal, RunSecret, Signer, State,
};

/// Lines of the audit trail of a core, as many as the original kept.
pub(super) const AUDIT_LINES: usize = 10_000;
/// Notices kept for an agent that attacks.
const NOTICES_MAX: usize = 1_024;

/// The shape of every answer of the load.
const SCHEMA: &[u8] = br#"{"type":"object"}"#;

/// What happens beside the owner.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// An addressee held as many as it may, and did not answer.
    pub(super) responder_full: u64,
    /// Askers were told by an owner that time had run out.
    pub(super) told_expired: u64,
    /// Other notices without an exchange.
    pub(super) told_other: u64,
}

struct Core {
    desk: Desk,
    keys: KeyRing,
    audit: AuditRing,
    counts: Counts,
    owners: u16,
    decline: f64,
    cancel: f64,
    fleet: Arc<Fleet<Secure>>,
    schema: Arc<[u8]>,
    /// One text for all, when its length is given.
    text: Option<Arc<[u8]>>,
    /// Number of an agent's first request.
    first_request: u64,
    /// First agent that attacks, and what such agents were told.
    attackers_from: u32,
    notices: HashMap<u32, VecDeque<Notice>>,
}

thread_local! {
    static CORE: RefCell<Option<Box<Core>>> = const { RefCell::new(None) };
}

fn with<R>(f: impl FnOnce(&mut Core) -> R) -> R {
    CORE.with(|cell| f(cell.borrow_mut().as_mut().expect("installed before any agent is made")))
}

/// The number under which an agent's `k`-th request of this process is made.
pub(super) fn request_number(k: u64) -> u64 {
    with(|core| core.first_request.wrapping_add(k))
}

/// The limits of a plan.
pub(crate) fn profile(plan: &Plan) -> Profile {
    match plan.protocol.limits {
        LimitPlan::Stock => Profile::STOCK,
        LimitPlan::Load => {
            let cycle = (plan.cycle_ns() / f64::from(plan.shape.fan_out)).max(1.0);
            let share = plan.shape.targets.asked(plan.askers()) as f64 / plan.askers() as f64;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive; casts of floats saturate"
            )]
            let ns = |ns: f64| (ns as u64).max(4);
            Profile::load(ns(cycle), ns(cycle * share))
        }
    }
}

/// Makes what a core has, on that core.
pub(super) fn install(setup: &Setup<Secure>) {
    let plan = setup.plan();
    let agents = setup.fleet.agents;
    let local_max = agents as usize / setup.shards + 1;
    let text = (plan.protocol.message_bytes > 0)
        .then(|| Arc::from(vec![b'x'; plan.protocol.message_bytes as usize]));
    let core = Core {
        desk: Desk::new(profile(plan), Bounds::default(), agents, local_max),
        keys: keys(setup.secret),
        audit: AuditRing::new(AUDIT_LINES),
        counts: Counts::default(),
        owners: u16::try_from(setup.shards).expect("at most 255 cores"),
        decline: plan.protocol.decline,
        cancel: plan.protocol.cancel,
        fleet: Arc::clone(&setup.fleet),
        schema: SCHEMA.into(),
        text,
        first_request: setup.first_request,
        attackers_from: setup.fleet.askers,
        notices: HashMap::new(),
    };
    #[cfg(test)]
    let core = {
        let mut core = core;
        core.desk.plant(planted());
        core
    };
    CORE.with(|cell| *cell.borrow_mut() = Some(Box::new(core)));
}

#[cfg(test)]
use crate::protocol::elicitation::{Hole, Holes};

/// The check that the next run's owners and desks leave out.
#[cfg(test)]
pub(crate) static HOLE: std::sync::Mutex<Option<Hole>> = std::sync::Mutex::new(None);

#[cfg(test)]
pub(super) fn planted() -> Holes {
    HOLE.lock().expect("nobody panics with it").map_or_else(Holes::none, Holes::one)
}

/// The keys of a run. Its monotonic clock runs through: one epoch.
pub(crate) fn keys(secret: [u8; 32]) -> KeyRing {
    KeyRing::new(&RunSecret::new(secret), 1)
}

/// The key of an agent, and the text of its requests.
pub(super) fn agent(index: u32) -> (Signer, Arc<[u8]>) {
    with(|core| {
        let text = core
            .text
            .clone()
            .unwrap_or_else(|| format!("Request from agent_{index}").into_bytes().into());
        (Signer::new(index, &core.keys), text)
    })
}

/// Gives a message of this core's agent `caller` to the desk. A refusal is counted and audited.
pub(super) fn admit(now_ns: u64, caller: u32, message: &Message) -> Result<(), ()> {
    with(|core| {
        core.desk.admit(now_ns, caller, message).map_err(|turned| core.audit.push(turned.audit))
    })
}

/// Reads and admits bytes that came by the session of `caller`.
pub(crate) fn read(now_ns: u64, caller: u32, bytes: &[u8]) -> Result<Message, Refusal> {
    with(|core| {
        core.desk.read(now_ns, caller, bytes).map_err(|turned| {
            core.audit.push(turned.audit);
            turned.why
        })
    })
}

/// Number of owners.
pub(super) fn owners() -> u16 {
    with(|core| core.owners)
}

/// Share of requests that are declined.
pub(super) fn decline() -> f64 {
    with(|core| core.decline)
}

/// Share of requests that are withdrawn.
pub(super) fn cancel() -> f64 {
    with(|core| core.cancel)
}

/// The owner of an elicitation.
pub(super) fn owner(id: Id) -> Option<Addr<MiddleAgent<Secure>>> {
    with(|core| core.fleet.middle(id.core()))
}

/// The shape of answers.
pub(super) fn schema() -> Arc<[u8]> {
    with(|core| Arc::clone(&core.schema))
}

/// Counts something.
pub(super) fn count(f: impl FnOnce(&mut Counts)) {
    with(|core| f(&mut core.counts));
}

/// Whether a refusal is one of a bound, and not of a wrong message.
pub(super) const fn is_limit(why: &Refusal) -> bool {
    matches!(
        why,
        Refusal::RateLimited { .. }
            | Refusal::LimiterFull
            | Refusal::Full
            | Refusal::NoncesFull
            | Refusal::LogFull
    )
}

/// A notice that no exchange carried.
pub(super) fn told(agent: u32, notice: Notice) {
    with(|core| {
        if agent >= core.attackers_from {
            let notices = core.notices.entry(agent).or_default();
            // After a flood the last one is what an attack waits for.
            if notices.len() == NOTICES_MAX {
                notices.pop_front();
            }
            notices.push_back(notice);
            return;
        }
        match notice {
            Notice::Settled { state: State::Expired, .. } => core.counts.told_expired += 1,
            _ => core.counts.told_other += 1,
        }
    });
}

/// What an agent that attacks was told since the last call.
pub(crate) fn take_notices(agent: u32) -> Vec<Notice> {
    with(|core| core.notices.remove(&agent).unwrap_or_default().into())
}

/// What this core counted.
pub(super) fn counted() -> Vec<Counted> {
    with(|core| {
        let counts = &core.counts;
        let mut all = vec![
            ("addressee full".to_owned(), counts.responder_full),
            ("askers told of expiry".to_owned(), counts.told_expired),
            ("other notices".to_owned(), counts.told_other),
            (
                "audit lines of desks".to_owned(),
                core.audit.lines().count() as u64 + core.audit.dropped(),
            ),
        ];
        for (code, &refused) in core.desk.refused().iter().enumerate() {
            all.push((format!("desk refused: {}", refusal_name(code)), refused));
        }
        all
    })
}

/// A refusal's code in words.
pub(super) fn refusal_name(code: usize) -> &'static str {
    const NAMES: [&str; Refusal::CODES] = [
        "already terminal",
        "expired",
        "not the addressee",
        "not the asker",
        "schema",
        "unknown agent",
        "impersonation",
        "rate limit",
        "limiter full",
        "unknown elicitation",
        "signature",
        "replay",
        "stale",
        "elicitations full",
        "nonces full",
        "log full",
        "bad schema",
        "content",
        "timeout out of bounds",
        "asks itself",
        "no party",
        "wire",
    ];
    NAMES.get(code).copied().unwrap_or("other")
}
