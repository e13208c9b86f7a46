//! Too much, too large, or nonsense.

use super::super::elicitation::{Ask, Message, Outcome, Rate, Refusal, State};
use super::{Stage, Verdict, broken, bytes};

/// Messages of a flood beyond the bucket.
const BEYOND: u32 = 100;
/// A bucket larger than this is not emptied: the flood would be the load test.
const FLOOD_MAX: u32 = 200_000;

/// Sends `message(k)` until the bucket must be empty: at most what the law gives may pass.
fn flood(
    stage: &mut Stage<'_>,
    rate: Rate,
    caller: u32,
    mut message: impl FnMut(&mut Stage<'_>) -> Message,
) -> Result<(), Verdict> {
    if rate.capacity > FLOOD_MAX {
        let cause = format!("a bucket of {} tokens is not emptied by a test", rate.capacity);
        return Err(Verdict::NotRun { cause });
    }
    let began = stage.target.now_ns();
    let (mut passed, mut limited, mut sent) = (0u64, 0u64, 0u64);
    // The bucket refills while the flood runs: it goes on until enough was refused, or for too long.
    while limited < u64::from(BEYOND) && sent < 4 * u64::from(FLOOD_MAX) {
        let message = message(stage);
        sent += 1;
        stage.tries += 1;
        match stage.target.send(caller, &bytes(&message)) {
            Outcome::Refused(Refusal::RateLimited { .. }) => limited += 1,
            _ => passed += 1,
        }
        let spent = stage.target.now_ns().saturating_sub(began);
        let allowed = u64::from(rate.capacity) + spent / rate.interval_ns.max(1) + 1;
        if passed > allowed {
            return Err(broken(format!("{passed} of {sent} passed where {allowed} may")));
        }
    }
    if limited == 0 {
        return Err(broken(format!("{sent} were sent and none was limited")));
    }
    Ok(())
}

pub(super) fn request_flood(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (rate, thief) = (stage.scene.profile.requests, stage.thief.clone());
    flood(stage, rate, thief.agent(), |stage| {
        let now = stage.target.now_ns();
        let ask = stage.ask(now);
        thief.create(stage.k(), ask)
    })?;
    // The flood is the thief's own: others are served, and once it rests it is too.
    stage.honest()?;
    let later = stage.target.now_ns() + 2 * rate.interval_ns;
    stage.target.wait_until(later);
    let ask = stage.ask(later);
    let create = thief.create(stage.k(), ask);
    match stage.target.send(thief.agent(), &bytes(&create)) {
        Outcome::Refused(why @ Refusal::RateLimited { .. }) => {
            Err(broken(format!("still limited after its rest: {why}")))
        }
        _ => Ok(()),
    }
}

pub(super) fn answer_flood(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let (rate, thief) = (stage.scene.profile.responses, stage.thief.clone());
    flood(stage, rate, thief.agent(), |stage| {
        let now = stage.target.now_ns();
        thief.decline(id, challenge, now)
    })?;
    // Guessing at another's elicitation cost the addressee nothing.
    let (answer, victim) = (stage.accept(id, challenge), stage.addressee.agent());
    match stage.target.send(victim, &bytes(&answer)) {
        Outcome::Closed { state: State::Accepted, .. } => Ok(()),
        Outcome::Refused(Refusal::RateLimited { .. }) => {
            Err(broken("the flood used up the addressee's tokens".to_owned()))
        }
        // On a slow target the flood may have outlasted the elicitation.
        Outcome::Refused(Refusal::Expired | Refusal::AlreadyTerminal(State::Expired)) => Ok(()),
        other => Err(broken(format!("the addressee's answer: {other:?}"))),
    }
}

pub(super) fn oversized(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let bounds = stage.scene.bounds;
    let now = stage.target.now_ns();
    let (asker, victim) = (stage.asker.clone(), stage.addressee.clone());
    let long = |len: usize| vec![b' '; len].into();
    let ask = stage.ask(now);
    let messages = [
        (
            asker.agent(),
            asker.create(100, Ask { message: long(bounds.message_max + 1), ..ask.clone() }),
        ),
        (asker.agent(), asker.create(101, Ask { schema: long(bounds.schema_max + 1), ..ask })),
        (victim.agent(), victim.accept(id, challenge, now, long(bounds.data_max + 1))),
    ];
    for (session, message) in messages {
        stage.refused("a content too long", (session, &bytes(&message)), |why| {
            matches!(why, Refusal::Wire(_))
        })?;
    }
    let huge = vec![1; bounds.longest() + 1];
    stage.refused("a message too long", (asker.agent(), &huge), |why| {
        matches!(why, Refusal::Wire(_))
    })?;
    stage.stands(id, State::Pending)
}

pub(super) fn malformed(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let (whole, victim) = (bytes(&stage.accept(id, challenge)), stage.addressee.agent());
    for cut in 0..whole.len() {
        stage.refused(&format!("cut at byte {cut}"), (victim, &whole[..cut]), |why| {
            matches!(why, Refusal::Wire(_))
        })?;
    }
    let longer = [&whole[..], &[0]].concat();
    let kinds = (0..=u8::MAX).filter(|kind| !(1..=6).contains(kind)).map(|kind| vec![1, kind]);
    let versions = (0..=u8::MAX).filter(|version| *version != 1).map(|version| {
        let mut bytes = whole.clone();
        bytes[0] = version;
        bytes
    });
    for bytes in kinds.chain(versions).chain([longer]) {
        stage.refused("no message", (victim, &bytes), |why| matches!(why, Refusal::Wire(_)))?;
    }
    // What the sessions send by themselves must still be understood.
    stage.stands(id, State::Pending)
}

pub(super) fn unfit_answer(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let victim = stage.addressee.clone();
    let deep = 100_000.min(stage.scene.bounds.data_max / 2);
    let bomb = ["[".repeat(deep), "]".repeat(deep)].concat();
    for data in [&b"{}"[..], b"[]", b"7", b"", b"{", b"\xFF\xFE", bomb.as_bytes()] {
        let now = stage.target.now_ns();
        let answer = victim.accept(id, challenge, now, data.into());
        stage.refused("data that do not fit", (victim.agent(), &bytes(&answer)), |why| {
            matches!(why, Refusal::Schema(_) | Refusal::Content(_))
        })?;
    }
    stage.stands(id, State::Pending)?;
    let now = stage.target.now_ns();
    let asker = stage.asker.clone();
    for schema in [&br##"{"$ref":"#"}"##[..], br#"{"type":5}"#, b"nothing"] {
        let ask = Ask { schema: schema.into(), ..stage.ask(now) };
        let create = asker.create(stage.k(), ask);
        stage.refused("a schema that is none", (asker.agent(), &bytes(&create)), |why| {
            matches!(why, Refusal::BadSchema(_))
        })?;
    }
    let ask = Ask { message: b"\xFF"[..].into(), ..stage.ask(now) };
    let create = asker.create(stage.k(), ask);
    stage.refused("text that is none", (asker.agent(), &bytes(&create)), |why| {
        matches!(why, Refusal::Content(_))
    })?;
    // It may try again, and succeed.
    let answer = stage.accept(id, challenge);
    stage.works(victim.agent(), &answer, State::Accepted)
}
