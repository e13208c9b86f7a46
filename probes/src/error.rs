//! A missing capability is a stated mode, never a zero.

/// Why a figure could not be measured, and what would make it measurable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// Where the figure would come from.
    pub source: &'static str,
    /// What prevented it.
    pub cause: String,
    /// What the reader can do.
    pub remedy: String,
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unknown ({}): {}; remedy: {}", self.source, self.cause, self.remedy)
    }
}

impl std::error::Error for Unavailable {}
