//! Events as payloads of the log, little endian; the log's frame gives the kind and the checksum.
//!
//! | kind | fields |
//! |---|---|
//! | [`REQUESTED`] | at u64, id 16, from u32, to u32, expires u64, digest 32, message n, schema n |
//! | [`CLOSED`] | at u64, id 16, state u8, 0 or (1, signature 32), 0 or (1, data n) |
//! | [`USED`] | at u64, digest 32 |
//! | [`VIOLATION`] | at u64, 0 or (1, agent u32), 0 or (1, id 16), code u8, severity u8, 0 or (1, signature 32) |

use super::auth::{Digest, Tag};
use super::event::{Audit, Event, What};
use super::refusal::{Refusal, Severity};
use super::state::State;
use super::wire::{Bounds, Fields, Sink as _, WireError};

/// Kind of [`Event::Requested`].
pub const REQUESTED: u16 = 1;
/// Kind of [`Event::Closed`].
pub const CLOSED: u16 = 2;
/// Kind of [`Event::Violation`].
pub const VIOLATION: u16 = 3;
/// Kind of [`Event::Used`].
pub const USED: u16 = 4;
/// Version of all of them.
pub const VERSION: u16 = 1;

fn maybe(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.put(&[u8::from(bytes.is_some())]);
    out.put(bytes.unwrap_or_default());
}

/// Appends the payload of an event; its kind.
pub fn encode(event: &Event, out: &mut Vec<u8>) -> u16 {
    match event {
        Event::Requested { at_ns, id, from, to, expires_ns, digest, message, schema } => {
            out.put(&at_ns.to_le_bytes());
            out.put(&id.to_bytes());
            out.put(&from.to_le_bytes());
            out.put(&to.to_le_bytes());
            out.put(&expires_ns.to_le_bytes());
            out.put(&digest.0);
            out.content(message);
            out.content(schema);
            REQUESTED
        }
        Event::Closed { at_ns, id, state, tag, data } => {
            out.put(&at_ns.to_le_bytes());
            out.put(&id.to_bytes());
            out.put(&[*state as u8]);
            maybe(out, tag.as_ref().map(|tag| &tag.0[..]));
            out.put(&[u8::from(data.is_some())]);
            if let Some(data) = data {
                out.content(data);
            }
            CLOSED
        }
        Event::Violation(audit) => {
            out.put(&audit.at_ns.to_le_bytes());
            maybe(out, audit.agent.map(u32::to_le_bytes).as_ref().map(|bytes| &bytes[..]));
            maybe(out, audit.id.map(super::Id::to_bytes).as_ref().map(|bytes| &bytes[..]));
            let What::Refused(code) = audit.what else { unreachable!("violations are refusals") };
            out.put(&[code, audit.severity as u8]);
            maybe(out, audit.tag.as_ref().map(|tag| &tag.0[..]));
            VIOLATION
        }
        Event::Used { at_ns, digest } => {
            out.put(&at_ns.to_le_bytes());
            out.put(&digest.0);
            USED
        }
    }
}

/// Reads a payload.
///
/// # Errors
/// [`WireError`]: no event was written like this.
pub fn decode(kind: u16, bytes: &[u8], bounds: &Bounds) -> Result<Event, WireError> {
    let mut from = Fields { bytes, at: 0 };
    let at_ns = from.u64()?;
    let event = match kind {
        REQUESTED => Event::Requested {
            at_ns,
            id: from.id()?,
            from: from.u32()?,
            to: from.u32()?,
            expires_ns: from.u64()?,
            digest: Digest(from.array()?),
            message: from.content(bounds.message_max)?,
            schema: from.content(bounds.schema_max)?,
        },
        CLOSED => Event::Closed {
            at_ns,
            id: from.id()?,
            state: from.terminal()?,
            tag: from.maybe(|from| from.array().map(Tag))?,
            data: from.maybe(|from| from.content(bounds.data_max))?,
        },
        VIOLATION => Event::Violation(Audit {
            at_ns,
            agent: from.maybe(Fields::u32)?,
            id: from.maybe(Fields::id)?,
            what: What::Refused(from.code()?),
            severity: from.severity()?,
            tag: from.maybe(|from| from.array().map(Tag))?,
        }),
        USED => Event::Used { at_ns, digest: Digest(from.array()?) },
        other => return Err(WireError::Kind(u8::try_from(other).unwrap_or(u8::MAX))),
    };
    from.end()?;
    Ok(event)
}

/// What holds for any bytes, also from a fuzzer: they are no event, or exactly one whose encoding they are.
///
/// # Panics
/// When that does not hold.
pub fn check_record(kind: u16, bytes: &[u8]) {
    if let Ok(event) = decode(kind, bytes, &Bounds::default()) {
        let mut again = Vec::new();
        assert_eq!((encode(&event, &mut again), &again[..]), (kind, bytes), "{event:?}");
    }
}

impl Fields<'_> {
    pub(super) fn maybe<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(WireError::Value { at: self.at - 1 }),
        }
    }

    fn known<T>(&mut self, known: impl FnOnce(u8) -> Option<T>) -> Result<T, WireError> {
        let byte = self.byte()?;
        known(byte).ok_or(WireError::Value { at: self.at - 1 })
    }

    pub(super) fn terminal(&mut self) -> Result<State, WireError> {
        self.known(|byte| State::from_number(byte).filter(|state| state.is_terminal()))
    }

    fn code(&mut self) -> Result<u8, WireError> {
        self.known(|byte| (usize::from(byte) < Refusal::CODES).then_some(byte))
    }

    fn severity(&mut self) -> Result<Severity, WireError> {
        let all = [Severity::Info, Severity::Medium, Severity::High, Severity::Critical];
        self.known(|byte| all.into_iter().find(|severity| *severity as u8 == byte))
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
