//! Checks that can be left out, in our own tests only: an attack suite that finds nothing proves nothing
//! until it has found each of these. Outside of tests the type has no values but none.

/// A check that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Hole {
    /// Signatures are not verified.
    Signature = 1,
    /// Only the first half of a signature is compared.
    SignatureHalf = 1 << 1,
    /// A nonce may be used again.
    NonceReuse = 1 << 2,
    /// Whoever signs may cancel.
    CancelByAnyone = 1 << 3,
    /// Whoever signs may answer.
    RespondByAnyone = 1 << 4,
    /// Deadlines are not looked at.
    ExpiryIgnored = 1 << 5,
    /// What ended may end again.
    SecondEnding = 1 << 6,
    /// Data need not fit.
    SchemaUnchecked = 1 << 7,
    /// A session may speak as anybody.
    Impersonation = 1 << 8,
    /// No limits.
    Limits = 1 << 9,
}

/// The checks that are left out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Holes {
    #[cfg(test)]
    bits: u16,
}

impl Holes {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    #[cfg(test)]
    pub(crate) const fn one(hole: Hole) -> Self {
        Self { bits: hole as u16 }
    }

    #[cfg(test)]
    pub(crate) const fn has(self, hole: Hole) -> bool {
        self.bits & hole as u16 != 0
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same call with and without tests")]
    pub(crate) const fn has(self, _: Hole) -> bool {
        false
    }
}

#[cfg(test)]
impl Hole {
    pub(crate) const ALL: [Self; 10] = [
        Self::Signature,
        Self::SignatureHalf,
        Self::NonceReuse,
        Self::CancelByAnyone,
        Self::RespondByAnyone,
        Self::ExpiryIgnored,
        Self::SecondEnding,
        Self::SchemaUnchecked,
        Self::Impersonation,
        Self::Limits,
    ];
}
