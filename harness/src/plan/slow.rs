//! What a run plants to be slow, so that the attribution can be tested.

use serde::{Deserialize, Serialize};

/// In what way an agent is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlowKind {
    /// It computes in the turn that answers.
    Compute,
    /// It allocates and frees in the turn that answers.
    Alloc,
    /// It touches fresh memory in the turn that answers.
    Faults,
    /// It awaits a timer before it serves, and takes no other message meanwhile.
    Timer,
    /// The same, and requests are sent to it besides its share.
    Flood,
}

const KINDS: [(&str, SlowKind); 5] = [
    ("compute", SlowKind::Compute),
    ("alloc", SlowKind::Alloc),
    ("faults", SlowKind::Faults),
    ("timer", SlowKind::Timer),
    ("flood", SlowKind::Flood),
];

impl SlowKind {
    /// Name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("unknown", |(name, _)| name)
    }

    /// Whether the agent waits, and does not keep its core.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(self, Self::Timer | Self::Flood)
    }
}

/// Slowness planted in one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowPlant {
    /// In what way.
    pub kind: SlowKind,
    /// For how long each time, ns.
    pub ns: u64,
    /// Index of the agent.
    pub agent: u32,
    /// Each so-many-th request that it takes; of a flood: each so-many-th of every agent is sent to it, and
    /// it is slow with all.
    pub every: u32,
}

/// Longest planted slowness, ns.
pub(super) const SLOW_MAX_NS: u64 = 10_000_000_000;

/// Why planted slowness cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the slowness {text:?} is not understood\n  cause: {cause}\n  remedy: write kind=compute,ms=5,agent=17,every=10 (kinds: compute alloc faults timer flood)"
)]
pub struct SlowError {
    /// As given.
    pub text: String,
    /// What is wrong.
    pub cause: String,
}

/// Reads `kind=compute,ms=5,agent=17,every=10`; without `every` it is each one.
///
/// # Errors
/// [`SlowError`] with the first thing that is not understood.
pub fn parse_slow(text: &str) -> Result<SlowPlant, SlowError> {
    read(text).map_err(|cause| SlowError { text: text.to_owned(), cause })
}

fn read(text: &str) -> Result<SlowPlant, String> {
    let (mut kind, mut ns, mut agent, mut every) = (None, None, None, 1);
    for part in text.split(',') {
        let (key, value) =
            part.split_once('=').ok_or_else(|| format!("{part:?} is not written name=value"))?;
        match (key.trim(), value.trim()) {
            ("kind", name) => {
                let found = KINDS.iter().find(|(known, _)| *known == name);
                kind = Some(found.ok_or_else(|| format!("there is no kind {name:?}"))?.1);
            }
            ("ms", value) => ns = Some(milliseconds(value)?),
            ("agent", index) => {
                let index = index.replace('_', "").parse();
                agent = Some(index.map_err(|_| format!("{value:?} is no agent's index"))?);
            }
            ("every", number) => {
                let number = number.parse::<u32>().ok().filter(|number| *number > 0);
                every = number.ok_or_else(|| format!("{value:?} is no number from 1"))?;
            }
            (key, _) => {
                return Err(format!("there is no {key:?}; it has kind, ms, agent and every"));
            }
        }
    }
    Ok(SlowPlant {
        kind: kind.ok_or("it names no kind")?,
        ns: ns.ok_or("it names no ms")?,
        agent: agent.ok_or("it names no agent")?,
        every,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1 us and 10 s, as was just looked"
)]
fn milliseconds(text: &str) -> Result<u64, String> {
    let ms: f64 = text.parse().map_err(|_| format!("{text:?} is no number of milliseconds"))?;
    let ns = (ms * 1e6).round();
    if ns >= 1_000.0 && ns <= SLOW_MAX_NS as f64 {
        Ok(ns as u64)
    } else {
        Err(format!("{text} ms does not lie between 0.001 and 10000"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowness_is_read_as_it_is_written() {
        let slow = parse_slow("kind=compute,ms=5,agent=17,every=10").expect("as documented");
        let wanted = SlowPlant { kind: SlowKind::Compute, ns: 5_000_000, agent: 17, every: 10 };
        assert_eq!(slow, wanted);
        assert_eq!(parse_slow("agent=1_7,ms=0.5,kind=flood").map(|slow| slow.ns), Ok(500_000));
        for (name, kind) in KINDS {
            assert_eq!(kind.name(), name);
            assert_eq!(serde_json::to_string(&kind).expect("a name"), format!("{name:?}"));
        }
    }

    #[test]
    fn what_is_not_understood_says_what() {
        for (text, cause) in [
            ("", "name=value"),
            ("kind=slow,ms=1,agent=1", "no kind"),
            ("ms=1,agent=1", "names no kind"),
            ("kind=alloc,agent=1", "names no ms"),
            ("kind=alloc,ms=1", "names no agent"),
            ("kind=alloc,ms=0,agent=1", "between"),
            ("kind=alloc,ms=nan,agent=1", "between"),
            ("kind=alloc,ms=99999,agent=1", "between"),
            ("kind=alloc,ms=1,agent=x", "index"),
            ("kind=alloc,ms=1,agent=1,every=0", "from 1"),
            ("kind=alloc,ms=1,agent=1,rate=0", "there is no"),
        ] {
            let error = parse_slow(text).expect_err(text).to_string();
            assert!(error.contains(cause) && error.contains("remedy:"), "{text}: {error}");
        }
    }
}
