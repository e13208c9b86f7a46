//! Using what was true once: again, elsewhere, or too late.

use super::super::elicitation::{Message, Notice, Outcome, Refusal, State};
use super::{FITS, Stage, TIMEOUT_NS, Verdict, broken, bytes};

pub(super) fn replayed_request(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let now = stage.target.now_ns();
    let ask = stage.ask(now);
    let (asker, victim) = (stage.asker.agent(), stage.addressee.agent());
    let create = stage.asker.create(stage.next_k + 1, ask);
    let Outcome::Created { id, .. } = stage.target.send(asker, &bytes(&create)) else {
        return Err(Verdict::NotRun { cause: "an honest request was not taken".to_owned() });
    };
    stage.target.notices(victim);
    stage.refused("the same request", (asker, &bytes(&create)), |why| *why == Refusal::Replay)?;
    // Also once the first has ended, while it is fresh.
    let cancel = stage.asker.cancel(id, now);
    stage.works(asker, &cancel, State::Cancelled)?;
    stage
        .refused("again after its end", (asker, &bytes(&create)), |why| *why == Refusal::Replay)?;
    let asked = stage.target.notices(victim);
    if asked.iter().any(|notice| matches!(notice, Notice::Asked { .. })) {
        return Err(broken("the addressee was asked twice".to_owned()));
    }
    // And when its nonce may have been forgotten.
    let later = stage.target.now_ns() + stage.scene.fresh_ns + 1_000_000_000;
    stage.target.wait_until(later);
    stage.refused("when it is old", (asker, &bytes(&create)), |why| {
        matches!(why, Refusal::Stale { .. })
    })
}

pub(super) fn replayed_answer(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let (answer, victim) = (stage.accept(id, challenge), stage.addressee.agent());
    stage.works(victim, &answer, State::Accepted)?;
    for _ in 0..3 {
        stage
            .refused("the same answer", (victim, &bytes(&answer)), |why| *why == Refusal::Replay)?;
    }
    stage.told_once(id, State::Accepted)
}

pub(super) fn transplanted(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (first, first_challenge) = stage.honest()?;
    let (second, second_challenge) = stage.honest()?;
    let victim = stage.addressee.agent();
    let Message::Respond(answer) = stage.accept(first, first_challenge) else {
        return Err(Verdict::NotRun { cause: "an answer is no answer".to_owned() });
    };
    for challenge in [first_challenge, second_challenge] {
        let mut moved = answer.clone();
        (moved.id, moved.challenge) = (second, challenge);
        let moved = bytes(&Message::Respond(moved));
        stage.refused("an answer to another request", (victim, &moved), |why| {
            *why == Refusal::Signature
        })?;
    }
    // Signed by the addressee, but over another elicitation's challenge.
    let now = stage.target.now_ns();
    let crossed = stage.addressee.accept(second, first_challenge, now, FITS.into());
    stage.refused("another's challenge", (victim, &bytes(&crossed)), |why| {
        *why == Refusal::Signature
    })?;
    stage.stands(second, State::Pending)?;
    stage.works(victim, &Message::Respond(answer), State::Accepted)
}

pub(super) fn second_ending(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (asker, victim) = (stage.asker.agent(), stage.addressee.agent());
    for state in [State::Accepted, State::Declined, State::Cancelled] {
        let (id, challenge) = stage.honest()?;
        let now = stage.target.now_ns();
        let endings = [
            (State::Accepted, victim, stage.addressee.accept(id, challenge, now + 1, FITS.into())),
            (State::Declined, victim, stage.addressee.decline(id, challenge, now + 1)),
            (State::Cancelled, asker, stage.asker.cancel(id, now + 1)),
        ];
        let first = match state {
            State::Accepted => stage.addressee.accept(id, challenge, now, FITS.into()),
            State::Declined => stage.addressee.decline(id, challenge, now),
            _ => stage.asker.cancel(id, now),
        };
        stage.works(if state == State::Cancelled { asker } else { victim }, &first, state)?;
        for (_, session, message) in endings {
            stage.refused("a second ending", (session, &bytes(&message)), |why| {
                *why == Refusal::AlreadyTerminal(state)
            })?;
        }
        stage.stands(id, state)?;
        let told = stage.told(id);
        if told.len() > 1 {
            return Err(broken(format!("the asker was told {told:?}")));
        }
    }
    Ok(())
}

pub(super) fn expiry_race(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let created = stage.target.now_ns();
    // Signed in time, sent too late.
    let answer = stage.accept(id, challenge);
    let cancel = stage.asker.cancel(id, created);
    let (asker, victim) = (stage.asker.agent(), stage.addressee.agent());
    let late =
        |why: &Refusal| matches!(why, Refusal::Expired | Refusal::AlreadyTerminal(State::Expired));
    for after_ns in [TIMEOUT_NS, TIMEOUT_NS + 1, TIMEOUT_NS + 500_000_000] {
        stage.target.wait_until(created + after_ns);
        stage.refused("an answer too late", (victim, &bytes(&answer)), late)?;
        stage.refused("a withdrawal too late", (asker, &bytes(&cancel)), late)?;
        stage.stands(id, State::Expired)?;
    }
    stage.told_once(id, State::Expired)
}

pub(super) fn stale_request(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    stage.honest()?;
    let asker = stage.asker.clone();
    let later = stage.target.now_ns() + 2 * stage.scene.fresh_ns;
    stage.target.wait_until(later);
    let now = stage.target.now_ns();
    let (old, ahead) = (now - stage.scene.fresh_ns - 1_000_000, now + 3_600_000_000_000);
    for made_ns in [old, ahead, 0, u64::MAX] {
        let ask = stage.ask(made_ns);
        let create = asker.create(stage.k(), ask);
        stage.refused("a request of another time", (asker.agent(), &bytes(&create)), |why| {
            matches!(why, Refusal::Stale { .. })
        })?;
    }
    Ok(())
}
