//! The owner against a model that is too simple to be wrong: a list of elicitations and when each nonce was used.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::auth::RunSecret;
use super::super::{Ask, Nonce, Signer};
use super::*;

const AGENTS: u32 = 4;
const TIMEOUT: u64 = 100;
/// Freshness and how far a stamp may be ahead. After that an asker may sign a new message over an old
/// nonce: that is a new request of its own, no replay.
const KEPT: u64 = 55;

fn keys() -> KeyRing {
    KeyRing::new(&RunSecret::new([3; 32]), 1)
}

fn config() -> OwnerConfig {
    OwnerConfig {
        agents: AGENTS,
        pending_max: 6,
        closed_max: 1_000,
        closed_keep_ns: 1_000_000,
        nonces_max: 1_000,
        fresh_ns: 50,
        ahead_ns: 5,
        timeout_max_ns: 1_000,
        ..OwnerConfig::default()
    }
}

fn signer(agent: u32) -> Signer {
    Signer::new(agent, &keys())
}

fn ask(to: u32, now_ns: u64) -> Ask {
    let (message, schema) = (Arc::from(&b"well?"[..]), Arc::from(&br#"{"type":"object"}"#[..]));
    Ask { to, now_ns, timeout_ns: TIMEOUT, message, schema }
}

fn asked(output: &Output) -> (Id, Nonce) {
    match &output.effects.notice {
        Some(Notice::Asked { id, challenge, .. }) => (*id, *challenge),
        other => panic!("{other:?}"),
    }
}

fn refusal(output: &Output) -> Option<&Refusal> {
    match &output.outcome {
        Outcome::Refused(why) => Some(why),
        _ => None,
    }
}

#[derive(Debug, Clone)]
enum Act {
    Create { from: u32, to: u32, k: u64, age: u64 },
    Say { by: u32, which: usize, accept: Option<bool> },
    Again { which: usize },
    Cancel { by: u32, which: usize },
    Forge { by: u32, key: u32, which: usize },
    Tick(u64),
    Expire(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let agent = || 0..AGENTS + 1;
    prop_oneof![
        3 => (agent(), agent(), 0u64..20, 0u64..70)
            .prop_map(|(from, to, k, age)| Act::Create { from, to, k, age }),
        3 => (agent(), 0usize..12, prop::option::of(any::<bool>()))
            .prop_map(|(by, which, accept)| Act::Say { by, which, accept }),
        1 => (0usize..12).prop_map(|which| Act::Again { which }),
        2 => (agent(), 0usize..12).prop_map(|(by, which)| Act::Cancel { by, which }),
        1 => (agent(), agent(), 0usize..12).prop_map(|(by, key, which)| Act::Forge { by, key, which }),
        3 => (0u64..40).prop_map(Act::Tick),
        1 => (0usize..4).prop_map(Act::Expire),
    ]
}

struct Known {
    id: Id,
    challenge: Nonce,
    from: u32,
    to: u32,
    expires_ns: u64,
    state: State,
    ended_by: Option<Message>,
}

struct Model {
    owner: Owner,
    now: u64,
    known: Vec<Known>,
    used: HashMap<(u32, u64), u64>,
    events: Vec<Event>,
}

impl Model {
    fn new() -> Self {
        let owner = Owner::new(config(), keys());
        Self { owner, now: 1_000, known: Vec::new(), used: HashMap::new(), events: Vec::new() }
    }

    fn pending(&self) -> usize {
        self.known.iter().filter(|known| known.state == State::Pending).count()
    }

    fn send(&mut self, message: &Message) -> Output {
        let output = self.owner.handle(self.now, message, 1);
        self.events.extend(output.effects.event.clone());
        output
    }

    fn create(&mut self, from: u32, to: u32, k: u64, age: u64) {
        let made = self.now - age;
        let message = signer(from).create(k, ask(to, made));
        let output = self.send(&message);
        let expected = if from >= AGENTS {
            Some(Refusal::UnknownAgent(from))
        } else if to >= AGENTS {
            Some(Refusal::UnknownAgent(to))
        } else if from == to {
            Some(Refusal::Itself)
        } else if age > 50 {
            Some(Refusal::Stale { off_ns: age })
        } else if self.pending() == 6 {
            Some(Refusal::Full)
        } else if self.used.get(&(from, k)).is_some_and(|used| self.now - used <= KEPT) {
            Some(Refusal::Replay)
        } else {
            None
        };
        assert_eq!(refusal(&output), expected.as_ref());
        if expected.is_none() {
            self.used.insert((from, k), self.now);
            let (id, challenge) = asked(&output);
            let (expires_ns, state) = (self.now + TIMEOUT, State::Pending);
            self.known.push(Known { id, challenge, from, to, expires_ns, state, ended_by: None });
        }
    }

    /// What every message that would end an elicitation must meet, in order.
    fn expected(
        &self,
        which: usize,
        right: bool,
        wrong: Refusal,
        message: &Message,
    ) -> Option<Refusal> {
        let known = &self.known[which];
        match known.state {
            _ if !right => Some(wrong),
            State::Pending if self.now >= known.expires_ns => Some(Refusal::Expired),
            State::Pending => None,
            _ if known.ended_by.as_ref() == Some(message) => Some(Refusal::Replay),
            state => Some(Refusal::AlreadyTerminal(state)),
        }
    }

    fn end(&mut self, which: usize, message: Message, expected: Option<Refusal>, state: State) {
        let output = self.send(&message);
        assert_eq!(refusal(&output), expected.as_ref());
        let known = &mut self.known[which];
        if expected.is_none() {
            assert_eq!(output.outcome, Outcome::Closed { id: known.id, state });
            let told = if state == State::Cancelled { known.to } else { known.from };
            let Some(Notice::Settled { to, data, .. }) = output.effects.notice else { panic!() };
            assert_eq!((to, data.is_some()), (told, state == State::Accepted));
            known.state = state;
            known.ended_by = Some(message);
        } else {
            assert_eq!(output.effects.notice, None);
        }
    }

    fn act(&mut self, act: Act) {
        let pick = |which: usize, of: usize| (of > 0).then(|| which % of);
        let count = self.known.len();
        match act {
            Act::Create { from, to, k, age } => self.create(from, to, k, age),
            Act::Say { by, which, accept } => {
                let Some(which) = pick(which, count) else { return };
                let Known { id, challenge, to, .. } = self.known[which];
                let (message, state) = match accept {
                    None => (signer(by).decline(id, challenge, self.now), State::Declined),
                    Some(fits) => {
                        let data = Arc::from(if fits { &b"{}"[..] } else { &b"[]"[..] });
                        (signer(by).accept(id, challenge, self.now, data), State::Accepted)
                    }
                };
                let mut expected =
                    self.expected(which, by == to, Refusal::NotAddressee(by), &message);
                if expected.is_none() && accept == Some(false) {
                    let why = r#"[] is not of type "object""#;
                    expected = Some(Refusal::Schema(why.to_owned()));
                }
                self.end(which, message, expected, state);
            }
            Act::Again { which } => {
                let Some(which) = pick(which, count) else { return };
                let Some(message) = self.known[which].ended_by.clone() else { return };
                self.end(which, message, Some(Refusal::Replay), State::Pending);
            }
            Act::Cancel { by, which } => {
                let Some(which) = pick(which, count) else { return };
                let message = signer(by).cancel(self.known[which].id, self.now);
                let right = by == self.known[which].from;
                let expected = self.expected(which, right, Refusal::NotAsker(by), &message);
                self.end(which, message, expected, State::Cancelled);
            }
            Act::Forge { by, key, which } => {
                let Some(which) = pick(which, count) else { return };
                if by == key {
                    return;
                }
                let Known { id, challenge, to, .. } = self.known[which];
                let Message::Respond(mut forged) = signer(key).decline(id, challenge, self.now)
                else {
                    panic!()
                };
                forged.by = by;
                let message = Message::Respond(forged);
                let before = self.expected(which, by == to, Refusal::NotAddressee(by), &message);
                self.end(which, message, before.or(Some(Refusal::Signature)), State::Declined);
            }
            Act::Tick(step) => self.now += step,
            Act::Expire(room) => self.expire(room),
        }
    }

    fn expire(&mut self, room: usize) {
        let now = self.now;
        let due = |known: &&mut Known| known.state == State::Pending && known.expires_ns <= now;
        let mut done = Vec::new();
        self.owner.expire(now, room, |effects| done.push(effects));
        let all = self.known.iter_mut().filter(due).count();
        assert_eq!(done.len(), all.min(room));
        for effects in done {
            let Some(Notice::Settled { id, state: State::Expired, .. }) = effects.notice else {
                panic!("{effects:?}")
            };
            let known = self.known.iter_mut().find(|known| known.id == id).unwrap();
            assert!(known.state == State::Pending && known.expires_ns <= now);
            known.state = State::Expired;
            self.events.extend(effects.event);
        }
    }

    /// What holds after every step.
    fn check(&mut self) {
        let counts = *self.owner.counts();
        let ended: u64 = counts.closed.iter().sum();
        assert_eq!(counts.created, self.owner.pending() as u64 + ended);
        assert_eq!(
            (self.owner.pending(), counts.created),
            (self.pending(), self.known.len() as u64)
        );
        let next =
            self.known.iter().filter(|k| k.state == State::Pending).map(|k| k.expires_ns).min();
        assert_eq!(self.owner.next_deadline(), next);
        for known in &self.known {
            let asked = Message::Status { by: known.to, id: known.id };
            let overdue = known.state == State::Pending && self.now >= known.expires_ns;
            let state = if overdue { State::Expired } else { known.state };
            let output = self.owner.handle(self.now, &asked, 0);
            assert_eq!(output.outcome, Outcome::Status { id: known.id, state });
        }
        for by in 0..AGENTS {
            let output = self.owner.handle(self.now, &signer(by).pending(None), 0);
            let Outcome::Pending { lines, more: false } = output.outcome else { panic!() };
            let mut mine: Vec<Id> = self
                .known
                .iter()
                .filter(|k| k.to == by && k.state == State::Pending)
                .map(|k| k.id)
                .collect();
            mine.sort();
            assert_eq!(lines.iter().map(|line| line.id).collect::<Vec<_>>(), mine);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_owner_does_what_the_model_says(acts in prop::collection::vec(act(), 1..80)) {
        let mut model = Model::new();
        for act in acts {
            model.act(act);
            model.check();
        }
        // Exactly one terminal event for each that ended, and a restart that takes the events has the same.
        let mut restored = Owner::new(config(), keys());
        for event in &model.events {
            restored.restore(event, 0).unwrap();
            if let Event::Closed { .. } = event {
                let twice = matches!(restored.restore(event, 0), Err(RestoreError::Twice { .. }));
                prop_assert!(twice);
            }
        }
        prop_assert_eq!(restored.counts().created, model.owner.counts().created);
        prop_assert_eq!(restored.counts().closed, model.owner.counts().closed);
        let (again, held): (Vec<_>, Vec<_>) = (restored.asked_again().collect(), model.owner.asked_again().collect());
        prop_assert_eq!(again, held, "the same challenges, though none is in the log");
        // So does one that takes a snapshot of that.
        model.owner = Owner::new(config(), keys());
        for event in restored.snapshot() {
            model.owner.restore(&event, 0).unwrap();
        }
        model.check();
        for (from, k) in model.used.keys().copied().collect::<Vec<_>>() {
            model.create(from, (from + 1) % AGENTS, k, 0);
        }
        for known in &model.known {
            if let Some(message) = &known.ended_by {
                let output = model.owner.handle(model.now, message, 1);
                prop_assert_eq!(refusal(&output), Some(&Refusal::Replay));
            }
        }
    }
}

fn created(owner: &mut Owner, now: u64, from: u32, k: u64) -> (Id, Nonce) {
    asked(&owner.handle(now, &signer(from).create(k, ask((from + 1) % AGENTS, now)), 1))
}

#[test]
fn without_room_in_the_log_nothing_happens_and_queries_still_answer() {
    let mut owner = Owner::new(config(), keys());
    let message = signer(0).create(1, ask(1, 10));
    assert_eq!(refusal(&owner.handle(10, &message, 0)), Some(&Refusal::LogFull));
    assert_eq!((owner.pending(), owner.held()), (0, [0, 0, 0, 0, 0, 1]), "only the schema");
    let (id, challenge) = asked(&owner.handle(10, &message, 1));
    let answer = signer(1).decline(id, challenge, 20);
    assert_eq!(refusal(&owner.handle(20, &answer, 0)), Some(&Refusal::LogFull));
    assert_eq!(owner.expire(500, 0, |_| panic!("no room")), 0);
    assert_eq!(
        owner.handle(20, &signer(1).status(id), 0).outcome,
        Outcome::Status { id, state: State::Expired }
    );
    let theft = owner.handle(500, &signer(2).decline(id, challenge, 20), 0);
    assert_eq!((refusal(&theft), &theft.effects.event), (Some(&Refusal::NotAddressee(2)), &None));
    assert_eq!(owner.counts().violations_unlogged, 1);
    assert_eq!(owner.expire(500, 9, |_| {}), 1);
}

#[test]
fn memory_is_bounded_whatever_comes_and_nothing_stays_behind() {
    let small = OwnerConfig {
        closed_max: 8,
        closed_keep_ns: 400,
        nonces_max: 64,
        schemas_max: 2,
        ..config()
    };
    let mut owner = Owner::new(small, keys());
    let mut now = 1_000;
    for k in 0..2_000 {
        now += if k % 7 == 0 { 60 } else { 1 };
        let (from, to) = ((k % 4) as u32, ((k + 1) % 4) as u32);
        let text = format!(r#"{{"type":"object","maxProperties":{}}}"#, k % 50);
        let asked = Ask { schema: Arc::from(text.as_bytes()), ..ask(to, now) };
        owner.handle(now, &signer(from).create(k, asked), 1);
        if k % 3 == 0 {
            owner.expire(now, 4, |_| {});
        }
        let [records, pending, asked, closed, nonces, schemas] = owner.held();
        assert!(pending <= 6 && asked == pending && closed <= 8 && nonces <= 64 && schemas <= 2);
        assert_eq!(records, pending + closed);
    }
    assert!(owner.counts().created > 500, "{:?}", owner.counts());
    assert!(owner.counts().forgotten_early > 0 && owner.counts().refused[13] > 0);
    owner.expire(now + 10_000, 100, |_| {});
    for step in 1..20 {
        owner.handle(now + 20_000 + step, &signer(0).pending(None), 0);
    }
    assert_eq!(owner.held()[..4], [0; 4]);
}

#[test]
fn a_full_table_of_nonces_refuses_and_forgets_none() {
    let mut owner = Owner::new(OwnerConfig { nonces_max: 2, ..config() }, keys());
    let first = signer(0).create(1, ask(1, 10));
    owner.handle(10, &first, 1);
    created(&mut owner, 10, 0, 2);
    assert_eq!(
        refusal(&owner.handle(10, &signer(0).create(3, ask(1, 10)), 1)),
        Some(&Refusal::NoncesFull)
    );
    assert_eq!(
        refusal(&owner.handle(60, &first, 1)),
        Some(&Refusal::Replay),
        "to the end of its freshness"
    );
    assert_eq!(refusal(&owner.handle(61, &first, 1)), Some(&Refusal::Stale { off_ns: 51 }));
    created(&mut owner, 66, 0, 3);
}

#[test]
fn a_clock_that_steps_back_expires_nothing_twice_and_opens_nothing() {
    let mut owner = Owner::new(config(), keys());
    let (id, challenge) = created(&mut owner, 1_000, 0, 1);
    assert_eq!(owner.expire(1_100, 9, |_| {}), 1);
    let late = signer(1).decline(id, challenge, 1_050);
    assert_eq!(
        refusal(&owner.handle(1_050, &late, 1)),
        Some(&Refusal::AlreadyTerminal(State::Expired))
    );
    assert_eq!(owner.expire(1_000, 9, |_| {}), 0);
    let (_, _) = created(&mut owner, 1_099, 0, 2);
    assert_eq!(owner.next_deadline(), Some(1_100 + TIMEOUT), "time did not go back");
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat() {
    let mut owner = Owner::new(OwnerConfig { pending_max: 200, ..config() }, keys());
    let made: Vec<Id> = (0..150).map(|k| created(&mut owner, 10, 0, k).0).collect();
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let Outcome::Pending { lines, more } =
            owner.handle(10, &signer(1).pending(after), 0).outcome
        else {
            panic!()
        };
        assert!(lines.len() <= PAGE_MAX);
        after = lines.last().map(|line| line.id);
        seen.extend(lines.iter().map(|line| line.id));
        pages += 1;
        if !more {
            break;
        }
    }
    assert_eq!((seen, pages), (made, 3));
    let end = Some(Id::from_bytes([0xFF; 16]));
    let none = owner.handle(10, &signer(1).pending(end), 0).outcome;
    assert_eq!(none, Outcome::Pending { lines: Vec::new(), more: false });
    let stranger = owner.handle(10, &signer(2).status(owner.asked.first().unwrap().1), 1);
    assert_eq!(refusal(&stranger), Some(&Refusal::NotParty(2)));
}

#[test]
fn after_a_restart_on_another_clock_deadlines_keep_their_distance() {
    let mut owner = Owner::new(config(), keys());
    let output = owner.handle(5_000, &signer(0).create(1, ask(1, 5_000)), 1);
    let (id, challenge) = asked(&output);
    let event = output.effects.event.unwrap();
    let mut restored = Owner::new(config(), keys());
    restored.restore(&event, -4_900).unwrap();
    assert_eq!(restored.next_deadline(), Some(200));
    let answer = signer(1).accept(id, challenge, 150, Arc::from(&b"{}"[..]));
    let closed = restored.handle(150, &answer, 1);
    assert_eq!(closed.outcome, Outcome::Closed { id, state: State::Accepted });
    let (next, _) = created(&mut restored, 160, 0, 2);
    assert_eq!(next.seq(), id.seq() + 1, "ids go on");
    let other = OwnerConfig { core: 9, ..config() };
    let error = Owner::new(other, keys()).restore(&event, 0);
    assert_eq!(error, Err(RestoreError::AnotherOwner { id }));
    let ended = closed.effects.event.unwrap();
    let error = Owner::new(config(), keys()).restore(&ended, 0);
    assert_eq!(error, Err(RestoreError::NeverBegan { id }));
}

/// A table that doubles in the middle of a run moves all that is remembered, on an agent's core.
#[test]
fn a_table_with_room_for_all_never_moves() {
    let grown = |reserve: usize| {
        let config =
            OwnerConfig { closed_max: 100, closed_keep_ns: 1_000_000_000, reserve, ..config() };
        let mut owner = Owner::new(config, keys());
        let room = owner.records.capacity();
        let mut now = 1_000;
        for k in 0..5_000 {
            now += 2_000;
            let (from, to) = ((k % 4) as u32, ((k + 1) % 4) as u32);
            owner.handle(now, &signer(from).create(k, ask(to, now)), 1);
            owner.expire(now + 1_500, 4, |_| {});
        }
        assert_eq!((owner.counts().created, owner.records.len()), (5_000, 100));
        owner.records.capacity() > room
    };
    assert!(grown(0) && !grown(106));
}
