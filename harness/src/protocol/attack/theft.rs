//! Acting as somebody else, or on what is somebody else's.

use super::super::elicitation::{Message, Refusal, State, Tag};
use super::{Stage, Verdict, bytes};

fn renamed(mut message: Message, to: u32) -> Message {
    match &mut message {
        Message::Create(create) => create.from = to,
        Message::Respond(respond) => respond.by = to,
        Message::Cancel(cancel) => cancel.by = to,
        Message::Pending { by, .. } | Message::Status { by, .. } => *by = to,
    }
    message
}

fn tag_mut(message: &mut Message) -> Option<&mut Tag> {
    match message {
        Message::Create(create) => Some(&mut create.tag),
        Message::Respond(respond) => Some(&mut respond.tag),
        Message::Cancel(cancel) => Some(&mut cancel.tag),
        Message::Pending { .. } | Message::Status { .. } => None,
    }
}

pub(super) fn impersonation(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let now = stage.target.now_ns();
    let (victim, asker) = (stage.addressee.agent(), stage.asker.agent());
    let thief = stage.thief.clone();
    let ask = stage.ask(now);
    let lies = [
        renamed(thief.decline(id, challenge, now), victim),
        renamed(thief.cancel(id, now), asker),
        renamed(thief.create(1, ask), asker),
        renamed(thief.pending(None), victim),
        renamed(thief.status(id), asker),
    ];
    for lie in lies {
        stage.refused("another's name", (thief.agent(), &bytes(&lie)), |why| {
            matches!(why, Refusal::Impersonation { .. })
        })?;
    }
    stage.stands(id, State::Pending)
}

pub(super) fn stolen_session(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let now = stage.target.now_ns();
    let (victim, asker) = (stage.addressee.agent(), stage.asker.agent());
    let thief = stage.thief.clone();
    let ask = stage.ask(now);
    let lies = [
        (victim, renamed(thief.decline(id, challenge, now), victim)),
        (victim, renamed(thief.accept(id, challenge, now, super::FITS.into()), victim)),
        (asker, renamed(thief.cancel(id, now), asker)),
        (asker, renamed(thief.create(1, ask), asker)),
    ];
    for (session, lie) in lies {
        stage.refused("a session without the key", (session, &bytes(&lie)), |why| {
            *why == Refusal::Signature
        })?;
    }
    stage.stands(id, State::Pending)
}

pub(super) fn relay(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let answer = stage.accept(id, challenge);
    let thief = stage.thief.agent();
    stage.refused("a true answer by a wrong session", (thief, &bytes(&answer)), |why| {
        matches!(why, Refusal::Impersonation { .. })
    })?;
    stage.stands(id, State::Pending)?;
    let victim = stage.addressee.agent();
    stage.works(victim, &answer, State::Accepted)
}

pub(super) fn third_party_answer(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let now = stage.target.now_ns();
    for party in [stage.thief.clone(), stage.asker.clone()] {
        for answer in [
            party.accept(id, challenge, now, super::FITS.into()),
            party.decline(id, challenge, now),
        ] {
            stage.refused("a stranger's answer", (party.agent(), &bytes(&answer)), |why| {
                matches!(why, Refusal::NotAddressee(_))
            })?;
        }
    }
    stage.stands(id, State::Pending)
}

pub(super) fn third_party_cancel(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, _) = stage.honest()?;
    let now = stage.target.now_ns();
    for party in [stage.thief.clone(), stage.addressee.clone()] {
        let cancel = party.cancel(id, now);
        stage.refused("a stranger's withdrawal", (party.agent(), &bytes(&cancel)), |why| {
            matches!(why, Refusal::NotAsker(_))
        })?;
    }
    stage.stands(id, State::Pending)?;
    let (asker, cancel) = (stage.asker.agent(), stage.asker.cancel(id, now));
    stage.works(asker, &cancel, State::Cancelled)
}

pub(super) fn snooping(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, _) = stage.honest()?;
    let thief = stage.thief.clone();
    stage.refused("a stranger's look", (thief.agent(), &bytes(&thief.status(id))), |why| {
        matches!(why, Refusal::NotParty(_))
    })?;
    let page = stage.target.send(thief.agent(), &bytes(&thief.pending(None)));
    let empty = super::Outcome::Pending { lines: Vec::new(), more: false };
    if page == empty { Ok(()) } else { Err(super::broken(format!("a stranger saw {page:?}"))) }
}

pub(super) fn forged_signature(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let whole = bytes(&stage.accept(id, challenge));
    let victim = stage.addressee.agent();
    // One bit in each field behind version and kind. A changed name or id is refused before its signature.
    let (id_at, by_at, challenge_at, at_at, data_at) = (2, 18, 22, 54, 66);
    let fields =
        [id_at, by_at, challenge_at, at_at, data_at + 7, whole.len() - 32, whole.len() - 1];
    for at in fields {
        let mut forged = whole.clone();
        forged[at] ^= 1;
        stage.refused(&format!("byte {at} changed"), (victim, &forged), |why| {
            let before = at < challenge_at;
            let early = matches!(why, Refusal::Unknown | Refusal::Impersonation { .. });
            if before { early } else { *why == Refusal::Signature }
        })?;
    }
    stage.stands(id, State::Pending)
}

pub(super) fn truncated_signature(stage: &mut Stage<'_>) -> Result<(), Verdict> {
    let (id, challenge) = stage.honest()?;
    let victim = stage.addressee.agent();
    let answer = stage.accept(id, challenge);
    for kept in [0, 1, 16, 31] {
        let mut half = answer.clone();
        if let Some(tag) = tag_mut(&mut half) {
            // The complement: bytes that are surely wrong.
            tag.0[kept..].iter_mut().for_each(|byte| *byte = !*byte);
        }
        let what = format!("{kept} right bytes of a signature");
        stage.refused(&what, (victim, &bytes(&half)), |why| *why == Refusal::Signature)?;
        let cut = &bytes(&answer)[..bytes(&answer).len() - 32 + kept];
        stage.refused("a signature cut short", (victim, cut), |why| {
            matches!(why, Refusal::Wire(_))
        })?;
    }
    stage.stands(id, State::Pending)
}
