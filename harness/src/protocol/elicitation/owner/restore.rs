//! An owner made again: from the events of the log, or from a snapshot of it.

use std::sync::Arc;

use super::super::event::Event;
use super::super::message::{Id, Notice};
use super::super::state::{State, Step};
use super::{Body, Content, Owner, Record};

impl Owner {
    /// Takes an event of the log, in order, into an owner that is being restored. `offset_ns` is added to
    /// the event's instants: 0 while the same monotonic clock runs. What is past its deadline expires at
    /// the next [`Owner::expire`].
    ///
    /// # Errors
    /// What cannot have been written by this owner; the owner is unchanged.
    pub fn restore(&mut self, event: &Event, offset_ns: i64) -> Result<(), RestoreError> {
        match event {
            Event::Requested { at_ns, id, from, to, expires_ns, digest, message, schema } => {
                if id.core() != self.config.core {
                    return Err(RestoreError::AnotherOwner { id: *id });
                }
                if self.records.contains_key(id) {
                    return Err(RestoreError::Twice { id: *id });
                }
                let compiled = self.schemas.compiled(schema);
                let (message, text) = (Arc::clone(message), Arc::clone(schema));
                let schema = compiled.map_err(|_| RestoreError::Schema { id: *id })?;
                let body = Body::Pending(Content { message, text, schema });
                let expires_ns = expires_ns.saturating_add_signed(offset_ns);
                let created_ns = at_ns.saturating_add_signed(offset_ns);
                self.nonces.note(created_ns, *digest);
                let (from, to, digest) = (*from, *to, *digest);
                self.insert(*id, Record { from, to, created_ns, expires_ns, digest, body });
            }
            Event::Closed { at_ns, id, state, tag, .. } => {
                let step = match state {
                    State::Accepted => Step::Accept,
                    State::Declined => Step::Decline,
                    State::Cancelled => Step::Cancel,
                    State::Expired => Step::Expire,
                    State::Pending => return Err(RestoreError::NoEnd { id: *id }),
                };
                match self.records.get(id).map(|record| &record.body) {
                    None => return Err(RestoreError::NeverBegan { id: *id }),
                    Some(Body::Closed(..)) => return Err(RestoreError::Twice { id: *id }),
                    Some(Body::Pending(_)) => {}
                }
                self.close(at_ns.saturating_add_signed(offset_ns), *id, step, *tag);
            }
            Event::Used { at_ns, digest } => {
                self.nonces.note(at_ns.saturating_add_signed(offset_ns), *digest);
            }
            Event::Violation(_) => {}
        }
        Ok(())
    }

    /// Events from which [`Owner::restore`] makes this owner's elicitations and nonces again, in order. Of
    /// those that have ended, the contents are not kept.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Event> {
        let mut events: Vec<Event> =
            self.nonces.uses().map(|(at_ns, digest)| Event::Used { at_ns, digest }).collect();
        let (nothing, anything): (Arc<[u8]>, Arc<[u8]>) = (b""[..].into(), b"true"[..].into());
        let ended = self.closed.iter().map(|(at_ns, id)| (*id, Some(*at_ns)));
        for (id, ended_ns) in ended.chain(self.deadlines.iter().map(|(_, id)| (*id, None))) {
            let Some(record) = self.records.get(&id) else { continue };
            let Record { from, to, created_ns: at_ns, expires_ns, digest, ref body } = *record;
            let (message, schema) = match body {
                Body::Pending(content) => (&content.message, &content.text),
                Body::Closed(..) => (&nothing, &anything),
            };
            let (message, schema) = (Arc::clone(message), Arc::clone(schema));
            events.push(Event::Requested {
                at_ns,
                id,
                from,
                to,
                expires_ns,
                digest,
                message,
                schema,
            });
            if let (Body::Closed(state, tag), Some(at_ns)) = (body, ended_ns) {
                events.push(Event::Closed { at_ns, id, state: *state, tag: *tag, data: None });
            }
        }
        events
    }

    /// The notices of everything that is pending, in the order of deadlines: after a restart the
    /// addressees are asked again. Those who have answered already are refused as late or as replays.
    pub fn asked_again(&self) -> impl Iterator<Item = Notice> {
        self.deadlines.iter().filter_map(|(_, id)| self.ask(*id))
    }
}

/// An event that does not follow from those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Of another core.
    #[error("{id} belongs to another owner")]
    AnotherOwner {
        /// Which.
        id: Id,
    },
    /// It began or ended twice.
    #[error("{id} began or ended twice")]
    Twice {
        /// Which.
        id: Id,
    },
    /// It ended and never began, or began before the oldest event that is left.
    #[error("{id} ended and never began")]
    NeverBegan {
        /// Which.
        id: Id,
    },
    /// Its last state is none that ends.
    #[error("{id} ended as pending")]
    NoEnd {
        /// Which.
        id: Id,
    },
    /// Its schema does not compile any more.
    #[error("the schema of {id} does not compile")]
    Schema {
        /// Which.
        id: Id,
    },
}
