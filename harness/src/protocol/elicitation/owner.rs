//! The owner of elicitations: one per core, no lock, no clock and no key of its own.
//!
//! A message is checked in this order, cheap before dear and theft before use; the first check that fails
//! is the outcome, and nothing has changed:
//!
//! - create: known agents, bounds, fresh, room, **signature**, nonce not used, schema compiles, log room
//! - answer: known id, addressee, not terminal, not expired, **signature**, fits the schema, log room
//! - withdrawal: known id, asker, not terminal, not expired, **signature**, log room
//!
//! The original consumes the nonce before it verifies the signature: there a forged message uses up the
//! nonce of the true one. Here a message that does not verify changes nothing. Limits stand before this
//! (`desk.rs`), on the agent's own core, because its elicitations are spread over all owners.
//!
//! The effects of a call hold one event at most. Whoever hosts an owner gives the outcome and the notice on
//! only when that event is as durable as was asked for.

mod restore;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::auth::{Digest, KeyRing, Tag};
use super::event::{Audit, Event, What};
use super::holes::{Hole, Holes};
use super::message::{
    Cancel, Create, Id, Message, Notice, Outcome, PAGE_MAX, PendingLine, Respond, Say,
};
use super::nonces::Nonces;
use super::refusal::{Refusal, Severity};
use super::schema::{Schema, SchemaCache};
use super::state::{State, Step, next};
use super::wire::Bounds;
pub use restore::RestoreError;

/// Limits of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerConfig {
    /// Its core; part of its ids.
    pub core: u16,
    /// Agents of the run; a higher number is unknown.
    pub agents: u32,
    /// Pending elicitations at most.
    pub pending_max: usize,
    /// Ended ones that are remembered at most; the oldest goes first.
    pub closed_max: usize,
    /// Those of both kinds that room is made for at the beginning, 2.3 to 4.6 places of the table each (129 bytes a place,
    /// by the size of a full one, 2026-11-27); the table grows beyond.
    pub reserve: usize,
    /// How long an ended one is remembered, ns.
    pub closed_keep_ns: u64,
    /// Nonces remembered at most.
    pub nonces_max: usize,
    /// How old a request may be when it comes, ns. Nonces are kept this long and [`Self::ahead_ns`].
    pub fresh_ns: u64,
    /// How far a request's stamp may be ahead of the owner's clock, ns.
    pub ahead_ns: u64,
    /// Longest timeout, ns.
    pub timeout_max_ns: u64,
    /// Compiled schemas kept.
    pub schemas_max: usize,
    /// Bounds of contents.
    pub bounds: Bounds,
}

impl Default for OwnerConfig {
    fn default() -> Self {
        Self {
            core: 0,
            agents: 10_000,
            pending_max: 1 << 16,
            closed_max: 1 << 16,
            reserve: 0,
            closed_keep_ns: 60_000_000_000,
            nonces_max: 1 << 20,
            fresh_ns: 10_000_000_000,
            ahead_ns: 1_000_000_000,
            timeout_max_ns: 300_000_000_000,
            schemas_max: 256,
            bounds: Bounds::default(),
        }
    }
}

/// What must happen because of a message or of the clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Somebody to tell.
    pub notice: Option<Notice>,
    /// What the log must hold first.
    pub event: Option<Event>,
    /// A line of the audit trail.
    pub audit: Option<Audit>,
}

/// What a message came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// For its sender.
    pub outcome: Outcome,
    /// For others.
    pub effects: Effects,
}

/// What an owner counted. `created` = `pending` + the four of `closed`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Elicitations that began here, restored ones included.
    pub created: u64,
    /// Ended, by state - 1.
    pub closed: [u64; 4],
    /// Refused, by [`Refusal::code`].
    pub refused: [u64; Refusal::CODES],
    /// Ended ones that were forgotten before their time, because too many ended.
    pub forgotten_early: u64,
    /// Violations that the log had no room for.
    pub violations_unlogged: u64,
}

struct Content {
    message: Arc<[u8]>,
    text: Arc<[u8]>,
    schema: Schema,
}

enum Body {
    Pending(Content),
    Closed(State, Option<Tag>),
}

struct Record {
    from: u32,
    to: u32,
    created_ns: u64,
    expires_ns: u64,
    digest: Digest,
    body: Body,
}

/// The elicitations of one core.
pub struct Owner {
    config: OwnerConfig,
    keys: KeyRing,
    now_ns: u64,
    next_seq: u64,
    records: HashMap<Id, Record>,
    deadlines: BTreeSet<(u64, Id)>,
    /// Pending ones by addressee: one ordered set, so an agent without any leaves nothing behind.
    asked: BTreeSet<(u32, Id)>,
    closed: VecDeque<(u64, Id)>,
    nonces: Nonces,
    schemas: SchemaCache,
    counts: Counts,
    holes: Holes,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Owner {
    /// An owner without elicitations.
    #[must_use]
    pub fn new(config: OwnerConfig, keys: KeyRing) -> Self {
        let keep_ns = config.fresh_ns.saturating_add(config.ahead_ns);
        // Twice: in a table that is more than half full, whose entries come and go, what has gone makes it double, and an
        // agent's core moves all of it at once.
        let room = 2 * config.reserve.min(config.closed_max.saturating_add(config.pending_max));
        Self {
            nonces: Nonces::new(config.nonces_max, keep_ns),
            schemas: SchemaCache::new(config.schemas_max),
            config,
            keys,
            now_ns: 0,
            next_seq: 0,
            records: HashMap::with_capacity(room),
            deadlines: BTreeSet::new(),
            asked: BTreeSet::new(),
            closed: VecDeque::new(),
            counts: Counts::default(),
            holes: Holes::none(),
        }
    }

    #[cfg(test)]
    pub(crate) fn plant(&mut self, holes: Holes) {
        self.holes = holes;
    }

    /// Takes a message whose sender is who it says (`desk.rs` sees to that). `room`: events that the log
    /// takes now; without any, nothing that would be logged happens.
    pub fn handle(&mut self, now_ns: u64, message: &Message, room: usize) -> Output {
        let now_ns = self.advance(now_ns);
        let done = match message {
            Message::Create(create) => self.create(now_ns, create, room),
            Message::Respond(respond) => self.respond(now_ns, respond, room),
            Message::Cancel(cancel) => self.cancel(now_ns, cancel, room),
            Message::Pending { by, after } => Ok(query(self.pending_page(*by, *after))),
            Message::Status { by, id } => self.status(now_ns, *by, *id).map(query),
        };
        done.unwrap_or_else(|why| {
            let audit = Audit::refused(now_ns, message.by(), Some(message), &why);
            self.refuse(audit, why, room)
        })
    }

    fn refuse(&mut self, audit: Audit, why: Refusal, room: usize) -> Output {
        self.counts.refused[usize::from(why.code())] += 1;
        let grave = why.severity() >= Severity::High;
        self.counts.violations_unlogged += u64::from(grave && room == 0);
        let event = (grave && room > 0).then_some(Event::Violation(audit));
        let effects = Effects { notice: None, event, audit: Some(audit) };
        Output { outcome: Outcome::Refused(why), effects }
    }

    /// A clock that steps back stands still here until it has caught up: nothing expires twice or early.
    fn advance(&mut self, now_ns: u64) -> u64 {
        self.now_ns = self.now_ns.max(now_ns);
        // Two a call outrun the one that a call can add.
        for _ in 0..2 {
            match self.closed.front() {
                Some((at_ns, _))
                    if at_ns.saturating_add(self.config.closed_keep_ns) < self.now_ns =>
                {
                    self.forget();
                }
                _ => break,
            }
        }
        self.now_ns
    }

    fn forget(&mut self) {
        if let Some((_, id)) = self.closed.pop_front() {
            self.records.remove(&id);
        }
    }

    fn create(&mut self, now_ns: u64, create: &Create, room: usize) -> Result<Output, Refusal> {
        self.bounds(now_ns, create)?;
        if self.deadlines.len() >= self.config.pending_max {
            return Err(Refusal::Full);
        }
        self.verify(create.from, &create.tag, |key| key.of_create(create))?;
        let digest = Digest::of(create.from, &create.nonce);
        match self.nonces.usable(now_ns, &digest) {
            Err(Refusal::Replay) if self.holes.has(Hole::NonceReuse) => {}
            other => other?,
        }
        let schema = self.schemas.compiled(&create.schema)?;
        logged(room)?;

        self.nonces.note(now_ns, digest);
        let id =
            Id::new(self.config.core, self.next_seq, self.keys.id_bits(self.next_seq, &digest));
        let expires_ns = now_ns.saturating_add(create.timeout_ns);
        let text = Arc::clone(&create.schema);
        let content = Content { message: Arc::clone(&create.message), text, schema };
        let (from, to) = (create.from, create.to);
        let (created_ns, body) = (now_ns, Body::Pending(content));
        self.insert(id, Record { from, to, created_ns, expires_ns, digest, body });
        let event = Event::Requested {
            at_ns: now_ns,
            id,
            from,
            to,
            expires_ns,
            digest,
            message: Arc::clone(&create.message),
            schema: Arc::clone(&create.schema),
        };
        let effects = Effects {
            notice: self.ask(id),
            event: Some(event),
            audit: Some(Audit::taken(now_ns, from, id, What::Created, create.tag)),
        };
        Ok(Output { outcome: Outcome::Created { id, expires_ns }, effects })
    }

    fn bounds(&self, now_ns: u64, create: &Create) -> Result<(), Refusal> {
        for agent in [create.from, create.to] {
            if agent >= self.config.agents {
                return Err(Refusal::UnknownAgent(agent));
            }
        }
        if create.from == create.to {
            return Err(Refusal::Itself);
        }
        if create.timeout_ns == 0 || create.timeout_ns > self.config.timeout_max_ns {
            return Err(Refusal::Timeout(create.timeout_ns));
        }
        let (old, ahead) =
            (now_ns.saturating_sub(create.created_ns), create.created_ns.saturating_sub(now_ns));
        if old > self.config.fresh_ns || ahead > self.config.ahead_ns {
            return Err(Refusal::Stale { off_ns: old.max(ahead) });
        }
        let text = std::str::from_utf8(&create.message);
        text.map(drop).map_err(|error| Refusal::Content(error.to_string()))
    }

    fn verify(
        &self,
        agent: u32,
        tag: &Tag,
        signed: impl FnOnce(&super::auth::AgentKey) -> Tag,
    ) -> Result<(), Refusal> {
        if self.holes.has(Hole::Signature) {
            return Ok(());
        }
        let right = signed(&self.keys.agent(agent));
        if self.holes.has(Hole::SignatureHalf) && right.0[..16] == tag.0[..16] {
            return Ok(());
        }
        // `Tag` compares in constant time.
        if right == *tag { Ok(()) } else { Err(Refusal::Signature) }
    }

    fn insert(&mut self, id: Id, record: Record) {
        self.deadlines.insert((record.expires_ns, id));
        self.asked.insert((record.to, id));
        self.records.insert(id, record);
        self.counts.created += 1;
        self.next_seq = self.next_seq.max(id.seq() + 1);
    }

    /// The notice to the addressee; again after a restart.
    fn ask(&self, id: Id) -> Option<Notice> {
        let record = self.records.get(&id)?;
        let Body::Pending(content) = &record.body else { return None };
        Some(Notice::Asked {
            to: record.to,
            from: record.from,
            id,
            challenge: self.keys.challenge(id, &record.digest),
            expires_ns: record.expires_ns,
            message: Arc::clone(&content.message),
            schema: Arc::clone(&content.text),
        })
    }

    fn respond(&mut self, now_ns: u64, respond: &Respond, room: usize) -> Result<Output, Refusal> {
        let record = self.records.get(&respond.id).ok_or(Refusal::Unknown)?;
        if respond.by != record.to && !self.holes.has(Hole::RespondByAnyone) {
            return Err(Refusal::NotAddressee(respond.by));
        }
        self.open(now_ns, record, &respond.tag)?;
        let challenge = self.keys.challenge(respond.id, &record.digest);
        if Tag(challenge.0) != Tag(respond.challenge.0) && !self.holes.has(Hole::Signature) {
            return Err(Refusal::Signature);
        }
        self.verify(respond.by, &respond.tag, |key| key.of_respond(respond))?;
        let data = match &respond.say {
            Say::Accept(data) => {
                self.fits(record, data)?;
                Some(Arc::clone(data))
            }
            Say::Decline => None,
        };
        logged(room)?;
        let step = if data.is_some() { Step::Accept } else { Step::Decline };
        let (to, by) = (record.from, respond.by);
        Ok(self.end(now_ns, Ending { id: respond.id, step, by, tag: respond.tag, to, data }))
    }

    fn fits(&self, record: &Record, data: &[u8]) -> Result<(), Refusal> {
        let value = serde_json::from_slice(data).map_err(|e| Refusal::Content(e.to_string()))?;
        match &record.body {
            Body::Pending(content) if !self.holes.has(Hole::SchemaUnchecked) => {
                content.schema.check(&value)
            }
            _ => Ok(()),
        }
    }

    /// That it may still end by a message. The very signature that ended it, again, is a replay; any other
    /// message is only late.
    fn open(&self, now_ns: u64, record: &Record, tag: &Tag) -> Result<(), Refusal> {
        match &record.body {
            Body::Closed(..) if self.holes.has(Hole::SecondEnding) => Ok(()),
            Body::Closed(_, Some(ended)) if ended == tag => Err(Refusal::Replay),
            Body::Closed(state, _) => Err(Refusal::AlreadyTerminal(*state)),
            Body::Pending(_) if self.holes.has(Hole::ExpiryIgnored) => Ok(()),
            Body::Pending(_) if now_ns >= record.expires_ns => Err(Refusal::Expired),
            Body::Pending(_) => Ok(()),
        }
    }

    fn cancel(&mut self, now_ns: u64, cancel: &Cancel, room: usize) -> Result<Output, Refusal> {
        let record = self.records.get(&cancel.id).ok_or(Refusal::Unknown)?;
        if cancel.by != record.from && !self.holes.has(Hole::CancelByAnyone) {
            return Err(Refusal::NotAsker(cancel.by));
        }
        self.open(now_ns, record, &cancel.tag)?;
        self.verify(cancel.by, &cancel.tag, |key| key.of_cancel(cancel))?;
        logged(room)?;
        let (id, by, tag, to) = (cancel.id, cancel.by, cancel.tag, record.to);
        Ok(self.end(now_ns, Ending { id, step: Step::Cancel, by, tag, to, data: None }))
    }

    fn end(&mut self, now_ns: u64, ending: Ending) -> Output {
        let Ending { id, step, by, tag, to, data } = ending;
        let state = self.close(now_ns, id, step, Some(tag));
        let effects = Effects {
            notice: Some(Notice::Settled { to, id, state, data: data.clone() }),
            event: Some(Event::Closed { at_ns: now_ns, id, state, tag: Some(tag), data }),
            audit: Some(Audit::taken(now_ns, by, id, What::Closed(state), tag)),
        };
        Output { outcome: Outcome::Closed { id, state }, effects }
    }

    /// The transition itself, and everything that a pending one had.
    fn close(&mut self, now_ns: u64, id: Id, step: Step, tag: Option<Tag>) -> State {
        let record = self.records.get_mut(&id).expect("found by the caller");
        let before = match &record.body {
            Body::Pending(_) => State::Pending,
            Body::Closed(state, _) => *state,
        };
        let state = match next(before, step) {
            Ok(state) => state,
            Err(_) if self.holes.has(Hole::SecondEnding) => State::Accepted,
            Err(terminal) => unreachable!("checked to be pending, and it is {terminal:?}"),
        };
        record.body = Body::Closed(state, tag);
        self.deadlines.remove(&(record.expires_ns, id));
        self.asked.remove(&(record.to, id));
        self.counts.closed[state as usize - 1] += 1;
        if self.closed.len() >= self.config.closed_max.max(1) {
            self.forget();
            self.counts.forgotten_early += 1;
        }
        self.closed.push_back((now_ns, id));
        state
    }

    /// Ends what is past its deadline, `room` of them at most (one event each), and hands the effects to
    /// `took`. Call it again at [`Owner::next_deadline`].
    pub fn expire(&mut self, now_ns: u64, room: usize, mut took: impl FnMut(Effects)) -> usize {
        let now_ns = self.advance(now_ns);
        if self.holes.has(Hole::ExpiryIgnored) {
            return 0;
        }
        for done in 0..room {
            let Some(&(expires_ns, id)) = self.deadlines.first() else { return done };
            if expires_ns > now_ns {
                return done;
            }
            let to = self.records.get(&id).expect("a deadline has a record").from;
            let state = self.close(now_ns, id, Step::Expire, None);
            let (agent, tag) = (None, None);
            let (what, severity) = (What::Closed(state), Severity::Info);
            took(Effects {
                notice: Some(Notice::Settled { to, id, state, data: None }),
                event: Some(Event::Closed { at_ns: now_ns, id, state, tag, data: None }),
                audit: Some(Audit { at_ns: now_ns, agent, id: Some(id), what, severity, tag }),
            });
        }
        room
    }

    /// When [`Owner::expire`] has something to do next, monotonic ns.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.holes.has(Hole::ExpiryIgnored) {
            return None;
        }
        self.deadlines.first().map(|(expires_ns, _)| *expires_ns)
    }

    fn pending_page(&self, by: u32, after: Option<Id>) -> Outcome {
        let from = match after {
            Some(id) => std::ops::Bound::Excluded((by, id)),
            None => std::ops::Bound::Included((by, Id::from_bytes([0; 16]))),
        };
        let to = std::ops::Bound::Included((by, Id::from_bytes([0xFF; 16])));
        let mut found = self.asked.range((from, to)).map(|(_, id)| {
            let record = self.records.get(id).expect("what is asked has a record");
            PendingLine { id: *id, from: record.from, expires_ns: record.expires_ns }
        });
        let lines: Vec<PendingLine> = found.by_ref().take(PAGE_MAX).collect();
        let more = found.next().is_some();
        Outcome::Pending { lines, more }
    }

    fn status(&self, now_ns: u64, by: u32, id: Id) -> Result<Outcome, Refusal> {
        let record = self.records.get(&id).ok_or(Refusal::Unknown)?;
        if by != record.from && by != record.to {
            return Err(Refusal::NotParty(by));
        }
        let state = match &record.body {
            Body::Closed(state, _) => *state,
            Body::Pending(_) if now_ns >= record.expires_ns => State::Expired,
            Body::Pending(_) => State::Pending,
        };
        Ok(Outcome::Status { id, state })
    }

    /// What was counted.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Pending ones.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.deadlines.len()
    }

    /// Everything that is held: records, deadlines, addressees, ended ones, nonces, schemas. None of them
    /// grows without a bound.
    #[must_use]
    pub fn held(&self) -> [usize; 6] {
        [
            self.records.len(),
            self.deadlines.len(),
            self.asked.len(),
            self.closed.len(),
            self.nonces.len(),
            self.schemas.len(),
        ]
    }
}

struct Ending {
    id: Id,
    step: Step,
    by: u32,
    tag: Tag,
    to: u32,
    data: Option<Arc<[u8]>>,
}

fn query(outcome: Outcome) -> Output {
    Output { outcome, effects: Effects::default() }
}

const fn logged(room: usize) -> Result<(), Refusal> {
    if room == 0 { Err(Refusal::LogFull) } else { Ok(()) }
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;
